"""The comparison with peers on small data, without installing anything."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import types
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.paths import ROOT
from helpers.scripts import benchmarks_on_path

SMALL, LARGE = 600, 900
QUICK = ["--small", str(SMALL), "--large", str(LARGE), "--seconds", "0.02"]


def compare(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "benchmarks.compare_peers", str(folder), "--here", *QUICK]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "peers.json").read_text()), (folder / "peers.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the data of all comparisons, made in this process, which has torch."""
    path = tmp_path_factory.mktemp("peers")
    with benchmarks_on_path():
        from benchmarks.compare_peers.data import Sizes
        from benchmarks.compare_peers.make_data import prepare

        prepare(path / "data", Sizes(SMALL, LARGE), ("small",), lambda _: None)
    return path


@pytest.fixture(scope="module")
def report(folder: Path) -> tuple[dict[str, Any], str]:
    # Some contenders of these rows are in the development environment, others are not.
    return compare(folder, "--rows", "fast-100", "cached-1000", "top-100k")


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


def test_a_peer_that_is_not_installed_is_listed_with_the_reason(
    report: tuple[dict[str, Any], str],
) -> None:
    missing = {
        name: why for row in report[0]["rows"].values() for name, why in row["missing"].items()
    }
    for name in ("replay", "recbole", "rechub", "openvino", "implicit", "hnswlib"):
        assert "No module named" in missing[name]
        assert f"- {name}: " in report[1]
    assert "not measured" in report[1]
    assert not any(row["wrong"] for row in report[0]["rows"].values())


@pytest.fixture
def peers() -> Iterator[Any]:
    with benchmarks_on_path():
        from benchmarks.compare_peers import agree, contender, measure

        yield agree, contender.Answer, measure


def test_a_wrong_score_is_refused(peers: Any) -> None:
    agree, answer, _ = peers
    truth = np.linspace(-1, 1, 100, dtype=np.float32)
    rows = np.arange(10)
    assert agree.check_scores(answer(rows, truth[:10]), truth, 1e-4) == 0
    for scores in (truth[:10] + 0.01, truth[:10] * np.nan, truth[:9]):
        with pytest.raises(agree.Disagreement):
            agree.check_scores(answer(rows, scores), truth, 1e-4)


def test_an_exact_search_must_return_the_best_items(peers: Any) -> None:
    agree, answer, _ = peers
    truth = np.arange(100, dtype=np.float32)
    agree.check_best(answer(np.arange(99, 89, -1), truth), truth, 10)
    assert agree.recall(np.array([99, 98, 3, -1]), truth, 4) == 0.5
    assert agree.recall(np.array([99, 99, 99, 99]), truth, 4) == 0.25, "an item counts once"
    with pytest.raises(agree.Disagreement, match=r"recall@10 is 0\.900"):
        agree.check_best(answer(np.array([*range(99, 90, -1), 5]), truth), truth, 10)


