"""The bytes of a bundle's file in memory, and the array that they hold."""

from __future__ import annotations

import errno
import io
import math
import mmap
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tlrec_edge.bundle.arrays import ArraySpec
from tlrec_edge.bundle.format import REMEDY
from tlrec_edge.bundle.ids import preview
from tlrec_edge.errors import BundleError
from tlrec_edge.types import Bytes

_MAX_HEADER_BYTES = 12_000
"""More than numpy accepts."""


class FileData(NamedTuple):
    """The content of a file, read-only."""

    data: Bytes
    is_mapped: bool
    """Whether the system reads the file when its pages are used; else it was read completely."""


def load_file(file: int) -> FileData:
    """Map an open file into memory, or read it if its file system can't map files.

    Raises OSError if it can't be read.
    """
    if not os.fstat(file).st_size:  # an empty file cannot be mapped
        return FileData(np.zeros(0, np.uint8), True)
    try:
        mapped = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise
        return FileData(_read(file), False)
    return FileData(np.frombuffer(mapped, np.uint8), True)


def _read(file: int) -> Bytes:
    data, done = np.empty(os.fstat(file).st_size, np.uint8), 0
    with open(file, "rb", buffering=0, closefd=False) as opened:
        while count := opened.readinto(data[done:].data):
            done += count
    data.setflags(write=False)
    return data[:done]


def array_of(data: Bytes, path: Path, spec: ArraySpec) -> NDArray[Any]:
    """Return the array in the content of a .npy file, without copying it.

    Raises BundleError if it isn't what ``spec`` expects.
    """
    shape, fortran, dtype, start = _parse_header(data, path)
    if dtype.str not in spec.dtypes or (fortran and len(shape) > 1):
        order = " in Fortran order" if fortran else ""
        raise BundleError(
            f"{path} holds {dtype.str}{order}, expected {' or '.join(spec.dtypes)}; {REMEDY}"
        )
    if not _fits(shape, spec.shape):
        expected = tuple("any" if size is None else size for size in spec.shape)
        message = f"{path} has shape {shape}, expected {expected}; {REMEDY}"
        raise BundleError(message.replace("'", ""))
    count = math.prod(shape)
    size = start + count * dtype.itemsize
    if len(data) != size:
        raise BundleError(
            f"{path} has {len(data)} bytes, but {size} by its header: it was cut short; {REMEDY}"
        )
    if not count:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype, count, start).reshape(shape)


def _parse_header(data: Bytes, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, Fortran order, dtype and offset of the data of a .npy file."""
    file = io.BytesIO(data[:_MAX_HEADER_BYTES].tobytes())
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        return *read(file), file.tell()
    except Exception as error:  # numpy raises many types here, such as tokenize.TokenError
        raise BundleError(f"{path} is not a .npy file ({preview(str(error))}); {REMEDY}") from error


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    if len(shape) != len(expected) or min(shape, default=0) < 0:
        return False
    return all(size is None or size == got for got, size in zip(shape, expected, strict=True))
