"""Check that the arrays of a model folder fit its sizes, before anything is built from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from tlrec_edge.train.model import ModelConfig

Arrays = Mapping[str, NDArray[Any]]
Shape = tuple[int | None, ...]
"""The shape of an array; None is any length."""


def check_arrays(arrays: Arrays, items: int, candidates: int, config: ModelConfig) -> None:
    """Check the shapes, and the codes that are used as indices.

    The weights of the network are not checked: ``load_state_dict`` does that.

    Raises ValueError or KeyError if an array is missing or does not fit.
    """
    for name, shape in _shapes(arrays, items, candidates, config).items():
        found = arrays[name].shape
        fits = len(found) == len(shape) and all(
            size in (None, length) for size, length in zip(shape, found, strict=True)
        )
        if not fits:
            raise ValueError(f"{name} has shape {found}, expected {shape}".replace("None", "any"))
    _check_codes("groups", arrays["groups"], -1, len(arrays["interest.inward"]))
    for column, size in enumerate(config.vocabulary):
        _check_codes("input.categories", arrays["input.categories"][:, column], 0, size + 1)
    for name in ("wide", "own"):
        _check_codes(f"{name}.indices", arrays[f"{name}.indices"], 0, candidates)
        check_pointers(arrays[f"{name}.indptr"], len(arrays[f"{name}.indices"]))


def check_pointers(indptr: NDArray[Any], count: int) -> None:
    """Raise ValueError unless ``indptr`` divides ``count`` entries into rows."""
    ascending = (indptr[1:] >= indptr[:-1]).all()
    if not ascending or not len(indptr) or indptr[0] != 0 or indptr[-1] != count:
        raise ValueError(f"a sparse matrix does not divide its {count} entries into rows")


def _shapes(arrays: Arrays, items: int, candidates: int, config: ModelConfig) -> dict[str, Shape]:
    residual, interest = (_columns(arrays[f"{name}.inward"]) for name in ("rest", "interest"))
    shapes: dict[str, Shape] = {
        "bias": (candidates,),
        "groups": (items, None),
        "text_table": (None, None),
        "input.text": (items, config.text),
        "input.numeric": (items, config.numeric),
        "input.categories": (items, len(config.vocabulary)),
        "rest.inward": (items, residual),
        "rest.outward": (candidates, residual),
        "interest.inward": (None, interest),
        "interest.outward": (candidates, interest),
        "wide.indptr": (items + 1,),
        "own.indptr": (items + 1,),
    }
    tables = {
        "history": (items, config.width),
        "candidate": (candidates, config.width),
        "taste_in": (items, residual),
        "taste": (candidates, interest + residual),
    }
    if "table.history.rows" in arrays:
        for name, (rows, width) in tables.items():
            shapes |= {f"table.{name}.rows": (rows, width), f"table.{name}.scale": (rows,)}
    if "wide.entries" in arrays:
        shapes["wide.scale"] = (items,)
    return shapes


def _columns(array: NDArray[Any]) -> int:
    if array.ndim != 2:
        raise ValueError(f"factors of shape {array.shape}")
    return int(array.shape[1])


def _check_codes(name: str, codes: NDArray[Any], low: int, end: int) -> None:
    if codes.dtype.kind not in "iu":
        raise ValueError(f"{name} holds {codes.dtype}, expected integers")
    if codes.size and not (low <= codes.min() and codes.max() < end):
        raise ValueError(f"{name} has codes outside {low}..{end - 1}")
