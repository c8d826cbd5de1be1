"""Find nodes of a graph that are slow, or that make a score depend on the rest of its batch."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto, shape_inference

DYNAMIC = (
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "MatMulIntegerToFloat",
)
IDLE = ("Identity", "Dropout")


def lint(graph: onnx.ModelProto) -> list[str]:
    """Look for nodes that a graph should not hold.

    Args:
        graph: The graph, with or without inferred shapes.

    Returns:
        What is wrong with each node, and what to write instead; empty if nothing is.
    """
    inferred = shape_inference.infer_shapes(graph).graph
    ranks = {tensor.name: len(tensor.dims) for tensor in inferred.initializer}
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        ranks[value.name] = len(value.type.tensor_type.shape.dim)
        types[value.name] = value.type.tensor_type.elem_type
    constants = {tensor.name for tensor in inferred.initializer}
    return list(_findings(inferred, ranks, types, constants))


def _findings(
    graph: onnx.GraphProto, ranks: dict[str, int], types: dict[str, int], constants: set[str]
) -> Iterator[str]:
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        name = f"{node.op_type} '{node.name or node.output[0]}'"
        before = made.get(node.input[0]) if node.input else None
        if node.op_type == "MatMul" and 1 in (ranks.get(operand) for operand in node.input):
            yield f"{name} has an operand of one axis, which is many times slower: reshape it"
        if node.op_type in DYNAMIC:
            yield f"{name} takes its scale from the batch, which couples scores: store the scale"
        if node.op_type in IDLE:
            yield f"{name} does nothing but costs a call: remove it"
        if node.op_type == "Cast" and not set(node.input) <= constants:
            source, target = types.get(node.input[0]), types.get(node.output[0])
            if TensorProto.FLOAT16 in (source, target):
                yield f"{name} converts from or to float16 in every request: compute in float32"
            elif source == target:
                yield f"{name} converts to the type that its input has: remove it"
        if before is not None and _undone(before, node):
            yield f"{name} undoes the Transpose before it: remove both"


def _undone(first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    """Return whether two nodes are transposes, the second of which restores the first's input."""
    if not first.op_type == second.op_type == "Transpose":
        return False
    one, two = _permutation(first), _permutation(second)
    if not one or len(one) != len(two):
        return False
    return [one[axis] for axis in two] == list(range(len(one)))


def _permutation(node: onnx.NodeProto) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
