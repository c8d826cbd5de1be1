"""Rules of the operators that compute entry by entry or along axes: what they return."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.graph.call import (
    FLOAT,
    INT64,
    MAX_KNOWN,
    UINT8,
    Call,
    Rule,
    Tensor,
    broadcast,
    check_axis,
    require,
)
from tlrec_edge.graph.onnx_file import GraphError

_MAX_EXACT = 2**24


def entrywise(
    count: int | None = 1,
    compute: Callable[..., Any] | None = None,
    dtype: np.dtype[Any] | None = None,
) -> Rule:
    """Return the rule of an operator that combines entries at the same place of its inputs.

    It has ``count`` inputs; None is any number. ``compute`` computes small integers. The output has
    the dtype of the inputs, or ``dtype``.
    """

    def rule(call: Call) -> list[Tensor]:
        inputs = call.all
        require(count in (None, len(inputs)), f"it has {len(inputs)} inputs, expected {count}")
        require(len({value.dtype for value in inputs}) == 1, "the types of its inputs differ")
        shape = broadcast(*(value.shape for value in inputs))
        out = dtype or inputs[0].dtype
        values = [value.values for value in inputs]
        if compute is None or math.prod(shape) > MAX_KNOWN or any(v is None for v in values):
            return [Tensor(out, shape)]
        try:
            return [Tensor.of(np.broadcast_to(compute(*values), shape), out)]
        except TypeError:  # numpy's, for example for the difference of two booleans
            raise GraphError(f"it does not take {inputs[0].dtype}") from None

    return rule


def like_first(inputs: int = 1) -> Rule:
    """Return the rule of an operator whose output is like its first input.

    The others, at most ``inputs - 1``, must be scalars or broadcast to the first.
    """

    def rule(call: Call) -> list[Tensor]:
        x = call[0]
        for index in range(1, inputs):
            other = call.optional(index)
            if other is not None:
                require(broadcast(x.shape, other.shape) == x.shape, f"input {index} is too large")
        return [Tensor(x.dtype, x.shape)]

    return rule


def divide(compute: Callable[..., Any] | None) -> Rule:
    """Return the rule of a division.

    Dividing integers by 0, or the smallest by -1, ends the process in onnxruntime.
    """
    compute_rule = entrywise(2, compute)

    def rule(call: Call) -> list[Tensor]:
        if call[0].dtype.kind != "f":
            divisors = call[1].values
            safe = divisors is not None and not np.isin(divisors, (0, -1)).any()
            require(safe, "it divides integers by what may be 0 or -1")
        return compute_rule(call)

    return rule


def largest(*values: NDArray[Any]) -> NDArray[Any]:
    return functools.reduce(np.maximum, values)


def smallest(*values: NDArray[Any]) -> NDArray[Any]:
    return functools.reduce(np.minimum, values)


def total(*values: NDArray[Any]) -> NDArray[Any]:
    return functools.reduce(np.add, values)


def power(call: Call) -> list[Tensor]:
    return [Tensor(call[0].dtype, broadcast(call[0].shape, call[1].shape))]


def modulo(call: Call) -> list[Tensor]:
    return divide(None if call.flag("fmod") else np.mod)(call)


def truncated(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return quotients rounded towards 0."""
    quotients: NDArray[Any] = a // b + ((a % b != 0) & ((a < 0) != (b < 0)))
    return quotients


def cast(call: Call) -> list[Tensor]:
    x, dtype = call[0], call.dtype("to")
    return [Tensor(dtype, x.shape) if x.values is None else Tensor.of(x.values, dtype)]


def identity(call: Call) -> list[Tensor]:
    return [call[0]]


def along_axis(default: int) -> Rule:
    def rule(call: Call) -> list[Tensor]:
        x = call[0]
        call.axis(len(x.shape), default)
        return [Tensor(x.dtype, x.shape)]

    return rule


def running_sum(call: Call) -> list[Tensor]:
    x = call[0]
    check_axis(call.single(1), len(x.shape))
    return [Tensor(x.dtype, x.shape)]


