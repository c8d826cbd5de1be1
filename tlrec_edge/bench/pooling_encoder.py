"""An ONNX history encoder with random weights, for synthetic bundles and tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from tlrec_edge.errors import MissingExtraError

OPSET, IR = 18, 9
_NODES = (
    ("MatMul", ("history", "query"), "logit_column"),
    ("Squeeze", ("logit_column", "last"), "logit"),
    ("Add", ("logit", "log_weight"), "weighted"),
    ("Softmax", ("weighted",), "attention"),
    ("Unsqueeze", ("attention", "middle"), "attention_row"),
    ("MatMul", ("attention_row", "history"), "pooled_row"),
    ("Squeeze", ("pooled_row", "middle"), "pooled"),
    ("Gemm", ("pooled", "in", "in_bias"), "hidden"),
    ("Relu", ("hidden",), "active"),
    ("Gemm", ("active", "out", "out_bias"), "change"),
    ("Add", ("pooled", "change"), "user"),
)
"""Operator, inputs and output of each node."""
_ATTRIBUTES: dict[str, Any] = {"Softmax": {"axis": -1}}


def pooling_encoder(dim: int, length: int, seed: int) -> bytes:
    """Return an attention-pooling encoder: one query, one hidden layer, a residual connection.

    The graph has the inputs ``history`` (batch, length, dim) and ``log_weight`` (batch, length),
    and the output ``user`` (batch, dim). Raises MissingExtraError if onnx is not installed.
    """
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        raise MissingExtraError("writing an encoder graph", "build") from error
    rng = np.random.default_rng(seed)
    weights = {
        "query": rng.normal(0, dim**-0.5, (dim, 1)),
        "in": rng.normal(0, dim**-0.5, (dim, dim)),
        "in_bias": rng.normal(0, 0.1, dim),
        "out": rng.normal(0, 0.5 * dim**-0.5, (dim, dim)),
        "out_bias": np.zeros(dim),
    }
    tensors = {name: value.astype(np.float32) for name, value in weights.items()}
    axes = {"last": np.array([-1], np.int64), "middle": np.array([1], np.int64)}
    nodes = [
        helper.make_node(operator, inputs, [output], **_ATTRIBUTES.get(operator, {}))
        for operator, inputs, output in _NODES
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("history", TensorProto.FLOAT, ["batch", length, dim]),
        value("log_weight", TensorProto.FLOAT, ["batch", length]),
    ]
    outputs = [value("user", TensorProto.FLOAT, ["batch", dim])]
    initializers = [
        numpy_helper.from_array(array, name) for name, array in (tensors | axes).items()
    ]
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    checker.check_model(model)
    blob: bytes = model.SerializeToString()
    return blob
