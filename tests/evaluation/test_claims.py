"""Claims of an evaluation: over the strongest baseline, and among which candidates they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.commands import ok
from tlrec_edge.data.store import load_dataset
from tlrec_edge.evaluation.cards import measure_cards, transfer_card
from tlrec_edge.evaluation.result import Evaluation
from tlrec_edge.linear.ranking import Ranking
from tlrec_edge.train import EdgeModel

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


def test_a_gain_of_a_model_of_the_target_alone_is_not_called_transfer() -> None:
    found = evaluation(popularity=(0.1, None), ease_target=(0.3, None), model=(0.7, None))
    lifts = replace(found, no_source=frozenset({"model"})).to_json()["lift"]
    assert "transfer" not in lifts
    assert (lifts["target-only"]["over"], lifts["target-only"]["verdict"]) == (
        "ease-target",
        "better",
    )


@pytest.mark.parametrize("full", [None, 0.6])
def test_a_gain_that_holds_is_claimed(full: float | None) -> None:
    baseline = None if full is None else 0.2
    found = evaluation(popularity=(0.1, baseline), ease_target=(0.3, baseline), model=(0.7, full))
    assert found.to_json()["lift"]["transfer"]["verdict"] == "better"
    card = transfer_card(found, "finetune", ["source"])
    assert card["claim"] == "transfer"
    assert "why" not in card


def chains(folder: Path, seed: int = 0) -> Path:
    """Write a log in which the next item of the target follows from the last one alone.

    Items of the target form a ring, and everyone buys four neighbours in order, the last of which
    is the test. What people buy in the other domain has nothing to do with it.
    """
    rng = np.random.default_rng(seed)
    lines = ["user,item,domain,timestamp"]
    for user in range(160):
        first = rng.integers(24)
        bought = [("big", f"b{item}") for item in rng.choice(20, 5, replace=False)]
        bought += [("small", f"s{(first + step) % 24}") for step in range(4)]
        lines += [
            f"u{user},{item},{domain},2024-01-{day:02}"
            for day, (domain, item) in enumerate(bought, 1)
        ]
    path = folder / "log.csv"
    path.write_text("\n".join(lines))
    return path


def test_what_the_last_item_alone_explains_is_not_called_transfer(tmp_path: Path) -> None:
    """A really trained model, in a shop in which a plain transition graph is never wrong."""
    data, source, model = (tmp_path / name for name in ("data", "source", "model"))
    ok("prepare", "--interactions", chains(tmp_path), "--negatives", 15, "--out", data)
    quick = ("--size", "fast", "--epochs", 2)
    ok("pretrain", data, "--domains", "big", *quick, "--out", source)
    to = ("--domain", "small", "--from", source, "--mode", "finetune")
    ok("adapt", data, *to, *quick, "--out", model)
    evaluate = ("evaluate", model, data, "--domain", "small", "--no-target-only")
    report = json.loads(ok(*evaluate, "--json").stdout)
    reached = {row["name"]: row["ndcg@10"] for row in report["rows"]}
    assert reached["last-item-graph"] > 0.95
    assert reached["last-item-graph-target"] > 0.95
    assert report["lift"]["transfer"]["over"].startswith("last-item-graph")
    for lift in ("model", "transfer"):
        assert report["lift"][lift]["verdict"] == "worse"
    card = measure_cards(EdgeModel.load(model), load_dataset(data))["transfer"]
    assert card["claim"] == "none"
    assert "over last-item-graph-target: worse" in card["why"]
    lines = [line for line in ok(*evaluate).stdout.splitlines() if "transfer" in line]
    assert lines
    assert not any("better" in line for line in lines)
