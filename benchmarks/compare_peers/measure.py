"""Measure one row: load everybody, compare answers, and only then take turns."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from .data import Data
from .rows import Entry, Row, Target
from .turns import Failed, Worker, build, take_turns

STARTS = 3
_INDEXES = ("faiss-flat", "faiss-sq8", "faiss-ivf", "faiss-ivf-rerank", "hnswlib")
_BUILDS = frozenset({"onnxruntime", "openvino", "rechub", *_INDEXES})
_OURS = "tlrec-edge"

Found = dict[str, Any]


class Bench:
    """Where the data is, what runs it, and which contenders are wanted; ``absent``: why some can't be."""

    def __init__(
        self,
        python: str,
        folder: Path,
        only: tuple[str, ...],
        seconds: float,
        absent: dict[str, str],
        progress: Callable[[str], None],
    ) -> None:
        self.python, self.folder, self.only, self.seconds = python, folder, only, seconds
        self.absent, self.progress = absent, progress

    def measure(self, row: Row) -> Found:
        """Return the figures of a row: contenders by name, ``missing`` and ``wrong`` ones with the reason, targets."""
        wanted = [
            e
            for e in row.entries
            if not self.only or e.contender in self.only or e.contender.startswith(_OURS)
        ]
        found: Found = {"title": row.title, "contenders": {}, "missing": {}, "wrong": {}}
        with ExitStack() as stack:
            workers: dict[str, tuple[Worker, tuple[str, ...]]] = {}
            for entry in wanted:
                if why := next(
                    (w for peer, w in self.absent.items() if entry.contender.startswith(peer)), None
                ):
                    found["missing"][entry.contender] = why
                    continue
                self.progress(f"  loading {entry.contender}")
                try:
                    worker = self._load(stack, row, entry, found)
                except Failed as failed:
                    found["missing"][entry.contender] = str(failed)
                    continue
                try:
                    self._check(worker, row, entry, found)
                except Failed as failed:
                    found["wrong"][entry.contender] = str(failed)
                    continue
                workers[entry.contender] = worker, entry.tasks
            if row.limits:
                for own in found["contenders"].values():
                    own["tasks"] = {}
                return found | {"limits": self._limits(row, found)}
            self.progress(f"  timing {', '.join(workers)}")
            for (name, task), timed in take_turns(workers, self.seconds).items():
                found["contenders"][name]["tasks"][task] = timed.summary()
        found["targets"] = [_judge(target, found["contenders"]) for target in row.targets]
        return found

    def _load(self, stack: ExitStack, row: Row, entry: Entry, found: Found) -> Worker:
        data, log = self.folder / row.catalogue, self.folder / f"{entry.contender}.log"
        if entry.contender in _BUILDS:
            build(self.python, data, entry.model, entry.contender, log)
        spawn = partial(
            Worker, self.python, data, entry.model, entry.contender, entry.tasks[0], log
        )
        seconds, ready = [], {}
        for _ in range(STARTS - 1 if row.limits else 0):
            with spawn() as early:
                seconds.append(early.read()["answered"] - early.spawned)
        worker = stack.enter_context(spawn())
        ready = worker.read()
        seconds.append(ready["answered"] - worker.spawned)
        found["contenders"][entry.contender] = {
            "about": ready["about"],
            "seconds": statistics.median(seconds),
            **ready["memory"],
            "tasks": dict.fromkeys(entry.tasks),
        }
        return worker

    def _check(self, worker: Worker, row: Row, entry: Entry, found: Found) -> None:
        own = found["contenders"][entry.contender]
        own |= worker.ask("tune")
        for task in (*entry.tasks, *entry.checked):
            own |= worker.ask("check", task=task, approximate=row.approximate)

    def _limits(self, row: Row, found: Found) -> list[Found]:
        """Judge our fresh processes; the last figure is that of four at once."""
        entry, data = row.entries[0], self.folder / row.catalogue
        if entry.contender not in found["contenders"]:
            return []
        own = found["contenders"][entry.contender]
        with ExitStack() as stack:
            log = self.folder / f"{entry.contender}.log"
            four = [
                stack.enter_context(
                    Worker(self.python, data, entry.model, entry.contender, entry.tasks[0], log)
                )
                for _ in range(4)
            ]
            for worker in four:
                worker.read()
            asked = [worker.ask("memory") for worker in four]
        if all("pss" in memory for memory in asked):
            own["pss_of_four"] = sum(memory["pss"] for memory in asked)
        tables = _table_bytes(Data(data).path("wide"))
        return [
            {
                "text": limit.text,
                "most": limit.most + limit.tables * tables,
                "found": own.get(limit.figure),
            }
            for limit in row.limits
        ]


def _table_bytes(bundle: Path) -> int:
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    return sum(entry["size"] for entry in manifest["files"].values())


def _judge(target: Target, contenders: Found) -> Found:
    """Return our time over the best of the others', or what it adds; None where one of them is missing."""

    def median(name: str, task: str) -> float | None:
        timed = contenders.get(name, {}).get("tasks", {}).get(task)
        return None if timed is None else float(timed["median"])

    others = {name: median(name, task) for name, task in target.against}
    there = {name: value for name, value in others.items() if value is not None}
    judged: Found = {
        "text": target.text,
        "most": target.most,
        "added": target.added,
        "found": None,
        "named": None,
    }
    ours = median(*target.ours)
    if ours is None or not there:
        return judged
    # Who answers as well as it was asked to comes before who is faster.
    reached = [name for name in there if contenders[name].get("reached", True)]
    best = min(reached or there, key=lambda name: there[name])
    compare = (
        (lambda value: value - there[best]) if target.added else (lambda value: value / there[best])
    )
    judged |= {"best": best, "missing": sorted(set(others) - set(there)), "found": compare(ours)}
    named = median(target.ours[0], target.named) if target.named else None
    return judged if named is None else judged | {"named": compare(named)}
