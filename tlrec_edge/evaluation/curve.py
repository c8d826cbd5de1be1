"""The learning curve: the quality on a target by the share of its users that may be trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge.choices import AUTO
from tlrec_edge.core.parallel import parallel_map
from tlrec_edge.core.progress import JOBS, Progress, Reporter, Step
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

NEEDS_SOURCE = ("zero-shot", "finetune", AUTO)
ROWS = ("popularity", "ease", "scratch", "zero-shot", "finetune")
SHARES = (0.01, 0.05, 0.2, 1.0)


def subsample_users(tasks: Tasks, share: float, seed: int) -> Tasks:
    """Return the tasks with a share of the target's users, at least one, to train and validate on.

    With the same seed the users of a smaller share are among those of a larger one. Other domains,
    the test rows, their candidates and the histories do not change.
    """
    users = _target_users(tasks)
    count = max(1, round(share * len(users)))
    sample = np.sort(np.random.default_rng(seed).permutation(users)[:count])

    def subsample(task: Task) -> Task:
        outside_or_sampled = ~task.in_target(task.train) | np.isin(task.train.user, sample)
        return replace(task, train=task.train.select(outside_or_sampled))

    choose = subsample(tasks.choose)
    sampled_rows = choose.rows.select(np.isin(choose.rows.user, sample))
    return Tasks(replace(choose, rows=sampled_rows), subsample(tasks.final))


def _target_users(tasks: Tasks) -> Ints:
    """Return the users with training or validation rows in the target."""
    train = tasks.final.train
    return np.union1d(train.user[tasks.final.in_target(train)], tasks.choose.rows.user)


@dataclass(frozen=True)
class CurveConfig:
    """What to measure.

    Attributes:
        folder: the folder of the dataset.
        domains: the target.
        source: the folder of the source model.
        shares: the shares of the target's users to train on, in (0, 1].
        fold: a fold of a split by new users; None: users keep their history.
        seeds: figures are means over these.
        epochs: the maximum number of epochs; None: as for the source model.

    Raises:
        ValueError: if a share is not in (0, 1].
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


def _run(job: tuple[CurveConfig, str, float, int]) -> ExperimentResult:
    config, name, share, seed = job
    dataset, source = load_dataset(config.folder), EdgeModel.load(config.source)
    train = replace(config_of(source), seed=seed)
    if config.epochs is not None:
        train = replace(train, epochs=config.epochs)
    tasks = subsample_users(make_tasks(dataset, config.domains, config.fold), share, seed)
    try:
        return EXPERIMENTS[name](
            ExperimentConfig(
                dataset, tasks, train, source if name in NEEDS_SOURCE else None, config.fold
            )
        )
    except TlrecError as error:
        return failed(str(error))


@dataclass(frozen=True)
class Point:
    """The results at one share.

    Attributes:
        share: the share of the target's users.
        users: their number, for the first seed.
        rows: the number of their training rows in the target.
        results: the results by experiment.
    """

    share: float
    users: int
    rows: int
    results: Mapping[str, ResultRow]


@dataclass(frozen=True)
class Curve:
    """Points by rising share on the same test rows, whose users are ``users`` (m,)."""

    config: CurveConfig
    users: Ints
    points: tuple[Point, ...]

    def lift(self, point: Point) -> dict[str, Any] | None:
        """Return the lift of finetune over scratch at a point; None if one of them failed."""
        finetune, scratch = point.results["finetune"], point.results["scratch"]
        if finetune.failure or scratch.failure:
            return None
        return compare(finetune, scratch, self.users)

    def summary(self) -> list[str]:
        """Return sentences: with which shares transfer pays, and how much data it replaces."""
        target, sentences = ", ".join(self.config.domains), []
        verdicts = [(point, lift["verdict"]) for point in self.points if (lift := self.lift(point))]
        for verdict, phrase in (
            ("better", "better than scratch"),
            ("worse", "worse than scratch"),
            ("no difference shown", "not shown to differ from scratch"),
        ):
            shares = [percent(point.share) for point, found in verdicts if found == verdict]
            if shares:
                sentences.append(
                    f"Finetune is {phrase} with {', '.join(shares)} of the users of {target}."
                )
        return [*sentences, *self._data_equivalence()]

    def _data_equivalence(self) -> list[str]:
        """Return the share at which finetune reaches the quality of scratch at the largest."""
        last = self.points[-1]
        if self.lift(last) is None:
            return []
        goal = float(last.results["scratch"].values.mean())
        reaching = [
            point.share
            for point in self.points
            if not (result := point.results["finetune"]).failure and result.values.mean() >= goal
        ]
        reaches = f"reaches it with {percent(reaching[0])}" if reaching else "does not reach it"
        return [
            f"Scratch has NDCG@10 {goal:.4f} with {percent(last.share)} of the users; "
            f"finetune {reaches}."
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        config = self.config
        return {
            "domain": ", ".join(config.domains),
            "source": str(config.source),
            "fold": config.fold,
            "seeds": list(config.seeds),
            "users": len(np.unique(self.users)),
            "tests": len(self.users),
            "points": [
                {
                    "share": point.share,
                    "users": point.users,
                    "rows": point.rows,
                    "lines": [result.to_json(self.users) for result in point.results.values()],
                    "lift": self.lift(point),
                }
                for point in self.points
            ],
            "words": self.summary(),
        }


def percent(share: float) -> str:
    """Format a share as a percentage."""
    return f"{100 * share:g} %"


def curve(
    config: CurveConfig,
    names: Sequence[str] = ROWS,
    progress: Reporter | None = None,
    processes: int | None = None,
) -> Curve:
    """Run experiments at every share in parallel processes, by default one per core.

    ``names`` are keys of ``EXPERIMENTS``; scratch and finetune are always run. Raises ModelError if
    the source was trained on the target, DataError if the split has no test rows in it.
    """
    dataset = load_dataset(config.folder)
    tasks = make_tasks(dataset, config.domains, config.fold)
    check_source(EdgeModel.load(config.source), dataset, config.domains)
    if not len(tasks.final.rows):
        raise DataError(
            f"the split '{dataset.split.kind}' leaves no test rows in {', '.join(config.domains)}: "
            "prepare with another --split"
        )
    names = tuple(dict.fromkeys((*names, "scratch", "finetune")))
    jobs = [
        (config, name, share, seed)
        for share in config.shares[::-1]  # the longest first
        for name in names
        for seed in config.seeds
    ]
    results = {}
    follow = Progress.of(progress)
    follow.plan(Step("models", work={JOBS: float(len(jobs))}))
    labels = [f"{name} with {percent(share)}" for _, name, share, _ in jobs]
    fitted = follow.each("models", parallel_map(_run, jobs, processes), labels)
    for (_, name, share, seed), result in zip(jobs, fitted, strict=True):
        results[name, share, seed] = result
    points = []
    for share in config.shares:
        final = subsample_users(tasks, share, config.seeds[0]).final
        log = final.train.select(final.in_target(final.train))
        rows = {
            name: ResultRow(name, tuple(results[name, share, seed] for seed in config.seeds))
            for name in names
        }
        points.append(Point(share, len(np.unique(log.user)), len(log), rows))
    return Curve(config, tasks.final.rows.user, tuple(points))
