"""Search for the smallest model that keeps its ranking, and say why others are rejected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge.core.cost import SLOWDOWN_TOLERANCE, Cost
from tlrec_edge.core.metrics import nan_to_none
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Tasks, make_tasks
from tlrec_edge.errors import BudgetError, ModelError
from tlrec_edge.train.bundle_arrays import stored_arrays
from tlrec_edge.train.edge_model import EdgeModel

from .budget import Budget
from .config import CompressConfig
from .graphs import graph_bytes
from .points import Point, Variant, exceeded_limits, make_points
from .prune_cache import PruneCache
from .retained_quality import UNKNOWN_QUALITY, Judge, RetainedQuality
from .search_space import ORIGINAL, ROWS, STORAGE_FORMATS, PruningStep, search_space

TIMED_PER_FORMAT = 2
"""Timing is slow: of each storage format only the smallest that keep the budget are timed."""

CostMeasurement = Callable[[Sequence[EdgeModel]], list[Cost]]
"""Measure models as bundles, interleaved in one run."""


@dataclass(frozen=True)
class Compression:
    """The result of a search.

    Attributes:
        model: the chosen model; its provenance holds the table and the test figures.
        points: every model of the search.
        test: the quality that the chosen model retains on the test rows, read once, after the
            choice.
    """

    model: EdgeModel
    points: tuple[Point, ...]
    test: RetainedQuality


def compress(
    model: EdgeModel,
    dataset: Dataset,
    config: CompressConfig | None = None,
    progress: Callable[[str], None] = lambda line: None,
    tasks: Tasks | None = None,
    measure_costs: CostMeasurement | None = None,
    checkpoint: Path | None = None,
    about_machine: Mapping[str, Any] | None = None,
) -> Compression:
    """Prune and quantize a model, and return the smallest one that keeps the quality budget.

    Quality is compared with the original model's, row by row, on the target's validation rows. The
    final model was fitted on these rows too, so only the ratio of the two is meaningful.

    Args:
        model: the target model to compress; it must not be compressed already.
        dataset: the dataset that the model was adapted to.
        config: limits and effort of the search. None: the defaults of ``CompressConfig``.
        progress: called with one line per step.
        tasks: the validation and test rows. None: those of the model's domains and fold.
        measure_costs: measures models as bundles, such as ``export.cost.measure_costs``. With it,
            models slower than the original are rejected. None: sizes are estimated, nothing is
            timed.
        checkpoint: a folder for pruned models, from which an interrupted search resumes.
        about_machine: facts about this machine for the model's provenance.

    Returns:
        The chosen model, the table of all models with a reason for each, and the test figures.

    Raises:
        BudgetError: if no model keeps the budget, meets the limits and makes a valid bundle (the
            error holds the table), or if a latency target is set without ``measure_costs``.
        ModelError: if the model is compressed already, if a step of ``config.only`` is unknown, or
            if ``checkpoint`` holds something else than this search.
    """
    config = config or CompressConfig()
    if model.tables is not None or model.quantized_wide is not None:
        raise ModelError("the model is compressed already: pass the model it was made from")
    if config.target is not None and measure_costs is None:
        raise BudgetError(
            "a latency target needs measured costs: use `tlrec-edge compress`, which measures them"
        )
    steps = search_space(model, config.only)
    tasks = tasks or make_tasks(dataset, model.provenance.domains, model.provenance.fold)
    judge = Judge(model, dataset, tasks.choose, config.budget)
    cache = PruneCache(checkpoint, model, config.seed, config.recovery_steps)

    def prune(name: str) -> EdgeModel:
        progress(name)
        return cache.get_or_prune(
            name,
            lambda: steps[name](model, dataset, tasks.final, config.recovery_steps, config.seed),
        )

    variants = list(_search(model, steps, prune, judge, config))
    if measure_costs is not None:
        variants = _with_costs(variants, measure_costs, config, progress)
    return _choose(variants, judge, dataset, tasks, config, dict(about_machine or {}))


def _search(
    model: EdgeModel,
    steps: Mapping[str, PruningStep],
    prune: Callable[[str], EdgeModel],
    judge: Judge,
    config: CompressConfig,
) -> Iterator[Variant]:
    """Yield the original, then each pruned model and the ways to store it."""
    deadline = time.monotonic() + 60 * config.minutes
    original = Variant(ORIGINAL, model, judge.retained(model), Cost(served_bytes(model)))
    yield original
    names, formats = list(steps), STORAGE_FORMATS
    if np.isnan(original.retained.ratio):
        # Without validation rows no loss can be ruled out, so only int8 rows are safe enough: each
        # entry moves by at most half a step of its row's scale.
        names, formats = [ORIGINAL], {ROWS: STORAGE_FORMATS[ROWS]}
    for name in names:
        if name != ORIGINAL and time.monotonic() > deadline:
            reason = f"not tried: the time limit of {config.minutes:g} minutes was reached"
            yield Variant(name, model, UNKNOWN_QUALITY, Cost(0), reason)
            continue
        pruned = prune(name)
        if name != ORIGINAL:
            variant = _judged(name, pruned, judge, config.budget)
            yield variant
            if variant.rejection:
                continue
        for storage_format, store in formats.items():
            label = storage_format if name == ORIGINAL else f"{name}, {storage_format}"
            variant = _judged(label, store(pruned), judge, config.budget)
            yield replace(variant, storage_format=storage_format)


def _judged(name: str, model: EdgeModel, judge: Judge, budget: Budget) -> Variant:
    retained = judge.retained(model)
    rejection = None
    if np.isnan(retained.se) and not np.isnan(retained.ratio):
        rejection = (
            f"retains {retained.ratio:.1%} of {budget.name}, "
            "but too few users for a confidence interval"
        )
    elif retained.low < budget.share:
        rejection = (
            f"retains {retained.ratio:.1%} of {budget.name} (95 % interval from "
            f"{retained.low:.1%}), below the budget of {budget.share:.1%}"
        )
    return Variant(name, model, retained, Cost(served_bytes(model)), rejection)


def _with_costs(
    variants: list[Variant],
    measure_costs: CostMeasurement,
    config: CompressConfig,
    progress: Callable[[str], None],
) -> list[Variant]:
    """Measure the most promising variants as bundles, and reject those slower than the original.

    A latency target replaces that rule. For another machine only the bytes are known.
    """
    measured = _variants_to_measure(variants, every=config.target is not None)
    progress(f"latency of {len(measured)} bundles, interleaved")
    measurements = measure_costs([variant.model for variant in measured])
    costs = dict(zip((variant.name for variant in measured), measurements, strict=True))
    valid = [variant for variant in measured if costs[variant.name].error is None]
    # Tables, weights and encoder aside, bundles of one search have the same size.
    overhead = costs[valid[0].name].bytes - valid[0].cost.bytes if valid else 0
    original_p50 = costs[ORIGINAL].us.get("p50", np.inf)
    result = []
    for variant in variants:
        cost, rejection = costs.get(variant.name), variant.rejection
        if cost is None:
            rejection = rejection or (
                "keeps the budget, but was not timed: "
                f"only the {TIMED_PER_FORMAT} smallest of each storage format are"
            )
            cost = _estimated_cost(variant, overhead)
        elif cost.error is not None:
            rejection = rejection or cost.error
            cost = _estimated_cost(variant, overhead)
        if config.machine != "this":
            cost = Cost(cost.bytes)
        elif rejection is None and config.target is None:
            rejection = _too_slow(cost, original_p50)
        result.append(replace(variant, cost=cost, rejection=rejection))
    return result


def _too_slow(cost: Cost, original_p50: float) -> str | None:
    p50 = cost.us["p50"]
    if p50 <= SLOWDOWN_TOLERANCE * original_p50:
        return None
    return f"takes {p50 / original_p50:.2f} times as long as the original on this CPU"


def _variants_to_measure(variants: Sequence[Variant], every: bool) -> list[Variant]:
    """Return the original and the smallest variants of each storage format that keep the budget.

    The smallest are not always the fastest, so that ``every`` one is measured for a latency target.
    """
    original, *others = variants
    limit = None if every else TIMED_PER_FORMAT
    measured = [original]
    for storage_format in ("", *STORAGE_FORMATS):
        of_format = [
            variant
            for variant in others
            if variant.rejection is None and variant.storage_format == storage_format
        ]
        measured += sorted(of_format, key=lambda variant: variant.cost.bytes)[:limit]
    return measured


def _estimated_cost(variant: Variant, overhead: int) -> Cost:
    return Cost(variant.cost.bytes and variant.cost.bytes + overhead)


def _choose(
    variants: list[Variant],
    judge: Judge,
    dataset: Dataset,
    tasks: Tasks,
    config: CompressConfig,
    machine: dict[str, Any],
) -> Compression:
    acceptable = [variant for variant in variants if variant.rejection is None]
    affordable = [variant for variant in acceptable if not exceeded_limits(variant.cost, config)]
    best = min(
        affordable, key=lambda variant: (variant.cost.bytes, -variant.retained.ratio), default=None
    )
    points = make_points(variants, best, config, judged=bool(judge.rows))
    if best is None:
        table = [point.to_json() for point in points]
        raise BudgetError(_nothing_acceptable(variants[0], acceptable, config), table)
    original = variants[0].model
    test = Judge(original, dataset, tasks.final, config.budget).retained(best.model)
    about = {
        "budget": str(config.budget),
        "target": str(config.target) if config.target else None,
        "for": config.machine,
        "machine": machine,
        "chosen": best.name,
        "original_bytes": variants[0].cost.bytes,
        "test": nan_to_none(asdict(test)),
        "points": [point.to_json() for point in points],
    }
    return Compression(best.model.with_provenance(compression=about), tuple(points), test)


def _nothing_acceptable(
    original: Variant, acceptable: list[Variant], config: CompressConfig
) -> str:
    if not acceptable:
        return (
            f"no model is acceptable: the original is rejected ({original.rejection}); "
            "see the table for the others"
        )
    smallest = min(acceptable, key=lambda variant: variant.cost.bytes)
    exceeded = " and ".join(exceeded_limits(smallest.cost, config))
    return (
        f"no model that keeps {config.budget} meets the limits: the smallest ({smallest.name}) "
        f"{exceeded}; raise the limit or lower the budget"
    )


def served_bytes(model: EdgeModel) -> int:
    """Return the stored bytes of the arrays and graph weights that scoring reads."""
    arrays = stored_arrays(model).values()
    return int(sum(array.nbytes for array in arrays) + graph_bytes(model.net))
