r"""Half a character, such as JSON's "\ud800", is refused: no file and no answer can hold it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers import bundles
from helpers.bundles import edit_manifest, replace_array, replace_file
from helpers.commands import ok, refused
from tlrec_edge import BundleError, DataError, Recommender
from tlrec_edge.bundle.id_index import build_index
from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.data.dataset import Dataset

LONE = "mug \ud800"


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("surrogates") / "master"
    bundles.build(path, users=["ann"], user_ids="plain")
    return path


@pytest.fixture
def bundle(master: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(master, tmp_path / "bundle"))


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a value": lambda manifest: manifest.update(created=LONE),
    "a key": lambda manifest: manifest.update({LONE: 1}),
    "a feature": lambda manifest: manifest.update(features={"text": [LONE]}),
    "a domain": lambda manifest: manifest.update(provenance={"domains": ["a", LONE]}),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_with_one_is_refused(bundle: Path, case: str) -> None:
    edit_manifest(bundle, MANIFESTS[case])
    for command in ("inspect", "verify"):
        message = refused(command, bundle)
        assert "manifest.json is not readable JSON" in message
        assert "'mug \\ud800' is not valid Unicode text" in message


def test_features_and_a_schema_with_one_are_refused(bundle: Path) -> None:
    features = json.loads((bundle / "features.json").read_bytes())
    features["vocabulary"]["colour"][0] = LONE
    replace_file(bundle, "features.json", json.dumps(features).encode())
    with Recommender.open(bundle) as rec, pytest.raises(BundleError, match=r"features\.json"):
        rec.add_items({"new": {"title": "mug"}})
    edit_manifest(bundle, lambda manifest: manifest["files"].update({"schema.json": {}}))
    (bundle / "schema.json").touch()
    replace_file(bundle, "schema.json", json.dumps({"files": {"encoding": LONE}}).encode())
    with Recommender.open(bundle) as rec, pytest.raises(BundleError, match=r"schema\.json"):
        _ = rec.schema


@pytest.mark.parametrize("name", ["item_ids", "item_names", "users"])
def test_a_string_table_with_one_is_damaged(bundle: Path, name: str) -> None:
    file = f"{name}.bytes.npy"
    data = np.load(bundle / file).copy()
    data[:3] = list("\ud800".encode("utf-8", "surrogatepass"))
    if name == "users":
        offsets = np.array([0, len(data)])
        for part, array in build_index(data, offsets).items():
            replace_array(bundle, f"users.{part}.npy", array)
    replace_array(bundle, file, data)
    with pytest.raises(BundleError, match=rf"{name}\.bytes\.npy is not UTF-8"):
        Recommender.open(bundle, verify="full")
    if name != "users":
        with Recommender.open(bundle) as rec, pytest.raises(BundleError, match="not UTF-8"):
            rec.recommend(["i1"], len(rec))


def test_an_added_item_with_one_is_refused(bundle: Path) -> None:
    with Recommender.open(bundle) as rec:
        crafted: list[dict[str | int, dict[str, str]]] = [
            {LONE: {"title": "mug"}},
            {"new": {"title": LONE}},
        ]
        for features in crafted:
            with pytest.raises(DataError, match="is not valid Unicode text"):
                rec.add_items(features)
        assert np.isfinite(rec.score([LONE], ["i1", LONE])).all()


RECORD = {"user": "u1", "item": "i1", "domain": "a", "time": 1_700_000_000}


@pytest.mark.parametrize("change", [{name: LONE} for name in ("user", "item", "domain", LONE)])
@pytest.mark.parametrize("form", ["lines", "array"])
def test_json_records_with_one_are_refused(
    tmp_path: Path, bundle: Path, change: dict[str, Any], form: str
) -> None:
    file, records = tmp_path / "log.json", [RECORD, RECORD | change]
    lines = "\n".join(map(json.dumps, records))
    file.write_text(json.dumps(records) if form == "array" else lines, "utf-8")
    message = refused("prepare", "--interactions", file, "--out", tmp_path / "data")
    place = "line 2" if form == "lines" else "line 1"
    assert f"{place} is not valid JSON ('mug \\ud800' is not valid Unicode text" in message
    out = tmp_path / "out.csv"
    table = ["--interactions", file, "--users", file, "--out", out]
    assert "is not valid Unicode text" in refused("recommend", bundle, *table)
    assert not out.exists()


@pytest.mark.parametrize("form", [dict, partial(pd.DataFrame, dtype=object)])
@pytest.mark.parametrize("name", ["user", "item", "domain", "title"])
def test_a_table_with_one_is_refused(name: str, form: Callable[[Any], Any]) -> None:
    log = {"user": ["u1", "u1", "u2"], "item": ["i1", "i2", "i1"], "domain": ["a"] * 3}
    items = {"item": ["i1", "i2"], "title": ["mug", "cup"]}
    (items if name == "title" else log)[name][0] = LONE
    with pytest.raises(DataError, match="is not valid Unicode text"):
        Dataset.from_frames(form(log), form(items))


def test_a_column_named_with_one_is_refused() -> None:
    with pytest.raises(DataError, match="is not valid Unicode text"):
        Dataset.from_frames({"user": ["u1"], "item": ["i1"], LONE: ["a"]})


def test_pairs_of_escapes_are_characters() -> None:
    assert parse_json(b'{"\\ud83d\\uded2": ["\\uD83D\\uDED2"]}') == {"🛒": ["🛒"]}
    for text in (b'["\\ud83d"]', b'{"\\uDED2": 0}', b'"\\uded2\\ud83d"'):
        with pytest.raises(ValueError, match="is not valid Unicode text"):
            parse_json(text)


def test_a_backslash_before_an_escape_is_text(bundle: Path) -> None:
    edit_manifest(bundle, lambda manifest: manifest.update(created="\\ud800"))
    assert "\\ud800" in ok("inspect", bundle).output
