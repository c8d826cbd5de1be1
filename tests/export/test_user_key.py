"""The key of hashed user ids can be kept outside the bundle; two exports can then be equal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import synthetic
from helpers.bundles import edit_manifest
from helpers.commands import ok, refused, run, write
from helpers.paths import ROOT
from tlrec_edge import BundleError, Recommender
from tlrec_edge.bundle.ids import user_key_hash
from tlrec_edge.data.store import save_dataset
from tlrec_edge.errors import ArgumentError
from tlrec_edge.export import ExportConfig

KEY, OTHER = "0f" * 32, "f0" * 32
EXPORT = ("export", "model", "ds", "--domain", "small", "--no-cards", "--with-users", "--out")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("work")
    save_dataset(synthetic.dataset(), path / "ds")
    synthetic.model().save(path / "model")
    (path / "key").write_text(f"{KEY}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        ok(*EXPORT, "bundle", "--user-key-file", "key")
    return path


@pytest.fixture
def bundle(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(work)
    return work / "bundle"


def test_the_key_is_not_in_the_bundle(bundle: Path) -> None:
    for file in bundle.iterdir():
        assert KEY.encode() not in file.read_bytes()
        assert user_key_hash("u7", "00" * 16).encode() not in file.read_bytes()


def test_users_are_found_with_the_key(bundle: Path) -> None:
    with Recommender.open(bundle, user_key=KEY) as rec, Recommender.open(bundle) as without:
        assert rec.has_user("u7")
        assert not rec.has_user("stranger")
        expected = rec.recommend("u7").items
        history = ["s0", "s1"]
        assert without.recommend(history).items == rec.recommend(history).items
        calls: list[Callable[[], object]] = [
            lambda: without.has_user("u7"),
            lambda: without.recommend("u7"),
            lambda: without.score_pairs(["u7"], ["s0"]),
        ]
        for call in calls:
            with pytest.raises(ArgumentError, match=r"open it with user_key= \(--user-key-file\)"):
                call()
    with pytest.raises(ArgumentError, match="user_key is not the key that the user ids in"):
        Recommender.open(bundle, user_key=OTHER)
    for invalid in ("", "xyz", "0f" * 15, "0f" * 65, "0f" * 16 + "\n", 7, KEY.encode()):
        with pytest.raises(ArgumentError, match="user_key: expected 32 to 128 hex") as caught:
            Recommender.open(bundle, user_key=invalid)  # type: ignore[arg-type]  # what is tested
        assert str(invalid or "no key") not in str(caught.value)
    users = write(bundle.parent / "users.csv", [["user"], ["u7"]])
    shown = ok("recommend", bundle, "--users", users, "--user-key-file", "key", "--json").stdout
    assert f'"item": "{expected[0]}"' in shown
    assert "--user-key-file" in refused("recommend", bundle, "--users", users)


def test_the_key_of_another_kind_of_bundle_is_not_needed(bundle: Path, tmp_path: Path) -> None:
    ok(*EXPORT, tmp_path / "b")
    for key in (None, KEY):
        with Recommender.open(tmp_path / "b", user_key=key) as rec:
            assert rec.has_user("u7")


def test_a_bundle_without_a_key_and_its_hash_is_refused(bundle: Path, tmp_path: Path) -> None:
    ok(*EXPORT, tmp_path / "b", "--user-key-file", "key")
    for change, message in (
        (lambda manifest: manifest.update(user_key_check=3), "user_key_check = 3"),
        (lambda manifest: manifest.pop("user_key_check"), "no entry 'user_key_check'"),
    ):
        edit_manifest(tmp_path / "b", change)
        with pytest.raises(BundleError, match=message):
            Recommender.open(tmp_path / "b")


def test_a_file_that_is_not_a_key_is_refused(bundle: Path, tmp_path: Path) -> None:
    for content in (b"", b"secret", b"\xff" * 40, b"0f" * 15, b"0f" * 70, b"0f " * 20):
        (tmp_path / "key").write_bytes(content)
        message = refused(*EXPORT, tmp_path / "b", "--user-key-file", tmp_path / "key")
        assert "it must hold 32 to 128 hexadecimal digits" in message
    assert "cannot be read" in refused(*EXPORT, tmp_path / "b", "--user-key-file", tmp_path)
    for options in (["--no-cards"], ["--with-users", "--plain-user-ids"]):
        export = ["export", "model", "ds", "--domain", "small", "--out", tmp_path / "b"]
        result = run(*export, *options, "--user-key-file", "key")
        assert result.exit_code == 2
        assert "--user-key-file needs --with-users without" in result.stderr
    for arguments, message in (
        ({"user_key": KEY}, "needs with_users='hashed'"),
        ({"with_users": "plain", "user_key": KEY}, "needs with_users='hashed'"),
        ({"with_users": "hashed", "user_key": "x"}, "must be 32 to 128"),
    ):
        with pytest.raises(ValueError, match=message):
            ExportConfig(**arguments)
    assert KEY not in repr(ExportConfig("hashed", user_key=KEY))


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {file.name: (file.stat().st_mode, file.read_bytes()) for file in folder.iterdir()}


def test_two_exports_are_equal(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    export = [part for part in EXPORT if part != "--no-cards"]
    for name in ("one", "two"):
        ok(*export, tmp_path / name, "--user-key-file", "key")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_exports_of_two_processes_are_equal(bundle: Path, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        arguments = [*EXPORT, str(tmp_path / seed), "--user-key-file", "key"]
        code = f"from tlrec_edge.cli import main; main({arguments!r})"
        environment = {"PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": "1700000000"}
        environment |= {"PYTHONPATH": str(ROOT), "PATH": ""}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
