"""The parts that a model's score is the weighted sum of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from tlrec_edge.types import Scores

PARTS = {
    "two_tower": "deep",
    "wide": "wide",
    "target_wide": "wide",
    "residual": "wide",
    "interest": "counts",
    "repeat": "repeat",
    "bias": "",
}
"""Each part and the name that ``TrainConfig.without`` has for it. The bias always stays."""
_JSON_KEYS = {"two_tower": "deep", "target_wide": "own", "residual": "rest"}
"""The names that model folders have had for these parts since version 0.1.0."""


class PartScores(NamedTuple):
    """Unweighted scores of every part: arrays of one shape, in the order of ``PARTS``."""

    two_tower: Scores
    """Dot products of user and candidate vectors."""
    wide: Scores
    """Sums of sparse item-item weights, learned from all domains."""
    target_wide: Scores
    """Sums of sparse item-item weights, learned from the target alone."""
    residual: Scores
    """A low-rank approximation of the item-item weights that ``wide`` leaves out."""
    interest: Scores
    """A ridge regression on counts of the categories in the history."""
    repeat: Scores
    """1 for a candidate that the user already has, else 0."""
    bias: Scores
    """Popularity of the candidate."""


@dataclass(frozen=True)
class ScoreWeights:
    """The weight of every part; the fields are those of ``PartScores``."""

    two_tower: float = 1.0
    wide: float = 0.0
    target_wide: float = 0.0
    residual: float = 0.0
    interest: float = 0.0
    repeat: float = 0.0
    bias: float = 1.0

    def to_json(self) -> dict[str, float]:
        """Return the weights under the keys of model folders."""
        return {_JSON_KEYS.get(part, part): weight for part, weight in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ScoreWeights:
        """Read what ``to_json`` wrote. Raises TypeError or ValueError if a key is unknown."""
        parts = {key: part for part, key in _JSON_KEYS.items()}
        return cls(**{parts.get(key, key): weight for key, weight in dict(data).items()})


def weighted_sum(parts: Sequence[Scores], weights: Iterable[float]) -> Scores:
    """Return the sum of the parts under one weight each; parts of weight 0 are not read."""
    weighted = (weight * part for weight, part in zip(weights, parts, strict=True) if weight)
    total: Scores = sum(weighted, np.zeros_like(parts[0]))
    return total
