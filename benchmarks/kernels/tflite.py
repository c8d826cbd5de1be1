"""The encoder of a bundle as a TFLite flatbuffer; converters from ONNX need TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema


class _Builder:
    """One subgraph in the making; tensors and operators are numbers, as in the format."""

    def __init__(self) -> None:
        self.graph, self.model = schema.SubGraphT(), schema.ModelT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.model.subgraphs = [self.graph]

    def tensor(self, shape: tuple[int, ...], values: Any = None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape = f"t{len(self.graph.tensors)}".encode(), list(shape)
        if values is not None:
            tensor.type = (
                schema.TensorType.INT32 if values.dtype == np.int32 else schema.TensorType.FLOAT32
            )
            tensor.buffer = len(self.model.buffers)
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def node(self, kind: str, inputs: list[int], shape: tuple[int, ...], **options: Any) -> int:
        """Add an operator, such as "FullyConnected", and return its output."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, _CODES[kind])
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.model.operatorCodes.append(code)
        operator, out = schema.OperatorT(), self.tensor(shape)
        operator.opcodeIndex, operator.inputs, operator.outputs = (
            len(self.model.operatorCodes) - 1,
            inputs,
            [out],
        )
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
        operator.builtinOptions = getattr(schema, f"{kind}OptionsT")()
        for name, value in options.items():
            setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)
        return out

    def dense(self, x: int, weights: Any, bias: Any, rows: int, relu: bool = False) -> int:
        """Add x @ weights + bias, without bias if it is None."""
        width = weights.shape[1]
        inputs = [
            x,
            self.tensor(weights.T.shape, weights.T),
            -1 if bias is None else self.tensor(bias.shape, bias),
        ]
        activation = (
            schema.ActivationFunctionType.RELU if relu else schema.ActivationFunctionType.NONE
        )
        return self.node(
            "FullyConnected", inputs, (rows, width), fusedActivationFunction=activation
        )

    def finish(self, inputs: list[int], output: int) -> bytes:
        self.graph.inputs, self.graph.outputs = inputs, [output]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


_CODES = {
    "FullyConnected": "FULLY_CONNECTED",
    "Reshape": "RESHAPE",
    "Add": "ADD",
    "Softmax": "SOFTMAX",
    "BatchMatMul": "BATCH_MATMUL",
}


def convert(encoder: Path) -> bytes:
    """Return the graph of ``synthetic.pooling_encoder`` for one user.

    Its inputs are the history (L, d) and log_weight (1, L), its output is the user (1, d).
    """
    model = onnx.load(encoder)
    weights = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }
    _, length, d = (axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim)
    build = _Builder()
    history, log_weight = build.tensor((length, d)), build.tensor((1, length))
    logit = build.dense(history, weights["query"], None, length)
    shape = build.tensor((2,), np.array([1, length], np.int32))
    row = build.node("Reshape", [logit, shape], (1, length), newShape=[1, length])
    weighted = build.node("Add", [row, log_weight], (1, length))
    attention = build.node("Softmax", [weighted], (1, length), beta=1.0)
    pooled = build.node("BatchMatMul", [attention, history], (1, d))
    hidden = build.dense(pooled, weights["in"], weights["in_bias"], 1, relu=True)
    change = build.dense(hidden, weights["out"], weights["out_bias"], 1)
    return build.finish([history, log_weight], build.node("Add", [pooled, change], (1, d)))
