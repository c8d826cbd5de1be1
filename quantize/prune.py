"""Prune an encoder's structure: feed-forward units, attention heads, layers, the history it reads; then recover.

Every step takes and gives an ``EdgeModel``, as ``(model, dataset, task, <what stays>, steps, seed)``, and ends with
``steps`` of distillation from the model it was given (``distil``), on histories of the task's training part. To recover
several steps at once from the first model, take them with no steps and call ``distil`` behind. The width of the vectors
is cut in ``width``.

Two things are not offered, for they would pay nothing. Single weights set to zero: the runtime multiplies by them all
the same (``benchmarks/structure`` measures it). Id embeddings of rarely seen items: a bundle holds one row an item, in
which content and id are summed already, so that an item without an id takes the same bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.errors import ModelError
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.model import FeedForward, ModelConfig, SelfAttention

from .distil import Histories, distil, reshaped

BATCHES = 4
"""Batches of histories that importance is measured on."""


def prune_feed_forward(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    keep: float = 0.5,
    steps: int = 200,
    seed: int = 0,
) -> EdgeModel:
    """Return the model with ``keep`` of its feed-forward units, those that matter most, and recovered.

    Importance is first-order Taylor (Molchanov et al., arXiv 1906.10771): the mean squared product of a unit's
    activation and the gradient of the variance of the users' scores. Raises ValueError where ``keep`` is not in (0, 1].
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must lie in (0, 1], not {keep}")
    config = model.net.config
    hidden = max(1, round(config.feed_forward * keep))
    changed = dict(model.net.state_dict())
    for name, unit in _importance(model, dataset, task, FeedForward, "down", 1, seed).items():
        best = _best(unit, hidden)
        for part, axis in (("up.weight", 0), ("up.bias", 0), ("down.weight", 1)):
            changed[f"{name}.{part}"] = changed[f"{name}.{part}"].index_select(axis, best)
    return _recovered(
        model, dataset, task, replace(config, feed_forward=hidden), changed, steps, seed
    )


def prune_heads(
    model: EdgeModel, dataset: Dataset, task: Task, heads: int = 1, steps: int = 400, seed: int = 0
) -> EdgeModel:
    """Return a ``base`` model with ``heads`` attention heads a layer, those that matter most, and recovered.

    Importance is that of ``prune_feed_forward``, a head being one unit (Michel et al., arXiv 1905.10650). A head keeps
    its width. Raises ValueError where ``heads`` is not among those it has, ModelError for a ``fast`` model.
    """
    config = _base(model, "heads")
    _check("heads", heads, config.heads)
    width = config.attention_width
    changed = dict(model.net.state_dict())
    for name, head in _importance(model, dataset, task, SelfAttention, "out", width, seed).items():
        unit = (_best(head, heads)[:, None] * width + torch.arange(width)).flatten()
        for part, axis in (
            ("q.weight", 0),
            ("q.bias", 0),
            ("k.weight", 0),
            ("v.weight", 0),
            ("v.bias", 0),
            ("out.weight", 1),
        ):
            changed[f"{name}.{part}"] = changed[f"{name}.{part}"].index_select(axis, unit)
    shape = replace(config, heads=heads, head_width=width)
    return _recovered(model, dataset, task, shape, changed, steps, seed)


def prune_head_width(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    head_width: int = 16,
    steps: int = 400,
    seed: int = 0,
) -> EdgeModel:
    """Return a ``base`` model with attention heads of ``head_width``, recovered.

    A head is two bilinear forms, query with key and value with output; each is cut to its largest singular values.
    Raises ValueError where ``head_width`` is not in 1..the model's, ModelError for a ``fast`` model.
    """
    config = _base(model, "heads")
    _check("head_width", head_width, config.attention_width)
    changed = dict(model.net.state_dict())
    for i in range(config.layers):
        layer = f"encoder.layers.{i}"
        changed |= _narrow_heads(changed, layer, config, head_width)
    shape = replace(config, head_width=head_width)
    return _recovered(model, dataset, task, shape, changed, steps, seed)


def _narrow_heads(
    state: Mapping[str, Tensor], layer: str, config: ModelConfig, width: int
) -> dict[str, Tensor]:
    """Cut one layer's heads. The values' bias passes through attention unchanged, so the output's bias takes it."""
    heads, before, d = config.heads, config.attention_width, config.width
    names = ("q.weight", "q.bias", "k.weight", "v.weight", "v.bias", "out.weight", "out.bias")
    part = {name: state[f"{layer}.{name}"].double() for name in names}
    query = torch.cat([part["q.weight"], part["q.bias"][:, None]], 1).reshape(heads, before, d + 1)
    key, value = (part[f"{name}.weight"].reshape(heads, before, d) for name in ("k", "v"))
    leaving = part["out.weight"].reshape(d, heads, before).transpose(0, 1)  # (heads, d, before)
    query, key = _factors(
        query.transpose(1, 2) @ key, width
    )  # (heads, d + 1, width), (heads, width, d)
    leaving, value = _factors(leaving @ value, width)  # (heads, d, width), (heads, width, d)
    query = (
        query.transpose(1, 2).flatten(0, 1) * (width / before) ** 0.5
    )  # (heads * width, d + 1): the scale's change
    narrow = {
        "q.weight": query[:, :d],
        "q.bias": query[:, d],
        "k.weight": key.flatten(0, 1),
        "v.weight": value.flatten(0, 1),
        "v.bias": torch.zeros(heads * width),
        "out.weight": leaving.transpose(0, 1).flatten(1),
        "out.bias": part["out.bias"] + part["out.weight"] @ part["v.bias"],
    }
    return {f"{layer}.{name}": tensor.float().contiguous() for name, tensor in narrow.items()}


