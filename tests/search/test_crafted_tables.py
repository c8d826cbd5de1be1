"""Search tables that were crafted to hide candidates are refused by a full verification."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from helpers.bundles import edit_manifest, replace_array, replace_file
from helpers.counts import say
from helpers.scans import ITEMS, found, full_scan, random_state
from tlrec_edge import BundleError, Recommender
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.search import ivf

CONFIG = SynthConfig(ITEMS, dim=24, interest=8, wide=6, length=8, lists_beyond=0)
HIDDEN = slice(0, ITEMS // 2)
"""The candidates that are hidden from a search."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crafted") / "bundle"
    synthesize(path, CONFIG)
    Recommender.open(path, verify="full").close()
    return path


def lower(columns: np.ndarray, column: int, entries: int) -> np.ndarray:
    columns = columns.astype(int)
    columns[column, HIDDEN] -= entries
    return columns.clip(1, 255).astype(np.uint8)


def scaled(array: np.ndarray, at: Any, factor: float) -> np.ndarray:
    array = array.copy()
    array[at] *= factor
    return array


Craft = Callable[[np.ndarray], np.ndarray]
CRAFTED: dict[str, tuple[str, Craft, str]] = {
    "lower biases": ("head_columns", lambda a: lower(a, -2, 40), "does not bound"),
    "short residuals": ("head_columns", lambda a: lower(a, -1, 3), "does not bound"),
    "another first column": ("head_columns", lambda a: lower(a, 0, 9), "does not bound"),
    "columns of others": (
        "head_columns",
        lambda a: np.ascontiguousarray(np.roll(a, 7, 1)),
        "does not bound",
    ),
    "entries of -128": (
        "head_columns",
        lambda a: np.where(a == a.min(), 0, a).astype(np.uint8),
        "-128",
    ),
    "another rotation": ("head_turn", lambda a: scaled(a, 0, 0.5), "does not bound"),
    "swapped axes": ("head_turn", lambda a: np.ascontiguousarray(a[::-1]), "does not bound"),
    "no rotation": ("head_turn", np.zeros_like, "is not an invertible matrix"),
    "another mean": ("head_mean", lambda a: a - 0.1, "does not bound"),
    "smaller steps": ("head_step", lambda a: scaled(a, 0, 0.9), "does not bound"),
    "a lower offset": ("head_step", lambda a: a - [[0.0], [0.01]], "does not bound"),
    "a shorter longest vector": ("head_reach", lambda a: scaled(a, 0, 0.5), "length of a"),
    "a smaller largest bias": ("head_reach", lambda a: scaled(a, 1, 0.5), "bias of a candidate"),
    "far centroids": ("list_centres", lambda a: scaled(a, slice(0, 20), -1.0), "mean vectors"),
    "centroids of others": ("list_centres", lambda a: a[::-1].copy(), "mean vectors"),
    "low means of biases": (
        "list_centres",
        lambda a: a - np.float32(1) * (np.arange(a.shape[1]) == a.shape[1] - 1),
        "mean vectors",
    ),
    "no spread": ("list_centres", lambda a: scaled(a, np.s_[:20, -2], -1.0), "deviations"),
    "wide spreads of others": (
        "list_centres",
        lambda a: scaled(a, np.s_[20:, -2], 1e6),
        "deviations",
    ),
    "other clusters": (
        "list_starts",
        lambda a: np.r_[0, np.arange(ITEMS - len(a) + 2, ITEMS + 1)],
        "mean vectors",
    ),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_crafted_table_is_refused(path: Path, tmp_path: Path, case: str) -> None:
    name, craft, message = CRAFTED[case]
    copy = Path(shutil.copytree(path, tmp_path / "b"))
    array = np.load(path / f"{name}.npy")
    crafted = craft(array).astype(array.dtype)
    assert crafted.shape == array.shape
    replace_array(copy, f"{name}.npy", crafted)
    with pytest.raises(BundleError, match=rf"{copy}.*{message}"):
        Recommender.open(copy, verify="full")
    Recommender.open(copy, verify="size").close()


def test_another_number_of_clusters_is_refused(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "b"))
    edit_manifest(copy, lambda manifest: manifest["index"].update(lists=3))
    with pytest.raises(BundleError, match=r"manifest\.json says 3 clusters .* list_starts"):
        Recommender.open(copy, verify="full")


def test_a_graph_with_other_products_in_the_middle_is_refused(path: Path, tmp_path: Path) -> None:
    """A graph that is right for the first and the last columns, which every process compares."""
    copy = Path(shutil.copytree(path, tmp_path / "b"))
    graph = onnx.load(path / "head_scan.onnx", load_external_data=False)
    correction = np.zeros((1, len(np.load(path / "head_columns.npy")[0])), np.int32)
    correction[0, 5000] = -9
    graph.graph.initializer.append(numpy_helper.from_array(correction, "correction"))
    nodes = list(graph.graph.node)
    nodes[0].output[0] = "right"
    add = onnx.helper.make_node("Add", ["right", "correction"], ["products"])
    del graph.graph.node[:]
    graph.graph.node.extend([nodes[0], add, *nodes[1:]])
    replace_file(copy, "head_scan.onnx", graph.SerializeToString())
    with pytest.raises(BundleError, match=r"head_scan\.onnx"):
        Recommender.open(copy, verify="full")


def changed(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an array with one entry, column or row changed, by a little or by much."""
    array = array.copy()
    at = tuple(int(rng.integers(size)) for size in array.shape)
    part: Any = at
    if array.ndim == 2:
        part = ((at[0],), (slice(None), at[1]), at)[rng.integers(3)]
    if array.dtype.kind == "f":
        array[part] *= 1 + rng.choice([1e-12, -1e-6, 1e-3, -0.01, 0.5, -2.0])
    else:
        moved = array[part].astype(np.int64) + rng.choice([-40, -2, -1, 1, 2, 40])
        limits = np.iinfo(np.uint8) if array.dtype == np.uint8 else np.iinfo(np.int64)
        array[part] = np.clip(moved, max(limits.min, 0), limits.max)
    return array


TABLES = ("head_columns", "head_turn", "head_mean", "head_step", "head_reach", "list_centres")


def check_changes(path: Path, tmp_path: Path, count: int) -> None:
    """Change a table at random: it is refused, or a search still equals a full scan."""
    copy = Path(shutil.copytree(path, tmp_path / "b"))
    refused = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        name = f"{TABLES[seed % len(TABLES)]}.npy"
        replace_array(copy, name, changed(np.load(path / name), rng))
        try:
            rec = Recommender.open(copy, verify="full")
        except BundleError:
            refused += 1
        else:
            with rec:
                for _ in range(5):
                    state = random_state(rec, rng)
                    assert found(rec, state, 10) == full_scan(rec, state, 10), (seed, name)
        replace_array(copy, name, np.load(path / name))
    say(f"{count} changes of search tables: {refused} refused, the others harmless")
    assert 0 < refused < count


def test_a_changed_table_is_refused_or_harmless(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ivf, "MAX_PROBED_FRACTION", 0)  # the prefix bound answers
    check_changes(path, tmp_path, 18)


@pytest.mark.slow
def test_many_changed_tables_are_refused_or_harmless(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ivf, "MAX_PROBED_FRACTION", 0)
    check_changes(path, tmp_path, 400)
