"""Open a bundle: memory-map its files and check them before use.

A bundle is a folder of arrays, onnx graphs and a manifest that lists them. Nothing outside the
folder is read, whatever the manifest says.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tlrec_edge.bundle.arrays import INDEXED, optional_arrays, required_arrays
from tlrec_edge.bundle.file_data import FileData, array_of, load_file
from tlrec_edge.bundle.format import (
    BLOBS,
    ENCODER,
    FEATURES,
    FORMAT,
    ITEM_TOWER,
    MANIFEST,
    MANIFEST_CHECKSUM,
    PREFIX_SCAN,
    REMEDY,
    ModelShape,
    Scoring,
)
from tlrec_edge.bundle.id_index import IdIndex
from tlrec_edge.bundle.identity import content_id
from tlrec_edge.bundle.ids import preview
from tlrec_edge.bundle.string_table import StringTable
from tlrec_edge.bundle.validate import check_contents, check_lengths
from tlrec_edge.bundle.writer import BUNDLE, BundleWriter
from tlrec_edge.core.opened_folder import OpenedFolder, read_folder
from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.errors import ArgumentError, BundleError
from tlrec_edge.graph.check import MAX_FILE_BYTES

Arrays = dict[str, NDArray[Any]]
VERIFY_LEVELS = ("none", "size", "full")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MAX_CHECKSUM_BYTES = 4096
_CONTENT_ID = re.compile(r"[0-9a-f]{64}")


class Bundle:
    """An opened bundle: its manifest, and read-only views of its files. Use ``Bundle.open``.

    All files are mapped when it is opened, so it stays what it was if its folder is replaced or
    removed later.

    Attributes:
        path: Its folder.
        manifest: Its manifest.
        manifest_sha256: The SHA-256 of the manifest's file.
        shape: The sizes that its arrays agree with.
        scoring: How its scores are computed.
        verify: How much was checked when it was opened.
        mapped_bytes: Bytes of arrays that are mapped.
        loaded_bytes: Bytes of files that were read into memory, because they can't be mapped.
    """

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any],
        manifest_sha256: str,
        shape: ModelShape,
        arrays: Arrays,
        files: Mapping[str, FileData],
        verify: str,
    ) -> None:
        self.path, self.manifest, self.manifest_sha256 = path, manifest, manifest_sha256
        self.shape, self.scoring = shape, Scoring.from_manifest(manifest, shape)
        self._arrays, self.verify = arrays, verify
        self._blobs = {name: files[name].data for name in BLOBS if name in files}
        self.mapped_bytes = sum(
            array.nbytes for name, array in arrays.items() if files[name].is_mapped
        )
        self.loaded_bytes = sum(len(data) for data, is_mapped in files.values() if not is_mapped)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], verify: str = "size", expect: str | None = None
    ) -> Bundle:
        """Open the bundle in the folder ``path``: one whole version of it, or an error.

        ``verify`` is how much is checked, in addition to the manifest's checksum, and the dtype and
        shape of every array:

        - "none": nothing else
        - "size": the size of every file, and the SHA-256 of a file that ``read`` returns
        - "full": the SHA-256 of every file, and the values of every array

        ``expect`` is the ``content_id`` that the bundle must have.

        Raises BundleError if the bundle is damaged, has another format version or is not the
        expected one; the message names the file. Raises ArgumentError if an argument has another
        value.
        """
        if verify not in VERIFY_LEVELS:
            raise ArgumentError(
                f"verify = {preview(verify)}, expected one of {', '.join(VERIFY_LEVELS)}"
            )
        if not isinstance(path, (str, os.PathLike)):
            raise ArgumentError(
                f"path = {preview(path)}, expected a folder written by `tlrec-edge export`"
            )
        if expect is not None and not (isinstance(expect, str) and _CONTENT_ID.fullmatch(expect)):
            raise ArgumentError(
                f"expect = {preview(expect)}, expected the content id that "
                "`tlrec-edge inspect` prints"
            )
        return read_folder(Path(path), BUNDLE, lambda folder: cls._read(folder, verify, expect))

    @classmethod
    def _read(cls, folder: OpenedFolder, verify: str, expect: str | None) -> Bundle:
        root = folder.path
        manifest, manifest_sha256 = read_manifest(folder)
        shape = ModelShape.from_manifest(manifest)
        entries = _listed_files(root, manifest)
        specs = required_arrays(shape) | optional_arrays(shape, entries)
        for name in (*specs, *_required_blobs(entries)):
            if name not in entries:
                raise BundleError(f"{root / name} is not listed in {MANIFEST}; {REMEDY}")
        files: dict[str, FileData] = {}
        arrays: Arrays = {}
        with ExitStack() as opened:
            descriptors: dict[str, int] = {}
            for name, entry in entries.items():
                descriptors[name], found = folder.open(name)
                opened.callback(os.close, descriptors[name])
                _check_size(root / name, found.st_size, entry, verify)
                if name in specs or name in BLOBS:
                    files[name] = _load(root / name, descriptors[name])
                if name in specs:
                    arrays[name] = array_of(files[name].data, root / name, specs[name])
            bundle = cls(root, manifest, manifest_sha256, shape, arrays, files, verify)
            bundle._check_identity(expect)
            if verify == "full":
                # After the cheap checks, which may find that a huge file is not worth reading.
                for name, file in descriptors.items():
                    _check_sha256(root / name, _file_sha256(root / name, file), entries[name])
        check_lengths(root, shape, arrays)
        if verify == "full":
            check_contents(root, shape, arrays)
        return bundle

    def _check_identity(self, expect: str | None) -> None:
        if expect is not None and self.content_id != expect:
            raise BundleError(
                f"{self.path} is not the expected bundle: its content id is {self.content_id}, "
                f"not {expect}"
            )
        if "user_rows.npy" in self._arrays and self.manifest["user_ids"] is None:
            raise BundleError(
                f"{self.path / MANIFEST} has no user_ids, the way in which user ids are stored; "
                f"{REMEDY}"
            )

    @cached_property
    def content_id(self) -> str:
        """The identity of what the bundle serves; see ``bundle.identity.content_id``."""
        return content_id(self.manifest)

    def array(self, name: str) -> NDArray[Any]:
        """Return a read-only view of an array, given its name without ``.npy``.

        Raises BundleError if the bundle does not have it.
        """
        try:
            return self._arrays[f"{name}.npy"]
        except KeyError:
            raise _not_a_part(self.path / f"{name}.npy") from None

    def has(self, file: str) -> bool:
        """Return whether the bundle has a file of this name."""
        return file in self.manifest["files"]

    def read(self, file: str) -> bytes:
        """Return the content of a file that is not an array.

        Raises BundleError if the bundle does not have it, or if it was altered.
        """
        if file not in self._blobs:
            raise _not_a_part(self.path / file)
        blob = self._blobs[file].tobytes()
        if self.verify != "none":
            sha256 = hashlib.sha256(blob).hexdigest()
            _check_sha256(self.path / file, sha256, self.manifest["files"][file])
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


def read_manifest(folder: OpenedFolder) -> tuple[dict[str, Any], str]:
    """Return the manifest of a bundle, and the SHA-256 of its file.

    Raises BundleError if it cannot be read, was altered, or is of another format version.
    """
    path, data = folder.path / MANIFEST, folder.read_marker()
    sha256 = hashlib.sha256(data).hexdigest()
    if folder.has(MANIFEST_CHECKSUM):  # bundles of older versions don't have it
        line = folder.read(MANIFEST_CHECKSUM, _MAX_CHECKSUM_BYTES)
        if line.split()[:1] != [sha256.encode()]:
            raise BundleError(
                f"{path} was altered: its SHA-256 differs from {MANIFEST_CHECKSUM}; {REMEDY}"
            )
    try:
        manifest = parse_json(data)
    except ValueError as error:
        raise BundleError(f"{path} is not readable JSON ({error}); {REMEDY}") from error
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise BundleError(
            f"{path} is not a bundle's manifest (it has no format version): {BUNDLE.advice}"
        )
    if type(manifest["format"]) is not int or manifest["format"] != FORMAT:
        raise BundleError(
            f"{folder.path} has format version {manifest['format']!r:.40}, this tlrec-edge reads "
            f"{FORMAT}; install the version that wrote it, or export it again"
        )
    return manifest, sha256


def manifest_size(folder: Path) -> int:
    """Return the bytes of a bundle's manifest and its checksum."""
    files = [folder / name for name in (MANIFEST, MANIFEST_CHECKSUM)]
    return sum(file.stat().st_size for file in files if file.is_file())


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


