"""Slow shapes of graphs are reported with a remedy; exported graphs have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers import synthetic
from tlrec_edge.errors import ExportError
from tlrec_edge.export import ExportConfig, export_bundle
from tlrec_edge.export.graphs import encoder_graph, item_tower_graph
from tlrec_edge.export.lint import lint

node = helper.make_node


def graph(nodes: list[onnx.NodeProto], *constants: tuple[str, np.ndarray]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    inputs, outputs = (
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("y", TensorProto.FLOAT, None)],
    )
    initializers = [numpy_helper.from_array(array, name) for name, array in constants]
    made = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


SLOW = {
    "an operand of one axis": graph(
        [node("MatMul", ["x", "w"], ["y"])], ("w", np.ones(4, np.float32))
    ),
    "or to float16 in every request": graph(
        [
            node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
            node("Cast", ["half"], ["y"], to=TensorProto.FLOAT),
        ]
    ),
    "takes its scale from the batch": graph(
        [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])]
    ),
    "does nothing but costs a call": graph([node("Identity", ["x"], ["y"])]),
    "to the type that its input has": graph([node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]),
    "undoes the Transpose before it": graph(
        [node("Transpose", ["x"], ["t"], perm=[1, 0]), node("Transpose", ["t"], ["y"], perm=[1, 0])]
    ),
}


@pytest.mark.parametrize("what", SLOW)
def test_a_slow_shape_is_named(what: str) -> None:
    found = lint(SLOW[what])
    assert found
    assert what in found[0]


def test_a_lean_graph_passes() -> None:
    weight = ("w", np.ones((4, 1), np.float16))
    lean = graph(
        [node("Cast", ["w"], ["f"], to=TensorProto.FLOAT), node("MatMul", ["x", "f"], ["y"])],
        weight,
    )
    assert lint(lean) == []  # a constant is converted once, when the session loads


@pytest.mark.parametrize("size", ["fast", "base"])
def test_what_is_exported_is_lean(size: str) -> None:
    model = synthetic.model("finetune", size)
    for blob in (encoder_graph(model), item_tower_graph(model)):
        assert blob is not None
        assert lint(onnx.load_from_string(blob)) == []


def test_export_refuses_a_slow_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = synthetic.model("finetune", "fast"), synthetic.dataset()
    proto = onnx.load_from_string(encoder_graph(model))
    last = next(node for node in proto.graph.node if "user" in node.output)
    last.output[list(last.output).index("user")] = "almost"
    proto.graph.node.append(node("Identity", ["almost"], ["user"]))
    monkeypatch.setattr(
        "tlrec_edge.export.items.encoder_graph", lambda _: proto.SerializeToString()
    )
    refusal = r"graph gate: encoder.onnx: Identity 'user' does nothing but .*--allow graph"
    with pytest.raises(ExportError, match=refusal):
        export_bundle(model, data, tmp_path / "b")
    export_bundle(model, data, tmp_path / "b", ExportConfig(allow=("graph",)))
