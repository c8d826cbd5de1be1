"""Results are kept by content, within a size, and never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tlrec_edge.core.result_cache import ResultCache, content_key

VALUES = {"a": np.arange(6).reshape(2, 3), "text": np.array("{}")}


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path / "cache")
    assert cache.get("k") is None
    cache.put("k", VALUES)
    stored = cache.get("k")
    assert stored is not None
    assert stored.keys() == VALUES.keys()
    for name, values in VALUES.items():
        np.testing.assert_array_equal(stored[name], values)


def test_the_least_recently_used_results_are_deleted(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path, max_bytes=30_000)
    block = {"x": np.zeros(1000)}  # 8 kB
    for number, name in enumerate("abc"):
        cache.put(name, block)
        os.utime(tmp_path / f"{name}.npz", (number, number))
    assert cache.get("a") is not None  # "b" is now the oldest
    cache.put("d", block)
    assert [name for name in "abcd" if cache.get(name) is None] == ["b"]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 30_000


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nonsense", b"\x93NUMPY"])
def test_a_damaged_result_is_dropped(tmp_path: Path, damage: bytes) -> None:
    cache = ResultCache(tmp_path)
    cache.put("k", VALUES)
    (tmp_path / "k.npz").write_bytes(damage)
    assert cache.get("k") is None
    cache.put("k", VALUES)
    assert cache.get("k") is not None


def test_pickles_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "k.npz", x=np.array([{}], dtype=object))
    assert ResultCache(tmp_path).get("k") is None


def test_a_folder_that_cannot_be_written_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = ResultCache(tmp_path / "file")
    cache.put("k", VALUES)
    assert cache.get("k") is None
    assert (tmp_path / "file").read_text() == "not a folder"


parts = st.lists(
    st.one_of(
        st.integers(-5, 5),
        st.text(max_size=3),
        arrays(np.int32, st.integers(0, 3), elements=st.integers(0, 2)),
    ),
    max_size=4,
)


@given(parts, parts)
def test_other_contents_have_other_keys(first: list[object], second: list[object]) -> None:
    assert (content_key(*first) == content_key(*second)) == (repr(first) == repr(second))
