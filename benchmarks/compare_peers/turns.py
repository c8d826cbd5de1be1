"""Processes that take turns, so that whatever disturbs the machine disturbs all of them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

_ONE_THREAD = {
    f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "POLARS_MAX")
}
_TURN_NS = 20e6


class Failed(Exception):
    """A contender can't be loaded or run, or its answers are wrong."""


class Environment(NamedTuple):
    """A Python, and the folder from which it imports ``benchmarks``."""

    python: str
    folder: Path


class Worker:
    """The process of a contender."""

    def __init__(
        self, environment: Environment, data: Path, model: str, name: str, task: str, log: Path
    ) -> None:
        self.name, self.log = name, log
        self.spawned = time.time()
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self._child = subprocess.Popen(
            [environment.python, "-m", f"{__package__}.worker", str(data), model, name, task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("a"),
            text=True,
            cwd=environment.folder,
            env=variables | _ONE_THREAD,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._child.communicate()  # closes its input, at which it ends

    def read(self) -> dict[str, Any]:
        """Return its next reply. Raises Failed."""
        line = self._child.stdout.readline() if self._child.stdout else ""
        if not line:
            raise Failed(f"its process ended ({self._child.wait()}), see {self.log.name}")
        reply: dict[str, Any] = json.loads(line)
        if "failed" in reply:
            raise Failed(reply["failed"])
        return reply

    def send(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and return the reply. Raises Failed."""
        if self._child.stdin:
            self._child.stdin.write(json.dumps({"do": command} | arguments) + "\n")
            self._child.stdin.flush()
        return self.read()


@dataclass
class Timed:
    """The calls of one task.

    Attributes:
        ns: Nanoseconds of each call.
        cpu: Nanoseconds of processor time of all calls together.
        wall: Nanoseconds of all calls together.
    """

    ns: list[int] = field(default_factory=list)
    cpu: int = 0
    wall: int = 0

    def add(self, turn: dict[str, Any]) -> None:
        """Add the calls of one turn."""
        self.ns += turn["ns"]
        self.cpu, self.wall = self.cpu + turn["cpu"], self.wall + turn["wall"]

    @property
    def median(self) -> float:
        """The median in microseconds."""
        return float(np.median(self.ns)) / 1000

    def summary(self) -> dict[str, float]:
        """Return microseconds, and processor time over time: above 1 for several threads."""
        us = np.array(self.ns) / 1000
        return {
            "median": self.median,
            "p10": float(np.quantile(us, 0.1)),
            "p99": float(np.quantile(us, 0.99)),
            "calls": len(us),
            "cpu": self.cpu / max(self.wall, 1),
        }


Tasks = dict[str, tuple[Worker, tuple[str, ...]]]
"""Worker and tasks of each contender by name."""


def take_turns(workers: Tasks, seconds: float) -> dict[tuple[str, str], Timed]:
    """Time every task of every worker, in random order, for about ``seconds`` each."""
    rng, timed = np.random.default_rng(0), defaultdict(Timed)
    pairs = [(name, task) for name, (_, tasks) in workers.items() for task in tasks]
    counts = {}
    for name, task in pairs:
        first = workers[name][0].send("time", task=task, count=5, skip=2)
        median = max(float(np.median(first["ns"])), 1.0)
        counts[name, task] = int(np.clip(_TURN_NS / median, 2, 20))
    end = time.monotonic() + seconds * len(pairs)
    while time.monotonic() < end or len(timed) < len(pairs):
        for name, task in (pairs[at] for at in rng.permutation(len(pairs))):
            count = counts[name, task]
            skip = 2 if count > 4 else 1
            turn = workers[name][0].send("time", task=task, count=count, skip=skip)
            timed[name, task].add(turn)
    return dict(timed)


def build(environment: Environment, data: Path, model: str, contender: str, log: Path) -> None:
    """Let a contender write its files. Raises Failed."""
    with Worker(environment, data, model, contender, "build", log) as worker:
        worker.read()
