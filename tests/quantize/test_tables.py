"""Quantized tables and pruned feed-forward parts: rounding errors, sizes and recovered scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers import synthetic
from helpers.networks import fast_encoder
from tlrec_edge.core.rowwise import quantize_rows
from tlrec_edge.data.task import make_tasks
from tlrec_edge.quantize import TableBits, prune_feed_forward, quantize_tables, quantize_wide
from tlrec_edge.quantize.costs import served_bytes
from tlrec_edge.train import EdgeModel
from tlrec_edge.train.quantized import QuantizedTable

finite = st.floats(-1e6, 1e6, width=32)


def scores(model: EdgeModel) -> np.ndarray:
    data = synthetic.dataset()
    task = make_tasks(data, ("small",)).final
    return np.asarray(model.scorer(data, task)(np.unique(task.rows.user)))


def score_std(table: np.ndarray) -> float:
    return float(np.std(table - table.mean(1, keepdims=True)))


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(0, 8)), elements=finite))
def test_the_rounding_error_is_at_most_half_a_step(vectors: np.ndarray) -> None:
    table = QuantizedTable(*quantize_rows(vectors))
    assert (table.rows.dtype, table.rows.shape) == (np.dtype(np.int8), vectors.shape)
    error = np.abs(table.vectors() - vectors)
    assert (error <= table.scale[:, None] * 0.5001 + 1e-30).all()
    assert (np.abs(table.rows.astype(int)) <= 127).all()
    assert (table.scale > 0).all()


def test_each_row_has_its_own_scale() -> None:
    vectors = np.array([[0, 0], [1e-6, -3e-6], [100, 50], [1e-42, 0]], np.float32)
    table = QuantizedTable(*quantize_rows(vectors))
    assert table.rows[:3].tolist() == [[0, 0], [42, -127], [127, 64]]
    assert not table.vectors()[0].any()
    assert np.isfinite(table.vectors()).all()


@pytest.mark.parametrize("size", ["fast", "base"])
def test_int8_tables_change_scores_little(size: str) -> None:
    model = synthetic.model("finetune", size)
    original, quantized = scores(model), scores(quantize_tables(model))
    assert 0 < np.abs(quantized - original).max() < 0.05 * score_std(original)
    assert served_bytes(quantize_tables(model)) < served_bytes(model)
    np.testing.assert_array_equal(scores(quantize_tables(quantize_tables(model))), quantized)


def test_fewer_bits_take_fewer_bytes_and_have_larger_errors() -> None:
    model = synthetic.model()
    original = scores(model)
    quantized = [quantize_tables(model, bits) for bits in (8, 4)]
    errors = [np.abs(scores(small) - original).max() / score_std(original) for small in quantized]
    assert errors == sorted(errors)
    assert errors[1] < 0.2
    sizes = [served_bytes(small) for small in (model, *quantized, quantize_wide(quantized[1]))]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4
    np.testing.assert_array_equal(
        scores(quantize_tables(quantized[1], TableBits(8, 8, 8, 8))), scores(quantized[0])
    )


def test_six_bits_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="taste = 6 bits, expected one of 8, 4"):
        TableBits(taste=6)
    with pytest.raises(ValueError, match="history = 6 bits, expected one of 8, 4"):
        quantize_tables(synthetic.model(), 6)


def test_the_model_scores_with_its_quantized_weights() -> None:
    model = synthetic.model()
    model = replace(
        model,
        target_wide=model.wide * np.float32(0.3),
        score_weights=replace(model.score_weights, wide=1.7, target_wide=0.6),
    )
    small = quantize_wide(model)
    served, quantized = model.served_wide.toarray(), small.served_wide.toarray()
    step = np.abs(served).max(1, keepdims=True) / 127
    assert np.abs(quantized - served).max() > 0
    assert (np.abs(quantized - served) <= step * 0.51).all()
    assert small.quantized_wide is not None
    assert not (small.quantized_wide.entries == 0).any()
    assert 0 < np.abs(scores(small) - scores(model)).max() < 0.02 * score_std(scores(model))
    again = quantize_wide(small)
    np.testing.assert_array_equal(again.served_wide.toarray(), quantized)
    np.testing.assert_array_equal(scores(again), scores(small))


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_quantized_models_can_be_saved_and_loaded(tmp_path: Path, bits: int) -> None:
    small = quantize_tables(synthetic.model(), 4 if bits == 4 else 8)
    small = quantize_wide(synthetic.six_bits(small) if bits == 6 else small)
    small.save(tmp_path / "model")
    loaded = EdgeModel.load(tmp_path / "model")
    assert loaded.tables is not None
    assert small.tables is not None
    assert [(t.bits, t.scale.dtype) for t in vars(loaded.tables).values()] == [
        (t.bits, t.scale.dtype) for t in vars(small.tables).values()
    ]
    np.testing.assert_array_equal(scores(loaded), scores(small))
    assert served_bytes(loaded) == served_bytes(small)


@pytest.mark.parametrize("size", ["fast", "base"])
@pytest.mark.parametrize("keep", [0.25, 0.5, 1.0])
def test_pruning_keeps_a_share_of_the_feed_forward_units(size: str, keep: float) -> None:
    data, model = synthetic.dataset(), synthetic.model("finetune", size)
    steps = 0 if keep == 1.0 else 30 if size == "fast" else 3
    pruned = prune_feed_forward(model, data, make_tasks(data, ("small",)).final, keep, steps)
    assert pruned.net.config.feed_forward == round(keep * model.net.config.feed_forward)
    shapes = [part.up.out_features for part in pruned.net.modules() if hasattr(part, "up")]
    assert set(shapes) == {pruned.net.config.feed_forward}
    if keep == 1.0:
        np.testing.assert_allclose(scores(pruned), scores(model), atol=1e-4)
    assert model.net.config.feed_forward == 2 * synthetic.CONFIG.width
    assert not any(parameter.requires_grad for parameter in pruned.net.parameters())


def test_recovery_brings_the_scores_closer() -> None:
    data, model = synthetic.dataset(), synthetic.model()
    task = make_tasks(data, ("small",)).final
    errors = [
        float(
            np.abs(scores(prune_feed_forward(model, data, task, 0.1, steps)) - scores(model)).mean()
        )
        for steps in (0, 150)
    ]
    assert errors[1] < 0.6 * errors[0]


def test_units_without_effect_are_pruned_first() -> None:
    data, model = synthetic.dataset(), synthetic.model()
    units = fast_encoder(model.net).feed_forward.up.out_features
    dead = torch.arange(units) % 2 == 1
    net = type(model.net)(
        model.net.config, len(model.ids), model.candidates, synthetic.inputs_of(model)
    )
    net.load_state_dict(model.net.state_dict())
    with torch.no_grad():
        fast_encoder(net).feed_forward.down.weight[:, dead] = 0.0
    halved = replace(model, net=net.eval().requires_grad_(False))
    pruned = prune_feed_forward(halved, data, make_tasks(data, ("small",)).final, 0.5, 0)
    np.testing.assert_allclose(scores(pruned), scores(halved), atol=1e-4)
