"""The result of an evaluation: metrics, paired lifts, slices and notes, from each model's ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tlrec_edge.core.counts import counted
from tlrec_edge.core.metrics import (
    METRICS,
    Lift,
    describe,
    gini,
    lift_json,
    nan_to_none,
    paired_lift,
)
from tlrec_edge.evaluation.slices import RankedModel, SliceLabels, slice_table
from tlrec_edge.linear.baselines import SIMPLE_BASELINES
from tlrec_edge.linear.ranking import FULL_RANKING_LIMIT, Ranking
from tlrec_edge.types import Doubles, Floats, Ints

SIMPLE = tuple(baseline.name for baseline in SIMPLE_BASELINES)
"""Simple baselines: a model has to beat the best of them."""
MIN_USERS = 20
"""Users with test rows below which standard errors, which are clustered by user, say little."""
TARGET_ONLY = (
    *(baseline.name for baseline in SIMPLE_BASELINES if baseline.target_only),
    "target-only",
)
"""Models that are trained on the target only: transfer has to beat the best of them."""
BASELINES = (*SIMPLE, "target-only")


class Catalogue(NamedTuple):
    """The candidate items and their buyers in the target's training rows, (C,) each."""

    items: Ints
    buyers: Floats


class Comparison(NamedTuple):
    """The lift of a model over a baseline, against sampled negatives and the full catalogue."""

    of: str
    over: str
    lift: Lift
    full_over: str
    """The baseline of ``full``: the best one may be another against the full catalogue."""
    full: Lift | None
    """None if there are no sampled negatives, so that ``lift`` is against the full catalogue."""

    @property
    def differs(self) -> bool:
        """Whether the two lifts differ in sign."""
        return self.full is not None and self.lift.mean * self.full.mean < 0

    @property
    def verdict(self) -> str:
        """The verdict on ``lift``; limited to the negatives if ``full`` has another sign."""
        verdict = self.lift.verdict
        if self.differs and verdict in ("better", "worse"):
            return f"{verdict} among negatives only"
        return verdict

    def to_json(self) -> dict[str, Any]:
        row = lift_json(self.of, self.over, self.lift) | {"verdict": self.verdict}
        if self.full is not None:
            row["full"] = lift_json(self.of, self.full_over, self.full)
        return row

    def note(self) -> str | None:
        """Return a warning if the two lifts differ in sign."""
        lift, full = self.lift, self.full
        if full is None or not self.differs:
            return None
        return (
            f"{self.of} over {self.over}: NDCG@10 {lift.mean:+.4f} ({lift.verdict}) against "
            f"sampled negatives, but {full.mean:+.4f} ({full.verdict}) over {self.full_over} "
            "against the full catalogue"
        )


