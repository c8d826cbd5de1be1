"""Sizes and formats of a synthetic bundle."""

from __future__ import annotations

from dataclasses import dataclass

from tlrec_edge.bundle.format import WIDE_KINDS, Storage
from tlrec_edge.core.packing import WRITTEN
from tlrec_edge.search.fit_ivf import IVF_MIN_CANDIDATES

_MAX_CLUSTERS = 4096
_MAX_POPULARITY = 100


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
        for minimum, names in (
            (1, ("items", "dim", "length", "groups")),
            (0, ("interest", "wide", "history_only", "lists_beyond", "seed")),
        ):
            for name in names:
                if getattr(self, name) < minimum:
                    raise ValueError(f"{name} = {getattr(self, name)}; expected at least {minimum}")
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
