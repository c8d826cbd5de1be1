"""evaluate and crossval: slices, metrics by user, leaks, and all folds in one command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from helpers import synthetic
from helpers.commands import ok, read, refused, run, write
from tlrec_edge.linear.baselines import SIMPLE_BASELINES
from tlrec_edge.linear.cholesky import PenalizedGram
from tlrec_edge.train import fit


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a dataset with three folds of users, a source, and a model of the first fold."""
    path = tmp_path_factory.mktemp("measure")
    synthetic.interactions().to_csv(path / "log.csv", index=False)
    synthetic.items().to_csv(path / "items.csv", index=False)
    made = ("--interactions", path / "log.csv", "--items", path / "items.csv")
    ok("prepare", *made, "--split", "new-users", "--folds", 3, "--out", path / "ds")
    ok("pretrain", path / "ds", "--domains", "big", "--epochs", 3, "--out", path / "source")
    how = ("--from", path / "source", "--mode", "finetune", "--epochs", 1, "--fold", 0)
    ok("adapt", path / "ds", "--domain", "small", *how, "--out", path / "model")
    return path


def test_slices_are_printed_when_asked_and_always_in_json(work: Path) -> None:
    call = ("evaluate", work / "model", work / "ds", "--domain", "small", "--no-target-only")
    found = json.loads(ok(*call, "--json").stdout)
    for by in ("user", "item", "history", "popularity", "period"):
        assert sum(line["tests"] for line in found["slices"] if line["by"] == by) == found["tests"]
    model = next(row for row in found["rows"] if row["name"] == "model")
    assert {
        "full.ndcg@10",
        "full.ndcg@10.se",
        "coverage@10",
        "gini@10",
        "recall@10.by_user",
    } <= set(model)
    assert set(found["lift"]) == {"pooling", "model", "transfer"}
    assert all(lift["low"] <= lift["ndcg@10"] <= lift["high"] for lift in found["lift"].values())
    shown = ok(*call, "--slices").stdout
    for words in (
        "none in the target",
        "10 most bought",
        "NDCG@10 among all",
        "coverage",
        "2024-",
    ):
        assert words in shown
    assert "Slices" not in ok(*call).stdout


