"""Names kept for one release without effect: each says so, and the answers are the same."""

from __future__ import annotations

import tomllib

import pytest
from click.testing import CliRunner, Result

from helpers import paths
from helpers.paths import ROOT
from tlrec_edge import Recommender
from tlrec_edge.cli import main

GOLDEN = str(paths.GOLDEN)
WARNING = "--speed has no effect: the faiss index was removed in 0.2; drop the option\n"


def run(*arguments: str) -> Result:
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    return found


@pytest.mark.parametrize("speed", [True, False])
def test_speed_of_open_warns_and_changes_no_answer(speed: bool) -> None:
    message = f"speed={speed} has no effect: the faiss index was removed in 0.2; drop the argument"
    with pytest.warns(DeprecationWarning, match=message) as caught:
        fast = Recommender.open(GOLDEN, speed=speed)
    assert caught[0].filename == __file__
    with fast, Recommender.open(GOLDEN) as plain:
        history = plain.recommend([], 3).items
        found, wanted = fast.recommend(history), plain.recommend(history)
        assert found.items == wanted.items
        assert found.scores.tobytes() == wanted.scores.tobytes()
        assert fast.memory()["lists"] == 0


def test_speed_of_recommend_warns_and_changes_no_answer() -> None:
    asked = ["recommend", GOLDEN, "--history", "", "-k", "3", "--json"]
    found, wanted = run(*asked, "--speed"), run(*asked)
    assert found.stdout == wanted.stdout
    assert found.stderr == WARNING + wanted.stderr


@pytest.mark.parametrize(
    "asked",
    [[GOLDEN, "--scenario", "top-k", "--min-queries", "5"], ["--compare", GOLDEN, GOLDEN]],
    ids=["one", "two"],
)
def test_speed_of_bench_warns_and_goes_on(asked: list[str]) -> None:
    most = ["--max-regression", "100000%"]  # the verdict is not what this test is about
    found = run(
        "bench",
        *asked,
        *(most if "--compare" in asked else []),
        "--seconds",
        "0.05",
        "--json",
        "--speed",
    )
    assert found.stderr.startswith(WARNING)
    assert '"speed"' not in found.stdout


@pytest.mark.parametrize("command", ["recommend", "bench"])
def test_speed_is_not_in_the_help(command: str) -> None:
    assert "--speed" not in run(command, "--help").output


def test_the_extra_still_resolves() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    assert extras["speed"] == []