def test_a_contender_with_wrong_answers_is_named_and_not_timed(
    peers: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measure = peers[2]
    from benchmarks.compare_peers.rows import ROWS
    from benchmarks.compare_peers.turns import Environment, Failed, Timed

    class WrongWorker:
        spawned = 0.0

        def __init__(self, *given: Any) -> None:
            self.name = given[3]

        def __enter__(self) -> WrongWorker:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def read(self) -> dict[str, Any]:
            return {"answered": 1.0, "memory": {}, "about": ""}

        def send(self, command: str, **arguments: Any) -> dict[str, Any]:
            if self.name == "implicit" and command == "check":
                raise Failed("Disagreement: a score is off")
            return {}

    timed: list[str] = []

    def turns(workers: dict[str, Any], seconds: float) -> dict[tuple[str, str], Timed]:
        timed.extend(workers)
        return {
            (name, task): Timed([1000]) for name, (_, tasks) in workers.items() for task in tasks
        }

    monkeypatch.setattr(measure, "Worker", WrongWorker)
    monkeypatch.setattr(measure, "take_turns", turns)
    environments = {"": Environment("python", tmp_path)}
    bench = measure.Bench(tmp_path, environments, (), 0.0, 6, {}, lambda step: None)
    result = bench.measure(ROWS["cached-1000"])
    assert timed == ["tlrec-edge"]
    assert result["wrong"] == {"implicit": "Disagreement: a score is off"}
    assert result["targets"][0]["found"] is None


def test_tuning_chooses_the_smallest_effort_that_reaches_the_recall_or_hardly_less(
    peers: Any, tmp_path: Path
) -> None:
    from benchmarks.compare_peers.contenders import vectors
    from benchmarks.compare_peers.data import Data

    rng = np.random.default_rng(0)
    np.save(tmp_path / "vectors.npy", rng.normal(size=(1000, 4)).astype(np.float32))
    np.save(tmp_path / "queries-fast.npy", rng.normal(size=(32, 4)).astype(np.float32))

    class Part(vectors._Vectors):
        """An index of the first ``effort`` items, and never more than ``most``."""

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


def test_a_target_is_the_fastest_index_that_reaches_the_recall(peers: Any) -> None:
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


@pytest.fixture
def older(folder: Path) -> Iterator[Path]:
    """Make an environment that has a copy of this version and none of pip."""
    environment = folder / "before"
    venv.create(environment, with_pip=False, symlinks=True)
    packages = next((environment / "lib").glob("python*/site-packages"))
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tlrec_edge", packages / "tlrec_edge", ignore=ignore)
    (packages / "dependencies.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    yield folder
    shutil.rmtree(environment)


def test_an_older_version_takes_part_in_an_environment_of_its_own(older: Path) -> None:
    options = ["--before", "tlrec-edge==0.1", "--only", "before", "--rounds", "6"]
    results, page = compare(older, *options, "--rows", "fast-100")
    row = results["rows"]["fast-100"]
    assert set(row["contenders"]) == {"tlrec-edge", "before"}, "no peer was wanted"
    assert row["missing"] == row["wrong"] == {}
    assert row["contenders"]["before"]["error"] == row["contenders"]["tlrec-edge"]["error"]
    assert [ratio["task"] for ratio in row["ratios"]] == ["request", "request_ids"]
    for ratio in row["ratios"]:
        assert len(ratio["rounds"]) == 6
        assert 0 < ratio["low"] <= ratio["ratio"] <= ratio["high"]
    assert "## Now and before" in page
    assert "`tlrec-edge==0.1`" in page


def test_the_older_version_is_never_this_checkout(older: Path) -> None:
    """Remove the copy, so that its environment would have to import this checkout."""
    packages = next((older / "before" / "lib").glob("python*/site-packages"))
    (packages / "dependencies.pth").write_text(f"{Path(np.__file__).parents[1]}\n{ROOT}\n")
    shutil.rmtree(packages / "tlrec_edge")
    options = ["--before", "tlrec-edge==0.1", "--only", "before", "--rounds", "6"]
    results, _ = compare(older, *options, "--rows", "cached-1000")
    row = results["rows"]["cached-1000"]
    assert "is not the older version" in row["missing"]["before"]
    assert not row["ratios"]


@pytest.mark.parametrize(
    ("parameter", "options"), [("exhaustive", {"exhaustive"}), ("exact", {"exact"}), ("k", set())]
)
def test_an_exhaustive_search_uses_the_name_that_the_version_has(
    peers: Any, parameter: str, options: set[str]
) -> None:
    from benchmarks.compare_peers.contenders.public_api import PublicApi

    given: dict[str, Any] = {}

    def recommend(user: Any, k: int, **more: Any) -> None:
        given.update(more)

    recommend.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # read by inspect
        [inspect.Parameter(parameter, inspect.Parameter.KEYWORD_ONLY)]
    )
    contender = PublicApi.__new__(PublicApi)
    contender.model, contender.rec = "fast", types.SimpleNamespace(recommend=recommend)  # type: ignore[assignment]  # all that is used
    contender.top_exact().run(None)
    assert set(given) - {"exclude"} == options


def test_only_before_needs_a_version(peers: Any) -> None:
    from benchmarks.compare_peers.__main__ import parse

    with pytest.raises(SystemExit):
        parse(["folder", "--only", "before"])