@dataclass(frozen=True)
class Evaluation:
    """The ranks of the same test rows under several models.

    Attributes:
        domains: the target.
        rankings: the ranks by model.
        choices: the hyperparameters that baselines chose, by model.
        slices: the labels of the test rows, by kind of slice.
        catalogue: the candidates.
        no_source: the models besides the baselines that are trained on the target alone.
    """

    domains: tuple[str, ...]
    rankings: Mapping[str, Ranking]
    choices: Mapping[str, Any] = field(default_factory=dict)
    slices: Mapping[str, SliceLabels] = field(default_factory=dict)
    catalogue: Catalogue | None = None
    no_source: frozenset[str] = frozenset()

    @property
    def tests(self) -> int:
        """The number of test rows."""
        return len(self._any.rank)

    @property
    def users(self) -> int:
        """The number of users with test rows."""
        return len(np.unique(self._any.user))

    @property
    def _any(self) -> Ranking:
        return next(iter(self.rankings.values()))

    def values(self, name: str, metric: str = "ndcg", k: int = 10) -> Doubles:
        """Return a model's metric on every test row, (m,)."""
        return METRICS[metric](self.rankings[name].rank, k)

    def lift(self, of: str, over: str) -> Lift:
        """Return the paired lift of NDCG@10 of one model over another."""
        return paired_lift(self.values(of), self.values(over), self.rankings[of].user)

    def full_lift(self, of: str, over: str) -> Lift | None:
        """Return the lift of NDCG@10 against the full catalogue.

        None if there are no sampled negatives, so that ``lift`` is against the full catalogue.
        """
        model, baseline = self.rankings[of], self.rankings[over]
        if model.full_rank is None or baseline.full_rank is None:
            return None
        ndcg = METRICS["ndcg"]
        return paired_lift(ndcg(model.full_rank, 10), ndcg(baseline.full_rank, 10), model.user)

    def best_target_only(self, full: bool = False) -> str | None:
        """Return the strongest model that is trained on the target only; None if none was ranked.

        ``full``: the strongest against the full catalogue.
        """
        return self._best(TARGET_ONLY, full)

    def best_simple(self, model: str = "model", full: bool = False) -> str | None:
        """Return the strongest simple baseline besides ``model``; None if none was ranked."""
        is_simple = (name in SIMPLE or name.startswith("ease(") for name in self.rankings)
        names = [name for name, simple in zip(self.rankings, is_simple, strict=True) if simple]
        return self._best([name for name in names if name != model], full)

    def best_baseline(self, model: str = "model") -> str | None:
        """Return the strongest baseline, also a trained one, besides ``model``; None for none."""
        names = [name for name in ("target-only", self.best_simple(model)) if name]
        return self._best([name for name in names if name != model])

    def _best(self, names: Iterable[str], full: bool = False) -> str | None:
        def value(name: str) -> float:
            ranking = self.rankings[name]
            rank = ranking.full_rank if full and ranking.full_rank is not None else ranking.rank
            return float(METRICS["ndcg"](rank, 10).mean())

        return max((name for name in names if name in self.rankings), key=value, default=None)

    def comparisons(self, model: str = "model") -> dict[str, Comparison]:
        """Return the comparisons that an evaluation makes, by what their lift measures.

        ``pooling`` is what EASE gains from the other domains' rows, ``model`` what the model gains
        over the best simple baseline, ``transfer`` what it gains over the best of the models that
        are trained on the target alone. If the model is one of those, this gain is not from
        transfer, and is called ``target-only``.
        """
        target_only = "target-only" if model in self.no_source else "transfer"
        pairs = {
            "pooling": ("ease", "ease-target", "ease-target"),
            "model": (model, self.best_simple(model), self.best_simple(model, full=True)),
            target_only: (model, self.best_target_only(), self.best_target_only(full=True)),
        }
        return {
            key: Comparison(of, over, self.lift(of, over), full_over, self.full_lift(of, full_over))
            for key, (of, over, full_over) in pairs.items()
            if over and full_over and {of, over} <= set(self.rankings) and of != over
        }

    def rows(self, ks: tuple[int, ...] = (10,)) -> list[dict[str, Any]]:
        """Return one row of metrics per model, at the cut-offs ``ks``.

        ``full.*`` are metrics against the full catalogue. ``coverage@10``, ``gini@10`` and
        ``buyers@10`` (mean buyers) describe the ten items recommended to each user.
        """
        rows = []
        for name, ranking in self.rankings.items():
            metrics = describe(ranking.rank, ranking.n_candidates, ranking.user, ks)
            metrics |= self._full_metrics(ranking, ks) | self._catalogue_metrics(ranking)
            rows.append({"name": name, **nan_to_none(metrics)})
        return rows

    def _full_metrics(self, ranking: Ranking, ks: tuple[int, ...]) -> dict[str, float]:
        if ranking.full_rank is None or ranking.full_candidates is None:
            return {}
        metrics = describe(ranking.full_rank, ranking.full_candidates, ranking.user, ks)
        return {f"full.{name}": value for name, value in metrics.items()}

    def _catalogue_metrics(self, ranking: Ranking) -> dict[str, float]:
        if ranking.top is None or self.catalogue is None:
            return {}
        items, buyers = self.catalogue
        column = np.searchsorted(items, ranking.top[ranking.top >= 0])
        times_recommended = np.bincount(column, minlength=len(items))
        return {
            "coverage@10": float((times_recommended > 0).mean()),
            "gini@10": gini(times_recommended),
            "buyers@10": float(buyers[column].mean()) if len(column) else float("nan"),
        }

    def to_json(self, ks: tuple[int, ...] = (10,), model: str = "model") -> dict[str, Any]:
        """Return the report as plain data: rows of metrics, lifts, slices and notes."""
        comparisons = self.comparisons(model)
        return {
            "domain": ", ".join(self.domains),
            "users": self.users,
            "tests": self.tests,
            "rows": self.rows(ks),
            "lift": {key: comparison.to_json() for key, comparison in comparisons.items()},
            "choices": dict(self.choices),
            "slices": self.slice_rows(model),
            "notes": self._notes(comparisons.values()),
            "candidates": None if self.catalogue is None else len(self.catalogue.items),
        }

    def _notes(self, comparisons: Iterable[Comparison]) -> list[str]:
        """Return the notes to print with the figures."""
        notes = [note for comparison in comparisons if (note := comparison.note())]
        if self.users < MIN_USERS:
            tests, users = counted(self.tests, "test row"), counted(self.users, "user")
            notes.append(f"{tests} of {users}: too few to show anything")
        if self.slices and "period" not in self.slices:
            notes.append("no figures by period: the time of the test rows is unknown")
        if self._any.top is None:
            notes.append(
                "ranked against sampled negatives only: "
                f"the catalogue has more than {FULL_RANKING_LIMIT:,} candidates"
            )
        return notes

    def slice_rows(self, model: str = "model") -> list[dict[str, Any]]:
        """Compare the model in every slice with the baseline that is best over all test rows."""
        over = self.best_baseline(model)
        if over is None or model not in self.rankings:
            return []
        ranked = [RankedModel(name, self.rankings[name].rank) for name in (model, over)]
        return slice_table(self.slices, self._any.user, *ranked)


def pool(parts: Sequence[Evaluation]) -> Evaluation:
    """Concatenate the folds of one target, with the kinds of slices that all of them have."""
    first = parts[0]
    rankings = {
        name: Ranking(*map(_concatenate, zip(*(p.rankings[name] for p in parts), strict=True)))
        for name in first.rankings
    }
    slices = {
        kind: np.concatenate([part.slices[kind] for part in parts])
        for kind in first.slices
        if all(kind in part.slices for part in parts)
    }
    catalogues = [part.catalogue for part in parts if part.catalogue is not None]
    catalogue = None
    if len(catalogues) == len(parts):
        catalogue = Catalogue(catalogues[0].items, np.mean([c.buyers for c in catalogues], axis=0))
    return Evaluation(first.domains, rankings, slices=slices, catalogue=catalogue)


def _concatenate(columns: Sequence[Any]) -> Any:
    return None if any(column is None for column in columns) else np.concatenate(columns)
