"""Weight-only int8 for the graphs: each output channel has its own scale, arithmetic stays float32."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.model import TwoTower

MIN_QUANTIZED_ENTRIES = 256
"""Weights from which on a matrix is rounded; smaller ones are not worth a scale."""


def quantize_graphs(model: EdgeModel) -> EdgeModel:
    """Return the model with the matrices of encoder and item tower rounded to int8 times a scale a channel.

    ``export`` finds such matrices and stores the integers; the runtime's session multiplies them out once, when it
    loads, so that a request costs what it did. The tables of known items stay: quantize them first.
    """
    net = copy.deepcopy(model.net)
    with torch.no_grad():
        for part in (net.encoder, net.tower):
            for weight in _matrices(part):
                weight.copy_(round_channels(weight))
    return replace(model, net=net)


def graph_bytes(net: TwoTower) -> int:
    """Return the bytes of the weights of encoder and item tower as a bundle stores them."""
    weights = [
        weight
        for part in (net.encoder, net.tower)
        if part is not None
        for weight in part.parameters()
    ]
    return sum(
        weight.numel() + 4 * len(weight)
        if weight.dim() == 2
        and weight.numel() >= MIN_QUANTIZED_ENTRIES
        and torch.equal(round_channels(weight), weight)
        else 4 * weight.numel()
        for weight in weights
    )


def _matrices(part: nn.Module | None) -> list[Tensor]:
    if part is None:
        return []
    return [
        weight
        for weight in part.parameters()
        if weight.dim() == 2 and weight.numel() >= MIN_QUANTIZED_ENTRIES
    ]


def round_channels(weight: Tensor) -> Tensor:
    """Round each row of a matrix (out, in) to -127..127 times its scale.

    A scale has 16 significant bits, so that every product is exact in float32 and the integers can be read back.
    """
    largest = weight.abs().amax(1, keepdim=True)
    scale = short(largest / 127.0)
    return torch.clamp(torch.round(weight / scale), -127, 127) * scale


def short(scale: Tensor) -> Tensor:
    """Round positive scales up to 16 significant bits; 0 becomes 1."""
    mantissa, exponent = torch.frexp(torch.where(scale > 0, scale, torch.ones_like(scale)))
    return torch.ldexp(torch.ceil(mantissa * 2**16) / 2**16, exponent)
