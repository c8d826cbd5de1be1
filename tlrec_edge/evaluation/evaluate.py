"""Evaluate a model beside its baselines on the same questions; lifts are paired and clustered by user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
from tlrec_edge.types import Ints

Ranker = Callable[[Tasks], Ranking]
"""From the tasks of one target and fold to the ranks of its test questions."""
TARGET_ONLY = ("popularity", "ease-target", "target-only")
"""Rows that know nothing but the target: what transfer has to beat."""
BASELINES = (*TARGET_ONLY, "itemcf", "ease", "ease-fading")


class Catalogue(NamedTuple):
    """The candidate items and their buyers in the target's training part, (C,) each."""

    items: Ints
    buyers: NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """Ranks of every contender on the same test questions, and which kind of question each is."""

    domains: tuple[str, ...]
    rankings: Mapping[str, Ranking]
    choices: Mapping[str, Any] = field(default_factory=dict)
    slices: Mapping[str, SliceLabels] = field(default_factory=dict)
    catalogue: Catalogue | None = None

    @property
    def tests(self) -> int:
        return len(self._any.rank)

    @property
    def users(self) -> int:
        return len(np.unique(self._any.user))

    @property
    def _any(self) -> Ranking:
        return next(iter(self.rankings.values()))

    def values(
        self, name: str, metric: str = "ndcg", k: int = 10
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return METRICS[metric](self.rankings[name].rank, k)

    def lift(self, of: str, over: str) -> Lift:
        return paired_lift(self.values(of), self.values(over), self.rankings[of].user)

    def full_lift(self, of: str, over: str) -> Lift | None:
        """Return the lift of NDCG@10 against the whole candidate set; None where rows are ranked against it anyway."""
        one, other = self.rankings[of], self.rankings[over]
        if one.full_rank is None or other.full_rank is None:
            return None
        return paired_lift(
            METRICS["ndcg"](one.full_rank, 10), METRICS["ndcg"](other.full_rank, 10), one.user
        )

    def best_target_only(self) -> str:
        """Name the strongest row that knows the target alone."""
        return self._best(TARGET_ONLY)

    def best_baseline(self, model: str = "model") -> str | None:
        """Name the strongest baseline beside ``model``; None where there is none."""
        names = [
            n for n in self.rankings if n != model and (n in BASELINES or n.startswith("ease("))
        ]
        return self._best(names) if names else None

    def _best(self, names: Iterable[str]) -> str:
        return max(
            (n for n in names if n in self.rankings),
            key=lambda name: float(self.values(name).mean()),
        )

    def lifts(self, model: str = "model") -> dict[str, tuple[str, str]]:
        """Name the pairs that are compared: the pooled linear part, the model over it (also where its popularity fades
        as the model's may), and transfer as a whole."""
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
        return [
            {
                "name": name,
                **nan_to_none(
                    describe(ranking.rank, ranking.n_candidates, ranking.user, ks)
                    | self._full_metrics(ranking, ks)
                ),
            }
            for name, ranking in self.rankings.items()
        ]

    def _full_metrics(self, ranking: Ranking, ks: tuple[int, ...]) -> dict[str, float]:
        """Describe the ranks among all candidates as ``full.*``, and what of the catalogue is recommended."""
        found: dict[str, float] = {}
        if ranking.full_rank is not None and ranking.full_candidates is not None:
            whole = describe(ranking.full_rank, ranking.full_candidates, ranking.user, ks)
            found = {f"full.{name}": value for name, value in whole.items()}
        if ranking.top is not None and self.catalogue is not None:
            items, buyers = self.catalogue
            place = np.searchsorted(items, ranking.top[ranking.top >= 0])
            shown = np.bincount(place, minlength=len(items))
            found |= {"coverage@10": float((shown > 0).mean()), "gini@10": gini(shown)}
            found["buyers@10"] = float(buyers[place].mean()) if len(place) else float("nan")
        return found

    def to_json(self, ks: tuple[int, ...] = (10,), model: str = "model") -> dict[str, Any]:
        """Return figures, lifts, slices and notes. Rows hold ``full.*`` where they were also ranked among all
        candidates; ``coverage@10``, ``gini@10`` and ``buyers@10`` (mean buyers) describe what would be recommended."""
        lifts, notes = {}, []
        for key, (of, over) in self.lifts(model).items():
            lift, full = self.lift(of, over), self.full_lift(of, over)
            lifts[key] = lift_json(of, over, lift)
            if full is not None:
                lifts[key]["full"] = lift_json(of, over, full)
                if lift.mean * full.mean < 0:
                    notes.append(
                        f"{of} over {over}: NDCG@10 {lift.mean:+.4f} ({lift.verdict}) among the negatives, "
                        f"{full.mean:+.4f} ({full.verdict}) among all candidates: the sign depends on who competes"
                    )
        if self.slices and "period" not in self.slices:
            notes.append("no figures by period: the test rows have no time")
        if self._any.top is None:
            notes.append(
                f"ranked among the negatives alone: more than {FULL_RANKING_LIMIT:,} candidates are not ranked whole"
            )
        return {
            "domain": ", ".join(self.domains),
            "users": self.users,
            "tests": self.tests,
            "rows": self.rows(ks),
            "lift": lifts,
            "choices": dict(self.choices),
            "slices": self.slice_rows(model),
            "notes": notes,
            "candidates": None if self.catalogue is None else len(self.catalogue.items),
        }

    def slice_rows(self, model: str = "model") -> list[dict[str, Any]]:
        """Compare the model with the best baseline, which the whole test chose, in every slice."""
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
    """Return the baselines by name; with ``config`` the fair target-only model stands among them, with ``decay`` and
    times EASE beside a popularity that fades."""

    def simple(make: Callable[[Task], Scorer]) -> Ranker:
        return lambda tasks: rank_full(make(tasks.final), tasks.final)

    rankers: dict[str, Ranker] = {
        "popularity": simple(popularity_scorer),
        "itemcf": simple(item_cf_scorer),
        "ease-target": TunedEase(target_only=True),
        "ease": TunedEase(target_only=False),
    }
    if decay and dataset.has_time:
        rankers["ease-fading"] = TunedEase(target_only=False, decay=True)
    for penalty in penalties:
        rankers[f"ease({penalty:g})"] = simple(
            partial(ease_scorer, hyperparameters=EaseHyperparameters(penalty, 0.0))
        )
    if config is not None:
        rankers["target-only"] = lambda tasks: _rank_target_only(tasks, dataset, config)
    return rankers


def _rank_target_only(tasks: Tasks, dataset: Dataset, config: TrainConfig) -> Ranking:
    model = adapt(dataset, tasks.final.domains, "scratch", None, config, tasks=tasks)
    task = tasks.final.target_only()
    return rank_full(model.scorer(dataset, task), task)


def model_ranker(model: EdgeModel, dataset: Dataset) -> Ranker:
    """Rank with a model; one trained on the target alone sees the target's histories alone.

    The ranker raises LeakError where the model, by its own account, has learned what it must not know.
    """

    def rank(tasks: Tasks) -> Ranking:
        task = tasks.final.target_only() if model.provenance.mode == "scratch" else tasks.final
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
    """Rank the test questions with every ranker.

    Raises DataError where the split asks none, LeakError where the tasks hold what their split promises to hold out.
    """
    tasks = tasks or make_tasks(dataset, domains, fold)
    if not len(tasks.final.rows):
        raise DataError(
            f"the split '{dataset.split.kind}' leaves no test question in {', '.join(domains)}: "
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
    """Put the folds of one target under each other; slices that not all of them have are left out."""
    first = parts[0]
    rankings = {
        name: Ranking(
            *(_under(columns) for columns in zip(*(p.rankings[name] for p in parts), strict=True))
        )
        for name in first.rankings
    }
    slices = {
        by: np.concatenate([p.slices[by] for p in parts])
        for by in first.slices
        if all(by in p.slices for p in parts)
    }
    catalogues = [p.catalogue for p in parts if p.catalogue is not None]
    catalogue = None
    if len(catalogues) == len(parts):
        catalogue = Catalogue(catalogues[0].items, np.mean([c.buyers for c in catalogues], axis=0))
    return Evaluation(first.domains, rankings, slices=slices, catalogue=catalogue)


def _under(columns: Sequence[Any]) -> Any:
    return None if any(column is None for column in columns) else np.concatenate(columns)
