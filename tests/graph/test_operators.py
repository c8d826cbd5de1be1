"""What is worked out about each operator before a run is what onnxruntime returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers.paths import ROOT
from tlrec_edge.graph.call import Tensor
from tlrec_edge.graph.check import CheckedGraph
from tlrec_edge.graph.onnx_file import GraphError
from tlrec_edge.graph.operators import OPERATORS

F4 = np.float32
RNG = np.random.default_rng(0)


class Case(NamedTuple):
    operator: str
    inputs: Sequence[np.ndarray | None]
    outputs: int = 1
    opset: int = 18
    attributes: Mapping[str, Any] = {}


def floats(*shape: int) -> np.ndarray:
    return (RNG.random(shape) + 0.25).astype(F4)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def case(operator: str, *inputs: Any, outputs: int = 1, opset: int = 18, **attributes: Any) -> Case:
    arrays = [None if array is None else np.asarray(array) for array in inputs]
    return Case(operator, arrays, outputs, opset, attributes)


UNARY = [
    name
    for name in OPERATORS
    if name
    in (
        {"Abs", "Ceil", "Celu", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish"}
        | {"Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu"}
        | {"Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh"}
    )
]
COMPARISONS = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
REDUCTIONS = [name for name in OPERATORS if name.startswith("Reduce")]
TRUE = np.array([True, False])
U8 = np.arange(12, dtype=np.uint8)

CASES = [
    *(case(name, floats(2, 3)) for name in UNARY),
    *(case(name, floats(2, 1, 3), floats(4, 3)) for name in [*COMPARISONS, "Add", "Sub", "Mul"]),
    *(case(name, ints(5, -7, 9), ints(3)) for name in [*COMPARISONS, "Add", "Sub", "Mul", "Div"]),
    *(case(name, ints(5, -7, 9), ints(3), ints(1)) for name in ("Max", "Min")),
    *(case(name, floats(2, 3), floats(3), floats(1)) for name in ("Max", "Min", "Mean", "Sum")),
    *(case(name, TRUE, np.array([[True], [False]])) for name in ("And", "Or", "Xor")),
    *(case(name, floats(2, 3, 4), axis=axis) for name in ("ArgMax", "ArgMin") for axis in (0, -1)),
    case("ArgMax", floats(2, 3), axis=1, keepdims=0),
    *(case(name, floats(2, 3, 4), ints(0, -1)) for name in REDUCTIONS),
    *(case(name, floats(2, 3, 4), opset=11, axes=[1], keepdims=0) for name in REDUCTIONS[:6]),
    case("ReduceSum", floats(2, 3), ints(), noop_with_empty_axes=1),
    case("ReduceMean", floats(2, 3)),
    *(case(name, ints(4, -2, 9)) for name in ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum")),
    case("AveragePool", floats(1, 2, 7, 5), kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 2, 1]),
    case("MaxPool", floats(1, 2, 9), kernel_shape=[3], dilations=[2], outputs=2),
    case("MaxPool", floats(1, 2, 9), kernel_shape=[4], strides=[2], auto_pad="SAME_UPPER"),
    case("GlobalAveragePool", floats(1, 2, 5, 3)),
    case("GlobalMaxPool", floats(1, 2, 5)),
    case("BatchNormalization", floats(2, 3, 4), *(floats(3) for _ in range(4))),
    *(case("Cast", floats(2, 3), to=kind) for kind in (9, 6, 7, 10, 11)),
    case("Cast", ints(3, -1, 2**40), to=TensorProto.INT32),
    case("Cast", ints(3, 0), to=TensorProto.BOOL),
    case("Clip", floats(2, 3), F4(0), F4(1)),
    case("Concat", floats(2, 3), floats(2, 5), axis=-1),
    case("Concat", ints(2), ints(3, 4), axis=0),
    case("Constant", value=numpy_helper.from_array(floats(2, 3))),
    case("Constant", value_int=7),
    case("Constant", value_ints=[7, 8]),
    case("Constant", value_float=0.5),
    case("Constant", value_floats=[0.5, 1.0]),
    case("ConstantOfShape", ints(2, 3)),
    case("ConstantOfShape", ints(3), value=numpy_helper.from_array(ints(5))),
    case("Conv", floats(1, 4, 9), floats(6, 2, 3), floats(6), group=2, pads=[1, 2], strides=[2]),
    case("Conv", floats(2, 3, 8, 6), floats(4, 3, 3, 2), dilations=[2, 1]),
    case("Conv", floats(1, 3, 8), floats(4, 3, 3), auto_pad="SAME_LOWER", strides=[3]),
    case("ConvInteger", U8.reshape(1, 2, 6), U8[:8].reshape(2, 2, 2), np.uint8(3)),
    case("CumSum", floats(2, 3), np.array(1)),
    case("DequantizeLinear", U8.reshape(3, 4), F4(0.5), np.uint8(7)),
    case("DequantizeLinear", U8.reshape(3, 4), floats(3), U8[:3], axis=0),
    case("DynamicQuantizeLinear", floats(2, 3), outputs=3),
    case("QuantizeLinear", floats(2, 3), F4(0.5)),
    case("QuantizeLinear", floats(2, 3), floats(3), np.zeros(3, np.int8), axis=1),
    case("Div", floats(2, 3), floats(3)),
    case("Einsum", floats(2, 3, 4), floats(2, 5, 4), equation="bij, bkj -> bik"),
    case("Einsum", floats(2, 3), equation="ab->ba"),
    case("Expand", floats(3, 1), ints(2, 1, 4)),
    case("Expand", ints(3), ints(2, 2)),
    case("Flatten", floats(2, 3, 4), axis=-1),
    case("Flatten", floats(2, 3, 4), axis=3),
    case("Gather", floats(5, 3), np.array([[0, -1], [2, 4]])),
    case("Gather", floats(5, 3), np.array(1), axis=-1),
    case("Gather", ints(7, 8, 9), ints(2, -3)),
    case("GatherElements", floats(3, 4), np.array([[0, 1], [2, 3]]), axis=1),
    case("GatherND", floats(2, 3, 4), np.array([[0, 1], [1, 2]])),
    case("GatherND", floats(2, 3, 4), np.array([[1], [2]]), batch_dims=1),
    case("Gelu", floats(2, 3), opset=20),
    case("Gemm", floats(3, 2), floats(4, 3), floats(4), transA=1, transB=1),
    case(
        "GRU",
        floats(5, 2, 3),
        floats(1, 12, 3),
        floats(1, 12, 4),
        floats(1, 24),
        None,
        floats(1, 2, 4),
        outputs=2,
        hidden_size=4,
        linear_before_reset=1,
    ),
    case(
        "LSTM",
        floats(5, 2, 3),
        floats(2, 16, 3),
        floats(2, 16, 4),
        outputs=3,
        hidden_size=4,
        direction="bidirectional",
    ),
    case(
        "RNN",
        floats(5, 2, 3),
        floats(1, 4, 3),
        floats(1, 4, 4),
        outputs=2,
        hidden_size=4,
        direction="reverse",
    ),
    case("LayerNormalization", floats(2, 3, 4), floats(3, 4), floats(3, 4), outputs=3, axis=1),
    case("LogSoftmax", floats(2, 3)),
    case("LpNormalization", floats(2, 3), axis=0),
    case("Softmax", floats(2, 3, 4), axis=1),
    case("MatMul", floats(2, 1, 3, 4), floats(5, 4, 2)),
    case("MatMul", floats(4), floats(4)),
    case("MatMul", floats(4), floats(2, 4, 3)),
    case("MatMul", floats(2, 3, 4), floats(4)),
    case("MatMulInteger", U8.reshape(3, 4), U8.reshape(4, 3), np.uint8(1), np.uint8(2)),
    case(
        "QLinearMatMul",
        U8.reshape(3, 4),
        F4(1),
        np.uint8(0),
        U8.reshape(4, 3),
        F4(1),
        np.uint8(0),
        F4(9),
        np.uint8(0),
    ),
    case(
        "QLinearConv",
        U8.reshape(1, 2, 6),
        F4(1),
        np.uint8(0),
        U8[:8].reshape(2, 2, 2),
        F4(1),
        np.uint8(0),
        F4(9),
        np.uint8(0),
    ),
    case("Mod", floats(2, 3), floats(3), fmod=1),
    case("Mod", ints(5, -7, 9), ints(3)),
    case("Not", TRUE),
    case("OneHot", np.array([[0, 2], [1, 1]]), np.array(3), np.array([0, 1], F4), axis=1),
    case("Pad", floats(2, 3), ints(0, 1, 2, 0)),
    case("Pad", floats(2, 3), ints(2, 1), None, ints(-1), mode="reflect", opset=19),
    case("Pow", floats(2, 3), np.array(2)),
    case("PRelu", floats(2, 3), floats(3)),
    case("Range", np.array(7), np.array(-4), np.array(-3)),
    case("Range", np.int32(0), np.int32(5), np.int32(2)),
    case("Reshape", floats(2, 3, 4), ints(0, -1)),
    case("Reshape", floats(2, 3, 4), ints(6, 4), allowzero=1),
    case("Reshape", floats(1, 1), ints()),
    case("ScatterElements", floats(3, 4), np.array([[0, 1]]), floats(1, 2), axis=1),
    case("ScatterND", floats(3, 4), np.array([[1], [2]]), floats(2, 4)),
    case("Shape", floats(2, 3, 4)),
    case("Shape", floats(2, 3, 4), start=-2, end=9),
    case("Size", floats(2, 3)),
    case("Slice", floats(5, 6), ints(1, -9), ints(2**63 - 1, -1), ints(1, 0), ints(2, 1)),
    case("Slice", floats(5, 6), ints(-1), ints(-(2**63)), ints(0), ints(-2)),
    case("Slice", floats(5, 6), ints(4), ints(-99), ints(1), ints(-(2**63))),
    case("Slice", ints(4, 5, 6, 7), ints(1), ints(3)),
    case("Slice", ints(4, 5), ints(2), ints(9)),
    case("Split", floats(7, 2), outputs=3, num_outputs=3),
    case("Split", floats(2, 5), ints(2, 3), outputs=2, axis=1),
    case("Split", ints(1, 2, 3), ints(1, 2), outputs=2),
    case("Squeeze", floats(1, 3, 1), ints(-1)),
    case("Squeeze", floats(1, 3, 1)),
    case("Squeeze", floats(1, 3, 1), opset=11, axes=[0]),
    case("Tile", floats(2, 3), ints(2, 1)),
    case("Tile", ints(4, 5), ints(2)),
    case("TopK", floats(3, 4), ints(2), outputs=2),
    case("TopK", floats(3, 4), ints(3), outputs=2, axis=0),
    case("Transpose", floats(2, 3, 4), perm=[2, 0, 1]),
    case("Transpose", floats(2, 3, 4)),
    case("Trilu", floats(2, 3, 4)),
    case("Unsqueeze", floats(2, 3), ints(-1, 0)),
    case("Where", TRUE, floats(3, 1), floats(2)),
    case("Where", TRUE, ints(1, 2), ints(3)),
]


def build(one: Case) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return a graph of one node, and its inputs. Integers are constants."""
    names = ["" if array is None else f"i{index}" for index, array in enumerate(one.inputs)]
    arrays = {name: a for name, a in zip(names, one.inputs, strict=True) if a is not None}
    fed = {name: array for name, array in arrays.items() if array.dtype == F4 and array.ndim}
    outputs = [f"o{index}" for index in range(one.outputs)]
    node = helper.make_node(one.operator, names, outputs, **one.attributes)
    kind = helper.np_dtype_to_tensor_dtype
    infos = [helper.make_tensor_value_info(n, kind(a.dtype), a.shape) for n, a in fed.items()]
    constants = [numpy_helper.from_array(a, n) for n, a in arrays.items() if n not in fed]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "one", infos, results, constants)
    opset = helper.make_opsetid("", one.opset)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model)  # onnxruntime wants types of outputs
    return inferred.SerializeToString(), fed


