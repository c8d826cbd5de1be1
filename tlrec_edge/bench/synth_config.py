"""Sizes and formats of a synthetic bundle."""

from __future__ import annotations

from dataclasses import dataclass

from tlrec_edge.bundle.format import WIDE_KINDS, Storage
from tlrec_edge.core.packing import WRITTEN
from tlrec_edge.search.fit_ivf import IVF_MIN_CANDIDATES

_MAX_CLUSTERS = 4096
_MAX_POPULARITY = 100
_MAX_ROWS = 2**31 - 1
"""Rows of items that int32 can number."""
_LIMITS = {
    "items": (1, _MAX_ROWS),
    "dim": (1, 4096),
    "interest": (0, 4096),
    "length": (1, 65_536),
    "groups": (1, _MAX_ROWS),
    "wide": (0, 65_536),
    "history_only": (0, _MAX_ROWS),
    "lists_beyond": (0, 2**63 - 1),
    "seed": (0, 2**64 - 1),
}
"""The smallest and the largest value of each setting."""


@dataclass(frozen=True)
class SynthConfig:
    """Sizes and formats of a synthetic bundle.

    Args:
        items: Number of candidates.
        dim: Width of the two-tower vectors.
        interest: Width of the interest block.
        length: Length of history that the encoder reads.
        groups: Number of item categories.
        wide: Maximum number of item-item weights per row.
        history_only: Number of items that occur in histories but are not candidates.
        tables: Storage format of the vectors, one of ``packing.WRITTEN``.
        weights: Storage format of the item-item weights, one of ``format.WIDE_KINDS``.
        popularity: Effect of log popularity on scores; 0 makes every item's bias 0.
        lists_beyond: Number of candidates above which the bundle gets an IVF index.
        seed: Seed of every random number.

    Raises:
        ValueError: If a setting is outside its range.
    """

    items: int
    dim: int = 64
    interest: int = 16
    length: int = 50
    groups: int = 200
    wide: int = 20
    history_only: int = 0
    tables: str = "int8"
    weights: str = "float32"
    popularity: float = 0.15
    lists_beyond: int = IVF_MIN_CANDIDATES
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} = {getattr(self, name)}; expected {least:,}..{most:,}")
        if self.rows > _MAX_ROWS:
            raise ValueError(f"{self.rows:,} items; expected at most {_MAX_ROWS:,}")
        if not 0 <= self.popularity <= _MAX_POPULARITY:
            raise ValueError(
                f"popularity = {self.popularity}; expected a factor in 0..{_MAX_POPULARITY}"
            )
        for name, known in (("tables", WRITTEN), ("weights", WIDE_KINDS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}; expected one of {', '.join(known)}"
                )

    @property
    def rows(self) -> int:
        """Number of items."""
        return self.items + self.history_only

    @property
    def storage(self) -> Storage:
        """Formats of the bundle's tables."""
        return Storage(*4 * (self.tables,), wide=self.weights)

    @property
    def clusters(self) -> int:
        """Number of clusters of items."""
        return min(_MAX_CLUSTERS, max(1, int(self.items**0.5)))
