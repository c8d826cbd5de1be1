"""Store float32 matrices as int8 and scales if that is lossless: a quarter of the bytes."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tlrec_edge.types import Floats

MIN_ENTRIES = 256
"""Entries from which the bytes saved outweigh the two nodes added."""


def compact(proto: onnx.ModelProto) -> int:
    """Replace, in place, every matrix that int8 times one scale per channel restores bit for bit.

    Nothing is rounded here: only weights that ``quantize`` rounded qualify. The product is a Cast
    and a Mul of constants, which onnxruntime folds once, when a session loads: a run is as fast
    as before.

    Args:
        proto: The graph to change.

    Returns:
        The number of matrices replaced.
    """
    graph, replaced = proto.graph, 0
    for tensor in list(graph.initializer):
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.ndim != 2 or value.size < MIN_ENTRIES:
            continue
        for axis in (0, 1):
            scale = _scale(value, axis)
            rows = np.rint(value / scale).astype(np.int8)
            if np.array_equal(rows.astype(np.float32) * scale, value):
                graph.initializer.remove(tensor)
                _put(graph, tensor.name, rows, scale)
                replaced += 1
                break
    return replaced


def _scale(value: Floats, axis: int) -> Floats:
    """Return the scale that rounding to int8 along an axis would have used."""
    largest = np.abs(value).max(axis, keepdims=True)
    return np.where(largest > 0, largest / np.float32(127.0), np.float32(1.0)).astype(np.float32)


def _put(graph: onnx.GraphProto, name: str, rows: NDArray[np.int8], scale: Floats) -> None:
    """Replace the matrix ``name`` by int8 rows, their scale, and nodes that multiply the two."""
    graph.initializer.append(numpy_helper.from_array(rows, f"{name}.int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
    cast = helper.make_node("Cast", [f"{name}.int8"], [f"{name}.float"], to=onnx.TensorProto.FLOAT)
    multiply = helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name])
    # Nodes must come before those that read them.
    graph.node.insert(0, cast)
    graph.node.insert(1, multiply)
