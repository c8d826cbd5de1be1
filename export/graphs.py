"""The two graphs of a bundle: the history encoder, and the item tower for cold items.

Every request runs the encoder, so it is written node by node (see ``encoders``). The tower runs
only when items are added, so torch exports it.
"""

from __future__ import annotations

import io
import logging
import warnings

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from tlrec_edge.train.artifact import EdgeModel
from tlrec_edge.train.model import ItemTower

from .compact import compact
from .encoders import encoder_nodes

OPSET, IR_VERSION = 18, 9
"""Pinned: a newer onnx writes a newer IR by default, which older runtimes refuse."""


def encoder_graph(model: EdgeModel) -> bytes:
    """Write the history encoder as a graph: item vectors in, user vectors out, no item table.

    Args:
        model: The model; ``net.config`` gives the history length L and the width d.

    Returns:
        An ONNX file: ``history`` (B, L, d), ``log_weight`` (B, L) -> ``user`` (B, d), with B free.
    """
    length, width = model.net.config.history, model.net.config.width
    nodes = encoder_nodes(model.net.encoder, length, width)

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    inputs = [value("history", length, width), value("log_weight", length)]
    outputs = [value("user", width)]
    graph = helper.make_graph(nodes.made, "encoder", inputs, outputs, nodes.constants)
    opset = helper.make_opsetid("", OPSET)
    return _serialize(helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION))


def item_tower_graph(model: EdgeModel, weighted: bool = True) -> bytes | None:
    """Export the item tower as a graph: item features in, both vectors of the item out.

    Args:
        model: The model; only a model that reads item features has a tower.
        weighted: Multiply candidate vectors by the weight of the two-tower score, as plain tables
            store them. Other tables keep the weight in the manifest.

    Returns:
        An ONNX file: ``text``, ``numeric`` and ``categories``, each only if the model reads it,
        -> ``history`` (n, d), ``candidate`` (n, d). None if the model has no tower.
    """
    net = model.net
    if net.tower is None:
        return None
    features = {"text": net.text, "numeric": net.numeric, "categories": net.categories}
    read = {name: table for name, table in features.items() if table.shape[1]}
    # Two rows: torch.export would take a batch of one for a constant.
    example = {name: table.new_zeros((2, table.shape[1])) for name, table in read.items()}
    module = _Tower(net.tower, tuple(read), model.mix.deep if weighted else 1.0)
    return _export(module, example)


class _Tower(nn.Module):
    """The item tower with only those inputs that have columns; its candidate side is weighted."""

    def __init__(self, tower: ItemTower, inputs: tuple[str, ...], weight: float) -> None:
        super().__init__()
        self.tower, self.inputs, self.weight = tower, inputs, weight

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        # The parameter's name becomes a name in the graph: renaming it changes the file's bytes.
        features = dict(zip(self.inputs, given, strict=True))
        empty = given[0].new_zeros((given[0].shape[0], 0))
        names = ("text", "numeric", "categories")
        history, candidate = self.tower(*(features.get(name, empty) for name in names))
        return history, candidate * self.weight


def _export(tower: _Tower, example: dict[str, Tensor]) -> bytes:
    batch = torch.export.Dim("batch", min=1)
    shapes = (tuple({0: batch} for _ in example),)  # torch.export sees *given as one tuple
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # torch's exporter warns about its own deprecations; nothing here depends on them.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            tower.eval(),
            tuple(example.values()),
            input_names=list(example),
            output_names=["history", "candidate"],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    proto = program.model_proto  # type: ignore[union-attr]  # None only without dynamo
    proto.ir_version = IR_VERSION
    # The exporter notes source lines and paths of this machine; a bundle must not hold them.
    del proto.metadata_props[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return _serialize(proto)


def _serialize(proto: onnx.ModelProto) -> bytes:
    """Return a checked graph as a file, its int8 weights stored as int8."""
    compact(proto)
    onnx.checker.check_model(proto)
    buffer = io.BytesIO()
    onnx.save_model(proto, buffer)
    return buffer.getvalue()
