"""Damaged bundles by the thousand, each in a process with limits: refused, or served right.

What is served right: with hashes that are checked, the same bits as before; with hashes that agree
with the damage, or are not checked, finite scores.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.bits_bundles import write_all
from helpers.bundles import agree
from helpers.counts import say
from tlrec_edge import BundleError, Recommender

REFUSED, SAME, OTHER, FAILED = range(4)
USERS: list[str | list[str]] = ["ann", ["i3", "i70"], [f"SKU{row:08d}" for row in range(5, 45)]]
MEMORY = 2**31
"""Address space that a process may take on top of what it has."""

Damage = Callable[[bytearray, np.random.Generator], object]


def flip(data: bytearray, rng: np.random.Generator) -> None:
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))


def flip_early(data: bytearray, rng: np.random.Generator) -> None:
    data[int(rng.integers(min(128, len(data))))] ^= 1 << int(rng.integers(8))


def overwrite(data: bytearray, rng: np.random.Generator) -> None:
    at, count = int(rng.integers(len(data))), int(rng.integers(1, 64))
    data[at : at + count] = rng.bytes(min(count, len(data) - at))


def cut(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def take_out(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(data)))
    del data[at : at + int(rng.integers(1, 64))]


def append(data: bytearray, rng: np.random.Generator) -> None:
    data += rng.bytes(int(rng.integers(1, 64)))


DAMAGES: list[Damage] = [flip, flip, flip, overwrite, overwrite, flip_early, cut, take_out, append]


def answers(rec: Recommender, check_search: bool) -> bytes:
    """Return scores as bytes; an item has the same score alone, in a batch and recommended."""
    found = []
    for user in USERS:
        state = rec.user_state(user)
        best = rec.recommend(state, 20)
        names = [*best.items, "i5", "i150", "unknown"]
        together = rec.score(state, names)
        assert np.isfinite(together).all()
        alone = [rec.score(state, [name]).item() for name in names]
        assert together.tolist() == alone, "alone and in a batch"
        if check_search:
            assert best.scores.tolist() == alone[: len(best.items)], "recommend and score"
            top = rec.recommend(state, 20, exhaustive=True)
            scan = rec.recommend(state, len(rec), exhaustive=True)
            assert top.scores.tolist() == scan.scores[:20].tolist(), "search and scan"
        found += [together.tobytes(), best.scores.tobytes()]
    return b"".join(found)


def outcome(bundle: Path, verify: str, expected: bytes) -> int:
    try:
        with Recommender.open(bundle, verify=verify) as rec:
            return SAME if answers(rec, verify == "full") == expected else OTHER
    except BundleError:
        return REFUSED


def in_a_limited_process(job: Callable[[], int]) -> int:
    """Return what a job returns in a fork with bounds of its processor time and memory."""
    process = os.fork()
    if process:
        status = os.waitpid(process, 0)[1]
        assert os.WIFEXITED(status), f"ended by signal {os.WTERMSIG(status)}"
        return os.WEXITSTATUS(status)
    code = FAILED
    try:
        pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
        np.seterr(all="ignore")
        code = job()
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(code)


def check_corruptions(bundles: list[Path], folder: Path, count: int) -> None:
    expected = []
    for bundle in bundles:
        with Recommender.open(bundle, verify="full") as rec:
            expected.append(answers(rec, check_search=True))
    outcomes: Counter[int] = Counter()
    for seed in range(count):
        rng = np.random.default_rng(seed)
        at = int(rng.integers(len(bundles)))
        copy = folder / "b"
        shutil.copytree(bundles[at], copy)
        name = str(rng.choice(sorted(path.name for path in copy.iterdir())))
        data = bytearray((copy / name).read_bytes())
        DAMAGES[rng.integers(len(DAMAGES))](data, rng)
        (copy / name).write_bytes(data)
        verify = ("full", "size")[seed % 2]
        agrees = bool(rng.integers(2)) and not name.startswith("manifest.")
        if agrees:
            agree(copy, name)
        shown = f"seed {seed}: {name}, verify={verify!r}, hashes {'agree' if agrees else 'differ'}"
        try:
            code = in_a_limited_process(lambda: outcome(copy, verify, expected[at]))  # noqa: B023
        except AssertionError as error:
            pytest.fail(f"{shown}: {error}")
        assert code != FAILED, shown
        if verify == "full" and not agrees:
            assert code in (REFUSED, SAME), shown
        outcomes[code] += 1
        shutil.rmtree(copy)
    say(
        f"{count} damaged bundles: {outcomes[REFUSED]} refused, {outcomes[SAME]} with the same "
        f"bits, {outcomes[OTHER]} with other finite scores (hashes agree or are not checked), "
        "0 ended otherwise"
    )
    assert outcomes[REFUSED] > count / 2


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_all(tmp_path_factory.mktemp("corruptions"))


forks = pytest.mark.skipif(sys.platform != "linux", reason="limits and forks are those of Linux")


@forks
def test_a_damaged_bundle_is_refused_or_served_right(paths: list[Path], tmp_path: Path) -> None:
    check_corruptions(paths, tmp_path, 60)


@forks
@pytest.mark.slow
def test_2000_damaged_bundles_are_refused_or_served_right(
    paths: list[Path], tmp_path: Path
) -> None:
    check_corruptions(paths, tmp_path, 2000)
