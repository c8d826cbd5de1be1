"""Prune an encoder's structure: feed-forward units, attention heads, layers and history length.

Every pruning step is a function ``(model, dataset, task, <size>, steps, seed)`` that returns a
smaller ``EdgeModel``. The smaller model then recovers: it is distilled from the original one
(``distil``) for ``steps`` steps, on histories of the task's training rows. To prune several times
and recover once, pass ``steps=0`` and call ``distil`` with the first model. ``width`` prunes the
width of the vectors.

Two common techniques are left out because they would not pay here. Zeroing single weights: the
runtime multiplies by zeros as by any number (``benchmarks/structure`` measures it). Dropping the id
embeddings of rare items: a bundle stores one row per item, the sum of content and id vectors, so an
item without an id embedding takes the same bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.errors import ModelError
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.model import FeedForward, ModelConfig, SelfAttention
from tlrec_edge.types import Doubles

from .distil import Histories, distil, reshaped

IMPORTANCE_BATCHES = 4
"""Batches of histories on which the importance of units is measured."""


def prune_feed_forward(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    keep: float = 0.5,
    steps: int = 200,
    seed: int = 0,
) -> EdgeModel:
    """Return the model with the most important share ``keep`` of its feed-forward units, recovered.

    Importance is first-order Taylor (Molchanov et al., arXiv 1906.10771): the mean squared product
    of a unit's activation and the gradient of the variance of the users' scores. Raises ValueError
    if ``keep`` is not in (0, 1].
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must lie in (0, 1], not {keep}")
    config = model.net.config
    hidden = max(1, round(config.feed_forward * keep))
    state = dict(model.net.state_dict())
    for name, unit in _importance(model, dataset, task, FeedForward, "down", 1, seed).items():
        best = _most_important(unit, hidden)
        _select(state, name, best, {"up.weight": 0, "up.bias": 0, "down.weight": 1})
    shape = replace(config, feed_forward=hidden)
    return _recover(model, dataset, task, shape, state, steps, seed)


def prune_heads(
    model: EdgeModel, dataset: Dataset, task: Task, heads: int = 1, steps: int = 400, seed: int = 0
) -> EdgeModel:
    """Return a ``base`` model with its ``heads`` most important heads per layer, recovered.

    Importance is that of ``prune_feed_forward`` with a head as one unit (Michel et al., arXiv
    1905.10650). The width of a head stays. Raises ValueError if ``heads`` is not in 1..the model's,
    ModelError if the model is ``fast``.
    """
    config = _base_config(model, "heads")
    _check_size("heads", heads, config.heads)
    width = config.attention_width
    state = dict(model.net.state_dict())
    axes = {"q.weight": 0, "q.bias": 0, "k.weight": 0, "v.weight": 0, "v.bias": 0, "out.weight": 1}
    for name, head in _importance(model, dataset, task, SelfAttention, "out", width, seed).items():
        first_entry = _most_important(head, heads)[:, None] * width
        _select(state, name, (first_entry + torch.arange(width)).flatten(), axes)
    shape = replace(config, heads=heads, head_width=width)
    return _recover(model, dataset, task, shape, state, steps, seed)


def _select(state: dict[str, Tensor], module: str, index: Tensor, axes: Mapping[str, int]) -> None:
    """Keep the given entries of a module's tensors, each along its own axis."""
    for part, axis in axes.items():
        name = f"{module}.{part}"
        state[name] = state[name].index_select(axis, index)


def prune_head_width(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    head_width: int = 16,
    steps: int = 400,
    seed: int = 0,
) -> EdgeModel:
    """Return a ``base`` model with attention heads of ``head_width``, recovered.

    A head is two bilinear forms, query with key and value with output; each is truncated to its
    largest singular values. Raises ValueError if ``head_width`` is not in 1..the model's,
    ModelError if the model is ``fast``.
    """
    config = _base_config(model, "heads")
    _check_size("head_width", head_width, config.attention_width)
    state = dict(model.net.state_dict())
    for i in range(config.layers):
        state |= _narrow_heads(state, f"encoder.layers.{i}", config, head_width)
    shape = replace(config, head_width=head_width)
    return _recover(model, dataset, task, shape, state, steps, seed)


