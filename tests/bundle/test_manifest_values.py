"""Every number and every text of a manifest is checked before it changes a score."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.bundles import edit_manifest, write_manifest
from helpers.commands import run
from helpers.counts import say
from helpers.paths import GOLDEN
from tlrec_edge import BundleError, Recommender
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.bundle.reader import Bundle

Place = tuple[str | int, ...]

INVALID: list[str] = [
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 400, "-1" + "0" * 30),
    *("true", "false", "null", "[]", "{}", "[[1]]", '""', '"x"', '"8"', '"\\ud800"'),
    *('"../../etc/passwd"', '"' + "9" * 500 + '"'),
]
"""JSON values that none of the entries may take, unless it has no effect."""
OTHERS = ["0", "-1", "1", "0.5", "3", "8.0", "1e-300", "1e12", "4294967296", "9223372036854775808"]
"""JSON numbers that are possible for some entries."""


def leaves(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the place of every number and every text in a JSON value."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, (*place, key))
    elif isinstance(value, list):
        for at, child in enumerate(value):
            yield from leaves(child, (*place, at))
    elif isinstance(value, (int, float, str)):
        yield place


def with_value(manifest: Any, place: Place, text: str) -> bytes:
    """Return a manifest as JSON in which one value is replaced by a JSON text."""
    changed = json.loads(json.dumps(manifest))
    parent = changed
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = "HERE"
    return json.dumps(changed).replace('"HERE"', text).encode()


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("values") / "clustered"
    synthesize(path, SynthConfig(300, dim=8, interest=4, wide=3, lists_beyond=0))
    return path


def answers(bundle: Path, ids: list[str]) -> list[Any]:
    with Recommender.open(bundle) as rec:
        scores = [rec.score(ids[:3], ids), rec.score(["no such item"], ids[::-1])]
        found = [rec.recommend(ids[:3], 5), rec.recommend([], 5), rec.similar(ids[0], 5)]
        rec.memory()
    assert all(np.isfinite(each).all() for each in scores)
    return [each.tobytes() for each in scores] + [(*each.items,) for each in found]


def check_values(bundle: Path, count: int) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    ids = Bundle.open(bundle).strings("item_ids").take(range(20))
    original, refused = answers(bundle, ids), 0
    cases = [(place, text) for place in leaves(manifest) for text in INVALID + OTHERS]
    order = np.random.default_rng(0).permutation(len(cases))[: count or None]
    for place, text in (cases[at] for at in order):
        write_manifest(bundle, with_value(manifest, place, text))
        try:
            found = answers(bundle, ids)
        except BundleError:
            refused += 1
        else:
            assert found == original or text in OTHERS, f"{place} = {text:.50} changes scores"
        result = run("inspect", bundle)
        assert result.exit_code in (0, 1, 2), f"{place} = {text:.50}: {result.exception!r}"
        assert result.exception is None or isinstance(result.exception, SystemExit), place
    say(f"{len(order)} values of a manifest: {refused} refused, the others without effect")
    assert refused > len(order) / 5


@pytest.mark.parametrize(
    "count", [pytest.param(300, id="300"), pytest.param(0, id="all", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", ["golden", "clustered"])
def test_a_value_is_refused_or_has_no_effect(
    name: str, count: int, clustered: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(GOLDEN if name == "golden" else clustered, bundle)
    check_values(bundle, count)


ENTRIES: dict[Place, list[str]] = {
    ("format",): ["true", "1.0", '"1"', "2"],
    ("model", "d"): ["true", "8.0", "8.5", '"8"', "0", "-8", "1e400"],
    ("model", "C"): ["true", '"22"', "22.5", "31"],
    ("model", "max_history"): ["true", "0", "0.5", '"1024"'],
    ("model", "pad"): ["true", '"-1e9"', "NaN", "1e400", "null"],
    ("user_scale",): ["[0.00390625]", "[0.00390625, 0.00390625, 1]", '"12"', "{}", "0.5"],
    ("user_scale", 0): ["true", '"1"', "NaN", "0.3", "-0.5", "0"],
    ("user_limit", 1): ["true", "7.5", '"7"', "0", "16777216"],
    ("unknown_score",): ["true", '"1"', "NaN", "-Infinity", "1e13"],
    ("repeat",): ["true", '"1"', "null", "NaN", "1e13"],
    ("user_key",): ['""', '"0"', '"xyz"', '"00 11"', "5", '"0011"'],
    ("user_ids",): ['"other"', "true", "0"],
    ("files", "age_bias.npy", "size"): ["true", "-1", "1e400", '"8"'],
    ("files", "age_bias.npy", "sha256"): ["7", "null"],
}


@pytest.mark.parametrize(
    ("place", "text"), [(place, text) for place, texts in ENTRIES.items() for text in texts]
)
def test_an_entry_that_is_not_valid_is_refused(place: Place, text: str, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(GOLDEN, tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    write_manifest(bundle, with_value(manifest, place, text))
    with pytest.raises(BundleError):
        Recommender.open(bundle)


INDEX: dict[str, list[Any]] = {
    "lists": [0, -1, True, 1.5, "3", 10**9, float("nan"), None],
    "probes@10": [0, -1, True, 1.5, "3", 10**9, float("inf"), None],
    "probes@100": [0, 1, True, 1.5, "3", 10**9],
    "recall@10": [0, -0.5, 1.0001, True, "0.99", float("nan"), float("inf"), None],
    "recall@100": [0.0, 2, False, [], {}],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in INDEX.items() for value in values]
)
def test_an_index_that_is_not_valid_is_refused(
    key: str, value: object, clustered: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(clustered, tmp_path / "bundle"))
    with Recommender.open(bundle) as rec:
        card = rec.manifest["index"]
        assert 1 <= card["probes@10"] <= card["probes@100"] <= card["lists"]
    edit_manifest(bundle, lambda manifest: manifest["index"].update({key: value}))
    with pytest.raises(BundleError, match="index"):
        Recommender.open(bundle)
