"""A small network with random weights."""

from __future__ import annotations

import numpy as np
import torch

from tlrec_edge.core.features import TowerInputs
from tlrec_edge.train.model import ModelConfig, TwoTower

SMALL = ModelConfig(width=8, history=6, feed_forward=16, text=3, numeric=2, vocabulary=(4, 2))


def network(config: ModelConfig, items: int = 7, candidates: int = 4) -> TwoTower:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    inputs = TowerInputs(
        rng.standard_normal((items, config.text)).astype(np.float32),
        rng.standard_normal((items, config.numeric)).astype(np.float32),
        rng.integers(0, 2, (items, len(config.vocabulary))),
    )
    net = TwoTower(config, items, candidates, inputs).eval()
    with torch.no_grad():
        for bias in (net.position_bias, net.event_bias, net.age_bias):
            bias.normal_()
    return net
