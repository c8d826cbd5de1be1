"""Write a bundle beside its final place, array by array, then move it there in one step."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tlrec_edge.errors import BundleError
from tlrec_edge.ids import build_index, build_strings
from tlrec_edge.layout import FORMAT, MANIFEST
from tlrec_edge.version import VERSION

_CHUNK = 1 << 20


class BundleWriter:
    """Context manager: leaves a whole bundle at ``path``, or what was there before.

    ``create`` hands out memory-mapped arrays, so that a table larger than memory can be filled in chunks.
    """

    def __init__(self, path: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
        self.path = Path(os.path.abspath(path))
        created = datetime.now(UTC).isoformat(timespec="seconds")
        self._manifest = {"format": FORMAT, "tlrec_edge": VERSION, "created": created, "deltas": [], **manifest}
        self._sealed = False

    def __enter__(self) -> Self:
        _refuse_foreign(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            sweep(self.path)
            prefix = f".{self.path.name}.{os.getpid()}."
            self.folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".new", dir=self.path.parent))
        except OSError as error:
            raise BundleError(f"cannot write to {self.path.parent} ({error.strerror}); choose another --out") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.seal()
                _move(self.folder, self.path)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def array(self, name: str, array: NDArray[Any]) -> None:
        """Write one array as ``name``.npy, in C order and little endian."""
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        np.save(self.folder / f"{name}.npy", little.reshape(array.shape), allow_pickle=False)

    def create(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a writable map of a new array ``name``.npy."""
        return np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", np.dtype(dtype), shape)

    def written(self, name: str) -> NDArray[Any]:
        """Return a map of an array that is already there."""
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
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
        """Sync every file, write the manifest last, and return the temporary folder."""
        if not self._sealed:
            self._manifest["files"] = {p.name: _sync_and_hash(p) for p in sorted(self.folder.iterdir())}
            text = json.dumps(self._manifest, indent=1, ensure_ascii=False, allow_nan=False)
            (self.folder / MANIFEST).write_text(text + "\n", "utf-8")
            _sync_and_hash(self.folder / MANIFEST)
            self.folder.chmod(0o755)
            _sync_folder(self.folder)
            self._sealed = True
        return self.folder


def sweep(path: Path) -> None:
    """Remove what killed writers of ``path`` left beside it: folders ``.NAME.PID...`` whose process no longer lives.

    What a writer moved out of the way stays where no bundle stands at ``path``: it is the only copy then.
    """
    left = re.compile(
        rf"\.{{1,2}}{re.escape(path.name)}\.(\d{{1,9}})\.(?:unproven|(?:unproven\.\d+\.)?\w{{8}}\.(?:new|old))"
    )
    for folder in path.parent.iterdir() if path.parent.is_dir() else ():
        match = left.fullmatch(folder.name)
        if not match or folder.is_symlink() or _lives(int(match[1])):
            continue
        if not folder.name.endswith(".old") or (path / MANIFEST).is_file():
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True


def _refuse_foreign(path: Path) -> None:
    """Raise unless ``path`` is free, an empty folder or a bundle."""
    if path.is_dir():
        if any(path.iterdir()) and not (path / MANIFEST).is_file():
            raise BundleError(f"{path} is a folder with other things in it; choose a new or empty folder")
    elif path.exists():
        raise BundleError(f"{path} is a file; choose a folder for the bundle")


def _sync_and_hash(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        while block := file.read(_CHUNK):
            digest.update(block)
            size += len(block)
    return {"size": size, "sha256": digest.hexdigest()}


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move(new: Path, path: Path) -> None:
    """Put ``new`` at ``path``. An older folder there steps aside first and comes back if the move fails."""
    old = new.with_suffix(".old")
    if path.exists():
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    _sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)
