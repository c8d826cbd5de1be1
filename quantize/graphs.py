"""Weight-only int8 for the graphs: one scale per output channel, arithmetic stays in float32."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.model import TwoTower

MIN_QUANTIZED_ENTRIES = 256
"""Smaller matrices stay in float32: their scales would take most of what the rounding saves."""


def quantize_graphs(model: EdgeModel) -> EdgeModel:
    """Return the model with the matrices of encoder and item tower rounded to int8 times a scale.

    ``export`` recognises such matrices and stores the integers. The runtime multiplies them out
    once, when it loads the graph, so that a request takes no longer. Call ``quantize_tables``
    first, so that known items keep the vectors of the float network.
    """
    net = copy.deepcopy(model.net)
    with torch.no_grad():
        for weight in _graph_weights(net):
            if _is_quantizable(weight):
                weight.copy_(round_channels(weight))
    return replace(model, net=net)


def graph_bytes(net: TwoTower) -> int:
    """Return the bytes that a bundle needs for the weights of encoder and item tower."""
    return sum(_stored_bytes(weight) for weight in _graph_weights(net))


def _stored_bytes(weight: Tensor) -> int:
    if _is_quantizable(weight) and torch.equal(round_channels(weight), weight):
        return weight.numel() + 4 * len(weight)
    return 4 * weight.numel()


def _graph_weights(net: TwoTower) -> Iterator[Tensor]:
    for part in (net.encoder, net.tower):
        if part is not None:
            yield from part.parameters()


def _is_quantizable(weight: Tensor) -> bool:
    return weight.dim() == 2 and weight.numel() >= MIN_QUANTIZED_ENTRIES


def round_channels(weight: Tensor) -> Tensor:
    """Round each row of a matrix (out, in) to the nearest of -127..127 times the row's scale.

    A scale has 16 significant bits, so that its product with a 7-bit integer is exact in float32
    and ``export`` can recover the integers.
    """
    largest = weight.abs().amax(1, keepdim=True)
    scale = round_scale_up(largest / 127.0)
    return torch.clamp(torch.round(weight / scale), -127, 127) * scale


def round_scale_up(scale: Tensor) -> Tensor:
    """Round positive scales up to 16 significant bits; 0 becomes 1."""
    mantissa, exponent = torch.frexp(torch.where(scale > 0, scale, torch.ones_like(scale)))
    return torch.ldexp(torch.ceil(mantissa * 2**16) / 2**16, exponent)
