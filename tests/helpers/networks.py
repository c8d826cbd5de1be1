"""A small network with random weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tlrec_edge.core.features import TowerInputs
from tlrec_edge.train.model import FastEncoder, ItemTower, ModelConfig, TwoTower

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


def fast_encoder(net: TwoTower) -> FastEncoder:
    """Return the encoder of a network of size "fast"."""
    assert isinstance(net.encoder, FastEncoder)
    return net.encoder


def item_tower(net: TwoTower) -> ItemTower:
    """Return the item tower of a network whose items have content."""
    assert net.tower is not None
    return net.tower


def text_layer(net: TwoTower) -> nn.Linear:
    """Return the first layer of a network whose items have texts."""
    layer = item_tower(net).text
    assert layer is not None
    return layer
