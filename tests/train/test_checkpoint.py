"""Checkpoints: an interrupted run ends as an uninterrupted one; that of another run is refused."""

from __future__ import annotations

import json
import re
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
CONFIGS = {
    "plain": QUICK,
    "adversarial": replace(QUICK, align="adversarial"),
    "all": replace(QUICK, size="base", align="coral", augment=("crop", "token-dropout"), logq=0.5),
}


EPOCH = re.compile(r": epoch (\d+) of ")
"""A line of progress before an epoch."""


class Interrupted(Exception):
    pass


def stop_after(count: int) -> Callable[[str], None]:
    """Return a progress callback that raises after ``count`` epochs."""
    left = [count]

    def progress(line: str) -> None:
        if left[0] <= 0:
            raise Interrupted
        left[0] -= EPOCH.search(line) is not None

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
    with pytest.raises(Interrupted), resumable(folder, data, config) as checkpoint:
        run(stop_after(epochs), checkpoint)
    assert (folder / "run.json").is_file()
    reported: list[str] = []
    with resumable(folder, data, config) as checkpoint:
        model = run(reported.append, checkpoint)
    assert not folder.exists()
    resumed = [found[1] for line in reported if (found := EPOCH.search(line))]
    assert resumed[:1] != ["1"], "the run started again"
    return model


def pretrain_with(
    config_name: str, progress: Progress | None = None, checkpoint: Checkpoint | None = None
) -> EdgeModel:
    return pretrain(synthetic.dataset(), ("big",), CONFIGS[config_name], progress, checkpoint)


def adapt_by(
    mode: str, progress: Progress | None = None, checkpoint: Checkpoint | None = None
) -> EdgeModel:
    data, source = synthetic.dataset(), synthetic.source()
    return adapt(data, ("small",), mode, source, QUICK, progress=progress, checkpoint=checkpoint)


# One run that is not interrupted, to compare with all that are.
pretrained, adapted = cache(pretrain_with), cache(adapt_by)


@pytest.mark.parametrize("config_name", CONFIGS)
@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_pretraining_continues_to_the_same_end(
    tmp_path: Path, config_name: str, epochs: int
) -> None:
    run = partial(pretrain_with, config_name)
    resumed = interrupted_and_resumed(tmp_path / "c", run, CONFIGS[config_name], epochs)
    same(pretrained(config_name), resumed)


@pytest.mark.parametrize("mode", ["finetune", "joint"])
@pytest.mark.parametrize("epochs", [2, 5])
def test_adapting_continues_to_the_same_end(tmp_path: Path, mode: str, epochs: int) -> None:
    """Epoch 5 is in the second fit; the first fit is not made again."""
    run = partial(adapt_by, mode)
    same(adapted(mode), interrupted_and_resumed(tmp_path / "c", run, QUICK, epochs))


def test_auto_continues_to_the_same_end(tmp_path: Path) -> None:
    quick = replace(QUICK, epochs=2)

    def run(progress: Progress | None, checkpoint: Checkpoint | None) -> EdgeModel:
        return adapt_auto(
            synthetic.dataset(),
            ("small",),
            synthetic.source(),
            quick,
            progress=progress,
            checkpoint=checkpoint,
        )[0]

    same(run(None, None), interrupted_and_resumed(tmp_path / "c", run, quick, 5))


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Return the checkpoint of a run that was interrupted after two epochs."""
    data = synthetic.dataset()
    with (
        pytest.raises(Interrupted),
        resumable(tmp_path / "c", data, QUICK, domains=("big",)) as checkpoint,
    ):
        pretrain(data, ("big",), QUICK, stop_after(2), checkpoint)
    return tmp_path / "c"


def resume(
    folder: Path, data: Dataset | None = None, config: TrainConfig = QUICK, domains: str = "big"
) -> None:
    data = data or synthetic.dataset()
    with resumable(folder, data, config, domains=(domains,)) as checkpoint:
        pretrain(data, (domains,), config, None, checkpoint)


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
        resume(left, **change)  # type: ignore[arg-type]  # one of several arguments
    resume(left)
    assert not left.exists()


@pytest.mark.parametrize("file", ["run.json", "fit-1/state.json", "fit-1/epoch-2.npz"])
@pytest.mark.parametrize("content", [b"", b"[]", b'{"losses": 3', b"\xff\x00"])
def test_a_damaged_checkpoint_is_refused(left: Path, file: str, content: bytes) -> None:
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