def run(blob: bytes, fed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, dict(fed))]


def tensors(blob: bytes, fed: Mapping[str, np.ndarray]) -> list[Tensor]:
    known = CheckedGraph(blob).tensors(1, {name: array.shape for name, array in fed.items()})
    return [known[name] for name in known if name.startswith("o")]


def compare(one: Case) -> None:
    blob, fed = build(one)
    for worked_out, returned in zip(tensors(blob, fed), run(blob, fed), strict=True):
        assert (worked_out.shape, worked_out.dtype) == (returned.shape, returned.dtype)
        if worked_out.values is not None:
            np.testing.assert_array_equal(worked_out.values, returned)


@pytest.mark.parametrize("one", CASES, ids=[one.operator for one in CASES])
def test_an_operator_returns_what_is_worked_out(one: Case) -> None:
    compare(one)


def test_every_operator_has_a_case() -> None:
    assert {one.operator for one in CASES} == set(OPERATORS)


EXTREMES = [0, 1, -1, 2, -2, 3, -5, 7, 2**31 - 1, -(2**31), 2**62, 2**63 - 1, -(2**63)]
ON_TWO = [*COMPARISONS, "Add", "Sub", "Mul", "Div", "Mod", "Max", "Min"]
ON_ONE = ["Abs", "Neg", "Sign", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Cast"]


def on_extremes(operator: str, dtype: type, rng: np.random.Generator) -> Case:
    extremes: np.ndarray = np.array(EXTREMES).astype(dtype)
    a, b = rng.choice(extremes, (2, 4))
    if operator == "Slice":
        steps: np.ndarray = np.array([1, 2, -1, -3, 2**40, -(2**40)]).astype(dtype)
        axes: np.ndarray = ints(0).astype(dtype)
        return case(operator, np.arange(5), a[:1], b[:1], axes, rng.choice(steps, 1))
    if operator == "Cast":
        return case(operator, a, to=int(rng.choice([2, 6, 7, 9])))
    return case(operator, a, b) if operator in ON_TWO else case(operator, a)


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("operator", [*ON_TWO, *ON_ONE, "Slice"])
def test_integers_are_computed_as_onnxruntime_does(operator: str, dtype: type) -> None:
    """A difference would let a graph be larger than what is worked out."""
    rng, compared = np.random.default_rng(1), 0
    for _ in range(60):
        one = on_extremes(operator, dtype, rng)
        try:
            compare(one)
            compared += 1
        except GraphError:
            continue
    assert compared > 5


def test_the_documentation_lists_every_operator() -> None:
    text = (ROOT / "docs" / "bundle-format.md").read_text("utf-8")
    listed = text.split("<!-- operators -->")[1].replace("`", "").replace("\n", " ")
    assert listed.strip(" .").split(", ") == sorted(OPERATORS)


def test_a_run_of_another_size_is_checked_too(tmp_path: Path) -> None:
    """Work that depends on the number of rows is not found by looking at one row."""
    node, rows = helper.make_node, ints(2**30)
    nodes = [
        node("Shape", ["x"], ["s"], end=1),
        node("Equal", ["s", "three"], ["is_three"]),
        node("Where", ["is_three", "many", "one"], ["n"]),
        node("ConstantOfShape", ["n"], ["c"]),
        node("ReduceMax", ["c"], ["m"]),
        node("Add", ["x", "m"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    constants = {"three": ints(3), "many": rows, "one": ints(1)}
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["n", 2])],
        [info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", 18)
    blob = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    checked, shapes = CheckedGraph(blob), {"x": (None, 2)}
    for fine in (1, 2, 4):
        checked.check_run(fine, shapes, {"y": (None, 2)})
    with pytest.raises(GraphError, match=r"'ConstantOfShape'.*exceed"):
        checked.check_run(3, shapes, {"y": (None, 2)})
