"""The two graphs of a bundle: the history encoder, and the item tower for cold items.

Both are written node by node (see ``encoders``): few nodes, and no tracing of the model by torch,
which takes seconds.
"""

from __future__ import annotations

import io

import onnx
from onnx import TensorProto, helper

from tlrec_edge.train.edge_model import EdgeModel

from .compact import compact
from .encoders import Nodes, encoder_nodes, tower_nodes

OPSET, IR_VERSION = 18, 9
"""Pinned: a newer onnx writes a newer IR by default, which older runtimes refuse."""


def encoder_graph(model: EdgeModel) -> bytes:
    """Write the history encoder as a graph: item vectors in, user vectors out, no item table.

    Args:
        model: The model; ``net.config`` gives the history length L and the width d.

    Returns:
        An ONNX file: ``history`` (B, L, d), ``log_weight`` (B, L) -> ``user`` (B, d), for any B.
    """
    length, width = model.net.config.history, model.net.config.width
    nodes = encoder_nodes(model.net.encoder, length, width)
    inputs = [_value("history", length, width), _value("log_weight", length)]
    return _serialize("encoder", nodes, inputs, [_value("user", width)])


def item_tower_graph(model: EdgeModel, weighted: bool = True) -> bytes | None:
    """Write the item tower as a graph: item features in, both vectors of the item out.

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
    columns = {
        "text": (TensorProto.FLOAT, net.text.shape[1]),
        "numeric": (TensorProto.FLOAT, net.numeric.shape[1]),
        "categories": (TensorProto.INT64, net.categories.shape[1]),
    }
    inputs = [_value(name, width, kind=kind) for name, (kind, width) in columns.items() if width]
    outputs = [_value(name, net.config.width) for name in ("history", "candidate")]
    nodes = tower_nodes(net.tower, float(model.score_weights.two_tower) if weighted else 1.0)
    return _serialize("item tower", nodes, inputs, outputs)


def _value(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])


def _serialize(
    name: str,
    nodes: Nodes,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> bytes:
    """Check a graph and return it as a file, with weights that are int8 stored in int8."""
    graph = helper.make_graph(nodes.made, name, inputs, outputs, nodes.constants)
    opset = helper.make_opsetid("", OPSET)
    proto = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    compact(proto)
    onnx.checker.check_model(proto)
    buffer = io.BytesIO()
    onnx.save_model(proto, buffer)
    return buffer.getvalue()
