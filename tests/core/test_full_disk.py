"""A full disk is an error of one line: no signal, nothing half-written, nothing left over."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import bundles, synthetic
from helpers.commands import refused
from helpers.counts import count
from helpers.paths import ROOT
from tlrec_edge import Recommender
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core import system_calls
from tlrec_edge.data.store import load_dataset, save_dataset
from tlrec_edge.errors import TlrecError
from tlrec_edge.tabular.writer import TableWriter
from tlrec_edge.train import EdgeModel

DISK = 3 << 20
"""Bytes of the small disk, of which a file leaves only some free."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(path)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no command `mount`")
    if done.returncode:
        pytest.skip("only root may mount a small disk")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def leave_free(disk: Path, size: int) -> None:
    (disk / "filler").unlink(missing_ok=True)
    found = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(max(0, found.f_bavail * found.f_frsize - size)))


def write_table(path: Path) -> None:
    with TableWriter(path, {"user": str, "item": str, "score": float}) as writer:
        for start in range(0, 20_000, 1000):
            rows = range(start, start + 1000)
            writer.write([f"u{row}" for row in rows], [f"i{row}" for row in rows], list(rows))


WRITERS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {
    "dataset": ("ds", lambda path: save_dataset(synthetic.dataset(), path), load_dataset),
    "model": ("model", lambda path: synthetic.model().save(path), EdgeModel.load),
    "bundle": ("bundle", bundles.build, lambda path: Recommender.open(path, verify="full")),
    "table": ("t.csv", write_table, Path.read_bytes),
    "zipped table": ("t.csv.gz", write_table, Path.read_bytes),
    "Parquet table": ("t.parquet", write_table, Path.read_bytes),
}
"""Name of what is written, how, and how it is read."""


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of gzip, whose file can't be closed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("older", [False, True], ids=["new", "over an older one"])
@pytest.mark.parametrize(
    "step", [pytest.param(1, id="all", marks=pytest.mark.slow), pytest.param(4, id="some")]
)
def test_a_writer_on_a_full_disk(disk: Path, kind: str, older: bool, step: int) -> None:
    name, write, read = WRITERS[kind]
    out, messages = disk / name, list[str]()
    if older:
        write(out)
    for exponent in range(12, 22, step):
        leave_free(disk, (1 << exponent) - (1 << 12))
        try:
            write(out)
        except TlrecError as error:
            messages.append(str(error))
            assert out.exists() == older
            count("writes on a full disk: an error, 0 signals, 0 left-overs")
        if out.exists():
            read(out)
        assert {path.name for path in disk.iterdir()} - {name} == {"filler"}
        if not older and out.exists():
            break
    assert messages
    assert [text for text in messages if "cannot write" not in text or "space" not in text] == []


@pytest.mark.parametrize("items", [pytest.param(200_000, id="sparse")])
def test_synth_on_a_full_disk_is_not_killed(disk: Path, items: int) -> None:
    """Its tables are written through memory maps."""
    command = ["synth", "--items", str(items), "--dim", "16", "--out", str(disk / "bundle")]
    code = f"from tlrec_edge.cli import main; main({command!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 1, signal.Signals(-done.returncode)
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("Error: cannot write")
    assert "No space left on device; nothing was changed" in error
    assert not list(disk.iterdir())


def test_space_is_reserved_before_a_table_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles.build(tmp_path / "b")
    before = (tmp_path / "b" / "manifest.json").read_bytes()
    reserve, reserved = os.posix_fallocate, []

    def fail(file: int, start: int, size: int) -> None:
        reserved.append(size)
        if len(reserved) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(file, start, size)

    monkeypatch.setattr(os, "posix_fallocate", fail)
    message = refused("synth", "--items", 50, "--dim", 8, "--out", tmp_path / "b")
    assert "cannot write" in message
    assert "No space left on device; nothing was changed" in message
    assert (tmp_path / "b" / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("number", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_the_system_call_zeros_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, "not supported")

    if number is None:
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", fail)
    with (tmp_path / "file").open("wb") as file:
        system_calls.reserve(file.fileno(), 3_000_001)
        file.write(b"head")
    assert (tmp_path / "file").read_bytes() == b"head" + bytes(2_999_997)
    bundles.build(tmp_path / "b")
    Bundle.open(tmp_path / "b", verify="full")
