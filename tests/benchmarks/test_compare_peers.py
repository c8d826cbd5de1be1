"""The comparison with peers, offline and small: who is not installed is named, and a wrong answer is not timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.paths import ROOT

SIZES = ["--small", "600", "--large", "900", "--seconds", "0.02"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("peers")
    # No installation: these rows have contenders of the development environment and others.
    rows = ["--rows", "fast-100", "cached-1000", "top-100k"]
    command = [
        sys.executable,
        "-m",
        "benchmarks.compare_peers",
        str(folder),
        "--here",
        *SIZES,
        *rows,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "peers.json").read_text()), (folder / "peers.md").read_text()


def test_our_rows_and_the_floor_are_measured(report: tuple[dict[str, Any], str]) -> None:
    rows = report[0]["rows"]
    ours = rows["fast-100"]["contenders"]["tlrec-edge"]
    assert set(ours["tasks"]) == {"request", "request_ids", "floor"}
    assert 0 < ours["tasks"]["floor"]["median"] < ours["tasks"]["request"]["median"]
    assert rows["fast-100"]["contenders"]["onnxruntime"]["error"] < 1e-4
    assert rows["top-100k"]["contenders"]["tlrec-edge"]["recall@10"] == 1.0
    floor = rows["fast-100"]["targets"][1]
    assert floor["text"] == "floor"
    assert 1 < floor["found"] < floor["named"]


def test_who_is_not_installed_is_named_with_the_reason(report: tuple[dict[str, Any], str]) -> None:
    missing = {
        name: why for row in report[0]["rows"].values() for name, why in row["missing"].items()
    }
    for name in ("replay", "recbole", "rechub", "openvino", "implicit", "hnswlib"):
        assert "No module named" in missing[name]
        assert f"- {name}: " in report[1]
    assert "not measured" in report[1]
    assert not any(row["wrong"] for row in report[0]["rows"].values())


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.compare_peers import agree, contender, measure

    yield agree, contender.Answer, measure
    for name in [
        name for name in sys.modules if name == "benchmarks" or name.startswith("benchmarks.")
    ]:
        del sys.modules[name]


def test_a_wrong_score_is_refused(peers: Any) -> None:
    agree, answer, _ = peers
    truth = np.linspace(-1, 1, 100, dtype=np.float32)
    rows = np.arange(10)
    assert agree.check_scores(answer(rows, truth[:10]), truth, 1e-4) == 0
    for scores in (truth[:10] + 0.01, truth[:10] * np.nan, truth[:9]):
        with pytest.raises(agree.Disagreement):
            agree.check_scores(answer(rows, scores), truth, 1e-4)


def test_the_best_must_be_the_best(peers: Any) -> None:
    agree, answer, _ = peers
    truth = np.arange(100, dtype=np.float32)
    agree.check_best(answer(np.arange(99, 89, -1), truth), truth, 10)
    assert agree.recall(np.array([99, 98, 3, -1]), truth, 4) == 0.5
    assert agree.recall(np.array([99, 99, 99, 99]), truth, 4) == 0.25, "an item counts once"
    with pytest.raises(agree.Disagreement, match=r"recall@10 is 0\.900"):
        agree.check_best(answer(np.array([*range(99, 90, -1), 5]), truth), truth, 10)


def test_a_wrong_contender_is_told_and_not_timed(
    peers: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measure = peers[2]
    from benchmarks.compare_peers.rows import ROWS
    from benchmarks.compare_peers.turns import Failed, Timed

    class Liar:
        spawned = 0.0

        def __init__(self, *given: Any) -> None:
            self.name = given[3]

        def __enter__(self) -> Liar:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def read(self) -> dict[str, Any]:
            return {"answered": 1.0, "memory": {}, "about": ""}

        def ask(self, do: str, **more: Any) -> dict[str, Any]:
            if self.name == "implicit" and do == "check":
                raise Failed("Disagreement: a score is off")
            return {}

    timed: list[str] = []

    def turns(workers: dict[str, Any], seconds: float) -> dict[tuple[str, str], Timed]:
        timed.extend(workers)
        return {
            (name, task): Timed([1000]) for name, (_, tasks) in workers.items() for task in tasks
        }

    monkeypatch.setattr(measure, "Worker", Liar)
    monkeypatch.setattr(measure, "take_turns", turns)
    found = measure.Bench("python", tmp_path, (), 0.0, {}, lambda step: None).measure(
        ROWS["cached-1000"]
    )
    assert timed == ["tlrec-edge"]
    assert found["wrong"] == {"implicit": "Disagreement: a score is off"}
    assert found["targets"][0]["found"] is None


def test_the_smallest_effort_that_reaches_the_recall_or_hardly_less(
    peers: Any, tmp_path: Path
) -> None:
    from benchmarks.compare_peers.contenders import vectors
    from benchmarks.compare_peers.data import Data

    rng = np.random.default_rng(0)
    np.save(tmp_path / "vectors.npy", rng.normal(size=(1000, 4)).astype(np.float32))
    np.save(tmp_path / "queries-fast.npy", rng.normal(size=(32, 4)).astype(np.float32))

    class Part(vectors._Vectors):
        """Knows the first ``effort`` items, and never more than ``most``."""

        most = 1000

        def efforts(self) -> list[int]:
            return [500, 990, 1000, 2000]

        def set_effort(self, effort: int) -> None:
            self.known = min(effort, self.most)

        def find(self, query: Any, k: int) -> tuple[Any, Any]:
            scores = (self.data.load("vectors")[: self.known] @ query.T)[:, 0]
            rows = np.argsort(-scores)[:k]
            return scores[rows], rows

    part = Part(Data(tmp_path), "fast")
    found = part.tune()
    assert found["reached"]
    assert found["effort"] in (990, 1000)
    part.most = 700
    assert part.tune() == {"effort": 990, "reached": False}
    assert part.known == 700


def test_a_target_is_who_reaches_the_recall_not_who_is_fastest(peers: Any) -> None:
    from benchmarks.compare_peers.rows import Target

    def took(us: float, **more: bool) -> dict[str, Any]:
        return {"tasks": {"top": {"median": us}}, **more}

    contenders = {
        "tlrec-edge": took(60),
        "quick": took(20, reached=False),
        "right": took(30, reached=True),
    }
    target = Target("both", 2.0, (("quick", "top"), ("right", "top")), ("tlrec-edge", "top"))
    judged = peers[2]._judge(target, contenders)
    assert (judged["best"], judged["found"]) == ("right", 2.0)
    del contenders["right"]
    assert peers[2]._judge(target, contenders)["best"] == "quick"
