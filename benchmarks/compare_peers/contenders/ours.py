"""tlrec-edge as it is in this checkout, and the lower bound of what its requests can take."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnxruntime

from tlrec_edge.bundle.reader import Bundle

from ..contender import Call
from ..data import Data
from .public_api import PublicApi


class Ours(PublicApi):
    """This checkout, and what its requests can't go below, in the same process."""

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        self.about = (
            "Recommender without a cache of states; a request has rows (`_ids`: ids), "
            "`cached` and `top` have a state"
        )
        if model == "wide":
            self.about += "; 20 item-item weights a row, 16 columns of interest and item bias"

    def ids(self) -> Call:
        """Map the ids of 100 candidates that were mapped before."""
        index = Bundle.open(self.data.path(self.model)).index("item_ids")
        return Call(lambda i: (self._candidates[i][:100],), index.rows, None)

    def cold_ids(self) -> Call:
        """Map 100 ids that were not among the last 65,536."""
        index = Bundle.open(self.data.path(self.model)).index("item_ids")
        item_ids, calls = self.data.load("item_ids"), itertools.count()

        def prepare(i: int) -> tuple[list[str]]:
            first = next(calls) * 100
            rows = np.arange(first, first + 100) * 7919 % len(item_ids)
            return (item_ids[rows].tolist(),)

        return Call(prepare, index.rows, None)

    def floor(self) -> Call:
        """Run an empty graph, gather 50 history rows, and gather, cast and multiply 100 rows."""
        return self._floor(100, self.data.load("histories"))

    def cached_floor(self) -> Call:
        """Gather, cast and multiply 1,000 rows."""
        return self._floor(1000, None)

    def _floor(self, n: int, histories: np.ndarray | None) -> Call:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = str(self.data.path("floor.onnx"))
        run = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run
        feed, outputs = {"x": np.zeros(1, np.float32)}, ["y"]
        bundle = Bundle.open(self.data.path(self.model))
        history_rows = np.asarray(bundle.array("history_rows"))
        candidate_rows = np.asarray(bundle.array("candidate_rows"))
        user = np.ones(candidate_rows.shape[1], np.float32)

        def lower_bound(history: np.ndarray | None, candidates: np.ndarray) -> Any:
            if history is not None:
                run(outputs, feed)
                history_rows.take(history, axis=0)
            return candidate_rows.take(candidates, axis=0).astype(np.float32) @ user

        candidates = self.data.load("candidates")
        return Call(
            lambda i: (None if histories is None else histories[i], candidates[i, :n]),
            lower_bound,
            None,
        )
