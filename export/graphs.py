"""The two graphs of a bundle: the history encoder without any table, and the content tower for cold items.

Both are written node by node (``encoders``): few nodes, and no trace of a model by torch, which takes seconds.
"""

from __future__ import annotations

import io

import onnx
from onnx import TensorProto, helper
from tlrec_edge.export.compact import compact
from tlrec_edge.export.encoders import encoder_nodes, tower_nodes

from tlrec_edge.train.artifact import EdgeModel

OPSET, IR_VERSION = 18, 9
"""Pinned: a newer onnx writes a newer IR by default, which older runtimes refuse."""
INPUT_TYPES = {"text": TensorProto.FLOAT, "numeric": TensorProto.FLOAT, "categories": TensorProto.INT64}


def encoder_graph(model: EdgeModel) -> bytes:
    """Export ``history`` (B, L, d), ``log_weight`` (B, L) -> ``user`` (B, d); B is free, L is fixed."""
    length, width = model.net.config.history, model.net.config.width
    nodes = encoder_nodes(model.net.encoder, length, width)
    history, log_weight, user = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in (("history", (length, width)), ("log_weight", (length,)), ("user", (width,)))
    )
    return _model(helper.make_graph(nodes.made, "encoder", [history, log_weight], [user], nodes.constants))


def item_tower_graph(model: EdgeModel, weighted: bool = True) -> bytes | None:
    """Export the content tower: features -> ``history`` (n, d), ``candidate`` (n, d); None without content.

    ``weighted``: the candidate side times the deep part's weight, as candidates are stored in plain tables.
    """
    net = model.net
    if net.tower is None:
        return None
    widths = {"text": net.text.shape[1], "numeric": net.numeric.shape[1], "categories": net.categories.shape[1]}
    inputs = [
        helper.make_tensor_value_info(name, INPUT_TYPES[name], ["batch", width])
        for name, width in widths.items()
        if width
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", net.config.width])
        for name in ("history", "candidate")
    ]
    nodes = tower_nodes(net.tower, float(model.mix.deep) if weighted else 1.0)
    return _model(helper.make_graph(nodes.made, "item tower", inputs, outputs, nodes.constants))


def _model(graph: onnx.GraphProto) -> bytes:
    return _written(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION))


def _written(proto: onnx.ModelProto) -> bytes:
    """Return the file of a graph: weights that are whole numbers times scales as such, checked."""
    compact(proto)
    onnx.checker.check_model(proto)
    buffer = io.BytesIO()
    onnx.save_model(proto, buffer)
    return buffer.getvalue()
