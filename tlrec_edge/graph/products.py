"""Rules of matrix products, convolutions and recurrent layers, and their steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tlrec_edge.graph.call import (
    COPY,
    INT64,
    SLOW,
    Call,
    Rule,
    Shape,
    Steps,
    Tensor,
    broadcast,
    require,
)
from tlrec_edge.graph.onnx_file import quoted

_CALL = 200
"""Steps that a small product takes, in addition to its multiplications."""
_LAYER_CALL = 500
"""Steps that a recurrent layer takes for each position and direction, in addition."""


_MAX_WINDOW = 2**30
_PADDING = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def _matmul_shape(a: Shape, b: Shape) -> Shape:
    require(len(a) > 0 and len(b) > 0, "an input has no axes")
    left, right = (1, *a) if len(a) == 1 else a, (*b, 1) if len(b) == 1 else b
    require(left[-1] == right[-2], f"the shapes {a} and {b} of its inputs do not fit")
    out = broadcast(left[:-2], right[:-2]) if len(left) + len(right) > 4 else ()
    return out + left[-2:-1] * (len(a) > 1) + right[-1:] * (len(b) > 1)


def matmul(b: int = 1, result: np.dtype[Any] | int = 0) -> Rule:
    """Return the rule of a product of the inputs 0 and ``b``.

    ``result`` is the dtype, or the input that has it. Other inputs are scales and zero points.
    """

    def rule(call: Call) -> list[Tensor]:
        for index in range(1, 8):
            other = call.optional(index)
            fits = index == b or other is None or other.shape in ((), (1,), call[b].shape[-1:])
            require(fits, f"its input {index} does not fit")
        dtype = call[result].dtype if isinstance(result, int) else result
        return [Tensor(dtype, _matmul_shape(call[0].shape, call[b].shape))]

    return rule


def matmul_steps(call: Call, outputs: Sequence[Tensor]) -> int:
    out = outputs[0]
    return _product_steps(out, call[0].shape[-1]) + _CALL * math.prod(out.shape[:-2])


def _product_steps(out: Tensor, terms: int) -> int:
    """Return the steps of sums of ``terms`` products each; two products take a step."""
    return out.size * (terms // 2 + COPY)


def gemm(call: Call) -> list[Tensor]:
    a, b, c = call[0].shape, call[1].shape, call.optional(2)
    require(len(a) == len(b) == 2, "an input does not have two axes")
    a = a[::-1] if call.flag("transA") else a
    b = b[::-1] if call.flag("transB") else b
    require(a[1] == b[0], f"the shapes {a} and {b} of its inputs do not fit")
    shape = (a[0], b[1])
    require(c is None or broadcast(shape, c.shape) == shape, "its input 2 does not fit")
    return [Tensor(call[0].dtype, shape)]


def gemm_steps(call: Call, outputs: Sequence[Tensor]) -> int:
    return _product_steps(outputs[0], call[0].shape[0 if call.flag("transA") else 1])


def _einsum_sizes(call: Call) -> tuple[dict[str, int], str]:
    """Return the length of each label of an equation, and the labels of the output."""
    equation = call.text("equation", "").replace(" ", "")
    terms, arrow, out = equation.partition("->")
    shapes, sizes = [value.shape for value in call.all], dict[str, int]()
    labels = terms.split(",")
    letters = (terms + out).replace(",", "")
    valid = arrow and letters.isalpha() and letters.isascii() and len(labels) == len(shapes)
    require(bool(valid), f"its equation {quoted(equation)} is not allowed")
    for term, shape in zip(labels, shapes, strict=True):
        require(len(term) == len(shape), f"the term {quoted(term)} does not fit its input")
        for label, size in zip(term, shape, strict=True):
            require(sizes.setdefault(label, size) == size, f"the lengths of '{label}' differ")
    require(set(out) <= set(sizes) and len(set(out)) == len(out), "its output does not fit")
    return sizes, out


def einsum(call: Call) -> list[Tensor]:
    sizes, out = _einsum_sizes(call)
    return [Tensor(call[0].dtype, tuple(sizes[label] for label in out))]


def einsum_steps(call: Call, outputs: Sequence[Tensor]) -> int:
    moved = sum(tensor.size for tensor in (*call.all, *outputs))
    return math.prod(_einsum_sizes(call)[0].values()) + SLOW * moved


def _windows(call: Call, spatial: Shape, kernel: Shape) -> Shape:
    """Return the number of windows along each axis, as Conv and the pools count them."""
    rank = len(spatial)
    strides, dilations = call.ints("strides") or [1] * rank, call.ints("dilations") or [1] * rank
    pads, auto = call.ints("pads") or [0] * 2 * rank, call.text("auto_pad", "NOTSET")
    fits = len(strides) == len(dilations) == len(kernel) == rank and len(pads) == 2 * rank
    fits = fits and auto in _PADDING and not call.flag("ceil_mode")
    require(fits and rank > 0, "its attributes do not fit its input")
    sizes = (*strides, *dilations, *kernel)
    fits = min(sizes) > 0 and min(pads) >= 0 and max(*sizes, *pads) <= _MAX_WINDOW
    require(fits, "its windows do not fit")
    out = []
    for axis, size in enumerate(spatial):
        window, stride = dilations[axis] * (kernel[axis] - 1) + 1, strides[axis]
        before, after = pads[axis], pads[axis + rank]
        require(max(before, after) < max(window, 2), "its pads are larger than its windows")
        if auto.startswith("SAME"):
            out.append(-(-size // stride))
            continue
        room = size - window + (0 if auto == "VALID" else before + after)
        require(room >= 0, "its windows are larger than its input")
        out.append(room // stride + 1)
    return tuple(out)


def conv(weight: int = 1, result: np.dtype[Any] | int = 0) -> Rule:
    def rule(call: Call) -> list[Tensor]:
        x, kernel = call[0].shape, call[weight].shape
        group = call.integer("group", 1)
        fits = len(x) == len(kernel) >= 3 and group > 0 and kernel[0] % max(group, 1) == 0
        require(fits and x[1] == kernel[1] * group, "its kernel does not fit its input")
        given = call.ints("kernel_shape")
        require(given is None or tuple(given) == kernel[2:], "its kernel_shape does not fit")
        for index in range(1, 9):
            other = call.optional(index)
            fits = index == weight or other is None or other.shape in ((), (1,), kernel[:1])
            require(fits, f"its input {index} does not fit")
        dtype = call[result].dtype if isinstance(result, int) else result
        return [Tensor(dtype, (x[0], kernel[0], *_windows(call, x[2:], kernel[2:])))]

    return rule


def conv_steps(weight: int = 1) -> Steps:
    return lambda call, outputs: outputs[0].size * (math.prod(call[weight].shape[1:]) + COPY)


def pool(call: Call) -> list[Tensor]:
    x, kernel = call[0], tuple(call.ints("kernel_shape") or ())
    require(len(x.shape) >= 3, "its input has less than three axes")
    shape = (*x.shape[:2], *_windows(call, x.shape[2:], kernel))
    return [Tensor(x.dtype, shape), Tensor(INT64, shape)]


def pool_steps(call: Call, outputs: Sequence[Tensor]) -> int:
    return COPY * outputs[0].size * math.prod(call.ints("kernel_shape") or ())


def global_pool(call: Call) -> list[Tensor]:
    x = call[0]
    require(len(x.shape) >= 3, "its input has less than three axes")
    return [Tensor(x.dtype, x.shape[:2] + (1,) * (len(x.shape) - 2))]


def recurrent(gates: int) -> Rule:
    """Return the rule of GRU (3 gates), LSTM (4) or RNN (1)."""

    def rule(call: Call) -> list[Tensor]:
        x, hidden = call[0].shape, call.integer("hidden_size", 0)
        directions = 2 if call.text("direction", "forward") == "bidirectional" else 1
        require(len(x) == 3 and hidden > 0, "its input does not have three axes")
        require(not call.flag("layout"), "its layout is not allowed")
        steps, batch, width = x
        state = (directions, batch, hidden)
        rows = gates * hidden
        expected = [
            (directions, rows, width),
            (directions, rows, hidden),
            (directions, 2 * rows),
            (batch,),
            state,
            state,
            (directions, 3 * hidden),
        ]
        for index, shape in enumerate(expected, 1):
            other = call.optional(index)
            fits = index > 2 if other is None else other.shape == shape
            require(fits, f"its input {index} does not have the shape {shape}")
        dtype = call[0].dtype
        every = Tensor(dtype, (steps, directions, batch, hidden))
        return [every, Tensor(dtype, state), Tensor(dtype, state)]

    return rule


def recurrent_steps(call: Call, outputs: Sequence[Tensor]) -> int:
    steps, batch, width = call[0].shape
    directions, rows, hidden = call[2].shape
    products = batch * rows * (width + hidden + 2 * SLOW)
    return steps * directions * (products + _LAYER_CALL)
