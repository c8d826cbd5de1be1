"""The knobs of pretraining and adaptation."""

from __future__ import annotations

from dataclasses import dataclass

from tlrec_edge.train.model import ENCODERS

PRETRAIN_STEPS = 600


@dataclass(frozen=True)
class TrainConfig:
    """Knobs of pretraining and adaptation.

    ``pretrain_epochs`` None: as many as make about PRETRAIN_STEPS steps. ``min_buyers`` leaves rarer items out of the
    history vocabulary.
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
    interest_rank: int = 16
    interest_penalty: float = 100.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size not in ENCODERS:
            raise ValueError(f"size must be one of {sorted(ENCODERS)}, not {self.size!r}")
        for name in ("rate", "tune_rate", "interest_penalty"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name, least in (("width", 1), ("min_buyers", 1), ("interest_rank", 1), ("epochs", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 <= self.forget <= 1:
            raise ValueError(f"forget must lie in [0, 1], not {self.forget}")
