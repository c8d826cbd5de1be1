"""The learning curve: less of the target to train on, the same test rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import synthetic
from helpers.commands import ok, run
from helpers.pages import Page
from tlrec_edge.data.store import save_dataset
from tlrec_edge.data.task import Task, make_tasks
from tlrec_edge.errors import ModelError
from tlrec_edge.evaluation.curve import Curve, CurveConfig, curve, subsample_users
from tlrec_edge.evaluation.evaluate import evaluate, model_ranker
from tlrec_edge.report import render
from tlrec_edge.train import adapt, pretrain

QUICK = replace(synthetic.CONFIG, epochs=2, pretrain_epochs=4)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("curve")
    save_dataset(synthetic.dataset(), path / "ds")
    pretrain(synthetic.dataset(), ("big",), QUICK).save(path / "source")
    return path


@pytest.fixture(scope="module")
def found(work: Path) -> Curve:
    return curve(CurveConfig(work / "ds", ("small",), work / "source", (1.0, 0.1)), processes=1)


def target_users(task: Task) -> set[int]:
    return set(task.train.user[task.in_target(task.train)].tolist())


@pytest.mark.parametrize(("kind", "fold"), [("leave-one-out", None), ("new-users", 1)])
def test_shares_are_nested_and_apply_to_validation_too(kind: str, fold: int | None) -> None:
    whole = make_tasks(synthetic.dataset(kind), ("small",), fold)
    parts = [subsample_users(whole, share, 3) for share in (0.001, 0.05, 0.2, 1.0)]
    users = [target_users(part.final) | set(part.choose.rows.user.tolist()) for part in parts]
    everyone = users[-1]
    assert [len(part_users) for part_users in users] == [
        max(1, round(s * len(everyone))) for s in (0.001, 0.05, 0.2, 1.0)
    ]
    for smaller, larger, part in zip(users, users[1:], parts, strict=False):
        assert smaller < larger
        assert target_users(part.choose) | set(part.choose.rows.user.tolist()) <= smaller
    for part in parts:
        np.testing.assert_array_equal(part.final.rows.item, whole.final.rows.item)
        np.testing.assert_array_equal(part.final.rows.negatives, whole.final.rows.negatives)
        np.testing.assert_array_equal(part.final.candidates, whole.final.candidates)
        assert part.final.history is whole.final.history
        elsewhere = (~task.in_target(task.train) for task in (part.final, whole.final))
        assert len({int(mask.sum()) for mask in elsewhere}) == 1
    np.testing.assert_array_equal(parts[-1].final.train.item, whole.final.train.item)
    np.testing.assert_array_equal(parts[-1].choose.rows.item, whole.choose.rows.item)
    assert target_users(subsample_users(whole, 0.2, 4).final) != target_users(parts[2].final)


def test_the_full_share_equals_what_adapt_returns(found: Curve) -> None:
    data = synthetic.dataset()
    ranker = {"scratch": model_ranker(adapt(data, ("small",), "scratch", None, QUICK), data)}
    values = evaluate(data, ("small",), ranker).values("scratch")
    np.testing.assert_array_equal(found.points[-1].results["scratch"].values, values)


def test_transfer_pays_most_with_little_data(found: Curve) -> None:
    assert [point.share for point in found.points] == [0.1, 1.0]
    assert [point.users for point in found.points] == [24, 240]
    lifts = [found.lift(point) for point in found.points]
    assert lifts[0] is not None
    assert lifts[0]["verdict"] == "better"
    words = " ".join(found.summary())
    assert "Finetune is better than scratch with 10 %" in words
    assert "with 100 % of the users; finetune reaches it with" in words


def test_shares_and_sources_are_checked_before_any_work(work: Path) -> None:
    for share in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="a share must lie above 0"):
            CurveConfig(work / "ds", ("small",), work / "source", (share,))
    with pytest.raises(ModelError, match="already trained on big"):
        curve(CurveConfig(work / "ds", ("big",), work / "source"))


def test_a_share_without_validation_keeps_its_row(work: Path) -> None:
    config = CurveConfig(work / "ds", ("small",), work / "source", (0.001,), epochs=1)
    (point,) = curve(config, ("auto", "popularity"), processes=1).points
    assert point.results["popularity"].values.mean() > 0
    assert point.users == 1


def test_the_command_draws_the_curve(work: Path, tmp_path: Path) -> None:
    page = tmp_path / "curve.html"
    call = (
        "curve",
        work / "ds",
        "--domain",
        "small",
        "--from",
        work / "source",
        "--epochs",
        1,
        "--processes",
        1,
    )
    shown = ok(*call, "--shares", "0.05,1", "--out", page).stdout
    for words in ("share", "5 %", "100 %", "lift: finetune over scratch", "Scratch has NDCG@10"):
        assert words in shown
    parsed = Page(page.read_text("utf-8"))
    assert parsed.tags.count("svg") == 1
    assert "NDCG@10 by share of the target's users" in parsed.text
    saved = json.loads(page.with_suffix(".json").read_text("utf-8"))
    assert [point["share"] for point in saved["points"]] == [0.05, 1.0]
    assert [line["name"] for line in saved["points"][0]["lines"]][:2] == ["popularity", "ease"]
    for wrong in ("0", "two", "1.5"):
        assert run(*call, "--shares", wrong, "--out", page).exit_code == 2


def test_the_page_omits_what_was_not_measured() -> None:
    nothing = {"name": "scratch", "ndcg@10": None, "ndcg@10.se": None}
    assert (
        "svg"
        not in Page(
            render({"curve": [{"share": 0.1, "users": 1, "rows": 2, "lines": [nothing]}]})
        ).tags
    )
