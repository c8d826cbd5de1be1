"""Graphs that a bundle may not contain: they hang, crash, read other files or are damaged.

Each takes the inputs of a history encoder, ``history`` (batch, 6, 8) and ``log_weight`` (batch, 6),
and most return ``user`` (batch, 8), so that nothing but what they contain is wrong with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tlrec_edge.bench.pooling_encoder import pooling_encoder

Nodes = Sequence[onnx.NodeProto]
LENGTH, WIDTH = 6, 8
node = helper.make_node
info = helper.make_tensor_value_info
GRAPHS: dict[str, tuple[Callable[[], bytes], str]] = {}
"""Name -> what makes the file, and a pattern of the message with which it is refused."""


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def model(nodes: Nodes, opset: int = 18, **constants: Any) -> onnx.ModelProto:
    """Return an encoder of nodes that compute ``y`` (batch, 6, 8) from ``x``, both float32."""
    first = [
        node("Unsqueeze", ["log_weight", "axis_2"], ["weight"]),
        node("Add", ["history", "weight"], ["x"]),
    ]
    last = [node("ReduceMax", ["y", "axis_1"], ["user"], keepdims=0)]
    arrays = {"axis_1": ints(1), "axis_2": ints(2), **constants}
    initializers = [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
    inputs = [
        info("history", TensorProto.FLOAT, ["batch", LENGTH, WIDTH]),
        info("log_weight", TensorProto.FLOAT, ["batch", LENGTH]),
    ]
    outputs = [info("user", TensorProto.FLOAT, ["batch", WIDTH])]
    graph = helper.make_graph([*first, *nodes, *last], "encoder", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def harmless() -> onnx.ModelProto:
    return model([node("Neg", ["x"], ["y"])])


def hostile(message: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Add a function to ``GRAPHS``, under its name in words."""

    def add(make: Callable[[], Any]) -> Callable[[], Any]:
        def blob() -> bytes:
            made = make()
            return made if isinstance(made, bytes) else made.SerializeToString()

        GRAPHS[make.__name__.replace("_", " ")] = blob, message
        return make

    return add


def with_nodes(name: str, message: str, nodes: Nodes, opset: int = 18, **constants: Any) -> None:
    GRAPHS[name] = lambda: bytes(model(nodes, opset, **constants).SerializeToString()), message


def body(*nodes: onnx.NodeProto, inputs: Sequence[Any] = (), outputs: Sequence[Any] = ()) -> Any:
    return helper.make_graph(list(nodes), "body", list(inputs), list(outputs))


# Loops, branches and functions


@hostile("operator 'Loop'.*a subgraph, which is not allowed")
def endless_loop() -> onnx.ModelProto:
    inner = body(
        node("Neg", ["a"], ["b"]),
        node("Identity", ["go"], ["on"]),
        inputs=[
            info("i", TensorProto.INT64, []),
            info("go", TensorProto.BOOL, []),
            info("a", TensorProto.FLOAT, None),
        ],
        outputs=[info("on", TensorProto.BOOL, []), info("b", TensorProto.FLOAT, None)],
    )
    loop = node("Loop", ["count", "true", "x"], ["y"], body=inner)
    return model([loop], count=np.array(2**62), true=np.array(True))


@hostile("operator 'If'.*a subgraph")
def branch() -> onnx.ModelProto:
    inner = body(node("Neg", ["x"], ["z"]), outputs=[info("z", TensorProto.FLOAT, None)])
    call = node("If", ["true"], ["y"], then_branch=inner, else_branch=inner)
    return model([call], true=np.array(True))


@hostile("operator 'Scan'.*a subgraph")
def scan() -> onnx.ModelProto:
    inner = body(
        node("Neg", ["a"], ["b"]),
        inputs=[info("a", TensorProto.FLOAT, None)],
        outputs=[info("b", TensorProto.FLOAT, None)],
    )
    return model([node("Scan", ["x"], ["y"], body=inner, num_scan_inputs=1)])


