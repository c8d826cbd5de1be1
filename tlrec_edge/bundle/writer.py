"""Write a bundle array by array, in a folder next to its target, and rename it when complete."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from tlrec_edge.bundle.format import (
    FORMAT,
    MANIFEST,
    MANIFEST_CHECKSUM,
    MAX_MANIFEST_BYTES,
    REMEDY,
)
from tlrec_edge.bundle.id_index import build_index
from tlrec_edge.bundle.identity import checksum_line
from tlrec_edge.bundle.string_table import build_strings
from tlrec_edge.core.folders import FolderKind, replace_folder
from tlrec_edge.core.system_calls import reserve
from tlrec_edge.errors import ArgumentError, BundleError
from tlrec_edge.version import VERSION

BUNDLE = FolderKind(
    name="bundle",
    marker=MANIFEST,
    keys=("tlrec_edge", "files"),
    files=lambda manifest: [*manifest["files"].keys(), MANIFEST_CHECKSUM],
    error=BundleError,
    advice="pass a folder written by `tlrec-edge export`",
    remedy=REMEDY,
    max_marker_bytes=MAX_MANIFEST_BYTES,
    read_only=True,
)


class BundleWriter:
    """Writes the files of a bundle into a folder. Use ``BundleWriter.at``.

    ``create`` returns memory-mapped arrays, so a table that is larger than memory can be written
    in chunks.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self._manifest = {
            "format": FORMAT,
            "tlrec_edge": VERSION,
            "created": _now().isoformat(timespec="seconds"),
            "deltas": [],
            **manifest,
        }
        self._sealed = False

    @classmethod
    @contextmanager
    def at(cls, path: str | os.PathLike[str], manifest: Mapping[str, Any]) -> Iterator[Self]:
        """Yield a writer; when the block ends, its bundle replaces the one at ``path``.

        After an exception ``path`` is unchanged. Raises BundleError if ``path`` is another folder
        that is not empty, or cannot be written.
        """
        with replace_folder(Path(path), BUNDLE) as folder:
            writer = cls(folder, manifest)
            yield writer
            writer.seal()

    def array(self, name: str, array: NDArray[Any]) -> None:
        """Write an array to the file ``name``.npy, in C order and little endian."""
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        with (self.folder / f"{name}.npy").open("wb") as file:
            # numpy's error for a full disk does not say so.
            reserve(file.fileno(), len(_header(little.dtype, little.shape)) + little.nbytes)
            np.save(file, little, allow_pickle=False)

    def create(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a writable, memory-mapped new array of zeros in the file ``name``.npy.

        Its disk space is reserved. Raises OSError if the disk is full.
        """
        path = self.folder / f"{name}.npy"
        header = _header(np.dtype(dtype), shape)
        with path.open("wb") as file:
            reserve(file.fileno(), len(header) + math.prod(shape) * np.dtype(dtype).itemsize)
            file.write(header)
        return np.lib.format.open_memmap(path, "r+")

    def written(self, name: str) -> NDArray[Any]:
        """Return a read-only, memory-mapped array that was written before."""
        array: NDArray[Any] = np.load(
            self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False
        )
        return array

    def names(self) -> list[str]:
        """Return the names of the arrays written so far."""
        return sorted(path.stem for path in self.folder.glob("*.npy"))

    def strings(self, name: str, values: Iterable[str], *, index: bool = False) -> None:
        """Write a string table, and an id index of it if ``index`` is true.

        Raises DataError if an indexed value is empty or occurs twice.
        """
        data, offsets = build_strings(values)
        self.array(f"{name}.bytes", data)
        self.array(f"{name}.offsets", offsets)
        if index:
            for part, array in build_index(data, offsets, name).items():
                self.array(f"{name}.{part}", array)

    def blob(self, name: str, blob: bytes) -> None:
        """Write a file that is not an array."""
        (self.folder / name).write_bytes(blob)

    def update(self, manifest: Mapping[str, Any]) -> None:
        """Add entries to the manifest."""
        self._manifest.update(manifest)

    def seal(self) -> Path:
        """Write the manifest with the size and hash of every file, once, and return the folder."""
        if not self._sealed:
            self._manifest["files"] = {
                path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)}
                for path in sorted(self.folder.iterdir())
            }
            text = json.dumps(self._manifest, indent=1, ensure_ascii=False, allow_nan=False)
            manifest = f"{text}\n".encode()
            (self.folder / MANIFEST).write_bytes(manifest)
            (self.folder / MANIFEST_CHECKSUM).write_bytes(checksum_line(manifest, MANIFEST))
            self._sealed = True
        return self.folder


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the header of a .npy file, as ``np.save`` writes it."""
    header = io.BytesIO()
    data = npy.header_data_from_array_1_0(np.empty(0, dtype)) | {"shape": shape}
    npy.write_array_header_1_0(header, data)
    return header.getvalue()


def _now() -> datetime:
    """Return the time, or the one in SOURCE_DATE_EPOCH, which makes files the same in every run.

    See https://reproducible-builds.org/specs/source-date-epoch/. Raises ArgumentError if the
    variable does not hold a number of seconds.
    """
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if seconds is None:
        return datetime.now(UTC)
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ArgumentError(
            f"SOURCE_DATE_EPOCH = {seconds!r:.40}, expected a number of seconds since 1970"
        ) from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
