"""Write a folder next to its final place, then move it there; replace only what this package wrote."""

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
    """A kind of folder: its ``marker`` is a JSON file with "format" and ``keys``, from which ``files`` are known."""

    name: str
    marker: str
    keys: tuple[str, ...]
    files: Callable[[Mapping[str, Any]], Collection[str]]
    """Return the names of all other files, given the content of the marker."""
    error: type[TlrecError]
    """What is raised if a folder of this kind cannot be written."""


def check_target(path: Path, kind: FolderKind) -> None:
    """Raise ``kind.error`` unless ``path`` is free, an empty folder, or a folder of this kind and nothing else."""
    if path.is_symlink():
        raise kind.error(f"{path} is a link; give the folder it points to or choose another --out")
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
    """Yield a new folder to fill; if the block ends well, it takes the place of ``path``, whole or not at all.

    Raises ``kind.error`` if ``path`` holds anything else than a folder of this kind, or cannot be written.
    """
    path = Path(os.path.abspath(path))
    with staging_folder(path, kind) as staging:
        yield staging
        check_target(path, kind)  # again: the block may have taken hours
        _publish(staging, path, kind)


@contextmanager
def staging_folder(path: Path, kind: FolderKind) -> Iterator[Path]:
    """Yield a new folder next to ``path``, which is removed at the end. What killed writers left is removed too."""
    path = Path(os.path.abspath(path))
    check_target(path, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path, kind)
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
    """Return the files that the marker in ``path`` names. Raises ``kind.error`` if the marker is not ours."""
    marker = path / kind.marker
    if not marker.is_file():
        raise _not_ours(path, kind, f"it has no {kind.marker}")
    try:
        head = json.loads(marker.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _not_ours(path, kind, f"{kind.marker} is not readable JSON") from error
    if not isinstance(head, dict) or type(head.get("format")) is not int:
        raise _not_ours(path, kind, f"{kind.marker} has no format version")
    for key in kind.keys:
        if key not in head:
            raise _not_ours(path, kind, f"{kind.marker} has no {key!r}")
    try:
        return set(kind.files(head))
    except TypeError as error:
        raise _not_ours(path, kind, f"{kind.marker} does not list its files") from error


def _not_ours(path: Path, kind: FolderKind, why: str) -> TlrecError:
    return kind.error(f"{path} exists and is not a {kind.name}; choose another --out ({why})")


def _publish(staging: Path, path: Path, kind: FolderKind) -> None:
    """Move ``staging`` to ``path``. An older folder steps aside first, and comes back if anything fails."""
    old = staging.with_suffix(".old")
    staging.chmod(0o755)  # mkdtemp's is for its owner alone
    for file in staging.iterdir():
        _sync(file)
    _sync(staging)
    try:
        if path.exists():
            os.rename(path, old)
        os.rename(staging, path)
        _sync(path.parent)
    except BaseException:
        _put_back(staging, path, old, kind)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _put_back(staging: Path, path: Path, old: Path, kind: FolderKind) -> None:
    try:
        if not staging.exists():
            os.rename(path, staging)
        if old.exists():
            os.rename(old, path)
    except OSError as error:
        left = f"; the {kind.name} that was there is now {old}" if old.exists() else ""
        raise kind.error(f"cannot write {path}: {error.strerror}{left}") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(path: Path, kind: FolderKind) -> None:
    """Remove the folders ``.NAME.PID.RANDOM.new`` and ``.old`` of writers of ``path`` that no longer live.

    An old folder is kept while nothing stands at ``path``: it is the only copy then.
    """
    left = re.compile(rf"\.{re.escape(path.name)}\.(\d{{1,9}})\.\w{{8}}\.(new|old)")
    for folder in path.parent.iterdir():
        match = left.fullmatch(folder.name)
        if not match or folder.is_symlink() or _lives(int(match[1])):
            continue
        if match[2] == "new" or (path / kind.marker).is_file():
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True
