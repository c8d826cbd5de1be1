"""One contender in a process of its own: ``python -m benchmarks.compare_peers.worker DATA MODEL CONTENDER FIRST_TASK``.

Reads a JSON command a line and answers each with one line; what libraries print goes to stderr. A process each, because
libraries that share one fight over threads and versions, and because memory and start-up are then the contender's own.
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
"""Questions that are compared."""
_K = {"top": 10, "top_exact": 10, "top100": 100}


def memory() -> dict[str, int]:
    """Return USS, PSS, RSS and what of it was written, in bytes, or nothing where the system does not tell."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()[1:]
    except OSError:
        return {}
    size = {
        name: int(rest.split()[0]) * 1024
        for name, _, rest in (line.partition(":") for line in lines)
    }
    uss, dirty = size["Private_Clean"] + size["Private_Dirty"], size["Private_Dirty"]
    return {"uss": uss, "dirty": dirty, "pss": size["Pss"], "rss": size["Rss"]}


class Session:
    """What a contender is asked for, command by command."""

    def __init__(self, data: Data, contender: Contender) -> None:
        self.data, self.contender = data, contender
        self.questions = len(data.load("histories"))
        self.calls: dict[str, Call] = {}
        self.at: dict[str, int] = {}

    def call(self, task: str) -> Call:
        if task not in self.calls:
            self.calls[task] = self.contender.call(task)
        return self.calls[task]

    def answer(self, task: str, i: int) -> Any:
        call = self.call(task)
        return call.run(*call.prepare(i))

    def tune(self) -> dict[str, Any]:
        return {} if self.contender.exact else self.contender.tune()

    def check(self, task: str, approximate: bool) -> dict[str, float]:
        """Compare answers; return the largest error or the recall. Raises Disagreement."""
        from .agree import check_best, check_scores, recall

        call, found = self.call(task), []
        if call.read is None:
            return {}
        for i in range(min(CHECKED, self.questions)):
            answer = call.read(i, call.run(*call.prepare(i)))
            truth = self.truth(task, i)
            if task not in _K:
                found.append(check_scores(answer, truth, self.contender.tolerance))
                continue
            check_scores(
                answer,
                truth,
                0.05 if approximate or not self.contender.exact else self.contender.tolerance,
            )
            if self.contender.exact and not approximate:
                check_best(answer, truth, _K[task])
            found.append(recall(answer.rows, truth, min(_K[task], len(truth))))
        return (
            {f"recall@{_K[task]}": float(np.mean(found))} if task in _K else {"error": max(found)}
        )

    def truth(self, task: str, i: int) -> Any:
        own = self.contender.reference(task, i)
        if own is not None:
            return own
        name = "encoded" if task == "request" else "queries"
        model = "base" if self.contender.model == "base" else "fast"
        return self.data.load("vectors") @ self.data.load(f"{name}-{model}")[i]

    def time(self, task: str, count: int, skip: int) -> dict[str, Any]:
        """Time ``count`` calls after ``skip`` that are not counted: another process had the caches before."""
        call, clock, taken = self.call(task), time.perf_counter_ns, []
        first = self.at.get(task, 0)
        self.at[task] = first + count + skip
        given = [call.prepare(i % self.questions) for i in range(first, first + count + skip)]
        run, cpu, since = call.run, time.process_time_ns(), clock()
        for arguments in given:
            start = clock()
            run(*arguments)
            taken.append(clock() - start)
        return {"ns": taken[skip:], "cpu": time.process_time_ns() - cpu, "wall": clock() - since}


def serve(session: Session, commands: TextIO, progress: Callable[[dict[str, Any]], None]) -> None:
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "check": session.check,
        "time": session.time,
        "tune": session.tune,
        "memory": memory,
    }
    for line in commands:
        command = json.loads(line)
        try:
            progress(actions[command.pop("do")](**command))
        except Exception as error:  # a peer may raise anything
            progress({"failed": f"{type(error).__name__}: {error}"})


def main() -> None:
    folder, model, name, task = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def progress(found: dict[str, Any]) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    try:
        data = Data(Path(folder))
        if task == "build":
            contenders.kind(name).build(data, model)
            progress({"built": True})
            return
        session = Session(data, contenders.make(name, data, model))
        session.answer(task, 0)
        progress({"answered": time.time(), "memory": memory(), "about": session.contender.about})
    except Exception as error:  # as above
        progress({"failed": f"{type(error).__name__}: {error}"})
        return
    serve(session, sys.stdin, progress)


if __name__ == "__main__":
    main()
