"""A time budget: the best found by then, and what was left out. The clock moves by events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import synthetic
from helpers.synthetic import CONFIG
from tlrec_edge import pipeline
from tlrec_edge.core.progress import Progress, Status
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import load_dataset, save_dataset
from tlrec_edge.errors import ArgumentError
from tlrec_edge.train import EdgeModel
from tlrec_edge.train.provenance import Provenance

QUICK = replace(CONFIG, epochs=6, pretrain_epochs=2)
SECONDS = {"penalty": 4.0, "epoch": 2.0, "linear parts": 1.0}
"""What each piece of work takes on the clock."""


class Follower:
    """Follows a call, and moves its clock when a piece of work has begun."""

    def __init__(self, seconds: Mapping[str, float] = SECONDS) -> None:
        self.now, self.lines, self.titles = 0.0, list[str](), list[str]()
        self.seconds, self.counts = seconds, set[int]()
        self.progress = Progress(self.listen, clock=lambda: self.now)

    def listen(self, status: Status) -> None:
        self.counts.add(status.count)
        self.lines.append(str(status))
        if status.event == "done":
            self.titles.append(status.step.title)
        if status.event == "doing":
            pieces = (name for name in self.seconds if f": {name}" in str(status))
            self.now += sum(self.seconds[name] for name in pieces)


def adapted(mode: str, minutes: float | None = None) -> tuple[EdgeModel, Follower]:
    follower = Follower()
    model = pipeline.adapt(
        synthetic.dataset(),
        "small",
        source=synthetic.source(),
        mode=mode,
        config=QUICK,
        progress=follower.progress,
        minutes=minutes,
    )
    return model, follower


def test_auto_knows_its_steps_up_front() -> None:
    model, follower = adapted("auto")
    target, everything = "small", "small + 1 domain"
    assert follower.titles == [
        f"EASE · {target}",
        f"scratch · {target}",
        f"popularity and linear · {target}",
        f"zero-shot · {everything}",
        f"EASE · {everything}",
        *(f"{mode} · {everything}" for mode in ("frozen", "finetune", "joint", "pooled")),
        "comparison",
        f"final fit · {model.provenance.mode}, {everything}",
    ]
    assert follower.counts == {len(follower.titles)}
    assert model.provenance.left_out == ()
    assert any(
        "epoch 3 of 6, loss" in line and "best validation" in line for line in follower.lines
    )


def test_a_budget_that_is_large_enough_changes_nothing() -> None:
    free, follower = adapted("finetune")
    bound, _ = adapted("finetune", minutes=10 * follower.now)
    assert bound.provenance == free.provenance
    assert bound.score_weights == free.score_weights


def test_a_mode_gives_the_best_within_its_budget() -> None:
    free, follower = adapted("finetune")
    budget = 0.5 * follower.now
    model, bound = adapted("finetune", minutes=budget / 60)
    assert bound.now <= budget
    left_out = "; ".join(model.provenance.left_out)
    assert "EASE · small + 1 domain: penalties " in left_out
    assert "finetune · small + 1 domain: epochs " in left_out
    assert model.provenance.choices is not None
    assert model.provenance.choices.validation_ndcg is not None
    assert free.provenance.left_out == ()
    assert Provenance.from_json(model.provenance.to_json()) == model.provenance


def test_auto_leaves_out_the_modes_that_do_not_fit() -> None:
    _, follower = adapted("auto")
    budget = 0.1 * follower.now
    model, bound = adapted("auto", minutes=budget / 60)
    assert bound.now <= budget
    assert {"frozen", "finetune", "joint", "pooled"} <= set(model.provenance.left_out)
    tried = [row.mode for row in model.provenance.auto]
    assert tried == ["popularity", "linear", "scratch", "zero-shot"]


def test_a_search_that_was_cut_short_is_not_remembered(tmp_path: Path) -> None:
    save_dataset(synthetic.dataset(), tmp_path / "d")

    def run(data: Dataset, minutes: float | None) -> EdgeModel:
        progress = Follower().progress
        return pipeline.adapt(
            data, "small", mode="scratch", config=QUICK, progress=progress, minutes=minutes
        )

    data = load_dataset(tmp_path / "d", True)
    cut = run(data, 0.1)
    assert any("penalties" in what for what in cut.provenance.left_out)
    whole, alone = run(data, None), run(synthetic.dataset(), None)
    assert whole.provenance.choices == alone.provenance.choices


def test_a_budget_is_above_0_and_has_no_checkpoint() -> None:
    for wrong in ({"minutes": 0.0}, {"minutes": 1.0, "checkpoint": "c"}):
        with pytest.raises(ArgumentError, match="minutes must be above 0"):
            pipeline.adapt(synthetic.dataset(), "small", **wrong)
