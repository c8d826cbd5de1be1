"""The learning curve: what a model of the target reaches by how many of its users it may learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge.core.parallel import parallel_map
from tlrec_edge.data.store import load_dataset
from tlrec_edge.data.task import Task, Tasks, make_tasks
from tlrec_edge.errors import DataError, TlrecError
from tlrec_edge.evaluation.experiment import (
    EXPERIMENTS,
    ExperimentConfig,
    ExperimentResult,
    ResultRow,
    compare,
    failed,
)
from tlrec_edge.train.adapt import check_source, config_of
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.types import Ints

NEEDS_SOURCE = ("zero-shot", "finetune", "auto")
ROWS = ("popularity", "ease", "scratch", "zero-shot", "finetune")
SHARES = (0.01, 0.05, 0.2, 1.0)


def subsample_users(tasks: Tasks, share: float, seed: int) -> Tasks:
    """Return the tasks with the target's rows of a share of its users; at least one user stays.

    What may be learned from and what choices are validated on are thinned alike, by user. The smaller share is part of
    the larger one of the same seed. The test rows, their candidates and what is known of those who ask stay.
    """
    users = _users(tasks)
    count = max(1, round(share * len(users)))
    kept = np.sort(np.random.default_rng(seed).permutation(users)[:count])

    def subsample(task: Task) -> Task:
        return replace(
            task,
            train=task.train.select(~task.in_target(task.train) | np.isin(task.train.user, kept)),
        )

    choose = subsample(tasks.choose)
    return Tasks(
        replace(choose, rows=choose.rows.select(np.isin(choose.rows.user, kept))),
        subsample(tasks.final),
    )


def _users(tasks: Tasks) -> Ints:
    """Return the users of whom a final model may learn something in the target, or a choice be made by."""
    train = tasks.final.train
    return np.union1d(train.user[tasks.final.in_target(train)], tasks.choose.rows.user)


@dataclass(frozen=True)
class CurvePlan:
    """A target of the dataset in ``folder``, a source model, and the shares (0, 1] of the target's users to try.

    ``epochs`` None: as the source's. Raises ValueError for a share that is none.
    """

    folder: Path
    domains: tuple[str, ...]
    source: Path
    shares: tuple[float, ...] = SHARES
    fold: int | None = None
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None

    def __post_init__(self) -> None:
        for share in self.shares:
            if not 0 < share <= 1:
                raise ValueError(f"a share must lie above 0 and at most at 1, not {share}")
        object.__setattr__(self, "shares", tuple(sorted(set(self.shares))))


def _run(job: tuple[CurvePlan, str, float, int]) -> ExperimentResult:
    plan, name, share, seed = job
    dataset, source = load_dataset(plan.folder), EdgeModel.load(plan.source)
    config = replace(config_of(source), seed=seed)
    if plan.epochs is not None:
        config = replace(config, epochs=plan.epochs)
    tasks = subsample_users(make_tasks(dataset, plan.domains, plan.fold), share, seed)
    try:
        return EXPERIMENTS[name](
            ExperimentConfig(
                dataset, tasks, config, source if name in NEEDS_SOURCE else None, plan.fold
            )
        )
    except TlrecError as error:
        return failed(str(error))


@dataclass(frozen=True)
class Point:
    """One share: how many users and rows of the target it is (of the first seed), and what each trial reaches."""

    share: float
    users: int
    rows: int
    lines: Mapping[str, ResultRow]


@dataclass(frozen=True)
class Curve:
    """Points by rising share, all on the same test rows; ``users`` (m,) asked them."""

    plan: CurvePlan
    users: Ints
    points: tuple[Point, ...]

    def lift(self, point: Point) -> dict[str, Any] | None:
        """Return the lift of finetune over scratch at a point."""
        tuned, own = point.lines["finetune"], point.lines["scratch"]
        return None if tuned.failure or own.failure else compare(tuned, own, self.users)

    def words(self) -> list[str]:
        """Say where transfer pays, and how much of the target's data it stands for."""
        target, said = ", ".join(self.plan.domains), []
        verdicts = [(point, lift["verdict"]) for point in self.points if (lift := self.lift(point))]
        for verdict, words in (
            ("better", "better than scratch with"),
            ("worse", "worse than scratch with"),
            ("no difference shown", "not shown to differ from scratch with"),
        ):
            shares = [percent(point.share) for point, found in verdicts if found == verdict]
            if shares:
                said.append(f"Finetune is {words} {', '.join(shares)} of the users of {target}.")
        return [*said, *self._data_equivalence()]

    def _data_equivalence(self) -> list[str]:
        """Say with which share finetune reaches what scratch reaches with the largest."""
        last = self.points[-1]
        if self.lift(last) is None:
            return []
        goal = float(last.lines["scratch"].values.mean())
        found = [
            point.share
            for point in self.points
            if not (line := point.lines["finetune"]).failure and line.values.mean() >= goal
        ]
        reaches = f"reaches with {percent(found[0])}" if found else "does not reach"
        return [
            f"What scratch reaches with {percent(last.share)} ({goal:.4f}), finetune {reaches}."
        ]

    def to_json(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "domain": ", ".join(plan.domains),
            "source": str(plan.source),
            "fold": plan.fold,
            "seeds": list(plan.seeds),
            "users": len(np.unique(self.users)),
            "tests": len(self.users),
            "points": [
                {
                    "share": point.share,
                    "users": point.users,
                    "rows": point.rows,
                    "lines": [line.to_json(self.users) for line in point.lines.values()],
                    "lift": self.lift(point),
                }
                for point in self.points
            ],
            "words": self.words(),
        }


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def curve(
    plan: CurvePlan,
    names: Sequence[str] = ROWS,
    progress: Callable[[str], None] = lambda line: None,
    processes: int | None = None,
) -> Curve:
    """Try ``names`` (of EXPERIMENTS; scratch and finetune always) at every share, side by side, a process for each core.

    Raises ModelError for a source that may know the answers, DataError where the split asks no test question.
    """
    dataset = load_dataset(plan.folder)
    tasks = make_tasks(dataset, plan.domains, plan.fold)
    check_source(EdgeModel.load(plan.source), dataset, plan.domains)
    if not len(tasks.final.rows):
        raise DataError(
            f"the split '{dataset.split.kind}' leaves no test question in {', '.join(plan.domains)}"
        )
    names = tuple(dict.fromkeys((*names, "scratch", "finetune")))
    jobs = [
        (plan, name, share, seed)
        for share in plan.shares[::-1]
        for name in names
        for seed in plan.seeds
    ]
    done = {}
    for job, result in zip(jobs, parallel_map(_run, jobs, processes), strict=True):
        progress(f"{job[1]} with {percent(job[2])}")
        done[job[1:]] = result
    points = []
    for share in plan.shares:
        final = subsample_users(tasks, share, plan.seeds[0]).final
        log = final.train.select(final.in_target(final.train))
        lines = {
            name: ResultRow(name, tuple(done[name, share, seed] for seed in plan.seeds))
            for name in names
        }
        points.append(Point(share, len(np.unique(log.user)), len(log), lines))
    return Curve(plan, tasks.final.rows.user, tuple(points))
