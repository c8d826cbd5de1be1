"""The bundle: one folder of memory-mapped arrays, graphs and a manifest, checked before use; no path leaves it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tlrec_edge.bundle.format import (
    ENCODER,
    FEATURES,
    FORMAT,
    INDEXED,
    ITEM_TOWER,
    MANIFEST,
    PREFIX_SCAN,
    REMEDY,
    ArraySpec,
    ModelShape,
    Scoring,
    optional_arrays,
    required_arrays,
)
from tlrec_edge.bundle.id_index import IdIndex
from tlrec_edge.bundle.ids import preview
from tlrec_edge.bundle.string_table import StringTable
from tlrec_edge.bundle.validate import check_contents, check_lengths
from tlrec_edge.bundle.writer import BundleWriter
from tlrec_edge.errors import BundleError

Arrays = dict[str, NDArray[Any]]
VERIFY_LEVELS = ("none", "size", "full")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_CHUNK = 1 << 20


class Bundle:
    """An opened bundle: its manifest and views of its arrays. Use ``Bundle.open``."""

    def __init__(
        self, path: Path, manifest: dict[str, Any], shape: ModelShape, arrays: Arrays, hashed: bool
    ) -> None:
        self.path, self.manifest, self.shape = path, manifest, shape
        self.scoring = Scoring.from_manifest(manifest, shape)
        self._arrays, self._hashed = arrays, hashed

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: str = "size") -> Bundle:
        """Map a bundle. ``verify``: "none", "size" of each file, or "full" (SHA-256 and contents too).

        Shapes and dtypes are always checked, and with "size" the SHA-256 of what ``read`` returns. Raises BundleError
        that names the file and the remedy.
        """
        if verify not in VERIFY_LEVELS:
            raise ValueError(f"verify = {verify!r}, expected one of {', '.join(VERIFY_LEVELS)}")
        if not isinstance(path, (str, os.PathLike)):
            raise BundleError(
                f"path = {preview(path)}; expected the folder that `tlrec-edge export` wrote"
            )
        root = Path(path)
        manifest = read_manifest(root)
        shape = ModelShape.from_manifest(manifest)
        files = _listed_files(root, manifest)
        for name, entry in files.items():
            try:
                _check_file(root / name, entry, verify)
            except OSError as error:
                raise BundleError(
                    f"{root / name} cannot be read ({error.strerror}); {REMEDY}"
                ) from error
        expected = required_arrays(shape) | optional_arrays(shape, files)
        graphs = [
            ENCODER,
            *([FEATURES] if ITEM_TOWER in files else []),
            *([PREFIX_SCAN] if "head_columns.npy" in files else []),
        ]
        for name in (*expected, *graphs):
            if name not in files:
                raise BundleError(f"{root / name} is not listed in {MANIFEST}; {REMEDY}")
        arrays = {name: _map_array(root / name, spec) for name, spec in expected.items()}
        bundle = cls(root, manifest, shape, arrays, verify != "none")
        if "user_rows.npy" in arrays and manifest["user_ids"] is None:
            raise BundleError(
                f"{root / MANIFEST} does not say how user ids are stored (user_ids); {REMEDY}"
            )
        check_lengths(root, shape, arrays)
        if verify == "full":
            check_contents(root, shape, arrays)
        return bundle

    def array(self, name: str) -> NDArray[Any]:
        """Return the read-only view of array ``name`` (without ``.npy``)."""
        try:
            return self._arrays[f"{name}.npy"]
        except KeyError:
            raise BundleError(
                f"{self.path / name}.npy is not part of this bundle; export it with that part"
            ) from None

    @property
    def nbytes(self) -> int:
        """The bytes of the mapped arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def has(self, file: str) -> bool:
        """Say whether the bundle lists ``file``."""
        return file in self.manifest["files"]

    def read(self, file: str) -> bytes:
        """Return the bytes of a listed file."""
        path = self.path / file
        if not self.has(file):
            raise BundleError(f"{path} is not part of this bundle; export it with that part")
        try:
            blob = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from error
        if (
            self._hashed
            and hashlib.sha256(blob).hexdigest() != self.manifest["files"][file]["sha256"]
        ):
            raise BundleError(f"{path} differs from the SHA-256 in the manifest: altered; {REMEDY}")
        return blob

    def strings(self, name: str) -> StringTable:
        return StringTable(
            self.array(f"{name}.bytes"),
            self.array(f"{name}.offsets"),
            f"{self.path / name}.bytes.npy",
        )

    def index(self, name: str) -> IdIndex:
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
    """Write a bundle at ``path`` whole or not at all, and return it opened.

    Names in ``arrays`` and ``strings`` are those of the format without ``.npy``. An older bundle at ``path`` is
    replaced; any other folder that is not empty is refused with BundleError.
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
    """Return a bundle's manifest. Raises BundleError if ``root`` holds none of a known format."""
    if not root.is_dir():
        found = "is a file, not a folder" if root.exists() else "does not exist"
        raise BundleError(f"{root} {found}; give the folder that `tlrec-edge export` wrote")
    try:
        manifest = json.loads((root / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{root} holds no {MANIFEST}: not a bundle; give the folder that `tlrec-edge export` wrote"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{root / MANIFEST} is not readable JSON ({error}); {REMEDY}") from error
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise BundleError(f"{root / MANIFEST} names no format version; {REMEDY}")
    if manifest["format"] != FORMAT:
        raise BundleError(
            f"{root} has format version {manifest['format']!r}, this tlrec-edge reads {FORMAT}; "
            "install the tlrec-edge that wrote it or export it again"
        )
    return manifest


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _listed_files(root: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"{root / MANIFEST} lists no files; {REMEDY}")
    for name in files:
        if not _PLAIN_NAME.fullmatch(name):
            raise BundleError(
                f"{root / MANIFEST} lists {name!r:.80}, no plain file name; do not use this bundle"
            )
    return files


def _check_file(path: Path, entry: Any, verify: str) -> None:
    if not isinstance(entry, dict) or not (
        type(entry.get("size")) is int and isinstance(entry.get("sha256"), str)
    ):
        raise BundleError(
            f"{path.parent / MANIFEST} gives no size and sha256 for {path.name}; {REMEDY}"
        )
    if not path.is_file():
        raise BundleError(f"{path} is missing; {REMEDY}")
    if path.is_symlink() and path.resolve().parent != path.parent.resolve():
        raise BundleError(f"{path} is a link that leaves the bundle; replace it by the file itself")
    size = path.stat().st_size
    if verify != "none" and size != entry["size"]:
        raise BundleError(
            f"{path} has {size} bytes, the manifest says {entry['size']}: cut or altered; {REMEDY}"
        )
    if verify == "full" and file_sha256(path) != entry["sha256"]:
        raise BundleError(f"{path} differs from the SHA-256 in the manifest: altered; {REMEDY}")


def _map_array(path: Path, spec: ArraySpec) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
            start = file.tell()
    except (
        Exception
    ) as error:  # numpy lets errors of the tokenizer, the literal and the dtype through
        raise BundleError(f"{path} is not a .npy file ({preview(str(error))}); {REMEDY}") from error
    if dtype.str not in spec.dtypes or (fortran and len(shape) > 1):
        order = " in Fortran order" if fortran else ""
        raise BundleError(
            f"{path} holds {dtype.str}{order}, expected {' or '.join(spec.dtypes)}; {REMEDY}"
        )
    fits = (
        min(shape, default=0) >= 0
        and len(shape) == len(spec.shape)
        and all(w in (None, s) for s, w in zip(shape, spec.shape, strict=True))
    )
    if not fits:
        want = tuple("any" if size is None else size for size in spec.shape)
        raise BundleError(f"{path} has shape {shape}, expected {want}; {REMEDY}".replace("'", ""))
    size = math.prod(shape) * dtype.itemsize
    if path.stat().st_size != start + size:
        raise BundleError(
            f"{path} has {path.stat().st_size} bytes, its header asks for {start + size}: cut; {REMEDY}"
        )
    if not size:
        return np.zeros(shape, dtype)
    # A plain array over the map: numpy's memmap subclass costs every later call.
    return np.asarray(np.memmap(path, dtype, "r", start, shape))
