"""Names of 0.1 that work for one more release: each warns, and the answers are the same."""

from __future__ import annotations

import tomllib

import pytest
from click.testing import CliRunner, Result

import tlrec_edge
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


RENAMED = "exact= was renamed to {}= in 0.2 and will be removed in 0.3"


@pytest.mark.parametrize("value", [True, False])
def test_exact_of_open_is_deterministic(value: bool) -> None:
    with pytest.warns(DeprecationWarning, match=RENAMED.format("deterministic")) as caught:
        old = Recommender.open(GOLDEN, exact=value)
    assert caught[0].filename == __file__
    with old, pytest.warns(DeprecationWarning, match=r"Recommender\.deterministic") as caught:
        assert old.exact == old.deterministic == value
    assert caught[0].filename == __file__


@pytest.mark.parametrize("value", [True, False])
def test_exact_of_recommend_is_exhaustive(value: bool) -> None:
    with Recommender.open(GOLDEN) as rec:
        message = RENAMED.format("exhaustive")
        with pytest.warns(DeprecationWarning, match=message) as caught:
            found = rec.recommend(["item-1"], 3, exact=value)
        assert caught[0].filename == __file__
        with pytest.warns(DeprecationWarning, match=message) as caught:
            many = rec.recommend_many([["item-1"]], 3, exact=value)
        assert caught[0].filename == __file__
        expected = rec.recommend(["item-1"], 3, exhaustive=value)
        assert found.items == many[0].items == expected.items


def test_rows_is_item_rows() -> None:
    with pytest.warns(DeprecationWarning, match=r"tlrec_edge\.Rows was renamed to") as caught:
        assert tlrec_edge.Rows is tlrec_edge.ItemRows
    assert caught[0].filename == __file__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tlrec_edge.nothing  # noqa: B018  # reading it is what is tested


def test_memory_has_the_old_keys_too() -> None:
    with Recommender.open(GOLDEN) as rec:
        memory = rec.memory()
    assert memory["heads"] == memory["prefix_bound"]
    assert memory["lists"] == memory["ivf"]


@pytest.mark.parametrize("speed", [True, False])
def test_speed_of_open_warns_and_changes_no_answer(speed: bool) -> None:
    message = f"speed={speed} has no effect: the faiss index was removed in 0.2; drop the argument"
    with pytest.warns(DeprecationWarning, match=message) as caught:
        fast = Recommender.open(GOLDEN, speed=speed)
    assert caught[0].filename == __file__
    with fast, Recommender.open(GOLDEN) as plain:
        history = plain.recommend([], 3).items
        found, expected = fast.recommend(history), plain.recommend(history)
        assert found.items == expected.items
        assert found.scores.tobytes() == expected.scores.tobytes()
        assert fast.memory()["lists"] == 0


def test_speed_of_recommend_warns_and_changes_no_answer() -> None:
    words = ["recommend", GOLDEN, "--history", "", "-k", "3", "--json"]
    found, expected = run(*words, "--speed"), run(*words)
    assert found.stdout == expected.stdout
    assert found.stderr == WARNING + expected.stderr


@pytest.mark.parametrize(
    "words",
    [[GOLDEN, "--scenario", "top-k", "--min-queries", "5"], ["--compare", GOLDEN, GOLDEN]],
    ids=["one", "two"],
)
def test_speed_of_bench_warns_and_changes_nothing(words: list[str]) -> None:
    slack = ["--max-regression", "100000%"]  # the verdict is not what this test is about
    found = run(
        "bench",
        *words,
        *(slack if "--compare" in words else []),
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
