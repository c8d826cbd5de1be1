"""Encoders and item towers written as graphs compute what torch does, in few nodes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from tlrec_edge.export.graphs import encoder_graph, item_tower_graph
from tlrec_edge.export.lint import lint
from tlrec_edge.graph.check import CheckedGraph
from tlrec_edge.quantize.graphs import round_channels
from tlrec_edge.train.model import ENCODERS, PAD, ItemTower, ModelConfig

LENGTH = 12
SHAPES: dict[str, dict[str, Any]] = {
    "fast": {"size": "fast", "width": 16, "feed_forward": 24},
    "fast, one query": {"size": "fast", "width": 10, "queries": 1, "feed_forward": 7},
    "base": {"size": "base", "width": 16, "feed_forward": 24},
    "base, one layer": {"size": "base", "width": 16, "layers": 1, "feed_forward": 24},
    "base, three layers": {
        "size": "base",
        "width": 16,
        "layers": 3,
        "heads": 4,
        "feed_forward": 24,
    },
    "base, one head": {"size": "base", "width": 12, "heads": 1, "head_width": 5, "feed_forward": 9},
    "base, wide heads": {
        "size": "base",
        "width": 12,
        "heads": 3,
        "head_width": 16,
        "feed_forward": 9,
    },
}
NODES = {"fast": 10, "base": 42}
"""Nodes that onnxruntime runs for one request."""


def made(shape: dict[str, Any]) -> Any:
    """Return a model of this shape whose every weight, biases and norms too, is drawn."""
    config = ModelConfig(history=LENGTH, tower_width=64, **shape)
    torch.manual_seed(0)
    encoder = ENCODERS[config.size](config).eval().requires_grad_(False)
    for weight in encoder.parameters():
        weight.copy_(torch.randn_like(weight) * 0.4)
    return SimpleNamespace(net=SimpleNamespace(config=config, encoder=encoder))


def session(blob: bytes, optimized: Path | None = None) -> Any:
    CheckedGraph(blob)  # raises an error unless a bundle may contain the graph
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_graph_gives_what_torch_does(shape: dict[str, Any]) -> None:
    model = made(shape)
    run = session(encoder_graph(model))
    for batch, known in ((1, LENGTH), (1, 0), (3, 5)):
        history, log_weight = torch.randn(batch, LENGTH, shape["width"]), torch.randn(batch, LENGTH)
        history[:, : LENGTH - known] = 0.0
        log_weight[:, : LENGTH - known] = PAD
        (found,) = run.run(["user"], {"history": history.numpy(), "log_weight": log_weight.numpy()})
        wanted = model.net.encoder(history, log_weight).numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("size", NODES)
def test_a_request_runs_few_nodes(size: str, tmp_path: Path) -> None:
    """Sessions run fewer nodes: constants are multiplied at loading, GELU is one node."""
    blob = encoder_graph(made(SHAPES[size]))
    assert not lint(onnx.load_from_string(blob))
    session(blob, tmp_path / "run.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node)
    assert sum(kinds.values()) <= NODES[size]
    assert kinds["Gelu"] == {"fast": 1, "base": 2}[size]
    assert "Erf" not in kinds


@pytest.mark.parametrize("size", NODES)
def test_the_file_holds_the_models_own_matrices(size: str) -> None:
    """So that those in int8 stay so, although what is run are products of them."""
    model = made(SHAPES[size] | {"width": 32, "feed_forward": 48})
    matrices = [
        weight
        for weight in model.net.encoder.parameters()
        if weight.dim() == 2 and weight.numel() >= 256
    ]
    for weight in matrices:
        weight.copy_(round_channels(weight))
    stored = [
        numpy_helper.to_array(t)
        for t in onnx.load_from_string(encoder_graph(model)).graph.initializer
    ]
    assert sum(array.dtype == np.int8 for array in stored) == len(matrices)
    assert not [array for array in stored if array.dtype == np.float32 and array.size >= 256]


CONTENT: dict[str, dict[str, Any]] = {
    "text": {"text": 5},
    "numeric": {"numeric": 3},
    "categories": {"vocabulary": (4, 2)},
    "text and categories": {"text": 5, "vocabulary": (4,)},
    "all": {"text": 5, "numeric": 3, "vocabulary": (4, 2)},
}


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("content", CONTENT.values(), ids=CONTENT)
def test_an_item_tower_gives_what_torch_does(content: dict[str, Any], weighted: bool) -> None:
    config = ModelConfig(width=8, feed_forward=16, tower_width=16, **content)
    torch.manual_seed(0)
    tower = ItemTower(config).eval().requires_grad_(False)
    for weight in tower.parameters():
        weight.copy_(torch.randn_like(weight) * 0.4)
    codes = [torch.randint(0, size + 1, (6,)) for size in config.vocabulary]
    inputs = {
        "text": torch.randn(6, config.text),
        "numeric": torch.randn(6, config.numeric),
        "categories": torch.stack(codes, 1) if codes else torch.zeros(6, 0, dtype=torch.int64),
    }
    model: Any = SimpleNamespace(
        net=SimpleNamespace(config=config, tower=tower, **inputs),
        score_weights=SimpleNamespace(two_tower=0.7),
    )
    blob = item_tower_graph(model, weighted)
    assert blob is not None
    run = session(blob)
    assert {value.name for value in run.get_inputs()} == {
        name for name, value in inputs.items() if value.shape[1]
    }
    history, candidate = (value.numpy() for value in tower(**inputs))
    for rows in (slice(0, 6), slice(2, 3)):
        given = {name: value[rows].numpy() for name, value in inputs.items() if value.shape[1]}
        found = run.run(["history", "candidate"], given)
        np.testing.assert_allclose(found[0], history[rows], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            found[1], candidate[rows] * (0.7 if weighted else 1.0), rtol=1e-5, atol=1e-5
        )
