"""Open a bundle: memory-map its arrays and check them before use.

A bundle is a folder of arrays, onnx graphs and a manifest that lists them. Nothing outside the
folder is read, whatever the manifest says.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tlrec_edge.bundle.arrays import INDEXED, ArraySpec, optional_arrays, required_arrays
from tlrec_edge.bundle.format import (
    ENCODER,
    FEATURES,
    FORMAT,
    ITEM_TOWER,
    MANIFEST,
    PREFIX_SCAN,
    REMEDY,
    ModelShape,
    Scoring,
)
from tlrec_edge.bundle.id_index import IdIndex
from tlrec_edge.bundle.ids import preview
from tlrec_edge.bundle.string_table import StringTable
from tlrec_edge.bundle.validate import check_contents, check_lengths
from tlrec_edge.bundle.writer import BundleWriter, file_sha256
from tlrec_edge.errors import ArgumentError, BundleError

Arrays = dict[str, NDArray[Any]]
VERIFY_LEVELS = ("none", "size", "full")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Bundle:
    """An opened bundle: its manifest, and read-only views of its arrays. Use ``Bundle.open``."""

    def __init__(
        self, path: Path, manifest: dict[str, Any], shape: ModelShape, arrays: Arrays, hashed: bool
    ) -> None:
        self.path, self.manifest, self.shape = path, manifest, shape
        self.scoring = Scoring.from_manifest(manifest, shape)
        self._arrays, self._hashed = arrays, hashed
        self.bundle_id = _bundle_id(manifest["files"], shape, self.scoring)
        """What user states and rows are bound to: it differs if any file or the scoring differs."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: str = "size") -> Bundle:
        """Open the bundle in the folder ``path``.

        ``verify`` is how much is checked, in addition to the dtype and shape of every array:

        - "none": nothing else
        - "size": the size of every file, and the SHA-256 of a file that ``read`` returns
        - "full": the SHA-256 of every file, and the values of every array

        Raises BundleError if the bundle is damaged or of another format version; the message names
        the file. Raises ArgumentError if ``verify`` is none of these, or ``path`` is not a path.
        """
        if verify not in VERIFY_LEVELS:
            raise ArgumentError(
                f"verify = {preview(verify)}, expected one of {', '.join(VERIFY_LEVELS)}"
            )
        if not isinstance(path, (str, os.PathLike)):
            raise ArgumentError(
                f"path = {preview(path)}, expected a folder written by `tlrec-edge export`"
            )
        root = Path(path)
        manifest = read_manifest(root)
        shape = ModelShape.from_manifest(manifest)
        files = _listed_files(root, manifest)
        for name, entry in files.items():
            try:
                _check_file(root / name, entry, verify)
            except OSError as error:
                raise _not_readable(root / name, error) from error
        specs = required_arrays(shape) | optional_arrays(shape, files)
        for name in (*specs, *_required_blobs(files)):
            if name not in files:
                raise BundleError(f"{root / name} is not listed in {MANIFEST}; {REMEDY}")
        arrays = {name: _map_array(root / name, spec) for name, spec in specs.items()}
        bundle = cls(root, manifest, shape, arrays, verify != "none")
        if "user_rows.npy" in arrays and manifest["user_ids"] is None:
            raise BundleError(
                f"{root / MANIFEST} has no user_ids, the way in which user ids are stored; {REMEDY}"
            )
        check_lengths(root, shape, arrays)
        if verify == "full":
            check_contents(root, shape, arrays)
        return bundle

    def array(self, name: str) -> NDArray[Any]:
        """Return a read-only view of an array, given its name without ``.npy``.

        Raises BundleError if the bundle does not have it.
        """
        try:
            return self._arrays[f"{name}.npy"]
        except KeyError:
            raise _not_a_part(self.path / f"{name}.npy") from None

    @property
    def nbytes(self) -> int:
        """Size in bytes of the mapped arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def has(self, file: str) -> bool:
        """Return whether the bundle has a file of this name."""
        return file in self.manifest["files"]

    def read(self, file: str) -> bytes:
        """Return the content of a file.

        Raises BundleError if the bundle does not have it, or if it was altered.
        """
        path = self.path / file
        if not self.has(file):
            raise _not_a_part(path)
        try:
            blob = path.read_bytes()
        except OSError as error:
            raise _not_readable(path, error) from error
        if self._hashed:
            _check_sha256(path, hashlib.sha256(blob).hexdigest(), self.manifest["files"][file])
        return blob

    def strings(self, name: str) -> StringTable:
        """Return a string table. Raises BundleError if the bundle does not have it."""
        return StringTable(
            self.array(f"{name}.bytes"),
            self.array(f"{name}.offsets"),
            f"{self.path / name}.bytes.npy",
        )

    def index(self, name: str) -> IdIndex:
        """Return the id index of a string table. Raises BundleError if the bundle has none."""
        parts = {part: self.array(f"{name}.{part}") for part in ("buckets", "rows", "hashes")}
        return IdIndex(
            self.array(f"{name}.bytes"),
            self.array(f"{name}.offsets"),
            parts,
            f"{self.path / name}.*.npy",
        )


def write_bundle(
    path: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    strings: Mapping[str, Sequence[str]],
    blobs: Mapping[str, bytes],
) -> Bundle:
    """Write a bundle to the folder ``path``, completely or not at all, and open it.

    Names of ``arrays`` and ``strings`` are those of the format without ``.npy``; ``blobs`` are the
    other files. An older bundle at ``path`` is replaced.

    Raises BundleError if the arrays do not agree, or if ``path`` is another folder that is not
    empty.
    """
    with BundleWriter.at(path, manifest) as writer:
        for name, array in arrays.items():
            writer.array(name.removesuffix(".npy"), array)
        for name, values in strings.items():
            writer.strings(name, values, index=name in INDEXED)
        for name, blob in blobs.items():
            writer.blob(name, blob)
        Bundle.open(writer.seal(), verify="size")
    return Bundle.open(path, verify="none")


def read_manifest(root: Path) -> dict[str, Any]:
    """Return the manifest of the bundle in the folder ``root``.

    Raises BundleError if it cannot be read, or is of another format version.
    """
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise BundleError(f"{root} {problem}: pass a folder written by `tlrec-edge export`")
    try:
        manifest = json.loads((root / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{root} is not a bundle folder (no {MANIFEST}): "
            "pass a folder written by `tlrec-edge export`"
        ) from None
    except OSError as error:
        raise _not_readable(root / MANIFEST, error) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{root / MANIFEST} is not readable JSON ({error}); {REMEDY}") from error
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise BundleError(
            f"{root / MANIFEST} is not a bundle's manifest (it has no format version): "
            "pass a folder written by `tlrec-edge export`"
        )
    if manifest["format"] != FORMAT:
        raise BundleError(
            f"{root} has format version {manifest['format']!r}, this tlrec-edge reads {FORMAT}; "
            "install the version that wrote it, or export it again"
        )
    return manifest


def _bundle_id(files: Mapping[str, Any], shape: ModelShape, scoring: Scoring) -> str:
    hashes = sorted((name, entry["sha256"]) for name, entry in files.items())
    return hashlib.sha256(repr((hashes, shape, scoring)).encode()).hexdigest()


def _not_readable(path: Path, error: OSError) -> BundleError:
    remedy = "check its permissions" if isinstance(error, PermissionError) else REMEDY
    return BundleError(f"{path} cannot be read ({error.strerror}); {remedy}")


def _not_a_part(path: Path) -> BundleError:
    return BundleError(f"{path} is not part of this bundle; export it with that part")


def _required_blobs(files: Container[str]) -> list[str]:
    """Return the files other than arrays that a bundle with these files must have."""
    names = [ENCODER]
    if ITEM_TOWER in files:
        names.append(FEATURES)
    if "head_columns.npy" in files:
        names.append(PREFIX_SCAN)
    return names


def _listed_files(root: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"{root / MANIFEST} lists no files; {REMEDY}")
    for name in files:
        if not _PLAIN_NAME.fullmatch(name):
            raise BundleError(
                f"{root / MANIFEST} lists {name!r:.80}, which is not a plain file name; "
                "do not use this bundle"
            )
    return files


def _check_file(path: Path, entry: Any, verify: str) -> None:
    valid = isinstance(entry, dict) and type(entry.get("size")) is int
    if not valid or not isinstance(entry.get("sha256"), str):
        raise BundleError(
            f"{path.parent / MANIFEST} has no size and sha256 for {path.name}; {REMEDY}"
        )
    if not path.is_file():
        raise BundleError(f"{path} is missing; {REMEDY}")
    if path.is_symlink() and path.resolve().parent != path.parent.resolve():
        raise BundleError(f"{path} is a link to a file outside the bundle; replace it by that file")
    size = path.stat().st_size
    if verify != "none" and size != entry["size"]:
        raise BundleError(
            f"{path} has {size} bytes, but {entry['size']} in the manifest: "
            f"it was cut short or altered; {REMEDY}"
        )
    if verify == "full":
        _check_sha256(path, file_sha256(path), entry)


def _check_sha256(path: Path, sha256: str, entry: Mapping[str, Any]) -> None:
    if sha256 != entry["sha256"]:
        raise BundleError(f"{path} was altered: its SHA-256 differs from the manifest's; {REMEDY}")


def _map_array(path: Path, spec: ArraySpec) -> NDArray[Any]:
    """Return a read-only view of an array. Raises BundleError if it isn't what ``spec`` expects."""
    shape, fortran, dtype, start = _read_header(path)
    if dtype.str not in spec.dtypes or (fortran and len(shape) > 1):
        order = " in Fortran order" if fortran else ""
        raise BundleError(
            f"{path} holds {dtype.str}{order}, expected {' or '.join(spec.dtypes)}; {REMEDY}"
        )
    if not _fits(shape, spec.shape):
        expected = tuple("any" if size is None else size for size in spec.shape)
        message = f"{path} has shape {shape}, expected {expected}; {REMEDY}"
        raise BundleError(message.replace("'", ""))
    size = math.prod(shape) * dtype.itemsize
    if path.stat().st_size != start + size:
        raise BundleError(
            f"{path} has {path.stat().st_size} bytes, but {start + size} by its header: "
            f"it was cut short; {REMEDY}"
        )
    if not size:  # an empty file section cannot be mapped
        return np.zeros(shape, dtype)
    # A plain array over the map, because numpy's memmap subclass slows down every later call.
    return np.asarray(np.memmap(path, dtype, "r", start, shape))


def _read_header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, Fortran order, dtype and offset of the data of a .npy file."""
    try:
        with path.open("rb") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            return *read(file), file.tell()
    except PermissionError as error:
        raise _not_readable(path, error) from error
    except Exception as error:  # numpy raises many types here, such as tokenize.TokenError
        raise BundleError(f"{path} is not a .npy file ({preview(str(error))}); {REMEDY}") from error


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    if len(shape) != len(expected) or min(shape, default=0) < 0:
        return False
    return all(size is None or size == got for got, size in zip(shape, expected, strict=True))
