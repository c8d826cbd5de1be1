"""Processes that take turns, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

_ROOT = Path(__file__).parents[2]
_ONE_THREAD = {
    f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "POLARS_MAX")
}
_TURN_NS = 20e6


class Failed(Exception):
    """A contender can't be loaded or run, or gives wrong answers."""


class Worker:
    """A contender's process."""

    def __init__(
        self, python: str, data: Path, model: str, contender: str, task: str, log: Path
    ) -> None:
        self.name, self.log = contender, log
        self.spawned = time.time()
        self._child = subprocess.Popen(
            [python, "-m", f"{__package__}.worker", str(data), model, contender, task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("a"),
            text=True,
            cwd=_ROOT,
            env=os.environ | _ONE_THREAD,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._child.communicate()  # closes its input, at which it ends

    def read(self) -> dict[str, Any]:
        """Return its next answer. Raises Failed."""
        line = self._child.stdout.readline() if self._child.stdout else ""
        if not line:
            raise Failed(f"its process ended ({self._child.wait()}), see {self.log.name}")
        found: dict[str, Any] = json.loads(line)
        if "failed" in found:
            raise Failed(found["failed"])
        return found

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        if self._child.stdin:
            self._child.stdin.write(json.dumps({"do": do} | more) + "\n")
            self._child.stdin.flush()
        return self.read()


@dataclass
class Timed:
    """Nanoseconds of the calls of one task."""

    ns: list[int] = field(default_factory=list)
    cpu: int = 0
    wall: int = 0

    def add(self, turn: dict[str, Any]) -> None:
        self.ns += turn["ns"]
        self.cpu, self.wall = self.cpu + turn["cpu"], self.wall + turn["wall"]

    def summary(self) -> dict[str, float]:
        """Return microseconds; ``cpu``: processor time over time, above 1 where more than one thread ran."""
        us = np.array(self.ns) / 1000
        return {
            "median": float(np.median(us)),
            "p10": float(np.quantile(us, 0.1)),
            "p99": float(np.quantile(us, 0.99)),
            "calls": len(us),
            "cpu": self.cpu / max(self.wall, 1),
        }


def take_turns(
    workers: dict[str, tuple[Worker, tuple[str, ...]]], seconds: float
) -> dict[tuple[str, str], Timed]:
    """Time every task of every worker, in an order that changes, for about ``seconds`` each."""
    rng, found = np.random.default_rng(0), defaultdict(Timed)
    pairs = [(name, task) for name, (_, tasks) in workers.items() for task in tasks]
    count = {}
    for name, task in pairs:
        first = workers[name][0].ask("time", task=task, count=5, skip=2)
        count[name, task] = int(np.clip(_TURN_NS / max(float(np.median(first["ns"])), 1.0), 2, 20))
    until = time.monotonic() + seconds * len(pairs)
    while time.monotonic() < until:
        for name, task in (pairs[at] for at in rng.permutation(len(pairs))):
            n = count[name, task]
            found[name, task].add(
                workers[name][0].ask("time", task=task, count=n, skip=2 if n > 4 else 1)
            )
    return dict(found)


def build(python: str, data: Path, model: str, contender: str, log: Path) -> None:
    """Let a contender write its files. Raises Failed."""
    with Worker(python, data, model, contender, "build", log) as worker:
        worker.read()


def python_of(environment: Path | None) -> str:
    return str(environment / "bin" / "python") if environment else sys.executable
