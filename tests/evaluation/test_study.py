"""The study: one table of what transfer is made of, on the same questions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import synthetic
from helpers.commands import ok, refused, run
from tlrec_edge.choices import ABLATIONS, ALIGNMENTS
from tlrec_edge.data.store import save_dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import DataError
from tlrec_edge.evaluation.evaluate import baseline_rankers, evaluate, model_ranker
from tlrec_edge.evaluation.experiment import ExperimentResult, ResultRow
from tlrec_edge.evaluation.study import VARIANTS, Study, StudyConfig, study
from tlrec_edge.train import MODES, EdgeModel, adapt, adapt_auto

QUICK = replace(synthetic.CONFIG, epochs=2, pretrain_epochs=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "ds"
    save_dataset(synthetic.dataset(), path)
    return path


@pytest.fixture(scope="module")
def plan(folder: Path) -> StudyConfig:
    return StudyConfig(folder, ("small",), ("big",), QUICK, folder.parent / "models", seeds=(0, 1))


@pytest.fixture(scope="module")
def found(plan: StudyConfig) -> Study:
    names = ("popularity", "ease-target", "ease", "auto", "finetune - deep", "finetune + coral")
    return study(plan, names, processes=1)


def test_the_table_names_every_mode_alignment_and_part() -> None:
    names = [variant.name for variant in VARIANTS]
    assert {*MODES, "auto", "popularity", "ease", "ease-target"} <= set(names)
    assert {f"finetune + {align}" for align in ALIGNMENTS if align != "none"} <= set(names)
    assert {f"finetune - {part}" for part in ABLATIONS} <= set(names)
    assert {"finetune + augment", "finetune + logq 0.3", "zero-shot + adversarial"} <= set(names)


def test_a_row_is_what_adapt_and_evaluate_find(found: Study, plan: StudyConfig) -> None:
    data = synthetic.dataset()
    source = EdgeModel.load(plan.model("plain", 1))
    config = replace(QUICK, seed=1)
    auto, table = adapt_auto(data, ("small",), source, config)
    entries = {
        **baseline_rankers(None, data),
        "scratch": model_ranker(adapt(data, ("small",), "scratch", None, config), data),
        "finetune": model_ranker(adapt(data, ("small",), "finetune", source, config), data),
        "auto": model_ranker(auto, data),
    }
    result = evaluate(data, ("small",), entries)
    for name in ("popularity", "ease-target", "ease", "scratch", "finetune", "auto"):
        np.testing.assert_array_equal(
            found.results[name].by_seed[1].values, result.values(name), err_msg=name
        )
    validation = {line.mode: line.ndcg for line in table}
    assert found.results["auto"].by_seed[1].chosen == next(
        line.mode for line in table if line.chosen
    )
    for name in ("scratch", "finetune"):
        assert found.results[name].by_seed[1].validation == pytest.approx(validation[name])


def test_several_seeds_are_one_mean(found: Study) -> None:
    for row in found.rows():
        assert len(row["by_seed"]) == 2
        assert row["ndcg@10"] == pytest.approx(np.mean(row["by_seed"]))
    lift = found.lift("finetune", "scratch")
    assert lift is not None
    means = {row["name"]: row["ndcg@10"] for row in found.rows()}
    assert lift["ndcg@10"] == pytest.approx(means["finetune"] - means["scratch"])
    assert found.lift("scratch", "scratch") is None


def test_the_words_follow_the_figures(found: Study) -> None:
    words = " ".join(found.summary())
    assert "Validation chose" in words
    assert "Transfer to small pays: +0." in words
    assert "coral" in words
    assert json.loads(json.dumps(found.to_json()))["tests"] == synthetic.USERS


def told(plan: StudyConfig, chosen: str, **shifts: float) -> str:
    """Return the words of a study whose rows lie above or below scratch by what is given."""
    rng = np.random.default_rng(0)
    users = np.arange(400, dtype=np.int32)
    base = rng.random(400)
    lines = {
        name: ResultRow(
            name,
            (
                ExperimentResult(
                    0.2, base + shift + 0.01 * rng.random(400), chosen if name == "auto" else ""
                ),
            ),
        )
        for name, shift in {"scratch": 0.0, "finetune": 0.1, **shifts}.items()
    }
    return " ".join(Study(plan, users, lines).summary())


def test_the_words_say_what_was_not_shown_too(plan: StudyConfig) -> None:
    assert "Validation chose finetune (1 of 1 seeds). Transfer to small pays: +0.1" in told(
        plan, "finetune", auto=0.15
    )
    assert "Transfer to small hurts: -0.1" in told(plan, "joint", auto=-0.15)
    assert "No gain from transfer to small was shown: " in told(plan, "pooled", auto=-0.00001)
    assert "Transfer to small does not pay: no model that uses a source was best" in told(
        plan, "linear", auto=0.1
    )
    words = told(
        plan, "", **{"finetune + coral": 0.2, "finetune + augment": 0.1, "finetune - ids": 0.0}
    )
    for said in (
        "Finetune improves with: coral.",
        "Finetune was not shown to change with: augment.",
        "is worse without: ids.",
    ):
        assert said in words
    assert "shuffled source: +0.0" in told(plan, "", **{"finetune, source shuffled": 0.05})
    assert "better, so part of a gain is not knowledge from the source" in told(
        plan, "", **{"finetune, source shuffled": 0.05}
    )


def test_a_fold_of_new_users_asks_its_own_questions(folder: Path, tmp_path: Path) -> None:
    data = synthetic.dataset("new-users")
    save_dataset(data, tmp_path / "ds")
    plan = StudyConfig(tmp_path / "ds", ("small",), ("big",), QUICK, tmp_path / "models", fold=1)
    found = study(plan, ("zero-shot", "finetune, source shuffled"), processes=1)
    np.testing.assert_array_equal(found.users, make_tasks(data, ("small",), 1).final.rows.user)
    assert {len(line.values) for line in found.results.values()} == {len(found.users)}
    assert "Control with a shuffled source" in found.summary()[-1]
    over = found.lift("finetune, source shuffled", "finetune")
    assert over is not None
    assert over["verdict"] == "worse"


def test_what_cannot_be_made_keeps_its_row_and_says_why(tmp_path: Path) -> None:
    table = synthetic.interactions()
    table.drop(columns="timestamp").to_csv(tmp_path / "log.csv", index=False)
    ok("prepare", "--interactions", tmp_path / "log.csv", "--out", tmp_path / "ds")
    plan = StudyConfig(tmp_path / "ds", ("small",), ("big",), QUICK, tmp_path / "models")
    rows = {
        row["name"]: row
        for row in study(plan, ("finetune + coral", "finetune - ids"), processes=1).rows()
    }
    assert "needs item features" in rows["finetune + coral"]["why"]
    assert rows["finetune + coral"]["ndcg@10"] is None
    assert rows["finetune - ids"]["why"]
    assert rows["finetune"]["ndcg@10"] > 0


def test_wrong_plans_are_refused_before_any_work(plan: StudyConfig) -> None:
    for change, words in (
        ({"sources": ("big", "small")}, "small is both target and source"),
        ({"sources": ("huge",)}, "unknown domain 'huge'"),
        ({"sources": ()}, "small is the only domain"),
        ({"fold": 3}, "fold 3 does not exist"),
    ):
        with pytest.raises(DataError, match=words):
            study(replace(plan, **change))
    with pytest.raises(
        DataError, match="'magic' is not a row of the study: choose from popularity;"
    ):
        study(plan, ("magic",))


def test_the_command_prints_the_table_and_keeps_it(folder: Path, tmp_path: Path) -> None:
    call = (
        "study",
        folder,
        "--domain",
        "small",
        "--epochs",
        1,
        "--pretrain-epochs",
        1,
        "--only",
        "popularity",
        "--only",
        "finetune - wide",
        "--processes",
    )
    shown = ok(*call, 2, "--out", tmp_path / "out").stdout
    assert "small, users who keep their past: 240 tests of 240 users" in shown
    for words in (
        "popularity",
        "scratch",
        "finetune - wide",
        "over scratch (SE)",
        "one verdict in twenty",
    ):
        assert words in shown
    kept = json.loads((tmp_path / "out" / "study.json").read_text("utf-8"))
    assert kept == json.loads(ok(*call, 1, "--json").stdout)
    assert [row["name"] for row in kept["rows"]] == [
        "popularity",
        "scratch",
        "finetune",
        "finetune - wide",
    ]
    assert EdgeModel.load(tmp_path / "out" / "sources" / "plain-0").provenance.domains == ("big",)
    assert "'x' is not a row" in refused("study", folder, "--domain", "small", "--only", "x")
    assert run("study", folder, "--domain", "small", "--fold", "-1").exit_code == 2
