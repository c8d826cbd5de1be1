"""Rows of 8, 6 and 4 bits: packing is lossless, errors are bounded, and dot products are exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers import bundles
from helpers.bundles import edit_manifest, replace_array, replace_file, use
from tlrec_edge import BundleError, Recommender
from tlrec_edge.bundle.format import Storage, column_dtype
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.packing import ROW_KINDS, RowFormat, pack, packed_width, unpack
from tlrec_edge.core.rowwise import MAX_ENTRY, exact_limit, quantize_rows, quantize_sparse

finite = st.floats(-1e6, 1e6, width=32)
some_vectors = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(0, 9)), elements=finite
)
QUANTIZED = [kind for kind in ROW_KINDS if kind != "float32"]
STORED = {
    "int6": Storage("int6", "int6", "int6", "int6"),
    "int4": Storage("int4", "int4", "int4", "int4", "int8"),
    "mixed": Storage("int6", "int4", "int8", "int8", "int8"),
    "other": Storage("float32", "int6", "int4", "int4"),
    "weights": Storage("int8", "int8", "int8", "int8", "int8"),
    "floats": Storage("float32", "float32", "float32", "float32", "int8"),
}


@given(st.data(), st.sampled_from([4, 6]), st.integers(0, 6), st.integers(0, 13))
def test_packing_keeps_every_entry(data: st.DataObject, bits: int, n: int, width: int) -> None:
    largest = MAX_ENTRY[bits]
    rows = data.draw(
        arrays.arrays(np.int8, (n, width), elements=st.integers(-largest - 1, largest))
    )
    packed = pack(rows, bits)
    assert (packed.dtype, packed.shape) == (np.dtype(np.uint8), (n, packed_width(width, bits)))
    assert packed_width(width, bits) <= -(-width // 4) * bits // 2
    np.testing.assert_array_equal(unpack(packed, width, bits), rows)


def test_the_layout_is_that_of_the_documentation() -> None:
    assert pack(np.array([[-8, 7, 0, 1, 2]], np.int8), 4).tolist() == [
        [9 << 4, 15 | 10 << 4, 8 | 8 << 4]
    ]
    last = 0b10_01_11
    expected = [[32 | 0b11 << 6, 33 | 0b01 << 6, 34 | 0b10 << 6]]
    assert pack(np.array([[0, 1, 2, last - 32]], np.int8), 6).tolist() == expected


@given(some_vectors, st.sampled_from(list(MAX_ENTRY)))
def test_an_error_is_at_most_half_a_scale_except_for_clipped_entries(
    vectors: np.ndarray, bits: int
) -> None:
    rows, scale = quantize_rows(vectors, bits)
    assert (np.abs(rows.astype(int)) <= MAX_ENTRY[bits]).all()
    assert (scale > 0).all()
    assert scale.dtype == (
        np.float32
        if bits == 8 or np.abs(vectors).max(initial=0) > 65_504 * MAX_ENTRY[bits]
        else np.float16
    )
    step = scale.astype(np.float64)[:, None]
    error = np.abs(rows * step - vectors)
    beyond = np.abs(vectors) - MAX_ENTRY[bits] * step
    assert (error <= np.maximum(step * 0.5001, beyond * 1.0001) + 1e-30).all()
    largest = np.abs(vectors).max(1, initial=0.0).astype(np.float64)
    unclipped = largest / MAX_ENTRY[bits] / 2 * 1.01 + 1e-6
    assert ((error**2).sum(1) <= vectors.shape[1] * unclipped**2 * 1.01).all()


def test_clipping_pays_for_vectors_with_one_large_entry() -> None:
    vectors = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32)
    errors = []
    for scales in (
        quantize_rows(vectors, 4)[1].astype(np.float32),
        np.abs(vectors).max(1) / np.float32(7),
    ):
        rows = np.clip(np.rint(vectors / scales[:, None]), -7, 7)
        errors.append(float(np.square(rows * scales[:, None] - vectors).mean()))
    assert errors[0] < 0.9 * errors[1]


def test_scales_beyond_float16_stay_float32() -> None:
    rows, scale = quantize_rows(np.array([[1e6, 5e5], [0, 0]], np.float32), 4)
    assert scale.dtype == np.float32
    np.testing.assert_allclose(rows * scale[:, None], np.array([[1e6, 5e5], [0, 0]]), rtol=0.2)
    with pytest.raises(ValueError, match="bits = 5, expected one of 8, 6, 4"):
        quantize_rows(np.zeros((1, 1), np.float32), 5)


@given(st.data(), st.integers(1, 6))
def test_the_error_of_sparse_weights_is_at_most_half_a_scale(
    data: st.DataObject, rows: int
) -> None:
    lengths = data.draw(arrays.arrays(np.int64, rows, elements=st.integers(0, 4)))
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    values = data.draw(
        arrays.arrays(np.float32, int(indptr[-1]), elements=st.floats(-100, 100, width=32))
    )
    entries, scale = quantize_sparse(values, indptr)
    step = np.repeat(scale.astype(np.float64), lengths)
    assert (np.abs(entries * step - values) <= step * 0.501).all()
    assert (entries.dtype, scale.shape) == (np.dtype(np.int8), (rows,))


@given(st.data(), st.tuples(*[st.tuples(st.sampled_from(QUANTIZED), st.integers(0, 11))] * 2))
def test_a_query_gives_the_exact_dot_products(
    data: st.DataObject, tables: tuple[tuple[str, int], ...]
) -> None:
    row_format = RowFormat(*tables)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = [
        rng.integers(-MAX_ENTRY[int(k[3:])], MAX_ENTRY[int(k[3:])] + 1, (7, width)).astype(np.int8)
        for k, width in tables
    ]
    stored = row_format.join(rows)
    assert (stored.dtype, stored.shape) == (row_format.dtype, (7, row_format.width))
    assert row_format.invalid_value(stored) is None
    block = row_format.widen(stored)
    np.testing.assert_array_equal(
        row_format.widen(stored, np.full((7, row_format.columns), np.nan, np.float32)), block
    )
    for table, (part, (_, width)) in enumerate(zip(rows, tables, strict=True)):
        np.testing.assert_array_equal(row_format.values(stored, table), part)
        limit = exact_limit(width)
        user = rng.integers(-limit, limit + 1, width)
        sums = row_format.query(table, user.astype(np.float32)).dot(block)
        np.testing.assert_array_equal(sums, part.astype(np.int64) @ user)


def test_the_largest_sums_are_exact() -> None:
    for kind in QUANTIZED:
        for width in (64, 65, 256):
            row_format, largest = RowFormat((kind, width)), MAX_ENTRY[int(kind[3:])]
            rows = np.array(
                [
                    [largest] * width,
                    [-largest] * width,
                    [largest, -largest] * (width // 2) + [0] * (width % 2),
                ],
                np.int8,
            )
            user = np.full(width, exact_limit(width), np.float32)
            sums = row_format.query(0, user).dot(row_format.widen(row_format.join([rows])))
            np.testing.assert_array_equal(sums, rows.astype(np.int64).sum(1) * exact_limit(width))


def test_float32_and_quantized_tables_cannot_share_a_row() -> None:
    with pytest.raises(ValueError, match="float32, int4 in one row"):
        RowFormat(("float32", 3), ("int4", 3))


@pytest.fixture(scope="module", params=STORED)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("stored") / request.param
    bundles.build(path, storage=STORED[request.param], d=7, r=5, users=["ann"])
    return path


@pytest.fixture
def rec(path: Path) -> Iterator[Recommender]:
    with Recommender.open(path) as opened:
        yield opened


def test_the_manifest_has_the_format_of_each_table(path: Path) -> None:
    bundle = Bundle.open(path, verify="full")
    kinds = STORED[path.name]
    assert bundle.manifest["tables"] == vars(kinds)
    assert bundle.shape.tables == kinds
    assert bundle.array("wide_columns").dtype == (np.uint16 if kinds.wide == "int8" else np.int32)
    half = kinds.history not in ("int8", "float32")
    assert bundle.array("history_scale").dtype == (np.float16 if half else np.float32)
    Recommender.open(path, verify="full").close()


def test_a_pair_has_the_same_bits_alone_and_in_any_batch(rec: Recommender) -> None:
    assert rec.deterministic == (STORED[rec._open().bundle.path.name].candidate != "float32")
    if not rec.deterministic:
        return
    rec.add_items(
        {"new": {"title": "red mug", "colour": "red", "price": 2}, "too": {"title": "jug"}}
    )
    names = [*(f"i{row}" for row in range(60)), "new", "too"]
    rng = np.random.default_rng(0)
    for history in (["i3"], [f"i{row}" for row in range(40, 80)], ["new", "i1", "i1"]):
        state = rec.user_state(history)
        scores = rec.score(state, names)
        assert [rec.score(state, [name])[0] for name in names] == scores.tolist()
        order = rng.permutation(62)
        assert rec.score(state, [names[i] for i in order]).tolist() == scores[order].tolist()
        assert rec._open().catalogue.scorer.score_all(state).tolist() == scores.tolist()
        ranked = rec.recommend(state, 62, exclude=None)
        assert dict(zip(ranked.items, ranked.scores.tolist(), strict=True)) == dict(
            zip(names, scores.tolist(), strict=True)
        )
    assert rec.score("ann", ["i5"])[0] == rec.score("ann", names)[5]
    assert len(rec.similar("new", 100).items) == 61


@pytest.mark.parametrize(
    "name", ["history_rows", "candidate_rows", "wide_values", "history_scale", "taste_rows"]
)
def test_the_error_names_a_file_that_is_cut_short_or_altered(
    path: Path, tmp_path: Path, name: str
) -> None:
    bundles.build(tmp_path / "b", storage=STORED[path.name], d=7, r=5, users=["ann"])
    file = tmp_path / "b" / f"{name}.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{name}.*SHA-256"):
        Recommender.open(tmp_path / "b", verify="full")
    file.write_bytes(content[:-1])
    with pytest.raises(BundleError, match=f"{name}.*cut"):
        Recommender.open(tmp_path / "b", verify="none")
    array = np.load(path / f"{name}.npy")
    file.write_bytes(content)
    replace_array(tmp_path / "b", f"{name}.npy", array.astype(np.int16))
    with pytest.raises(BundleError, match=f"{name}.*holds <i2"):
        Bundle.open(tmp_path / "b")


@pytest.mark.parametrize(("kind", "byte"), [("int4", 0x80), ("int6", 0x80), ("mixed", 0x80)])
def test_full_verification_reads_packed_entries(tmp_path: Path, kind: str, byte: int) -> None:
    bundles.build(tmp_path / "b", storage=STORED[kind])
    rows = np.load(tmp_path / "b" / "candidate_rows.npy")
    rows[3, -1 if kind == "mixed" else 0] = byte
    if kind == "int6":
        rows[3, 0] = 0
    replace_array(tmp_path / "b", "candidate_rows.npy", rows)
    with pytest.raises(
        BundleError, match=r"candidate_rows\.npy holds the value -(8|32|128), outside"
    ):
        Bundle.open(tmp_path / "b", verify="full")


BAD = {
    "a kind": (
        {"candidate": "int5"},
        "tables: candidate = 'int5', expected one of float32, int8, int6, int4",
    ),
    "a name": ({"codes": "pq"}, "tables: 'codes' is not known"),
    "weights": ({"wide": "int4"}, "tables: wide = 'int4', expected one of float32, int8"),
    "a list": ({"taste": ["int8"]}, "tables: taste = "),
    "floats": ({"taste": "float32"}, "float32, int6 in one row"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_unknown_storage_format_is_an_error_that_names_it(tmp_path: Path, case: str) -> None:
    bundles.build(tmp_path / "b", storage=STORED["int6"])
    change, message = BAD[case]
    edit_manifest(tmp_path / "b", lambda manifest: manifest["tables"].update(change))
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(tmp_path / "b")
    assert "\n" not in str(caught.value)


def test_a_format_per_table_needs_its_manifest_entries(tmp_path: Path) -> None:
    bundles.build(tmp_path / "b", storage=STORED["int6"])
    for change, message in (
        (lambda m: m["weights"].update({"deep": 1e300}), "weights = "),
        (lambda m: m["model"].update({"taste": 5}), "taste = 5, expected 0..4"),
        (lambda m: m["tables"].pop("wide"), "'wide' is missing"),
        (lambda m: m.update({"tables": "int6"}), "tables = 'int6', expected one of int8, float32"),
        (lambda m: m.pop("weights"), "has no entry 'weights'"),
    ):
        edit_manifest(tmp_path / "b", change)
        with pytest.raises(BundleError, match=message):
            Bundle.open(tmp_path / "b")
        bundles.build(tmp_path / "b", storage=STORED["int6"])


def test_a_storage_format_has_a_short_name() -> None:
    assert str(Storage("int8", "int8", "int8", "int8")) == "int8"
    assert str(STORED["int6"]) == "int6"
    assert str(STORED["int4"]) == "int4, wide int8"
    assert (
        str(STORED["mixed"]) == "history int6, candidate int4, taste_in int8, taste int8, wide int8"
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # from numpy, before the error
@pytest.mark.parametrize(
    "name",
    [
        "history_rows",
        "candidate_rows",
        "taste_rows",
        "candidate_scale",
        "wide_columns",
        "wide_values",
        "wide_scale",
    ],
)
def test_any_damaged_byte_gives_a_bundle_error_or_finite_scores(tmp_path: Path, name: str) -> None:
    bundles.build(tmp_path / "b", storage=STORED["mixed"], users=["ann", "bob"])
    rng = np.random.default_rng(0)
    content = (tmp_path / "b" / f"{name}.npy").read_bytes()
    for trial in range(12):
        damaged = bytearray(content)
        at = int(rng.integers(len(content) if trial % 2 else min(128, len(content))))
        damaged[at : at + 1 + trial % 8] = rng.bytes(1 + trial % 8)
        replace_file(tmp_path / "b", f"{name}.npy", bytes(damaged))
        for verify in ("full", "size"):
            try:
                messages = use(Recommender.open(tmp_path / "b", verify=verify))
            except BundleError as error:
                messages = [str(error)]
            assert not [message for message in messages if "\n" in message]


def test_columns_are_uint16_if_they_fit() -> None:
    assert column_dtype(65_536) == np.uint16
    assert column_dtype(65_537) == np.int32


@given(st.sampled_from(ROW_KINDS), st.integers(0, 5), st.integers(0, 9))
def test_values_read_what_quantize_stored(kind: str, n: int, width: int) -> None:
    vectors = np.random.default_rng(n).standard_normal((n, width)).astype(np.float32)
    row_format = RowFormat((kind, width))
    stored, scale = row_format.quantize(vectors)
    assert (stored.shape, scale.shape) == ((n, row_format.width), (n, 1))
    decoded = row_format.values(stored) * scale
    np.testing.assert_allclose(
        decoded, vectors, atol=0.0 if kind == "float32" else 3.0 / MAX_ENTRY[int(kind[3:])]
    )
