"""Evaluate a model beside its baselines on the same questions; lifts are paired and clustered by user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task, Tasks, make_tasks
from tlrec_edge.errors import DataError
from tlrec_edge.metrics import METRICS, Lift, describe, measured, paired_lift
from tlrec_edge.train.adapt import adapt
from tlrec_edge.train.artifact import EdgeModel
from tlrec_edge.train.baselines import ease_scorer, item_cf_scorer, popularity_scorer, tuned_ease
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.ranking import Ranking, Scorer, rank_rows
from tlrec_edge.train.wide import LinearChoice

Entry = Callable[[Tasks], Ranking]
"""From the tasks of one target and fold to the ranks of its test questions."""
TARGET_ONLY = ("popularity", "ease-target", "target-only")
"""Rows that know nothing but the target: what transfer has to beat."""


@dataclass(frozen=True)
class Evaluation:
    """Ranks of every contender on the same test questions."""

    domains: tuple[str, ...]
    rankings: Mapping[str, Ranking]
    choices: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tests(self) -> int:
        return len(next(iter(self.rankings.values())).rank)

    @property
    def users(self) -> int:
        return len(np.unique(next(iter(self.rankings.values())).user))

    def values(self, name: str, metric: str = "ndcg", k: int = 10) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return METRICS[metric](self.rankings[name].rank, k)

    def lift(self, of: str, over: str) -> Lift:
        return paired_lift(self.values(of), self.values(over), self.rankings[of].user)

    def best_target_only(self) -> str:
        """Name the strongest row that knows the target alone."""
        present = [name for name in TARGET_ONLY if name in self.rankings]
        return max(present, key=lambda name: float(self.values(name).mean()))

    def lifts(self, model: str = "model") -> dict[str, tuple[str, str]]:
        """Name the pairs that are compared: the pooled linear part, the model over it, and transfer as a whole."""
        pairs = {"pooling": ("ease", "ease-target"), "model": (model, "ease")}
        if any(name in self.rankings for name in TARGET_ONLY):
            pairs["transfer"] = (model, self.best_target_only())
        return {key: pair for key, pair in pairs.items() if set(pair) <= set(self.rankings) and pair[0] != pair[1]}

    def rows(self, ks: tuple[int, ...] = (10,)) -> list[dict[str, Any]]:
        return [
            {"name": name, **measured(describe(ranking.rank, ranking.others, ranking.user, ks))}
            for name, ranking in self.rankings.items()
        ]

    def to_json(self, ks: tuple[int, ...] = (10,), model: str = "model") -> dict[str, Any]:
        lifts = {}
        for key, (of, over) in self.lifts(model).items():
            lift = self.lift(of, over)
            lifts[key] = measured({
                "of": of, "over": over, "ndcg@10": lift.mean, "se": lift.se, "low": lift.low, "high": lift.high,
                "verdict": lift.verdict,
            })  # fmt: skip
        return {
            "domain": ", ".join(self.domains), "users": self.users, "tests": self.tests, "rows": self.rows(ks),
            "lift": lifts, "choices": dict(self.choices),
        }  # fmt: skip


def baseline_entries(config: TrainConfig | None, dataset: Dataset, penalties: Sequence[float] = ()) -> dict[str, Entry]:
    """Return the baselines by name; with ``config`` the fair target-only model stands among them."""

    def simple(make: Callable[[Task], Scorer]) -> Entry:
        return lambda tasks: rank_rows(make(tasks.final), tasks.final)

    def tuned(target_only: bool) -> Entry:
        def rank(tasks: Tasks) -> Ranking:
            scorer, task, _ = tuned_ease(tasks, target_only)
            return rank_rows(scorer, task)

        return rank

    entries: dict[str, Entry] = {
        "popularity": simple(popularity_scorer),
        "itemcf": simple(item_cf_scorer),
        "ease-target": tuned(True),
        "ease": tuned(False),
    }
    for penalty in penalties:
        entries[f"ease({penalty:g})"] = simple(lambda task, p=penalty: ease_scorer(task, LinearChoice(p, 0.0)))  # type: ignore[misc]
    if config is not None:
        entries["target-only"] = lambda tasks: _rank_target_only(tasks, dataset, config)
    return entries


def _rank_target_only(tasks: Tasks, dataset: Dataset, config: TrainConfig) -> Ranking:
    model = adapt(dataset, tasks.final.domains, "scratch", None, config, tasks=tasks)
    task = tasks.final.target_only()
    return rank_rows(model.scorer(dataset, task), task)


def model_entry(model: EdgeModel, dataset: Dataset) -> Entry:
    """Rank with a model; one trained on the target alone sees the target's histories alone."""

    def rank(tasks: Tasks) -> Ranking:
        task = tasks.final.target_only() if model.about.get("mode") == "scratch" else tasks.final
        return rank_rows(model.scorer(dataset, task), task)

    return rank


def evaluate(
    dataset: Dataset, domains: tuple[str, ...], entries: Mapping[str, Entry], fold: int | None = None,
    say: Callable[[str], None] | None = None, tasks: Tasks | None = None,
) -> Evaluation:  # fmt: skip
    """Rank the test questions with every entry. Raises DataError where the split asks none."""
    tasks = tasks or make_tasks(dataset, domains, fold)
    if not len(tasks.final.rows):
        raise DataError(
            f"the split '{dataset.split.kind}' leaves no test question in {', '.join(domains)}: "
            "prepare with another --split, or give --candidates"
        )
    rankings = {}
    for name, entry in entries.items():
        if say:
            say(name)
        rankings[name] = entry(tasks)
    return Evaluation(domains, rankings)


def pool(parts: Sequence[Evaluation]) -> Evaluation:
    """Put the folds of one target under each other."""
    names = parts[0].rankings
    return Evaluation(
        parts[0].domains,
        {
            name: Ranking(*(np.concatenate(c) for c in zip(*(p.rankings[name] for p in parts), strict=True)))
            for name in names
        },
    )
