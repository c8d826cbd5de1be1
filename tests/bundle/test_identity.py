"""What a bundle serves has an identity, and its manifest a checksum."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import bundles
from helpers.bundles import edit_manifest, write_manifest
from helpers.commands import ok, refused
from helpers.counts import say
from helpers.paths import GOLDEN
from tlrec_edge import BundleError, Recommender
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.errors import ArgumentError


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("identity") / "master"
    bundles.build(path, users=["ann"])
    return path


@pytest.fixture
def bundle(master: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(master, tmp_path / "bundle"))


def change(*keys: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def edit(manifest: dict[str, Any]) -> None:
        entry: Any = manifest
        for key in keys[:-1]:
            entry = entry[key]
        entry[keys[-1]] = to

    return edit


SERVED = {
    "a file": change("files", "age_bias.npy", "sha256", to="0" * 64),
    "a shape": change("model", "max_history", to=77),
    "scoring": change("user_scale", 0, to=2.0**-9),
    "weights": change("unknown_score", to=-1.25),
    "features": change("features", to={"text": ["title"]}),
    "user ids": change("user_key", to="00" * 16),
    "an entry of a later version": change("decay", to=0.5),
}
NOT_SERVED = {
    "date": change("created", to="2031-01-01T00:00:00+00:00"),
    "version": change("tlrec_edge", to="9.9"),
    "measured time": change("latency", to={"us": {"p50": 3}}),
    "machine": change("compression", to={"machine": {"cores": 64}}),
    "quality": change("quality", to={"ndcg@10": 0.9}),
    "parity": change("parity", to={"max_error": 0.0}),
}


def test_the_content_id_is_that_of_what_is_served(bundle: Path) -> None:
    original = Bundle.open(bundle)
    for name, edit in (SERVED | NOT_SERVED).items():
        edit_manifest(bundle, edit)
        changed = Bundle.open(bundle, verify="none")
        assert (changed.content_id == original.content_id) == (name in NOT_SERVED), name
        assert changed.manifest_sha256 != original.manifest_sha256, name
        write_manifest(bundle, json.dumps(original.manifest).encode())
    assert Bundle.open(bundle).content_id == original.content_id


def test_the_content_id_does_not_depend_on_the_order_of_entries(bundle: Path) -> None:
    original = Bundle.open(bundle)
    write_manifest(bundle, json.dumps(original.manifest, sort_keys=True, indent=4).encode())
    assert Bundle.open(bundle).content_id == original.content_id


def test_the_content_id_is_pinned() -> None:
    """Services keep it to recognise a bundle, so every later version must compute the same."""
    expected = "2bd676e756979d9655e9cbc0dabf859a78bc52eee7b6051eaeb48456bebadb0f"
    assert Bundle.open(GOLDEN).content_id == expected


def test_only_the_expected_bundle_is_opened(bundle: Path) -> None:
    expected = Bundle.open(bundle).content_id
    Recommender.open(bundle, expect=expected).close()
    assert "ok: " in ok("verify", bundle, "--expect", expected).output
    other = "0" * 64
    with pytest.raises(BundleError, match=f"content id is {expected}, not {other}"):
        Recommender.open(bundle, expect=other)
    assert "is not the expected bundle" in refused("verify", bundle, "--expect", other)
    for invalid in ("", "abc", expected.upper(), expected[:16], 7):
        with pytest.raises(ArgumentError, match=r"expect = .* the content id that"):
            Recommender.open(bundle, expect=invalid)  # type: ignore[arg-type]  # what is tested


def test_inspect_shows_both_identities(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    sha256 = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert opened.manifest_sha256 == sha256
    shown = ok("inspect", bundle).output
    assert opened.content_id in shown
    assert sha256 in shown
    report = json.loads(ok("inspect", bundle, "--json").stdout)
    assert (report["content_id"], report["manifest_sha256"]) == (opened.content_id, sha256)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum")
def test_the_checksum_is_one_that_sha256sum_reads(bundle: Path) -> None:
    command = ["sha256sum", "--check", "manifest.sha256"]
    subprocess.run(command, cwd=bundle, check=True, capture_output=True)


@pytest.mark.parametrize(
    "flips", [pytest.param(1500, id="1500"), pytest.param(0, id="all", marks=pytest.mark.slow)]
)
def test_no_changed_bit_of_the_manifest_goes_unnoticed(bundle: Path, flips: int) -> None:
    content = (bundle / "manifest.json").read_bytes()
    bits = np.arange(8 * len(content))
    if flips:
        bits = np.random.default_rng(0).choice(bits, flips, replace=False)
    refusals = 0
    for bit in bits.tolist():
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (bundle / "manifest.json").write_bytes(flipped)
        try:
            Bundle.open(bundle, verify="none")
        except BundleError:
            refusals += 1
    say(f"{len(bits)} flips of the manifest: {refusals} refused")
    assert refusals == len(bits)


def test_no_changed_digit_of_the_checksum_goes_unnoticed(bundle: Path) -> None:
    content = (bundle / "manifest.sha256").read_bytes()
    for at in range(64):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            (bundle / "manifest.sha256").write_bytes(flipped)
            with pytest.raises(BundleError, match=r"manifest\.json was altered"):
                Bundle.open(bundle)
    for content in (b"", b"\n", b"x" * 5000):
        (bundle / "manifest.sha256").write_bytes(content)
        with pytest.raises(BundleError, match=r"manifest\.(json was altered|sha256 has 5,000)"):
            Bundle.open(bundle)


def test_a_bundle_without_a_checksum_is_opened(bundle: Path) -> None:
    """Those of version 0.1 have none."""
    (bundle / "manifest.sha256").unlink()
    Recommender.open(bundle, verify="full").close()
    assert "ok: " in ok("verify", bundle).output


DUPLICATES = {
    "at the top": ('"user_limit":', '"user_limit": [1, 1], "user_limit":'),
    "in an object": ('"max_history":', '"max_history": 3, "max_history":'),
    "of a file": ('"age_bias.npy":', '"age_bias.npy": {}, "age_bias.npy":'),
    "written differently": ('"user_limit":', '"user\\u005flimit": [1, 1], "user_limit":'),
}


@pytest.mark.parametrize("case", DUPLICATES)
def test_a_key_that_occurs_twice_is_refused(bundle: Path, case: str) -> None:
    before, after = DUPLICATES[case]
    text = (bundle / "manifest.json").read_text("utf-8")
    assert text.count(before) == 1
    write_manifest(bundle, text.replace(before, after).encode())
    with pytest.raises(BundleError, match=r"manifest\.json is not readable JSON .*occurs twice"):
        Bundle.open(bundle)


@pytest.mark.parametrize("depth", [101, 500, 100_000])
@pytest.mark.parametrize("bracket", ["[]", "{}"])
def test_a_deeply_nested_manifest_is_refused(bundle: Path, depth: int, bracket: str) -> None:
    opening, closing = ("[", "]") if bracket == "[]" else ('{"a":', "}")
    deep = opening * depth + ("0" if bracket == "{}" else "") + closing * depth
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    text = json.dumps(manifest | {"quality": "DEEP"}).replace('"DEEP"', deep)
    write_manifest(bundle, text.encode())
    for command in (["inspect", bundle], ["inspect", bundle, "--json"], ["verify", bundle]):
        assert "nested more than 100 deep" in refused(*command)


def test_the_date_is_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    command = ["synth", "--items", 50, "--dim", 8, "--out"]
    for name in ("one", "two"):
        ok(*command, tmp_path / name)
    one, two = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two
    assert json.loads(one["manifest.json"])["created"] == "2023-11-14T22:13:20+00:00"
    for invalid in ("", "now", "1e9", "9" * 30):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", invalid)
        message = refused(*command, tmp_path / "three")
        assert re.search("SOURCE_DATE_EPOCH = .*, expected a number of seconds", message)
    assert {file.name for file in tmp_path.iterdir()} == {"one", "two"}
