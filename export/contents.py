"""What a bundle will hold, handed from stage to stage of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tlrec_edge.bundle.reader import write_bundle

Arrays = Mapping[str, NDArray[Any]]
Strings = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class BundleContents:
    """Everything that a bundle will hold. A stage of an export returns new contents with its part.

    Attributes:
        manifest: Entries of ``manifest.json``.
        arrays: Arrays by their names in the bundle, without ``.npy``.
        strings: String tables by their names in the bundle.
        blobs: Other files by name: the graphs and ``features.json``.
    """

    manifest: Mapping[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)
    strings: Strings = field(default_factory=dict)
    blobs: Mapping[str, bytes] = field(default_factory=dict)

    def with_entries(
        self,
        *,
        manifest: Mapping[str, Any] | None = None,
        arrays: Arrays | None = None,
        strings: Strings | None = None,
        blobs: Mapping[str, bytes] | None = None,
    ) -> BundleContents:
        """Return contents with these entries added; they replace entries of the same name."""
        return BundleContents(
            {**self.manifest, **(manifest or {})},
            {**self.arrays, **(arrays or {})},
            {**self.strings, **(strings or {})},
            {**self.blobs, **(blobs or {})},
        )

    def write(self, path: Path) -> None:
        """Write the bundle at ``path``, completely or not at all.

        Raises:
            BundleError: If ``path`` is not writable, or holds anything but a bundle.
        """
        write_bundle(path, self.manifest, self.arrays, self.strings, self.blobs)
