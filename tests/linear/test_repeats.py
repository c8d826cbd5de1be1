"""The repeat bias: whether items a user already had are bought again is learned from the data."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.bundles import write_manifest
from tlrec_edge import Recommender
from tlrec_edge.core.metrics import METRICS
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import BundleError
from tlrec_edge.export import export_bundle
from tlrec_edge.linear.baselines import TunedEase
from tlrec_edge.linear.ranking import ndcg
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.train import EdgeModel, TrainConfig, adapt
from tlrec_edge.train.served import history_of

USERS, ITEMS = 200, 40
CONFIG = TrainConfig(width=16, epochs=6, interest_rank=4)


@cache
def shop(loyal: bool, mask_seen: bool = False, negatives: int = 0) -> Dataset:
    """Return a log whose users buy three items again and again, or never buy an item twice."""
    rng = np.random.default_rng(3)
    rows = []
    for user in range(USERS):
        favourites = (user % 4) * 10 + rng.permutation(10)
        bought = (
            [int(favourites[rng.integers(3)]) for _ in range(9)]
            if loyal
            else favourites[:9].tolist()
        )
        rows += [(f"u{user}", f"i{item}", f"2024-{1 + at:02}-01") for at, item in enumerate(bought)]
    log = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    plan = SplitPlan("leave-one-out", negatives=negatives, mask_seen=mask_seen, refit=False)
    return prepare_tables([log], [], Schema(duplicates="keep"), plan).dataset


@cache
def model(loyal: bool, without: tuple[str, ...] = (), **split: object) -> EdgeModel:
    data = shop(loyal, **split)
    return adapt(
        data, data.domains, "scratch", None, TrainConfig(**{**vars(CONFIG), "without": without})
    )


def test_the_repeat_bias_has_the_sign_of_the_behaviour_and_improves_ndcg() -> None:
    assert model(True).score_weights.repeat > 0 > model(False).score_weights.repeat
    for loyal in (True, False):
        data = shop(loyal)
        task = make_tasks(data, data.domains).final
        without = model(loyal, without=("repeat",))
        assert without.score_weights.repeat == 0
        assert (
            ndcg(model(loyal).scorer(data, task), task)
            > ndcg(without.scorer(data, task), task) + 0.05
        )


def test_tuned_ease_learns_the_repeat_bias_too() -> None:
    for loyal in (True, False):
        tasks = make_tasks(shop(loyal), shop(loyal).domains)
        ease = TunedEase(target_only=False)
        reached = METRICS["ndcg"](ease(tasks).rank, 10).mean()
        assert ease.choice is not None
        assert (ease.choice.repeat_bias > 0) == loyal
        task = tasks.final
        expected = ndcg(model(loyal).scorer(shop(loyal), task), task)
        assert reached == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(("mask_seen", "negatives"), [(True, 0), (False, 15)])
def test_no_repeat_bias_is_learned_if_such_items_are_not_ranked(
    mask_seen: bool, negatives: int
) -> None:
    assert model(False, mask_seen=mask_seen, negatives=negatives).score_weights.repeat == 0


@pytest.mark.parametrize("loyal", [True, False])
def test_the_bundle_scores_repeats_as_the_model_does(tmp_path: Path, loyal: bool) -> None:
    data = shop(loyal)
    parity = export_bundle(model(loyal), data, tmp_path / "b")
    assert parity.max_error <= 1e-4
    history = history_of(data, data.interactions, 7)
    with Recommender.open(tmp_path / "b", verify="full") as rec:
        best = rec.recommend(history, 1, exclude=None).items[0]
        assert (best in history.items) == loyal
        ranked = rec.recommend(history, len(rec), exclude=None)
        assert ranked.scores.tolist() == rec.score(history, list(ranked.items)).tolist()
        assert rec.score([], ["i1"])[0] == rec.score(["unknown item"], ["i1"])[0]


def test_a_manifest_with_an_impossible_weight_is_refused(tmp_path: Path) -> None:
    export_bundle(model(True), shop(True), tmp_path / "b")
    text = (tmp_path / "b" / "manifest.json").read_text("utf-8")
    entry = f'"repeat": {model(True).score_weights.repeat}'
    assert entry in text
    for invalid in ("1e39", "NaN", '"much"'):
        changed = text.replace(entry, f'"repeat": {invalid}')
        write_manifest(tmp_path / "b", changed.encode())
        with pytest.raises(BundleError, match=r"manifest\.json"):
            Recommender.open(tmp_path / "b")
