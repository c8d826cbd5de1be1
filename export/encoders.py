"""Encoders and item tower as graphs, node by node: what ``train.model`` computes, as onnxruntime runs it fastest.

A node costs about half a microsecond whatever it does, so there are few: a linear layer is one Gemm over all rows, GELU
has the order of operations that onnxruntime fuses into one node, and attention forms no keys, values or transposes: for
a head with matrices Q, K, V, O (out, in) the logit of i and j is n_i (Q'K) n_j, and what i reads (sum_j p_ij n_j) V'O'.
These products are of constants: the file holds the model's own matrices, and a session multiplies them when it loads.
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
"""What a node reads: the output of another or an input of the graph, by name; or a constant."""


class Nodes:
    """A graph in the making: a call adds a node and returns the name of its output."""

    def __init__(self) -> None:
        self.made: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.made)}"
        self.made.append(helper.make_node(kind, [self._name(value) for value in inputs], [name], name, **attributes))
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
    """Return the nodes that make ``user`` (B, d) of ``history`` (B, L, d) and ``log_weight`` (B, L)."""
    add = Nodes()
    WRITERS[type(encoder)](add, encoder, length, width)
    add.made[-1].output[0] = "user"
    return add


def tower_nodes(tower: ItemTower, weight: float) -> Nodes:
    """Return the nodes that make ``history`` and ``candidate`` (n, d) from ``text``, ``numeric`` and ``categories``.

    Inputs that the tower lacks are not read. ``candidate`` is multiplied by ``weight``.
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
    grown = _gelu(add, add("Gemm", summed, tower.hidden.weight, tower.hidden.bias, transB=1))
    hidden = add("Add", summed, grown)
    add("Gemm", hidden, tower.history.weight, transB=1)
    add.made[-1].output[0] = "history"
    add("Mul", add("Gemm", hidden, tower.candidate.weight, transB=1), weight)
    add.made[-1].output[0] = "candidate"
    return add


def _fast(add: Nodes, encoder: FastEncoder, length: int, width: int) -> None:
    """Write attention pooling: queries (Q, d), not (d, Q), so that softmax runs along the last axis."""
    queries = encoder.query.shape[1]
    logits = add("MatMul", encoder.query.T, add("Transpose", "history", perm=[0, 2, 1]))  # (B, Q, L)
    share = add("Softmax", add("Add", logits, add("Unsqueeze", "log_weight", [1])), axis=-1)
    pooled = add("Reshape", add("MatMul", share, "history"), [-1, queries * width])  # (B, Q * d)
    part = encoder.feed_forward
    skip = add("Gemm", pooled, encoder.skip.weight, part.down.bias, transB=1)
    add("Gemm", _hidden(add, pooled, part), part.down.weight, skip, transB=1)


def _base(add: Nodes, encoder: BaseEncoder, length: int, width: int) -> None:
    """Write self-attention; x are the rows of all histories, (B * L, d), and after the last layer one a user."""
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
    """Write attention and the sum with x: of all rows, or of the last position's alone."""
    heads, d = layer.heads, width
    split = [heads, layer.q.weight.shape[0] // heads, d]

    def turned(matrix: Tensor) -> str:
        return add("Transpose", add("Reshape", matrix, split), perm=[0, 2, 1])  # (heads, d, head width)

    keys = add("Reshape", layer.k.weight, split)
    ask = add("Mul", add("MatMul", turned(layer.q.weight), keys), float(layer.scale))  # (heads, d, d)
    ask = add("Reshape", add("Transpose", ask, perm=[1, 0, 2]), [d, heads * d])
    bias = layer.scale * (layer.q.bias.reshape(heads, 1, -1) @ layer.k.weight.reshape(split)).reshape(-1)
    leave = add("Reshape", add("Transpose", layer.out.weight, perm=[1, 0]), split)
    leave = add("Reshape", add("MatMul", turned(layer.v.weight), leave), [heads * d, d])
    normed = _norm(add, x, layer.norm)
    among = add("Reshape", normed, [-1, length, d])  # (B, L, d)
    asking = length
    if layer.last:
        asking, last = 1, length - 1
        normed = add("Gather", among, last, axis=1)
        x = add("Gather", add("Reshape", x, [-1, length, d]), last, axis=1)  # (B, d)
    query = add("Reshape", add("Gemm", normed, ask, bias), [-1, asking * heads, d])
    logits = add("MatMul", query, add("Transpose", among, perm=[0, 2, 1]))  # (B, asking * heads, L)
    read = add("MatMul", add("Softmax", add("Add", logits, mask), axis=-1), among)
    read = add("Reshape", read, [-1, heads * d])
    return add("Add", x, add("Gemm", read, leave, layer.out.bias + layer.out.weight @ layer.v.bias))


def _hidden(add: Nodes, x: str, part: FeedForward) -> str:
    return _gelu(add, add("Gemm", x, part.up.weight, part.up.bias, transB=1))


def _gelu(add: Nodes, up: str) -> str:
    grown = add("Add", add("Erf", add("Div", up, 2**0.5)), 1.0)
    return add("Mul", add("Mul", up, grown), 0.5)


def _norm(add: Nodes, x: str, norm: nn.LayerNorm) -> str:
    return add("LayerNormalization", x, norm.weight, norm.bias, axis=-1, epsilon=norm.eps)


WRITERS: dict[type[nn.Module], Callable[..., None]] = {FastEncoder: _fast, BaseEncoder: _base}
