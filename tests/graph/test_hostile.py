"""A graph that may hang, crash or read other files is refused before onnxruntime gets it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import onnxruntime
import pytest

from helpers import bundles, hostile
from helpers.bundles import edit_manifest, replace_file
from helpers.counts import count
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
    count("hostile graphs refused")


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("name", ["encoder.onnx", "item_tower.onnx"])
def test_a_huge_file_is_refused_before_it_is_read(bundle: Path, tmp_path: Path, name: str) -> None:
    copy, size = Path(shutil.copytree(bundle, tmp_path / "b")), 10**10
    (copy / name).chmod(0o644)
    os.truncate(copy / name, size)
    entry = {"size": size, "sha256": ""}
    edit_manifest(copy, lambda manifest: manifest["files"].update({name: entry}))
    for verify in ("full", "none"):
        with pytest.raises(BundleError, match=rf"{name} has 10000000000 bytes, more than"):
            Recommender.open(copy, verify=verify)


def test_the_same_graph_without_the_fault_is_accepted(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    replace_file(copy, "encoder.onnx", hostile.harmless().SerializeToString())
    Recommender.open(copy, verify="full").close()
