"""Checkpoints: a fit that was interrupted ends as one that was not; another run's is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from helpers import synthetic
from helpers.synthetic import CONFIG
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.errors import ModelError
from tlrec_edge.train import EdgeModel, TrainConfig, adapt, adapt_auto, pretrain
from tlrec_edge.train.checkpoint import Checkpoint, resumable

Progress = Callable[[str], None]
Run = Callable[[Progress | None, Checkpoint | None], EdgeModel]
QUICK = replace(CONFIG, epochs=3, pretrain_epochs=4)
KNOBS = {
    "plain": QUICK,
    "adversarial": replace(QUICK, align="adversarial"),
    "all": replace(QUICK, size="base", align="coral", augment=("crop", "token-dropout"), logq=0.5),
}


class Interrupted(Exception):
    pass


def stop_after(count: int) -> Callable[[str], None]:
    """Return a progress callback that raises when ``count`` epochs have been told."""
    left = [count]

    def progress(step: str) -> None:
        left[0] -= step.startswith("epoch ")
        if left[0] <= 0:
            raise Interrupted

    return progress


def same(one: EdgeModel, other: EdgeModel) -> None:
    for name, value in one.net.state_dict().items():
        np.testing.assert_array_equal(
            other.net.state_dict()[name].numpy(), value.numpy(), err_msg=name
        )
    assert one.score_weights == other.score_weights
    assert one.provenance == other.provenance


def interrupted_and_resumed(folder: Path, run: Run, config: TrainConfig, epochs: int) -> EdgeModel:
    data = synthetic.dataset()
    with pytest.raises(Interrupted), resumable(folder, data, config) as kept:
        run(stop_after(epochs), kept)
    assert (folder / "run.json").is_file()
    told: list[str] = []
    with resumable(folder, data, config) as kept:
        model = run(told.append, kept)
    assert not folder.exists()
    assert not any(step.startswith("epoch 1/") for step in told[:1]), "it began again"
    return model


def pretrain_with(
    knobs: str, progress: Progress | None = None, kept: Checkpoint | None = None
) -> EdgeModel:
    return pretrain(synthetic.dataset(), ("big",), KNOBS[knobs], progress, kept)


def adapt_by(
    mode: str, progress: Progress | None = None, kept: Checkpoint | None = None
) -> EdgeModel:
    data, source = synthetic.dataset(), synthetic.source()
    return adapt(data, ("small",), mode, source, QUICK, progress=progress, checkpoint=kept)


# One run that is not interrupted, to compare with all that are.
pretrained, adapted = cache(pretrain_with), cache(adapt_by)


@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_pretraining_goes_on_to_the_same_end(tmp_path: Path, knobs: str, epochs: int) -> None:
    run = partial(pretrain_with, knobs)
    resumed = interrupted_and_resumed(tmp_path / "c", run, KNOBS[knobs], epochs)
    same(pretrained(knobs), resumed)


@pytest.mark.parametrize("mode", ["finetune", "joint"])
@pytest.mark.parametrize("epochs", [2, 5])
def test_adapting_goes_on_to_the_same_end(tmp_path: Path, mode: str, epochs: int) -> None:
    """The second number falls into the second fit; the first is not made again."""
    run = partial(adapt_by, mode)
    same(adapted(mode), interrupted_and_resumed(tmp_path / "c", run, QUICK, epochs))


def test_auto_goes_on_to_the_same_end(tmp_path: Path) -> None:
    quick = replace(QUICK, epochs=2)

    def run(progress: Progress | None, kept: Checkpoint | None) -> EdgeModel:
        return adapt_auto(
            synthetic.dataset(),
            ("small",),
            synthetic.source(),
            quick,
            progress=progress,
            checkpoint=kept,
        )[0]

    same(run(None, None), interrupted_and_resumed(tmp_path / "c", run, quick, 5))


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Leave the checkpoint of a run that was interrupted after two epochs."""
    data = synthetic.dataset()
    with (
        pytest.raises(Interrupted),
        resumable(tmp_path / "c", data, QUICK, domains=("big",)) as kept,
    ):
        pretrain(data, ("big",), QUICK, stop_after(2), kept)
    return tmp_path / "c"


def resume(
    folder: Path, data: Dataset | None = None, config: TrainConfig = QUICK, domains: str = "big"
) -> None:
    data = data or synthetic.dataset()
    with resumable(folder, data, config, domains=(domains,)) as kept:
        pretrain(data, (domains,), config, None, kept)


def test_only_the_last_epoch_is_kept_and_nothing_is_pickled(left: Path) -> None:
    assert sorted(path.name for path in (left / "fit-1").iterdir()) == ["epoch-2.npz", "state.json"]
    with np.load(left / "fit-1" / "epoch-2.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)
    assert len(json.loads((left / "fit-1" / "state.json").read_text("utf-8"))["losses"]) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": replace(QUICK, seed=7)}, "seed was 0, is 7"),
        ({"config": replace(QUICK, align="coral")}, 'align was "none", is "coral"'),
        ({"config": replace(QUICK, augment=("crop",))}, r'augment was \[\], is \["crop"\]'),
        ({"domains": "small"}, r'domains was \["big"\], is \["small"\]'),
        ({"data": synthetic.dataset("last-basket")}, 'dataset was "'),
    ],
)
def test_another_run_is_refused_and_its_checkpoint_kept(
    left: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(ModelError, match=f"is the checkpoint of another run: {words}"):
        resume(left, **change)  # type: ignore[arg-type]  # one of several knobs
    resume(left)
    assert not left.exists()


@pytest.mark.parametrize("file", ["run.json", "fit-1/state.json", "fit-1/epoch-2.npz"])
@pytest.mark.parametrize("content", [b"", b"[]", b'{"losses": 3', b"\xff\x00"])
def test_a_damaged_checkpoint_is_one_line(left: Path, file: str, content: bytes) -> None:
    (left / file).write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot be read|another run"):
        resume(left)


def test_a_crash_while_writing_leaves_the_epoch_before(left: Path) -> None:
    (left / "fit-1" / "epoch-3.npz").write_bytes(b"half")
    (left / "fit-1" / "state.new").write_bytes(b"half")
    resume(left)
    assert not left.exists()


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(
            ModelError, match="exists and is not a checkpoint: choose another --checkpoint"
        ):
            resume(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
