"""torch-rechub's DSSM as its own exporter writes it: one row per pair, in onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contender import Answer, Call, Contender, Floats
from ..data import Data


def _model(data: Data) -> Any:
    import torch
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.basic.initializers import RandomNormal
    from torch_rechub.models.matching import DSSM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    items, dim = data.load("vectors").shape
    # By default untrained scores differ only by the rounding of floats, so spread them out.
    shape = {"vocab_size": items, "embed_dim": dim, "initializer": RandomNormal(0, 1)}
    user = [SequenceFeature("history", pooling="mean", **shape)]
    item = [SparseFeature("item", **shape)]
    tower = {"dims": [dim, dim], "activation": "relu", "dropout": 0.0}
    return DSSM(user, item, user_params=tower, item_params=dict(tower)).eval()


class Dssm(Contender):
    """The two-tower model DSSM."""

    about = (
        "DSSM 64-64 on each side, the pair graph of its own exporter in onnxruntime; "
        "the history is encoded once per candidate"
    )
    package = "torch_rechub"

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = str(data.path("dssm.onnx"))
        self._run = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        ).run
        self._torch: Any = None

    @classmethod
    def build(cls, data: Data, model: str) -> None:
        from torch_rechub.utils.onnx_export import ONNXExporter

        length = data.load("histories").shape[1]
        kwargs = {"external_data": False}
        ONNXExporter(_model(data)).export(
            str(data.path("dssm.onnx")),
            seq_length=length,
            opset_version=18,
            onnx_export_kwargs=kwargs,
        )

    def request(self) -> Call:
        histories, candidates = self.data.load("histories"), self.data.load("candidates")

        def run(history: Any, items: Any) -> Any:
            return self._run(None, {"history": np.repeat(history, len(items), 0), "item": items})

        return Call(
            lambda i: (histories[i : i + 1], candidates[i, :100]),
            run,
            lambda i, out: Answer(candidates[i, :100], out[0].reshape(-1)),
        )

    def reference(self, task: str, i: int) -> Floats | None:
        import torch

        self._torch = self._torch or _model(self.data)
        rows = self.data.load("candidates")[i, :100]
        history = torch.from_numpy(np.repeat(self.data.load("histories")[i : i + 1], len(rows), 0))
        with torch.no_grad():
            values = self._torch({"history": history, "item": torch.from_numpy(rows)}).numpy()
        scores = np.full(self.data.items, np.nan, np.float32)
        scores[rows] = values
        return scores
