"""Write a bundle array by array, in a folder next to its target, and rename it when complete."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tlrec_edge.bundle.format import FORMAT, MANIFEST
from tlrec_edge.bundle.id_index import build_index
from tlrec_edge.bundle.string_table import build_strings
from tlrec_edge.core.folders import FolderKind, replace_folder
from tlrec_edge.errors import BundleError
from tlrec_edge.version import VERSION

BUNDLE = FolderKind(
    name="bundle",
    marker=MANIFEST,
    keys=("tlrec_edge", "files"),
    files=lambda manifest: manifest["files"].keys(),
    error=BundleError,
    read_only=True,
)


class BundleWriter:
    """Writes the files of a bundle into a folder. Use ``BundleWriter.at``.

    ``create`` returns memory-mapped arrays, so a table that is larger than memory can be written
    in chunks.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        created = datetime.now(UTC).isoformat(timespec="seconds")
        self._manifest = {
            "format": FORMAT,
            "tlrec_edge": VERSION,
            "created": created,
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
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        np.save(self.folder / f"{name}.npy", little.reshape(array.shape), allow_pickle=False)

    def create(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a writable, memory-mapped new array in the file ``name``.npy."""
        return np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", np.dtype(dtype), shape)

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
            (self.folder / MANIFEST).write_text(text + "\n", "utf-8")
            self._sealed = True
        return self.folder


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