@hostile("a subgraph")
def branches_in_branches() -> onnx.ModelProto:
    inner = body(node("Neg", ["x"], ["z"]), outputs=[info("z", TensorProto.FLOAT, None)])
    for _ in range(12):
        call = node("If", ["true"], ["z"], then_branch=inner, else_branch=inner)
        inner = body(call, outputs=[info("z", TensorProto.FLOAT, None)])
    return model([node("If", ["true"], ["y"], then_branch=inner, else_branch=inner)])


@hostile("a subgraph")
def subgraphs_five_hundred_deep() -> bytes:
    blob = b""
    for _ in range(500):
        blob = field(6, blob)  # the subgraph of an attribute
        blob = field(1, field(5, blob))  # the attribute of a node of a graph
    return field(7, blob)


@hostile("node 'y', operator 'f0': the domain 'own' is not allowed")
def functions_that_call_each_other_twice() -> onnx.ModelProto:
    made, opsets = harmless(), [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    made.opset_import.append(helper.make_opsetid("own", 1))
    for level in range(40):
        call = f"f{level + 1}"
        calls = [node(call, ["a"], ["b"], domain="own"), node(call, ["b"], ["c"], domain="own")]
        made.functions.append(helper.make_function("own", f"f{level}", ["a"], ["c"], calls, opsets))
    leaf = [node("Neg", ["a"], ["c"])]
    made.functions.append(helper.make_function("own", "f40", ["a"], ["c"], leaf, opsets))
    made.graph.node[2].CopyFrom(node("f0", ["x"], ["y"], domain="own"))
    return made


@hostile("local functions")
def functions_that_nothing_calls() -> onnx.ModelProto:
    made, opsets = harmless(), [helper.make_opsetid("", 18)]
    leaf = [node("Neg", ["a"], ["c"])]
    made.functions.append(helper.make_function("own", "f", ["a"], ["c"], leaf, opsets))
    return made


@hostile("it calls a local function")
def call_of_a_function_by_overload() -> onnx.ModelProto:
    made = harmless()
    made.graph.node[2].overload = "other"
    return made


with_nodes("sequence map", "a subgraph", [node("SequenceMap", ["x"], ["y"], body=body())])

# Operators that are not on the list

NOT_LISTED: dict[str, dict[str, Any]] = {
    "RandomNormal": {"shape": [1, LENGTH, WIDTH], "seed": 3.0},
    "RandomNormalLike": {},
    "RandomUniform": {"shape": [1, LENGTH, WIDTH]},
    "RandomUniformLike": {},
    "Bernoulli": {},
    "Multinomial": {"sample_size": 3},
    "Dropout": {},
    "NonZero": {},
    "Compress": {},
    "Unique": {},
    "NonMaxSuppression": {},
    "StringNormalizer": {},
    "SequenceConstruct": {},
    "OptionalHasElement": {},
    "Resize": {},
    "DFT": {},
    "ImageDecoder": {},
    "no such operator": {},
    "Loop\n\x1b[31m": {},
}
for operator, attributes in NOT_LISTED.items():
    with_nodes(
        f"{operator!r}",
        r"node 'y', operator .*the operator is not allowed",
        [node(operator, [] if "shape" in attributes else ["x"], ["y"], **attributes)],
    )


@hostile("domain 'com.microsoft' .*not allowed")
def operator_of_onnxruntime() -> onnx.ModelProto:
    made = model([node("FusedGelu", ["x"], ["y"], domain="com.microsoft")])
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


@hostile("node 'y', operator 'Scaler': the domain 'ai.onnx.ml' is not allowed")
def operator_of_a_domain_that_is_not_imported() -> onnx.ModelProto:
    return model([node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", scale=[1.0])])


@hostile("operators of the domain 'evil'")
def import_of_another_domain() -> onnx.ModelProto:
    made = harmless()
    made.opset_import.append(helper.make_opsetid("evil", 1))
    return made


# Other files and memory


def external(name: str, **entries: str) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[WIDTH])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


LOCATIONS = {
    "a file outside the folder": {"location": "../../../../../../../../etc/passwd"},
    "an absolute path": {"location": "/etc/passwd", "offset": "0", "length": "32"},
    "a file of the bundle": {"location": "candidate_bias.npy"},
    "the memory of the process": {"location": "*/_ORT_MEM_ADDR_/*", "offset": "4096"},
    "no file": {},
}
for place, entries in LOCATIONS.items():

    def _reads(entries: dict[str, str] = entries) -> bytes:
        made = model([node("Add", ["x", "other"], ["y"])])
        made.graph.initializer.append(external("other", **entries))
        return bytes(made.SerializeToString())

    GRAPHS[f"constant in {place}"] = _reads, "constant 'other': it is in another file"


@hostile("attribute 'value'.*it is in another file")
def attribute_in_another_file() -> onnx.ModelProto:
    call = node("Constant", [], ["c"], value=external("v", location="/etc/passwd"))
    return model([call, node("Add", ["x", "c"], ["y"])])


@hostile("its entries are in several places")
def constant_in_two_places() -> onnx.ModelProto:
    made = model([node("Add", ["x", "c"], ["y"])], c=np.ones(WIDTH, np.float32))
    made.graph.initializer[2].external_data.add(key="location", value="/etc/passwd")
    return made


@hostile("its entries are in several places")
def location_that_overflows() -> bytes:
    made = model([node("Add", ["x", "c"], ["y"])], c=np.ones(WIDTH, np.float32))
    tensor = made.graph.initializer[2]
    blob = tensor.SerializeToString() + b"\x70" + varint(2**32 + 1)  # data_location
    return field_replaced(made, 5, 2, blob)


# Work and memory

with_nodes(
    "constant of 2**40 entries",
    "operator 'ConstantOfShape'.*exceed",
    [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])],
    s=ints(2**20, 2**20),
)
with_nodes(
    "shape that overflows",
    "ConstantOfShape.*exceed",
    [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])],
    s=ints(2**33, 2**31),
)
with_nodes(
    "expand to 2**40 entries",
    "operator 'Expand'.*exceed",
    [node("Expand", ["x", "s"], ["y"])],
    s=ints(2**34, LENGTH, WIDTH),
)
with_nodes(
    "tile to 2**40 entries",
    "operator 'Tile'.*exceed",
    [node("Tile", ["x", "s"], ["y"])],
    s=ints(2**17, 2**17, 1),
)
with_nodes(
    "range of 2**40 entries",
    "operator 'Range'",
    [node("Range", ["a", "b", "c"], ["r"]), node("Add", ["x", "r"], ["y"])],
    a=np.array(0),
    b=np.array(2**40),
    c=np.array(1),
)
with_nodes(
    "range whose length overflows",
    "operator 'Range': it counts from",
    [node("Range", ["a", "b", "c"], ["r"]), node("Add", ["x", "r"], ["y"])],
    a=np.array(2**63 - 1),
    b=np.array(-(2**63) + 10**9),
    c=np.array(1),
)
with_nodes(
    "pad to 2**40 entries",
    "operator 'Pad'.*exceed",
    [node("Pad", ["x", "p"], ["y"])],
    p=ints(0, 0, 0, 0, 0, 2**37),
)
with_nodes(
    "one hot of 2**40 columns",
    "operator 'OneHot'.*exceed",
    [
        node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        node("OneHot", ["i", "depth", "values"], ["o"]),
        node("ReduceMax", ["o", "axis_3"], ["y"], keepdims=0),
    ],
    depth=np.array(2**40),
    values=np.array([0, 1], np.float32),
    axis_3=ints(3),
)
with_nodes(
    "concatenation that doubles forty times",
    "operator 'Concat'.*exceed",
    [
        node("Concat", [f"d{i}" if i else "x"] * 2, [f"d{i + 1}" if i < 39 else "y"], axis=0)
        for i in range(40)
    ],
)
with_nodes(
    "sum of a column and a row",
    "operator 'Add'.*exceed",
    [
        node("Reshape", ["big", "column"], ["c"]),
        node("Add", ["c", "big"], ["outer"]),
        node("ReduceMax", ["outer"], ["m"]),
        node("Add", ["x", "m"], ["y"]),
    ],
    big=np.ones(2**15, np.float32),
    column=ints(-1, 1),
)
with_nodes(
    "products of large matrices",
    "more than .* steps",
    [
        *[node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(30)],
        node("ReduceMax", ["m30"], ["m"]),
        node("Add", ["x", "m"], ["y"]),
    ],
    m0=np.ones((400, 400), np.float32),
)
with_nodes(
    "product over many labels",
    "operator 'Einsum'.*more than .* steps",
    [
        node("Einsum", ["a", "b", "c", "d"], ["m"], equation="a,b,c,d->a"),
        node("ReduceMax", ["m"], ["o"]),
        node("Add", ["x", "o"], ["y"]),
    ],
    a=np.ones(1000, np.float32),
    b=np.ones(1000, np.float32),
    c=np.ones(1000, np.float32),
    d=np.ones(1000, np.float32),
)
with_nodes(
    "layer over a long sequence",
    "operator 'GRU'.*more than .* steps",
    [
        node("ConstantOfShape", ["s"], ["zeros"]),
        node("GRU", ["zeros", "w", "r"], ["", "last"], hidden_size=1),
        node("ReduceMax", ["last"], ["m"]),
        node("Add", ["x", "m"], ["y"]),
    ],
    s=ints(2**20, 1, 1),
    w=np.ones((1, 3, 1), np.float32),
    r=np.ones((1, 3, 1), np.float32),
)
with_nodes(
    "sorting of many entries",
    "operator 'TopK'.*more than .* steps",
    [
        node("ConstantOfShape", ["s"], ["zeros"]),
        node("TopK", ["zeros", "s"], ["sorted", "order"]),
        node("ReduceMax", ["sorted"], ["m"]),
        node("Add", ["x", "m"], ["y"]),
    ],
    s=ints(2**22),
)
with_nodes(
    "chain of 3,000 nodes",
    "has 3003 nodes, more than 2000",
    [
        node("Neg", [f"n{i}" if i else "x"], [f"n{i + 1}" if i < 2_999 else "y"])
        for i in range(3_000)
    ],
)


