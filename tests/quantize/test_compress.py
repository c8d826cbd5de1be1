"""The search for the smallest model: what it tries, chooses and rejects, and how it resumes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import synthetic
from tlrec_edge.core.cost import SLOWDOWN_TOLERANCE, Cost
from tlrec_edge.core.progress import Progress, Status
from tlrec_edge.errors import BudgetError, ModelError
from tlrec_edge.quantize import Budget, CompressConfig, Target, compress
from tlrec_edge.quantize.budget import parse_bytes
from tlrec_edge.quantize.costs import served_bytes
from tlrec_edge.quantize.search_space import (
    ORIGINAL,
    PRUNING_STEPS,
    ROWS,
    STORAGE_FORMATS,
    search_space,
)
from tlrec_edge.train import EdgeModel, adapt

LOOSE = CompressConfig(Budget(share=0.6), recovery_steps=5, only=("feed-forward 1/2",))


def equal_costs(models: Sequence[EdgeModel]) -> list[Cost]:
    """Report the same latency for all models, and the bytes of each."""
    return [Cost(served_bytes(m), {"p50": 50.0, "p90": 60.0, "p99": 90.0}) for m in models]


@pytest.mark.parametrize(
    ("text", "metric", "k", "share"),
    [
        ("ndcg@10>=99.5%", "ndcg", 10, 0.995),
        ("hr@5 >= 0.9", "hr", 5, 0.9),
        (" mrr@20>=100% ", "mrr", 20, 1.0),
        ("99%", "ndcg", 10, 0.99),
        ("0.985", "ndcg", 10, 0.985),
    ],
)
def test_a_budget_is_parsed(text: str, metric: str, k: int, share: float) -> None:
    budget = Budget.parse(text)
    assert (budget.metric, budget.k) == (metric, k)
    assert budget.share == pytest.approx(share)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ndcg",
        "ndcg@10",
        "auc@10>=1",
        "ndcg@10<=1",
        "110%",
        "0",
        "-5%",
        "nan",
        "x%",
        "inf",
        "1.2.3%",
    ],
)
def test_an_invalid_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="budget"):
        Budget.parse(text)


def test_targets_and_sizes_are_parsed() -> None:
    assert Target.parse("p99<=1ms") == Target("p99", 1000.0)
    assert Target.parse("p50 <= 80us").us == 80.0
    assert [parse_bytes(t) for t in ("5MB", "600kB", "1.5MiB", "2G", "77")] == [
        5_000_000,
        600_000,
        1_572_864,
        2 * 10**9,
        77,
    ]
    for text in ("p75<=1ms", "p99<1ms", "p99<=fast", "", "p99<=0ms", "p99<=1.2.3ms", "p99<=.ms"):
        with pytest.raises(ValueError, match="write it as p99<=1ms"):
            Target.parse(text)
    for text in ("", "5 bananas", "-3MB", "MB", "0", "1.2.3MB", ".", "0.1"):
        with pytest.raises(ValueError, match="write it as 5MB"):
            parse_bytes(text)


@given(st.integers(1, 10**12))
def test_a_plain_number_is_bytes(number: int) -> None:
    assert parse_bytes(str(number)) == number


def test_the_smallest_that_keeps_the_budget_is_chosen() -> None:
    lines: list[str] = []
    model = synthetic.model()
    found = compress(model, synthetic.dataset(), LOOSE, lines.append, measure_costs=equal_costs)
    names = [point.name for point in found.points]
    assert names[0] == ORIGINAL
    assert {"int8", "feed-forward 1/2", "feed-forward 1/2, int8"} < set(names)
    chosen = next(point for point in found.points if point.chosen)
    acceptable = [point for point in found.points if "keeps the budget" in point.reason]
    assert chosen.bytes == min(point.bytes for point in acceptable)
    assert chosen.pareto_optimal
    assert found.points[0].retained.ratio == 1.0
    assert found.model.tables is not None
    card = found.model.provenance.compression
    assert (card["chosen"], card["budget"], card["for"]) == (chosen.name, "ndcg@10>=60%", "this")
    assert card["test"]["ratio"] == pytest.approx(found.test.ratio)
    assert 0.5 < found.test.ratio < 1.5
    json.dumps(card)
    assert any("3 of 5 · latency: " in line for line in lines)
    assert lines[-2:] == [f"4 of 5 · final model: {chosen.name}", "5 of 5 · test rows"]


def test_a_model_below_the_budget_is_rejected_with_its_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search_spaces = sys.modules["tlrec_edge.quantize.search_space"]

    def negate(model: EdgeModel, *_: object) -> EdgeModel:
        return replace(
            model,
            score_weights=replace(
                model.score_weights,
                two_tower=-model.score_weights.two_tower,
                interest=0.0,
                wide=0.0,
            ),
        )

    monkeypatch.setitem(search_spaces.PRUNING_STEPS, "fast", {"negated": negate})
    found = compress(synthetic.model(), synthetic.dataset(), CompressConfig(Budget(share=0.9)))
    negated = next(point for point in found.points if point.name == "negated")
    assert not negated.chosen
    assert "below the budget of 90.0%" in negated.reason
    assert negated.retained.low <= negated.retained.ratio < 0.9
    assert not [point for point in found.points if point.name.startswith("negated,")]
    assert found.model.score_weights.two_tower == synthetic.model().score_weights.two_tower


def test_int8_rows_retain_nearly_all_quality() -> None:
    found = compress(synthetic.model(), synthetic.dataset(), replace(LOOSE, only=()))
    rows = next(point for point in found.points if point.name == "int8 rows")
    assert rows.retained.low <= rows.retained.ratio
    assert rows.retained.ratio == pytest.approx(1.0, abs=0.05)
    assert found.points[0].name == ORIGINAL
    assert not [point for point in found.points if "feed-forward" in point.name]


def test_slower_than_the_original_is_rejected() -> None:
    def slow(models: Sequence[EdgeModel]) -> list[Cost]:
        return [
            Cost(cost.bytes, {"p50": 50.0 if m.tables is None else 50 * SLOWDOWN_TOLERANCE + 1})
            for m, cost in zip(models, equal_costs(models), strict=True)
        ]

    found = compress(synthetic.model(), synthetic.dataset(), LOOSE, measure_costs=slow)
    assert found.model.tables is None
    assert all(
        "times as long as the original" in p.reason
        for p in found.points
        if p.us and p.name != ORIGINAL and "int" in p.name
    )


def test_a_model_whose_bundle_a_gate_refuses_is_rejected() -> None:
    refused = "order gate: 'a' scores differently in another order"

    def gated(models: Sequence[EdgeModel]) -> list[Cost]:
        return [
            Cost(0, error=refused) if m.quantized_wide is not None else cost
            for m, cost in zip(models, equal_costs(models), strict=True)
        ]

    data, model = synthetic.dataset(), synthetic.model()
    found = compress(model, data, LOOSE, measure_costs=gated)
    refused_points = [point for point in found.points if point.reason == refused]
    assert {point.name.rpartition(", ")[2] for point in refused_points} == {"int8", "int4"}
    assert all(
        point.us is None and point.bytes > 0 and not point.pareto_optimal
        for point in refused_points
    )
    assert found.model.provenance.compression["chosen"].endswith(ROWS)
    with pytest.raises(
        BudgetError,
        match=r"no model is acceptable: the original is rejected \(order gate: .* order\); see the",
    ):
        compress(
            model,
            data,
            replace(LOOSE, only=()),
            measure_costs=lambda models: [Cost(0, error=refused)] * len(models),
        )


def test_the_original_may_be_refused_by_a_gate() -> None:
    def gated(models: Sequence[EdgeModel]) -> list[Cost]:
        return [
            Cost(0, error="parity gate: off") if m.tables is None else cost
            for m, cost in zip(models, equal_costs(models), strict=True)
        ]

    found = compress(
        synthetic.model(), synthetic.dataset(), replace(LOOSE, only=()), measure_costs=gated
    )
    assert found.points[0].reason == "parity gate: off"
    assert found.model.tables is not None


def test_targets_and_sizes_are_limits() -> None:
    data, model = synthetic.dataset(), synthetic.model()
    with pytest.raises(BudgetError, match=r"takes 90 us, the target is p99<=10us"):
        compress(model, data, replace(LOOSE, target=Target("p99", 10.0)), measure_costs=equal_costs)
    with pytest.raises(BudgetError, match=r"bytes, more than 1; raise the limit"):
        compress(model, data, replace(LOOSE, max_bytes=1, only=()))
    with pytest.raises(BudgetError, match="needs measured costs"):
        compress(model, data, replace(LOOSE, target=Target("p99", 10.0)))
    with pytest.raises(ValueError, match="measured on this machine only"):
        CompressConfig(target=Target("p99", 10.0), machine="arm64")


def test_steps_beyond_the_time_limit_are_listed_as_not_tried() -> None:
    found = compress(
        synthetic.model(), synthetic.dataset(), replace(LOOSE, minutes=1e-9, only=None)
    )
    not_tried = {point.name for point in found.points if "not tried" in point.reason}
    assert not_tried == set(search_space(synthetic.model())) - {ORIGINAL}
    assert all(
        (point.to_json()["bytes"] is None) == (point.name in not_tried) for point in found.points
    )
    assert found.model.provenance.compression["chosen"] in STORAGE_FORMATS


def test_an_unknown_pruning_step_is_refused() -> None:
    with pytest.raises(
        ModelError,
        match="'ears' is not a pruning step of a fast model: choose from feed-forward 1/2; ",
    ):
        compress(synthetic.model(), synthetic.dataset(), replace(LOOSE, only=("ears",)))


def test_an_interrupted_search_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = synthetic.dataset(), synthetic.model()
    first = compress(model, data, LOOSE, checkpoint=tmp_path / "checkpoint")
    search_spaces = sys.modules["tlrec_edge.quantize.search_space"]

    def never(*_: object) -> EdgeModel:
        raise AssertionError("pruned again")

    monkeypatch.setitem(
        search_spaces.PRUNING_STEPS,
        "fast",
        dict.fromkeys(search_spaces.PRUNING_STEPS["fast"], never),
    )
    again = compress(model, data, LOOSE, checkpoint=tmp_path / "checkpoint")
    assert [point.to_json() for point in again.points] == [
        point.to_json() for point in first.points
    ]
    monkeypatch.undo()
    damaged = tmp_path / "checkpoint" / "feed-forward-1-2"
    (damaged / "arrays.npz").write_bytes(b"cut short")
    repaired = compress(model, data, LOOSE, checkpoint=tmp_path / "checkpoint")
    assert [point.to_json() for point in repaired.points] == [
        point.to_json() for point in first.points
    ]
    with pytest.raises(ModelError, match="is the checkpoint of another model or seed"):
        compress(model, data, replace(LOOSE, seed=1), checkpoint=tmp_path / "checkpoint")


def test_without_a_two_tower_part_nothing_is_pruned() -> None:
    model = synthetic.model()
    linear = replace(model, score_weights=replace(model.score_weights, two_tower=0.0))
    found = compress(linear, synthetic.dataset(), LOOSE)
    assert not [point for point in found.points if "feed-forward" in point.name]
    assert found.model.tables is not None


def test_without_validation_rows_only_int8_rows_are_tried() -> None:
    data = synthetic.no_validation()
    model = adapt(data, ("small",), "scratch", None, replace(synthetic.CONFIG, epochs=1))
    found = compress(model, data, replace(LOOSE, recovery_steps=1))
    assert all("not measured, no validation rows" in point.reason for point in found.points)
    assert [point.name for point in found.points] == [ORIGINAL, ROWS]
    assert np.isnan(found.points[0].retained.ratio)


def test_latency_is_limited_by_the_target_and_ignored_for_another_machine() -> None:
    def slow(models: Sequence[EdgeModel]) -> list[Cost]:
        return [
            Cost(
                served_bytes(m),
                dict.fromkeys(("p50", "p90", "p99"), 50.0 if m.tables is None else 100.0),
            )
            for m in models
        ]

    data, model = synthetic.dataset(), synthetic.model()
    assert compress(model, data, LOOSE, measure_costs=slow).model.tables is None
    assert (
        compress(
            model, data, replace(LOOSE, target=Target("p99", 200.0)), measure_costs=slow
        ).model.tables
        is not None
    )
    other = compress(model, data, replace(LOOSE, machine="arm64"), measure_costs=slow)
    assert other.model.tables is not None
    assert not [point for point in other.points if point.us]


def test_a_compressed_model_and_a_folder_of_other_files_are_refused(tmp_path: Path) -> None:
    data, model = synthetic.dataset(), synthetic.model()
    small = compress(model, data, replace(LOOSE, only=())).model
    with pytest.raises(ModelError, match="compressed already: pass the model it was made from"):
        compress(small, data, LOOSE)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModelError, match="is not the checkpoint of a search"):
        compress(model, data, LOOSE, checkpoint=tmp_path)


def test_a_time_budget_leaves_out_the_steps_that_do_not_fit() -> None:
    now = [0.0]

    def listen(status: Status) -> None:
        now[0] += 30.0 * (status.text == "pruning and recovery")

    progress = Progress(listen, clock=lambda: now[0])
    steps = list(PRUNING_STEPS["fast"])[:3]
    # After two steps, a minute is left: too little for a third one and the final model.
    config = replace(LOOSE, minutes=2.0, only=tuple(steps))
    found = compress(synthetic.model(), synthetic.dataset(), config, progress)
    assert found.model.provenance.compression["left_out"] == steps[2:]
    (point,) = [point for point in found.points if point.name == steps[2]]
    assert point.reason == "not tried: no time within the 2 minutes"
