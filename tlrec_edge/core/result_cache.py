"""Results of long computations in a folder, by the content of what they were computed from."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
MAX_BYTES = 2**30
"""Size of a folder of results above which the least recently used ones are deleted."""
_SUFFIX = ".npz"


def content_key(*parts: Any) -> str:
    """Return a key of JSON values and arrays: equal for equal contents, and for no others."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class ResultCache:
    """Arrays by key, in the files of a folder.

    Nothing depends on it but time: a file that is damaged, or cannot be written, is ignored.

    Attributes:
        path: the folder; it is made when the first result is stored.
        max_bytes: size of its files above which the least recently used ones are deleted.
    """

    path: Path
    max_bytes: int = MAX_BYTES

    def get(self, key: str) -> Arrays | None:
        """Return the arrays stored under a key, which then count as just used."""
        file = self.path / (key + _SUFFIX)
        try:
            with file.open("rb") as stored, np.load(stored, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile):
            with suppress(OSError):
                file.unlink()
            return None
        with suppress(OSError):
            os.utime(file)
        return arrays

    def put(self, key: str, arrays: Arrays) -> None:
        """Store arrays, and delete the least recently used results that no longer fit."""
        with suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path)
            try:
                with os.fdopen(handle, "wb") as file:
                    np.savez(file, allow_pickle=False, **arrays)
                os.replace(name, self.path / (key + _SUFFIX))
            except BaseException:
                os.unlink(name)
                raise
            self._shrink()

    def _shrink(self) -> None:
        files = sorted(self.path.glob("*" + _SUFFIX), key=lambda file: file.stat().st_mtime_ns)
        total = sum(file.stat().st_size for file in files)
        for file in files:
            if total <= self.max_bytes:
                return
            total -= file.stat().st_size
            file.unlink()
