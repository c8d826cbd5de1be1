"""Structural pruning and distillation: lossless steps, recovery, and bundles with equal scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from helpers import synthetic
from helpers.networks import item_tower
from tlrec_edge import Recommender
from tlrec_edge.data.task import Task, make_tasks
from tlrec_edge.errors import ModelError
from tlrec_edge.export import export_bundle, item_tower_graph
from tlrec_edge.quantize import (
    distance,
    distil,
    distil_fast,
    prune_feed_forward,
    prune_head_width,
    prune_heads,
    prune_history,
    prune_layers,
    prune_width,
    quantize_tables,
)
from tlrec_edge.quantize.distil import Histories, ScoreLoss, encode
from tlrec_edge.train import EdgeModel, adapt
from tlrec_edge.train.model import ModelConfig

Step = Callable[..., EdgeModel]
CASES: dict[str, tuple[str, Step, dict[str, int | float], dict[str, int | None]]] = {
    "fast width": ("fast", prune_width, {"width": 10}, {"width": 10, "tower_width": 16}),
    "fast history": ("fast", prune_history, {"history": 3}, {"history": 3}),
    "fast feed-forward": ("fast", prune_feed_forward, {"keep": 0.25}, {"feed_forward": 8}),
    "base width": (
        "base",
        prune_width,
        {"width": 10},
        {"width": 10, "tower_width": 16, "head_width": 8},
    ),
    "base history": ("base", prune_history, {"history": 3}, {"history": 3}),
    "base heads": ("base", prune_heads, {"heads": 1}, {"heads": 1, "head_width": 8}),
    "base head width": ("base", prune_head_width, {"head_width": 2}, {"heads": 2, "head_width": 2}),
    "base layers": ("base", prune_layers, {"layers": 1}, {"layers": 1}),
    "base into fast": ("base", distil_fast, {}, {"width": 16}),
}
LOSSLESS: list[tuple[str, Step, dict[str, int]]] = [
    ("fast", prune_width, {"width": 16}),
    ("base", prune_width, {"width": 16}),
    ("base", prune_heads, {"heads": 2}),
    ("base", prune_head_width, {"head_width": 8}),
    ("base", prune_layers, {"layers": 2}),
    ("fast", prune_history, {"history": 50}),
    ("base", prune_history, {"history": 50}),
]
each_case = pytest.mark.parametrize("name", CASES)


def final_task() -> Task:
    return make_tasks(synthetic.dataset(), ("small",)).final


@cache
def pruned(name: str, steps: int = 4, seed: int = 0) -> EdgeModel:
    size, step, kwargs, _ = CASES[name]
    return step(
        synthetic.model("finetune", size),
        synthetic.dataset(),
        final_task(),
        **kwargs,
        steps=steps,
        seed=seed,
    )


def scores(model: EdgeModel) -> np.ndarray:
    return np.asarray(
        model.scorer(synthetic.dataset(), final_task())(
            np.arange(0, synthetic.USERS, 5, dtype=np.int32)
        )
    )


def distance_to_original(model: EdgeModel, name: str) -> float:
    moved: float = distance(
        model,
        synthetic.dataset(),
        final_task(),
        synthetic.model("finetune", CASES[name][0]),
        seed=7,
    )
    return moved


@pytest.mark.parametrize(("size", "step", "kwargs"), LOSSLESS)
def test_pruning_to_the_same_size_is_lossless(
    size: str, step: Step, kwargs: dict[str, int]
) -> None:
    model = synthetic.model("finetune", size)
    same = step(model, synthetic.dataset(), final_task(), **kwargs, steps=0)
    np.testing.assert_allclose(scores(same), scores(model), atol=1e-4)
    if step is prune_width:
        # The vectors are rotated even so.
        assert np.abs(same.history_vectors - model.history_vectors).max() > 0.01


@each_case
def test_a_pruned_model_has_its_shape_and_can_be_saved(name: str, tmp_path: Path) -> None:
    size, _, _, shape = CASES[name]
    before = {
        key: value.clone()
        for key, value in synthetic.model("finetune", size).net.state_dict().items()
    }
    model = pruned(name)
    config = model.net.config
    assert {key: getattr(config, key) for key in shape} == shape
    assert model.history_vectors.shape == (len(model.ids), config.width)
    assert model.candidate_vectors.shape == (model.candidates, config.width)
    assert not any(parameter.requires_grad for parameter in model.net.parameters())
    model.save(tmp_path / "model")
    again = EdgeModel.load(tmp_path / "model")
    assert again.net.config == config
    np.testing.assert_array_equal(scores(again), scores(model))
    for key, value in synthetic.model("finetune", size).net.state_dict().items():
        # The original does not change.
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@each_case
def test_the_seed_decides(name: str) -> None:
    size, step, kwargs, _ = CASES[name]
    model, data = synthetic.model("finetune", size), synthetic.dataset()
    torch.manual_seed(5)
    twice = step(model, data, final_task(), **kwargs, steps=4, seed=0)
    np.testing.assert_array_equal(scores(pruned(name)), scores(twice))
    assert np.abs(scores(pruned(name)) - scores(pruned(name, seed=1))).max() > 0


@each_case
def test_recovery_brings_the_scores_closer(name: str) -> None:
    steps = {"fast": 40, "base": 15}[CASES[name][0]]
    before = distance_to_original(pruned(name, 0), name)
    after = distance_to_original(pruned(name, steps), name)
    assert after < 0.95 * before


@pytest.mark.parametrize(
    ("name", "tables"),
    [*((name, "float32") for name in CASES), ("fast width", "int8"), ("base width", "int8")],
)
def test_the_bundle_agrees(name: str, tables: str, tmp_path: Path) -> None:
    model = quantize_tables(pruned(name)) if tables == "int8" else pruned(name)
    parity = export_bundle(model, synthetic.dataset(), tmp_path / "bundle")
    assert parity.max_error <= 1e-4
    with Recommender.open(tmp_path / "bundle") as rec:
        shape = rec.manifest["model"]
        config = model.net.config
        assert (shape["d"], shape["L"], shape["size"]) == (
            config.width,
            config.history,
            config.size,
        )
        rec.add_items({"new": {"title": "wool no 90 for home", "category": "wool"}})
        assert np.isfinite(rec.score(["b1", "new"], ["new", "s1"])).all()


@pytest.mark.parametrize("name", ["fast width", "base width"])
def test_the_item_tower_is_rotated_with_the_tables(name: str) -> None:
    model = pruned(name)
    original, net = synthetic.model("finetune", CASES[name][0]).net, model.net
    blob = item_tower_graph(model)
    assert blob is not None
    inputs = {"text": net.text, "numeric": net.numeric, "categories": net.categories}
    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    history, candidate = session.run(
        ["history", "candidate"], {k: v.numpy() for k, v in inputs.items()}
    )
    np.testing.assert_allclose(
        history + net.history_id.weight.numpy(), model.history_vectors, atol=1e-5
    )
    content = candidate[: model.candidates] / model.score_weights.two_tower
    np.testing.assert_allclose(
        content + net.candidate_id.weight.numpy(), model.candidate_vectors, atol=1e-4
    )
    # The rotation of the ids, found by least squares, is also that of the content.
    ids = original.history_id.weight.numpy()
    content = item_tower(original)(*inputs.values())[0].numpy()
    rotation = np.linalg.lstsq(ids, net.history_id.weight.numpy(), rcond=None)[0]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(10), atol=1e-3)
    np.testing.assert_allclose(content @ rotation, history, atol=1e-3)


def test_the_loss_equals_that_of_all_centred_scores() -> None:
    teacher, student = synthetic.model(), pruned("fast width")
    batch = Histories(teacher, synthetic.dataset(), final_task(), 0).draw(
        teacher.net.config.history
    )
    with torch.no_grad():
        users = [encode(model, batch).double().numpy() for model in (student, teacher)]
        loss = float(
            ScoreLoss.between(student, teacher)(encode(student, batch), encode(teacher, batch))
        )
    small, large = (
        vectors @ model.candidate_vectors.T
        for vectors, model in zip(users, (student, teacher), strict=True)
    )
    small, large = small - small.mean(1, keepdims=True), large - large.mean(1, keepdims=True)
    assert loss == pytest.approx(((small - large) ** 2).sum() / (large**2).sum(), rel=1e-3)


def test_a_head_without_effect_is_pruned_first() -> None:
    model = synthetic.model("finetune", "base")
    state = {key: value.clone() for key, value in model.net.state_dict().items()}
    state["encoder.layers.0.out.weight"][:, :8] = 0.0
    state["encoder.layers.1.out.weight"][:, 8:] = 0.0
    net = type(model.net)(
        model.net.config, len(model.ids), model.candidates, synthetic.inputs_of(model)
    )
    net.load_state_dict(state)
    halved = replace(model, net=net.eval().requires_grad_(False))
    np.testing.assert_allclose(
        scores(prune_heads(halved, synthetic.dataset(), final_task(), 1, steps=0)),
        scores(halved),
        atol=1e-4,
    )


def test_a_fit_that_does_not_help_is_discarded() -> None:
    model = synthetic.model()
    assert distil(model, synthetic.dataset(), final_task(), model, steps=3) is model


def test_steps_can_be_chained_and_a_pruned_source_adapted() -> None:
    data, model = synthetic.dataset(), synthetic.model("finetune", "base")
    model = prune_width(model, data, final_task(), 6, steps=1)
    for step in (prune_heads, prune_layers, prune_feed_forward, prune_history, distil_fast):
        model = step(model, data, final_task(), steps=1)
    config = model.net.config
    assert (config.size, config.width, config.history, config.feed_forward) == ("fast", 6, 25, 16)
    source = synthetic.source()
    narrow = prune_width(source, data, make_tasks(data, ("big",)).final, 10, steps=0)
    adapted = adapt(data, ("small",), "finetune", narrow, replace(synthetic.CONFIG, epochs=1))
    assert adapted.net.config.width == 10


@pytest.mark.parametrize(
    ("size", "step", "kwargs", "message"),
    [
        ("fast", prune_width, {"width": 1}, r"width must lie in 2\.\.16"),
        ("base", prune_width, {"width": 17}, r"width must lie in 2\.\.16"),
        ("base", prune_heads, {"heads": 3}, r"heads must lie in 1\.\.2"),
        ("base", prune_head_width, {"head_width": 9}, r"head_width must lie in 1\.\.8"),
        ("base", prune_layers, {"layers": 0}, r"layers must lie in 1\.\.2"),
        ("fast", prune_history, {"history": 51}, r"history must lie in 1\.\.50"),
        ("fast", prune_feed_forward, {"keep": 0.0}, r"keep must lie in \(0, 1\]"),
        ("fast", prune_history, {"history": 9, "steps": -1}, "steps must be at least 0"),
        ("fast", prune_heads, {}, "a fast model has no heads"),
        ("fast", prune_layers, {}, "a fast model has no layers"),
        ("fast", distil_fast, {}, "fast already"),
    ],
)
def test_bad_arguments_are_refused(
    size: str, step: Step, kwargs: dict[str, float], message: str
) -> None:
    with pytest.raises((ValueError, ModelError), match=message) as caught:
        step(synthetic.model("finetune", size), synthetic.dataset(), final_task(), **kwargs)
    assert "\n" not in str(caught.value)


def test_quantized_tables_and_models_of_other_items_are_refused() -> None:
    model, data = synthetic.model(), synthetic.dataset()
    with pytest.raises(ModelError, match="quantized already"):
        prune_width(quantize_tables(model), data, final_task(), 8)
    with pytest.raises(ModelError, match="same items"):
        distil(model, data, final_task(), synthetic.source())


def test_configs_without_the_newer_options_are_read() -> None:
    old = {
        k: v for k, v in ModelConfig().to_json().items() if k not in ("tower_width", "head_width")
    }
    assert ModelConfig.from_json(old) == ModelConfig()
    pruned_config = ModelConfig(width=24, tower_width=64, head_width=32, feed_forward=256)
    assert ModelConfig.from_json(pruned_config.to_json()) == pruned_config
    for bad in (
        {"head_width": 0},
        {"tower_width": -1},
        {"width": 24, "tower_width": 32, "feed_forward": 129},
    ):
        with pytest.raises(ValueError, match="must"):
            ModelConfig(**bad)  # type: ignore[arg-type]  # fields of several types
