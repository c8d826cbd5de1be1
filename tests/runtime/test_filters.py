"""Recommendations of a category, and for many users at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from helpers import bundles
from helpers.paths import GOLDEN
from tlrec_edge import ArgumentError, Recommender, UnknownIdError
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.cli import main


def of_category(name: str) -> list[str]:
    bundle = Bundle.open(GOLDEN)
    code = bundle.strings("category_names").take(range(3)).index(name)
    rows = np.flatnonzero(bundle.array("item_category")[: bundle.shape.candidates] == code)
    return bundle.strings("item_ids").take(rows)


def test_a_category_is_a_mask_over_the_candidates() -> None:
    with Recommender.open(GOLDEN) as rec:
        expected = of_category("Küche")
        found = rec.recommend([], len(rec), allow=rec.category("Küche"))
        assert sorted(found.items) == sorted(expected) != []
        assert found.scores.tolist() == rec.score([], list(found.items)).tolist()


def test_an_unknown_category_gets_the_closest_as_a_hint(tmp_path: Path) -> None:
    with (
        Recommender.open(GOLDEN) as rec,
        pytest.raises(UnknownIdError, match=r"'Gaten' is not one of the 3 categories.*'Garten'"),
    ):
        rec.category("Gaten")
    bundles.build(tmp_path / "b")
    with (
        Recommender.open(tmp_path / "b") as rec,
        pytest.raises(UnknownIdError, match="has no categories"),
    ):
        rec.category("Garten")


def test_the_command_recommends_from_a_category() -> None:
    history = of_category("玩具")[0]
    words = ["recommend", str(GOLDEN), "--history", history, "-k", "2", "--json"]
    words += ["--category", "Garten"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert {row["item"] for row in json.loads(done.stdout)["items"]} <= set(of_category("Garten"))
    wrong = CliRunner().invoke(main, [*words, "--category", "Gaten"])
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "'Garten'" in wrong.stderr


def test_many_users_get_the_same_answers_as_one_by_one(tmp_path: Path) -> None:
    bundles.build(tmp_path / "b")
    users = [["i1", "i9"], "nobody", [], ["i3"]]
    with Recommender.open(tmp_path / "b") as rec:
        for allow in (None, ["i1", "i2", "i3", "i4", "none"], np.arange(len(rec)) % 2 == 0):
            found = rec.recommend_many(users, 3, allow=allow)
            alone = [rec.recommend(user, 3, allow=allow) for user in users]
            assert [(one.items, one.scores.tolist()) for one in found] == [
                (a.items, a.scores.tolist()) for a in alone
            ]
        assert rec.recommend_many([]) == []
        top = list(rec.recommend([], 3).items)
        stream = (item for item in top)
        excluded = rec.recommend_many([[], []], 3, exclude=stream)  # type: ignore[arg-type]  # any iterable works
        assert all(not {*one.items} & {*top} for one in excluded)
        for wrong in ({"k": 0}, {"allow": np.ones(5, bool)}):
            with pytest.raises(ArgumentError):
                rec.recommend_many([], **wrong)
        with pytest.raises(ArgumentError, match="rows are items"):
            rec.recommend_many(rec.rows(["i1"]))  # type: ignore[arg-type]  # what is tested
        assert rec.recommend(["i1"], np.int8(10)).items == rec.recommend(["i1"], 10).items  # type: ignore[arg-type]  # a number of numpy works
