"""A model folder that is damaged or crafted is refused before it fills the memory."""

from __future__ import annotations

import io
import json
import resource
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy
from numpy.typing import NDArray

from helpers.counts import say
from helpers.paths import ROOT
from tlrec_edge.errors import ModelError
from tlrec_edge.train import EdgeModel

Array = NDArray[Any]
SOURCE = ROOT / "tests" / "data" / "models_0_1_0" / "source"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SOURCE, tmp_path / "model"))


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def put(folder: Path, content: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> None:
    """Add members to the arrays of a model."""
    with zipfile.ZipFile(folder / "arrays.npz", "a", kind) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_arrays_that_unfold_to_a_multiple_of_the_file_are_not_unfolded(folder: Path) -> None:
    size = 400_000_000
    with (
        zipfile.ZipFile(folder / "arrays.npz", "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("bomb.npy", "w", force_zip64=True) as member,
    ):
        member.write(header((size // 4,)))
        for _ in range(size // 1_000_000):
            member.write(bytes(1_000_000))
    assert (folder / "arrays.npz").stat().st_size < 2_000_000
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"bytes that unfold to 4\d\d,\d{3},\d{3}\): train it"):
            EdgeModel.load(folder)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


CRAFTED: dict[str, tuple[dict[str, bytes], str]] = {
    "more than it holds": ({"x.npy": header((10**11,)) + bytes(40)}, "but claims 400,000,000"),
    "less than it holds": ({"x.npy": header((1,)) + bytes(40)}, "x.npy has .* bytes, but claims"),
    "a negative length": ({"x.npy": header((-5,)) + bytes(40)}, "x.npy has .* bytes, but claims"),
    "objects": ({"x.npy": header((5,), "|O") + bytes(40)}, "allow_pickle"),
    "no header": ({"x.npy": b"junk"}, "a header that is not numpy's"),
    "a name twice": ({"bias.npy": header((0,))}, "two arrays of the same name"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("case", CRAFTED)
def test_an_array_of_another_size_than_it_claims_is_refused(folder: Path, case: str) -> None:
    content, message = CRAFTED[case]
    put(folder, content)
    with pytest.raises(ModelError, match=message):
        EdgeModel.load(folder)


def test_an_unknown_compression_is_refused(folder: Path) -> None:
    put(folder, {"x.npy": header((0,))}, zipfile.ZIP_BZIP2)
    with pytest.raises(ModelError, match="an unknown compression"):
        EdgeModel.load(folder)


def without(key: str) -> Callable[[dict[str, object]], object]:
    return lambda head: head.pop(key)


HEADS: dict[str, Callable[[dict[str, object]], object]] = {
    "no provenance": without("about"),
    "an empty provenance": lambda head: head.update(about={}),
    "a provenance of text": lambda head: head.update(about="mine"),
    "no ids": without("ids"),
    "no config": without("config"),
    "a config of numbers": lambda head: head.update(config=[1]),
    "no features": without("features"),
    "features of text": lambda head: head.update(features="x"),
    "no weights": without("mix"),
    "more items": lambda head: head.update(items=10**9),
    "a negative number of candidates": lambda head: head.update(candidates=-1),
    "candidates of text": lambda head: head.update(candidates="5"),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_head_without_a_part_is_refused(folder: Path, case: str) -> None:
    head = json.loads((folder / "model.json").read_text("utf-8"))
    HEADS[case](head)
    (folder / "model.json").write_text(json.dumps(head), "utf-8")
    with pytest.raises(ModelError, match="model"):
        EdgeModel.load(folder)


def config(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda head: head["config"].update(changes)


HUGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "items": lambda head: head.update(items=10**9),
    "candidates": lambda head: head.update(candidates=10**9),
    "width": config(width=10**9),
    "a width that no product fits": config(width=2**62, feed_forward=2**62),
    "history": config(history=10**9),
    "queries": config(queries=10**9),
    "feed_forward": config(width=10**9, feed_forward=10**9),
    "text": config(text=10**9),
    "numeric": config(numeric=10**9),
    "vocabulary": config(vocabulary=[10**9]),
    "many vocabularies": config(vocabulary=[1] * 10**5),
    "tower_width": config(tower_width=10**9),
    "layers": config(size="base", layers=10**9),
    "head_width": config(size="base", head_width=10**9),
}


@pytest.mark.parametrize("case", HUGE)
def test_sizes_are_compared_with_the_arrays_before_memory_is_taken(folder: Path, case: str) -> None:
    head = json.loads((folder / "model.json").read_text("utf-8"))
    HUGE[case](head)
    (folder / "model.json").write_text(json.dumps(head), "utf-8")
    with pytest.raises(ModelError, match="train it again") as refusal, memory_limit(2**29):
        EdgeModel.load(folder)
    assert "alloc" not in str(refusal.value)


@contextmanager
def memory_limit(more: int) -> Iterator[None]:
    """Let the process take ``more`` bytes than it has, so that a failure can't fill the memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


ARRAYS: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "a bias of other candidates": ("bias", lambda array: array[1:]),
    "categories of other items": ("groups", lambda array: array[1:]),
    "text of other items": ("input.text", lambda array: array[1:]),
    "numbers of another width": ("input.numeric", lambda array: np.c_[array, array]),
    "codes beyond the vocabulary": ("input.categories", lambda array: array + 10**6),
    "categories beyond the factors": ("groups", lambda array: array + 10**6),
    "factors of other items": ("rest.inward", lambda array: array[1:]),
    "factors of another rank": ("interest.outward", lambda array: np.c_[array, array]),
    "a table of another width": ("table.history.rows", lambda array: np.c_[array, array]),
    "a scale of other items": ("wide.scale", lambda array: array[1:]),
    "interest of other candidates": ("interest.outward", lambda array: array[1:]),
    "weights of unknown candidates": ("wide.indices", lambda array: array + 10**6),
    "weights of negative candidates": ("wide.indices", lambda array: array - 10**6),
    "rows that overlap": ("wide.indptr", lambda array: np.roll(array, 1)),
    "rows of more weights": ("wide.indptr", lambda array: np.r_[0, 10**12, array[2:]]),
    "weights of text": ("net.bias", lambda array: array.astype(str)),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path: Path, case: str) -> None:
    folder = Path(shutil.copytree(SOURCE.parent / "compressed", tmp_path / "model"))
    name, change = ARRAYS[case]
    with np.load(folder / "arrays.npz") as archive:
        arrays = dict(archive)
    arrays[name] = change(arrays[name])
    np.savez(folder / "arrays.npz", **arrays)
    with pytest.raises(ModelError, match="train it again"):
        EdgeModel.load(folder)


def check_corruptions(folder: Path, count: int) -> None:
    """Damage a model's files at random: it is refused, or it loads."""
    refused = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        name = ("model.json", "arrays.npz")[seed % 2]
        data = bytearray((SOURCE / name).read_bytes())
        at = int(rng.integers(len(data)))
        change = rng.integers(4)
        if change == 0:
            del data[at:]
        elif change == 1:
            del data[at : at + int(rng.integers(1, 100))]
        elif change == 2:
            data[at] ^= 1 << int(rng.integers(8))
        else:
            data[at : at + 50] = rng.bytes(50)
        (folder / name).write_bytes(data)
        try:
            EdgeModel.load(folder)
        except ModelError:
            refused += 1
        (folder / name).write_bytes((SOURCE / name).read_bytes())
    say(f"{count} damaged models: {refused} refused, the others loaded, 0 other errors")
    assert refused > count / 4


def test_a_damaged_model_is_refused_or_loads(folder: Path) -> None:
    check_corruptions(folder, 60)


@pytest.mark.slow
def test_many_damaged_models_are_refused_or_load(folder: Path) -> None:
    check_corruptions(folder, 3000)
