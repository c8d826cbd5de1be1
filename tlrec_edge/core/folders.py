"""Write the folders of datasets, models and bundles: completely or not at all.

A folder is written next to its target and takes its place when it is complete. Only folders that
this package wrote are replaced; files of the user are never deleted.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlrec_edge.core import system_calls
from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.errors import TlrecError

_SUFFIX = ".staging"
_LOCK, _NEW, _OLD = "lock", "new", "old"
"""A workspace, the hidden folder ``.NAME.RANDOM.staging``, contains nothing else."""
_READ_BITS = 0o444


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
    """Raised if a folder of this kind cannot be read or written."""
    advice: str
    """What to do if a folder is not of this kind."""
    remedy: str
    """What to do if a folder of this kind is damaged."""
    max_marker_bytes: int = 1 << 32
    """Size above which the marker is not read."""
    read_only: bool = False
    """Whether the files are made read-only, because readers map them into memory."""


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

    An older folder of this kind is replaced in one step: at any moment ``path`` is the older folder
    or the new one. (Systems that can't exchange two folders need two steps, and ``path`` is absent
    between them.) After an exception the older folder is still there, unchanged.

    Raises ``kind.error`` if ``path`` is anything but a folder of this kind, or cannot be written.
    """
    path = Path(os.path.abspath(path))
    with staging_folder(path, kind) as staging:
        yield staging
        check_target(path, kind)  # again, because the block may have taken hours
        _publish(staging, path, kind)


@contextmanager
def staging_folder(path: Path, kind: FolderKind) -> Iterator[Path]:
    """Yield a new folder in a workspace next to ``path``; the workspace is removed at the end.

    Workspaces that killed processes left behind are removed too. Raises ``kind.error`` as
    ``replace_folder`` does.
    """
    path = Path(os.path.abspath(path))
    check_target(path, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path, kind)
        workspace, lock = _make_workspace(path)
    except OSError as error:
        raise kind.error(
            f"cannot write to {path.parent} ({error.strerror}); choose another --out"
        ) from error
    try:
        staging = workspace / _NEW
        staging.mkdir()
        yield staging
    except OSError as error:
        raise kind.error(
            f"cannot write {path}: {error.strerror or error}; nothing was changed"
        ) from error
    finally:
        try:
            if not _has_only_copy(workspace, path, kind):
                shutil.rmtree(workspace, ignore_errors=True)
        finally:
            os.close(lock)


def _listed(path: Path, kind: FolderKind) -> Collection[str]:
    """Return the files that the marker in ``path`` lists.

    Raises ``kind.error`` if the marker was not written by this package.
    """
    marker = path / kind.marker
    try:
        if not marker.is_file():
            raise _not_ours(path, kind, f"it has no {kind.marker}")
        if marker.stat().st_size > kind.max_marker_bytes:
            raise _not_ours(path, kind, f"{kind.marker} is too large for one")
        content = parse_json(marker.read_bytes())
    except PermissionError as error:
        raise _not_ours(path, kind, f"not allowed to read {kind.marker}") from error
    except (OSError, ValueError) as error:
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
    """Move ``staging`` to ``path``, and an older folder of ``path`` into the workspace."""
    files = list(staging.iterdir())
    for file in files if kind.read_only else ():
        file.chmod(file.stat().st_mode & _READ_BITS)
    for file in (*files, staging):
        _sync(file)
    if not (path.exists() and _exchange(staging, path, kind)):
        _rename(staging, path, kind)


def _exchange(staging: Path, path: Path, kind: FolderKind) -> bool:
    """Exchange the two folders, or change nothing; return whether the system can do it."""
    if not system_calls.exchange(staging, path):
        return False
    try:
        check_target(staging, kind)  # the older folder, to which nobody can add files any more
        _sync(path.parent)
    except BaseException:
        system_calls.exchange(staging, path)
        check_target(path, kind)
        raise
    return True


def _rename(staging: Path, path: Path, kind: FolderKind) -> None:
    """Rename the older folder, then the new one; restore the older one on failure."""
    old = staging.with_name(_OLD)
    try:
        if path.exists():
            os.rename(path, old)
        os.rename(staging, path)
        _sync(path.parent)
    except BaseException:
        _restore(staging, path, old, kind)
        raise


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


def _make_workspace(path: Path) -> tuple[Path, int]:
    """Make a locked folder next to ``path``; return it and its open lock file."""
    prefix = f".{path.name}."
    while True:
        workspace = Path(tempfile.mkdtemp(prefix=prefix, suffix=_SUFFIX, dir=path.parent))
        try:
            lock, locked = _lock(workspace)
        except FileNotFoundError:  # another writer saw it unlocked, and removed it as a leftover
            continue
        if locked is not False:
            return workspace, lock
        os.close(lock)


def _lock(workspace: Path) -> tuple[int, bool | None]:
    """Open a workspace's lock file and try to lock it; see ``system_calls.try_lock``.

    Raises FileNotFoundError if the workspace was removed.
    """
    path = workspace / _LOCK
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        locked = system_calls.try_lock(lock)
        # The file that was locked may have been removed in the meantime.
        if locked and not os.path.samestat(os.fstat(lock), path.stat()):
            locked = False
    except BaseException:
        os.close(lock)
        raise
    return lock, locked


def _remove_leftovers(path: Path, kind: FolderKind) -> None:
    """Remove the workspaces of processes that no longer run.

    A process holds the lock of its workspace as long as it lives, in whatever container it runs. A
    process id would not do: every container counts its own.
    """
    leftover = re.compile(rf"\.{re.escape(path.name)}\.\w{{8}}{re.escape(_SUFFIX)}")
    for folder in path.parent.iterdir():
        if leftover.fullmatch(folder.name) and not folder.is_symlink():
            with suppress(OSError):  # such as the workspace of another user
                _remove_if_unlocked(folder, path, kind)


def _remove_if_unlocked(workspace: Path, path: Path, kind: FolderKind) -> None:
    is_ours = set(os.listdir(workspace)) <= {_LOCK, _NEW, _OLD}
    if not is_ours or _has_only_copy(workspace, path, kind):
        return
    lock, locked = _lock(workspace)
    try:
        if locked:
            shutil.rmtree(workspace, ignore_errors=True)
    finally:
        os.close(lock)


def _has_only_copy(workspace: Path, path: Path, kind: FolderKind) -> bool:
    """Return whether a workspace holds the older folder of ``path``, and ``path`` holds none.

    That happens if a process is killed between two renames.
    """
    return (workspace / _OLD).exists() and not (path / kind.marker).is_file()
