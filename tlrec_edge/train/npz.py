"""Read .npz files without pickle."""

from __future__ import annotations

import zipfile
from typing import IO, Any

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


def read_arrays(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    """Return every array of an open file by its name.

    Raises one of ``DAMAGED`` if the file is damaged.
    """
    with np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
