"""The first pass of an exact top-k: products of a query with all prefixes, and their block maxima.

The products come from one onnxruntime node (MatMulInteger), which keeps its own packed copy of the
prefixes and is five times as fast as numpy. Both sides are uint8 with a zero point of 128: products
of uint8 and int8 saturate on processors without VNNI, which would break the bound. The graph also
returns the maximum of each block of products, so that numpy reads only a few blocks.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import REMEDY, SCAN_BLOCK
from tlrec_edge.bundle.session import (
    ORT_ERRORS,
    check_graph,
    check_run,
    load_session,
    run_error,
)
from tlrec_edge.errors import BundleError, MissingExtraError
from tlrec_edge.types import Bytes, Ints

ZERO_POINT = 128
"""Added to an int8 entry to store it as uint8."""
INT8_MAX = 127
"""Largest magnitude of an entry of a query or of a prefix."""
_CHECKED_COLUMNS, _CHUNK = 1024, 1 << 16


class _Buffers(NamedTuple):
    """One thread's arrays, which the session reads and writes in place."""

    binding: Any
    query: Bytes
    """(width,)"""
    products: Ints
    """(padded candidates,)"""
    maxima: Ints
    """(blocks,)"""


def scan_graph(width: int, count: int) -> bytes:
    """Return the graph that multiplies a query (1, width) with prefixes (width, count).

    The graph refers to ``head_columns.npy`` instead of holding the prefixes. Raises
    MissingExtraError if onnx is not installed.
    """
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise MissingExtraError("writing the graph of the prefix bound", "build") from error
    # The names "heads" and "head_scan" are part of bundle format 1.
    columns = TensorProto(name="heads", data_type=TensorProto.UINT8, dims=[width, count])
    columns.data_location = TensorProto.EXTERNAL
    columns.external_data.add(key="location", value="head_columns.npy")
    constants = {
        "zero": np.array(ZERO_POINT, np.uint8),
        "last": np.array([1]),
        "blocks": np.array([count // SCAN_BLOCK, SCAN_BLOCK]),
    }
    node, info, int32 = helper.make_node, helper.make_tensor_value_info, TensorProto.INT32
    nodes = [
        node("MatMulInteger", ["query", "heads", "zero", "zero"], ["products"]),
        node("Reshape", ["products", "blocks"], ["blocked"]),
        node("ReduceMax", ["blocked", "last"], ["maxima"], keepdims=0),
    ]
    inputs = [info("query", TensorProto.UINT8, [1, width])]
    outputs = [
        info("products", int32, [1, count]),
        info("maxima", int32, [count // SCAN_BLOCK]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "head_scan", inputs, outputs, [columns, *initializers])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    blob: bytes = model.SerializeToString()
    return blob


class PrefixScan:
    """The graph over a bundle's prefixes, loaded on first use. Safe to use from many threads."""

    def __init__(self, blob: bytes, name: str, columns: Bytes, threads: int = 1) -> None:
        self._blob, self._name = blob, name
        self._columns, self._threads = columns, threads
        self.reload()

    @property
    def nbytes(self) -> int:
        """The bytes of the packed copy and of one thread's products; 0 before the first use."""
        return 0 if self._session is None else self._columns.nbytes + 4 * self._columns.shape[1]

    def reload(self) -> None:
        """Forget the session: one made before a fork must not be used after it."""
        self._session: Any = None
        self._exact = False
        self._lock, self._local = threading.Lock(), threading.local()

    def __call__(self, query: NDArray[np.int8]) -> tuple[Ints, Ints] | None:
        """Return the products of ``query`` (width,) with all prefixes, and their block maxima.

        Both include the padding and are overwritten by the thread's next call. Return None on a
        machine with inexact integer arithmetic. Raises BundleError if the graph does not run.
        """
        if self._session is None:
            self._load()
        if not self._exact:
            return None
        buffers = getattr(self._local, "buffers", None)
        if buffers is None:
            buffers = self._local.buffers = self._bind(self._session)
        return self._run(self._session, buffers, query)

    def check(self) -> None:
        """Compare the products of all prefixes with numpy's, for random queries.

        Raises BundleError if the graph does not run, or computes something else.
        """
        self._load()
        if not self._exact:  # this machine never uses the graph
            return
        rng, count = np.random.default_rng(), self._columns.shape[1]
        buffers = self._bind(self._session)
        for _ in range(2):
            query = rng.integers(-INT8_MAX, INT8_MAX + 1, len(self._columns)).astype(np.int8)
            products, maxima = self._run(self._session, buffers, query)
            for start in range(0, count, _CHUNK):
                part = slice(start, start + _CHUNK)
                if not np.array_equal(products[part], self._expected(query, part)):
                    raise self._wrong_products()
            if not np.array_equal(maxima, products.reshape(-1, SCAN_BLOCK).max(1)):
                raise self._wrong_products()

    def _wrong_products(self) -> BundleError:
        return BundleError(f"{self._name} does not compute the products of the prefixes; {REMEDY}")

    def _load(self) -> None:
        with self._lock:
            if self._session is None:
                session = self._checked_session()
                self._exact = self._is_exact(session)
                self._session = session

    def _checked_session(self) -> Any:
        width, count = self._columns.shape
        inputs, external = {"query": (1, width)}, {"heads": self._columns}
        outputs = {"products": (1, count), "maxima": (count // SCAN_BLOCK,)}
        graph = check_graph(self._blob, self._name, inputs, external)
        check_run(graph, self._name, inputs, outputs, dtype="<i4")
        return load_session(self._blob, self._name, self._threads, external)

    def _is_exact(self, session: Any) -> bool:
        """Return whether a random and an extreme query give the products that numpy computes."""
        width, count = self._columns.shape
        rng = np.random.default_rng(0)
        buffers = self._bind(session)
        for magnitude in (INT8_MAX, 1):
            entries = rng.integers(-magnitude, magnitude + 1, width) * (INT8_MAX // magnitude)
            query = np.asarray(entries, np.int8)
            products, maxima = self._run(session, buffers, query)
            first = slice(0, _CHECKED_COLUMNS)
            last = slice(max(0, count - _CHECKED_COLUMNS), count)
            for part in (first, last):
                if not np.array_equal(products[part], self._expected(query, part)):
                    return False
            if not np.array_equal(maxima, products.reshape(-1, SCAN_BLOCK).max(1)):
                return False
        return True

    def _expected(self, query: NDArray[np.int8], part: slice) -> Ints:
        """Return the products of a query with some prefixes, computed by numpy."""
        products: Ints = query.astype(np.int32) @ (
            self._columns[:, part].astype(np.int32) - ZERO_POINT
        )
        return products

    def _bind(self, session: Any) -> _Buffers:
        width, count = self._columns.shape
        query = np.zeros((1, width), np.uint8)
        products, maxima = np.zeros((1, count), np.int32), np.zeros(count // SCAN_BLOCK, np.int32)
        binding = session.io_binding()
        try:
            binding.bind_input("query", "cpu", 0, np.uint8, query.shape, query.ctypes.data)
            for name, output in (("products", products), ("maxima", maxima)):
                address = output.ctypes.data
                binding.bind_output(name, "cpu", 0, np.int32, output.shape, address)
        except ORT_ERRORS as error:
            raise run_error(self._name, error) from error
        return _Buffers(binding, query[0], products[0], maxima)

    def _run(self, session: Any, buffers: _Buffers, query: NDArray[np.int8]) -> tuple[Ints, Ints]:
        np.add(query, ZERO_POINT, out=buffers.query, casting="unsafe", dtype=np.int16)
        try:
            session.run_with_iobinding(buffers.binding)
        except ORT_ERRORS as error:
            raise run_error(self._name, error) from error
        return buffers.products, buffers.maxima
