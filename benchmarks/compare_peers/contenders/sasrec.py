"""SASRec of other libraries: random weights, two layers, two heads, width 64, history 50."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np

from ..contender import Answer, Call, Contender, Floats
from ..data import Data


class Replay(Contender):
    """replay-rec, compiled by OpenVINO."""

    about = "SasRecCompiled, mode one_query, fixed number of candidates, one thread (OpenVINO)"
    package = "replay"
    candidates: ClassVar[dict[str, int | None]] = {"request": 100, "top": None}

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        warnings.simplefilter("ignore")
        import torch

        torch.set_num_threads(1)
        self._torch = torch
        self._compiled: dict[str, Any] = {}
        self._eager = self._model()

    def _model(self) -> Any:
        from replay.data import FeatureHint, FeatureType
        from replay.data.nn import TensorFeatureInfo, TensorSchema
        from replay.models.nn.sequential.sasrec import SasRec

        self._torch.manual_seed(0)
        items, dim = self.data.load("vectors").shape
        item = TensorFeatureInfo(
            name="item",
            is_seq=True,
            feature_type=FeatureType.CATEGORICAL,
            cardinality=items,
            feature_hint=FeatureHint.ITEM_ID,
            embedding_dim=dim,
        )
        return SasRec(
            TensorSchema([item]),
            block_count=2,
            head_count=2,
            hidden_size=dim,
            max_seq_len=self.data.load("histories").shape[1],
            dropout_rate=0.0,
        ).eval()

    def _predict(self, task: str) -> Any:
        from replay.models.nn.sequential.compiled import SasRecCompiled

        if task not in self._compiled:
            compiled = self._compiled[task] = SasRecCompiled.compile(
                self._eager,
                mode="one_query",
                num_candidates_to_score=self.candidates[task],
                num_threads=1,
            )
            precision = compiled._model.get_property("INFERENCE_PRECISION_HINT").to_string()
            if precision != "f32":
                # OpenVINO chooses the precision, and rounds on processors with a shorter float.
                self.tolerance, self.exact = 0.05, False
                self.about = f"{type(self).about}; computes in {precision} on this processor"
        return self._compiled[task].predict

    def _batch(self, i: int) -> dict[str, Any]:
        history = self._torch.from_numpy(self.data.load("histories")[i : i + 1].copy())
        return {
            "feature_tensor": {"item": history},
            "padding_mask": self._torch.ones_like(history).bool(),
        }

    def request(self) -> Call:
        candidates, predict = self.data.load("candidates"), self._predict("request")
        return Call(
            lambda i: (self._batch(i), self._torch.from_numpy(candidates[i, :100].copy())),
            predict,
            lambda i, out: Answer(candidates[i, :100], out.numpy().reshape(-1)),
        )

    def top(self) -> Call:
        predict = self._predict("top")

        def run(batch: Any) -> Any:
            return predict(batch)[0].topk(10)

        return Call(
            lambda i: (self._batch(i),),
            run,
            lambda i, out: Answer(out.indices.numpy(), out.values.numpy()),
        )

    def reference(self, task: str, i: int) -> Floats | None:
        with self._torch.no_grad():
            batch = self._batch(i)
            scores = self._eager._model.predict(batch["feature_tensor"], batch["padding_mask"])
        flat: Floats = scores.numpy().reshape(-1)
        return flat


class RecBole(Contender):
    """RecBole in eager torch."""

    about = (
        "SASRec in eager torch; the history is encoded once, then a dot product with the candidates"
    )
    package = "recbole"

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        from types import SimpleNamespace

        import torch
        from recbole.model.sequential_recommender.sasrec import SASRec

        torch.manual_seed(0)
        torch.set_num_threads(1)
        self._torch = torch
        items, dim = data.load("vectors").shape
        self._length = data.load("histories").shape[1]
        config = {
            "USER_ID_FIELD": "user",
            "ITEM_ID_FIELD": "item",
            "LIST_SUFFIX": "_list",
            "ITEM_LIST_LENGTH_FIELD": "length",
            "NEG_PREFIX": "neg_",
            "MAX_ITEM_LIST_LENGTH": self._length,
            "device": "cpu",
            "n_layers": 2,
            "n_heads": 2,
            "hidden_size": dim,
            "inner_size": 4 * dim,
            "hidden_dropout_prob": 0.0,
            "attn_dropout_prob": 0.0,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "initializer_range": 0.02,
            "loss_type": "CE",
        }
        # Item 0 is its padding, so row r is its item r + 1.
        self._model = SASRec(config, SimpleNamespace(num=lambda field: items + 1)).eval()
        self._seen = torch.tensor([self._length])

    def _history(self, i: int) -> Any:
        return self._torch.from_numpy(self.data.load("histories")[i : i + 1] + 1)

    def request(self) -> Call:
        torch, model, candidates = self._torch, self._model, self.data.load("candidates")

        def run(history: Any, items: Any) -> Any:
            with torch.inference_mode():
                return model.item_embedding(items) @ model(history, self._seen)[0]

        return Call(
            lambda i: (self._history(i), torch.from_numpy(candidates[i, :100] + 1)),
            run,
            lambda i, out: Answer(candidates[i, :100], out.numpy()),
        )

    def top(self) -> Call:
        torch, model = self._torch, self._model

        def run(history: Any) -> Any:
            with torch.inference_mode():
                return (model.item_embedding.weight[1:] @ model(history, self._seen)[0]).topk(10)

        return Call(
            lambda i: (self._history(i),),
            run,
            lambda i, out: Answer(out.indices.numpy(), out.values.numpy()),
        )

    def reference(self, task: str, i: int) -> Floats | None:
        with self._torch.inference_mode():
            scores = self._model.full_sort_predict(
                {"item_list": self._history(i), "length": self._seen}
            )
        return np.array(scores.numpy().reshape(-1)[1:])
