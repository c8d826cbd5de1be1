"""Search for the smallest model that keeps its ranking, and say why others are rejected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge.choices import MACHINES
from tlrec_edge.core.cost import SLOWDOWN_TOLERANCE, Cost
from tlrec_edge.core.metrics import nan_to_none
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Tasks, make_tasks
from tlrec_edge.errors import BudgetError, ModelError
from tlrec_edge.train.bundle_arrays import stored_arrays
from tlrec_edge.train.edge_model import EdgeModel

from .budget import Budget, Target
from .graphs import graph_bytes
from .prune_cache import PruneCache
from .retained_quality import UNKNOWN_QUALITY, Judge, RetainedQuality
from .search_space import ORIGINAL, ROWS, STORAGE_FORMATS, PruningStep, search_space

TIMED_PER_FORMAT = 2
"""Timing is slow: of each storage format only the smallest that keep the budget are timed."""

CostMeasurement = Callable[[Sequence[EdgeModel]], list[Cost]]
"""Measure models as bundles, interleaved in one run."""


@dataclass(frozen=True)
class CompressConfig:
    """Limits and effort of a search.

    Args:
        budget: the share of the original's ranking quality to retain; the lower end of its 95 %
            interval must reach it.
        target: the latency that a request may take on this machine. None: at most
            1.1 times that of the original.
        max_bytes: the largest size of the bundle in bytes. None: no limit.
        machine: the machine that will serve the model, "this", "avx2", "avx512-vnni" or "arm64".
            Latency is measured for "this" only; for others the size alone counts.
        minutes: time limit of the search. Pruning steps that it leaves no time for are listed as
            not tried.
        recovery_steps: distillation steps after a pruning step; some steps use a multiple of it.
        seed: the seed of pruning and recovery.
        only: names of the pruning steps to try. None: all that exist for the encoder.

    Raises:
        ValueError: if a value is out of range, or if ``target`` is set for another machine.
    """

    budget: Budget = field(default_factory=Budget)
    target: Target | None = None
    max_bytes: int | None = None
    machine: str = "this"
    minutes: float = 10.0
    recovery_steps: int = 300
    seed: int = 0
    only: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.machine not in MACHINES:
            raise ValueError(f"machine must be one of {', '.join(MACHINES)}, not {self.machine!r}")
        if self.target is not None and self.machine != "this":
            raise ValueError(
                f"latency can be measured on this machine only, not for {self.machine}: "
                "compress on that machine, or set no target"
            )
        if not self.minutes > 0:
            raise ValueError(f"minutes must be above 0, not {self.minutes:g}")
        if self.recovery_steps < 0:
            raise ValueError(f"recovery_steps must be at least 0, not {self.recovery_steps}")


@dataclass(frozen=True)
class Point:
    """One model of the search.

    Attributes:
        name: the pruning step and the storage format.
        retained: the quality it retains on the validation rows.
        bytes: the size of its bundle, estimated if the bundle was not measured; None if the step
            was not tried.
        us: microseconds per request by percentile; None if it was not timed.
        pareto_optimal: no other model is at least as good, as small and as fast, and better in one.
        chosen: whether it is the result of the search.
        reason: why it was chosen or rejected.
    """

    name: str
    retained: RetainedQuality
    bytes: int | None
    us: Mapping[str, float] | None
    pareto_optimal: bool
    chosen: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data; a figure that could not be measured is None."""
        return nan_to_none(
            {
                "step": self.name,
                "value": self.retained.value,
                "ratio": self.retained.ratio,
                "se": self.retained.se,
                "low": self.retained.low,
                "bytes": self.bytes,
                "us": dict(self.us) if self.us else None,
                "front": self.pareto_optimal,
                "kept": self.chosen,
                "why": self.reason,
            }
        )


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


@dataclass(frozen=True)
class _Variant:
    """A model of the search while it runs; ``rejection`` is the reason if it can't be chosen."""

    name: str
    model: EdgeModel
    retained: RetainedQuality
    cost: Cost
    rejection: str | None = None
    storage_format: str = ""


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

    Quality is measured on the target's validation rows, paired with the original. The final model
    was fitted on these rows too, so only the ratio of the two is meaningful.

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
) -> Iterator[_Variant]:
    """Yield the original, then each pruned model and the ways to store it."""
    deadline = time.monotonic() + 60 * config.minutes
    original = _Variant(ORIGINAL, model, judge.retained(model), Cost(served_bytes(model)))
    yield original
    names, formats = list(steps), STORAGE_FORMATS
    if np.isnan(original.retained.ratio):
        # Without validation rows no loss can be ruled out, so only int8 rows are safe enough: each
        # entry moves by at most half a step of its row's scale.
        names, formats = [ORIGINAL], {ROWS: STORAGE_FORMATS[ROWS]}
    for name in names:
        if name != ORIGINAL and time.monotonic() > deadline:
            reason = f"not tried: the time limit of {config.minutes:g} minutes was reached"
            yield _Variant(name, model, UNKNOWN_QUALITY, Cost(0), reason)
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


