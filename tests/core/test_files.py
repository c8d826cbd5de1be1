"""A text file is written completely or not at all."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from tlrec_edge.core.files import write_text
from tlrec_edge.errors import DataError


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_file_is_replaced(tmp_path: Path, umask: int, mode: int) -> None:
    file = tmp_path / "report.html"
    before = os.umask(umask)
    try:
        for text in ("one, a longer text", "two 商品 \udcff"):
            write_text(file, text)
    finally:
        os.umask(before)
    assert file.read_text("utf-8") == "two 商品 \\udcff"
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text("utf-8") == "text"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_text("utf-8")))
    reader.start()
    write_text(tmp_path / "pipe", "text")
    reader.join()
    assert found == ["text"]


def test_a_failure_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.html"
    write_text(file, "older")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DataError, match=r"report\.html cannot be written: No space left on dev"):
        write_text(file, "newer")
    assert file.read_text("utf-8") == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(DataError, match="cannot be written: No such file or directory"):
        write_text(tmp_path / "nowhere" / "report.html", "text")
