"""A node of a graph with what is known of its inputs before the graph runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.graph.onnx_fields import DTYPES
from tlrec_edge.graph.onnx_file import Constant, GraphError, Node

MAX_RANK = 8
MAX_KNOWN = 1024
"""Integers of which a node may be computed before the graph runs."""
COPY, SLOW, SORT = 4, 25, 200
"""Steps per entry of simple arithmetic or a move in order, of functions such as Pow, of sorting."""
BOOL, INT64, INT32, UINT8, FLOAT = map(np.dtype, ("?", "<i8", "<i4", "u1", "<f4"))

Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """What is known of a tensor before a graph runs."""

    dtype: np.dtype[Any]
    shape: Shape
    values: NDArray[Any] | None = None
    """The entries if they are few integers that do not depend on the graph's inputs."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @classmethod
    def of(cls, array: Any, dtype: np.dtype[Any]) -> Tensor:
        """Return the tensor of an array, as ``dtype``; its values are dropped if they are many."""
        array = np.asarray(array).astype(dtype)
        return cls(dtype, array.shape, _few_integers(array))

    @classmethod
    def of_constant(cls, constant: Constant) -> Tensor:
        return cls(constant.dtype, constant.shape, _few_integers(constant.values))


class Call:
    """A node with what is known of its inputs. Its methods raise GraphError if they don't fit."""

    def __init__(self, node: Node, inputs: Sequence[Tensor | None]) -> None:
        self._attributes, self.outputs, self._inputs = node.attributes, node.outputs, inputs

    def __getitem__(self, index: int) -> Tensor:
        value = self.optional(index)
        if value is None:
            raise GraphError(f"its input {index} is missing")
        return value

    def optional(self, index: int) -> Tensor | None:
        return self._inputs[index] if index < len(self._inputs) else None

    @property
    def all(self) -> list[Tensor]:
        """All inputs, of which there must be one or more."""
        return [self[index] for index in range(max(1, len(self._inputs)))]

    def known(self, index: int) -> NDArray[Any]:
        """Return the integers of an input that decides about a shape."""
        values = self[index].values
        if values is None:
            raise GraphError(f"its input {index} decides about a shape, but is not a constant")
        return values

    def single(self, index: int) -> int:
        """Return the only integer of an input that decides about a shape."""
        values = self.known(index).ravel()
        if len(values) != 1:
            raise GraphError(f"its input {index} has {len(values)} entries, expected one")
        return int(values[0])

    def ints(self, name: str, index: int | None = None) -> list[int] | None:
        """Return integers from an attribute, or else from an input; None if it has neither."""
        if name in self._attributes:
            value = self._attributes[name]
            if not isinstance(value, list) or not all(type(entry) is int for entry in value):
                raise GraphError(f"its attribute {name} is not a list of integers")
            return value
        if index is None or self.optional(index) is None:
            return None
        return [int(value) for value in self.known(index).ravel()]

    def integer(self, name: str, default: int) -> int:
        value = self._attributes.get(name, default)
        if type(value) is not int:
            raise GraphError(f"its attribute {name} is not an integer")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.integer(name, int(default))
        if value not in (0, 1):
            raise GraphError(f"its attribute {name} is {value}, expected 0 or 1")
        return bool(value)

    def text(self, name: str, default: str) -> str:
        value = self._attributes.get(name, default)
        if not isinstance(value, str):
            raise GraphError(f"its attribute {name} is not a text")
        return value

    def attribute(self, name: str) -> Any:
        return self._attributes.get(name)

    @property
    def attribute_names(self) -> set[str]:
        return set(self._attributes)

    def dtype(self, name: str, default: np.dtype[Any] | None = None) -> np.dtype[Any]:
        code = self.integer(name, 0)
        dtype = DTYPES.get(code) if code else default
        if dtype is None:
            raise GraphError(f"its attribute {name} is not a type that is allowed")
        return dtype

    def axis(self, rank: int, default: int | None, name: str = "axis") -> int:
        if default is None and name not in self._attributes:
            raise GraphError(f"it has no attribute {name}")
        return check_axis(self.integer(name, default or 0), rank)


Rule = Callable[[Call], list[Tensor]]
"""Returns the outputs of a node. Raises GraphError if its inputs do not fit."""
Steps = Callable[[Call, Sequence[Tensor]], int]
"""Returns the number of steps of a node; a step takes about a nanosecond or less."""


def check_axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise GraphError(f"its axis {axis} is not one of {rank}")
    return axis % rank


def broadcast(*shapes: Shape) -> Shape:
    rank, out = max(map(len, shapes)), []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            raise GraphError(f"the shapes {', '.join(map(str, shapes))} of its inputs do not fit")
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def _few_integers(values: NDArray[Any] | None) -> NDArray[Any] | None:
    is_known = values is not None and values.dtype.kind != "f" and values.size <= MAX_KNOWN
    return values if is_known else None


def require(fits: bool, problem: str) -> None:
    if not fits:
        raise GraphError(problem)
