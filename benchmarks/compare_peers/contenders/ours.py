"""tlrec-edge through its public API, and in the same process what a request can't go below."""

from __future__ import annotations

import functools
import inspect
import itertools
from typing import Any

import numpy as np
import onnxruntime

from tlrec_edge import Recommender
from tlrec_edge.bundle.reader import Bundle

from ..contender import Answer, Call, Contender
from ..data import Data


class Ours(Contender):
    tolerance = 0.03
    # User vectors are rounded to integers of a step, here a coarse one; with `deterministic=False`,
    # which the plain export is compared with, scores agree to 1e-4.
    about = "Recommender, no cache of states; a request is given rows (`_ids`: ids), `cached` and `top` a state"

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        self.rec = Recommender.open(data.path(model), cache=0)
        self._parameters = inspect.signature(self.rec.recommend).parameters

    def request(self) -> Call:
        rows = self.rec.rows
        return Call(
            lambda i: (rows(self._history(i)), rows(self._candidates(i, 100))),
            self.rec.score,
            self._scored(100),
        )

    def cached(self) -> Call:
        rows = self.rec.rows
        return Call(
            lambda i: (self._state(i), rows(self._candidates(i, 1000))),
            self.rec.score,
            self._scored(1000),
        )

    def top(self) -> Call:
        return self._top(10)

    def top100(self) -> Call:
        return self._top(100)

    def top_exact(self) -> Call:
        # Version 0.1 calls the argument `exact`; before that, every search was exhaustive.
        names = (name for name in ("exhaustive", "exact") if name in self._parameters)
        return self._top(10, **dict.fromkeys(itertools.islice(names, 1), True))

    def ids(self) -> Call:
        """Only map the ids of 100 candidates that were asked for before."""
        index = Bundle.open(self.data.path(self.model)).index("item_ids")
        return Call(lambda i: (self._candidates(i, 100),), index.rows, None)

    def request_ids(self) -> Call:
        """``request`` by ids."""
        return Call(lambda i: (self._history(i), self._candidates(i, 100)), self.rec.score, None)

    def cached_ids(self) -> Call:
        return Call(lambda i: (self._state(i), self._candidates(i, 1000)), self.rec.score, None)

    def cold_ids(self) -> Call:
        """Map 100 ids that were not asked for in the last 65,536."""
        index, every = Bundle.open(self.data.path(self.model)).index("item_ids"), itertools.count()

        def prepare(i: int) -> tuple[list[str]]:
            first = next(every) * 100
            return (
                self._strings.take((np.arange(first, first + 100) * 7919 % len(self.rec)).tolist()),
            )

        return Call(prepare, index.rows, None)

    def floor(self) -> Call:
        """One empty onnxruntime call, one take of the history's rows, one take, cast and dot of 100 candidates'."""
        return self._floor(100, self.data.load("histories"))

    def cached_floor(self) -> Call:
        return self._floor(1000, None)

    def _floor(self, n: int, histories: np.ndarray | None) -> Call:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = str(self.data.path("floor.onnx"))
        run = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run
        feed, outputs = {"x": np.zeros(1, np.float32)}, ["y"]
        bundle = Bundle.open(self.data.path(self.model))
        history_rows, candidate_rows = (
            np.asarray(bundle.array(f"{side}_rows")) for side in ("history", "candidate")
        )
        user = np.ones(candidate_rows.shape[1], np.float32)

        def lowest(history: np.ndarray | None, candidates: np.ndarray) -> Any:
            if history is not None:
                run(outputs, feed)
                history_rows.take(history, axis=0)
            return candidate_rows.take(candidates, axis=0).astype(np.float32) @ user

        candidates = self.data.load("candidates")
        return Call(
            lambda i: (None if histories is None else histories[i], candidates[i, :n]), lowest, None
        )

    def _top(self, k: int, **more: Any) -> Call:
        recommend = self.rec.recommend

        def read(i: int, found: Any) -> Answer:
            rows = Bundle.open(self.data.path(self.model)).index("item_ids").rows(list(found.items))
            return Answer(rows.astype(np.int64), found.scores)

        return Call(
            lambda i: (self._state(i),),
            lambda state: recommend(state, k, exclude=None, **more),
            read,
        )

    def _scored(self, n: int) -> Any:
        candidates = self.data.load("candidates")
        return lambda i, scores: Answer(candidates[i, :n], scores)

    @functools.cached_property
    def _strings(self) -> Any:
        return Bundle.open(self.data.path(self.model)).strings("item_ids")

    def _history(self, i: int) -> list[str]:
        return self._remembered("histories", i)

    def _candidates(self, i: int, n: int) -> list[str]:
        return self._remembered("candidates", i)[:n]

    def _remembered(self, name: str, i: int) -> list[str]:
        kept: dict[tuple[str, int], list[str]] = self.__dict__.setdefault("kept", {})
        if (name, i) not in kept:
            kept[name, i] = self._strings.take(self.data.load(name)[i].tolist())
        return kept[name, i]

    def _state(self, i: int) -> Any:
        kept: dict[int, Any] = self.__dict__.setdefault("states", {})
        if i not in kept:
            kept[i] = self.rec.user_state(self._history(i))
        return kept[i]


class OursWide(Ours):
    """The default parts on top: 20 item-item weights a row, 16 columns of interest, item bias."""

    about = "the same with 20 item-item weights a row, 16 columns of interest and item bias"

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, "wide")

    def request(self) -> Call:
        return super().request()._replace(read=None)

    def top(self) -> Call:
        return super().top()._replace(read=None)
