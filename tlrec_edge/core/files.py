"""Write a file completely or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from tlrec_edge.errors import DataError


def create_next_to(path: Path) -> Path:
    """Create an empty file in the folder of ``path``, and return it; it can then be renamed.

    Not by ``tempfile``, whose files only their owner can read: the umask decides.

    Raises OSError if the folder is not writable.
    """
    temporary = path.absolute().with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.new")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return temporary


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8; an older file is replaced when the new one is complete.

    Raises DataError if it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a terminal
            path.write_text(text, "utf-8", "backslashreplace")
        else:
            _replace(path.resolve(), text)  # a link stays one
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}; choose another file"
        ) from error


def _replace(path: Path, text: str) -> None:
    temporary = create_next_to(path)
    try:
        temporary.write_text(text, "utf-8", "backslashreplace")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
