"""The first pass of a top-k: the products of a query with all rows, and block maxima.

A scan is a function of the rows (C, K) int8 that returns a function of the query (K,) int8. The
latter returns the products and the maximum of every block of 128, or the 100 best rows if a
library returns nothing else. The blocks are free: onnxruntime takes consecutive rows, numpy
rows at equal distances, because each is fastest at that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Rows = NDArray[np.int8]
Scan = Callable[[Rows], Any]
BLOCK, BEST = 128, 100


def ort_u8(rows: Rows) -> Any:
    """Return MatMulInteger of uint8 rows and query, zero points 128, and ReduceMax."""
    count, width = rows.shape
    columns = np.ascontiguousarray((rows.T.astype(np.int16) + 128).astype(np.uint8))
    value, node = helper.make_tensor_value_info, helper.make_node
    constants = {
        "rows": columns,
        "zero": np.array(128, np.uint8),
        "axis": np.array([1]),
        "blocks": np.array([-1, BLOCK]),
    }
    graph = helper.make_graph(
        [
            node("MatMulInteger", ["query", "rows", "zero", "zero"], ["products"]),
            node("Reshape", ["products", "blocks"], ["table"]),
            node("ReduceMax", ["table", "axis"], ["maxima"], keepdims=0),
        ],
        "scan",
        [value("query", TensorProto.UINT8, [1, width])],
        [
            value("products", TensorProto.INT32, [1, count]),
            value("maxima", TensorProto.INT32, [count // BLOCK]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    query, binding = np.zeros((1, width), np.uint8), session.io_binding()
    products, maxima = np.zeros((1, count), np.int32), np.zeros(count // BLOCK, np.int32)
    binding.bind_input("query", "cpu", 0, np.uint8, query.shape, query.ctypes.data)
    for name, out in (("products", products), ("maxima", maxima)):
        binding.bind_output(name, "cpu", 0, np.int32, out.shape, out.ctypes.data)

    def scan(given: NDArray[np.int8]) -> Any:
        np.add(given, 128, out=query[0], dtype=np.int16, casting="unsafe")
        session.run_with_iobinding(binding)
        return products[0], maxima

    return scan


def numpy_f32(rows: Rows) -> Any:
    """Blocks of rows widened to float32 and multiplied, as numpy alone does it."""
    count, width = rows.shape
    products, buffer = np.empty(count, np.float32), np.empty((4096, width), np.float32)

    def scan(given: NDArray[np.int8]) -> Any:
        query = given.astype(np.float32)
        for start in range(0, count, 4096):
            part = rows[start : start + 4096]
            block = buffer[: len(part)]
            block[...] = part
            np.matmul(block, query, out=products[start : start + 4096])
        return products, products.reshape(BLOCK, -1).max(0)

    return scan


def numkong_packed(rows: Rows) -> Any:
    """dots_packed of int8, unpadded, and numpy's maxima."""
    import numkong

    packed = numkong.dots_pack(rows)
    out = numkong.zeros((1, len(rows)), dtype="int32")
    products = np.asarray(out)[0]

    def scan(given: NDArray[np.int8]) -> Any:
        numkong.dots_packed(given[None], packed, out=out)
        return products, products.reshape(BLOCK, -1).max(0)

    return scan


def numkong_64(rows: Rows) -> Any:
    """The same with zeros up to 64 columns, the width that its kernel is made for."""
    width = -rows.shape[1] % 64
    scan = numkong_packed(np.pad(rows, ((0, 0), (0, width))))
    return lambda given: scan(np.pad(given, (0, width)))


def _faiss(index: Any, rows: Rows) -> Any:
    import faiss

    faiss.omp_set_num_threads(1)
    values = rows.astype(np.float32)
    index.train(values)
    index.add(values)
    return lambda given: index.search(given[None].astype(np.float32), BEST)[1][0]


def faiss_flat(rows: Rows) -> Any:
    """IndexFlatIP of float32."""
    import faiss

    return _faiss(faiss.IndexFlatIP(rows.shape[1]), rows)


def faiss_sq8(rows: Rows) -> Any:
    """IndexScalarQuantizer, the bytes themselves (QT_8bit_direct_signed)."""
    import faiss

    kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
    return _faiss(faiss.IndexScalarQuantizer(rows.shape[1], kind, faiss.METRIC_INNER_PRODUCT), rows)


def faiss_fastscan(rows: Rows) -> Any:
    """IndexPQFastScan, half a byte a pair of columns: approximate."""
    import faiss

    return _faiss(
        faiss.IndexPQFastScan(rows.shape[1], rows.shape[1] // 2, 4, faiss.METRIC_INNER_PRODUCT),
        rows,
    )


SCANS: dict[str, Scan] = {
    "onnxruntime u8": ort_u8,
    "numpy": numpy_f32,
    "numkong": numkong_packed,
    "numkong, 64 wide": numkong_64,
    "faiss Flat": faiss_flat,
    "faiss SQ8": faiss_sq8,
    "faiss PQFastScan": faiss_fastscan,
}
