"""Threads and forked processes share a recommender; a server imports nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tlrec_edge
from helpers.scores import CANDIDATES, bits
from tlrec_edge import Recommender


def test_threads_get_the_same_scores(path: Path) -> None:
    with Recommender.open(path, cache=4) as rec:
        names = [f"i{row}" for row in range(CANDIDATES)]
        users = [[f"i{row}", f"i{row + 1}"] for row in range(12)]
        expected = [bits(rec.score(user, names)) for user in users]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda at: bits(rec.score(users[at % 12], names)), range(400)))
        assert found == [expected[at % 12] for at in range(400)]


def test_a_fork_after_open_works(path: Path) -> None:
    code = f"""
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from tlrec_edge import Recommender
rec = Recommender.open({str(path)!r}, cache=0)
rec.add_items({{"n": {{"title": "mug"}}}})
expected = rec.score(["i1", "n"], ["i2", "i3"]).tobytes()
stop = threading.Event()
busy = threading.Thread(target=lambda: [rec.score(["i1"], ["i2"]) for _ in iter(stop.is_set, True)])
busy.start()
for _ in range(5):
    child = os.fork()
    if not child:
        rec.add_items({{"m": {{"title": "jug"}}}})
        os._exit(0 if rec.score(["i1", "n"], ["i2", "i3"]).tobytes() == expected else 9)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
busy.join()
"""
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=60,
        cwd=Path(tlrec_edge.__file__).parents[1],
    )


def test_a_server_imports_nothing_heavy(path: Path) -> None:
    code = f"""
import sys
import tlrec_edge
with tlrec_edge.Recommender.open({str(path)!r}) as rec:
    rec.score(["i1"], ["i2"])
    rec.recommend(["i1"])
    rec.add_items({{"n": {{"title": "mug"}}}})
heavy = {{"torch", "pandas", "onnx", "scipy", "pyarrow", "matplotlib", "click", "rich"}}
found = heavy & set(sys.modules)
sys.exit(f"imported: {{found}}" if found else 0)
"""
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=60,
        cwd=Path(tlrec_edge.__file__).parents[1],
    )


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="no list of threads")
def test_a_recommender_starts_no_threads(path: Path) -> None:
    before = len(os.listdir("/proc/self/task"))
    with Recommender.open(path) as rec:
        rec.recommend(["i1"])
        assert len(os.listdir("/proc/self/task")) <= before
