"""Search for the smallest model that keeps its ranking; measure every point, and say of each rejected one why."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
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
from .retained_quality import Judge, RetainedQuality
from .search_space import ORIGINAL, ROWS, STORAGE_FORMATS, search_space

TIMED = 2
"""Points of each storage format that are timed as bundles with the original: the smallest that keep the budget."""

CostMeasurement = Callable[[Sequence[EdgeModel]], list[Cost]]
"""Measures models as bundles, all of them interleaved in one run."""


@dataclass(frozen=True)
class CompressConfig:
    """``budget``: what must stay, by the lower end of the 95 % interval. ``target``, ``max_bytes``: what it may cost.

    ``machine``: where it will run; a latency is only known of "this". ``minutes`` bound the search: what is not tried
    by then is left out and named. ``recovery_steps``: of distillation after a pruning step. ``only`` names
    the pruning steps to try.
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
                f"a latency is only known of this machine, not of {self.machine}: compress there, or set no target"
            )
        if not self.minutes > 0:
            raise ValueError(f"minutes must be above 0, not {self.minutes:g}")
        if self.recovery_steps < 0:
            raise ValueError(f"recovery_steps must be at least 0, not {self.recovery_steps}")


@dataclass(frozen=True)
class Point:
    """One model of the search: what it keeps (validation), what it costs, and why it was taken or not.

    ``us`` is None where no latency was measured, ``bytes`` where the point was not tried. ``pareto_optimal``: no
    other point keeps more, is faster and smaller at once.
    """

    name: str
    retained: RetainedQuality
    bytes: int | None
    us: Mapping[str, float] | None
    pareto_optimal: bool
    chosen: bool
    why: str

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
                "why": self.why,
            }
        )


@dataclass(frozen=True)
class Compression:
    """The chosen model and every point; ``test``: what it keeps on the test rows, looked at once, after the choice."""

    model: EdgeModel
    points: tuple[Point, ...]
    test: RetainedQuality


@dataclass(frozen=True)
class _Variant:
    name: str
    model: EdgeModel
    retained: RetainedQuality
    cost: Cost
    fault: str | None = None
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
    """Cut the model's structure, store what is left in fewer bits, and return the smallest that keeps the budget.

    Quality is measured on the target's validation rows, paired with the model as given. These rows helped to fit the
    final model, so the ratio is what counts, not the level. With ``measure_costs`` a point that is slower than
    the original here is rejected; ``about_machine`` describes the machine for the card. ``checkpoint``: a folder from
    which an interrupted search resumes.

    Raises BudgetError, with every point, if nothing that keeps the budget meets the target or the size or makes a sound
    bundle; ModelError for a folder of another search.
    """
    config = config or CompressConfig()
    if model.tables is not None or model.quantized_wide is not None:
        raise ModelError("the model was compressed already: give the one it was made from")
    if config.target is not None and measure_costs is None:
        raise BudgetError(
            "a latency target needs measured costs: use `tlrec-edge compress`, which measures them"
        )
    tasks = tasks or make_tasks(dataset, model.provenance.domains, model.provenance.fold)
    judge = Judge(model, dataset, tasks.choose, config.budget)
    cache = PruneCache(checkpoint, model, config.seed, config.recovery_steps)
    end = time.monotonic() + 60 * config.minutes
    variants = [_Variant(ORIGINAL, model, judge.retained(model), Cost(served_bytes(model)))]
    pruning_steps, storage_formats = search_space(model, config.only), STORAGE_FORMATS
    if np.isnan(
        variants[0].retained.ratio
    ):  # nothing can be proven, so only what is within half a step of every entry
        pruning_steps, storage_formats = (
            {ORIGINAL: pruning_steps[ORIGINAL]},
            {ROWS: STORAGE_FORMATS[ROWS]},
        )
    for name, prune in pruning_steps.items():
        if name != ORIGINAL and time.monotonic() > end:
            fault = f"not tried: {config.minutes:g} minutes are over"
            variants.append(
                _Variant(name, model, RetainedQuality(*4 * (math.nan,)), Cost(0), fault)
            )
            continue
        progress(name)
        smaller = cache.get_or_prune(
            name, partial(prune, model, dataset, tasks.final, config.recovery_steps, config.seed)
        )
        if name != ORIGINAL:
            variants.append(_judged(name, smaller, judge, config.budget))
            if variants[-1].fault:
                continue
        for storage_format, pack in storage_formats.items():
            label = storage_format if name == ORIGINAL else f"{name}, {storage_format}"
            variants.append(
                replace(
                    _judged(label, pack(smaller), judge, config.budget),
                    storage_format=storage_format,
                )
            )
    if measure_costs is not None:
        variants = _timed(variants, measure_costs, config, progress)
    return _choose(variants, judge, dataset, tasks, config, dict(about_machine or {}))


def _judged(name: str, model: EdgeModel, judge: Judge, budget: Budget) -> _Variant:
    retained = judge.retained(model)
    fault = None
    if np.isnan(retained.se) and not np.isnan(retained.ratio):
        fault = f"keeps {retained.ratio:.1%} of {budget.name}, from too few users to say how surely"
    elif retained.low < budget.share:
        fault = f"keeps {retained.ratio:.1%} of {budget.name}, at least {retained.low:.1%} (95 %), not {budget.share:.1%}"
    return _Variant(name, model, retained, Cost(served_bytes(model)), fault)


