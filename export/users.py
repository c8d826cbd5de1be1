"""User states in a bundle: the scales they are rounded with, and those stored for known users."""

from __future__ import annotations

import math
import secrets
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tlrec_edge.bundle.ids import user_key_check, user_key_hash
from tlrec_edge.core.rowwise import exact_limit
from tlrec_edge.types import Floats, Ints

from .contents import BundleContents
from .source import ExportSource

CHUNK = 512
"""Users are encoded in chunks of this size, or up to twice as many."""


class UserScales(NamedTuple):
    """How the deterministic path rounds user vectors: two-tower block first, then low-rank block.

    ``steps`` are powers of two, so that dividing by one is exact; ``limits`` are the most steps an
    entry may take before integer sums could overflow.
    """

    steps: list[float]
    limits: list[int]


def user_scales(source: ExportSource) -> UserScales:
    """Return scales that fit the sampled users, with room for others: 2x, and 4x if low-rank.

    Low-rank entries grow with the length of a history, so they need more room.
    """
    width, rank = source.model.net.config.width, source.low_rank_width
    encoded, low_rank = np.zeros((1, width), np.float32), np.zeros((1, rank), np.float32)
    if len(source.sample):
        encoded, low_rank = source.encoded(source.sample), source.low_rank(source.sample)
    limits = [exact_limit(width), exact_limit(rank)]
    steps = [_power_of_two(2.0 * encoded, limits[0]), _power_of_two(4.0 * low_rank, limits[1])]
    return UserScales(steps, limits)


def add_users(
    contents: BundleContents,
    source: ExportSource,
    users: Ints,
    ids: str,
    user_key: str | None,
) -> BundleContents:
    """Add the states of users; their histories are not stored.

    Args:
        contents: The contents so far.
        source: The model and its interactions.
        users: Rows of the users in the dataset.
        ids: ``"hashed"`` stores user ids as keyed hashes, ``"plain"`` as they are.
        user_key: The key of the hashes, in hex; it is not stored. None draws a key, and stores it
            in the manifest.
    """
    names = source.dataset.users
    key = (user_key or secrets.token_hex(16)) if ids == "hashed" else None
    stored = [names[u] if key is None else user_key_hash(names[u], key) for u in users]
    entries = {"user_ids": ids, "user_key": key}
    if user_key is not None:
        entries |= {"user_key": None, "user_key_check": user_key_check(user_key)}
    return contents.with_entries(
        manifest=entries,
        arrays={"user_rows": _vectors(source, users), **_item_item_sums(source, users)},
        strings={"users": tuple(stored)},
    )


def _vectors(source: ExportSource, users: Ints) -> Floats:
    """Return both blocks of the users' vectors, (u, d + r)."""
    chunks = [
        np.concatenate([source.encoded(part), source.low_rank(part)], 1)
        for part in np.array_split(users, max(1, len(users) // CHUNK))
    ]
    return np.concatenate(chunks).astype(np.float32)


def _item_item_sums(source: ExportSource, users: Ints) -> dict[str, NDArray[Any]]:
    """Return the users' item-item contributions, including the repeat bias of their items."""
    model = source.model
    weights = model.served_wide
    if model.score_weights.repeat:
        same = sp.eye_array(*weights.shape, dtype=np.float32)
        weights = weights + np.float32(model.score_weights.repeat) * same
    sums = sp.csr_array(source.past.matrix[users] @ weights)  # (u, C)
    sums.sort_indices()
    return {
        "user_wide_indptr": sums.indptr.astype(np.int64),
        "user_wide_columns": sums.indices.astype(np.int32),
        "user_wide_values": sums.data.astype(np.float32),
    }


def _power_of_two(vectors: Floats, limit: int) -> float:
    """Return the smallest power of two that keeps the vectors within ``limit`` steps."""
    largest = float(np.abs(vectors).max(initial=0.0))
    return 2.0 ** math.ceil(math.log2(largest / limit)) if largest > 0 else 1.0
