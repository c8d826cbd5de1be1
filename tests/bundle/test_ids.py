from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlrec_edge import BundleError, DataError
from tlrec_edge.bundle import id_index as id_index_module
from tlrec_edge.bundle.id_index import IdIndex, build_index
from tlrec_edge.bundle.ids import user_key_hash
from tlrec_edge.bundle.string_table import StringTable, build_strings

any_text = st.text(min_size=1, max_size=30)
requested_text = st.text(st.characters(), max_size=30)  # with lone surrogates
# Few letters, so that many ids are prefixes of one another, also with a NUL at the end.
similar_text = st.text("a\0é", max_size=4)
similar_requested = st.text("a\0é\ud800", max_size=4)


def make(values: list[str]) -> IdIndex:
    data, offsets = build_strings(values)
    return IdIndex(data, offsets, build_index(data, offsets))


@given(st.lists(any_text, unique=True, max_size=60), st.lists(requested_text, max_size=20))
@settings(max_examples=150)
def test_every_id_finds_its_row_and_no_other_does(values: list[str], others: list[str]) -> None:
    index = make(values)
    expected = {value: row for row, value in enumerate(values)}
    requested = [*values, *others]
    for _ in range(2):  # first from the index, then from the cache
        assert index.rows(requested).tolist() == [expected.get(value, -1) for value in requested]


@given(
    st.lists(similar_text.filter(len), unique=True, max_size=40),
    st.lists(st.lists(similar_requested, max_size=30), max_size=4),
)
@settings(max_examples=150)
def test_similar_ids_of_which_some_are_cached(values: list[str], batches: list[list[str]]) -> None:
    index = make(values)
    expected = {value: row for row, value in enumerate(values)}
    for requested in batches:  # later batches find ids of earlier ones in the cache
        assert index.rows(requested).tolist() == [expected.get(value, -1) for value in requested]


@given(
    st.lists(st.integers(-(2**70), 2**70), unique=True, max_size=40), st.lists(st.integers(-50, 50))
)
def test_integers_are_found_by_their_digits(values: list[int], others: list[int]) -> None:
    index = make([str(value) for value in values])
    requested: list[str | int] = [*others, *values, *map(str, values)]
    expected = {str(value): row for row, value in enumerate(values)}
    assert index.rows(requested).tolist() == [expected.get(str(value), -1) for value in requested]


@pytest.mark.parametrize("row", [-1, 2, 10**9])
def test_a_row_outside_a_string_table_is_an_error(row: int) -> None:
    table = StringTable(*build_strings(["a", "b"]), "names.npy")
    with pytest.raises(BundleError, match=rf"names\.npy has 2 rows.*refers to row {row}; copy"):
        table.take([0, row])
    with pytest.raises(IndexError):
        table[row]


@given(st.lists(st.text(max_size=20), max_size=40))
def test_strings_come_back(values: list[str]) -> None:
    table = StringTable(*build_strings(values))
    assert table.take(range(len(values))) == values


def test_a_hash_collision_never_gives_the_wrong_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zlib, "crc32", lambda data, seed: 7)
    index = make(["a", "b", "cc", "a" * 50])
    assert index.rows(["cc", "b", "nope", "c", "a" * 50, "a"]).tolist() == [2, 1, -1, -1, 3, 0]
    with pytest.raises(DataError, match="rows 1 and 3"):
        make(["x", "same", "y", "same"])


def test_ids_made_to_collide_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zlib, "crc32", lambda data, seed: 7)
    assert make([f"i{row}" for row in range(1024)]).row("i1023") == 1023
    with pytest.raises(DataError, match=r"1,025 of id have the same hash"):
        make([f"i{row}" for row in range(1025)])


def test_a_damaged_bucket_is_an_error_before_it_takes_memory() -> None:
    data, offsets = build_strings([f"i{row}" for row in range(4)])
    index = build_index(data, offsets)
    index["buckets"][1:] = 2**31 - 1
    with pytest.raises(BundleError, match=r"entries in the buckets of 50 ids.*again"):
        IdIndex(data, offsets, index).rows([f"i{row}" for row in range(50)])


def test_duplicates_and_empty_ids_are_refused() -> None:
    with pytest.raises(DataError, match="'b' is in rows 1 and 2"):
        make(["a", "b", "b"])
    with pytest.raises(DataError, match="2 is empty"):
        make(["a", "b", ""])


def test_long_odd_and_integer_ids() -> None:
    values = ["x" * 10_000, "x" * 9_999 + "y", "a,b", ' "q" ', "🛒", "42", "\u2028", "-7"]
    index = make(values)
    assert index.rows(values).tolist() == list(range(8))
    assert index.rows([42, -7, 43]).tolist() == [5, 7, -1]
    assert index.rows(np.array([42, 43])).tolist() == [5, -1]
    assert index.rows(np.array(["42", "🛒"])).tolist() == [5, 4]
    assert index.rows([""]).tolist() == [-1]
    assert index.rows([]).tolist() == []


@pytest.mark.parametrize("value", [1.0, None, True, b"42", ("a",)])
def test_other_types_of_id_are_an_error_even_if_an_equal_id_is_cached(value: object) -> None:
    index = make(["1", "1.0", "None", "True"])
    index.rows([1])
    with pytest.raises(DataError, match="an id must be a string or an integer"):
        index.rows([value])  # type: ignore[list-item]  # what is tested


def test_the_cache_is_bounded_and_keeps_known_ids_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_index_module, "_CACHED_IDS", 10)
    index = make([str(i) for i in range(100)])
    for start in range(0, 100, 5):
        assert index.rows(list(range(start, start + 5))).tolist() == list(range(start, start + 5))
        index.rows([f"made up {i}" for i in range(50)])
        assert len(index._cache) <= 10
    assert index.rows(list(range(100))).tolist() == list(range(100))


def test_user_hash_is_keyed() -> None:
    assert user_key_hash("u1", "00ff") != user_key_hash("u1", "01ff")
    assert len(user_key_hash("u1", "00ff")) == 32


LONE = ["\ud800", "a\udfff", "\udc80b", "🛒\ud83d"]


@pytest.mark.parametrize("value", LONE)
def test_an_id_with_a_lone_surrogate_is_not_written_and_not_found(value: str) -> None:
    with pytest.raises(DataError, match=r"'.*\\ud.*' is not valid Unicode text"):
        build_strings(["a", value, "b"])
    assert make(["a", "b"]).rows([value, "b"]).tolist() == [-1, 1]


@pytest.mark.parametrize("value", LONE)
def test_a_stored_string_with_a_lone_surrogate_is_damage(value: str) -> None:
    data = np.frombuffer(value.encode("utf-8", "surrogatepass"), np.uint8)
    table = StringTable(data, np.array([0, len(data)]), "names.npy")
    with pytest.raises(BundleError, match=r"names\.npy has a row that is not UTF-8"):
        table[0]
