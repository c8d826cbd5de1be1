"""The search space: structured pruning steps, and storage formats for what is left."""

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
"""From a model, its data, the task to recover on, the steps of recovery and a seed to a smaller model."""
ORIGINAL, ROWS = "as given", "int8 rows"


def search_space(model: EdgeModel, only: tuple[str, ...] | None = None) -> dict[str, PruningStep]:
    """Return the pruning steps to try on a model; the first leaves it as it is.

    Raises ModelError for an unknown name in ``only``.

    Without a deep part there is nothing to prune.
    """
    pruning_steps = _PRUNING_STEPS[model.net.config.size]
    for name in only or ():
        if name not in pruning_steps:
            raise ModelError(
                f"no pruning step {name!r} of this model; known: {'; '.join(pruning_steps)}"
            )
    if not model.score_weights.deep:
        pruning_steps = {}
    wanted = {
        name: pruning_step
        for name, pruning_step in pruning_steps.items()
        if only is None or name in only
    }
    return {ORIGINAL: lambda model, *_: model, **wanted}


def _single_step(prune: Callable[..., EdgeModel], **hyperparameters: int | float) -> PruningStep:
    def pruning_step(
        model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int
    ) -> EdgeModel:
        return prune(model, dataset, task, steps=steps, seed=seed, **hyperparameters)

    return pruning_step


def _prune_width(share: float, feed_forward: float = 1.0, heads: float = 1.0) -> PruningStep:
    """Prune the vectors to a share of their width, and the feed-forward part and attention heads with them."""

    def pruning_step(
        model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int
    ) -> EdgeModel:
        width = max(2, round(model.net.config.width * share))
        whole = model
        if heads < 1:
            model = prune_heads(
                model, dataset, task, heads=_share(model, heads), steps=0, seed=seed
            )
        if feed_forward < 1:
            model = prune_feed_forward(model, dataset, task, keep=feed_forward, steps=0, seed=seed)
        model = prune_width(model, dataset, task, width=width, steps=0, seed=seed)
        return distil(model, dataset, task, whole, steps=steps, seed=seed)

    return pruning_step


def _prune_heads(
    model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int
) -> EdgeModel:
    return prune_heads(model, dataset, task, heads=_share(model, 0.5), steps=steps, seed=seed)


def _share(model: EdgeModel, share: float) -> int:
    return max(1, round(model.net.config.heads * share))


def _narrow_fast(
    model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int
) -> EdgeModel:
    fast = distil_fast(model, dataset, task, steps=6 * steps, seed=seed)
    return _prune_width(0.5)(fast, dataset, task, steps, seed)


def _with_more_recovery(pruning_step: PruningStep, times: int) -> PruningStep:
    """Give a pruning step more recovery steps: it has more to learn again."""
    return lambda model, dataset, task, steps, seed: pruning_step(
        model, dataset, task, times * steps, seed
    )


_PRUNING_STEPS: dict[str, dict[str, PruningStep]] = {
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
        "heads 1/2": _with_more_recovery(_prune_heads, 2),
        "width 3/4, feed-forward 1/2": _with_more_recovery(_prune_width(0.75, 0.5), 3),
        "width 3/4, feed-forward 1/2, heads 1/2": _with_more_recovery(
            _prune_width(0.75, 0.5, 0.5), 3
        ),
        "one layer": _with_more_recovery(_single_step(prune_layers, layers=1), 3),
        "as fast": _with_more_recovery(_single_step(distil_fast), 6),
        "as fast, width 1/2": _narrow_fast,
    },
}
"""By encoder. A shorter history is not among them: it gains little and costs most (see benchmarks/structure)."""


def _quantized(bits: int) -> Callable[[EdgeModel], EdgeModel]:
    def pack(model: EdgeModel) -> EdgeModel:
        return quantize_graphs(quantize_wide(quantize_tables(model, bits)))

    return pack


STORAGE_FORMATS: dict[str, Callable[[EdgeModel], EdgeModel]] = {
    ROWS: quantize_tables,
    "int8": _quantized(8),
    "int4": _quantized(4),
}
"""Ways to store a model, from large to small: int8 rows alone, or rows in so many bits with weights and graphs in 8."""