def test_a_page_shows_the_evaluation(work: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    ok(
        "evaluate",
        work / "model",
        work / "ds",
        "--domain",
        "small",
        "--no-target-only",
        "--report",
        page,
    )
    html = page.read_text("utf-8")
    for words in (
        "Evaluation on small",
        "By history length",
        "By time",
        "NDCG@10 among all",
        "ease",
    ):
        assert words in html
    assert html.count("<svg") >= 4


def test_two_evaluations_are_compared_by_user(work: Path, tmp_path: Path) -> None:
    call = ("evaluate", work / "model", work / "ds", "--domain", "small", "--no-target-only")
    ok(*call, "--per-user", tmp_path / "first.csv")
    rows = read(tmp_path / "first.csv")
    assert {row["model"] for row in rows} >= {"model", "ease", "popularity"}
    assert set(rows[0]) == {"model", "user", "n", "ndcg@10", "hr@10"}
    lift = json.loads(ok(*call, "--against", tmp_path / "first.csv", "--json").stdout)["lift"][
        "against"
    ]
    assert (lift["ndcg@10"], lift["over"]) == (0.0, "model of first.csv")
    assert "model of first.csv" in ok(*call, "--against", tmp_path / "first.csv").stdout
    assert "no.csv" in refused(*call, "--against", tmp_path / "no.csv")


def test_a_model_that_knew_the_asked_users_is_refused(work: Path) -> None:
    words = refused("evaluate", work / "model", work / "ds", "--domain", "small", "--fold", 1)
    assert words.startswith("Error: leak: ")
    assert "rows of the test's new users were used to train the model" in words


def test_one_user_and_no_time_are_figures_without_errors(tmp_path: Path) -> None:
    log = pd.DataFrame({"user": ["u"] * 6, "item": list("abcdef")})
    log.to_csv(tmp_path / "log.csv", index=False)
    ok("prepare", "--interactions", tmp_path / "log.csv", "--out", tmp_path / "ds")
    ok(
        "adapt",
        tmp_path / "ds",
        "--domain",
        "all",
        "--mode",
        "scratch",
        "--epochs",
        1,
        "--out",
        tmp_path / "m",
    )
    call = ("evaluate", tmp_path / "m", tmp_path / "ds", "--domain", "all")
    found = json.loads(ok(*call, "--json").stdout)
    assert "no figures by period: the time of the test rows is unknown" in found["notes"]
    assert (found["users"], found["lift"]["model"]["se"], found["lift"]["model"]["low"]) == (
        1,
        None,
        None,
    )
    assert "NaN" not in json.dumps(found)
    shown = ok(*call, "--slices").stdout
    assert "no difference shown" in shown
    assert "too few users" in shown


def test_rows_without_negatives_have_one_ranking(work: Path, tmp_path: Path) -> None:
    file = write(
        tmp_path / "test.csv", [["user", "item"], *([f"u{u}", f"s{u % 7}"] for u in range(9))]
    )
    call = (
        "evaluate",
        work / "model",
        work / "ds",
        "--domain",
        "small",
        "--no-target-only",
        "--candidates",
        file,
    )
    found = json.loads(ok(*call, "--json").stdout)
    assert found["tests"] == 9
    assert not any("full.ndcg@10" in row for row in found["rows"])
    assert "among all" not in ok(*call, "--slices").stdout


@pytest.mark.usefixtures("two_processes")
def test_crossval_pools_every_fold(work: Path, tmp_path: Path) -> None:
    how = ("--from", work / "source", "--mode", "finetune", "--mode", "scratch", "--epochs", 1)
    call = (
        "crossval",
        work / "ds",
        "--domain",
        "small",
        *how,
        "--per-user",
        tmp_path / "u.csv",
        "--json",
    )
    found = json.loads(ok(*call).stdout)
    one = json.loads(
        ok("evaluate", work / "model", work / "ds", "--domain", "small", "--json").stdout
    )
    assert found["tests"] > one["tests"]
    names = [row["name"] for row in found["rows"]]
    simple = [baseline.name for baseline in SIMPLE_BASELINES]
    assert names == [*simple, "finetune", "target-only"]
    assert {"pooling", "model", "transfer", "model: target-only"} <= set(found["lift"])
    assert found["folds"] == [{"finetune": "finetune", "target-only": "scratch"}] * 3
    assert {line["lift"]["of"] for line in found["slices"]} == {"finetune"}
    users = {row["user"] for row in read(tmp_path / "u.csv")}
    assert len(users) == found["users"]
    again = ("--against", tmp_path / "u.csv", "--slices")
    assert "finetune of u.csv" in ok(*call[:-3], *again).stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mode", "finetune"), "mode finetune starts from a source model: give one with --from"),
        (("--from", "MODEL"), "was already trained on"),
    ],
)
def test_crossval_refuses_before_any_work(
    work: Path, arguments: tuple[str, ...], words: str
) -> None:
    given = [str(work / "model") if word == "MODEL" else word for word in arguments]
    assert words in refused("crossval", work / "ds", "--domain", "small", *given)


def test_crossval_needs_folds(work: Path, tmp_path: Path) -> None:
    ok("prepare", "--interactions", work / "log.csv", "--out", tmp_path / "ds")
    assert "prepare with --split new-users" in refused(
        "crossval", tmp_path / "ds", "--domain", "small"
    )
    assert run("crossval", tmp_path / "ds", "--domain", "small", "--mode", "magic").exit_code == 2


def test_tables_by_user_are_checked_before_any_work(work: Path, tmp_path: Path) -> None:
    call = ("evaluate", tmp_path / "no model", work / "ds", "--domain", "small")
    assert "name it .csv" in refused(*call, "--per-user", tmp_path / "users.txt")
    assert "log.csv has columns" in refused(*call, "--against", work / "log.csv")
    folds = ("crossval", work / "ds", "--domain", "small", "--mode", "scratch")
    assert "log.csv has columns" in refused(*folds, "--against", work / "log.csv")


def test_a_second_evaluation_fits_nothing_again(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(work / "ds", tmp_path / "ds")
    call = ("evaluate", work / "model", data, "--domain", "small", "--json")
    without = json.loads(ok(*call, "--no-cache").stdout)
    assert not (tmp_path / "ds.cache").exists()
    first = json.loads(ok(*call).stdout)
    assert list((tmp_path / "ds.cache").glob("*.npz"))

    def fitted_again(*_: object) -> None:
        raise AssertionError("fitted a second time")

    monkeypatch.setattr(PenalizedGram, "_factor", fitted_again)
    monkeypatch.setattr(fit, "_epoch", fitted_again)
    second = json.loads(ok(*call).stdout)
    assert without == first == second
    assert isinstance(run(*call, "--no-cache").exception, AssertionError)
