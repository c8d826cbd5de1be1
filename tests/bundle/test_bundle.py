"""The content of a bundle, and the errors for every kind of damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import bundles
from helpers.bundles import agree, edit_manifest, replace_array, replace_file, use, write_manifest
from tlrec_edge import BundleError, DataError, Recommender
from tlrec_edge.bench.pooling_encoder import pooling_encoder
from tlrec_edge.bundle.arrays import required_arrays
from tlrec_edge.bundle.format import ModelShape
from tlrec_edge.bundle.reader import Bundle, write_bundle
from tlrec_edge.errors import ArgumentError


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "master"
    bundles.build(path, users=["ann", "bob"])
    return path


@pytest.fixture
def bundle(master: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(master, tmp_path / "bundle"))


def test_arrays_are_read_as_they_were_written(master: Path) -> None:
    bundle = Bundle.open(master, verify="full")
    small = bundles.Small(users=["ann", "bob"])
    expected = bundles.tables(small, np.random.default_rng(0))
    for name, array in expected.items():
        assert np.array_equal(bundle.array(name), array), name
    assert set(required_arrays(bundle.shape)) <= set(bundle.manifest["files"])
    assert bundle.strings("item_names")[3] == "name of i3"
    assert not bundle.array("candidate_rows").flags.writeable


def test_hashed_user_ids_are_not_in_the_bundle(master: Path) -> None:
    assert not [file.name for file in master.iterdir() if b"ann" in file.read_bytes()]


def every_file() -> list[str]:
    shape = bundles.manifest(bundles.Small())["model"]
    names = required_arrays(ModelShape.from_manifest({"model": shape, "tables": "int8"}))
    return [
        *names,
        "encoder.onnx",
        "item_tower.onnx",
        "features.json",
        "user_rows.npy",
        "users.hashes.npy",
    ]


@pytest.mark.parametrize("name", every_file())
def test_a_missing_cut_or_altered_file_is_named(bundle: Path, name: str) -> None:
    file = bundle / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{name}.*SHA-256.*again"):
        Recommender.open(bundle, verify="full")
    file.write_bytes(content[:-1])
    with pytest.raises(BundleError, match=f"{name}.*cut"):
        Recommender.open(bundle)
    if name.endswith(".npy"):
        with pytest.raises(BundleError, match=f"{name}.*cut"):
            Recommender.open(bundle, verify="none")
    file.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Recommender.open(bundle, verify="none")


@pytest.mark.parametrize("name", every_file())
def test_a_file_the_manifest_forgot_is_named(bundle: Path, name: str) -> None:
    edit_manifest(bundle, lambda manifest: manifest["files"].pop(name))
    if name == "item_tower.onnx":
        Recommender.open(bundle)
        return
    with pytest.raises(BundleError, match=f"{name} is not listed"):
        Recommender.open(bundle)


MANIFESTS = {
    "not JSON": ("{", "not readable JSON"),
    "a list": ("[1]", "is not a bundle's manifest"),
    "of a web app": ('{"name": "App"}', "no format version.* pass a folder written by"),
    "newer": ('{"format": 2}', "format version 2, this tlrec-edge reads 1"),
    "no model": ('{"format": 1}', "has no entry 'model'"),
    "deep": ("[" * 100_000, "not readable JSON"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_bad_manifests(bundle: Path, case: str) -> None:
    text, message = MANIFESTS[case]
    write_manifest(bundle, text.encode())
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("key", "value"), [("d", "x"), ("d", 0), ("C", 10**6), ("L", -1), ("N", None), ("pad", "y")]
)
def test_bad_model_sections(bundle: Path, key: str, value: object) -> None:
    edit_manifest(bundle, lambda manifest: manifest["model"].update({key: value}))
    with pytest.raises(BundleError, match=r"manifest.json .*again"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    "name", ["../secret.npy", "/etc/passwd", "a/b.npy", "..", "a\\b", "", "-rf", ".hidden"]
)
def test_no_name_leaves_the_folder(bundle: Path, name: str) -> None:
    edit_manifest(
        bundle, lambda manifest: manifest["files"].update({name: {"size": 1, "sha256": ""}})
    )
    with pytest.raises(BundleError, match="is not a plain file name"):
        Bundle.open(bundle)


def test_a_link_out_of_the_folder_is_refused(bundle: Path, tmp_path: Path) -> None:
    file = bundle / "candidate_bias.npy"
    file.rename(tmp_path / "elsewhere.npy")
    file.symlink_to(tmp_path / "elsewhere.npy")
    with pytest.raises(BundleError, match="a link to a file outside the bundle"):
        Bundle.open(bundle)


@pytest.mark.parametrize("entry", [3, {}, {"size": "1", "sha256": ""}, {"size": 1, "sha256": None}])
def test_entries_of_files_are_checked(bundle: Path, entry: object) -> None:
    edit_manifest(bundle, lambda manifest: manifest["files"].update({"groups.npy": entry}))
    with pytest.raises(BundleError, match=r"has no size and sha256 for groups\.npy"):
        Bundle.open(bundle, verify="none")


def test_users_without_a_way_to_look_them_up(bundle: Path) -> None:
    edit_manifest(bundle, lambda manifest: manifest.update({"user_ids": None}))
    with pytest.raises(BundleError, match="has no user_ids"):
        Bundle.open(bundle)


def test_a_path_that_is_not_a_bundle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="path = None, expected a folder"):
        Recommender.open(None)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ArgumentError, match="verify = 'some', expected one of none, size, full"):
        Recommender.open(tmp_path, verify="some")
    with pytest.raises(BundleError, match="does not exist"):
        Recommender.open(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"is not a bundle folder \(no manifest\.json\)"):
        Recommender.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="is a file, not a folder"):
        Recommender.open(tmp_path / "file")


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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # from numpy, before the error
@pytest.mark.parametrize(
    "name", [*every_file(), "item_names.bytes.npy", "text_table.npy", "users.rows.npy"]
)
def test_any_damaged_byte_gives_a_bundle_error_or_finite_scores(bundle: Path, name: str) -> None:
    """The hashes are those of the damaged file, so only its content can show the damage."""
    rng = np.random.default_rng(0)
    content = (bundle / name).read_bytes()
    for trial in range(8):
        damaged = bytearray(content)
        at = int(rng.integers(len(content) if trial % 2 else min(128, len(content))))
        damaged[at : at + 1 + trial % 8] = rng.bytes(1 + trial % 8)
        replace_file(bundle, name, bytes(damaged))
        for verify in ("full", "size"):
            try:
                messages = use(Recommender.open(bundle, verify=verify))
            except BundleError as error:
                messages = [str(error)]
            assert not [message for message in messages if "\n" in message]


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


def test_writing_replaces_an_older_bundle(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bundle"
    bundles.build(path)
    old = Recommender.open(path)
    before = old.score(["i1"], ["i2", "i3"])
    bundles.build(path, seed=5)
    after = Recommender.open(path, verify="full").score(["i1"], ["i2", "i3"])
    assert not np.array_equal(before, after)
    assert np.array_equal(old.score(["i1"], ["i2", "i3"]), before)
    assert [file.name for file in path.parent.iterdir()] == ["bundle"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    bundles.build(path)
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(DataError, match="is in rows 0 and 1"):
        bundles.build(path, ids=["same", "same", *[str(i) for i in range(78)]])
    small = bundles.Small(tower=False)
    arrays = bundles.tables(small, np.random.default_rng(0)) | {
        "candidate_bias": np.zeros(3, np.float32)
    }
    encoder = {"encoder.onnx": pooling_encoder(8, 6, 0)}
    with pytest.raises(BundleError, match=r"candidate_bias\.npy has shape"):
        write_bundle(path, bundles.manifest(small), arrays, {"item_ids": small.item_ids()}, encoder)
    assert (path / "manifest.json").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        bundles.build(tmp_path)
    with pytest.raises(BundleError, match=r"is not a bundle.*not a directory"):
        bundles.build(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    bundles.build(tmp_path / "empty")


def test_float_tables_and_no_optional_parts(tmp_path: Path) -> None:
    bundle = bundles.build(tmp_path / "b", tables="float32", tower=False, r=0)
    assert bundle.array("candidate_rows").dtype == np.float32
    with pytest.raises(BundleError, match=r"user_rows\.npy is not part of this bundle"):
        bundle.array("user_rows")


SCORING = {
    "unknown_score": (float("nan"), "unknown_score"),
    "user_scale": ([0.3, 0.5], "is not a power of two"),
    "user_limit": ([10**6, 5], "user_limit 1000000 of the deep block"),
    "user_ids": ("open", "user_ids = 'open'"),
    "user_key": ("xyz", "non-hexadecimal"),
    "unknown_score ": (1e300, "unknown_score"),
    "user_scale ": ([2.0**-1000, 0.5], "is not a power of two"),
    "user_key ": ("00" * 99, "key"),
}


@pytest.mark.parametrize("key", SCORING)
def test_entries_that_scores_depend_on(bundle: Path, key: str) -> None:
    value, message = SCORING[key]
    key = key.strip()
    edit_manifest(bundle, lambda manifest: manifest.update({key: value}))
    with pytest.raises(BundleError, match=f"manifest.json has an invalid entry.*{message}"):
        Bundle.open(bundle)
    edit_manifest(bundle, lambda manifest: manifest.pop(key))
    with pytest.raises(BundleError, match=f"has no entry '{key}'"):
        Bundle.open(bundle)
