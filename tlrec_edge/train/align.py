"""Alignment of two sides of a catalogue: their items are to look alike, so that what is learned carries over."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from tlrec_edge.core.features import TowerInputs
from tlrec_edge.errors import ModelError
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.fit import ExtraLoss
from tlrec_edge.train.model import TwoTower

SAMPLE = 256
"""Items drawn of each side a step."""
MIN_VARIANCE = 1e-4
"""Content that varies less, as all does before the first steps, is not blown up to be aligned."""


class GradientReversal(torch.autograd.Function):
    """The identity, whose gradient is turned round and scaled (Ganin et al. 2016, arXiv 1505.07818)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradients[0], None


class Alignment(ExtraLoss):
    """A loss between the content vectors of each side's items, before an id is added to them.

    The content tower's hidden layer is taken: both of an item's vectors are linear in it.
    """

    def __init__(self, sides: Sequence[TowerInputs], weight: float, epochs: int) -> None:
        super().__init__()
        self.sides = [[torch.from_numpy(part) for part in side] for side in sides]
        self.weight, self.epochs = weight, max(epochs, 1)

    def content(self, net: TwoTower) -> list[Tensor]:
        """Draw SAMPLE items of each side, with replacement; return their content, (SAMPLE, width) a side."""
        if net.tower is None:
            raise ModelError("without content features there is nothing to align")
        found = []
        for side in self.sides:
            drawn = torch.randint(len(side[0]), (SAMPLE,))
            found.append(net.tower.content(*(part[drawn] for part in side)))
        return found


class Adversarial(Alignment):
    """A classifier tries to tell the sides apart; the tower, behind a reversed gradient, to make that hard.

    The reversal grows with the share p of the epochs as in the paper: weight * (2 / (1 + exp(-10 p)) - 1). The
    classifier itself always learns at full strength.
    """

    def __init__(
        self, width: int, sides: Sequence[TowerInputs], weight: float, epochs: int, seed: int
    ) -> None:
        super().__init__(sides, weight, epochs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.classifier = nn.Sequential(
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, len(sides))
            )

    def forward(self, net: TwoTower, epoch: float) -> Tensor:
        grown = 2.0 / (1.0 + math.exp(-10.0 * min(epoch / self.epochs, 1.0))) - 1.0
        vectors = torch.cat(self.content(net))  # (sides * SAMPLE, width)
        side = torch.arange(len(self.sides)).repeat_interleave(SAMPLE)
        logits = self.classifier(GradientReversal.apply(vectors, self.weight * grown))  # type: ignore[no-untyped-call]  # torch has no type for it
        loss = nn.functional.cross_entropy(logits, side)
        self.note(loss=loss.item(), accuracy=(logits.argmax(1) == side).float().mean().item())
        return loss


class Coral(Alignment):
    """The distance between the covariances of the sides (Sun and Saenko 2016, arXiv 1607.01719), mean over pairs.

    Covariances are in units of the joint variance: content is often so small that the plain distance vanishes.
    """

    def forward(self, net: TwoTower, epoch: float) -> Tensor:
        vectors = self.content(net)
        unit = torch.cat(vectors).var(0).mean().detach().clamp(min=MIN_VARIANCE)
        covariance = [torch.cov(side.T) / unit for side in vectors]  # (width, width) each
        pairs = [(one - other).square().mean() / 4.0 for one, other in combinations(covariance, 2)]
        loss = torch.stack(pairs).mean()
        self.note(loss=loss.item())
        return self.weight * loss


def make_adversarial(
    net: TwoTower, sides: Sequence[TowerInputs], config: TrainConfig, epochs: int
) -> Alignment:
    return Adversarial(net.config.hidden_width, sides, config.align_weight, epochs, config.seed)


def make_coral(
    net: TwoTower, sides: Sequence[TowerInputs], config: TrainConfig, epochs: int
) -> Alignment:
    return Coral(sides, config.align_weight, epochs)


ALIGNMENTS: dict[str, Callable[[TwoTower, Sequence[TowerInputs], TrainConfig, int], Alignment]] = {
    "adversarial": make_adversarial,
    "coral": make_coral,
}


def make_alignment(
    net: TwoTower, sides: Sequence[TowerInputs], config: TrainConfig, epochs: int
) -> Alignment | None:
    """Return the loss that aligns the sides; None where none is asked for or fewer than two sides have an item.

    Raises ModelError for a model without content features.
    """
    if config.align == "none":
        return None
    if net.tower is None:
        raise ModelError(
            f"--align {config.align} needs item features, and this dataset has none: give prepare --items, "
            "or use --align none"
        )
    present = [side for side in sides if len(side.text)]
    return ALIGNMENTS[config.align](net, present, config, epochs) if len(present) > 1 else None
