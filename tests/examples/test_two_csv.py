"""The two-CSV example as its script runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import ok, read
from helpers.paths import EXAMPLES

EXAMPLE = EXAMPLES / "two_csv"


RECORDER = """#!/bin/sh
printf '%s\\n' "$@" '' >> "$CALLS"
"""
"""A stand-in for tlrec-edge that writes its arguments, one a line, and an empty line."""


def run_script(out: Path, tools: Path, **variables: str) -> None:
    """Run the example with the ``tlrec-edge`` of the folder ``tools``."""
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", str(EXAMPLE / "run.sh"), str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path, "PYTHON": sys.executable} | variables,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def record_and_run(out: Path, tools: Path) -> None:
    """Run the commands of the script in this process, which spares each of them the imports."""
    recorder, calls = tools / "tlrec-edge", tools / "calls"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    run_script(out, tools, CALLS=str(calls))
    for call in calls.read_text("utf-8").removesuffix("\n\n").split("\n\n"):
        ok(*call.split("\n"))


@pytest.fixture(
    scope="module",
    params=["in this process", pytest.param("in processes", marks=pytest.mark.slow)],
)
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two csv")
    if request.param == "in processes":
        run_script(path, Path(sys.executable).parent)
    else:
        record_and_run(path, tmp_path_factory.mktemp("tools"))
    return path


def own_share(liked: list[tuple[str, str]], found: list[tuple[str, str]]) -> float:
    """Return the share of recommendations in a category that the user has bought or clicked."""
    pairs = set(liked)
    return sum(pair in pairs for pair in found) / len(found)


def test_interest_in_categories_is_carried_over_to_goods_never_sold(out: Path) -> None:
    work = out / "by-category"
    category = {row["商品ID"]: row["分类"] for row in read(work / "goods_features.csv")}
    liked = [(row["用户ID"], row["分类"]) for row in read(work / "user_behavior.csv")]
    found = [(row["user"], category[row["item"]]) for row in read(work / "recommendations.csv")]
    assert {user for user, _ in found} == {user for user, _ in liked}
    assert own_share(liked, found) > 0.9


def test_rows_that_name_items_learn_from_themselves(out: Path) -> None:
    work = out / "by-item"
    category = {row["item_id"]: row["category"] for row in read(work / "goods_features.csv")}
    behaviour = read(work / "user_behavior.csv")
    liked = [(row["user_id"], category[row["item_id"]]) for row in behaviour]
    seen = {(row["user_id"], row["item_id"]) for row in behaviour}
    rows = read(work / "recommendations.csv")
    assert own_share(liked, [(row["user"], category[row["item"]]) for row in rows]) > 0.7
    assert not seen & {(row["user"], row["item"]) for row in rows}


def test_the_tables_are_the_same_each_time(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        subprocess.run(
            [sys.executable, str(EXAMPLE / "make_tables.py"), "--out", str(tmp_path / name)],
            check=True,
        )
        texts.append(
            [
                (tmp_path / name / file).read_bytes()
                for file in ("user_behavior.csv", "goods_features.csv")
            ]
        )
    assert texts[0] == texts[1]
