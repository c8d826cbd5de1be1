"""Read the files of a folder that may be replaced at any moment: all from one version of it.

All reads of an opening go through one handle of the folder, so they don't notice that another
folder takes its path. A folder whose files are links, such as a Kubernetes volume, can change
behind its handle: then its marker changes too, and the reading starts again.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from tlrec_edge.core.folders import FolderKind
from tlrec_edge.errors import TlrecError

Content = TypeVar("Content")
_ATTEMPTS = 20
_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
_FILE_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
    _FILE_FLAGS |= getattr(os, _name, 0)  # O_NONBLOCK: opening a FIFO would wait for its writer
_HUB_SNAPSHOT = re.compile(r"(.*/(?:models|datasets|spaces)--[^/]+)/snapshots/[^/]+(?:/.*)?")
_HUB_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def read_folder(path: Path, kind: FolderKind, read: Callable[[OpenedFolder], Content]) -> Content:
    """Return what ``read`` returns for one whole version of the folder at ``path``.

    If the folder is replaced while ``read`` reads it, ``read`` is called again with the new one.

    Raises ``kind.error`` if the folder can't be opened, and what ``read`` raises.
    """
    for _ in range(_ATTEMPTS):
        with _open_folder(path, kind) as folder:
            try:
                content = read(folder)
            except (TlrecError, OSError):
                if not (folder.has_moved() or folder.has_changed()):
                    raise
                continue
            if not folder.has_changed():
                return content
    raise kind.error(f"{path} was replaced {_ATTEMPTS} times while it was read; open it again")


@contextmanager
def _open_folder(path: Path, kind: FolderKind) -> Iterator[OpenedFolder]:
    handle = None
    try:
        if os.open in os.supports_dir_fd:
            handle = os.open(path, _FOLDER_FLAGS)
        elif not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotADirectoryError
    except PermissionError as error:
        raise _not_allowed(path, kind) from error
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        # ValueError: the path contains a null character.
        problem = "is a file, not a folder" if path.exists() else "does not exist"
        raise kind.error(f"{path} {problem}: {kind.advice}") from error
    except OSError as error:
        raise kind.error(f"{path} cannot be opened ({error.strerror}); check the path") from error
    try:
        yield OpenedFolder(path, kind, handle)
    finally:
        if handle is not None:
            os.close(handle)


class OpenedFolder:
    """A folder that is open for reading; ``read_folder`` opens it.

    Attributes:
        path: Its path, which may lead to another folder by now.
        kind: Its kind. All methods raise ``kind.error``.
    """

    def __init__(self, path: Path, kind: FolderKind, handle: int | None) -> None:
        self.path, self.kind, self._handle = path, kind, handle
        self._folder = os.stat(path) if handle is None else os.fstat(handle)
        self._versions: set[tuple[int, ...]] = set()
        """Versions of the marker that were seen; more than one if the files were replaced."""
        self._look_at_marker()

    def read_marker(self) -> bytes:
        """Return the content of the marker.

        Raises ``kind.error`` if the folder has none, or if it is larger than markers of its kind.
        """
        name, kind = self.kind.marker, self.kind
        if not self.has(name):
            raise kind.error(f"{self.path} is not a {kind.name} folder (no {name}): {kind.advice}")
        return self.read(name, kind.max_marker_bytes)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return the content of a file. Raises ``kind.error`` if it has more than ``max_bytes``."""
        file, found = self.open(name)
        if name == self.kind.marker:
            self._versions.add(_version(found))
        with os.fdopen(file, "rb") as opened:
            if found.st_size > max_bytes:
                raise self.kind.error(
                    f"{self.path / name} has {found.st_size:,} bytes, more than the {max_bytes:,} "
                    f"that are read; {self.kind.remedy}"
                )
            try:
                return opened.read(found.st_size)
            except OSError as error:
                raise self._not_readable(name, error) from error

    def has(self, name: str) -> bool:
        """Return whether the folder has something of this name."""
        try:
            os.stat(**self._at(name), follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._not_readable(name, error) from error
        return True

    def open(self, name: str) -> tuple[int, os.stat_result]:
        """Open a file of the folder; return its descriptor, which the caller closes, and status.

        Raises ``kind.error`` if it is missing, not a regular file, or a link to a file outside the
        folder.
        """
        at = self._at(name)
        try:
            if stat.S_ISLNK(os.stat(**at, follow_symlinks=False).st_mode):
                at = {"path": self._link_target(name)}
            return self._open_regular(name, at)
        except OSError as error:
            raise self._not_readable(name, error) from error

    def has_moved(self) -> bool:
        """Return whether the path no longer leads to this folder."""
        try:
            return not os.path.samestat(os.stat(self.path), self._folder)
        except OSError:
            return True

    def has_changed(self) -> bool:
        """Return whether the marker was replaced since the folder was opened.

        A marker that is gone is that of an older version, which is being removed: the files that
        were opened before all belong to it.
        """
        self._look_at_marker()
        return len(self._versions) > 1

    def _look_at_marker(self) -> None:
        with suppress(OSError):
            self._versions.add(_version(os.stat(**self._at(self.kind.marker))))

    def _at(self, name: str) -> dict[str, Any]:
        """Return the arguments with which ``os.stat`` and ``os.open`` find a file."""
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise self.kind.error(
                f"{self.path / self.kind.marker} lists {name!r:.80}, which is not a plain file "
                f"name; {self.kind.remedy}"
            )
        if self._handle is None:
            return {"path": self.path / name}
        return {"path": name, "dir_fd": self._handle}

    def _open_regular(self, name: str, at: dict[str, Any]) -> tuple[int, os.stat_result]:
        # Before opening it too: to open a device may have an effect.
        self._check_regular(name, os.stat(**at, follow_symlinks=False))
        file = os.open(**at, flags=_FILE_FLAGS)
        try:
            found = os.fstat(file)
            self._check_regular(name, found)
        except BaseException:
            os.close(file)
            raise
        return file, found

    def _check_regular(self, name: str, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise self.kind.error(f"{self.path / name} is not a regular file; {self.kind.remedy}")

    def _link_target(self, name: str) -> str:
        """Return the file that a link leads to. Raises OSError, or ``kind.error`` if it is outside.

        Links within the folder are fine, as in a Kubernetes volume. So are those of the Hugging
        Face hub's cache, from a snapshot to the blobs of the same repository.
        """
        root, target = os.path.realpath(self.path), os.path.realpath(self.path / name, strict=True)
        snapshot, (folder, blob) = _HUB_SNAPSHOT.fullmatch(root), os.path.split(target)
        is_blob = snapshot and folder == f"{snapshot[1]}/blobs" and _HUB_BLOB.fullmatch(blob)
        if not is_blob and not Path(target).is_relative_to(root):
            raise self.kind.error(
                f"{self.path / name} is a link to a file outside the {self.kind.name}; "
                "replace it by that file"
            )
        return target

    def _not_readable(self, name: str, error: OSError) -> TlrecError:
        path, kind = self.path / name, self.kind
        if isinstance(error, PermissionError):
            return _not_allowed(path, kind)
        if isinstance(error, FileNotFoundError):
            return kind.error(f"{path} is missing; {kind.remedy}")
        return kind.error(f"{path} cannot be read ({error.strerror}); {kind.remedy}")


def _not_allowed(path: Path, kind: FolderKind) -> TlrecError:
    return kind.error(f"not allowed to read {path}; check the permissions of its folder and file")


def _version(found: os.stat_result) -> tuple[int, ...]:
    """Return what changes if a file is replaced or written to."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