def _timed(
    variants: list[_Variant],
    measure_costs: CostMeasurement,
    config: CompressConfig,
    progress: Callable[[str], None],
) -> list[_Variant]:
    """Measure the smallest within the budget as bundles, and reject what is slower than the original here.

    A target says what is too slow by itself; of another machine nothing is known but the bytes.
    """
    sound = [variants[0]]
    for storage_format in ("", *STORAGE_FORMATS):
        of_format = (
            variant
            for variant in variants[1:]
            if variant.fault is None and variant.storage_format == storage_format
        )
        # The smallest need not be the fastest: where a latency is asked for, all are timed.
        sound += sorted(of_format, key=lambda variant: variant.cost.bytes)[
            : None if config.target else TIMED
        ]
    progress(f"latency of {len(sound)} bundles, interleaved")
    costs = dict(
        zip(
            (variant.name for variant in sound),
            measure_costs([variant.model for variant in sound]),
            strict=True,
        )
    )
    made = [variant for variant in sound if costs[variant.name].fault is None]
    # What every bundle holds beside tables, weights and encoder.
    rest = costs[made[0].name].bytes - made[0].cost.bytes if made else 0
    first = costs[ORIGINAL].us.get("p50", np.inf)
    timed = []
    for variant in variants:
        cost, fault = costs.get(variant.name), variant.fault
        if cost is None or cost.fault is not None:
            not_timed = f"keeps the budget, larger than {TIMED} of its kind that do: not timed"
            fault = fault or (not_timed if cost is None else cost.fault)
            cost = Cost(variant.cost.bytes and variant.cost.bytes + rest)
        if config.machine != "this":
            cost = Cost(cost.bytes)
        elif (
            fault is None and config.target is None and cost.us["p50"] > SLOWDOWN_TOLERANCE * first
        ):
            fault = f"{cost.us['p50'] / first:.2f}x slower than the original on this CPU"
        timed.append(replace(variant, cost=cost, fault=fault))
    return timed


def _choose(
    variants: list[_Variant],
    judge: Judge,
    dataset: Dataset,
    tasks: Tasks,
    config: CompressConfig,
    machine: dict[str, Any],
) -> Compression:
    sound = [variant for variant in variants if variant.fault is None]
    affordable = [variant for variant in sound if not _too_much(variant.cost, config)]
    best = min(
        affordable, key=lambda variant: (variant.cost.bytes, -variant.retained.ratio), default=None
    )
    points = _points(variants, best, config, bool(judge.rows))
    if best is None:
        raise BudgetError(
            _nothing_left(variants, sound, config), [point.to_json() for point in points]
        )
    test = Judge(variants[0].model, dataset, tasks.final, config.budget).retained(best.model)
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


def _nothing_left(variants: list[_Variant], sound: list[_Variant], config: CompressConfig) -> str:
    if not sound:
        return f"nothing is left: {variants[0].name}, {variants[0].fault}; of every other point the table says why"
    smallest = min(sound, key=lambda variant: variant.cost.bytes)
    faults = "; ".join(_too_much(smallest.cost, config))
    return (
        f"nothing that keeps {config.budget} is cheap enough: the smallest, {smallest.name}, {faults}; "
        "allow more, or a smaller share"
    )


def _points(
    variants: list[_Variant], best: _Variant | None, config: CompressConfig, judged: bool
) -> list[Point]:
    pareto_front, points = _pareto_front(variants), []
    for variant in variants:
        wrong = [variant.fault] if variant.fault else _too_much(variant.cost, config)
        why = "; ".join(wrong) or (
            "the smallest that keeps the budget" if variant is best else "keeps the budget, larger"
        )
        if not judged:
            why = f"not measured, no validation rows: {why}"
        size, us = variant.cost.bytes or None, variant.cost.us or None
        points.append(
            Point(
                variant.name,
                variant.retained,
                size,
                us,
                variant.name in pareto_front,
                variant is best,
                why,
            )
        )
    return points


def _too_much(cost: Cost, config: CompressConfig) -> list[str]:
    faults = []
    if config.max_bytes is not None and cost.bytes > config.max_bytes:
        faults.append(f"has {cost.bytes:,} bytes of at most {config.max_bytes:,}")
    if config.target is not None and cost.us[config.target.percentile] > config.target.us:
        faults.append(
            f"takes {cost.us[config.target.percentile]:.0f} us, the target is {config.target}"
        )
    return faults


def _pareto_front(variants: Sequence[_Variant]) -> set[str]:
    """Name the variants that no other beats in retained quality, bytes and latency at once."""
    tried = [variant for variant in variants if np.isfinite(variant.retained.ratio)]
    if any(variant.cost.us for variant in tried):  # what was not timed has estimated bytes
        tried = [variant for variant in tried if variant.cost.us]
    cost = np.array([(-t.retained.ratio, t.cost.bytes, t.cost.us.get("p50", 0.0)) for t in tried])
    names = set()
    for i, variant in enumerate(tried):
        others = np.delete(cost, i, 0)
        if not any((other <= cost[i]).all() and (other < cost[i]).any() for other in others):
            names.add(variant.name)
    return names


def served_bytes(model: EdgeModel) -> int:
    """Return the bytes of the arrays that scoring reads and of the graphs' weights, as a bundle stores them."""
    return int(
        sum(array.nbytes for array in stored_arrays(model).values()) + graph_bytes(model.net)
    )
