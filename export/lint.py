"""What makes an exported graph slow or a score depend on its company, found by looking at its nodes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto, shape_inference

DYNAMIC = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat")
IDLE = ("Identity", "Dropout")


def lint(graph: onnx.ModelProto) -> list[str]:
    """Return what is wrong with each node, and what to write instead; nothing where the graph is lean."""
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
            yield f"{name} has an operand of one axis, which onnxruntime runs many times slower: give it a second, of 1"
        if node.op_type in DYNAMIC:
            yield f"{name} takes its scale from the batch, so that a score depends on who else is asked: store scales"
        if node.op_type in IDLE:
            yield f"{name} does nothing and costs a call: leave it out"
        if node.op_type == "Cast" and not set(node.input) <= constants:
            if TensorProto.FLOAT16 in (types.get(node.input[0]), types.get(node.output[0])):
                yield f"{name} converts from or to float16 in every request: keep arithmetic in float32"
            elif types.get(node.input[0]) == types.get(node.output[0]):
                yield f"{name} converts to the type that is there: leave it out"
        if before is not None and node.op_type == before.op_type == "Transpose" and _undone(before, node):
            yield f"{name} undoes the Transpose before it: leave both out"


def _undone(first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    one, two = (next((list(a.ints) for a in node.attribute if a.name == "perm"), []) for node in (first, second))
    return bool(one) and len(one) == len(two) and [one[axis] for axis in two] == list(range(len(one)))
