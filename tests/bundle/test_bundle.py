"""The content of a bundle, and the errors for every kind of damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import bundles
from helpers.bundles import edit_manifest, replace_file, use, write_manifest
from tlrec_edge import BundleError, DataError, Recommender
from tlrec_edge.bench.pooling_encoder import pooling_encoder
from tlrec_edge.bundle.arrays import required_arrays
from tlrec_edge.bundle.format import ModelShape
from tlrec_edge.bundle.reader import Bundle, write_bundle
from tlrec_edge.errors import ArgumentError


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
    "user_key": ("xyz", "user_key is not a key of 16 to 64 bytes in hex"),
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
