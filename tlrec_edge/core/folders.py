"""Write the folders of datasets, models and bundles: completely or not at all.

A folder is written next to its target and renamed when it is complete. Only folders that this
package wrote are replaced; files of the user are never deleted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlrec_edge.errors import TlrecError


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder, and how to recognise one that this package wrote."""

    name: str
    """Name in messages, such as "bundle"."""
    marker: str
    """JSON file that every folder of this kind contains."""
    keys: tuple[str, ...]
    """Keys that the marker has in addition to "format"."""
    files: Callable[[Mapping[str, Any]], Collection[str]]
    """Return the names of all other files, given the content of the marker."""
    error: type[TlrecError]
    """Raised if a folder of this kind cannot be written."""


def check_target(path: Path, kind: FolderKind) -> None:
    """Raise ``kind.error`` if writing to ``path`` would delete anything but a folder of this kind.

    A path that doesn't exist and an empty folder are fine. A folder of this kind must not hold
    any other files.
    """
    if path.is_symlink():
        raise kind.error(f"{path} is a link; pass the folder it points to or choose another --out")
    if not path.exists():
        return
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise _not_ours(path, kind, (error.strerror or str(error)).lower()) from error
    known = {kind.marker, *_listed(path, kind)} if entries else set()
    for entry in entries:
        if entry.name not in known or entry.is_dir():
            raise kind.error(
                f"{entry} is not part of the {kind.name}; move it away or choose another --out"
            )


@contextmanager
def replace_folder(path: Path, kind: FolderKind) -> Iterator[Path]:
    """Yield a new folder to fill, and move it to ``path`` if the block ends without an exception.

    An older folder of this kind is replaced. After an exception it is still there, unchanged.

    Raises ``kind.error`` if ``path`` is anything but a folder of this kind, or cannot be written.
    """
    path = Path(os.path.abspath(path))
    with staging_folder(path, kind) as staging:
        yield staging
        check_target(path, kind)  # again, because the block may have taken hours
        _publish(staging, path, kind)


@contextmanager
def staging_folder(path: Path, kind: FolderKind) -> Iterator[Path]:
    """Yield a new folder next to ``path``, and remove it when the block ends.

    Folders that killed processes left behind are removed too. Raises ``kind.error`` as
    ``replace_folder`` does.
    """
    path = Path(os.path.abspath(path))
    check_target(path, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path, kind)
        prefix = f".{path.name}.{os.getpid()}."
        staging = Path(tempfile.mkdtemp(prefix=prefix, suffix=".new", dir=path.parent))
    except OSError as error:
        raise kind.error(
            f"cannot write to {path.parent} ({error.strerror}); choose another --out"
        ) from error
    try:
        yield staging
    except OSError as error:
        raise kind.error(
            f"cannot write {path}: {error.strerror or error}; nothing was changed"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _listed(path: Path, kind: FolderKind) -> Collection[str]:
    """Return the files that the marker in ``path`` lists.

    Raises ``kind.error`` if the marker was not written by this package.
    """
    marker = path / kind.marker
    if not marker.is_file():
        raise _not_ours(path, kind, f"it has no {kind.marker}")
    try:
        content = json.loads(marker.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _not_ours(path, kind, f"{kind.marker} is not readable JSON") from error
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise _not_ours(path, kind, f"{kind.marker} has no format version")
    for key in kind.keys:
        if key not in content:
            raise _not_ours(path, kind, f"{kind.marker} has no {key!r}")
    try:
        return set(kind.files(content))
    except TypeError as error:
        raise _not_ours(path, kind, f"{kind.marker} does not list its files") from error


def _not_ours(path: Path, kind: FolderKind, reason: str) -> TlrecError:
    return kind.error(f"{path} exists and is not a {kind.name} ({reason}); choose another --out")


def _publish(staging: Path, path: Path, kind: FolderKind) -> None:
    """Move ``staging`` to ``path``. An older folder is renamed first, and restored on failure."""
    old = staging.with_suffix(".old")
    staging.chmod(0o755)  # mkdtemp makes a folder that only its owner can read
    for file in staging.iterdir():
        _sync(file)
    _sync(staging)
    try:
        if path.exists():
            os.rename(path, old)
        os.rename(staging, path)
        _sync(path.parent)
    except BaseException:
        _restore(staging, path, old, kind)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _restore(staging: Path, path: Path, old: Path, kind: FolderKind) -> None:
    try:
        if not staging.exists():
            os.rename(path, staging)
        if old.exists():
            os.rename(old, path)
    except OSError as error:
        moved = f"; the older {kind.name} is now in {old}" if old.exists() else ""
        raise kind.error(f"cannot write {path}: {error.strerror}{moved}") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_leftovers(path: Path, kind: FolderKind) -> None:
    """Remove the folders ``.NAME.PID.RANDOM.new`` and ``.old`` of processes that no longer run.

    An old folder is kept as long as ``path`` has no folder of this kind: it is then the only copy.
    """
    leftover = re.compile(rf"\.{re.escape(path.name)}\.(\d{{1,9}})\.\w{{8}}\.(new|old)")
    for folder in path.parent.iterdir():
        match = leftover.fullmatch(folder.name)
        if not match or folder.is_symlink() or _is_running(int(match[1])):
            continue
        if match[2] == "new" or (path / kind.marker).is_file():
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # the process of another user
    return True
