"""Claims of an evaluation: over the strongest baseline, and among which candidates they hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tlrec_edge.evaluation.cards import transfer_card
from tlrec_edge.evaluation.result import Evaluation
from tlrec_edge.linear.ranking import Ranking

USERS = 400


def ranking(ndcg: float, full_ndcg: float | None, seed: int) -> Ranking:
    """Return ranks with about this NDCG@10: first for so many users, beyond 10 for the others."""
    rng = np.random.default_rng(seed)
    user = np.arange(USERS, dtype=np.int32)

    def ranks(value: float) -> np.ndarray:
        return np.where(rng.permutation(USERS) < value * USERS, 1.0, 20.0)

    full = None if full_ndcg is None else ranks(full_ndcg)
    counts = np.full(USERS, 100)
    return Ranking(ranks(ndcg), counts, user, user, full, None if full is None else counts)


def evaluation(**values: tuple[float, float | None]) -> Evaluation:
    """Return an evaluation of models with these NDCG@10: among negatives, and among all."""
    rankings: Mapping[str, Ranking] = {
        name.replace("_", "-"): ranking(*value, seed=number)
        for number, (name, value) in enumerate(values.items())
    }
    return Evaluation(("shop",), rankings)


def test_a_model_is_compared_with_the_strongest_simple_baseline() -> None:
    """EASE is weak here; over it alone the model would look better."""
    found = evaluation(
        popularity=(0.02, 0.02), ease=(0.3, 0.2), itemcf=(0.6, 0.5), model=(0.5, 0.4)
    )
    lift = found.to_json()["lift"]["model"]
    assert (lift["over"], lift["verdict"]) == ("itemcf", "worse")
    assert (lift["full"]["over"], lift["full"]["verdict"]) == ("itemcf", "worse")


def test_transfer_must_beat_item_cf_of_the_target() -> None:
    found = evaluation(
        popularity=(0.1, None),
        ease_target=(0.2, None),
        itemcf_target=(0.6, None),
        model=(0.4, None),
    )
    card = transfer_card(found, "finetune", ["source"])
    assert card["claim"] == "none"
    assert "over itemcf-target: worse" in card["why"]


def test_a_gain_among_negatives_that_the_catalogue_denies_is_limited_to_them() -> None:
    """Against all candidates another baseline is the strongest, and it beats the model."""
    found = evaluation(
        popularity=(0.1, 0.1), ease_target=(0.4, 0.1), itemcf_target=(0.2, 0.5), model=(0.7, 0.3)
    )
    lift = found.to_json()["lift"]["transfer"]
    assert (lift["over"], lift["verdict"]) == ("ease-target", "better among negatives only")
    assert (lift["full"]["over"], lift["full"]["verdict"]) == ("itemcf-target", "worse")
    card = transfer_card(found, "finetune", ["source"])
    assert card["claim"] == "transfer among negatives only"
    assert "over itemcf-target against the full catalogue" in card["why"]


@pytest.mark.parametrize("full", [None, 0.6])
def test_a_gain_that_holds_is_claimed(full: float | None) -> None:
    baseline = None if full is None else 0.2
    found = evaluation(popularity=(0.1, baseline), ease_target=(0.3, baseline), model=(0.7, full))
    assert found.to_json()["lift"]["transfer"]["verdict"] == "better"
    card = transfer_card(found, "finetune", ["source"])
    assert card["claim"] == "transfer"
    assert "why" not in card