def triangle(call: Call) -> list[Tensor]:
    require(len(call[0].shape) >= 2, "its input has less than two axes")
    return [Tensor(call[0].dtype, call[0].shape)]


def layer_norm(call: Call) -> list[Tensor]:
    x, *others = call.all
    axis = call.axis(len(x.shape), -1)
    for other in others:
        require((other.shape, other.dtype) == (x.shape[axis:], x.dtype), "its scale does not fit")
    means = x.shape[:axis] + (1,) * (len(x.shape) - axis)
    return [Tensor(x.dtype, x.shape), Tensor(FLOAT, means), Tensor(FLOAT, means)]


def batch_norm(call: Call) -> list[Tensor]:
    x = call[0]
    require(not call.flag("training_mode"), "its training_mode is not allowed")
    fits = len(x.shape) > 1 and all(call[index].shape == x.shape[1:2] for index in range(1, 5))
    require(fits, "its inputs do not fit")
    return [Tensor(x.dtype, x.shape)]


def quantize(call: Call) -> list[Tensor]:
    _check_scale(call)
    zero = call.optional(2)
    dtype = zero.dtype if zero else call.dtype("output_dtype", UINT8)
    return [Tensor(dtype, call[0].shape)]


def dequantize(call: Call) -> list[Tensor]:
    _check_scale(call)
    return [Tensor(call[1].dtype, call[0].shape)]


def _check_scale(call: Call) -> None:
    x, scale, zero = call[0], call[1], call.optional(2)
    require(not call.integer("block_size", 0), "its block_size is not allowed")
    if scale.size != 1:
        axis = call.axis(len(x.shape), 1)
        require(scale.shape == x.shape[axis : axis + 1], "its scale does not fit")
    require(zero is None or zero.shape == scale.shape, "its zero point does not fit its scale")


def quantize_dynamically(call: Call) -> list[Tensor]:
    return [Tensor(UINT8, call[0].shape), Tensor(FLOAT, ()), Tensor(UINT8, ())]


def reduce(compute: Callable[..., Any] | None = None) -> Rule:
    def rule(call: Call) -> list[Tensor]:
        x, axes, rank = call[0], call.ints("axes", 1), len(call[0].shape)
        if not axes and call.flag("noop_with_empty_axes"):
            return [Tensor(x.dtype, x.shape)]
        chosen = {check_axis(axis, rank) for axis in axes or range(rank)}
        keep = call.flag("keepdims", True)
        sizes = [1 if axis in chosen else size for axis, size in enumerate(x.shape)]
        shape = tuple(size for axis, size in enumerate(sizes) if keep or axis not in chosen)
        if compute is None or x.values is None:
            return [Tensor(x.dtype, shape)]
        require(x.size > 0, "its input has no entries")
        values = compute(x.values, axis=tuple(chosen), keepdims=keep)
        return [Tensor(x.dtype, shape) if values is None else Tensor.of(values, x.dtype)]

    return rule


def while_exact(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Return a sum or product that is None if it is too large for exact floats.

    onnxruntime's is not exact then, because it converts integers to floats.
    """

    def bounded(values: NDArray[Any], **options: Any) -> Any:
        largest = compute(np.abs(values.astype(np.float64)), **options).max()
        return compute(values, **options) if largest <= _MAX_EXACT else None

    return bounded


def arg_reduce(call: Call) -> list[Tensor]:
    x = call[0]
    axis = call.axis(len(x.shape), 0)
    kept = (1,) if call.flag("keepdims", True) else ()
    return [Tensor(INT64, (*x.shape[:axis], *kept, *x.shape[axis + 1 :]))]


def top_k(call: Call) -> list[Tensor]:
    x, k = call[0], call.single(1)
    axis = call.axis(len(x.shape), -1)
    require(0 < k <= x.shape[axis], f"it takes {k} of {x.shape[axis]} entries")
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return [Tensor(x.dtype, shape), Tensor(INT64, shape)]
