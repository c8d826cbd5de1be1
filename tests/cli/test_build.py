"""compress and what ends it early: nothing affordable, an unwritable --out, Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers import synthetic
from helpers.commands import ok, refused, run
from helpers.costs import equal_costs
from tlrec_edge.data.store import save_dataset
from tlrec_edge.export import export_bundle
from tlrec_edge.quantize.subject import LEARNED, NOT_LEARNED
from tlrec_edge.train import EdgeModel

pytestmark = pytest.mark.usefixtures("small_batches")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("build")
    save_dataset(synthetic.dataset(), path / "ds")
    synthetic.model().save(path / "model")
    export_bundle(synthetic.model(), synthetic.dataset(), path / "bundle")
    return path


def compress(work: Path, out: Path) -> tuple[object, ...]:
    return (
        "compress",
        work / "model",
        work / "ds",
        "--domain",
        "small",
        "--only",
        "width 1/2",
        "--out",
        out,
    )


def test_where_nothing_is_affordable_the_rejected_points_are_shown(
    work: Path, tmp_path: Path
) -> None:
    call = (
        *compress(work, tmp_path / "light"),
        "--max-bytes",
        "1kB",
        "--checkpoint",
        tmp_path / "kept",
    )
    shown = run(*call)
    assert shown.exit_code == 1
    assert "int8 rows" in shown.stdout
    assert "bytes, more than 1,000" in shown.stdout
    assert (
        shown.stderr.strip()
        .splitlines()[-1]
        .startswith("Error: no model that keeps ndcg@10>=99.5%")
    )
    result = run(*call, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["out"] is None
    assert not any(point["kept"] for point in found["points"])
    assert all(point["why"] for point in found["points"])
    assert not (tmp_path / "light").exists()


@pytest.mark.parametrize("learned", [False, True])
def test_compress_says_whether_its_rows_were_learned(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learned: bool
) -> None:
    monkeypatch.setattr("tlrec_edge.export.cost.measure_costs", equal_costs)
    model = Path(shutil.copytree(work / "model", tmp_path / "model"))
    if learned:
        (model / "before_refit.npz").unlink()
    call = ("compress", model, work / "ds", "--only", "width 1/2", "--budget", "50%", "--out")
    judged_on = LEARNED if learned else NOT_LEARNED
    shown = ok(*call, tmp_path / "small").stdout
    assert f"points: {judged_on}" in shown
    report = json.loads(ok(*call, tmp_path / "small", "--json").stdout)
    assert report["judged_on"] == judged_on
    choices = EdgeModel.load(model).provenance.choices
    assert choices is not None
    at_choice = pytest.approx(choices.validation_ndcg, abs=1e-6)
    assert (report["points"][0]["value"] == at_choice) is not learned
    ok("export", tmp_path / "small", work / "ds", "--no-cards", "--out", tmp_path / "bundle")
    assert " ".join(judged_on.split()[:3]) in ok("inspect", tmp_path / "bundle").stdout
    card = json.loads(ok("inspect", tmp_path / "bundle", "--json").stdout)["compression"]
    assert card["judged_on"] == judged_on


@pytest.mark.parametrize("checkpoint", [True, False])
def test_ctrl_c_says_how_to_go_on(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: bool
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tlrec_edge.pipeline.steps.search", stop)
    kept = ("--checkpoint", tmp_path / "kept") if checkpoint else ()
    result = run(*compress(work, tmp_path / "light"), *kept)
    assert result.exit_code == 130
    resumes = f"interrupted; the same command resumes from {tmp_path / 'kept'}"
    assert result.stderr.strip() == (resumes if checkpoint else "interrupted; nothing was written")


@pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="needs a file system that takes no folder"
)
@pytest.mark.parametrize("command", ["compress", "adapt", "pretrain", "export"])
def test_an_out_that_takes_no_folder_is_told_before_any_work(command: str) -> None:
    """The dataset does not even exist; root has every right there and still can write nothing."""
    domain = "--domains" if command == "pretrain" else "--domain"
    model = ("nowhere",) if command in ("compress", "export") else ()
    words = refused(command, *model, "nowhere", domain, "x", "--out", "/proc/out")
    assert "/proc/out cannot be written: /proc: " in words
    assert "choose another --out" in words


def test_verify_counts_every_byte(work: Path) -> None:
    size = sum(file.stat().st_size for file in (work / "bundle").iterdir())
    assert json.loads(ok("verify", work / "bundle", "--json").stdout)["bytes"] == size
    assert f"{size:,} bytes" in ok("verify", work / "bundle").stdout
