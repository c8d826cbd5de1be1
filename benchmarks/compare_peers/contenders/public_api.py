"""tlrec-edge through its public API, written so that every version since 0.1.0 runs it."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np

from tlrec_edge import Recommender

from ..contender import Answer, Call, Contender
from ..data import Data


class PublicApi(Contender):
    """A Recommender on the bundle ``model``, without a cache of user states."""

    # Users' vectors are rounded to multiples of a step, which is coarse for this data.
    # Without that (`deterministic=False`) scores agree with the plain export to 1e-4.
    tolerance = 0.03

    def __init__(self, data: Data, model: str) -> None:
        super().__init__(data, model)
        self.rec = Recommender.open(data.path(model), cache=0)
        self._states: dict[int, Any] = {}

    def request(self) -> Call:
        """Score 100 candidates, given as rows."""
        rows = self.rec.rows
        return Call(
            lambda i: (rows(self._histories[i]), rows(self._candidates[i][:100])),
            self.rec.score,
            self._read_scores(100),
        )

    def request_ids(self) -> Call:
        """Score 100 candidates, given as ids."""
        return Call(lambda i: (self._histories[i], self._candidates[i][:100]), self.rec.score, None)

    def cached(self) -> Call:
        """Score 1,000 candidates, given as rows, for a user's state."""
        rows = self.rec.rows
        return Call(
            lambda i: (self._state(i), rows(self._candidates[i])),
            self.rec.score,
            self._read_scores(1000),
        )

    def cached_ids(self) -> Call:
        """Score 1,000 candidates, given as ids, for a user's state."""
        return Call(lambda i: (self._state(i), self._candidates[i]), self.rec.score, None)

    def top(self) -> Call:
        """Return the best 10 items."""
        return self._top(10)

    def top100(self) -> Call:
        """Return the best 100 items."""
        return self._top(100)

    def top_exact(self) -> Call:
        """Return the best 10 items by an exhaustive search."""
        parameters = inspect.signature(self.rec.recommend).parameters
        names = [name for name in ("exhaustive", "exact") if name in parameters][:1]
        return self._top(10, **dict.fromkeys(names, True))

    def _top(self, k: int, **options: Any) -> Call:
        recommend = self.rec.recommend
        return Call(
            lambda i: (self._state(i),),
            lambda state: recommend(state, k, exclude=None, **options),
            None if self._has_item_weights else self._read_items,
        )

    def _read_scores(self, n: int) -> Any:
        candidates = self.data.load("candidates")
        if self._has_item_weights:
            return None
        return lambda i, scores: Answer(candidates[i, :n], scores)

    def _read_items(self, i: int, found: Any) -> Answer:
        ids, order = self._sorted_ids
        at = np.searchsorted(ids, np.array(found.items), sorter=order)
        return Answer(order[at].astype(np.int64), found.scores)

    @property
    def _has_item_weights(self) -> bool:
        """Whether scores have parts that the shared true scores lack."""
        return self.model == "wide"

    @functools.cached_property
    def _sorted_ids(self) -> tuple[Any, Any]:
        ids = self.data.load("item_ids")
        return ids, np.argsort(ids)

    @functools.cached_property
    def _histories(self) -> list[list[str]]:
        return self.data.ids("histories")

    @functools.cached_property
    def _candidates(self) -> list[list[str]]:
        return self.data.ids("candidates")

    def _state(self, i: int) -> Any:
        if i not in self._states:
            self._states[i] = self.rec.user_state(self._histories[i])
        return self._states[i]
