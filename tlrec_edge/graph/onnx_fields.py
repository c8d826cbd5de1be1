"""The fields that an ONNX file may contain, by message.

An ONNX file is a protobuf message, as onnx.proto defines it. What ``FIELDS`` lacks is refused, for
example subgraphs, local functions and sparse constants. The messages of the table do not contain
themselves, so a file cannot make a reader nest deeply.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

VARINT, BYTES, FIXED32 = 0, 2, 5
"""How protobuf encodes a field."""
INT, FLOAT, TEXT, SPAN, IGNORED = "int", "float", "text", "span", "ignored"
"""Kinds of fields that are not messages. Of a span, the place is kept, and read later."""
EXTERNAL = 1
"""The data_location of a constant whose entries are in another file."""


class Field(NamedTuple):
    """A field of a message."""

    name: str
    kind: str
    """INT, FLOAT, TEXT, SPAN, IGNORED or the name of a message."""
    repeated: bool = False


FIELDS: dict[str, dict[int, Field]] = {
    "file": {
        1: Field("ir_version", INT),
        2: Field("producer_name", IGNORED),
        3: Field("producer_version", IGNORED),
        4: Field("domain", IGNORED),
        5: Field("model_version", INT),
        6: Field("doc_string", IGNORED),
        7: Field("graph", "graph"),
        8: Field("opset_import", "opset", repeated=True),
        14: Field("metadata_props", IGNORED, repeated=True),
    },
    "opset": {1: Field("domain", TEXT), 2: Field("version", INT)},
    "graph": {
        1: Field("node", "node", repeated=True),
        2: Field("name", IGNORED),
        5: Field("initializer", "constant", repeated=True),
        10: Field("doc_string", IGNORED),
        11: Field("input", "value", repeated=True),
        12: Field("output", "value", repeated=True),
        13: Field("value_info", "value", repeated=True),
        16: Field("metadata_props", IGNORED, repeated=True),
    },
    "node": {
        1: Field("input", TEXT, repeated=True),
        2: Field("output", TEXT, repeated=True),
        3: Field("name", TEXT),
        4: Field("op_type", TEXT),
        5: Field("attribute", "attribute", repeated=True),
        6: Field("doc_string", IGNORED),
        7: Field("domain", TEXT),
        8: Field("overload", TEXT),
        9: Field("metadata_props", IGNORED, repeated=True),
    },
    "attribute": {
        1: Field("name", TEXT),
        2: Field("f", FLOAT),
        3: Field("i", INT),
        4: Field("s", TEXT),
        5: Field("t", "constant"),
        7: Field("floats", FLOAT, repeated=True),
        8: Field("ints", INT, repeated=True),
        9: Field("strings", TEXT, repeated=True),
        13: Field("doc_string", IGNORED),
        20: Field("type", INT),
    },
    "constant": {
        1: Field("dims", INT, repeated=True),
        2: Field("data_type", INT),
        4: Field("float_data", SPAN),
        5: Field("int32_data", SPAN),
        7: Field("int64_data", SPAN),
        8: Field("name", TEXT),
        9: Field("raw_data", SPAN),
        10: Field("double_data", SPAN),
        11: Field("uint64_data", SPAN),
        12: Field("doc_string", IGNORED),
        13: Field("external_data", "entry", repeated=True),
        14: Field("data_location", INT),
        16: Field("metadata_props", IGNORED, repeated=True),
    },
    "entry": {1: Field("key", TEXT), 2: Field("value", TEXT)},
    "value": {
        1: Field("name", TEXT),
        2: Field("type", "type"),
        3: Field("doc_string", IGNORED),
        4: Field("metadata_props", IGNORED, repeated=True),
    },
    "type": {1: Field("tensor_type", "tensor_type"), 6: Field("denotation", IGNORED)},
    "tensor_type": {1: Field("elem_type", INT), 2: Field("shape", "shape")},
    "shape": {1: Field("dim", "dim", repeated=True)},
    "dim": {
        1: Field("dim_value", INT),
        2: Field("dim_param", TEXT),
        3: Field("denotation", IGNORED),
    },
}
"""Message -> field number -> field."""
REFUSED = {
    ("file", 20): "training information",
    ("file", 25): "local functions",
    ("graph", 14): "quantization annotations",
    ("graph", 15): "sparse constants",
    ("attribute", 6): "a subgraph",
    ("attribute", 11): "subgraphs",
    ("attribute", 21): "a reference to an attribute of a function",
    ("attribute", 22): "a sparse constant",
    ("attribute", 23): "sparse constants",
    ("constant", 3): "a segment of a constant",
    ("constant", 6): "text constants",
    ("type", 4): "sequences",
    ("type", 5): "maps",
    ("type", 8): "sparse tensors",
    ("type", 9): "optional values",
}
"""What some of the fields are that ``FIELDS`` lacks, for messages."""

DTYPES = {
    code: np.dtype(name)
    for code, name in {
        **{1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8"},
        **{9: "?", 10: "<f2", 11: "<f8", 12: "<u4", 13: "<u8"},
    }.items()
}
"""Element types that a graph may use."""
ATTRIBUTES: dict[int, tuple[str, Any]] = {
    **{1: ("f", 0.0), 2: ("i", 0), 3: ("s", ""), 4: ("t", None)},
    **{6: ("floats", []), 7: ("ints", []), 8: ("strings", [])},
}
"""Type of an attribute -> its field, and the value if the field is missing."""
TYPED_DATA = {
    "float_data": {"float32"},
    "int32_data": {"int32", "int16", "int8", "uint16", "uint8", "bool", "float16"},
    "int64_data": {"int64"},
    "double_data": {"float64"},
    "uint64_data": {"uint32", "uint64"},
}
"""Field of a constant -> the dtypes that its entries may have; those of raw_data may have any."""


def _encodings(field: Field) -> tuple[int, ...]:
    if field.kind not in (INT, FLOAT):
        return (BYTES,)
    encoding = VARINT if field.kind == INT else FIXED32
    return (encoding, BYTES) if field.repeated else (encoding,)  # repeated numbers may be packed


TAGS = {
    message: {
        number << 3 | encoding: field
        for number, field in fields.items()
        for encoding in _encodings(field)
    }
    for message, fields in FIELDS.items()
}
"""Message -> number and encoding of a field, as a file has them -> field."""
