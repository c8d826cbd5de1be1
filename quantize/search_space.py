"""The search space: structured pruning steps, and storage formats for the pruned models."""

from __future__ import annotations

from collections.abc import Callable

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.errors import ModelError
from tlrec_edge.train.edge_model import EdgeModel

from .distil import distil, distil_fast
from .graphs import quantize_graphs
from .prune import prune_feed_forward, prune_heads, prune_layers
from .tables import quantize_tables, quantize_wide
from .width import prune_width

PruningStep = Callable[[EdgeModel, Dataset, Task, int, int], EdgeModel]
"""Map (model, dataset, task to recover on, recovery steps, seed) to a smaller model."""
StorageFormat = Callable[[EdgeModel], EdgeModel]
ORIGINAL, ROWS = "original", "int8 rows"


def search_space(model: EdgeModel, only: tuple[str, ...] | None = None) -> dict[str, PruningStep]:
    """Return the pruning steps to try on a model by name; the first leaves the model unchanged.

    Without a two-tower part (score weight 0) that is the only one. Raises ModelError if ``only``
    holds an unknown name.
    """
    steps = PRUNING_STEPS[model.net.config.size]
    for name in only or ():
        if name not in steps:
            raise ModelError(
                f"{name!r} is not a pruning step of a {model.net.config.size} model: "
                f"choose from {'; '.join(steps)}"
            )
    space: dict[str, PruningStep] = {ORIGINAL: lambda model, *_: model}
    if model.score_weights.two_tower:
        space |= {name: step for name, step in steps.items() if only is None or name in only}
    return space


def _single_step(prune: Callable[..., EdgeModel], **size: int | float) -> PruningStep:
    def pruning_step(
        model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int
    ) -> EdgeModel:
        return prune(model, dataset, task, steps=steps, seed=seed, **size)

    return pruning_step


def _prune_width(width: float, feed_forward: float = 1.0, heads: float = 1.0) -> PruningStep:
    """Prune to a share of the vectors' width, of the feed-forward units and of the attention heads.

    Recovery runs once, from the original, after the last of them.
    """

    def pruning_step(
        model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int
    ) -> EdgeModel:
        new_width = max(2, round(model.net.config.width * width))
        pruned = model
        if heads < 1:
            n_heads = _share_of_heads(pruned, heads)
            pruned = prune_heads(pruned, dataset, task, heads=n_heads, steps=0, seed=seed)
        if feed_forward < 1:
            pruned = prune_feed_forward(
                pruned, dataset, task, keep=feed_forward, steps=0, seed=seed
            )
        pruned = prune_width(pruned, dataset, task, width=new_width, steps=0, seed=seed)
        return distil(pruned, dataset, task, model, steps=steps, seed=seed)

    return pruning_step


def _prune_half_the_heads(
    model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int
) -> EdgeModel:
    heads = _share_of_heads(model, 0.5)
    return prune_heads(model, dataset, task, heads=heads, steps=steps, seed=seed)


def _share_of_heads(model: EdgeModel, share: float) -> int:
    return max(1, round(model.net.config.heads * share))


def _distil_fast_and_halve_width(
    model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int
) -> EdgeModel:
    fast = distil_fast(model, dataset, task, steps=6 * steps, seed=seed)
    return _prune_width(0.5)(fast, dataset, task, steps, seed)


def _recover_longer(step: PruningStep, times: int) -> PruningStep:
    """Multiply the recovery steps, for pruning that removes more."""
    return lambda model, dataset, task, steps, seed: step(model, dataset, task, times * steps, seed)


PRUNING_STEPS: dict[str, dict[str, PruningStep]] = {
    "fast": {
        "feed-forward 1/2": _single_step(prune_feed_forward, keep=0.5),
        "width 3/4": _prune_width(0.75),
        "width 1/2": _prune_width(0.5),
        "width 1/2, feed-forward 1/2": _prune_width(0.5, 0.5),
        "width 3/8": _prune_width(0.375),
        "width 1/4": _prune_width(0.25),
    },
    "base": {
        "feed-forward 1/2": _single_step(prune_feed_forward, keep=0.5),
        "heads 1/2": _recover_longer(_prune_half_the_heads, 2),
        "width 3/4, feed-forward 1/2": _recover_longer(_prune_width(0.75, 0.5), 3),
        "width 3/4, feed-forward 1/2, heads 1/2": _recover_longer(_prune_width(0.75, 0.5, 0.5), 3),
        "one layer": _recover_longer(_single_step(prune_layers, layers=1), 3),
        "as fast": _recover_longer(_single_step(distil_fast), 6),
        "as fast, width 1/2": _distil_fast_and_halve_width,
    },
}
"""Pruning steps by encoder size and name.

A shorter history is not one of them: it saves little and loses most (``benchmarks/structure``)."""


def _quantize_all(bits: int) -> StorageFormat:
    return lambda model: quantize_graphs(quantize_wide(quantize_tables(model, bits)))


STORAGE_FORMATS: dict[str, StorageFormat] = {
    ROWS: quantize_tables,
    "int8": _quantize_all(8),
    "int4": _quantize_all(4),
}
"""Ways to store a model, from large to small.

Either only the item rows are quantized, to int8; or the item rows have 8 or 4 bits, and item-item
weights and graphs have 8."""
