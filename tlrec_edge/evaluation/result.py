"""The result of an evaluation: metrics, paired lifts, slices and notes, from each model's ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

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
from tlrec_edge.linear.ranking import FULL_RANKING_LIMIT, Ranking
from tlrec_edge.types import Doubles, Floats, Ints

TARGET_ONLY = ("popularity", "ease-target", "target-only")
"""Models that are trained on the target only: transfer has to beat the best of them."""
BASELINES = (*TARGET_ONLY, "itemcf", "ease", "ease-fading")


class Catalogue(NamedTuple):
    """The candidate items and their buyers in the target's training rows, (C,) each."""

    items: Ints
    buyers: Floats


class _Comparison(NamedTuple):
    """The lift of one model over another, against sampled negatives and the full catalogue."""

    key: str
    of: str
    over: str
    lift: Lift
    full: Lift | None

    def to_json(self) -> dict[str, Any]:
        row = lift_json(self.of, self.over, self.lift)
        if self.full is not None:
            row["full"] = lift_json(self.of, self.over, self.full)
        return row

    def note(self) -> str | None:
        """Return a warning if the two lifts differ in sign."""
        lift, full = self.lift, self.full
        if full is None or not lift.mean * full.mean < 0:
            return None
        return (
            f"{self.of} over {self.over}: NDCG@10 {lift.mean:+.4f} ({lift.verdict}) against "
            f"sampled negatives, but {full.mean:+.4f} ({full.verdict}) against the full catalogue"
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
    """

    domains: tuple[str, ...]
    rankings: Mapping[str, Ranking]
    choices: Mapping[str, Any] = field(default_factory=dict)
    slices: Mapping[str, SliceLabels] = field(default_factory=dict)
    catalogue: Catalogue | None = None

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

    def best_target_only(self) -> str:
        """Return the name of the strongest model that is trained on the target only."""
        return self._best(TARGET_ONLY)

    def best_baseline(self, model: str = "model") -> str | None:
        """Return the name of the strongest baseline besides ``model``; None if none was ranked."""
        names = [
            n for n in self.rankings if n != model and (n in BASELINES or n.startswith("ease("))
        ]
        return self._best(names) if names else None

    def _best(self, names: Iterable[str]) -> str:
        ranked = (name for name in names if name in self.rankings)
        return max(ranked, key=lambda name: float(self.values(name).mean()))

    def lifts(self, model: str = "model") -> dict[str, tuple[str, str]]:
        """Return the pairs of models to compare, by what their lift measures.

        ``pooling`` is what EASE gains from the other domains' rows, ``model`` and ``model-fading``
        what the model gains over EASE (without and with decaying popularity), ``transfer`` what it
        gains over the best target-only model.
        """
        pairs = {
            "pooling": ("ease", "ease-target"),
            "model": (model, "ease"),
            "model-fading": (model, "ease-fading"),
        }
        if any(name in self.rankings for name in TARGET_ONLY):
            pairs["transfer"] = (model, self.best_target_only())
        return {
            key: pair
            for key, pair in pairs.items()
            if set(pair) <= set(self.rankings) and pair[0] != pair[1]
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
        comparisons = [
            _Comparison(key, of, over, self.lift(of, over), self.full_lift(of, over))
            for key, (of, over) in self.lifts(model).items()
        ]
        return {
            "domain": ", ".join(self.domains),
            "users": self.users,
            "tests": self.tests,
            "rows": self.rows(ks),
            "lift": {comparison.key: comparison.to_json() for comparison in comparisons},
            "choices": dict(self.choices),
            "slices": self.slice_rows(model),
            "notes": self._notes(comparisons),
            "candidates": None if self.catalogue is None else len(self.catalogue.items),
        }

    def _notes(self, comparisons: Sequence[_Comparison]) -> list[str]:
        """Return the notes to print with the figures."""
        notes = [note for comparison in comparisons if (note := comparison.note())]
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
