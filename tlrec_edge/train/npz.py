"""Read .npz files without pickle, and only if their arrays have the size that they claim."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

DAMAGED = (
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)
"""What damaged files raise when they are read and their content is put to use."""
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAX_RATIO, _MAX_EXTRA = 20, 16 * 2**20
"""Bytes of all arrays: at most this many times those of the file, plus 16 MB. ``save`` does not
compress, so a file that unfolds to more was not written by it."""


def read_arrays(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    """Return every array of an open file by its name.

    Raises one of ``DAMAGED`` if the file is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _check_sizes(members, size)
        return {member.filename.removesuffix(".npy"): _read(archive, member) for member in members}


def _check_sizes(members: list[zipfile.ZipInfo], size: int) -> None:
    """Raise ValueError before anything is unfolded that would fill the memory."""
    unfolded = sum(member.file_size for member in members)
    if unfolded > _MAX_RATIO * size + _MAX_EXTRA:
        raise ValueError(f"{size:,} bytes that unfold to {unfolded:,}")
    if len({member.filename for member in members}) != len(members):
        raise ValueError("two arrays of the same name")
    if any(member.compress_type not in _KINDS for member in members):
        raise ValueError("an unknown compression")


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        shape, dtype = _read_header(file)
        claimed = file.tell() + math.prod(shape) * dtype.itemsize
    # numpy would allocate what the header claims.
    if min(shape, default=0) < 0 or claimed != member.file_size:
        raise ValueError(
            f"{member.filename} has {member.file_size:,} bytes, but claims {claimed:,}"
        )
    with archive.open(member) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:  # numpy raises many types here, such as tokenize.TokenError
        raise ValueError(f"a header that is not numpy's ({error})") from error
    return shape, dtype
