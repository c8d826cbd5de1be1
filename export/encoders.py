"""The history encoders and the item tower as graphs, written node by node so that they run fast.

They compute what ``train.model`` does. A node costs about half a microsecond whatever it does, so
there are few: a linear layer is one Gemm over all rows, and GELU has the order of operations that
onnxruntime fuses into one node.

Attention forms no keys, values or transposes: for an attention head with matrices Q, K, V, O
(out, in) the logit of positions i and j is n_i (Q'K) n_j, and position i reads
(sum_j p_ij n_j) V'O'. These are products of constants: the file holds the model's own matrices,
which stay int8 if they are, and a session multiplies them when it loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from tlrec_edge.train.model import BaseEncoder, FastEncoder, FeedForward, ItemTower, SelfAttention

Value = str | float | list[int] | Tensor
"""An input of a node: a constant, or the name of another node's output or of a graph input."""


class Nodes:
    """A graph under construction: a call adds a node and returns the name of its output."""

    def __init__(self) -> None:
        self.made: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.made)}"
        names = [self._name(value) for value in inputs]
        self.made.append(helper.make_node(kind, names, [name], name, **attributes))
        return name

    def _name(self, value: Value) -> str:
        if isinstance(value, str):
            return value
        array: NDArray[Any]
        if isinstance(value, Tensor):
            array = np.ascontiguousarray(value.detach().numpy())
        else:
            array = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def encoder_nodes(encoder: nn.Module, length: int, width: int) -> Nodes:
    """Write an encoder as nodes: ``history`` (B, L, d), ``log_weight`` (B, L) -> ``user`` (B, d).

    Args:
        encoder: One of ``train.model.ENCODERS``.
        length: History length L.
        width: Width d of the vectors.
    """
    add = Nodes()
    WRITERS[type(encoder)](add, encoder, length, width)
    add.made[-1].output[0] = "user"
    return add


def tower_nodes(tower: ItemTower, weight: float) -> Nodes:
    """Write an item tower as nodes: item features -> ``history`` (n, d), ``candidate`` (n, d).

    The inputs are ``text``, ``numeric`` and ``categories``; those it lacks are left out.
    ``candidate`` is multiplied by ``weight``.
    """
    add = Nodes()
    parts = [
        add("Gather", table.weight, add("Gather", "categories", column, axis=1))
        for column, table in enumerate(cast("Iterable[nn.Embedding]", tower.categories))
    ]
    if tower.text is not None:
        parts.append(add("Gemm", "text", tower.text.weight, transB=1))
    if tower.numeric is not None:
        parts.append(add("Gemm", "numeric", tower.numeric.weight, transB=1))
    summed = parts[0]  # (n, hidden width)
    for part in parts[1:]:
        summed = add("Add", summed, part)
    gate = _gelu(add, add("Gemm", summed, tower.hidden.weight, tower.hidden.bias, transB=1))
    hidden = add("Add", summed, gate)
    add("Gemm", hidden, tower.history.weight, transB=1)
    add.made[-1].output[0] = "history"
    add("Mul", add("Gemm", hidden, tower.candidate.weight, transB=1), weight)
    add.made[-1].output[0] = "candidate"
    return add


def _fast(add: Nodes, encoder: FastEncoder, length: int, width: int) -> None:
    """Write attention pooling, with queries (Q, d) so that softmax runs along the last axis."""
    queries = encoder.query.shape[1]
    by_column = add("Transpose", "history", perm=[0, 2, 1])  # (B, d, L)
    logits = add("MatMul", encoder.query.T, by_column)  # (B, Q, L)
    weights = add("Softmax", add("Add", logits, add("Unsqueeze", "log_weight", [1])), axis=-1)
    pooled = add("Reshape", add("MatMul", weights, "history"), [-1, queries * width])  # (B, Q * d)
    part = encoder.feed_forward
    skip = add("Gemm", pooled, encoder.skip.weight, part.down.bias, transB=1)
    add("Gemm", _hidden(add, pooled, part), part.down.weight, skip, transB=1)