def _narrow_heads(
    state: Mapping[str, Tensor], layer: str, config: ModelConfig, width: int
) -> dict[str, Tensor]:
    """Return one layer's attention with heads of a smaller width.

    Attention weights sum to 1, so the bias of the values reaches the output unchanged: the output's
    bias absorbs it.
    """
    heads, old_width, d = config.heads, config.attention_width, config.width
    names = ("q.weight", "q.bias", "k.weight", "v.weight", "v.bias", "out.weight", "out.bias")
    part = {name: state[f"{layer}.{name}"].double() for name in names}
    query = torch.cat([part["q.weight"], part["q.bias"][:, None]], 1)
    query = query.reshape(heads, old_width, d + 1)
    key, value = (part[f"{name}.weight"].reshape(heads, old_width, d) for name in ("k", "v"))
    output = part["out.weight"].reshape(d, heads, old_width).transpose(0, 1)

    # (heads, d + 1, width) and (heads, width, d), then (heads, d, width) and (heads, width, d)
    query, key = _low_rank_factors(query.transpose(1, 2) @ key, width)
    output, value = _low_rank_factors(output @ value, width)
    # Attention divides by sqrt(head width), which has changed; the query makes up for it.
    query = query.transpose(1, 2).flatten(0, 1) * (width / old_width) ** 0.5
    narrow = {
        "q.weight": query[:, :d],
        "q.bias": query[:, d],
        "k.weight": key.flatten(0, 1),
        "v.weight": value.flatten(0, 1),
        "v.bias": torch.zeros(heads * width),
        "out.weight": output.transpose(0, 1).flatten(1),
        "out.bias": part["out.bias"] + part["out.weight"] @ part["v.bias"],
    }
    return {f"{layer}.{name}": tensor.float().contiguous() for name, tensor in narrow.items()}


def _low_rank_factors(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the best factors of a rank, (..., m, rank) and (..., rank, n).

    Each takes the square root of the singular values, so that both have entries of the same size.
    """
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

    Raises ValueError if ``layers`` is not in 1..the model's, ModelError if the model is ``fast``.
    """
    config = _base_config(model, "layers")
    _check_size("layers", layers, config.layers)
    n_removed = config.layers - layers
    state = {}
    for name, value in model.net.state_dict().items():
        prefix, is_layer, suffix = name.partition("encoder.layers.")
        if not is_layer:
            state[prefix] = value
            continue
        number, _, part = suffix.partition(".")
        if int(number) >= n_removed:
            state[f"encoder.layers.{int(number) - n_removed}.{part}"] = value
    return _recover(model, dataset, task, replace(config, layers=layers), state, steps, seed)


def prune_history(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    history: int = 25,
    steps: int = 200,
    seed: int = 0,
) -> EdgeModel:
    """Return the model with an encoder that reads the ``history`` most recent positions, recovered.

    The linear parts still read the whole history. Raises ValueError if ``history`` is not in 1..the
    model's.
    """
    config = model.net.config
    _check_size("history", history, config.history)
    state = dict(model.net.state_dict())
    for name in ("position_bias", "encoder.position"):
        if name in state:
            state[name] = state[name][-history:]
    return _recover(model, dataset, task, replace(config, history=history), state, steps, seed)


def _check_size(name: str, size: int, model_size: int) -> None:
    if not 1 <= size <= model_size:
        raise ValueError(f"{name} must lie in 1..{model_size} (the model's), not {size}")


def _base_config(model: EdgeModel, what: str) -> ModelConfig:
    config = model.net.config
    if config.size != "base":
        raise ModelError(
            f"a {config.size} model has no {what} to prune: "
            "prune its feed-forward part or its width"
        )
    return config


def _recover(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    steps: int,
    seed: int,
) -> EdgeModel:
    student = replace(model, net=reshaped(model.net, config, state))
    return distil(student, dataset, task, model, steps, seed)


def _most_important(importance: Doubles, count: int) -> Tensor:
    """Return the indices of the ``count`` largest values, in rising order."""
    return torch.from_numpy(np.sort(np.argsort(-importance, kind="stable")[:count]))


def _importance(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    kind: type[nn.Module],
    linear: str,
    unit_size: int,
    seed: int,
) -> dict[str, Doubles]:
    """Return the importance of the units that enter the layer ``linear`` of each module of a kind.

    Keys are the modules' names; ``unit_size`` consecutive entries are one unit.
    """
    net = copy.deepcopy(model.net.encoder).eval().requires_grad_(True)
    candidates = torch.from_numpy(model.candidate_vectors)
    candidates = candidates - candidates.mean(0)
    activations: dict[str, list[Tensor]] = {}
    for name, module in net.named_modules():
        if isinstance(module, kind):
            captured = activations.setdefault(f"encoder.{name}", [])
            module.get_submodule(linear).register_forward_pre_hook(_capture_into(captured))
    histories = Histories(model, dataset, task, seed)
    for _ in range(IMPORTANCE_BATCHES):
        item, *rest = histories.draw(model.net.config.history)
        log_weight = model.net.log_weight(*map(torch.from_numpy, rest))
        users = net(torch.from_numpy(model.history_vectors[item]), log_weight)
        scores = users @ candidates.T  # (batch, C)
        scores.square().mean().backward()
    return {name: _taylor(captured, unit_size) for name, captured in activations.items()}


def _capture_into(captured: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def capture(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        inputs[0].retain_grad()
        captured.append(inputs[0])

    return capture


def _taylor(activations: list[Tensor], unit_size: int) -> Doubles:
    """Return the mean squared product of activation and gradient, (units,)."""
    products = [(x * x.grad).detach().flatten(0, -2) for x in activations if x.grad is not None]
    entries = torch.cat(products)  # (rows, entries)
    units = entries.reshape(len(entries), -1, unit_size).sum(2)  # (rows, units)
    importance: Doubles = units.square().mean(0).double().numpy()
    return importance
