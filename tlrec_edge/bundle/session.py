"""One onnxruntime session: single-threaded unless told, and checked against the names the bundle format fixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tlrec_edge.bundle.format import MAX_MAGNITUDE
from tlrec_edge.errors import BundleError

_MAX_SQUARED_NORM = MAX_MAGNITUDE**2


def _check_finite(out: NDArray[np.float32], graph: str, name: str) -> None:
    flat = out.reshape(-1)
    if (
        not flat.dot(flat) <= _MAX_SQUARED_NORM
    ):  # the cheapest test that NaN, infinity and absurd values fail
        raise BundleError(
            f"{graph} gives NaN or absurd values for '{name}'; export the bundle again"
        )


def run_error(graph: str, error: Exception) -> BundleError:
    return BundleError(
        f"{graph} does not run: {str(error).splitlines()[0]:.300}; export the bundle again"
    )


class Binding:
    """A graph tied to fixed arrays: fill the inputs, then ``run``. Not for two threads at once."""

    def __init__(
        self,
        session: Any,
        graph: str,
        output: str,
        inputs: Mapping[str, NDArray[np.float32]],
        shape: tuple[int, int],
    ) -> None:
        self.inputs, self._out = inputs, np.zeros(shape, np.float32)
        self._flat = self._out.reshape(-1)
        self._session, self._names = session, (graph, output)
        self._binding = session.io_binding()
        # By address: what the session reads and writes are these arrays themselves.
        for name, array in inputs.items():
            self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._binding.bind_output(output, "cpu", 0, np.float32, shape, self._out.ctypes.data)

    def belongs_to(self, graph: Graph) -> bool:
        """Say whether this is still the session of ``graph``."""
        return self._session is graph.session

    def run(self) -> NDArray[np.float32]:
        """Return the output, which the next call overwrites. Raises BundleError for NaN or absurd values."""
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # as in Graph
            raise run_error(self._names[0], error) from error
        if not self._flat.dot(self._flat) <= _MAX_SQUARED_NORM:
            _check_finite(self._out, *self._names)
        return self._out


class Graph:
    """A loaded graph. ``run`` may be called from many threads."""

    def __init__(self, blob: bytes, name: str, outputs: Sequence[str], threads: int = 1) -> None:
        self._blob, self._name, self._outputs, self._threads = blob, name, list(outputs), threads
        self.session = load_session(self._blob, self._name, self._threads)
        try:
            self.inputs: dict[str, list[Any]] = {
                node.name: node.shape for node in self.session.get_inputs()
            }
            missing = set(outputs) - {
                node.name for node in self.session.get_outputs() if node.type == "tensor(float)"
            }
        except UnicodeDecodeError as error:
            raise BundleError(
                f"{name} has names that are not UTF-8: altered; export the bundle again"
            ) from error
        if missing:
            raise BundleError(
                f"{name} has no float output '{missing.pop()}'; export the bundle again"
            )

    def reload(self) -> None:
        """Make a new session: one that was made before a fork must not be used after it."""
        self.session = load_session(self._blob, self._name, self._threads)

    def run(
        self, feed: Mapping[str, NDArray[Any]], shape: tuple[int, int]
    ) -> list[NDArray[np.float32]]:
        """Return the outputs, each of ``shape``. Raises BundleError for other shapes and for NaN or absurd values."""
        try:
            found: list[NDArray[np.float32]] = self.session.run(self._outputs, feed)
        except Exception as error:  # as in _load
            raise run_error(self._name, error) from error
        for name, out in zip(self._outputs, found, strict=True):
            if out.shape != shape:
                raise BundleError(
                    f"{self._name} gives '{name}' of shape {out.shape}, expected {shape}; export again"
                )
            _check_finite(out, self._name, name)
        return found

    def bind(self, inputs: Mapping[str, NDArray[np.float32]], shape: tuple[int, int]) -> Binding:
        """Return the graph tied to arrays of the caller's, for one output of ``shape``: nothing is made or copied.

        For one thread alone, and until ``reload``.
        """
        return Binding(self.session, self._name, self._outputs[0], inputs, shape)

    def check_inputs(self, expected: Mapping[str, tuple[int | None, ...]]) -> None:
        """Raise BundleError unless the inputs are these, None standing for a free axis."""
        if set(self.inputs) != set(expected):
            raise BundleError(
                f"{self._name} takes {sorted(self.inputs)}, expected {sorted(expected)}; export again"
            )
        for name, expected_shape in expected.items():
            found = self.inputs[name]
            fits = len(found) == len(expected_shape) and all(
                w is None or not isinstance(f, int) or f == w
                for f, w in zip(found, expected_shape, strict=True)
            )
            if not fits:
                raise BundleError(
                    f"{self._name} takes '{name}' of shape {found}, expected {list(expected_shape)}; export again"
                )


def load_session(
    blob: bytes, name: str, threads: int = 1, external: Mapping[str, NDArray[Any]] | None = None
) -> Any:
    """Return a session of a graph that never spins; ``external`` are its constants elsewhere. Raises BundleError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Spinning workers of an idle server take the core from the request that needs it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        if external:
            values = [
                onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in external.values()
            ]
            options.add_external_initializers(list(external), values)
        # Without the fallback, which prints what went wrong and tries the same provider again.
        return onnxruntime.InferenceSession(
            blob, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's own errors share no base class
        reason = str(error).splitlines()[0]
        version = onnxruntime.__version__
        raise BundleError(
            f"{name} does not load in onnxruntime {version}: {reason:.300}"
        ) from error
