"""Check and run a bundle's onnx graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state

from tlrec_edge.bundle.format import MAX_MAGNITUDE
from tlrec_edge.errors import BundleError
from tlrec_edge.graph.check import CheckedGraph, Shapes
from tlrec_edge.graph.onnx_file import GraphError
from tlrec_edge.types import Floats

ORT_ERRORS: tuple[type[Exception], ...] = (
    *(RuntimeError, ValueError, TypeError),
    *(
        value
        for value in vars(onnxruntime_pybind11_state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
)
"""The errors of onnxruntime, which share no base class. Others that occur in a call are not the
graph's, such as the time limit that a signal handler raises."""
_MAX_SQUARED_NORM = MAX_MAGNITUDE**2
_REMEDY = "export the bundle again (docs/bundle-format.md lists what a graph may contain)"


def run_error(graph: str, error: Exception) -> BundleError:
    """Return the error for a graph that raises when it runs."""
    return BundleError(f"{graph} does not run: {_first_line(error)}; export the bundle again")


def _first_line(error: Exception) -> str:
    return f"{next(iter(str(error).splitlines()), type(error).__name__):.300}"


def _is_finite(flat: Floats) -> bool:
    # The cheapest test that fails for NaN, for infinity and for absurdly large values.
    return bool(flat.dot(flat) <= _MAX_SQUARED_NORM)


def _not_finite(graph: str, output: str) -> BundleError:
    return BundleError(
        f"{graph}: the output '{output}' is NaN or absurdly large; export the bundle again"
    )


class Binding:
    """A graph bound to fixed input and output arrays, so that a run allocates and copies nothing.

    Fill ``inputs``, then call ``run``. Only one thread may use a binding at a time.
    """

    def __init__(
        self,
        session: Any,
        graph: str,
        output: str,
        inputs: Mapping[str, Floats],
        shape: tuple[Any, ...],
    ) -> None:
        self.inputs, self._out = inputs, np.zeros(shape, np.float32)
        self._flat = self._out.reshape(-1)
        self._session, self._graph, self._output = session, graph, output
        self._binding = session.io_binding()
        # Bound by address: the session reads and writes these arrays directly.
        for name, array in inputs.items():
            self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._binding.bind_output(output, "cpu", 0, np.float32, shape, self._out.ctypes.data)

    def belongs_to(self, graph: Graph) -> bool:
        """Return whether this is bound to the current session of ``graph``."""
        return self._session is graph.session

    def run(self) -> Floats:
        """Return the output, which the next call overwrites.

        Raises BundleError if the graph fails, or if the output is NaN or absurdly large.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except ORT_ERRORS as error:
            raise run_error(self._graph, error) from error
        if not _is_finite(self._flat):
            raise _not_finite(self._graph, self._output)
        return self._out


class Graph:
    """A graph loaded into an onnxruntime session. Several threads may call ``run`` at once.

    ``inputs`` and ``outputs`` are the shapes that the graph must have; None is the number of rows.

    Raises BundleError if the graph contains what is not allowed, has other inputs or outputs, or
    does not load.
    """

    def __init__(
        self, blob: bytes, name: str, inputs: Shapes, outputs: Shapes, threads: int = 1
    ) -> None:
        self._blob, self._name, self._threads = blob, name, threads
        self.inputs, self._outputs = inputs, outputs
        self._checked = check_graph(blob, name, inputs)
        self._checked_rows: set[int] = set()
        self._check_run(1)
        self.session = load_session(blob, name, threads)

    def reload(self) -> None:
        """Create a new session, because one created before a fork must not be used after it."""
        self.session = load_session(self._blob, self._name, self._threads)

    def run(self, feed: Mapping[str, NDArray[Any]], rows: int) -> list[Floats]:
        """Return the outputs for inputs of ``rows`` rows.

        Raises BundleError if the graph fails or would exceed a limit, or if an output is NaN or
        absurdly large.
        """
        self._check_run(rows)
        try:
            outputs: list[Floats] = self.session.run(list(self._outputs), feed)
        except ORT_ERRORS as error:
            raise run_error(self._name, error) from error
        for name, out in zip(self._outputs, outputs, strict=True):
            if not _is_finite(out.reshape(-1)):
                raise _not_finite(self._name, name)
        return outputs

    def _check_run(self, rows: int) -> None:
        if rows not in self._checked_rows:
            check_run(self._checked, self._name, self.inputs, self._outputs, rows)
            self._checked_rows.add(rows)

    def bind(self, inputs: Mapping[str, Floats]) -> Binding:
        """Return the graph bound to the caller's input arrays of one row, for its first output.

        The binding is only valid until ``reload``.
        """
        output, shape = next(iter(self._outputs.items()))
        return Binding(self.session, self._name, output, inputs, (1, *shape[1:]))


def check_graph(
    blob: bytes, name: str, inputs: Shapes, external: Mapping[str, NDArray[Any]] | None = None
) -> CheckedGraph:
    """Return a graph after checking what its file contains, and its inputs.

    ``external`` are the constants that the file refers to but does not contain. Raises BundleError
    if the graph contains anything that is not allowed; ``name`` is its file in messages.
    """
    with _as_bundle_error(name):
        graph = CheckedGraph(blob)
        graph.check_external(external or {})
        graph.check_inputs(inputs)
    return graph


def check_run(
    graph: CheckedGraph,
    name: str,
    inputs: Shapes,
    outputs: Shapes,
    rows: int = 1,
    dtype: str = "<f4",
) -> None:
    """Check a run with inputs of ``rows`` rows, before it starts.

    Raises BundleError if it would exceed a limit, or not return ``outputs``.
    """
    with _as_bundle_error(name):
        graph.check_run(rows, inputs, outputs, dtype)


@contextmanager
def _as_bundle_error(name: str) -> Iterator[None]:
    try:
        yield
    except GraphError as error:
        raise BundleError(f"{name}: {error}; {_REMEDY}") from error


def load_session(
    blob: bytes, name: str, threads: int = 1, external: Mapping[str, NDArray[Any]] | None = None
) -> Any:
    """Return an onnxruntime session of a graph that ``check_graph`` and ``check_run`` accepted.

    ``external`` are constants that the graph refers to but does not contain. Raises BundleError if
    the graph does not load; ``name`` is its file in messages.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # By default idle threads spin, and take the core from another request that needs it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # By default, onnxruntime would guess the format from the bytes.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.log_severity_level = 3
    try:
        if external:
            values = [
                onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in external.values()
            ]
            options.add_external_initializers(list(external), values)
        # The fallback would print the error and then try the same provider again.
        return onnxruntime.InferenceSession(
            blob, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except ORT_ERRORS as error:
        version = onnxruntime.__version__
        raise BundleError(
            f"{name} does not load in onnxruntime {version}: {_first_line(error)}"
        ) from error
