"""What a search tries: cuts of the structure, and ways to store what is left."""

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

Cut = Callable[[EdgeModel, Dataset, Task, int, int], EdgeModel]
"""From a model, its data, the task to recover on, the steps of recovery and a seed to a smaller model."""
ORIGINAL, ROWS = "as given", "int8 rows"


def structures(model: EdgeModel, only: tuple[str, ...] | None = None) -> dict[str, Cut]:
    """Return the cuts to try on a model, the model as it is first. Raises ModelError for a name in ``only`` it lacks.

    Without a deep part there is nothing to cut.
    """
    cuts = _CUTS[model.net.config.size]
    for name in only or ():
        if name not in cuts:
            raise ModelError(f"no cut {name!r} of this model; known: {'; '.join(cuts)}")
    if not model.score_weights.deep:
        cuts = {}
    wanted = {name: cut for name, cut in cuts.items() if only is None or name in only}
    return {ORIGINAL: lambda model, *_: model, **wanted}


def _one(prune: Callable[..., EdgeModel], **knobs: int | float) -> Cut:
    def cut(model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int) -> EdgeModel:
        return prune(model, dataset, task, steps=steps, seed=seed, **knobs)

    return cut


def _width(share: float, feed_forward: float = 1.0, heads: float = 1.0) -> Cut:
    """Cut the vectors to a share of their width, and feed-forward part and attention heads with them."""

    def cut(model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int) -> EdgeModel:
        width = max(2, round(model.net.config.width * share))
        whole = model
        if heads < 1:
            model = prune_heads(model, dataset, task, heads=_share(model, heads), steps=0, seed=seed)
        if feed_forward < 1:
            model = prune_feed_forward(model, dataset, task, keep=feed_forward, steps=0, seed=seed)
        model = prune_width(model, dataset, task, width=width, steps=0, seed=seed)
        return distil(model, dataset, task, whole, steps=steps, seed=seed)

    return cut


def _heads(model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int) -> EdgeModel:
    return prune_heads(model, dataset, task, heads=_share(model, 0.5), steps=steps, seed=seed)


def _share(model: EdgeModel, share: float) -> int:
    return max(1, round(model.net.config.heads * share))


def _narrow_fast(model: EdgeModel, dataset: Dataset, task: Task, steps: int, seed: int) -> EdgeModel:
    fast = distil_fast(model, dataset, task, steps=6 * steps, seed=seed)
    return _width(0.5)(fast, dataset, task, steps, seed)


def _longer(cut: Cut, times: int) -> Cut:
    """Give a cut more steps of recovery: what it loses is more to learn again."""
    return lambda model, dataset, task, steps, seed: cut(model, dataset, task, times * steps, seed)


_CUTS: dict[str, dict[str, Cut]] = {
    "fast": {
        "feed-forward 1/2": _one(prune_feed_forward, keep=0.5),
        "width 3/4": _width(0.75),
        "width 1/2": _width(0.5),
        "width 1/2, feed-forward 1/2": _width(0.5, 0.5),
        "width 3/8": _width(0.375),
        "width 1/4": _width(0.25),
    },
    "base": {
        "feed-forward 1/2": _one(prune_feed_forward, keep=0.5),
        "heads 1/2": _longer(_heads, 2),
        "width 3/4, feed-forward 1/2": _longer(_width(0.75, 0.5), 3),
        "width 3/4, feed-forward 1/2, heads 1/2": _longer(_width(0.75, 0.5, 0.5), 3),
        "one layer": _longer(_one(prune_layers, layers=1), 3),
        "as fast": _longer(_one(distil_fast), 6),
        "as fast, width 1/2": _narrow_fast,
    },
}
"""By encoder. A shorter history is not among them: it gains little and costs most (see benchmarks/structure)."""


def _packed(bits: int) -> Callable[[EdgeModel], EdgeModel]:
    def pack(model: EdgeModel) -> EdgeModel:
        return quantize_graphs(quantize_wide(quantize_tables(model, bits)))

    return pack


STORES: dict[str, Callable[[EdgeModel], EdgeModel]] = {
    ROWS: quantize_tables,
    "int8": _packed(8),
    "int4": _packed(4),
}
"""Ways to store a model, from whole to small: rows alone, or rows in so many bits with weights and graphs in 8."""
