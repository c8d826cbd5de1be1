"""Read .npz files without pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAMAGED = (
    OSError,
    EOFError,
    zipfile.BadZipFile,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
)
"""What damaged files raise when they are read and their content is put to use."""


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return every array of the file by its name. Raises one of ``DAMAGED`` if it is damaged."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
