"""A minute of requests from sixteen threads: same bits, no errors, no leak, and forks work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tlrec_edge
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize

ITEMS = 210_000  # enough for an inverted file
THREADS, SECONDS, WARM = 16, 60, 15
GROWTH = 6_000_000
"""Bytes by which private memory may grow after the first ``WARM`` seconds."""

SOAK = """
import json, os, random, sys, threading, time, warnings
import numpy as np
from tlrec_edge import Recommender

warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
path, items, threads, seconds, warm = sys.argv[1], *map(int, sys.argv[2:])
name = "SKU{:08d}".format
draw = random.Random(0)
users = [[name(draw.randrange(items)) for _ in range(draw.randrange(1, 50))] for _ in range(48)]
candidates = [[name(draw.randrange(items)) for _ in range(100)] for _ in users]


def ranked(found):
    return found.items, found.scores.tobytes()


def answers(rec, at):
    user = users[at]
    return {
        "ids": lambda: rec.score(user, candidates[at]).tobytes(),
        "rows": lambda: rec.score(user, rec.rows(candidates[at])).tobytes(),
        "state": lambda: rec.score(rec.user_state(user), candidates[at]).tobytes(),
        "top": lambda: ranked(rec.recommend(user, 10)),
        "exact": lambda: ranked(rec.recommend(user, 10, exhaustive=True)),
    }


with Recommender.open(path, cache=16) as rec:
    right = [{key: ask() for key, ask in answers(rec, at).items()} for at in range(len(users))]
    known_rows = rec.rows(map(name, range(30_000))).values.tolist()
    wrong, calls, stop = [], [0] * threads, threading.Event()

    def serve(me):
        mine = random.Random(me)
        while not stop.is_set():
            at = mine.randrange(len(users))
            keys = mine.choices(["ids", "rows", "state", "top", "exact"], [10, 10, 10, 5, 1])
            try:
                if answers(rec, at)[keys[0]]() != right[at][keys[0]]:
                    wrong.append(f"{keys[0]} of user {at} differs")
                # Known ids fit into the cache, full before memory is read; others never do.
                rows = [mine.randrange(30_000) + mine.choice([0, items]) for _ in range(20)]
                expected = [known_rows[row] if row < items else -1 for row in rows]
                if rec.rows(map(name, rows)).values.tolist() != expected:
                    wrong.append("rows differ")
            except Exception as error:
                wrong.append(repr(error))
            calls[me] += 1

    def fork():
        child = os.fork()
        if not child:
            same = all(answers(rec, 0)[key]() == right[0][key] for key in right[0])
            os._exit(0 if same else 9)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    crowd = [threading.Thread(target=serve, args=(me,)) for me in range(threads)]
    for thread in crowd:
        thread.start()
    time.sleep(warm)
    before, forks = rec.memory(), [fork()]
    time.sleep(seconds - warm)
    forks.append(fork())
    stop.set()
    for thread in crowd:
        thread.join()
    after = rec.memory()
found = {"wrong": wrong[:5], "calls": calls, "forks": forks, "before": before, "after": after}
json.dump(found, sys.stdout)
"""


@pytest.mark.slow
def test_a_minute_of_sixteen_threads(tmp_path: Path) -> None:
    synthesize(tmp_path / "b", SynthConfig(ITEMS, dim=32))
    command = [
        sys.executable,
        "-c",
        SOAK,
        str(tmp_path / "b"),
        *map(str, (ITEMS, THREADS, SECONDS, WARM)),
    ]
    root = Path(tlrec_edge.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=5 * SECONDS)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["forks"] == [0, 0]
    assert min(found["calls"]) > 20, "every thread was served"
    if "private_bytes" in found["after"]:
        assert found["after"]["private_bytes"] - found["before"]["private_bytes"] < GROWTH, (
            found["before"],
            found["after"],
        )
