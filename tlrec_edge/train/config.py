"""The hyperparameters of pretraining and adaptation, and the parts of a score."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tlrec_edge.choices import ABLATIONS, ALIGNMENTS, EVENTS
from tlrec_edge.data.dataset import EVENT_WEIGHTS
from tlrec_edge.train.augment import AUGMENTATIONS
from tlrec_edge.train.model import ENCODERS
from tlrec_edge.train.text import HASHED

PRETRAIN_STEPS = 300
PARTS = {
    "deep": "deep",
    "wide": "wide",
    "own": "wide",
    "rest": "wide",
    "interest": "counts",
    "repeat": "repeat",
    "bias": "",
}
"""The parts of a score, and what ``without`` calls them; an item's bias always stays."""


@dataclass(frozen=True)
class ScoreWeights:
    """Weights of the parts of a score; ``EdgeModel.part_scores`` gives them in the order of PARTS."""

    deep: float = 1.0
    wide: float = 0.0
    own: float = 0.0
    rest: float = 0.0
    interest: float = 0.0
    repeat: float = 0.0
    bias: float = 1.0


@dataclass(frozen=True)
class TrainConfig:
    """Knobs of pretraining and adaptation.

    ``pretrain_epochs`` None: as many as make about PRETRAIN_STEPS steps. ``min_buyers`` leaves rarer items out of the
    history vocabulary. ``align`` makes the content of source and target items alike (see ``align``), ``augment`` names
    disturbances of training histories (see ``augment``). ``logq`` in [0, 1] adds that share of log popularity to the
    training logits, so that the rest of the model learns what is beyond popularity (Menon et al. 2021, arXiv
    2007.07314). ``event_weights`` are (event, weight) pairs that replace the dataset's; with them an example weighs as
    much as its heaviest event, without them all examples weigh the same. ``text`` is what texts are read by: hashed
    words, or a pretrained encoder (see ``text``). A candidate keeps its ``wide_weights`` largest item-item weights, a
    history item four times as many; ``wide_rank`` is the rank of what they leave out.
    """

    size: str = "fast"
    width: int = 64
    epochs: int = 20
    pretrain_epochs: int | None = None
    rate: float = 2e-3
    tune_rate: float = 1e-3
    trunk_rate: float = 0.3
    min_buyers: int = 1
    forget: float = 0.5
    wide_weights: int = 50
    wide_rank: int = 32
    interest_rank: int = 16
    interest_penalty: float = 100.0
    seed: int = 0
    align: str = "none"
    align_weight: float = 1.0
    augment: tuple[str, ...] = ()
    logq: float = 0.0
    event_weights: tuple[tuple[str, float], ...] = ()
    without: tuple[str, ...] = ()
    text: str = HASHED

    @property
    def parts(self) -> tuple[str, ...]:
        """Name the parts of the score that are not left out."""
        return tuple(part for part, name in PARTS.items() if name not in self.without)

    def __post_init__(self) -> None:
        # From JSON they come as lists.
        object.__setattr__(self, "augment", tuple(self.augment))
        object.__setattr__(self, "without", tuple(self.without))
        object.__setattr__(
            self, "event_weights", tuple((str(name), float(w)) for name, w in self.event_weights)
        )
        if self.size not in ENCODERS:
            raise ValueError(f"size must be one of {sorted(ENCODERS)}, not {self.size!r}")
        if self.align not in ALIGNMENTS:
            raise ValueError(f"align must be one of {sorted(ALIGNMENTS)}, not {self.align!r}")
        for name in self.augment:
            if name not in AUGMENTATIONS:
                raise ValueError(f"augment must be among {sorted(AUGMENTATIONS)}, not {name!r}")
        for name, weight in self.event_weights:
            if name not in EVENTS or not 0 <= weight < math.inf:
                raise ValueError(
                    f"event_weights take {', '.join(EVENTS)} and 0 or more, not {name!r} {weight}"
                )
        for name in self.without:
            if name not in ABLATIONS:
                raise ValueError(f"without must be among {', '.join(ABLATIONS)}, not {name!r}")
        for name in ("rate", "tune_rate", "interest_penalty"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        counts = ("width", "min_buyers", "interest_rank", "wide_weights")
        minimums = dict.fromkeys(counts, 1) | dict.fromkeys(("wide_rank", "epochs", "seed"), 0)
        for name, least in minimums.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 <= self.align_weight < math.inf:
            raise ValueError(f"align_weight must be finite and at least 0, not {self.align_weight}")
        for name in ("forget", "logq"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")

    def event_factors(self) -> tuple[float, ...]:
        """Return what the stored weight of each event is multiplied by, in the order of EVENTS."""
        given = dict(self.event_weights)
        return tuple(
            given.get(name, own) / own for name, own in zip(EVENTS, EVENT_WEIGHTS, strict=True)
        )