@hostile("has 3002 constants, more than 2000")
def constants_by_the_thousand() -> onnx.ModelProto:
    made = harmless()
    one = numpy_helper.from_array(np.ones(1, np.float32))
    for index in range(3_000):
        one.name = f"c{index}"
        made.graph.initializer.append(one)
    return made


with_nodes(
    "tensor of 60 axes",
    "has 63 axes, more than 8",
    [node("Unsqueeze", ["x", "s"], ["y"])],
    s=np.arange(60),
)
with_nodes(
    "size that depends on the history",
    "decides about a shape, but is not a constant",
    [
        node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        node("ReduceMax", ["i"], ["n"], keepdims=0),
        node("Reshape", ["n", "one"], ["s"]),
        node("ConstantOfShape", ["s"], ["c"]),
        node("ReduceMax", ["c"], ["m"]),
        node("Add", ["x", "m"], ["y"]),
    ],
    one=ints(1),
)

# What ends or corrupts the process in some version of onnxruntime

for name, operator, dtype, dividend, divisor in (
    ("division of integers by 0", "Div", np.int32, 1, 0),
    ("remainder of integers by 0", "Mod", np.int64, 1, 0),
    ("division of the smallest integer by -1", "Div", np.int32, -(2**31), -1),
    ("division of the smallest long integer by -1", "Div", np.int64, -(2**63), -1),
):
    with_nodes(
        name,
        f"operator '{operator}': it divides integers by what may be 0 or -1",
        [
            node(operator, ["a", "b"], ["q"]),
            node("Cast", ["q"], ["f"], to=TensorProto.FLOAT),
            node("Add", ["x", "f"], ["y"]),
        ],
        a=np.array([dividend], dtype),
        b=np.array([divisor], dtype),
    )
