"""Compression is judged on rows that the judged model has not learned, or the result says so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import old_models, synthetic
from helpers.costs import equal_costs
from tlrec_edge.core.cost import Cost
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import BudgetError
from tlrec_edge.linear.ranking import rank_rows
from tlrec_edge.quantize import Budget, CompressConfig, Compression, compress, quantize_wide
from tlrec_edge.quantize.costs import served_bytes
from tlrec_edge.quantize.search_space import ORIGINAL, PRUNING_STEPS
from tlrec_edge.quantize.subject import LEARNED, NOT_JUDGED, NOT_LEARNED
from tlrec_edge.train import EdgeModel, adapt, adapt_auto

LOOSE = CompressConfig(Budget(share=0.6), recovery_steps=5, only=("width 1/2",))


def validation_at_choice(model: EdgeModel) -> float:
    choices = model.provenance.choices
    assert choices is not None
    assert choices.validation_ndcg is not None
    return choices.validation_ndcg


def value_of_original(found: Compression) -> float:
    return float(next(p for p in found.points if p.name == ORIGINAL).retained.value)


@pytest.mark.parametrize("mode", ["scratch", "finetune", "joint"])
def test_the_original_has_the_quality_that_validation_saw(mode: str) -> None:
    model, data = synthetic.model(mode), synthetic.dataset()
    found = compress(model, data, replace(LOOSE, only=()))
    assert value_of_original(found) == pytest.approx(validation_at_choice(model), abs=1e-6)
    learned = compress(replace(model), data, replace(LOOSE, only=()))
    assert value_of_original(learned) > value_of_original(found) + 0.05
    assert (found.judged_on, learned.judged_on) == (NOT_LEARNED, LEARNED)
    assert found.model.provenance.compression["judged_on"] == NOT_LEARNED


def test_an_automatic_choice_is_judged_as_it_was_chosen() -> None:
    config = replace(synthetic.CONFIG, epochs=2)
    model, _ = adapt_auto(synthetic.dataset(), ("small",), config=config)
    found = compress(model, synthetic.dataset(), replace(LOOSE, only=()))
    assert value_of_original(found) == pytest.approx(validation_at_choice(model), abs=1e-6)
    assert found.judged_on == NOT_LEARNED
    assert model.before_refit is not None
    assert model.before_refit.provenance == model.provenance


def test_the_chosen_steps_are_applied_to_the_final_model() -> None:
    model, data = synthetic.model(), synthetic.dataset()
    found = compress(model, data, LOOSE, measure_costs=equal_costs)
    card, small = found.model.provenance.compression, found.model
    assert card["chosen"].startswith("width 1/2, int")
    assert small.net.config.width == model.net.config.width // 2
    # The final model's item-item weights and its bias, not those from before the refit.
    assert model.before_refit is not None
    assert small.wide.nnz == quantize_wide(model).wide.nnz
    assert small.wide.nnz != quantize_wide(model.before_refit).wide.nnz
    np.testing.assert_array_equal(small.bias, model.bias)
    assert (card["bytes"], card["original_bytes"]) == (served_bytes(small), served_bytes(model))
    assert small.before_refit is None
    task = make_tasks(data, ("small",)).final
    ranks = [rank_rows(m.scorer(data, task), task).rank for m in (model, small)]
    assert np.mean(ranks[0] == ranks[1]) > 0.5


def test_the_final_model_has_to_meet_the_limits_too() -> None:
    model, data = synthetic.model(), synthetic.dataset()
    free = compress(model, data, LOOSE)
    card = free.model.provenance.compression
    searched = next(point.bytes for point in free.points if point.chosen)
    assert searched is not None
    assert searched < card["bytes"]
    limit = (searched + card["bytes"]) // 2
    with pytest.raises(BudgetError) as caught:
        compress(model, data, replace(LOOSE, max_bytes=limit))
    why = {str(point["step"]): str(point["why"]) for point in caught.value.points}
    assert why[card["chosen"]] == (
        f"fitted with the validation rows, it has {card['bytes']:,} bytes, more than {limit:,}"
    )


def test_a_final_model_that_fails_as_a_bundle_is_passed_over() -> None:
    model, data = synthetic.model(), synthetic.dataset()
    first = compress(model, data, LOOSE, measure_costs=equal_costs)
    chosen = first.model.provenance.compression["chosen"]

    refused: list[EdgeModel] = []

    def gated(models: Sequence[EdgeModel]) -> list[Cost]:
        costs = equal_costs(models)
        if len(models) == 2 and not refused:  # the final model, before and after the chosen steps
            refused.append(models[1])
            costs[1] = Cost(0, error="order gate: a score depends on the order")
        return costs

    found = compress(model, data, LOOSE, measure_costs=gated)
    why = {point.name: point.reason for point in found.points}
    assert "it fails as a bundle: order gate: a score depends on the order" in why[chosen]
    assert found.model.provenance.compression["chosen"] not in (chosen, None)


def test_a_model_of_0_1_0_is_judged_on_learned_rows_and_says_so() -> None:
    model, data = EdgeModel.load(old_models.MODELS / "auto"), old_models.dataset()
    assert model.before_refit is None
    found = compress(model, data, replace(LOOSE, budget=Budget(share=0.1), only=()))
    assert found.judged_on == LEARNED
    assert found.model.provenance.compression["judged_on"] == LEARNED
    with pytest.raises(BudgetError, match="the model has learned: the figures are too good"):
        compress(model, data, replace(LOOSE, max_bytes=1, only=()))


def test_models_that_learned_no_validation_row_need_no_other() -> None:
    zero_shot = adapt(synthetic.dataset(), ("small",), "zero-shot", synthetic.source())
    assert zero_shot.before_refit is None
    found = compress(zero_shot, synthetic.dataset(), replace(LOOSE, only=()))
    assert found.judged_on == NOT_LEARNED

    data = synthetic.dataset()
    kept = replace(data, split=replace(data.split, refit=False))
    config = replace(synthetic.CONFIG, epochs=1)
    model = adapt(kept, ("small",), "scratch", None, config)
    assert model.before_refit is None
    assert compress(model, kept, replace(LOOSE, only=())).judged_on == NOT_LEARNED

    data = synthetic.no_validation()
    model = adapt(data, ("small",), "scratch", None, config)
    assert model.before_refit is None
    assert compress(model, data, replace(LOOSE, only=())).judged_on == NOT_JUDGED


def test_the_folder_keeps_the_model_from_before(tmp_path: Path) -> None:
    model, data = synthetic.model(), synthetic.dataset()
    model.save(tmp_path / "model")
    loaded = EdgeModel.load(tmp_path / "model")
    in_memory, from_folder = (
        compress(m, data, replace(LOOSE, only=())).points for m in (model, loaded)
    )
    assert [p.to_json() for p in from_folder] == [p.to_json() for p in in_memory]
    # What describes the items is stored once.
    sizes = [
        os.stat(tmp_path / "model" / name).st_size for name in ("before_refit.npz", "arrays.npz")
    ]
    assert sizes[0] < sizes[1] / 5
    assert EdgeModel.load(tmp_path / "model", before_refit=False).before_refit is None
    loaded.save(tmp_path / "model")
    (tmp_path / "model" / "before_refit.npz").unlink()
    without = EdgeModel.load(tmp_path / "model")
    assert compress(without, data, replace(LOOSE, only=())).judged_on == LEARNED


def test_an_interrupted_search_resumes_at_the_final_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = synthetic.model(), synthetic.dataset()
    first = compress(model, data, LOOSE, checkpoint=tmp_path / "search")

    def never(*_: object) -> EdgeModel:
        raise AssertionError("pruned again")

    monkeypatch.setitem(PRUNING_STEPS["fast"], "width 1/2", never)
    again = compress(model, data, LOOSE, checkpoint=tmp_path / "search")
    assert again.test == first.test
