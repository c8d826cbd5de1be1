"""System calls that not every system or file system has, and what is done without them.

Linux has all of them. Elsewhere the package still imports, opens bundles and writes folders.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import Any

_EXCHANGE, _AT_CWD = 2, -100
"""RENAME_EXCHANGE and AT_FDCWD of linux/fs.h and fcntl.h."""
_NOT_SUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EXDEV}
_ZEROS = bytes(1 << 20)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step, so that neither path is ever absent.

    Return False, with nothing changed, if the system or the file system can't do it. Raises OSError
    if it can, but fails.
    """
    rename = _renameat2()
    if rename is None:
        return False
    if not rename(_AT_CWD, os.fsencode(first), _AT_CWD, os.fsencode(second), _EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in _NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(second))


def try_lock(file: int) -> bool | None:
    """Lock an open file until it is closed, and return whether that succeeded.

    False means that another process holds the lock, None that files can't be locked here.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def reserve(file: int, size: int) -> None:
    """Give an open file, which is empty, ``size`` bytes of disk space, all zero.

    A memory-mapped write into a file without reserved space kills the process with SIGBUS if the
    disk is full. Raises OSError, such as "No space left on device".
    """
    try:
        os.posix_fallocate(file, 0, size)
    except AttributeError:
        pass
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    else:
        return
    for start in range(0, size, len(_ZEROS)):
        _write_all(file, _ZEROS[: size - start])
    os.lseek(file, 0, os.SEEK_SET)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _renameat2() -> Any:
    """Return the C function renameat2; None if the C library does not have it."""
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