def _load(path: Path, file: int) -> FileData:
    try:
        return load_file(file)
    except OSError as error:
        raise _not_readable(path, error) from error


def _file_sha256(path: Path, file: int) -> str:
    try:
        with open(file, "rb", buffering=0, closefd=False) as opened:
            opened.seek(0)
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise _not_readable(path, error) from error


def _not_readable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"{path} cannot be read ({error.strerror}); {REMEDY}")


def _check_size(path: Path, size: int, entry: Any, verify: str) -> None:
    valid = isinstance(entry, dict) and type(entry.get("size")) is int
    if not valid or not isinstance(entry.get("sha256"), str):
        raise BundleError(
            f"{path.parent / MANIFEST} has no size and sha256 for {path.name}; {REMEDY}"
        )
    if verify != "none" and size != entry["size"]:
        raise BundleError(
            f"{path} has {size} bytes, but {entry['size']} in the manifest: "
            f"it was cut short or altered; {REMEDY}"
        )
    if path.name in BLOBS and size > MAX_FILE_BYTES:
        raise BundleError(f"{path} has {size} bytes, more than {MAX_FILE_BYTES}; {REMEDY}")


def _check_sha256(path: Path, sha256: str, entry: Mapping[str, Any]) -> None:
    if sha256 != entry["sha256"]:
        raise BundleError(f"{path} was altered: its SHA-256 differs from the manifest's; {REMEDY}")
