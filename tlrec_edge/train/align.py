"""Losses that make the content vectors of source and target items similar.

The encoder then meets target items that look like those it was trained on.
"""

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
"""Items drawn from each group at every step."""
MIN_VARIANCE = 1e-4
"""Lower bound of the variance that CORAL divides by. Content tables start at zero, and dividing by
their tiny first variance would let the alignment dominate the first steps."""


class GradientReversal(torch.autograd.Function):
    """The identity, with a gradient that is negated and scaled (Ganin et al. 2016, 1505.07818).

    One backward pass trains both opponents: what comes after it minimizes the loss, what comes
    before it maximizes the loss.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradients[0], None


class Alignment(ExtraLoss):
    """A loss between the content vectors of groups of items.

    Ids are left out, because they belong to one group only. The loss reads the hidden layer of the
    content tower: both vectors of an item are linear in it, so aligning it aligns both.
    """

    def __init__(self, groups: Sequence[TowerInputs], weight: float, epochs: int) -> None:
        super().__init__()
        self.groups = [[torch.from_numpy(part) for part in group] for group in groups]
        self.weight, self.epochs = weight, max(epochs, 1)

    def content(self, net: TwoTower) -> list[Tensor]:
        """Return the content of SAMPLE items per group, drawn with replacement, (SAMPLE, width).

        Raises ModelError if the network has no content tower.
        """
        if net.tower is None:
            raise ModelError("without content features there is nothing to align")
        vectors = []
        for group in self.groups:
            drawn = torch.randint(len(group[0]), (SAMPLE,))
            vectors.append(net.tower.content(*(part[drawn] for part in group)))
        return vectors


class Adversarial(Alignment):
    """A classifier predicts the group of an item; the tower learns to prevent it.

    The strength of the reversed gradient grows with the share p of the epochs that have passed,
    weight * (2 / (1 + exp(-10 p)) - 1), as in the paper: at first the classifier knows nothing, and
    its gradient is noise. The classifier itself always learns at full strength.
    """

    def __init__(
        self, width: int, groups: Sequence[TowerInputs], weight: float, epochs: int, seed: int
    ) -> None:
        super().__init__(groups, weight, epochs)
        # Seeded apart, so that the classifier starts the same whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.classifier = nn.Sequential(
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, len(groups))
            )

    def forward(self, net: TwoTower, epoch: float) -> Tensor:
        progress = min(epoch / self.epochs, 1.0)
        strength = self.weight * (2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0)
        vectors = torch.cat(self.content(net))  # (groups * SAMPLE, width)
        group = torch.arange(len(self.groups)).repeat_interleave(SAMPLE)
        reversed_vectors = GradientReversal.apply(vectors, strength)  # type: ignore[no-untyped-call]  # untyped in torch
        logits = self.classifier(reversed_vectors)
        loss = nn.functional.cross_entropy(logits, group)
        self.note(loss=loss.item(), accuracy=(logits.argmax(1) == group).float().mean().item())
        return loss


class Coral(Alignment):
    """The distance between the covariances of the groups, averaged over pairs (CORAL).

    See Sun and Saenko 2016, arXiv 1607.01719. Covariances are divided by the variance of all
    groups together: content vectors are often so small that the distance itself would vanish.
    """

    def forward(self, net: TwoTower, epoch: float) -> Tensor:
        vectors = self.content(net)
        # Detached: otherwise the loss could shrink by blowing up all vectors.
        variance = torch.cat(vectors).var(0).mean().detach().clamp(min=MIN_VARIANCE)
        covariances = [torch.cov(group.T) / variance for group in vectors]  # (width, width) each
        distances = [(a - b).square().mean() / 4.0 for a, b in combinations(covariances, 2)]
        loss = torch.stack(distances).mean()
        self.note(loss=loss.item())
        return self.weight * loss


def make_adversarial(
    net: TwoTower, groups: Sequence[TowerInputs], config: TrainConfig, epochs: int
) -> Alignment:
    """Return an ``Adversarial`` loss for the network's content width."""
    return Adversarial(net.config.hidden_width, groups, config.align_weight, epochs, config.seed)


def make_coral(
    net: TwoTower, groups: Sequence[TowerInputs], config: TrainConfig, epochs: int
) -> Alignment:
    """Return a ``Coral`` loss."""
    return Coral(groups, config.align_weight, epochs)


ALIGNMENTS: dict[str, Callable[[TwoTower, Sequence[TowerInputs], TrainConfig, int], Alignment]] = {
    "adversarial": make_adversarial,
    "coral": make_coral,
}


def make_alignment(
    net: TwoTower, groups: Sequence[TowerInputs], config: TrainConfig, epochs: int
) -> Alignment | None:
    """Return the loss that ``config.align`` names, between the groups that have an item.

    Returns None if it names none or fewer than two groups have an item. Raises ModelError if the
    network has no content features.
    """
    if config.align == "none":
        return None
    if net.tower is None:
        raise ModelError(
            f"--align {config.align} needs item features, and this dataset has none: "
            "give prepare --items, or use --align none"
        )
    present = [group for group in groups if len(group.text)]
    return ALIGNMENTS[config.align](net, present, config, epochs) if len(present) > 1 else None
