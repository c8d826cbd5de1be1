"""Rules of the operators that move entries or make constants: what they return."""

from __future__ import annotations

import itertools
import math

import numpy as np

from tlrec_edge.graph.call import (
    BOOL,
    FLOAT,
    INT64,
    MAX_KNOWN,
    Call,
    Shape,
    Tensor,
    broadcast,
    check_axis,
    require,
)
from tlrec_edge.graph.onnx_file import Constant

_TO_THE_END = (2**31 - 1, 2**63 - 1)
_MAX_NUMBER = 2**30
"""Largest number of a range; onnxruntime counts larger ones inexactly."""


def _moved(x: Tensor, shape: Shape) -> list[Tensor]:
    """Return a tensor of the same entries in the same order."""
    return [Tensor(x.dtype, shape, None if x.values is None else x.values.reshape(shape))]


def reshape(call: Call) -> list[Tensor]:
    x, target = call[0], call.ints("shape", 1) or []
    require(not (0 in target and call.flag("allowzero")), "it removes all entries")
    shape = []
    for axis, size in enumerate(target):
        require(size >= -1 and (size != 0 or axis < len(x.shape)), f"it reshapes to {target}")
        shape.append(size if size else x.shape[axis])
    if -1 in shape:
        others = -math.prod(shape)
        require(shape.count(-1) == 1 and others > 0, f"it reshapes {x.shape} to {target}")
        shape[shape.index(-1)] = x.size // others
    require(math.prod(shape) == x.size, f"it reshapes {x.shape} to {target}")
    return _moved(x, tuple(shape))


