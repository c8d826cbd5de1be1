"""A source that teaches the opposite of the target: auto falls back to the target alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from helpers import synthetic
from helpers.synthetic import BIG, CONFIG, TASTES
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.evaluation import evaluate
from tlrec_edge.evaluation.evaluate import model_ranker
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.train import EdgeModel, adapt, adapt_auto, pretrain

TARGET = ("small",)


def make_dataset(seed: int) -> Dataset:
    """Return a target of loyal users, and a source of others who never buy a taste twice in a row.

    The titles and categories of both domains are the same words, so that what the source teaches
    applies to the target's items: after tea, anything but tea.
    """
    rng = np.random.default_rng(seed)
    log = synthetic.interactions(seed)
    rows = []
    for user in range(240):
        first, per_taste = rng.integers(len(TASTES)), BIG // len(TASTES)
        drawn = rng.integers(per_taste, size=10)
        for step, item in enumerate(drawn):
            number = item * len(TASTES) + (first + step) % len(TASTES)
            rows.append((f"v{user}", f"b{number}", "big", f"2024-{1 + step:02}-01"))
    source = pd.DataFrame(rows, columns=log.columns)
    tables = [pd.concat([log[log.domain == "small"], source])], [synthetic.items(seed)]
    schema = Schema(features={"title": "text"})
    return prepare_tables(*tables, schema, SplitPlan(negatives=20)).dataset


def choose(seed: int) -> tuple[EdgeModel, float]:
    """Return what auto chooses, and the lift of the source model over the target's own."""
    data = make_dataset(seed)
    config = replace(CONFIG, seed=seed)
    source = pretrain(data, ("big",), config)
    chosen, _ = adapt_auto(data, TARGET, source, config)
    models = {mode: adapt(data, TARGET, mode, source, config) for mode in ("scratch", "zero-shot")}
    found = evaluate(data, TARGET, {name: model_ranker(m, data) for name, m in models.items()})
    return chosen, found.lift("zero-shot", "scratch").mean


def check(seeds: int) -> None:
    found = [choose(seed) for seed in range(seeds)]
    assert np.mean([lift for _, lift in found]) < -0.1, "the source does no harm"
    transferred = [model.provenance.mode for model, _ in found if model.provenance.source]
    assert not transferred, f"auto transfers in {len(transferred)} of {seeds}: {transferred}"


def test_auto_rejects_a_harmful_source() -> None:
    check(seeds=2)


@pytest.mark.slow
def test_auto_rejects_a_harmful_source_ten_times_in_ten() -> None:
    check(seeds=10)