def _judged(name: str, model: EdgeModel, judge: Judge, budget: Budget) -> _Variant:
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
    return _Variant(name, model, retained, Cost(served_bytes(model)), rejection)


def _with_costs(
    variants: list[_Variant],
    measure_costs: CostMeasurement,
    config: CompressConfig,
    progress: Callable[[str], None],
) -> list[_Variant]:
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


def _variants_to_measure(variants: Sequence[_Variant], every: bool) -> list[_Variant]:
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


def _estimated_cost(variant: _Variant, overhead: int) -> Cost:
    return Cost(variant.cost.bytes and variant.cost.bytes + overhead)


def _choose(
    variants: list[_Variant],
    judge: Judge,
    dataset: Dataset,
    tasks: Tasks,
    config: CompressConfig,
    machine: dict[str, Any],
) -> Compression:
    acceptable = [variant for variant in variants if variant.rejection is None]
    affordable = [variant for variant in acceptable if not _exceeded(variant.cost, config)]
    best = min(
        affordable, key=lambda variant: (variant.cost.bytes, -variant.retained.ratio), default=None
    )
    points = _points(variants, best, config, judged=bool(judge.rows))
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
    original: _Variant, acceptable: list[_Variant], config: CompressConfig
) -> str:
    if not acceptable:
        return (
            f"no model is acceptable: the original is rejected ({original.rejection}); "
            "see the table for the others"
        )
    smallest = min(acceptable, key=lambda variant: variant.cost.bytes)
    return (
        f"no model that keeps {config.budget} meets the limits: the smallest ({smallest.name}) "
        f"{' and '.join(_exceeded(smallest.cost, config))}; raise the limit or lower the budget"
    )


def _points(
    variants: list[_Variant], best: _Variant | None, config: CompressConfig, judged: bool
) -> list[Point]:
    pareto_front = _pareto_front(variants)
    points = []
    for variant in variants:
        chosen = variant is best
        rejections = [variant.rejection] if variant.rejection else _exceeded(variant.cost, config)
        if rejections:
            reason = "; ".join(rejections)
        elif chosen:
            reason = "the smallest that keeps the budget"
        else:
            reason = "keeps the budget, but is larger than the chosen one"
        if not judged:
            reason = f"quality not measured, no validation rows: {reason}"
        points.append(
            Point(
                name=variant.name,
                retained=variant.retained,
                bytes=variant.cost.bytes or None,
                us=variant.cost.us or None,
                pareto_optimal=variant.name in pareto_front,
                chosen=chosen,
                reason=reason,
            )
        )
    return points


def _exceeded(cost: Cost, config: CompressConfig) -> list[str]:
    """Name the limits that a cost exceeds."""
    limits = []
    if config.max_bytes is not None and cost.bytes > config.max_bytes:
        limits.append(f"has {cost.bytes:,} bytes, more than {config.max_bytes:,}")
    if config.target is not None and cost.us[config.target.percentile] > config.target.us:
        us = cost.us[config.target.percentile]
        limits.append(f"takes {us:.0f} us, the target is {config.target}")
    return limits


def _pareto_front(variants: Sequence[_Variant]) -> set[str]:
    """Return the names of the variants that no other dominates in quality, bytes and latency."""
    judged = [variant for variant in variants if np.isfinite(variant.retained.ratio)]
    if any(variant.cost.us for variant in judged):  # sizes of those not timed are estimates
        judged = [variant for variant in judged if variant.cost.us]
    costs = np.array([(-v.retained.ratio, v.cost.bytes, v.cost.us.get("p50", 0.0)) for v in judged])
    front = set()
    for i, variant in enumerate(judged):
        others = np.delete(costs, i, 0)
        if not any((other <= costs[i]).all() and (other < costs[i]).any() for other in others):
            front.add(variant.name)
    return front


def served_bytes(model: EdgeModel) -> int:
    """Return the stored bytes of the arrays and graph weights that scoring reads."""
    arrays = stored_arrays(model).values()
    return int(sum(array.nbytes for array in arrays) + graph_bytes(model.net))
