"""The study: one table of modes, alignments and ablations, on the same test rows."""

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
def config(folder: Path) -> StudyConfig:
    return StudyConfig(folder, ("small",), ("big",), QUICK, folder.parent / "models", seeds=(1,))


@pytest.fixture(scope="module")
def found(config: StudyConfig) -> Study:
    names = ("popularity", "ease-target", "ease", "auto", "finetune - deep", "finetune + coral")
    return study(config, names, processes=1)


def test_the_table_names_every_mode_alignment_and_part() -> None:
    names = [variant.name for variant in VARIANTS]
    assert {*MODES, "auto", "popularity", "ease", "ease-target"} <= set(names)
    assert {f"finetune + {align}" for align in ALIGNMENTS if align != "none"} <= set(names)
    assert {f"finetune - {part}" for part in ABLATIONS} <= set(names)
    assert {"finetune + augment", "finetune + logq 0.3", "zero-shot + adversarial"} <= set(names)


def test_a_row_equals_what_adapt_and_evaluate_return(found: Study, config: StudyConfig) -> None:
    data = synthetic.dataset()
    source = EdgeModel.load(config.model("plain", 1))
    train = replace(QUICK, seed=1)
    auto, table = adapt_auto(data, ("small",), source, train)
    rankers = {
        **baseline_rankers(None, data),
        "scratch": model_ranker(adapt(data, ("small",), "scratch", None, train), data),
        "finetune": model_ranker(adapt(data, ("small",), "finetune", source, train), data),
        "auto": model_ranker(auto, data),
    }
    result = evaluate(data, ("small",), rankers)
    for name in ("popularity", "ease-target", "ease", "scratch", "finetune", "auto"):
        np.testing.assert_array_equal(
            found.results[name].by_seed[0].values, result.values(name), err_msg=name
        )
    validation = {row.mode: row.ndcg for row in table}
    assert found.results["auto"].by_seed[0].chosen == next(row.mode for row in table if row.chosen)
    for name in ("scratch", "finetune"):
        assert found.results[name].by_seed[0].validation == pytest.approx(validation[name])


def test_a_row_has_no_lift_over_itself(found: Study) -> None:
    assert found.lift("scratch", "scratch") is None


def test_the_summary_follows_the_figures(found: Study) -> None:
    words = " ".join(found.summary())
    assert "Validation chose" in words
    assert "Transfer to small pays: +0." in words
    assert "coral" in words
    assert json.loads(json.dumps(found.to_json()))["tests"] == synthetic.USERS


def summary_of(config: StudyConfig, chosen: str, **shifts: float) -> str:
    """Return the summary of a study whose rows differ from scratch by the given shifts."""
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
    return " ".join(Study(config, users, lines).summary())


def test_the_summary_reports_what_was_not_shown(config: StudyConfig) -> None:
    assert "Validation chose finetune (1 of 1 seeds). Transfer to small pays: +0.1" in summary_of(
        config, "finetune", auto=0.15
    )
    assert "Transfer to small hurts: -0.1" in summary_of(config, "joint", auto=-0.15)
    assert "No gain from transfer to small was shown: " in summary_of(
        config, "pooled", auto=-0.00001
    )
    assert "Transfer to small does not pay: no model that uses a source was best" in summary_of(
        config, "linear", auto=0.1
    )
    words = summary_of(
        config, "", **{"finetune + coral": 0.2, "finetune + augment": 0.1, "finetune - ids": 0.0}
    )
    for sentence in (
        "Finetune improves with: coral.",
        "Finetune was not shown to change with: augment.",
        "is worse without: ids.",
    ):
        assert sentence in words
    assert "shuffled source: +0.0" in summary_of(config, "", **{"finetune, source shuffled": 0.05})
    assert "better, so part of a gain is not knowledge from the source" in summary_of(
        config, "", **{"finetune, source shuffled": 0.05}
    )


def test_a_fold_of_new_users_has_its_own_test_rows(folder: Path, tmp_path: Path) -> None:
    data = synthetic.dataset("new-users")
    save_dataset(data, tmp_path / "ds")
    config = StudyConfig(tmp_path / "ds", ("small",), ("big",), QUICK, tmp_path / "models", fold=1)
    found = study(config, ("zero-shot", "finetune, source shuffled"), processes=1)
    np.testing.assert_array_equal(found.users, make_tasks(data, ("small",), 1).final.rows.user)
    assert {len(line.values) for line in found.results.values()} == {len(found.users)}
    assert "Control with a shuffled source" in found.summary()[-1]
    over = found.lift("finetune, source shuffled", "finetune")
    assert over is not None
    assert over["verdict"] == "worse"


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of data without item features, over two seeds."""
    work = tmp_path_factory.mktemp("two_seeds")
    table = synthetic.interactions()
    table.drop(columns="timestamp").to_csv(work / "log.csv", index=False)
    ok("prepare", "--interactions", work / "log.csv", "--out", work / "ds")
    config = StudyConfig(work / "ds", ("small",), ("big",), QUICK, work / "models", seeds=(0, 1))
    return study(config, ("finetune + coral", "finetune - ids"), processes=1)


def test_a_variant_that_fails_keeps_its_row_with_the_reason(two_seeds: Study) -> None:
    rows = {row["name"]: row for row in two_seeds.rows()}
    assert "needs item features" in rows["finetune + coral"]["why"]
    assert rows["finetune + coral"]["ndcg@10"] is None
    assert rows["finetune - ids"]["why"]
    assert rows["finetune"]["ndcg@10"] > 0


def test_figures_are_means_over_seeds(two_seeds: Study) -> None:
    rows = {row["name"]: row for row in two_seeds.rows()}
    for name in ("scratch", "finetune"):
        assert len(rows[name]["by_seed"]) == 2
        assert rows[name]["ndcg@10"] == pytest.approx(np.mean(rows[name]["by_seed"]))
    lift = two_seeds.lift("finetune", "scratch")
    assert lift is not None
    difference = rows["finetune"]["ndcg@10"] - rows["scratch"]["ndcg@10"]
    assert lift["ndcg@10"] == pytest.approx(difference)


def test_invalid_configs_are_refused_before_any_work(config: StudyConfig) -> None:
    for change, words in (
        ({"sources": ("big", "small")}, "small is both target and source"),
        ({"sources": ("huge",)}, "unknown domain 'huge'"),
        ({"sources": ()}, "small is the only domain"),
        ({"fold": 3}, "fold 3 does not exist"),
    ):
        with pytest.raises(DataError, match=words):
            study(replace(config, **change))
    with pytest.raises(
        DataError, match="'magic' is not a row of the study: choose from popularity;"
    ):
        study(config, ("magic",))


@pytest.mark.usefixtures("two_processes")
def test_the_command_prints_and_saves_the_table(folder: Path, tmp_path: Path) -> None:
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
    assert "240 tests of 240 users" in shown
    for words in (
        "popularity",
        "scratch",
        "finetune - wide",
        "over scratch (SE)",
        "one verdict in twenty",
    ):
        assert words in shown
    saved = json.loads((tmp_path / "out" / "study.json").read_text("utf-8"))
    assert saved == json.loads(ok(*call, 1, "--json").stdout)
    assert [row["name"] for row in saved["rows"]] == [
        "popularity",
        "scratch",
        "finetune",
        "finetune - wide",
    ]
    assert EdgeModel.load(tmp_path / "out" / "sources" / "plain-0").provenance.domains == ("big",)
    assert "'x' is not a row" in refused("study", folder, "--domain", "small", "--only", "x")
    assert run("study", folder, "--domain", "small", "--fold", "-1").exit_code == 2
