"""Write a bundle beside its final place, array by array, then move it there in one step."""

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

_CHUNK = 1 << 20


BUNDLE = FolderKind(
    "bundle", MANIFEST, ("tlrec_edge", "files"), lambda head: head["files"].keys(), BundleError
)


class BundleWriter:
    """Writes a bundle's files into ``folder``; use ``BundleWriter.at``.

    ``create`` hands out memory-mapped arrays, so that a table larger than memory can be filled in chunks.
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
        """Leave a whole bundle at ``path`` when the block ends, or what was there before."""
        with replace_folder(Path(path), BUNDLE) as folder:
            writer = cls(folder, manifest)
            yield writer
            writer.seal()

    def array(self, name: str, array: NDArray[Any]) -> None:
        """Write one array as ``name``.npy, in C order and little endian."""
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        np.save(self.folder / f"{name}.npy", little.reshape(array.shape), allow_pickle=False)

    def create(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a writable map of a new array ``name``.npy."""
        return np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", np.dtype(dtype), shape)

    def written(self, name: str) -> NDArray[Any]:
        """Return a map of an array that is already there."""
        array: NDArray[Any] = np.load(
            self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False
        )
        return array

    def names(self) -> list[str]:
        """Return the names of the arrays that are there."""
        return sorted(path.stem for path in self.folder.glob("*.npy"))

    def strings(self, name: str, values: Iterable[str], *, index: bool = False) -> None:
        """Write a string table, and with ``index`` its id index: values must then be unique and not empty."""
        data, offsets = build_strings(values)
        self.array(f"{name}.bytes", data)
        self.array(f"{name}.offsets", offsets)
        if index:
            for part, array in build_index(data, offsets, name).items():
                self.array(f"{name}.{part}", array)

    def blob(self, name: str, blob: bytes) -> None:
        (self.folder / name).write_bytes(blob)

    def update(self, manifest: Mapping[str, Any]) -> None:
        """Add entries to the manifest."""
        self._manifest.update(manifest)

    def seal(self) -> Path:
        """Write the manifest, which lists every file and its hash, and return the folder."""
        if not self._sealed:
            self._manifest["files"] = {
                path.name: _size_and_hash(path) for path in sorted(self.folder.iterdir())
            }
            text = json.dumps(self._manifest, indent=1, ensure_ascii=False, allow_nan=False)
            (self.folder / MANIFEST).write_text(text + "\n", "utf-8")
            self._sealed = True
        return self.folder


def _size_and_hash(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
            size += len(block)
    return {"size": size, "sha256": digest.hexdigest()}
