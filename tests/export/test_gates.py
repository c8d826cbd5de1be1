"""Each gate refuses what it is for, says its name, and is waived by it alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from helpers import synthetic
from helpers.networks import fast_encoder, item_tower
from tlrec_edge import Recommender
from tlrec_edge.errors import BudgetError, ExportError
from tlrec_edge.export import ExportConfig, export_bundle
from tlrec_edge.export.compact import compact
from tlrec_edge.export.cost import measure_costs
from tlrec_edge.export.gates import GATES
from tlrec_edge.export.graphs import encoder_graph
from tlrec_edge.export.source import ExportSource
from tlrec_edge.quantize import Budget, CompressConfig, compress, quantize_graphs, quantize_tables
from tlrec_edge.quantize.costs import served_bytes
from tlrec_edge.quantize.graphs import round_channels
from tlrec_edge.quantize.search_space import ROWS, STORAGE_FORMATS
from tlrec_edge.train import EdgeModel
from tlrec_edge.train.model import TwoTower


def packed(**changes: Any) -> EdgeModel:
    model: EdgeModel = quantize_tables(synthetic.model())
    return model.with_provenance(**changes)


def compression(test: dict[str, float], slower: float = 1.0) -> dict[str, Any]:
    points = [
        {"step": "original", "us": {"p50": 50.0}},
        {"step": "int8", "us": {"p50": 50.0 * slower}},
    ]
    return {
        "budget": "ndcg@10>=99.5%",
        "chosen": "int8",
        "points": points,
        "test": test,
        "machine": {"cpu": "here"},
    }


def test_a_sound_bundle_passes_every_gate(tmp_path: Path) -> None:
    model = packed(compression=compression({"ratio": 0.998, "se": 0.002}))
    cards = {"transfer": {"claim": "transfer", "ndcg@10": 0.05, "se": 0.01}}
    export_bundle(model, synthetic.dataset(), tmp_path / "b", cards=cards)
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text("utf-8"))
    assert manifest["gates"] == {"passed": list(GATES), "not_checked": {}, "allowed": {}}
    assert manifest["latency"]["us"] == {"p50": 50.0}
    assert manifest["latency"]["machine"] == {"cpu": "here"}


def gates_of(model: EdgeModel, path: Path, **config: Any) -> dict[str, Any]:
    export_bundle(model, synthetic.dataset(), path, ExportConfig(**config))
    gates: dict[str, Any] = json.loads((path / "manifest.json").read_text("utf-8"))["gates"]
    return gates


def test_a_gate_that_had_nothing_to_look_at_is_not_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = gates_of(synthetic.model(), tmp_path / "b", allow=("batch",))
    assert gates["passed"] == ["parity", "unknown", "graph"]
    assert gates["not_checked"] == {
        "batch": "float32 tables, whose scores depend on the batch in their last bits",
        "order": "float32 tables, whose scores depend on the batch in their last bits",
        "quality": "the model was not compressed",
        "speed": "the model was not compressed",
        "transfer": "no transfer is claimed",
    }
    assert gates["allowed"] == {}
    found = compression({}) | {"target": "p99<=500us"}
    gates = gates_of(packed(compression=found), tmp_path / "b")
    assert gates["passed"] == ["parity", "batch", "order", "unknown", "graph"]
    assert gates["not_checked"]["quality"] == "not measured on the test rows"
    assert gates["not_checked"]["speed"] == "the search checked its latency target"
    none = np.zeros(0, np.int32)
    monkeypatch.setattr(ExportSource, "parity_users", property(lambda self: none))
    gates = gates_of(packed(), tmp_path / "b")
    assert gates["passed"] == ["graph"]
    for name in ("parity", "batch", "order", "unknown"):
        assert gates["not_checked"][name] == "no user has a history"


@pytest.mark.parametrize(
    ("gate", "about", "cards", "says"),
    [
        (
            "quality",
            compression({"ratio": 0.9, "se": 0.01}),
            {},
            r"kept 90.0% \(SE 1.0%\) on the test rows",
        ),
        ("speed", compression({"ratio": 1.0, "se": 0.0}, 1.5), {}, "takes 1.50 times as long"),
        (
            "transfer",
            {},
            {"transfer": {"claim": "transfer", "ndcg@10": 0.01, "se": 0.02}},
            "without a gain of two",
        ),
    ],
)
def test_a_gate_refuses_and_is_waived_by_name(
    tmp_path: Path, gate: str, about: dict[str, Any], cards: dict[str, Any], says: str
) -> None:
    model, data = packed(compression=about), synthetic.dataset()
    with pytest.raises(ExportError, match=f"{gate} gate: .*{says}.*--allow {gate}"):
        export_bundle(model, data, tmp_path / "b", cards=cards)
    assert not list(tmp_path.iterdir())
    other = next(name for name in GATES if name != gate)
    with pytest.raises(ExportError, match=f"{gate} gate"):
        export_bundle(model, data, tmp_path / "b", ExportConfig(allow=(other,)), cards)
    export_bundle(model, data, tmp_path / "b", ExportConfig(allow=(gate,)), cards)
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text("utf-8"))
    assert list(manifest["gates"]["allowed"]) == [gate]
    assert gate not in manifest["gates"]["passed"]


def test_a_score_that_depends_on_its_company_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Recommender.score

    def company(self: Recommender, user: Any, candidates: Any) -> np.ndarray:
        return np.asarray(plain(self, user, candidates)) + np.float32(1e-5 * (len(candidates) == 1))

    monkeypatch.setattr(Recommender, "score", company)
    with pytest.raises(
        ExportError, match=r"batch gate: .* scores differently alone than in a batch"
    ):
        export_bundle(packed(), synthetic.dataset(), tmp_path / "b")


def test_a_score_that_depends_on_its_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Recommender.score

    def place(self: Recommender, user: Any, candidates: Any) -> np.ndarray:
        scores = np.asarray(plain(self, user, candidates)).copy()
        scores[0] += np.float32(1e-5 * (len(scores) > 1))
        return scores

    monkeypatch.setattr(Recommender, "score", place)
    with pytest.raises(ExportError, match=r"(batch|order) gate"):
        export_bundle(packed(), synthetic.dataset(), tmp_path / "b")


def test_a_latency_that_was_asked_for_takes_the_place_of_the_speed_gate(tmp_path: Path) -> None:
    found = compression({"ratio": 1.0, "se": 0.0}, 1.5) | {"target": "p99<=500us"}
    export_bundle(packed(compression=found), synthetic.dataset(), tmp_path / "b")


def test_an_unknown_gate_is_named() -> None:
    with pytest.raises(ValueError, match="unknown gate 'hope'; choose from parity, batch"):
        ExportConfig(allow=("hope",))


@pytest.mark.parametrize("size", ["fast", "base"])
def test_int8_weights_are_stored_as_such_and_give_the_same_floats(
    size: str, tmp_path: Path
) -> None:
    model = synthetic.model("finetune", size)
    rounded = quantize_graphs(quantize_tables(model))
    whole, small = (onnx.load_from_string(encoder_graph(m)) for m in (model, rounded))
    kinds = {
        t.data_type
        for t in small.graph.initializer
        if np.prod(t.dims) >= 256 and not t.name.endswith(".scale")
    }
    assert onnx.TensorProto.INT8 in kinds
    assert len(small.SerializeToString()) < len(whole.SerializeToString())
    assert export_bundle(rounded, synthetic.dataset(), tmp_path / "b").max_error < 1e-4


def test_rounding_is_within_half_a_step_and_read_back_exactly() -> None:
    weight = torch.randn(40, 30) * torch.logspace(-6, 3, 40)[:, None]
    weight[3] = 0.0
    rounded = round_channels(weight)
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((rounded - weight).abs() <= 0.501 * step + 1e-12).all()
    assert torch.equal(round_channels(rounded), rounded)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["b", 30])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["b", 40])],
        [numpy_helper.from_array(rounded.T.contiguous().numpy(), "w")],
    )
    proto = onnx.helper.make_model(graph)
    assert compact(proto) == 1
    parts = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    np.testing.assert_array_equal(
        parts["w.int8"].astype(np.float32) * parts["w.scale"], rounded.T.numpy()
    )
    assert compact(proto) == 0


def test_weights_that_are_no_integers_stay(tmp_path: Path) -> None:
    proto = onnx.load_from_string(encoder_graph(synthetic.model()))
    assert all(
        t.data_type == onnx.TensorProto.FLOAT for t in proto.graph.initializer if len(t.dims) == 2
    )


def test_bundles_are_timed_in_turn() -> None:
    model = synthetic.model()
    costs = measure_costs([model, quantize_tables(model)], synthetic.dataset(), rounds=20)
    assert costs[0].bytes > costs[1].bytes
    for cost in costs:
        assert 0 < cost.us["p50"] <= cost.us["p90"] <= cost.us["p99"]


def fragile(change: Callable[[TwoTower], object]) -> EdgeModel:
    """Return the synthetic dataset's model with its network changed in place."""
    model = synthetic.model()
    net = copy.deepcopy(model.net)
    with torch.no_grad():
        change(net)
    return replace(model, net=net.eval().requires_grad_(False))


