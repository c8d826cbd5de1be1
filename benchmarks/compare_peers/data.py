"""The data that every contender reads. Imports numpy alone: a contender's memory and start are its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Data:
    """One catalogue in a folder, ``small`` or ``large``, with 64 questions: histories and candidates as rows."""

    folder: Path

    def load(self, name: str) -> NDArray[Any]:
        """Map an array."""
        return np.asarray(np.load(self.folder / f"{name}.npy", mmap_mode="r"))

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def items(self) -> int:
        return len(self.load("vectors"))
