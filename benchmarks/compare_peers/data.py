"""The data that every contender reads.

This module imports only numpy, so that a contender's memory and start-up time are its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sizes:
    """Items of the two catalogues, width of the vectors, and length of the histories."""

    small: int = 100_000
    large: int = 1_000_000
    dim: int = 64
    length: int = 50


@dataclass(frozen=True)
class Data:
    """A catalogue, ``small`` or ``large``, with 64 cases: a history and candidates each."""

    folder: Path

    def load(self, name: str) -> NDArray[Any]:
        """Map an array into memory."""
        return np.asarray(np.load(self.folder / f"{name}.npy", mmap_mode="r"))

    def ids(self, name: str) -> list[list[str]]:
        """Return the item ids of each case's ``histories`` or ``candidates``."""
        ids: list[list[str]] = json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        return ids

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name

    @property
    def items(self) -> int:
        """The number of items."""
        return len(self.load("vectors"))