with_nodes(
    "division by an integer of the history",
    "operator 'Div': it divides integers by what may be 0 or -1",
    [
        node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        node("Div", ["i", "i"], ["q"]),
        node("Cast", ["q"], ["y"], to=TensorProto.FLOAT),
    ],
)
with_nodes(
    "norm whose bias has no name",
    "operator 'LayerNormalization': one of its inputs has no name",
    [node("LayerNormalization", ["x", "scale", ""], ["y"])],
    scale=np.ones(WIDTH, np.float32),
)
with_nodes(
    "convolution whose zero point has no name",
    "operator 'ConvInteger': one of its inputs has no name",
    [
        node("Cast", ["x"], ["i"], to=TensorProto.UINT8),
        node("ConvInteger", ["i", "w", "", ""], ["c"]),
        node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
    ],
    w=np.ones((LENGTH, LENGTH, 1), np.uint8),
)
with_nodes(
    "split into more parts than it says",
    "operator 'Split': it has 3 outputs",
    [node("Split", ["x"], ["y", "b", "c"], num_outputs=2)],
    opset=18,
)
with_nodes(
    "convolution with stride 0",
    "operator 'Conv': its windows do not fit",
    [node("Conv", ["x", "w"], ["y"], strides=[0])],
    w=np.ones((LENGTH, LENGTH, 1), np.float32),
)
with_nodes(
    "pool with stride 0",
    "operator 'MaxPool': its windows do not fit",
    [node("MaxPool", ["x"], ["y"], kernel_shape=[2], strides=[0])],
)
with_nodes(
    "convolution in 0 groups",
    "operator 'Conv': its kernel does not fit",
    [node("Conv", ["x", "w"], ["y"], group=0)],
    w=np.ones((LENGTH, LENGTH, 1), np.float32),
)
with_nodes(
    "reflection beyond the input",
    "operator 'Pad': it reflects",
    [node("Pad", ["x", "p"], ["y"], mode="reflect")],
    p=ints(0, 0, 100, 0, 0, 100),
)