def _factors(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the best factors of a rank, (..., m, rank) and (..., rank, n), with the singular values shared out."""
    left, value, right = torch.linalg.svd(product, full_matrices=False)
    root = value[..., :rank].sqrt()
    return left[..., :rank] * root[..., None, :], root[..., None] * right[..., :rank, :]


def prune_layers(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    layers: int = 1,
    steps: int = 1000,
    seed: int = 0,
) -> EdgeModel:
    """Return a ``base`` model with its last ``layers`` layers, recovered.

    Raises ValueError where ``layers`` is not among those it has, ModelError for a ``fast`` model.
    """
    config = _base(model, "layers")
    _check("layers", layers, config.layers)
    gone = config.layers - layers
    changed = {}
    for name, value in model.net.state_dict().items():
        head, _, rest = name.partition("encoder.layers.")
        if not rest:
            changed[head] = value
        elif (place := int(rest.partition(".")[0]) - gone) >= 0:
            changed[f"encoder.layers.{place}.{rest.partition('.')[2]}"] = value
    return _recovered(model, dataset, task, replace(config, layers=layers), changed, steps, seed)


def prune_history(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    history: int = 25,
    steps: int = 200,
    seed: int = 0,
) -> EdgeModel:
    """Return the model reading only the ``history`` most recent positions, recovered.

    The linear parts go on to read the whole past. Raises ValueError where it reads no more already.
    """
    config = model.net.config
    _check("history", history, config.history)
    changed = dict(model.net.state_dict())
    for name in ("position_bias", "encoder.position"):
        if name in changed:
            changed[name] = changed[name][-history:]
    return _recovered(model, dataset, task, replace(config, history=history), changed, steps, seed)


def _check(name: str, asked: int, most: int) -> None:
    if not 1 <= asked <= most:
        raise ValueError(f"{name} must lie in 1..{most}, what the model has, not {asked}")


def _base(model: EdgeModel, what: str) -> ModelConfig:
    config = model.net.config
    if config.size != "base":
        raise ModelError(
            f"a {config.size} model has no {what} to prune: prune its feed-forward part or its width"
        )
    return config


def _recovered(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    config: ModelConfig,
    changed: Mapping[str, Tensor],
    steps: int,
    seed: int,
) -> EdgeModel:
    student = replace(model, net=reshaped(model.net, config, changed))
    return distil(student, dataset, task, model, steps, seed)


def _best(importance: NDArray[np.float64], count: int) -> Tensor:
    """Return the places of the largest, in rising order."""
    return torch.from_numpy(np.sort(np.argsort(-importance, kind="stable")[:count]))


def _importance(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    kind: type[nn.Module],
    last: str,
    unit_size: int,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Return the importance of what enters the ``last`` linear layer of each module of a kind, by the module's name.

    ``unit_size`` entries side by side are one unit.
    """
    net = copy.deepcopy(model.net.encoder).eval().requires_grad_(True)
    candidates = torch.from_numpy(model.candidate_vectors)
    candidates = candidates - candidates.mean(0)
    seen: dict[str, list[Tensor]] = {}
    for name, part in net.named_modules():
        if isinstance(part, kind):
            captured = seen.setdefault(f"encoder.{name}", [])
            part.get_submodule(last).register_forward_pre_hook(_capturing(captured))
    histories = Histories(model, dataset, task, seed)
    for _ in range(BATCHES):
        item, *rest = histories.draw(model.net.config.history)
        log_weight = model.net.log_weight(*map(torch.from_numpy, rest))
        scores = (
            net(torch.from_numpy(model.history_vectors[item]), log_weight) @ candidates.T
        )  # (batch, C)
        scores.square().mean().backward()
    return {name: _taylor(captured, unit_size) for name, captured in seen.items()}


def _capturing(captured: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def capture(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        inputs[0].retain_grad()
        captured.append(inputs[0])

    return capture


def _taylor(captured: list[Tensor], unit_size: int) -> NDArray[np.float64]:
    products = [(x * x.grad).detach().flatten(0, -2) for x in captured if x.grad is not None]
    whole = torch.cat(products)  # (rows, entries)
    units = whole.reshape(len(whole), -1, unit_size).sum(2)  # (rows, units)
    squared: NDArray[np.float64] = units.square().mean(0).double().numpy()
    return squared
