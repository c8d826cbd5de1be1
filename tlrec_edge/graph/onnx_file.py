"""Read an ONNX file without onnxruntime and without the onnx package."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.graph.onnx_fields import (
    ATTRIBUTES,
    BYTES,
    DTYPES,
    EXTERNAL,
    FIELDS,
    FLOAT,
    IGNORED,
    INT,
    REFUSED,
    SPAN,
    TAGS,
    TEXT,
    TYPED_DATA,
    VARINT,
)

MAX_FIELDS = 100_000
"""Fields of a file, which bounds the time to read it."""
MAX_TEXT = 1_000
"""Bytes of a name or of another text."""
_ORT_FORMAT = b"ORTM"
"""At byte 4, this makes onnxruntime read a file in a format of its own."""
_DOMAINS = ("", "ai.onnx")
"""Two names for the same set of operators."""


class GraphError(ValueError):
    """A file is damaged, or contains what a graph may not contain. The file is not named."""


def quoted(name: str) -> str:
    """Return a name from a file as it may be printed: short, and without control characters."""
    return f"{name!r:.80}"


class Constant(NamedTuple):
    """A constant: an initializer or the attribute of a node."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    values: NDArray[Any] | None
    """The entries, a view of the file; None if they are external."""
    external: Mapping[str, str] | None = None
    """If the entries are in another file: ``location``, and perhaps ``offset`` and ``length``."""


