"""A text encoder in a folder reads only files of that folder, and any damage is a ModelError."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tlrec_edge.errors import ModelError
from tlrec_edge.train.text import open_encoder

TABLE = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
WORDS = {"[PAD]": 0, "red": 2, "mug": 3}
TEXTS = ["red", "red mug", ""]
node = helper.make_node
info = helper.make_tensor_value_info


class Tokenizer:
    """Does what the package of this name does, which the tests need not have."""

    padding = None

    def __init__(self, words: dict[str, int]) -> None:
        self.words = words

    @classmethod
    def from_file(cls, path: str) -> Tokenizer:
        try:
            return cls(json.loads(Path(path).read_text("utf-8")))
        except ValueError as error:
            raise Exception(str(error)) from error

    def enable_truncation(self, limit: int) -> None:
        self.limit = limit

    def enable_padding(self) -> None: ...

    def encode_batch(self, texts: list[str]) -> list[Any]:
        lines = [[self.words.get(word, 1) for word in text.split()[: self.limit]] for text in texts]
        length = max([1, *map(len, lines)])
        return [
            SimpleNamespace(
                ids=line + [0] * (length - len(line)),
                attention_mask=[1] * len(line) + [0] * (length - len(line)),
                type_ids=[0] * length,
            )
            for line in lines
        ]


@pytest.fixture(autouse=True)
def tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("tokenizers")
    module.Tokenizer = Tokenizer
    monkeypatch.setitem(sys.modules, "tokenizers", module)


def graph(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """Return a graph of the nodes, by default one that looks up token vectors."""
    nodes = nodes or (node("Gather", ["table", "input_ids"], ["vectors"]),)
    arrays = {"table": TABLE, **constants}
    made = helper.make_graph(
        list(nodes),
        "encoder",
        [info("input_ids", TensorProto.INT64, ["n", "length"])],
        [info("vectors", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opset = helper.make_opsetid("", 18)
    return helper.make_model(made, opset_imports=[opset], ir_version=9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "encoder"
    (path / "onnx").mkdir(parents=True)
    onnx.save(graph(), path / "onnx" / "model.onnx")
    (path / "tokenizer.json").write_text(json.dumps(WORDS))
    return path


def save_with_data_file(path: Path, location: str = "model.onnx_data") -> None:
    onnx.save_model(
        graph(),
        path / "onnx" / "model.onnx",
        save_as_external_data=True,
        location=location,
        size_threshold=0,
    )


def test_vectors_in_a_file_of_the_folder_are_read(folder: Path) -> None:
    expected = open_encoder(str(folder)).encode(TEXTS)
    np.testing.assert_array_equal(expected[0], TABLE[2])
    save_with_data_file(folder)
    assert (folder / "onnx" / "model.onnx").stat().st_size < TABLE.nbytes * 4
    np.testing.assert_array_equal(open_encoder(str(folder)).encode(TEXTS), expected)


def test_links_into_a_cache_of_downloads_are_followed(folder: Path, tmp_path: Path) -> None:
    expected = open_encoder(str(folder)).encode(TEXTS)
    save_with_data_file(folder)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for index, file in enumerate([*(folder / "onnx").iterdir(), folder / "tokenizer.json"]):
        shutil.move(file, blobs / f"{index}")
        file.symlink_to(blobs / f"{index}")
    np.testing.assert_array_equal(open_encoder(str(folder)).encode(TEXTS), expected)


def edit_location(path: Path, **entries: str) -> None:
    """Change where the table of a graph is said to be."""
    save_with_data_file(path)
    file = path / "onnx" / "model.onnx"
    made = onnx.load(file, load_external_data=False)
    (table,) = made.graph.initializer
    kept = {entry.key: entry.value for entry in table.external_data}
    del table.external_data[:]
    for key, value in (kept | entries).items():
        table.external_data.add(key=key, value=value)
    file.write_bytes(made.SerializeToString())


OUTSIDE = "is in '.*', which is not a file of its folder"
PLACES: dict[str, tuple[dict[str, str], str]] = {
    "above the folder": ({"location": "../../secret"}, OUTSIDE),
    "of an absolute path": ({"location": "/etc/passwd"}, OUTSIDE),
    "in the folder above": ({"location": "../tokenizer.json"}, OUTSIDE),
    "of a path of Windows": ({"location": "..\\..\\secret"}, OUTSIDE),
    "in memory": ({"location": "*/_ORT_MEM_ADDR_/*"}, OUTSIDE),
    "that is the folder": ({"location": "."}, OUTSIDE),
    "without a name": ({"location": ""}, OUTSIDE),
    "that does not exist": ({"location": "other"}, OUTSIDE),
    "that is a link": ({"location": "link"}, OUTSIDE),
    "that is short": ({"offset": "8"}, "is too short or altered"),
    "before its start": ({"offset": "-80"}, "is too short or altered"),
    "of another length": ({"length": "4"}, "is too short or altered"),
    "with another entry": ({"basepath": "/etc"}, "is too short or altered"),
}


@pytest.mark.parametrize("place", PLACES)
def test_vectors_in_another_file_are_refused(folder: Path, tmp_path: Path, place: str) -> None:
    entries, message = PLACES[place]
    (tmp_path / "secret").write_bytes(bytes(80))
    (folder / "onnx" / "link").symlink_to(tmp_path / "secret")
    edit_location(folder, **entries)
    with pytest.raises(
        ModelError, match=rf"onnx/model\.onnx cannot be used: .*'table' .*{message}"
    ):
        open_encoder(str(folder))


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def replace_graph(make: Callable[[], onnx.ModelProto]) -> Callable[[Path], object]:
    return lambda folder: onnx.save(make(), folder / "onnx" / "model.onnx")


def with_input(name: str) -> onnx.ModelProto:
    made = graph()
    made.graph.input.append(info(name, TensorProto.INT64, ["n", "length"]))
    return made


CONFIG, POOLING = "sentence_bert_config.json", "1_Pooling/config.json"
LOOKUP = node("Gather", ["table", "input_ids"], ["found"])
POOL = node("ReduceMax", ["found", "axis"], ["vectors"], keepdims=0)
DIVIDE = node("Div", ["found", "zero"], ["vectors"])
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "tokenizer that is not JSON": (write("tokenizer.json", "{"), r"tokenizer\.json cannot be used"),
    "tokenizer of another kind": (write("tokenizer.json", "[]"), r"tokenizer\.json cannot be used"),
    "configuration that is not JSON": (write(CONFIG, "{"), "config.json cannot be used"),
    "configuration that is a list": (write(CONFIG, "[1]"), r"= \[1\], expected int"),
    "configuration that is not text": (write(CONFIG, b"\xff\xfe"), "config.json cannot be used"),
    "deep configuration": (write(CONFIG, "[" * 100_000), "config.json cannot be used"),
    "length that is a text": (write(CONFIG, '{"max_seq_length": "9"}'), "= '9', expected int"),
    "length of 0": (write(CONFIG, '{"max_seq_length": 0}'), "max_seq_length = 0, expected 1"),
    "length of -1": (write(CONFIG, '{"max_seq_length": -1}'), "max_seq_length = -1, expected 1"),
    "pooling that is a text": (
        write(POOLING, '{"pooling_mode_cls_token": "yes"}'),
        "= 'yes', expected bool",
    ),
    "graph that is not ONNX": (write("onnx/model.onnx", "junk"), "it is not an ONNX file"),
    "empty graph": (write("onnx/model.onnx", ""), "it is not an ONNX file"),
    "graph with random vectors": (
        replace_graph(lambda: graph(node("RandomNormal", [], ["vectors"], shape=[1, 1, 5]))),
        "operator 'RandomNormal': the operator is not allowed",
    ),
    "graph that does not load": (
        replace_graph(lambda: graph(node("Gather", ["input_ids", "table"], ["vectors"]))),
        "does not load in onnxruntime",
    ),
    "graph with another input": (
        replace_graph(lambda: with_input("pixel_values")),
        r"has the inputs \['input_ids', 'pixel_values'\], expected some of",
    ),
    "graph without token vectors": (
        replace_graph(lambda: graph(LOOKUP, POOL, axis=np.array([1]))),
        r"returns float32 \(1, 5\); expected finite token vectors",
    ),
    "graph with infinite vectors": (
        replace_graph(lambda: graph(LOOKUP, DIVIDE, zero=np.zeros(1, np.float32))),
        "expected finite token vectors",
    ),
    "table that is too short": (
        replace_graph(lambda: graph(table=TABLE[:1])),
        r"model\.onnx cannot be used: .*indices",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_a_model_error(folder: Path, case: str) -> None:
    change, message = BAD[case]
    change(folder)
    with pytest.raises(ModelError, match=f"{folder}.*{message}") as caught:
        open_encoder(str(folder)).encode(TEXTS)
    assert str(caught.value).isprintable()


def test_a_damaged_tokenizer_of_the_real_package_is_a_model_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    pytest.importorskip("tokenizers")
    for content in ("{", "[]", "{}"):
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(ModelError, match=r"tokenizer\.json cannot be used: .*"):
            open_encoder(str(folder))
