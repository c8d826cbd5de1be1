"""The report of ``prepare``: sizes, the split, what cleaning dropped, and how columns were read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from tlrec_edge.data.dataset import TEST, TRAIN, VALID, Dataset
from tlrec_edge.data.match_ids import ItemMatch
from tlrec_edge.data.prepare import Prepared
from tlrec_edge.data.scale import DomainStatistics, distant_medians


def describe(prepared: Prepared) -> dict[str, Any]:
    """Return the report of a prepared dataset as plain data."""
    dataset = prepared.dataset
    log = dataset.interactions
    per_user = np.unique(log.user, return_counts=True)[1]
    per_domain = np.bincount(log.domain, minlength=len(dataset.domains))
    distant = [] if dataset.features.by_domain else distant_medians(prepared.statistics)
    return {
        "users": len(dataset.users),
        "items": len(dataset.items),
        "items_never_sold": len(dataset.items) - len(np.unique(log.item)),
        "interactions": len(log),
        "domains": dict(zip(dataset.domains, per_domain.tolist(), strict=True)),
        "split": _describe_split(dataset),
        "rows_per_user": {"median": float(np.median(per_user)), "most": int(per_user.max())},
        "cleaning": dict(dataset.cleaning),
        "numbers": [asdict(column) for column in prepared.statistics],
        "far_apart": [_median_gap(high, low) for high, low in distant],
        "merged": [merge._asdict() for merge in prepared.merged],
        "interaction_columns": dict(prepared.interaction_columns),
        "item_features": dict(prepared.item_columns),
        "unused_columns": list(prepared.unused_columns),
        "formats": list(prepared.formats),
        "times": _describe_times(prepared),
        "item_table": prepared.item_match and _describe_match(prepared.item_match),
        "notes": list(prepared.notes),
    }


def _describe_times(prepared: Prepared) -> dict[str, str] | None:
    if not prepared.time_form:
        return None
    time = prepared.dataset.interactions.time
    first, last = (
        str(np.datetime64(int(t), "s")).replace("T", " ") for t in (time.min(), time.max())
    )
    return {"read_as": prepared.time_form, "first": first, "last": last}


def _describe_match(match: ItemMatch) -> dict[str, int]:
    return {"known": match.known, "of": match.total}


def _describe_split(dataset: Dataset) -> dict[str, Any]:
    split = dataset.split
    roles = {"train": TRAIN, "valid": VALID, "test": TEST}
    return {
        "kind": split.kind,
        **{name: int((split.role == role).sum()) for name, role in roles.items()},
        "test_rows": len(split.rows) if split.rows is not None else None,
        "valid_rows": len(split.valid_rows) if split.valid_rows is not None else None,
        "duplicates": split.rows.duplicates if split.rows is not None else 0,
        "settings": dict(split.settings),
    }


def _median_gap(high: DomainStatistics, low: DomainStatistics) -> dict[str, Any]:
    times = (high.median or 0.0) / (low.median or 1.0)
    return {"column": high.column, "high": high.domain, "low": low.domain, "times": times}
