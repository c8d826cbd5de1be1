"""Open the files of a table: a file, a pipe or a folder of part files, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import unquote

from tlrec_edge.errors import DataError, MissingExtraError

_IN_MEMORY = 64 << 20
"""Bytes of a pipe that stay in memory; more go to a temporary file."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""What engines write into the name of a folder for a missing value."""
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Part:
    """One file of a table.

    Attributes:
        path: its path, for messages.
        constants: columns that the names of its folders give, such as ``market=de``.
    """

    path: Path
    constants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenFile:
    """A file that is open for reading, possibly several times.

    Attributes:
        path: its path, for messages.
        magic: its first bytes, uncompressed.
        raw: the file itself, seekable.
        decompress: from the file to its contents.
    """

    path: Path
    magic: bytes
    raw: IO[bytes]
    decompress: Callable[[IO[bytes]], Any]

    def stream(self) -> BinaryIO:
        """Return the uncompressed contents from the start."""
        self.raw.seek(0)
        stream: BinaryIO = self.decompress(self.raw)
        return stream


def list_parts(path: Path) -> list[Part]:
    """Return the files of a table: the file itself, or the files of a folder in order of name.

    Files whose name starts with "_" or "." are left out, as engines that write such folders do.

    Raises DataError if the path does not exist, or is a folder without files.
    """
    if not path.is_dir():
        return [Part(path)]
    parts = []
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path).parts
        if file.is_file() and not any(name.startswith(("_", ".")) for name in inside):
            folders = (name.partition("=") for name in inside[:-1])
            constants = {key: _value_of_folder(value) for key, mark, value in folders if mark}
            parts.append(Part(file, constants))
    if not parts:
        raise DataError(f"{path} is a folder without files; pass a table, or a folder of tables")
    return parts


def _value_of_folder(name: str) -> str:
    return "" if name == _NO_VALUE else unquote(name)


@contextmanager
def open_file(path: Path) -> Iterator[OpenFile]:
    """Open a file or a pipe, and find out how it is compressed.

    Raises DataError if it cannot be read, is damaged, or in a format that is not a table.
    Raises MissingExtraError for Zstandard without the package that reads it.
    """
    try:
        with _open_raw(path) as raw:
            decompress = _decompressor(path, raw.read(6))
            raw.seek(0)
            magic = decompress(raw).read(8)
            _check_format(path, magic)
            yield OpenFile(path, magic, raw, decompress)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}; check the path") from error
    except _DAMAGED as error:
        raise DataError(
            f"{path} is a damaged compressed file ({error}); download or compress it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; check the file and its permissions"
        ) from error


@contextmanager
def _open_raw(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading; what cannot be read twice, such as a pipe, is copied first."""
    with open(path, "rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield file
            return
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as copy:
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            yield copy


def _decompressor(path: Path, magic: bytes) -> Callable[[IO[bytes]], Any]:
    if magic.startswith(b"\x1f\x8b"):
        return lambda raw: gzip.GzipFile(fileobj=raw, mode="rb")
    if magic.startswith(b"BZh"):
        return bz2.BZ2File
    if magic.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstandard(path)
    return lambda raw: raw


def _zstandard(path: Path) -> Callable[[IO[bytes]], Any]:
    try:
        from zstandard import ZstdDecompressor
    except ImportError as error:
        raise MissingExtraError(f"reading {path}, which is Zstandard,", "zstd") from error
    return lambda raw: ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=False)


def _check_format(path: Path, magic: bytes) -> None:
    if magic[:2] == b"PK" or magic[:4] == b"\xd0\xcf\x11\xe0":
        raise DataError(
            f"{path} is an Excel or zip file, which is not supported; save it as CSV (UTF-8)"
        )
    if magic.startswith((b"ORC", b"Obj\x01", b"ARROW1")):
        raise DataError(
            f"{path} is an ORC, Avro or Arrow (Feather) file, which is not supported; save it as "
            "Parquet"
        )
