"""A graph that may hang, crash or read other files is refused before onnxruntime gets it."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnxruntime
import pytest

from helpers import bundles, hostile
from helpers.bundles import replace_file
from tlrec_edge import BundleError, Recommender


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "b"
    bundles.build(path)
    return path


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("onnxruntime was given the graph")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("name", hostile.GRAPHS)
def test_a_hostile_graph_is_refused(bundle: Path, name: str) -> None:
    make, message = hostile.GRAPHS[name]
    replace_file(bundle, "encoder.onnx", make())
    with pytest.raises(BundleError, match=rf"b/encoder\.onnx: .*{message}.*again") as caught:
        Recommender.open(bundle)
    assert str(caught.value).isprintable()


def test_the_same_graph_without_the_fault_is_accepted(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    replace_file(copy, "encoder.onnx", hostile.harmless().SerializeToString())
    Recommender.open(copy, verify="full").close()
