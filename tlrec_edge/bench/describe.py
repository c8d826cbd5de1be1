"""Description of the measured system, as far as a bundle's files give it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from tlrec_edge.bench.requests import AnyRequests
from tlrec_edge.bench.system import Source
from tlrec_edge.bundle.reader import Bundle, manifest_size

_FILE_GROUPS = {
    "item vectors": ("history_*", "candidate_*"),
    "item-item weights": ("wide_*",),
    "encoder": ("encoder.onnx", "*_bias.npy", "groups.npy", "interest_in.npy"),
    "ids, names": ("item_ids.*", "item_names.*", "category_names.*", "item_category.npy"),
    "cold items": ("item_tower.onnx", "text_table.npy", "candidate_text.npy", "features.json"),
    "stored users": ("users.*", "user_*"),
}
_OTHER_FILES = "other"


def describe_system(
    bundle: Bundle | None, source: Source | None, requests: AnyRequests
) -> dict[str, Any]:
    """Return the name, history length and, if there is a bundle, its sizes.

    ``source`` is the measured system if that is not the bundle; its name then goes first.
    """
    history = {"history": requests.history_length}
    if bundle is None:
        return {"name": source.name if source else ""} | history
    shape = bundle.shape
    return {
        "name": source.name if source else bundle.path.resolve().name,
        "format": bundle.manifest["format"],
        "tables": str(shape.tables),
        "items": shape.items,
        "candidates": shape.candidates,
        "dim": shape.d,
        "width": shape.d + shape.r,
        "lists": _lists(bundle),
    } | history


def _lists(bundle: Bundle) -> int:
    index = bundle.manifest.get("index")  # checked only if the bundle has an inverted file
    return index.get("lists", 0) if isinstance(index, dict) else 0


def bytes_by_group(bundle: Bundle) -> dict[str, int]:
    """Return the bytes of each group of files that the bundle has; together they are its size."""
    sizes = dict.fromkeys([*_FILE_GROUPS, _OTHER_FILES], 0)
    for name, entry in bundle.manifest["files"].items():
        sizes[_group(name)] += entry["size"]
    sizes[_OTHER_FILES] += manifest_size(bundle.path)
    return {group: size for group, size in sizes.items() if size}


def _group(file: str) -> str:
    for group, patterns in _FILE_GROUPS.items():
        if any(fnmatchcase(file, pattern) for pattern in patterns):
            return group
    return _OTHER_FILES


def compression_points(bundle: Bundle | None) -> tuple[dict[str, Any], ...]:
    """Return the compressed models that were compared when the bundle was made."""
    card = None if bundle is None else bundle.manifest.get("compression")
    # The first bundles have a list here, without points.
    return tuple(card.get("points") or ()) if isinstance(card, dict) else ()
