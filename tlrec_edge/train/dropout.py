"""Dropout with a fast generator: on a CPU, torch's own takes longer than the layers around it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

_LEVELS = 1 << 16


class Dropout(nn.Module):
    """Set a share of the values to zero in training, and scale up the others, as torch's does.

    The mask comes from numpy's SFC64, seeded by a draw from torch's generator: so it follows
    ``torch.manual_seed``, and a fit that is resumed with torch's state draws the same masks.

    Args:
        rate: The share of the values that become zero, rounded to 1/65536.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.threshold = round(rate * _LEVELS)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.threshold:
            return x
        seed = int(torch.randint(2**62, ()))
        draws = np.random.Generator(np.random.SFC64(seed)).integers(
            0, _LEVELS, tuple(x.shape), np.uint16
        )
        kept = torch.from_numpy(draws >= self.threshold).to(x.dtype)
        return x * kept.mul_(_LEVELS / (_LEVELS - self.threshold))
