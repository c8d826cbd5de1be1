"""One contender in a process of its own: ``python -m ...worker DATA MODEL CONTENDER FIRST_TASK``.

It reads a JSON command per line and replies with one line; what libraries print goes to stderr.
Every contender has a process of its own because libraries compete for threads and versions, and
because memory and start-up time are then its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from . import contenders
from .contender import Call, Contender
from .data import Data

CHECKED = 32
"""Cases whose answers are checked."""
_APPROXIMATE_TOLERANCE = 0.05
_K = {"top": 10, "top_exact": 10, "top100": 100}


def memory() -> dict[str, int]:
    """Return USS, PSS, RSS and written pages in bytes, or nothing if the system has no smaps."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()[1:]
    except OSError:
        return {}
    fields = (line.partition(":") for line in lines)
    size = {name: int(value.split()[0]) * 1024 for name, _, value in fields}
    written = size["Private_Dirty"]
    uss = size["Private_Clean"] + written
    return {"uss": uss, "dirty": written, "pss": size["Pss"], "rss": size["Rss"]}


class Session:
    """The commands that a loaded contender executes."""

    def __init__(self, data: Data, contender: Contender) -> None:
        self.data, self.contender = data, contender
        self.cases = len(data.load("histories"))
        self.calls: dict[str, Call] = {}
        self.next_case: dict[str, int] = {}

    def call(self, task: str) -> Call:
        """Return the call of a task, made at first use."""
        if task not in self.calls:
            self.calls[task] = self.contender.call(task)
        return self.calls[task]

    def answer(self, task: str, i: int) -> Any:
        """Answer a case."""
        call = self.call(task)
        return call.run(*call.prepare(i))

    def tune(self) -> dict[str, Any]:
        """Tune an approximate contender and return its choice."""
        return {} if self.contender.exact else self.contender.tune()

    def check(self, task: str, approximate: bool) -> dict[str, float]:
        """Check answers and return the largest error or the recall. Raises Disagreement."""
        read = self.call(task).read
        if read is None:
            return {}
        answers = [read(i, self.answer(task, i)) for i in range(min(CHECKED, self.cases))]
        if task in _K:
            return self._check_items(task, answers, approximate or not self.contender.exact)
        return {"error": max(self._errors(task, answers, self.contender.tolerance))}

    def _errors(self, task: str, answers: list[Any], tolerance: float) -> list[float]:
        from .agree import check_scores

        truths = [self.truth(task, i) for i in range(len(answers))]
        pairs = zip(answers, truths, strict=True)
        return [check_scores(answer, truth, tolerance) for answer, truth in pairs]

    def _check_items(self, task: str, answers: list[Any], approximate: bool) -> dict[str, float]:
        from .agree import check_best, recall

        tolerance = _APPROXIMATE_TOLERANCE if approximate else self.contender.tolerance
        self._errors(task, answers, tolerance)
        k, recalls = _K[task], []
        for i, answer in enumerate(answers):
            truth = self.truth(task, i)
            if not approximate:
                check_best(answer, truth, k)
            recalls.append(recall(answer.rows, truth, min(k, len(truth))))
        return {f"recall@{k}": float(np.mean(recalls))}

    def truth(self, task: str, i: int) -> Any:
        """Return the true scores of all items in case ``i``."""
        own = self.contender.reference(task, i)
        if own is not None:
            return own
        name = "encoded" if task == "request" else "queries"
        model = "base" if self.contender.model == "base" else "fast"
        return self.data.load("vectors") @ self.data.load(f"{name}-{model}")[i]

    def time(self, task: str, count: int, skip: int) -> dict[str, Any]:
        """Time ``count`` calls after ``skip`` others, which fill the caches after a switch."""
        call, now, taken = self.call(task), time.perf_counter_ns, []
        first = self.next_case.get(task, 0)
        end = self.next_case[task] = first + count + skip
        arguments = [call.prepare(i % self.cases) for i in range(first, end)]
        run, cpu_start, wall_start = call.run, time.process_time_ns(), now()
        for given in arguments:
            start = now()
            run(*given)
            taken.append(now() - start)
        cpu = time.process_time_ns() - cpu_start
        return {"ns": taken[skip:], "cpu": cpu, "wall": now() - wall_start}


Reply = Callable[[dict[str, Any]], None]


def serve(session: Session, commands: TextIO, reply: Reply) -> None:
    """Execute commands until the input ends."""
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "check": session.check,
        "time": session.time,
        "tune": session.tune,
        "memory": memory,
    }
    for line in commands:
        command = json.loads(line)
        try:
            reply(actions[command.pop("do")](**command))
        except Exception as error:  # a peer may raise anything
            reply(_failure(error))


def _failure(error: Exception) -> dict[str, str]:
    return {"failed": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Load the contender, reply with its first answer's time, and serve."""
    folder, model, name, task = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(values: dict[str, Any]) -> None:
        replies.write(json.dumps(values) + "\n")
        replies.flush()

    try:
        data = Data(Path(folder))
        if task == "build":
            contenders.kind(name).build(data, model)
            reply({"built": True})
            return
        session = Session(data, contenders.make(name, data, model))
        session.answer(task, 0)
        reply({"answered": time.time(), "memory": memory(), "about": session.contender.about})
    except Exception as error:  # a peer may raise anything
        reply(_failure(error))
        return
    serve(session, sys.stdin, reply)


if __name__ == "__main__":
    main()
