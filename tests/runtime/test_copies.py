"""A recommender is copied and sent to other processes as the path and options of its bundle."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import bundles
from helpers.paths import ROOT
from tlrec_edge import BundleError, Recommender, UnknownIdError
from tlrec_edge.errors import ArgumentError

NAMES = [f"i{row}" for row in range(60)]
COPIES: dict[str, Callable[[Recommender], Recommender]] = {
    "pickle": lambda rec: pickle.loads(pickle.dumps(rec)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
every_copy = pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)


@every_copy
def test_a_copy_has_the_bundle_and_the_options(
    path: Path, make: Callable[[Recommender], Recommender]
) -> None:
    rec = Recommender.open(path, verify="full", unknown="error", cache=3, deterministic=False)
    with rec, make(rec) as made:
        assert made.score(["i3"], NAMES).tobytes() == rec.score(["i3"], NAMES).tobytes()
        assert made.recommend("ann").items == rec.recommend("ann").items
        assert not made.deterministic
        with pytest.raises(UnknownIdError):
            made.score(["i3"], ["nothing"])
        for number in range(9):
            made.score([f"i{number}"], NAMES)
        assert made.stats()["cached_states"] == 3


def test_a_copy_is_opened_in_another_process_and_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    with Recommender.open(path.name) as rec:
        pickled = pickle.dumps(rec)
        expected = rec.score(["i3"], NAMES).tobytes()
    code = (
        "import pickle, sys\n"
        "rec = pickle.load(sys.stdin.buffer)\n"
        "names = [f'i{row}' for row in range(60)]\n"
        "sys.stdout.buffer.write(rec.score(['i3'], names).tobytes())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=pickled, capture_output=True, check=True, cwd=ROOT)
    assert done.stdout == expected
    assert len(pickled) < 1000


@every_copy
def test_a_closed_recommender_cannot_be_copied(
    path: Path, make: Callable[[Recommender], Recommender]
) -> None:
    rec = Recommender.open(path)
    rec.close()
    with pytest.raises(BundleError, match="is closed; open it again"):
        make(rec)


@every_copy
def test_a_recommender_with_added_items_cannot_be_copied(
    path: Path, make: Callable[[Recommender], Recommender]
) -> None:
    with Recommender.open(path) as rec:
        rec.add_items({"new": {"title": "mug"}})
        with pytest.raises(ArgumentError, match="with 1 added items cannot be copied or sent"):
            make(rec)


def test_a_copy_is_of_the_same_version_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    bundles.build(path)
    with Recommender.open(path) as rec:
        pickled = pickle.dumps(rec)
        bundles.build(path)
        pickle.loads(pickled).close()  # written again, with the same content
        bundles.build(path, seed=1)
        with pytest.raises(BundleError, match="is not the expected bundle: its content id is"):
            pickle.loads(pickled)
        shutil.rmtree(path)
        with pytest.raises(BundleError, match=f"{os.fspath(path)} does not exist"):
            pickle.loads(pickled)