@hostile("sparse constants")
def sparse_constant_with_a_place_outside() -> onnx.ModelProto:
    made = model([node("Add", ["x", "s"], ["y"])])
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    places = numpy_helper.from_array(ints(10**12), "places")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [1, WIDTH]))
    return made


@hostile("a sparse constant")
def sparse_attribute() -> onnx.ModelProto:
    values, places = np.ones(1, np.float32), ints(10**12)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(values, "v"), numpy_helper.from_array(places, "p"), [WIDTH]
    )
    call = node("Constant", [], ["c"], sparse_value=sparse)
    return model([call, node("Add", ["x", "c"], ["y"])])


# Names

with_nodes(
    "cycle",
    "its input 'b' has no origin before it",
    [
        node("Add", ["x", "b"], ["a"]),
        node("Add", ["a", "x"], ["b"]),
        node("Neg", ["b"], ["y"]),
    ],
)
with_nodes("node that reads itself", "input 'y' has no origin", [node("Add", ["x", "y"], ["y"])])
with_nodes(
    "nodes that are not in order",
    "input 'a' has no origin",
    [node("Neg", ["a"], ["y"]), node("Abs", ["x"], ["a"])],
)
with_nodes(
    "two outputs of one name",
    "the name 'y' is empty, or has two origins",
    [node("Neg", ["x"], ["y"]), node("Abs", ["x"], ["y"])],
)
with_nodes(
    "constant with the name of an input",
    "the name 'history' is empty, or has two origins",
    [node("Neg", ["x"], ["y"])],
    history=np.ones((1, LENGTH, WIDTH), np.float32),
)
with_nodes(
    "node without output", "it has no output", [node("Neg", ["x"], []), node("Neg", ["x"], ["y"])]
)


