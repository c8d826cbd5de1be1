"""Evaluate models next to their baselines on the same test rows, with paired lifts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task, Tasks, make_tasks
from tlrec_edge.errors import DataError
from tlrec_edge.evaluation.leaks import check_model, check_tasks
from tlrec_edge.evaluation.slices import RankedModel, SliceLabels, slice_rows, slice_table
from tlrec_edge.linear.baselines import TunedEase, ease_scorer, item_cf_scorer, popularity_scorer
from tlrec_edge.linear.priors import popularity
from tlrec_edge.linear.ranking import FULL_RANKING_LIMIT, Ranking, Scorer, rank_full
from tlrec_edge.linear.tuning import EaseHyperparameters
from tlrec_edge.train.adapt import adapt
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.types import Doubles, Floats, Ints

Ranker = Callable[[Tasks], Ranking]
"""Rank the test rows, given the tasks of one target and fold."""
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


def baseline_rankers(
    config: TrainConfig | None,
    dataset: Dataset,
    penalties: Sequence[float] = (),
    decay: bool = True,
) -> dict[str, Ranker]:
    """Return the rankers of the baselines by name.

    Args:
        config: settings of the target-only model, the fair baseline of transfer; None leaves it
            out.
        dataset: the dataset whose tasks will be ranked.
        penalties: ridge penalties of further EASE baselines.
        decay: add EASE with a decaying popularity if the dataset has times.
    """

    def fitted(fit: Callable[[Task], Scorer]) -> Ranker:
        return lambda tasks: rank_full(fit(tasks.final), tasks.final)

    rankers: dict[str, Ranker] = {
        "popularity": fitted(popularity_scorer),
        "itemcf": fitted(item_cf_scorer),
        "ease-target": TunedEase(target_only=True),
        "ease": TunedEase(target_only=False),
    }
    if decay and dataset.has_time:
        rankers["ease-fading"] = TunedEase(target_only=False, decay=True)
    for penalty in penalties:
        hyperparameters = EaseHyperparameters(penalty, 0.0)
        rankers[f"ease({penalty:g})"] = fitted(
            partial(ease_scorer, hyperparameters=hyperparameters)
        )
    if config is not None:
        rankers["target-only"] = lambda tasks: _rank_target_only(tasks, dataset, config)
    return rankers


def _rank_target_only(tasks: Tasks, dataset: Dataset, config: TrainConfig) -> Ranking:
    model = adapt(dataset, tasks.final.domains, "scratch", None, config, tasks=tasks)
    task = visible_task(tasks.final, "scratch")
    return rank_full(model.scorer(dataset, task), task)


def visible_task(task: Task, mode: str | None) -> Task:
    """Return the part of a task that models of a transfer mode may read.

    A model that was trained on the target alone reads only what users did in the target.
    """
    return task.target_only() if mode == "scratch" else task


def model_ranker(model: EdgeModel, dataset: Dataset) -> Ranker:
    """Return a model's ranker; it raises LeakError if the model was trained on the test rows."""

    def rank(tasks: Tasks) -> Ranking:
        task = visible_task(tasks.final, model.provenance.mode)
        scorer = model.scorer(dataset, task)
        check_model(dataset, tasks, model.provenance)
        return rank_full(scorer, task)

    return rank


def evaluate(
    dataset: Dataset,
    domains: tuple[str, ...],
    rankers: Mapping[str, Ranker],
    fold: int | None = None,
    progress: Callable[[str], None] | None = None,
    tasks: Tasks | None = None,
) -> Evaluation:
    """Rank the test rows of a target with every model.

    Args:
        dataset: the prepared dataset.
        domains: the target.
        rankers: what to compare, by name: ``baseline_rankers`` and ``model_ranker``.
        fold: the fold of a split by new users. None: all users keep their history.
        progress: called with the name of each model before it is ranked.
        tasks: the validation and test rows. None: made from ``domains`` and ``fold``.

    Returns:
        The ranks of every model on the same rows, with metrics, lifts and slices.

    Raises:
        DataError: if the split has no test rows in the target.
        LeakError: if held-out rows are among the training rows, or a model was trained on them.
    """
    tasks = tasks or make_tasks(dataset, domains, fold)
    if not len(tasks.final.rows):
        raise DataError(
            f"the split '{dataset.split.kind}' leaves no test rows in {', '.join(domains)}: "
            "prepare with another --split, or give --candidates"
        )
    check_tasks(dataset, tasks)
    rankings = {}
    for name, ranker in rankers.items():
        if progress:
            progress(name)
        rankings[name] = ranker(tasks)
    final = tasks.final
    catalogue = Catalogue(final.candidates, popularity(final))
    return Evaluation(domains, rankings, slices=slice_rows(dataset, final), catalogue=catalogue)


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