def saturating(size: float) -> EdgeModel:
    """Return a model whose users share one huge entry that no candidate has: scores stay."""

    def change(net: TwoTower) -> None:
        fast_encoder(net).feed_forward.down.bias[0] += size
        net.candidate_id.weight[:, 0] = 0.0
        item_tower(net).candidate.weight[0] = 0.0

    return fragile(change)


def outlier_weight(size: float) -> EdgeModel:
    """Return a model with one item-item weight far above its row's others."""
    model = synthetic.model()
    wide = model.wide.copy()
    wide.data[0] *= size
    return replace(model, wide=wide)


def test_an_outlier_row_or_channel_leaves_the_others_their_bits(tmp_path: Path) -> None:
    def change(net: TwoTower) -> None:
        net.candidate_id.weight[0] *= 1e4
        fast_encoder(net).feed_forward.up.weight[0] *= 1e4

    model = fragile(change)
    small = quantize_graphs(quantize_tables(model))
    rest = slice(1, None)
    off = np.abs(small.candidate_vectors[rest] - model.candidate_vectors[rest]).max()
    assert off <= np.abs(model.candidate_vectors[rest]).max() / 127
    parity = export_bundle(small, synthetic.dataset(), tmp_path / "b", ExportConfig(tolerance=1.0))
    assert parity.top10_overlap == 1.0


