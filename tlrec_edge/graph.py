"""One onnxruntime session: single-threaded unless told, and checked against the names the bundle format fixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tlrec_edge.errors import BundleError


class Graph:
    """A loaded graph. ``run`` may be called from many threads."""

    def __init__(self, blob: bytes, name: str, outputs: Sequence[str], threads: int = 1) -> None:
        self._blob, self._name, self._outputs, self._threads = blob, name, list(outputs), threads
        self._session = self._load()
        self.inputs: dict[str, list[Any]] = {node.name: node.shape for node in self._session.get_inputs()}
        missing = set(outputs) - {node.name for node in self._session.get_outputs()}
        if missing:
            raise BundleError(f"{name} has no output '{missing.pop()}'; export the bundle again")

    def reload(self) -> None:
        """Make a new session: one that was made before a fork must not be used after it."""
        self._session = self._load()

    def run(self, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self._session.run(self._outputs, feed)
        return found

    def check_inputs(self, expected: Mapping[str, tuple[int | None, ...]]) -> None:
        """Raise BundleError unless the inputs are these, None standing for a free axis."""
        if set(self.inputs) != set(expected):
            raise BundleError(f"{self._name} takes {sorted(self.inputs)}, expected {sorted(expected)}; export again")
        for name, want in expected.items():
            found = self.inputs[name]
            fits = len(found) == len(want) and all(
                w is None or not isinstance(f, int) or f == w for f, w in zip(found, want, strict=True)
            )
            if not fits:
                raise BundleError(f"{self._name} takes '{name}' of shape {found}, expected {list(want)}; export again")

    def _load(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # Spinning workers of an idle server take the core from the request that needs it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(self._blob, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors share no base class
            reason = str(error).splitlines()[0]
            version = onnxruntime.__version__
            raise BundleError(f"{self._name} does not load in onnxruntime {version}: {reason:.300}") from error
