"""The two identities of a bundle: of what it serves, and of its manifest as it was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_NOT_SERVED = (
    "created",
    "tlrec_edge",
    "quality",
    "transfer",
    "compression",
    "latency",
    "parity",
    "gates",
    "provenance",
)
"""Entries of the manifest about how a bundle was made and measured."""


def content_id(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of everything in a manifest that answers depend on.

    That is the sizes and hashes of all files, the shapes, the scoring, the features and every entry
    of a later version that is not about how the bundle was made. Two bundles with the same content
    id give the same scores, whenever and on whatever machine they were made.
    """
    served = {key: value for key, value in manifest.items() if key not in _NOT_SERVED}
    text = json.dumps(served, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def checksum_line(manifest: bytes, name: str) -> bytes:
    """Return the content of the checksum file of a manifest, as ``sha256sum`` writes it."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {name}\n".encode()
