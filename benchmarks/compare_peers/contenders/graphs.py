"""A plain export of the same model in ONNX runtimes, and a plain scan of the catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contender import Answer, Call, Contender
from ..data import Data


class _Graphs(Contender):
    """A runtime: ``open`` loads the graph at ``path``, ``run`` runs it on two inputs."""

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        self.path = str(data.path("scan.onnx" if model == "scan" else f"plain-{model}.onnx"))
        self.open()

    @classmethod
    def build(cls, data: Data, model: str) -> None:
        if model == "scan" and not data.path("scan.onnx").is_file():
            from ..model import write_scan

            write_scan(data.path("scan.onnx"), data.load("vectors"))

    def open(self) -> None:
        raise NotImplementedError

    def run(self, first: Any, second: Any) -> Any:
        raise NotImplementedError

    def request(self) -> Call:
        histories, candidates = self.data.load("histories"), self.data.load("candidates")
        return Call(
            lambda i: (histories[i : i + 1], np.ascontiguousarray(candidates[i : i + 1, :100])),
            self.run,
            lambda i, out: Answer(candidates[i, :100], np.array(out[0]).reshape(-1)),
        )

    def top(self) -> Call:
        queries, k = self.data.load("queries-fast"), np.array([10])
        return Call(
            lambda i: (queries[i][:, None], k),
            self.run,
            lambda i, out: Answer(np.array(out[1]), np.array(out[0])),
        )

    top_exact = top


class OnnxRuntime(_Graphs):
    """onnxruntime."""

    about = "InferenceSession of the plain export, one thread; catalogue: MatMul and TopK"

    def open(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self.path, options, providers=["CPUExecutionProvider"]
        )
        self._names = [node.name for node in self._session.get_inputs()]

    def run(self, first: Any, second: Any) -> Any:
        return self._session.run(None, {self._names[0]: first, self._names[1]: second})


class OpenVino(_Graphs):
    """OpenVINO."""

    about = "compiled for CPU from the plain export, one thread, latency hint"

    def open(self) -> None:
        import openvino

        options = {
            "INFERENCE_NUM_THREADS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        core = openvino.Core()
        self._request = core.compile_model(
            core.read_model(self.path), "CPU", options
        ).create_infer_request()
        self._outputs = self._request.model_outputs

    def run(self, first: Any, second: Any) -> Any:
        outputs = self._request.infer([first, second], share_inputs=True, share_outputs=True)
        return [outputs[name] for name in self._outputs]
