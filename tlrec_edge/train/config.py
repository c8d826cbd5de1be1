"""The hyperparameters of pretraining and adaptation."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from tlrec_edge.choices import ABLATIONS, ALIGNMENTS, EVENT_WEIGHTS, EVENTS
from tlrec_edge.train.augment import AUGMENTATIONS
from tlrec_edge.train.model import ENCODERS
from tlrec_edge.train.parts import PARTS
from tlrec_edge.train.text import HASHED

PRETRAIN_STEPS = 300
"""Steps of pretraining unless ``pretrain_epochs`` is set: small sources need many epochs for it."""
_MINIMUMS = {
    "width": 1,
    "min_buyers": 1,
    "interest_rank": 1,
    "wide_weights": 1,
    "wide_rank": 0,
    "epochs": 0,
    "seed": 0,
}


@dataclass(frozen=True)
class TrainConfig:
    """Hyperparameters of pretraining and adaptation; a value outside its range raises ValueError.

    Attributes:
        size: Encoder of histories: "fast" pools them with learned queries, "base" runs
            self-attention, which is slower to serve.
        width: Width of item and user vectors.
        epochs: Maximum number of epochs on the target; training stops earlier if the validation
            metric stops improving.
        pretrain_epochs: Epochs on the source; None: as many as make about 300 steps, 2 to 40.
        rate: Learning rate of a network that starts from scratch.
        tune_rate: Learning rate of fine-tuning; lower, to keep what the source taught.
        trunk_rate: Factor on ``tune_rate`` for everything but the candidates' ids and biases,
            which are new in the target and have the most to learn.
        min_buyers: Distinct buyers that an item needs to be pretrained as a candidate, or to be
            known in histories if it is not a candidate.
        forget: Share of training histories that lose their target interactions if others remain,
            so that the model also learns to serve users who are new to the target.
        wide_weights: Item-item weights kept per candidate; a history item keeps four times as many.
        wide_rank: Rank of the factors that approximate the weights left out; 0: no factors.
        interest_rank: Rank of the map from category counts to candidates.
        interest_penalty: Ridge penalty of that map.
        seed: Seed of initial weights, batches, dropout and augmentation.
        align: Loss that makes source and target items similar: "none", "adversarial" or "coral".
        align_weight: Weight of that loss relative to the softmax loss.
        augment: Random changes to training histories: "crop", "mask", "reorder", "token-dropout".
        logq: Share of log popularity, in [0, 1], that is added to the training logits, so that the
            rest of the model learns what popularity does not explain (Menon et al. 2021,
            arXiv 2007.07314).
        event_weights: (event, weight) pairs that replace the dataset's weights of these events. If
            set, an example weighs as much as its heaviest event; if empty, all weigh the same.
        without: Parts to leave out, for ablations; see ``choices.ABLATIONS``.
        text: Encoder of item texts: "hashed", "wordllama", or a folder with an ONNX model.
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

    def __post_init__(self) -> None:
        # Values that were read from JSON hold lists.
        pairs = tuple((str(event), float(weight)) for event, weight in self.event_weights)
        object.__setattr__(self, "augment", tuple(self.augment))
        object.__setattr__(self, "without", tuple(self.without))
        object.__setattr__(self, "event_weights", pairs)
        self._check_names()
        self._check_numbers()

    def _check_names(self) -> None:
        _check_choice("size", self.size, ENCODERS)
        _check_choice("align", self.align, ALIGNMENTS)
        for name in self.augment:
            if name not in AUGMENTATIONS:
                raise ValueError(f"augment must be among {sorted(AUGMENTATIONS)}, not {name!r}")
        for name in self.without:
            if name not in ABLATIONS:
                raise ValueError(f"without must be among {', '.join(ABLATIONS)}, not {name!r}")
        for event, weight in self.event_weights:
            if event not in EVENTS or not 0 <= weight < math.inf:
                raise ValueError(
                    f"event_weights take {', '.join(EVENTS)} and 0 or more, not {event!r} {weight}"
                )

    def _check_numbers(self) -> None:
        for name in ("rate", "tune_rate", "interest_penalty"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name, minimum in _MINIMUMS.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} must be at least {minimum}, not {getattr(self, name)}")
        if not 0 <= self.align_weight < math.inf:
            raise ValueError(f"align_weight must be finite and at least 0, not {self.align_weight}")
        for name in ("forget", "logq"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of the score that are not left out."""
        return tuple(part for part, ablation in PARTS.items() if ablation not in self.without)

    def event_factors(self) -> tuple[float, ...]:
        """Return the factor on the stored weight of each event, in the order of EVENTS."""
        changed = dict(self.event_weights)
        stored = zip(EVENTS, EVENT_WEIGHTS, strict=True)
        return tuple(changed.get(event, weight) / weight for event, weight in stored)


def _check_choice(field: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(f"{field} must be one of {sorted(choices)}, not {value!r}")
