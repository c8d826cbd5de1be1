"""Check that a graph is safe and small before onnxruntime reads it.

onnxruntime runs whatever a file contains: loops, random numbers, divisions that end the process,
products that take hours. So a file may only contain the fields that ``onnx_fields`` lists and the
operators that ``operators`` lists. Before a run, the sizes of all tensors and the steps of all
nodes are worked out from the shapes of the inputs, and must not exceed the limits of this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.graph.call import MAX_RANK, Call, Tensor
from tlrec_edge.graph.onnx_file import GraphError, Node, OnnxFile, quoted, read_onnx
from tlrec_edge.graph.operators import OPERATORS

MAX_FILE_BYTES = 1 << 28
MAX_NODES = 2_000
"""Nodes of a graph, and also its constants."""
MAX_STEPS = 1 << 28
"""Steps of all nodes in one run; a step takes about a nanosecond, or less."""
MAX_TENSOR_BYTES = 1 << 28
"""Bytes of all tensors that the nodes return in one run, together."""
PER_EXTERNAL_ENTRY = 4
"""Further steps and bytes per entry of the bundle's own arrays that a graph reads."""
WIDE = 4
"""How many times as many steps an operator takes if its output has entries of 8 bytes."""
OPSETS = range(11, 29)
"""Versions of the set of operators whose rules ``operators`` has."""

Arrays = Mapping[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int | None, ...]]
"""Shapes by name. None is the number of rows of a run, for example of histories."""


class CheckedGraph:
    """A graph that contains only what is allowed.

    Attributes:
        inputs: The graph's inputs by name.
        external: Constants that are in other files, by name.

    Raises GraphError if the file is damaged or contains anything else.
    """

    def __init__(
        self, blob: bytes, max_nodes: int = MAX_NODES, max_bytes: int = MAX_FILE_BYTES
    ) -> None:
        if len(blob) > max_bytes:
            raise GraphError(f"it has {len(blob)} bytes, more than {max_bytes}")
        file = read_onnx(blob)
        if file.opset not in OPSETS:
            raise GraphError(
                f"it uses version {file.opset} of the operators, "
                f"expected {OPSETS.start} to {OPSETS.stop - 1}"
            )
        for what, parts in (("nodes", file.nodes), ("constants", file.constants)):
            if len(parts) > max_nodes:
                raise GraphError(f"it has {len(parts)} {what}, more than {max_nodes}")
        _check_names(file)
        self._nodes, self._outputs = file.nodes, [output.name for output in file.outputs]
        self.inputs = {value.name: value for value in file.inputs}
        self.external = {c.name: c for c in file.constants if c.external is not None}
        self._constants = {c.name: Tensor.of_constant(c) for c in file.constants}

    def check_inputs(self, expected: Shapes) -> None:
        """Raise GraphError unless the graph takes exactly these inputs."""
        if set(self.inputs) != set(expected):
            raise GraphError(
                f"it has the inputs {sorted(self.inputs)}, expected {sorted(expected)}"
            )
        for name, shape in expected.items():
            axes = self.inputs[name].shape
            if not _fits(axes, shape):
                raise GraphError(f"the input '{name}' has shape {axes}, expected {list(shape)}")

    def check_external(self, arrays: Arrays) -> None:
        """Raise GraphError unless ``arrays`` are the constants that are in other files."""
        for name, constant in self.external.items():
            array, place = arrays.get(name), f"constant {quoted(name)}"
            if array is None or set(constant.external or ()) != {"location"}:
                raise GraphError(f"{place}: it is in another file, which is not allowed")
            if array.dtype != constant.dtype or array.shape != constant.shape:
                raise GraphError(
                    f"{place} is {constant.dtype} {constant.shape}, "
                    f"but its file contains {array.dtype} {array.shape}"
                )

    def check_run(self, rows: int, inputs: Shapes, outputs: Shapes, dtype: str = "<f4") -> None:
        """Check a run with inputs of ``rows`` rows.

        Raises GraphError if it would exceed a limit, or not give ``outputs``.
        """
        with np.errstate(all="ignore"):
            tensors = self.tensors(rows, inputs)
        for name, shape in outputs.items():
            output = tensors.get(name) if name in self._outputs else None
            if output is None or output.dtype != dtype:
                raise GraphError(f"it has no {np.dtype(dtype)} output '{name}'")
            expected = tuple(rows if size is None else size for size in shape)
            if output.shape != expected:
                raise GraphError(
                    f"the output '{name}' has shape {output.shape}, expected {expected}"
                )

    def tensors(self, rows: int, inputs: Shapes) -> dict[str, Tensor]:
        """Return what is known of every tensor of a run, by name.

        Raises GraphError if the run would exceed a limit.
        """
        tensors = dict(self._constants)
        for name, shape in inputs.items():
            expected = tuple(rows if size is None else size for size in shape)
            value = self.inputs[name]
            if value.dtype is None or not _fits(value.shape, expected):
                raise GraphError(f"the input '{name}' has shape {value.shape}, not {expected}")
            _check_shape(expected, value.dtype, f"the input '{name}': ")
            tensors[name] = Tensor(value.dtype, expected)
        budget = _Budget(sum(tensors[name].size for name in self.external))
        for node in self._nodes:
            try:
                outputs = budget.spend(node, [tensors[x] if x else None for x in node.inputs])
            except GraphError as error:
                raise GraphError(f"{node}: {error}") from error
            tensors.update(zip(node.outputs, outputs, strict=False))
        return tensors


