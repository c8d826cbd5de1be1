"""The two graphs of a bundle: the history encoder without any table, and the content tower for cold items.

Every request runs the encoder, so it is written node by node (``encoders``); the tower is what torch exports.
"""

from __future__ import annotations

import io
import logging
import warnings

import onnx
import torch
from onnx import TensorProto, helper
from tlrec_edge.export.compact import compact
from tlrec_edge.export.encoders import encoder_nodes
from torch import Tensor, nn

from tlrec_edge.train.artifact import EdgeModel
from tlrec_edge.train.model import ItemTower

OPSET, IR_VERSION = 18, 9
"""Pinned: a newer onnx writes a newer IR by default, which older runtimes refuse."""


def encoder_graph(model: EdgeModel) -> bytes:
    """Export ``history`` (B, L, d), ``log_weight`` (B, L) -> ``user`` (B, d); B is free, L is fixed."""
    length, width = model.net.config.history, model.net.config.width
    nodes = encoder_nodes(model.net.encoder, length, width)
    history, log_weight, user = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in (("history", (length, width)), ("log_weight", (length,)), ("user", (width,)))
    )
    graph = helper.make_graph(nodes.made, "encoder", [history, log_weight], [user], nodes.constants)
    return _written(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION))


class _Tower(nn.Module):
    """The item tower behind the inputs it really has: those of width 0 are left out of the graph.

    The candidate side comes out times ``weight``, that of the deep part where the bundle's scales hold it.
    """

    def __init__(self, tower: ItemTower, present: tuple[bool, bool, bool], weight: float) -> None:
        super().__init__()
        self.tower, self.present, self.weight = tower, present, weight

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        inputs = iter(given)
        nothing = given[0].new_zeros((given[0].shape[0], 0))
        text, numeric, categories = (next(inputs) if there else nothing for there in self.present)
        history, candidate = self.tower(text, numeric, categories)
        return history, candidate * self.weight


def item_tower_graph(model: EdgeModel, weighted: bool = True) -> bytes | None:
    """Export the content tower: features -> ``history`` (n, d), ``candidate`` (n, d); None without content.

    ``weighted``: the candidate side times the deep part's weight, as candidates are stored in plain tables.
    """
    net = model.net
    if net.tower is None:
        return None
    inputs = {"text": net.text[:2], "numeric": net.numeric[:2], "categories": net.categories[:2]}
    present = tuple(bool(value.shape[1]) for value in inputs.values())
    given = {
        name: torch.zeros(2, value.shape[1], dtype=value.dtype) for name, value in inputs.items() if value.shape[1]
    }
    module = _Tower(net.tower, present, model.mix.deep if weighted else 1.0)  # type: ignore[arg-type]  # three inputs, so three flags
    return _export(module, given)


def _export(tower: _Tower, given: dict[str, Tensor]) -> bytes:
    batch = torch.export.Dim("batch", min=1)
    shapes = (tuple({0: batch} for _ in given),)  # forward takes *args, which torch.export sees as one tuple
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # torch's exporter warns of its own deprecations; nothing here depends on them.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            tower.eval(), tuple(given.values()), input_names=list(given), output_names=["history", "candidate"],
            dynamic_shapes=shapes, opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    proto = program.model_proto  # type: ignore[union-attr]  # None only without dynamo
    proto.ir_version = IR_VERSION
    del proto.metadata_props[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return _written(proto)


def _written(proto: onnx.ModelProto) -> bytes:
    """Return the file of a graph: weights that are whole numbers times scales as such, checked."""
    compact(proto)
    onnx.checker.check_model(proto)
    buffer = io.BytesIO()
    onnx.save_model(proto, buffer)
    return buffer.getvalue()
