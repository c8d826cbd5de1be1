"""Measure a row: load every contender, check its answers, and only then time them in turns."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .data import Data
from .install import BEFORE
from .rows import OURS, Entry, Row, Target
from .turns import Environment, Failed, Tasks, Timed, Worker, build, take_turns

STARTS = 3
"""Processes that are started to measure the time to a first answer."""
_INDEXES = ("faiss-flat", "faiss-sq8", "faiss-ivf", "faiss-ivf-rerank", "hnswlib")
_BUILDS = frozenset({"onnxruntime", "openvino", "rechub", *_INDEXES})

Result = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """How rows are measured.

    Attributes:
        folder: Folder of the catalogues.
        environments: Environments by contender; "" has all that are not listed.
        only: Contenders to measure next to ours; none for all.
        seconds: Time for each task of each contender.
        rounds: Pairs of fresh processes for the ratio to the older version.
        absent: Reasons why contenders can't be measured, by the beginning of their names.
        progress: Function that shows a step.
    """

    folder: Path
    environments: Mapping[str, Environment]
    only: tuple[str, ...]
    seconds: float
    rounds: int
    absent: Mapping[str, str]
    progress: Callable[[str], None]

    def measure(self, row: Row) -> Result:
        """Return the results of a row.

        They hold the contenders by name, the ``missing`` and ``wrong`` ones with the reason, our
        targets, and the ratios to the older version.
        """
        result: Result = {"title": row.title, "contenders": {}, "missing": {}, "wrong": {}}
        with ExitStack() as stack:
            workers = self._load_all(stack, row, result)
            if row.limits:
                for contender in result["contenders"].values():
                    contender["tasks"] = {}
                return result | {"limits": self._limits(row, result)}
            self.progress(f"  timing {', '.join(workers)}")
            for (name, task), timed in take_turns(workers, self.seconds).items():
                result["contenders"][name]["tasks"][task] = timed.summary()
        result["targets"] = [_judge(target, result["contenders"]) for target in row.targets]
        result["ratios"] = self._ratios(row, set(workers))
        return result

    def _load_all(self, stack: ExitStack, row: Row, result: Result) -> Tasks:
        """Load and check the contenders of a row; return the ones that are right."""
        workers: Tasks = {}
        for entry in filter(self._is_wanted, row.entries):
            name = entry.contender
            if reason := self._reason_absent(name):
                result["missing"][name] = reason
                continue
            self.progress(f"  loading {name}")
            try:
                worker = self._load(stack, row, entry, result)
            except Failed as failed:
                result["missing"][name] = str(failed)
                continue
            try:
                self._check(worker, row, entry, result)
            except Failed as failed:
                result["wrong"][name] = str(failed)
                continue
            workers[name] = worker, entry.tasks
        return workers

    def _is_wanted(self, entry: Entry) -> bool:
        name = entry.contender
        return not self.only or name in self.only or name.startswith((OURS, BEFORE))

    def _reason_absent(self, name: str) -> str | None:
        reasons = (why for start, why in self.absent.items() if name.startswith(start))
        return next(reasons, None)

    def _worker(self, row: Row, entry: Entry) -> Worker:
        kind = BEFORE if entry.contender.startswith(BEFORE) else ""
        data, log = self.folder / row.catalogue, self.folder / f"{entry.contender}.log"
        environment = self.environments[kind]
        return Worker(environment, data, entry.model, entry.contender, entry.tasks[0], log)

    def _load(self, stack: ExitStack, row: Row, entry: Entry, result: Result) -> Worker:
        if entry.contender in _BUILDS:
            data, log = self.folder / row.catalogue, self.folder / f"{entry.contender}.log"
            build(self.environments[""], data, entry.model, entry.contender, log)
        spawn = partial(self._worker, row, entry)
        seconds = []
        for _ in range(STARTS - 1 if row.limits else 0):
            with spawn() as early:
                seconds.append(early.read()["answered"] - early.spawned)
        worker = stack.enter_context(spawn())
        ready = worker.read()
        seconds.append(ready["answered"] - worker.spawned)
        result["contenders"][entry.contender] = {
            "about": ready["about"],
            "seconds": statistics.median(seconds),
            **ready["memory"],
            "tasks": dict.fromkeys(entry.tasks),
        }
        return worker

    def _check(self, worker: Worker, row: Row, entry: Entry, result: Result) -> None:
        contender = result["contenders"][entry.contender]
        contender |= worker.send("tune")
        for task in (*entry.tasks, *entry.checked):
            contender |= worker.send("check", task=task, approximate=row.approximate)

    def _ratios(self, row: Row, measured: set[str]) -> list[Result]:
        """Compare our times with those of the older version, if it takes part in this row."""
        entries = {entry.contender: entry for entry in row.entries if entry.contender in measured}
        ratios = []
        for name, older in entries.items():
            ours = entries.get(name.replace(BEFORE, OURS))
            if name.startswith(BEFORE) and ours is not None:
                self.progress(f"  {name}: {self.rounds} rounds of fresh processes")
                ratios += self._compare(row, ours._replace(tasks=older.tasks), older)
        return ratios

    def _compare(self, row: Row, ours: Entry, older: Entry) -> list[Result]:
        """Return the ratio of our time to the older version's for each task.

        A process can be some per cent faster than its twin, depending on its memory layout. So both
        are started anew in every round, each gives one ratio, and the interval is one of rounds.
        """
        rounds = [self._round(row, ours, older, at % 2 == 1) for at in range(self.rounds)]
        return [
            {"contender": ours.contender, "task": task}
            | _interval(
                [timed[older.contender, task].median for timed in rounds],
                [timed[ours.contender, task].median for timed in rounds],
            )
            for task in older.tasks
        ]

    def _round(
        self, row: Row, ours: Entry, older: Entry, swapped: bool
    ) -> dict[tuple[str, str], Timed]:
        pair = (older, ours) if swapped else (ours, older)
        with ExitStack() as stack:
            workers: Tasks = {}
            for entry in pair:
                worker = stack.enter_context(self._worker(row, entry))
                worker.read()
                workers[entry.contender] = worker, entry.tasks
            return take_turns(workers, self.seconds / 2)

    def _limits(self, row: Row, result: Result) -> list[Result]:
        """Judge our fresh processes; the last limit concerns four of them together."""
        entry = row.entries[0]
        if entry.contender not in result["contenders"]:
            return []
        contender = result["contenders"][entry.contender]
        with ExitStack() as stack:
            four = [stack.enter_context(self._worker(row, entry)) for _ in range(4)]
            for worker in four:
                worker.read()
            memory = [worker.send("memory") for worker in four]
        if all("pss" in one for one in memory):
            contender["pss_of_four"] = sum(one["pss"] for one in memory)
        tables = _table_bytes(Data(self.folder / row.catalogue).path("wide"))
        return [
            {
                "text": limit.text,
                "most": limit.most + limit.tables * tables,
                "found": contender.get(limit.figure),
            }
            for limit in row.limits
        ]


def _interval(before: list[float], now: list[float]) -> Result:
    """Return medians, their ratio round by round, and the interval of that ratio's median."""
    from tlrec_edge.bench.compare import ordered_interval

    ratios = sorted(after / earlier for earlier, after in zip(before, now, strict=True))
    skipped, confidence = ordered_interval(len(ratios), 0.95) or (0, 0.0)
    return {
        "before": statistics.median(before),
        "now": statistics.median(now),
        "ratio": statistics.median(ratios),
        "low": ratios[skipped],
        "high": ratios[-1 - skipped],
        "confidence": confidence,
        "rounds": ratios,
    }


def _table_bytes(bundle: Path) -> int:
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    return sum(entry["size"] for entry in manifest["files"].values())


def _judge(target: Target, contenders: Result) -> Result:
    """Return our time over that of the best other, or what it adds; None if it is unknown."""

    def median(name: str, task: str) -> float | None:
        timed = contenders.get(name, {}).get("tasks", {}).get(task)
        return None if timed is None else float(timed["median"])

    others = {name: median(name, task) for name, task in target.against}
    measured = {name: value for name, value in others.items() if value is not None}
    ours = median(*target.ours)
    judged: Result = {"text": target.text, "most": target.most, "added": target.added}
    judged |= {"found": None, "named": None}
    if ours is None or not measured:
        return judged
    # A peer that reaches the required recall takes precedence over a faster one that does not.
    reached = [name for name in measured if contenders[name].get("reached", True)]
    best = min(reached or measured, key=lambda name: measured[name])

    def compare(value: float) -> float:
        return value - measured[best] if target.added else value / measured[best]

    judged |= {"best": best, "missing": sorted(set(others) - set(measured)), "found": compare(ours)}
    named = median(target.ours[0], target.named) if target.named else None
    return judged if named is None else judged | {"named": compare(named)}