def _base(add: Nodes, encoder: BaseEncoder, length: int, width: int) -> None:
    """Write self-attention; x has one row per position, (B * L, d), and one per user at the end."""
    mask = add("Unsqueeze", "log_weight", [1])  # (B, 1, L)
    x = add("Reshape", add("Add", "history", encoder.position), [-1, width])
    for layer in cast("Iterable[SelfAttention]", encoder.layers):
        x = _attention(add, layer, x, mask, length, width)
        part = layer.feed_forward
        hidden = _hidden(add, _norm(add, x, layer.norm_ff), part)
        x = add("Add", x, add("Gemm", hidden, part.down.weight, part.down.bias, transB=1))
    pooled = add("MatMul", add("Softmax", mask, axis=-1), "history")  # (B, 1, d)
    add("Add", x, add("Reshape", pooled, [-1, width]))


def _attention(add: Nodes, layer: SelfAttention, x: str, mask: str, length: int, width: int) -> str:
    """Write attention plus x, for all rows or, in the last layer, for the last position alone.

    With biases, the logit of i and j is n_i (Q'K) n_j + (b_q K) n_j; K has none. The bias of V
    passes through attention unchanged, because softmax sums to one, and joins that of O.
    """
    heads, d = layer.heads, width
    split = [heads, layer.q.weight.shape[0] // heads, d]

    def transposed(matrix: Tensor) -> str:
        # (heads, d, head width)
        return add("Transpose", add("Reshape", matrix, split), perm=[0, 2, 1])

    keys = add("Reshape", layer.k.weight, split)
    query_key = add("MatMul", transposed(layer.q.weight), keys)  # (heads, d, d)
    query_key = add("Mul", query_key, float(layer.scale))
    query_key = add("Reshape", add("Transpose", query_key, perm=[1, 0, 2]), [d, heads * d])
    query_bias = layer.q.bias.reshape(heads, 1, -1) @ layer.k.weight.reshape(split)
    query_bias = layer.scale * query_bias.reshape(-1)
    value_out = add("Reshape", add("Transpose", layer.out.weight, perm=[1, 0]), split)
    value_out = add("Reshape", add("MatMul", transposed(layer.v.weight), value_out), [heads * d, d])
    out_bias = layer.out.bias + layer.out.weight @ layer.v.bias
    normed = _norm(add, x, layer.norm)
    positions = add("Reshape", normed, [-1, length, d])  # (B, L, d)
    queries = length
    if layer.last:
        queries, last = 1, length - 1
        normed = add("Gather", positions, last, axis=1)
        x = add("Gather", add("Reshape", x, [-1, length, d]), last, axis=1)  # (B, d)
    query = add("Reshape", add("Gemm", normed, query_key, query_bias), [-1, queries * heads, d])
    by_column = add("Transpose", positions, perm=[0, 2, 1])  # (B, d, L)
    logits = add("MatMul", query, by_column)  # (B, queries * heads, L)
    weights = add("Softmax", add("Add", logits, mask), axis=-1)
    read = add("Reshape", add("MatMul", weights, positions), [-1, heads * d])
    return add("Add", x, add("Gemm", read, value_out, out_bias))


def _hidden(add: Nodes, x: str, part: FeedForward) -> str:
    return _gelu(add, add("Gemm", x, part.up.weight, part.up.bias, transB=1))


def _gelu(add: Nodes, up: str) -> str:
    """Write GELU as up * (1 + erf(up / sqrt 2)) * 0.5, the order that onnxruntime fuses."""
    gate = add("Add", add("Erf", add("Div", up, 2**0.5)), 1.0)
    return add("Mul", add("Mul", up, gate), 0.5)


def _norm(add: Nodes, x: str, norm: nn.LayerNorm) -> str:
    return add("LayerNormalization", x, norm.weight, norm.bias, axis=-1, epsilon=norm.eps)


WRITERS: dict[type[nn.Module], Callable[..., None]] = {FastEncoder: _fast, BaseEncoder: _base}
