"""The hyperparameters that pretrain and adapt share."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from helpers import synthetic
from helpers.commands import ok, refused, run
from tlrec_edge.cli import main
from tlrec_edge.cli.train import training_options
from tlrec_edge.errors import ModelError
from tlrec_edge.train import EdgeModel


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hyperparameters")
    synthetic.interactions().to_csv(path / "log.csv", index=False)
    synthetic.items().to_csv(path / "items.csv", index=False)
    ok(
        "prepare",
        "--interactions",
        path / "log.csv",
        "--items",
        path / "items.csv",
        "--out",
        path / "ds",
    )
    return path / "ds"


OPTIONS = (
    *(
        "--align",
        "coral",
        "--align-weight",
        "3",
        "--augment",
        "crop,mask",
        "--augment",
        "token-dropout",
    ),
    *("--logq", "0.25", "--event-weight", "purchase=1", "--event-weight", "view=0.1"),
)


def _disk_full(self: EdgeModel, path: Path) -> None:
    raise ModelError(f"cannot write {path}: disk full")


def hyperparameters_of(folder: Path) -> dict[str, object]:
    train = json.loads(json.dumps(asdict(EdgeModel.load(folder).provenance.train)))
    return {
        name: train[name]
        for name in ("align", "align_weight", "augment", "logq", "event_weights", "seed")
    }


def test_adapt_takes_over_what_is_not_given(ds: Path, tmp_path: Path) -> None:
    ok(
        "pretrain",
        ds,
        "--domains",
        "big",
        "--epochs",
        1,
        "--seed",
        3,
        *OPTIONS,
        "--out",
        tmp_path / "source",
    )
    given = {
        "align": "coral",
        "align_weight": 3.0,
        "augment": ["crop", "mask", "token-dropout"],
        "logq": 0.25,
        "event_weights": [["purchase", 1.0], ["view", 0.1]],
        "seed": 3,
    }
    assert hyperparameters_of(tmp_path / "source") == given
    assert "loss" in EdgeModel.load(tmp_path / "source").provenance.align
    call = (
        "adapt",
        ds,
        "--domain",
        "small",
        "--from",
        tmp_path / "source",
        "--mode",
        "finetune",
        "--epochs",
        1,
    )
    ok(*call, "--out", tmp_path / "same")
    assert hyperparameters_of(tmp_path / "same") == given
    ok(*call, "--align", "none", "--augment", "none", "--logq", 0, "--out", tmp_path / "other")
    assert hyperparameters_of(tmp_path / "other") == given | {
        "align": "none",
        "augment": [],
        "logq": 0.0,
    }


def test_without_options_all_are_off(ds: Path, tmp_path: Path) -> None:
    ok("pretrain", ds, "--domains", "big", "--epochs", 1, "--out", tmp_path / "source")
    off = {
        "align": "none",
        "align_weight": 1.0,
        "augment": [],
        "logq": 0.0,
        "event_weights": [],
        "seed": 0,
    }
    assert hyperparameters_of(tmp_path / "source") == off
    assert not EdgeModel.load(tmp_path / "source").provenance.align


def test_a_checkpoint_is_gone_at_the_end_and_kept_on_an_error(ds: Path, tmp_path: Path) -> None:
    kept = ("--checkpoint", tmp_path / "kept")
    ok("pretrain", ds, "--domains", "big", "--epochs", 2, *kept, "--out", tmp_path / "source")
    assert not (tmp_path / "kept").exists()
    call = (
        "adapt",
        ds,
        "--domain",
        "small",
        "--from",
        tmp_path / "source",
        "--mode",
        "finetune",
        "--epochs",
        1,
    )
    (tmp_path / "file").write_text("x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlrec_edge.train.edge_model.EdgeModel.save", _disk_full)
        assert "disk full" in refused(*call, *kept, "--out", tmp_path / "model")
    assert (tmp_path / "kept" / "fit-1" / "state.json").is_file()
    words = refused(*call, "--seed", 4, *kept, "--out", tmp_path / "model")
    assert "is the checkpoint of another run: seed was 0, is 4" in words
    ok(*call, *kept, "--out", tmp_path / "model", "--json")
    assert not (tmp_path / "kept").exists()


def test_a_checkpoint_must_not_be_where_the_model_goes(ds: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "m", tmp_path / "m" / "kept"):
        result = run(
            "pretrain", ds, "--domains", "big", "--out", tmp_path / "m", "--checkpoint", folder
        )
        assert result.exit_code == 2
        assert "--checkpoint must not be --out or a folder inside it" in result.stderr
        assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--align", "magic"), "'magic' is not one of 'none', 'adversarial', 'coral'"),
        (
            ("--augment", "crop,shake"),
            "'shake' is not one of crop, mask, reorder, token-dropout, none",
        ),
        (("--logq", "2"), "0<=x<=1"),
        (("--event-weight", "glance=1"), "'glance=1' is not EVENT=WEIGHT"),
        (("--event-weight", "view=much"), "'view=much' is not EVENT=WEIGHT"),
        (("--event-weight", "view=-1"), "'view=-1' is not EVENT=WEIGHT"),
        (("--align-weight", "-1"), "x>=0"),
    ],
)
@pytest.mark.parametrize("command", ["pretrain", "adapt"])
def test_a_wrong_option_is_wrong_usage(command: str, option: tuple[str, str], words: str) -> None:
    result = run(
        command,
        "data",
        "--domain" if command == "adapt" else "--domains",
        "x",
        "--out",
        "y",
        *option,
    )
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "option", [("--align-weight", "nan"), ("--align-weight", "inf"), ("--logq", "nan")]
)
def test_a_number_that_is_none_is_wrong_usage(
    ds: Path, tmp_path: Path, option: tuple[str, str]
) -> None:
    for command in (
        ("pretrain", ds, "--domains", "big"),
        ("adapt", ds, "--domain", "small", "--mode", "scratch"),
    ):
        result = run(*command, *option, "--out", tmp_path / "m")
        assert result.exit_code == 2
        assert "must" in result.stderr


def test_ids_alone_cannot_be_aligned(tmp_path: Path) -> None:
    synthetic.interactions()[["user", "item"]].to_csv(tmp_path / "ids.csv", index=False)
    ok("prepare", "--interactions", tmp_path / "ids.csv", "--out", tmp_path / "ds")
    words = refused(
        "pretrain", tmp_path / "ds", "--domains", "all", "--align", "coral", "--out", tmp_path / "m"
    )
    assert "--align coral needs item features" in words


def test_both_commands_have_the_same_hyperparameters() -> None:
    def bare() -> None: ...

    names = {parameter.name for parameter in training_options(bare).__click_params__}  # type: ignore[attr-defined]  # set by click
    for command in ("pretrain", "adapt"):
        found = main.get_command(None, command)  # type: ignore[arg-type]  # the context is not read
        assert found is not None
        assert names <= {parameter.name for parameter in found.params}


def test_a_source_model_is_not_replaced_by_the_model_made_from_it(ds: Path, tmp_path: Path) -> None:
    ok("pretrain", ds, "--domains", "big", "--epochs", 1, "--out", tmp_path / "source")
    before = (tmp_path / "source" / "model.json").read_bytes()
    call = ("adapt", ds, "--domain", "small", "--from", tmp_path / "source")
    result = run(*call, "--mode", "zero-shot", "--out", tmp_path / "." / "source")
    assert result.exit_code == 2
    assert "--out is the source model itself: choose another folder" in result.stderr
    assert (tmp_path / "source" / "model.json").read_bytes() == before


@pytest.mark.parametrize(
    ("rows", "mode", "figures"),
    [
        (["a,x", "b,y", "c,x"], "scratch", "0 epochs of training, 0 validation rows"),
        (["a,x", "a,y", "a,z", "b,x", "b,y", "b,z"], "auto", "2 validation rows"),
    ],
)
def test_a_log_that_is_too_small_to_learn_from_is_called_that(
    tmp_path: Path, rows: list[str], mode: str, figures: str
) -> None:
    (tmp_path / "log.csv").write_text("\n".join(["user,item", *rows]), "utf-8")
    ok("prepare", "--interactions", tmp_path / "log.csv", "--out", tmp_path / "ds")
    result = ok("adapt", tmp_path / "ds", "--mode", mode, "--out", tmp_path / "model", "--json")
    (note,) = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    assert "learned nothing but popularity from the log of all, which may be too small" in note
    assert figures in note


def test_a_log_that_taught_something_gets_no_such_note(ds: Path, tmp_path: Path) -> None:
    result = ok(
        *("adapt", ds, "--domain", "small", "--mode", "scratch", "--epochs", 1),
        *("--out", tmp_path / "model"),
    )
    assert "nothing but popularity" not in result.stderr