class Node(NamedTuple):
    """A node of a graph."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        name = self.name or next(iter(self.outputs), "")
        return f"node {quoted(name)}, operator {quoted(self.operator)}"


class Input(NamedTuple):
    """An input or output of a graph. Axes without a fixed length are None."""

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | None, ...] | None


class OnnxFile(NamedTuple):
    """What a file contains."""

    opset: int
    nodes: tuple[Node, ...]
    constants: tuple[Constant, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Input, ...]


def read_onnx(blob: bytes) -> OnnxFile:
    """Return what a file contains.

    Raises GraphError if the file is not valid, or has a field that is not in ``FIELDS``.
    """
    if blob[4:8] == _ORT_FORMAT:
        raise GraphError("it is in a format of onnxruntime, not in the ONNX format")
    file = _Reader(blob).message("file", 0, len(blob))
    graph = file.get("graph")
    if graph is None:
        raise GraphError("it is not an ONNX file: it has no graph")
    parts = (tuple(graph.get(key, ())) for key in ("node", "initializer", "input", "output"))
    return OnnxFile(_opset(file.get("opset_import", [])), *parts)


def _opset(imports: list[dict[str, Any]]) -> int:
    for entry in imports:
        if (domain := entry.get("domain", "")) not in _DOMAINS:
            raise GraphError(f"operators of the domain {quoted(domain)} are not allowed")
    if len(imports) != 1:
        raise GraphError(f"it imports {len(imports)} sets of operators, expected one")
    return int(imports[0].get("version", 0))


class _Reader:
    """Reads the messages of one file. Every number and field counts towards ``MAX_FIELDS``."""

    def __init__(self, blob: bytes) -> None:
        self._blob, self._left = blob, MAX_FIELDS
        self._build: dict[str, Callable[[dict[str, Any]], Any]] = {
            "node": _node,
            "attribute": _attribute,
            "constant": self._constant,
            "value": _value,
        }

    def message(self, kind: str, start: int, end: int) -> Any:
        """Return a message as a dict, or as the object that ``_build`` makes of it."""
        fields: dict[str, Any] = {}
        try:
            self._read_fields(fields, kind, start, end)
            build = self._build.get(kind)
            return build(fields) if build else fields
        except GraphError as error:
            if kind not in self._build:
                raise
            name = fields.get("name") or next(iter(fields.get("output", ())), "")
            operator = f", operator {quoted(fields['op_type'])}" if "op_type" in fields else ""
            raise GraphError(f"{kind} {quoted(name)}{operator}: {error}") from error

    def _read_fields(self, fields: dict[str, Any], kind: str, at: int, end: int) -> None:
        tags, blob = TAGS[kind], self._blob
        while at < end:
            self._spend(1)
            # Most numbers have one byte; a call for each would take half of the time.
            tag, at = (blob[at], at + 1) if blob[at] < 128 else self._varint(at, end)
            field = tags.get(tag)
            if field is None:
                raise _refusal(kind, tag)
            name, content, repeated = field
            encoding = tag & 7
            if encoding == BYTES:
                short = at < end and blob[at] < 128
                size, at = (blob[at], at + 1) if short else self._varint(at, end)
                if at + size > end:
                    raise GraphError(f"{name} is longer than the {kind} that contains it")
                value = self._bytes(content, at, at + size)
                at += size
            elif encoding == VARINT:
                unsigned, at = self._varint(at, end)
                value = _signed(unsigned)
            elif at + 4 <= end:
                (value,) = struct.unpack_from("<f", blob, at)
                at += 4
            else:
                raise GraphError(f"{name} is cut short")
            if not repeated:
                if name in fields:
                    raise GraphError(f"{name} occurs twice in a {kind}")
                fields[name] = value
            elif encoding == BYTES and content in (INT, FLOAT):  # packed
                fields.setdefault(name, []).extend(value)
            elif content != IGNORED:
                fields.setdefault(name, []).append(value)

    def _spend(self, fields: int) -> None:
        self._left -= fields
        if self._left < 0:
            raise GraphError(f"it has more than {MAX_FIELDS} fields and numbers")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return an unsigned number and the place after it."""
        value = shift = 0
        while at < end and shift < 70:
            byte = self._blob[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (2**64 - 1), at
            shift += 7
        raise GraphError("it is cut short, or a number in it is longer than ten bytes")

    def _bytes(self, content: str, start: int, end: int) -> Any:
        """Return the content of a field whose length is in the file."""
        if content == TEXT:
            return self._text(start, end)
        if content in (SPAN, IGNORED):
            return start, end
        if content == INT:
            return [_signed(value) for value in self._varints(start, end)]
        if content == FLOAT:
            return self._floats(start, end)
        return self.message(content, start, end)

    def _text(self, start: int, end: int) -> str:
        if end - start > MAX_TEXT:
            raise GraphError(f"it has a name of more than {MAX_TEXT} bytes")
        try:
            return self._blob[start:end].decode("utf-8")
        except UnicodeDecodeError:
            raise GraphError("it has a name that is not UTF-8") from None

    def _varints(self, start: int, end: int) -> list[int]:
        values = []
        while start < end:
            value, start = self._varint(start, end)
            values.append(value)
            self._spend(1)
        return values

    def _floats(self, start: int, end: int) -> list[float]:
        self._spend((end - start) // 4)
        if (end - start) % 4:
            raise GraphError("a list of floats is cut short")
        return list(struct.unpack_from(f"<{(end - start) // 4}f", self._blob, start))

    def _constant(self, fields: dict[str, Any]) -> Constant:
        name, shape = fields.get("name", ""), tuple(fields.get("dims", ()))
        dtype = DTYPES.get(fields.get("data_type", 0))
        if dtype is None:
            raise GraphError(f"its type {fields.get('data_type', 0)} is not allowed")
        if min(shape, default=0) < 0:
            raise GraphError(f"its shape {shape} is negative")
        data = [key for key in ("raw_data", *TYPED_DATA) if _length(fields.get(key))]
        location, entries = fields.get("data_location", 0), fields.get("external_data", ())
        if location == EXTERNAL and not data:
            external = {entry.get("key", ""): entry.get("value", "") for entry in entries}
            return Constant(name, dtype, shape, None, external)
        if location or entries or len(data) > 1:
            raise GraphError("its entries are in several places")
        array = self._entries(data[0], fields[data[0]], dtype) if data else np.zeros(0, dtype)
        if len(array) != math.prod(shape):
            raise GraphError(f"it has {len(array)} entries, which is not its shape {shape}")
        if dtype.kind == "f" and np.isnan(array).any():
            raise GraphError("it has an entry that is NaN")
        return Constant(name, dtype, shape, array.reshape(shape))

    def _entries(self, field: str, span: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the entries of a constant along one axis, if possible without a copy."""
        start, end = span
        if field != "raw_data" and dtype.name not in TYPED_DATA[field]:
            raise GraphError(f"{field} does not contain entries of the type {dtype}")
        if field in ("int32_data", "int64_data", "uint64_data"):
            array = np.array(self._varints(start, end), np.uint64)
            array = array.astype(np.uint16).view(dtype) if dtype.kind == "f" else array
        elif (end - start) % dtype.itemsize:
            raise GraphError(f"{field} is cut short")
        else:
            kept = np.dtype(np.uint8) if dtype.kind == "b" else dtype
            array = np.frombuffer(self._blob, kept, (end - start) // dtype.itemsize, start)
        # onnxruntime computes with another byte as if it were a number.
        if dtype.kind == "b" and (array > 1).any():
            raise GraphError("it has a boolean that is neither 0 nor 1")
        return array.astype(dtype, copy=False)


def _node(fields: dict[str, Any]) -> Node:
    if (domain := fields.get("domain", "")) not in _DOMAINS:
        raise GraphError(f"the domain {quoted(domain)} is not allowed")
    if fields.get("overload"):
        raise GraphError("it calls a local function, which is not allowed")
    attributes = fields.get("attribute", [])
    named = dict(attributes)
    if len(named) < len(attributes):
        raise GraphError("two of its attributes have the same name")
    inputs, outputs = tuple(fields.get("input", ())), tuple(fields.get("output", ()))
    return Node(fields.get("op_type", ""), fields.get("name", ""), inputs, outputs, named)


def _attribute(fields: dict[str, Any]) -> tuple[str, Any]:
    field, default = ATTRIBUTES.get(fields.get("type", 0), ("", None))
    if not field:
        raise GraphError(f"its type {fields.get('type', 0)} is not allowed")
    value = fields.get(field, default)
    if value is None or fields.keys() - {"name", "type", "doc_string", field}:
        raise GraphError("its value does not have its type")
    if isinstance(value, Constant) and value.values is None:
        raise GraphError("it is in another file, which is not allowed")
    return fields.get("name", ""), value


def _value(fields: dict[str, Any]) -> Input:
    name, kind = fields.get("name", ""), fields.get("type")
    if not kind:
        return Input(name, None, None)
    tensor = kind.get("tensor_type", {})
    dtype, shape = DTYPES.get(tensor.get("elem_type")), tensor.get("shape")
    if dtype is None:
        raise GraphError("its type is not allowed")
    if shape is None:
        return Input(name, dtype, None)
    return Input(name, dtype, tuple(axis.get("dim_value") for axis in shape.get("dim", ())))


def _refusal(kind: str, tag: int) -> GraphError:
    number, encoding = tag >> 3, tag & 7
    if number in FIELDS[kind]:
        name = FIELDS[kind][number].name
        return GraphError(f"{name} of a {kind} has the wrong encoding {encoding}")
    if kind == "file" and (kind, number) not in REFUSED:
        return GraphError(f"it is not an ONNX file, or has an unknown field {number}")
    what = REFUSED.get((kind, number), f"an unknown field {number} of a {kind}")
    return GraphError(f"it contains {what}, which is not allowed")


def _length(span: tuple[int, int] | None) -> int:
    return span[1] - span[0] if span else 0


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