@hostile("the name 'axis_1' is empty, or has two origins")
def two_constants_of_one_name() -> onnx.ModelProto:
    made = harmless()
    made.graph.initializer.append(made.graph.initializer[0])
    return made


@hostile("no node returns the output 'axis_1'")
def output_that_is_a_constant() -> onnx.ModelProto:
    made = harmless()
    made.graph.output.append(info("axis_1", TensorProto.INT64, [1]))
    return made


@hostile("a name that is not UTF-8")
def name_that_is_not_text() -> bytes:
    return bytes(harmless().SerializeToString()).replace(b"weight", b"w\xffight")


@hostile("a name of more than 1000 bytes")
def name_of_a_million_bytes() -> onnx.ModelProto:
    made = harmless()
    made.graph.node[2].name = "n" * 1_000_000
    return made


# Constants


def constant(change: Callable[[onnx.TensorProto], object]) -> onnx.ModelProto:
    made = model([node("Add", ["x", "c"], ["y"])], c=np.ones(WIDTH, np.float32))
    change(made.graph.initializer[2])
    return made


CONSTANTS: dict[str, tuple[Callable[[onnx.TensorProto], object], str]] = {
    "NaN": (lambda t: setattr(t, "raw_data", b"\xff" * 32), "it has an entry that is NaN"),
    "few entries": (lambda t: setattr(t, "raw_data", b"1234"), "it has 1 entries"),
    "many entries": (lambda t: setattr(t, "raw_data", b"1234" * 99), "it has 99 entries"),
    "half an entry": (lambda t: setattr(t, "raw_data", b"12345"), "cut short"),
    "a negative shape": (lambda t: t.dims.__setitem__(0, -8), "is negative"),
    "a shape that overflows": (lambda t: t.dims.extend([2**62, 4]), "it has 8 entries"),
    "an unknown type": (lambda t: setattr(t, "data_type", 99), "its type 99 is not allowed"),
    "complex numbers": (lambda t: setattr(t, "data_type", 14), "its type 14 is not allowed"),
    "texts": (lambda t: t.string_data.append(b"x"), "text constants"),
    "a segment": (lambda t: setattr(t.segment, "begin", 0), "a segment of a constant"),
    "two sets of entries": (lambda t: t.float_data.append(1.0), "in several places"),
    "nine axes": (lambda t: t.dims.extend([1] * 8), "9 axes, more than 8"),
}
for what, (alter, message) in CONSTANTS.items():

    def _altered(alter: Callable[[onnx.TensorProto], object] = alter) -> bytes:
        return bytes(constant(alter).SerializeToString())

    GRAPHS[f"constant with {what}"] = _altered, message


@hostile("neither 0 nor 1")
def boolean_of_seven() -> onnx.ModelProto:
    made = model([node("Where", ["c", "x", "x"], ["y"])], c=np.ones(1, np.bool_))
    made.graph.initializer[2].raw_data = b"\x07"
    return made


# Inputs, outputs and versions


@hostile("the input 'history' has shape")
def input_of_other_axes() -> onnx.ModelProto:
    made = harmless()
    made.graph.input[0].CopyFrom(info("history", TensorProto.FLOAT, ["batch", LENGTH]))
    return made


@hostile("it has the inputs")
def another_input() -> onnx.ModelProto:
    made = harmless()
    made.graph.input.append(info("path", TensorProto.FLOAT, [1]))
    return made


@hostile("value 'path': it contains sequences")
def input_that_is_a_sequence() -> onnx.ModelProto:
    made = harmless()
    value = helper.make_tensor_sequence_value_info("path", TensorProto.FLOAT, None)
    made.graph.input.append(value)
    return made