class _Budget:
    """The steps and bytes that the nodes of a run may still take."""

    def __init__(self, external_entries: int) -> None:
        more = PER_EXTERNAL_ENTRY * external_entries
        self._steps, self._bytes = MAX_STEPS + more, MAX_TENSOR_BYTES + more

    def spend(self, node: Node, inputs: list[Tensor | None]) -> list[Tensor]:
        """Return the outputs of a node. Raises GraphError if it exceeds the budget."""
        operator, call = OPERATORS[node.operator], Call(node, inputs)
        if not operator.omits and None in inputs:
            raise GraphError("one of its inputs has no name")
        outputs = operator.rule(call)
        if len(node.outputs) > len(outputs):
            raise GraphError(f"it has {len(node.outputs)} outputs, expected {len(outputs)}")
        for output in outputs:
            _check_shape(output.shape, output.dtype)
            self._bytes -= output.size * output.dtype.itemsize
        wide = WIDE if outputs[0].dtype.itemsize > 4 else 1
        self._steps -= wide * operator.steps(call, outputs)
        if self._bytes < 0:
            raise GraphError(f"up to it, the tensors of a run exceed {MAX_TENSOR_BYTES} bytes")
        if self._steps < 0:
            raise GraphError(f"up to it, a run takes more than {MAX_STEPS} steps")
        return outputs


def _check_names(file: OnnxFile) -> None:
    """Raise GraphError unless every name has one origin, which precedes its use."""
    origins: set[str] = set()
    for constant in file.constants:
        _add_origin(origins, constant.name)
        _check_shape(constant.shape, constant.dtype, f"constant {quoted(constant.name)}: ")
    for value in file.inputs:
        _add_origin(origins, value.name)
    produced: set[str] = set()
    for node in file.nodes:
        if node.operator not in OPERATORS:
            raise GraphError(f"{node}: the operator is not allowed")
        for name in node.inputs:
            if name and name not in origins:
                raise GraphError(f"{node}: its input {quoted(name)} has no origin before it")
        if not any(node.outputs):
            raise GraphError(f"{node}: it has no output")
        for name in filter(None, node.outputs):
            _add_origin(origins, name)
            produced.add(name)
    for value in file.outputs:
        if value.name not in produced:
            raise GraphError(f"no node returns the output {quoted(value.name)}")


def _add_origin(origins: set[str], name: str) -> None:
    if not name or name in origins:
        raise GraphError(f"the name {quoted(name)} is empty, or has two origins")
    origins.add(name)


def _check_shape(shape: tuple[int, ...], dtype: np.dtype[Any], place: str = "") -> None:
    """Raise GraphError if a tensor has many axes, or is empty and not a list of integers."""
    if len(shape) > MAX_RANK:
        raise GraphError(f"{place}a tensor has {len(shape)} axes, more than {MAX_RANK}")
    if 0 in shape and (len(shape) > 1 or dtype.kind == "f"):
        raise GraphError(f"{place}a tensor of shape {shape} has no entries")


def _fits(shape: tuple[int | None, ...] | None, expected: Iterable[int | None]) -> bool:
    """Return whether a graph takes arrays of a shape; its free axes have no length."""
    expected = tuple(expected)
    return (
        shape is not None
        and len(shape) == len(expected)
        and all(
            size is None or axis is None or axis == size
            for axis, size in zip(shape, expected, strict=True)
        )
    )
