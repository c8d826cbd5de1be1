"""A table appears at its path only if it is complete, with the permissions of the umask."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.writer import TableWriter

every_format = pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])


@contextmanager
def limited_disk(size: int) -> Iterator[None]:
    """Let every write beyond ``size`` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@every_format
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_decides_who_can_read_a_table(
    tmp_path: Path, name: str, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        for _ in range(2):
            with TableWriter(tmp_path / name, {"user": str}) as writer:
                writer.write(["ann"])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
    assert [path.name for path in tmp_path.iterdir()] == [name]


@every_format
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("older")
    rng = np.random.default_rng(0)
    users = [rng.bytes(16).hex() for _ in range(20_000)]
    with (
        pytest.raises(DataError, match=f"cannot write .*{name}: .*File too large; free some space"),
        limited_disk(50_000),
        TableWriter(tmp_path / name, {"user": str}) as writer,
    ):
        writer.write(users)
    assert (tmp_path / name).read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == [name]
