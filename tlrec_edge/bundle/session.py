"""Run a bundle's onnx graphs, and check their inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state

from tlrec_edge.bundle.format import MAX_MAGNITUDE
from tlrec_edge.errors import BundleError
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
        shape: tuple[int, int],
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

    Raises BundleError if the graph does not load, or does not have the float ``outputs``.
    """

    def __init__(self, blob: bytes, name: str, outputs: Sequence[str], threads: int = 1) -> None:
        self._blob, self._name, self._outputs, self._threads = blob, name, list(outputs), threads
        self.session = load_session(self._blob, self._name, self._threads)
        try:
            float_outputs = {
                node.name for node in self.session.get_outputs() if node.type == "tensor(float)"
            }
            self.inputs: dict[str, list[Any]] = {
                node.name: node.shape for node in self.session.get_inputs()
            }
        except UnicodeDecodeError as error:
            raise BundleError(
                f"{name} was altered: it has names that are not UTF-8; export the bundle again"
            ) from error
        for output in outputs:
            if output not in float_outputs:
                raise BundleError(f"{name} has no float output '{output}'; export the bundle again")

    def reload(self) -> None:
        """Create a new session, because one created before a fork must not be used after it."""
        self.session = load_session(self._blob, self._name, self._threads)

    def run(self, feed: Mapping[str, NDArray[Any]], shape: tuple[int, int]) -> list[Floats]:
        """Return the outputs, each of ``shape``.

        Raises BundleError if the graph fails, or if an output has another shape, is NaN or is
        absurdly large.
        """
        try:
            outputs: list[Floats] = self.session.run(self._outputs, feed)
        except ORT_ERRORS as error:
            raise run_error(self._name, error) from error
        for name, out in zip(self._outputs, outputs, strict=True):
            if out.shape != shape:
                raise BundleError(
                    f"{self._name}: the output '{name}' has shape {out.shape}, "
                    f"expected {shape}; export the bundle again"
                )
            if not _is_finite(out.reshape(-1)):
                raise _not_finite(self._name, name)
        return outputs

    def bind(self, inputs: Mapping[str, Floats], shape: tuple[int, int]) -> Binding:
        """Return the graph bound to the caller's input arrays, for its first output of ``shape``.

        The binding is only valid until ``reload``.
        """
        return Binding(self.session, self._name, self._outputs[0], inputs, shape)

    def check_inputs(self, expected: Mapping[str, tuple[int | None, ...]]) -> None:
        """Raise BundleError unless the graph has exactly these inputs; None is any length."""
        if set(self.inputs) != set(expected):
            raise BundleError(
                f"{self._name} has the inputs {sorted(self.inputs)}, expected {sorted(expected)}; "
                "export the bundle again"
            )
        for name, shape in expected.items():
            if not _fits(self.inputs[name], shape):
                raise BundleError(
                    f"{self._name}: the input '{name}' has shape {self.inputs[name]}, "
                    f"expected {list(shape)}; export the bundle again"
                )


def _fits(shape: Sequence[Any], expected: Sequence[int | None]) -> bool:
    """Return whether a graph takes arrays of a shape; its free axes have a name, not a length."""
    return len(shape) == len(expected) and all(
        size is None or not isinstance(axis, int) or axis == size
        for axis, size in zip(shape, expected, strict=True)
    )


def load_session(
    blob: bytes, name: str, threads: int = 1, external: Mapping[str, NDArray[Any]] | None = None
) -> Any:
    """Return an onnxruntime session of a graph.

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
