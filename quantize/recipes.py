"""What a search tries: cuts of the structure, and ways to store what is left."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tlrec_edge.quantize.graphs import quantize_graphs
from tlrec_edge.quantize.prune import prune_feed_forward
from tlrec_edge.quantize.tables import quantize_tables

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.errors import ModelError
from tlrec_edge.train.artifact import EdgeModel

Cut = Callable[[EdgeModel, Dataset, Task, int, int], EdgeModel]
"""From a model, its data, the task to recover on, the steps of recovery and a seed to a smaller model."""
ORIGINAL = "as given"


def structures(model: EdgeModel, only: tuple[str, ...] | None = None) -> dict[str, Cut]:
    """Return the cuts to try on a model, the model as it is first. Raises ModelError for a name in ``only`` it lacks.

    Without a deep part there is nothing to cut.
    """
    cuts: dict[str, Cut] = {ORIGINAL: lambda model, *_: model}
    if model.mix.deep:
        cuts |= _CUTS[model.net.config.size]
    if only is None:
        return cuts
    for name in only:
        if name not in cuts:
            raise ModelError(f"no cut {name!r} of this model; known: {', '.join(cuts)}")
    return {name: cut for name, cut in cuts.items() if name in (ORIGINAL, *only)}


def _feed_forward(model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int, keep: float) -> EdgeModel:
    pruned: EdgeModel = prune_feed_forward(model, dataset, task, keep, steps, seed)
    return pruned


_CUTS: dict[str, dict[str, Cut]] = {
    "fast": {"feed-forward 1/2": partial(_feed_forward, keep=0.5)},
    "base": {"feed-forward 1/2": partial(_feed_forward, keep=0.5)},
}


def _all_in(model: EdgeModel) -> EdgeModel:
    packed: EdgeModel = quantize_graphs(quantize_tables(model))
    return packed


STORES: dict[str, Callable[[EdgeModel], EdgeModel]] = {"int8 rows": quantize_tables, "int8": _all_in}
"""Ways to store a model, from whole to small."""
