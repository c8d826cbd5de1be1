"""Wrong arrays, strings, features and graphs of a bundle are found and named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers import bundles
from helpers.bundles import agree, replace_array, replace_file
from tlrec_edge import BundleError, Recommender
from tlrec_edge.bench.pooling_encoder import pooling_encoder
from tlrec_edge.bundle.reader import Bundle

ARRAYS = {
    "dtype": ("candidate_bias.npy", np.zeros(60), "holds <f8, expected <f4"),
    "big endian": ("candidate_bias.npy", np.zeros(60, ">f4"), "holds >f4"),
    "shape": ("candidate_bias.npy", np.zeros(59, "f4"), r"shape \(59,\), expected \(60,\)"),
    "axes": ("candidate_bias.npy", np.zeros((60, 1), "f4"), "has shape"),
    "order": ("candidate_rows.npy", np.zeros((60, 12), "i1", order="F"), "Fortran"),
    "object": ("candidate_bias.npy", np.array([None] * 60), r"holds \|O"),
    "indptr": ("wide_indptr.npy", np.zeros(81, "i8"), "does not end at"),
    "offsets": ("item_names.offsets.npy", np.zeros(81, "i8"), "does not end at"),
    "buckets": ("item_ids.buckets.npy", np.zeros(4, "i4"), "not an index of 80 ids"),
    "users": ("user_rows.npy", np.zeros((3, 12), "f4"), "has 3 users"),
    "rows": ("users.rows.npy", np.zeros(3, "i4"), "not an index of 2 ids"),
    "hashes": ("users.hashes.npy", np.zeros(1, "u4"), "not an index of 2 ids"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_wrong_arrays_are_found_at_once(bundle: Path, case: str) -> None:
    name, array, message = ARRAYS[case]
    if array.dtype == object:
        np.save(bundle / name, array, allow_pickle=True)
        agree(bundle, name)
    else:
        replace_array(bundle, name, array)
    with pytest.raises(BundleError, match=f"{name}.*{message}"):
        Bundle.open(bundle)


CONTENTS = {
    "column": ("wide_columns.npy", 0, 60, "index outside 0..59"),
    "group": ("groups.npy", (0, 0), 5, "index outside -1..4"),
    "nan": ("candidate_bias.npy", 0, np.nan, "NaN"),
    "order": ("wide_indptr.npy", 1, 10**6, "ascending order"),
    "row": ("item_ids.rows.npy", 0, -1, "index outside"),
    "user row": ("users.rows.npy", 0, 2, r"index outside 0\.\.1"),
    "same row": ("item_ids.rows.npy", slice(None), 3, "the same row twice"),
    "hash": ("users.hashes.npy", 0, 7, r"hashes of the ids in users\.bytes"),
    "bucket": ("item_ids.buckets.npy", slice(1, -1), 0, "in which no lookup finds them"),
    "empty id": ("users.offsets.npy", 1, 0, "empty id"),
    "id bytes": ("item_ids.bytes.npy", 0, 0xFF, "not UTF-8"),
    "name bytes": ("item_names.bytes.npy", 5, 0x80, "not UTF-8"),
    "int8": ("candidate_rows.npy", (0, 0), -128, "value -128"),
    "history int8": ("history_rows.npy", (9, 1), -128, "value -128"),
    "nan scale": ("history_scale.npy", 0, np.nan, "NaN"),
    "huge scale": ("candidate_scale.npy", (0, 0), 1e30, "values above"),
    "negative scale": ("history_scale.npy", 0, -0.01, "negative scale"),
}
"""Invalid values in files whose size and hash agree with the manifest."""


@pytest.mark.parametrize("case", CONTENTS)
def test_full_verification_reads_the_values(bundle: Path, case: str) -> None:
    name, at, value, message = CONTENTS[case]
    array = np.load(bundle / name)
    array[at] = value
    replace_array(bundle, name, array)
    with pytest.raises(BundleError, match=f"{name}.*{message}.*again"):
        Bundle.open(bundle, verify="full")


def test_the_columns_of_a_user_must_be_ascending(tmp_path: Path) -> None:
    bundles.build(tmp_path / "b", users=[f"u{row}" for row in range(20)])
    columns = np.load(tmp_path / "b" / "user_wide_columns.npy")
    replace_array(tmp_path / "b", "user_wide_columns.npy", np.full_like(columns, 3))
    with pytest.raises(
        BundleError, match=r"user_wide_columns\.npy is not in ascending order within a row"
    ):
        Bundle.open(tmp_path / "b", verify="full")


def test_a_string_that_starts_inside_a_character(tmp_path: Path) -> None:
    bundles.build(tmp_path / "b", ids=["é", *(f"i{row}" for row in range(1, 80))])
    offsets = np.load(tmp_path / "b" / "item_names.offsets.npy")
    offsets[1] -= 1  # the name of row 0 ends in é
    replace_array(tmp_path / "b", "item_names.offsets.npy", offsets)
    with pytest.raises(BundleError, match=r"item_names\.bytes\.npy is not UTF-8"):
        Bundle.open(tmp_path / "b", verify="full")


SCHEMA = {
    "text_columns": ["title"],
    "vocabulary": {"colour": ["red", "blue"]},
    "quantiles": {"price": [1.0, 2.0]},
}
FEATURES = {
    "no JSON": b"{",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"text_columns": ["\xff"]}',
    "a string for a list": json.dumps(SCHEMA | {"text_columns": "title"}).encode(),
    "numbers for words": json.dumps(SCHEMA | {"vocabulary": {"colour": [1, 2]}}).encode(),
    "falling knots": json.dumps(SCHEMA | {"quantiles": {"price": [2.0, 1.0]}}).encode(),
    "no knots": json.dumps(SCHEMA | {"quantiles": {"price": []}}).encode(),
    "NaN": json.dumps(SCHEMA | {"quantiles": {"price": [float("nan")]}}).encode(),
}


@pytest.mark.parametrize("case", FEATURES)
def test_full_verification_reads_the_feature_schema(bundle: Path, case: str) -> None:
    replace_file(bundle, "features.json", FEATURES[case])
    with pytest.raises(BundleError, match=r"features\.json is not a valid feature schema .*again"):
        Recommender.open(bundle, verify="full")
    with (
        Recommender.open(bundle) as rec,
        pytest.raises(BundleError, match="is not a valid feature schema"),
    ):
        rec.add_items({"new": {"title": "mug"}})


def test_full_verification_runs_the_item_tower(bundle: Path) -> None:
    tower = (bundle / "item_tower.onnx").read_bytes()
    replace_file(bundle, "item_tower.onnx", tower[:-40] + b"not a graph" + tower[-29:])
    with pytest.raises(BundleError, match=r"item_tower\.onnx: value 'history': .*not allowed"):
        Recommender.open(bundle, verify="full")
    replace_file(bundle, "item_tower.onnx", bundles.item_tower(9, np.random.default_rng(0)))
    with pytest.raises(BundleError, match=r"item_tower\.onnx: the output 'history' has shape"):
        Recommender.open(bundle, verify="full")
    replace_file(bundle, "item_tower.onnx", tower)
    more = SCHEMA | {"vocabulary": {"colour": ["red", "blue", "green", "grey"]}}
    replace_file(bundle, "features.json", json.dumps(more).encode())
    with pytest.raises(BundleError, match=r"item_tower\.onnx does not run"):
        Recommender.open(bundle, verify="full")


def test_a_file_that_is_read_completely_is_hashed(bundle: Path) -> None:
    for name in ("encoder.onnx", "features.json"):
        content = (bundle / name).read_bytes()
        (bundle / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with (
            pytest.raises(BundleError, match=f"{name} was altered: its SHA-256 differs"),
            Recommender.open(bundle) as rec,
        ):
            rec.add_items({"new": {"title": "mug"}})
        (bundle / name).write_bytes(content)


def test_a_damaged_table_is_reported_when_it_is_used(bundle: Path) -> None:
    values = {"candidate_bias.npy": np.nan, "wide_columns.npy": 10**6, "item_names.bytes.npy": 0xFF}
    for name, value in values.items():
        array = np.load(bundle / name)
        replace_array(bundle, name, np.full_like(array, value))
        with Recommender.open(bundle) as rec, pytest.raises(BundleError, match=f"{bundle}.*again"):
            rec.recommend(["i3", "i4"], 80)
        replace_array(bundle, name, array)


@pytest.mark.parametrize("content", [b"", b"junk", b"\x93NUMPY\x09\x00" + b" " * 100])
def test_a_file_that_is_not_an_array(bundle: Path, content: bytes) -> None:
    (bundle / "candidate_bias.npy").write_bytes(content)
    with pytest.raises(BundleError, match=r"candidate_bias\.npy"):
        Bundle.open(bundle, verify="none")


def test_graphs_are_checked_at_opening(bundle: Path) -> None:
    good = (bundle / "encoder.onnx").read_bytes()
    (bundle / "encoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"encoder\.onnx: it is not an ONNX file.*again"):
        Recommender.open(bundle, verify="none")
    (bundle / "encoder.onnx").write_bytes(pooling_encoder(9, 6, 0))
    with pytest.raises(
        BundleError, match=r"encoder\.onnx: the input 'history' has shape .*expected \[None, 6, 8\]"
    ):
        Recommender.open(bundle, verify="none")
    (bundle / "encoder.onnx").write_bytes((bundle / "item_tower.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"it has the inputs .* expected"):
        Recommender.open(bundle, verify="none")
    (bundle / "encoder.onnx").write_bytes(good)
    Recommender.open(bundle, verify="full")