def test_a_saturating_layer_is_refused_where_it_drowns_the_exact_scores(tmp_path: Path) -> None:
    data, loose = synthetic.dataset(), CompressConfig(Budget(share=0.6), only=())
    with pytest.raises(
        ExportError, match=r"parity gate: rounding user vectors moves scores by .*--allow parity"
    ):
        export_bundle(quantize_tables(saturating(3e3)), data, tmp_path / "b")
    assert not list(tmp_path.iterdir())
    found = compress(
        saturating(3e3), data, loose, measure_costs=partial(measure_costs, dataset=data, rounds=2)
    )
    assert found.model.tables is None
    rows = next(point for point in found.points if point.name == ROWS)
    assert rows.reason.startswith("parity gate: rounding user vectors moves scores by")
    assert rows.us is None
    assert "--allow" not in rows.reason
    export_bundle(saturating(3e3), data, tmp_path / "b")  # float32 tables are not rounded
    assert (
        export_bundle(quantize_tables(saturating(30.0)), data, tmp_path / "c").top10_overlap == 1.0
    )


def test_a_fragile_model_is_compressed_within_its_budget_or_refused() -> None:
    """An outlier row of either table, and an outlier weight."""
    data = synthetic.dataset()
    timed = partial(measure_costs, dataset=data, rounds=2)
    models = [
        fragile(lambda net: net.history_id.weight[0].mul_(1e4)),
        fragile(lambda net: net.candidate_id.weight[0].mul_(100.0)),
        outlier_weight(1e4),
    ]
    for model in models:
        found = compress(model, data, CompressConfig(only=()), measure_costs=timed)
        chosen = next(point for point in found.points if point.chosen)
        assert chosen.retained.low >= 0.995
        assert all(
            point.retained.low >= 0.995 or "budget of 99.5%" in point.reason
            for point in found.points
        )
    with pytest.raises(
        BudgetError, match=r"the original is rejected \(parity gate: the bundle's scores differ"
    ) as refused:
        compress(
            fragile(lambda net: net.candidate_id.weight[0].mul_(1e6)),
            data,
            CompressConfig(only=()),
            measure_costs=timed,
        )
    assert "--allow" not in str(refused.value)
    assert all(
        "gate" in point["why"] or "budget of 99.5%" in point["why"]
        for point in refused.value.points
    )


def test_what_export_would_refuse_is_rejected_in_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model whose scores depend on the batch is rejected in the search, not at export."""
    plain = Recommender.score

    def company(self: Recommender, user: Any, candidates: Any) -> np.ndarray:
        alone = self.deterministic and len(candidates) == 1 and candidates[0].isprintable()
        return np.asarray(plain(self, user, candidates)) + np.float32(1e-5 * alone)

    monkeypatch.setattr(Recommender, "score", company)
    data, loose = synthetic.dataset(), CompressConfig(Budget(share=0.6), only=())
    found = compress(
        synthetic.model(), data, loose, measure_costs=partial(measure_costs, dataset=data, rounds=2)
    )
    assert found.model.tables is None
    assert all(
        p.reason.startswith("batch gate: ") for p in found.points if p.name in STORAGE_FORMATS
    )


def test_bytes_that_are_not_measured_are_near_those_that_are() -> None:
    model = synthetic.model()
    small = quantize_graphs(quantize_tables(model))
    costs = measure_costs([model, small], synthetic.dataset(), rounds=2)
    assert served_bytes(model) - served_bytes(small) == pytest.approx(
        costs[0].bytes - costs[1].bytes, rel=0.1
    )