def flatten(call: Call) -> list[Tensor]:
    x = call[0]
    axis = call.integer("axis", 1)
    axis = axis if axis == len(x.shape) else check_axis(axis, len(x.shape))
    return _moved(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def squeeze(call: Call) -> list[Tensor]:
    x, axes = call[0], call.ints("axes", 1)
    rank = len(x.shape)
    if not axes:
        axes = [axis for axis, size in enumerate(x.shape) if size == 1]
    chosen = {check_axis(axis, rank) for axis in axes}
    require(all(x.shape[axis] == 1 for axis in chosen), f"it removes the axes {axes} of {x.shape}")
    return _moved(x, tuple(size for axis, size in enumerate(x.shape) if axis not in chosen))


def unsqueeze(call: Call) -> list[Tensor]:
    x, axes = call[0], call.ints("axes", 1) or []
    rank = len(x.shape) + len(axes)
    chosen = {check_axis(axis, rank) for axis in axes}
    require(len(chosen) == len(axes), f"it adds the axes {axes}")
    sizes = iter(x.shape)
    return _moved(x, tuple(1 if axis in chosen else next(sizes) for axis in range(rank)))


def transpose(call: Call) -> list[Tensor]:
    x = call[0]
    order = call.ints("perm") or list(range(len(x.shape)))[::-1]
    require(sorted(order) == list(range(len(x.shape))), f"its perm is {order}")
    values = None if x.values is None else x.values.transpose(order)
    return [Tensor(x.dtype, tuple(x.shape[axis] for axis in order), values)]


def concat(call: Call) -> list[Tensor]:
    parts = call.all
    rank = len(parts[0].shape) if parts else 0
    axis = call.axis(rank, None)
    others = {part.shape[:axis] + part.shape[axis + 1 :] for part in parts}
    fits = len(others) == 1 and all(len(part.shape) == rank for part in parts)
    require(fits, "the shapes of its inputs do not fit")
    require(len({part.dtype for part in parts}) == 1, "the types of its inputs differ")
    total = sum(part.shape[axis] for part in parts)
    shape = (*parts[0].shape[:axis], total, *parts[0].shape[axis + 1 :])
    values = [part.values for part in parts if part.values is not None]
    if len(values) == len(parts) and math.prod(shape) <= MAX_KNOWN:
        return [Tensor.of(np.concatenate(values, axis), parts[0].dtype)]
    return [Tensor(parts[0].dtype, shape)]


def split(call: Call) -> list[Tensor]:
    x, sizes, count = call[0], call.ints("split", 1), len(call.outputs)
    axis = call.axis(len(x.shape), 0)
    # Otherwise onnxruntime would write beyond its outputs.
    require(call.integer("num_outputs", count) == count, f"it has {count} outputs")
    if sizes is None:
        part = -(-x.shape[axis] // count)
        sizes = [min(part, x.shape[axis] - part * index) for index in range(count)]
    fits = len(sizes) == count and min(sizes) > 0 and sum(sizes) == x.shape[axis]
    require(fits, f"it splits {x.shape[axis]} entries into {sizes}")
    if x.values is not None:
        ends = list(itertools.accumulate(sizes[:-1]))
        return [Tensor.of(part, x.dtype) for part in np.split(x.values, ends, axis)]
    return [Tensor(x.dtype, (*x.shape[:axis], size, *x.shape[axis + 1 :])) for size in sizes]


def slice_(call: Call) -> list[Tensor]:
    x, rank = call[0], len(call[0].shape)
    starts, ends = call.ints("starts", 1) or [], call.ints("ends", 2) or []
    axes = call.ints("axes", 3)
    axes = list(range(len(starts))) if axes is None else axes
    steps = call.ints("steps", 4) or [1] * len(starts)
    fits = len(starts) == len(ends) == len(axes) == len(steps) and 0 not in steps
    require(fits, "its starts, ends, axes and steps do not fit")
    chosen = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[check_axis(axis, rank)]
        # Backwards, onnxruntime reads these as other places than Python.
        plain = step > 0 or (start >= -size and end not in _TO_THE_END)
        require(plain, f"it slices backwards from {start} to {end}")
        chosen[axis] = slice(start, end, step)
    require(len({axis % rank for axis in axes}) == len(axes), "it has an axis twice")
    if x.values is not None:
        return [Tensor.of(x.values[tuple(chosen)], x.dtype)]
    sizes = zip(x.shape, chosen, strict=True)
    return [Tensor(x.dtype, tuple(len(range(size)[part]) for size, part in sizes))]


def gather(call: Call) -> list[Tensor]:
    x, indices = call[0], call[1]
    axis = call.axis(len(x.shape), 0)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if x.values is None or indices.values is None or math.prod(shape) > MAX_KNOWN:
        return [Tensor(x.dtype, shape)]
    size, found = x.shape[axis], indices.values.astype(np.int64)
    require(bool(((found >= -size) & (found < size)).all()), f"it reads beyond {size} entries")
    return [Tensor.of(np.take(x.values, found % max(size, 1), axis), x.dtype)]


def gather_elements(call: Call) -> list[Tensor]:
    x, indices = call[0], call[1]
    _check_within(x, indices, call.axis(len(x.shape), 0))
    return [Tensor(x.dtype, indices.shape)]


def scatter_elements(call: Call) -> list[Tensor]:
    x, indices, updates = call[0], call[1], call[2]
    _check_within(x, indices, call.axis(len(x.shape), 0))
    require(updates.shape == indices.shape, "its updates do not fit its indices")
    return [Tensor(x.dtype, x.shape)]


def _check_within(x: Tensor, indices: Tensor, axis: int) -> None:
    fits = len(x.shape) == len(indices.shape) and all(
        i == axis or size <= x.shape[i] for i, size in enumerate(indices.shape)
    )
    require(fits, f"its indices {indices.shape} do not fit {x.shape}")


def gather_nd(call: Call) -> list[Tensor]:
    x, indices, batch = call[0], call[1], call.integer("batch_dims", 0)
    rest = _indexed_shape(x, indices, batch)
    return [Tensor(x.dtype, (*indices.shape[:-1], *rest))]


def scatter_nd(call: Call) -> list[Tensor]:
    x, indices, updates = call[0], call[1], call[2]
    expected = (*indices.shape[:-1], *_indexed_shape(x, indices, 0))
    require(updates.shape == expected, f"its updates do not have the shape {expected}")
    return [Tensor(x.dtype, x.shape)]


def _indexed_shape(x: Tensor, indices: Tensor, batch: int) -> Shape:
    """Return the shape of what one index refers to; an index is a row of the last axis."""
    rank = min(len(x.shape), len(indices.shape))
    depth = batch + (indices.shape[-1] if indices.shape else 0)
    fits = 0 <= batch < rank and batch < depth <= len(x.shape)
    require(fits and x.shape[:batch] == indices.shape[:batch], "its indices do not fit")
    return x.shape[depth:]


def expand(call: Call) -> list[Tensor]:
    x, target = call[0], tuple(call.ints("shape", 1) or ())
    require(min(target, default=1) > 0, f"it expands to {target}")
    shape = broadcast(x.shape, target)
    if x.values is None or math.prod(shape) > MAX_KNOWN:
        return [Tensor(x.dtype, shape)]
    return [Tensor.of(np.broadcast_to(x.values, shape), x.dtype)]


def tile(call: Call) -> list[Tensor]:
    x, repeats = call[0], call.ints("repeats", 1) or []
    fits = len(repeats) == len(x.shape) and min(repeats, default=1) > 0
    require(fits, f"it repeats {x.shape} by {repeats}")
    shape = tuple(size * count for size, count in zip(x.shape, repeats, strict=True))
    if x.values is None or math.prod(shape) > MAX_KNOWN:
        return [Tensor(x.dtype, shape)]
    return [Tensor.of(np.tile(x.values, repeats), x.dtype)]


def pad(call: Call) -> list[Tensor]:
    x, rank = call[0], len(call[0].shape)
    pads, mode = call.ints("pads", 1) or [], call.text("mode", "constant")
    axes = call.ints("axes", 3)
    axes = list(range(rank)) if axes is None else [check_axis(axis, rank) for axis in axes]
    fits = len(pads) == 2 * len(axes) and min(pads, default=0) >= 0
    require(fits and len(set(axes)) == len(axes), f"its pads are {pads}")
    require(mode in ("constant", "reflect", "edge"), f"its mode '{mode}' is not allowed")
    shape = list(x.shape)
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        # Beyond the input, onnxruntime 1.20 would read other memory.
        fits = mode != "reflect" or max(before, after) < x.shape[axis]
        require(fits, f"it reflects {pads} of {x.shape}")
        shape[axis] += before + after
    return [Tensor(x.dtype, tuple(shape))]


def shape_of(call: Call) -> list[Tensor]:
    rank = len(call[0].shape)
    start, end = call.integer("start", 0), call.integer("end", rank)
    return [Tensor.of(np.array(call[0].shape[start:end], np.int64), INT64)]


def size_of(call: Call) -> list[Tensor]:
    return [Tensor.of(np.array(call[0].size), INT64)]


def range_(call: Call) -> list[Tensor]:
    start, limit, step = (call.single(index) for index in range(3))
    fits = step != 0 and max(abs(start), abs(limit), abs(step)) <= _MAX_NUMBER
    require(fits, f"it counts from {start} to {limit} in steps of {step}")
    count, dtype = max(0, -((start - limit) // step)), call[0].dtype
    if count > MAX_KNOWN:
        return [Tensor(dtype, (count,))]
    return [Tensor.of(np.array(range(start, limit, step), np.int64), dtype)]


def constant(call: Call) -> list[Tensor]:
    value = call.attribute("value")
    require(len(call.attribute_names) == 1, "it does not have one value")
    if isinstance(value, Constant):
        return [Tensor.of_constant(value)]
    if (ints := call.ints("value_ints")) is not None:
        return [Tensor.of(np.array(ints, np.int64), INT64)]
    if call.attribute("value_int") is not None:
        return [Tensor.of(np.array(call.integer("value_int", 0)), INT64)]
    if isinstance(call.attribute("value_float"), float):
        return [Tensor(FLOAT, ())]
    floats = call.attribute("value_floats")
    require(isinstance(floats, list), "its value is not allowed")
    return [Tensor(FLOAT, (len(floats),))]


def constant_of_shape(call: Call) -> list[Tensor]:
    shape, value = tuple(call.ints("shape", 0) or ()), call.attribute("value")
    require(min(shape, default=1) > 0, f"its shape is {shape}")
    if value is None:
        return [Tensor(FLOAT, shape)]
    fits = isinstance(value, Constant) and math.prod(value.shape) == 1
    require(fits, "its value is not a single number")
    one = Tensor.of_constant(value)
    if one.values is None or math.prod(shape) > MAX_KNOWN:
        return [Tensor(one.dtype, shape)]
    return [Tensor.of(np.full(shape, one.values.ravel()[0]), one.dtype)]


def one_hot(call: Call) -> list[Tensor]:
    indices, values = call[0], call[2]
    depth = call.single(1)
    require(depth > 0 and values.shape == (2,), "its depth or its values do not fit")
    axis = call.axis(len(indices.shape) + 1, -1)
    shape = (*indices.shape[:axis], depth, *indices.shape[axis:])
    return [Tensor(values.dtype, shape)]


def where(call: Call) -> list[Tensor]:
    condition, x, y = call[0], call[1], call[2]
    require(condition.dtype == BOOL and x.dtype == y.dtype, "the types of its inputs do not fit")
    shape = broadcast(condition.shape, x.shape, y.shape)
    values = [part.values for part in (condition, x, y) if part.values is not None]
    if math.prod(shape) > MAX_KNOWN or len(values) < 3:
        return [Tensor(x.dtype, shape)]
    return [Tensor.of(np.where(values[0], values[1], values[2]), x.dtype)]