@hostile("value 'path': its type is not allowed")
def input_of_texts() -> onnx.ModelProto:
    made = harmless()
    made.graph.input.append(info("path", TensorProto.STRING, [1]))
    return made


with_nodes(
    "output of another shape",
    "the output 'user' has shape",
    [node("Concat", ["x", "x"], ["y"], axis=2)],
)
with_nodes(
    "output of another type",
    "no float32 output 'user'",
    [node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)],
)
with_nodes("a version from the future", "version 99", [node("Neg", ["x"], ["y"])], opset=99)
with_nodes("a version of the past", "version 7", [node("Neg", ["x"], ["y"])], opset=7)


@hostile("it imports 2 sets of operators")
def two_versions() -> onnx.ModelProto:
    made = harmless()
    made.opset_import.append(helper.make_opsetid("ai.onnx", 11))
    return made


# Bytes


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def field_replaced(made: onnx.ModelProto, number: int, index: int, content: bytes) -> bytes:
    """Return a file whose graph has other bytes in a repeated field."""
    graph, rest = made.graph, onnx.ModelProto()
    rest.CopyFrom(made)
    rest.ClearField("graph")
    values = [value.SerializeToString() for value in graph.initializer]
    values[index] = content
    graph = onnx.GraphProto.FromString(graph.SerializeToString())
    graph.ClearField("initializer")
    blob = graph.SerializeToString() + b"".join(field(number, value) for value in values)
    return bytes(rest.SerializeToString()) + field(7, blob)


BLOBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "no bytes": (lambda: b"", "has no graph"),
    "text": (lambda: b"not a graph, but some text", "it is not an ONNX file"),
    "zeros": (lambda: bytes(1000), "it is not an ONNX file"),
    "a number of eleven bytes": (lambda: b"\x08" + b"\xff" * 10 + b"\x01", "longer than ten"),
    "a number without end": (lambda: b"\x08" + b"\x80" * 100_000, "longer than ten"),
    "a length of 2**63": (lambda: b"\x3a" + varint(2**63) + b"x", "graph is longer than the file"),
    "a length beyond the end": (lambda: b"\x3a\x7fx", "graph is longer than the file"),
    "lengths that overlap": (
        lambda: field(7, b"\x0a" + varint(30) + b"\x0a" + varint(60)) + bytes(99),
        "node is longer than the graph",
    ),
    "a graph that is a number": (lambda: b"\x38\x01", "graph of a file has the wrong encoding 0"),
    "a group": (lambda: b"\x3b\x3c", "graph of a file has the wrong encoding 3"),
    "an unknown field": (
        lambda: harmless().SerializeToString() + b"\xf8\x3f\x01",
        "unknown field 1023",
    ),
    "two graphs": (lambda: 2 * harmless().SerializeToString(), "occurs twice in a file"),
    "a million empty nodes": (lambda: field(7, b"\x0a\x00" * 1_000_000), "more than 100000 fields"),
    "a million packed axes": (
        lambda: field(7, field(5, field(1, b"\x01" * 1_000_000))),
        "more than 100000 fields",
    ),
    "training information": (
        lambda: harmless().SerializeToString() + b"\xa2\x01\x00",
        "training information",
    ),
    "a graph of onnxruntime's own format": (
        lambda: b"\x12\x0a" + b"xxORTM" + bytes(4) + harmless().SerializeToString(),
        "a format of onnxruntime",
    ),
}
for what, (make, message) in BLOBS.items():
    GRAPHS[f"file with {what}"] = make, message
for part in (1, 2, 3, 7):

    def _cut(part: int = part) -> bytes:
        blob = pooling_encoder(WIDTH, LENGTH, 0)
        return blob[: len(blob) * part // 8]

    GRAPHS[f"file of which {part} eighths are left"] = _cut, "graph is longer than the file"
