"""The graphs: our encoders for the bundles, and a plain export of the same models."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tlrec_edge.export.graphs import encoder_graph
from tlrec_edge.train.model import ENCODERS, ModelConfig

if TYPE_CHECKING:
    from .data import Data, Sizes

OPSET, IR = 18, 9


def encoder(size: str, sizes: Sizes) -> tuple[nn.Module, bytes]:
    """Return an encoder with random weights, and its graph in a bundle."""
    torch.manual_seed(0)
    config = ModelConfig(size=size, width=sizes.dim, history=sizes.length)
    module = ENCODERS[size](config).eval()
    return module, encoder_graph(
        SimpleNamespace(net=SimpleNamespace(config=config, encoder=module))
    )  # type: ignore[arg-type]  # has the attributes that are read


class Plain(nn.Module):
    """The plain export: rows to scores, with the tables inside and every position computed."""

    def __init__(
        self, module: nn.Module, history: np.ndarray, candidate: np.ndarray, log_weight: np.ndarray
    ) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(module)
        for layer in getattr(self.encoder, "layers", ()):
            layer.last = False
        self.history, self.candidate = (
            nn.Embedding.from_pretrained(torch.from_numpy(np.array(table)))
            for table in (history, candidate)
        )
        self.register_buffer("log_weight", torch.from_numpy(np.array(log_weight))[None])

    def forward(self, history: Tensor, candidates: Tensor) -> Tensor:
        user = self.encoder(self.history(history), self.log_weight)  # (1, d)
        scores: Tensor = (self.candidate(candidates) @ user.unsqueeze(2)).squeeze(2)  # (1, n)
        return scores


def write_graphs(data: Data, modules: dict[str, nn.Module], position_bias: np.ndarray) -> None:
    """Write ``plain-fast.onnx`` and ``plain-base.onnx``."""
    many = torch.export.Dim("many", min=2)
    for name, module in modules.items():
        plain = Plain(
            module, data.load("history_vectors"), data.load("vectors"), position_bias
        ).eval()
        length = len(position_bias)
        example = torch.zeros(1, length, dtype=torch.int64), torch.zeros(1, 7, dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's exporter uses its own deprecated functions
            torch.onnx.export(
                plain,
                example,
                str(data.path(f"plain-{name}.onnx")),
                input_names=["history", "candidates"],
                output_names=["scores"],
                dynamic_shapes=({}, {1: many}),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )


def write_floor(path: Path) -> None:
    """Write the smallest graph: one node, one number."""
    _write(
        path,
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": [1]},
        {"y": (TensorProto.FLOAT, [1])},
        {},
    )


def write_scan(path: Path, vectors: np.ndarray) -> None:
    """Write a search: ``query`` (d, 1) and ``k`` (1) to the best scores and rows, (k) each."""
    nodes = [
        helper.make_node("MatMul", ["table", "query"], ["column"]),
        helper.make_node("Squeeze", ["column", "last"], ["all"]),
        helper.make_node("TopK", ["all", "k"], ["scores", "rows"]),
    ]
    outputs = {"scores": (TensorProto.FLOAT, ["k"]), "rows": (TensorProto.INT64, ["k"])}
    tensors = {"table": np.asarray(vectors), "last": np.array([1], np.int64)}
    _write(path, nodes, {"query": [vectors.shape[1], 1]}, outputs, tensors, {"k": [1]})


def _write(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, list[int]],
    outputs: dict[str, tuple[int, list[Any]]],
    tensors: dict[str, np.ndarray],
    integers: dict[str, list[int]] | None = None,
) -> None:
    value = helper.make_tensor_value_info
    given = [value(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    given += [value(name, TensorProto.INT64, shape) for name, shape in (integers or {}).items()]
    out = [value(name, kind, shape) for name, (kind, shape) in outputs.items()]
    stored = [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()]
    graph = helper.make_graph(nodes, path.stem, given, out, stored)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR),
        str(path),
    )
