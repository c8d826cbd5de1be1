"""Search for the smallest model that keeps its ranking, and say why others are rejected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge.core.cost import Cost
from tlrec_edge.core.counts import counted
from tlrec_edge.core.metrics import nan_to_none
from tlrec_edge.core.progress import Progress, Reporter, Step
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Tasks, make_tasks
from tlrec_edge.errors import BudgetError, ModelError
from tlrec_edge.train.edge_model import EdgeModel

from .budget import Budget
from .choice import FINAL, Choice, choose
from .config import CompressConfig
from .costs import CostMeasurement, served_bytes, too_slow
from .points import Point, Variant, exceeded_limits, make_points
from .prune_cache import PruneCache
from .retained_quality import UNKNOWN_QUALITY, Judge, RetainedQuality
from .search_space import ORIGINAL, ROWS, STORAGE_FORMATS, search_space
from .subject import LEARNED, Pruner, Subject

TIMING, TEST_ROWS = "latency", "test rows"
"""Names of steps; the others are those of the search space, and ``FINAL``."""
PRUNING, STORING = "pruning", "storing"
"""Kinds of work, besides ``TIMING``."""
TIMED_PER_FORMAT = 2
"""Timing is slow: of each storage format only the smallest that keep the budget are timed."""


@dataclass(frozen=True)
class Compression:
    """The result of a search.

    Attributes:
        model: the chosen model; its provenance holds the table and the test figures.
        points: every model of the search.
        judged_on: whether the judged model had learned the validation rows, in a sentence.
        test: the quality that the chosen model retains on the test rows, read once, after the
            choice.
    """

    model: EdgeModel
    points: tuple[Point, ...]
    judged_on: str
    test: RetainedQuality


def compress(
    model: EdgeModel,
    dataset: Dataset,
    config: CompressConfig | None = None,
    progress: Reporter | None = None,
    tasks: Tasks | None = None,
    measure_costs: CostMeasurement | None = None,
    checkpoint: Path | None = None,
    about_machine: Mapping[str, Any] | None = None,
) -> Compression:
    """Prune and quantize a model, and return the smallest one that keeps the quality budget.

    Quality is compared with the original model's, row by row, on the target's validation rows. The
    final model was fitted on these rows too. So the search compresses and judges the model as it
    was before (``EdgeModel.before_refit``), and what it chooses is then done to the final model. If
    the model from before is not known, the final model is judged, and the result says so.

    Args:
        model: the target model to compress; it must not be compressed already.
        dataset: the dataset that the model was adapted to.
        config: limits and effort of the search. None: the defaults of ``CompressConfig``.
        progress: follows the steps; a function receives lines of text.
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
    subject = Subject.of(model, tasks)
    judge = Judge(subject.model, dataset, tasks.choose, config.budget)
    cache = PruneCache(checkpoint, model, config.seed, config.recovery_steps)
    pruner = Pruner(subject, dataset, steps, config, cache)
    follow = Progress.of(progress, config.minutes)
    follow.plan(*_plan(pruner, is_timed=measure_costs is not None))
    variants = list(_search(pruner, judge, follow))
    if measure_costs is not None:
        variants = _with_costs(variants, measure_costs, config, follow)
    choice, variants = choose(variants, pruner, measure_costs, config, follow)
    best = choice.variant if choice else None
    points = make_points(variants, best, config, judged=bool(judge.rows))
    if choice is None:
        table = [point.to_json() for point in points]
        raise BudgetError(_nothing_acceptable(variants, subject, config), table)
    follow.begin(TEST_ROWS)
    test = Judge(subject.final, dataset, tasks.final, config.budget).retained(choice.model)
    follow.end()
    card = {
        "machine": dict(about_machine or {}),
        "judged_on": subject.judged_on,
        "test": nan_to_none(asdict(test)),
        "points": [point.to_json() for point in points],
        "left_out": list(follow.left_out),
        **_choice_card(choice, config),
    }
    compressed = choice.model.with_provenance(compression=card)
    return Compression(compressed, tuple(points), subject.judged_on, test)


def _choice_card(choice: Choice, config: CompressConfig) -> dict[str, Any]:
    """Return what was chosen under which limits, and what it costs compared with the original."""
    return {
        "budget": str(config.budget),
        "target": str(config.target) if config.target else None,
        "for": config.machine,
        "chosen": choice.variant.name,
        "bytes": choice.cost.bytes,
        "us": dict(choice.cost.us) or None,
        "original_bytes": choice.original.bytes,
        "original_us": dict(choice.original.us) or None,
    }


def _plan(pruner: Pruner, is_timed: bool) -> Iterator[Step]:
    """Yield the steps of a search."""
    timing = {TIMING: 1.0} if is_timed else {}
    for name in pruner.steps:
        yield Step(name, work=_work_of(name))
    if is_timed:
        yield Step(TIMING, work=timing)
    if pruner.subject.final is not pruner.subject.model:
        yield Step(FINAL, work={PRUNING: 10.0, **timing})
    yield Step(TEST_ROWS, work={STORING: 2.0})


def _work_of(name: str) -> dict[str, float]:
    """Return the rough seconds of a pruning step and of the ways to store its model."""
    return {STORING: 3.0} if name == ORIGINAL else {PRUNING: 10.0, STORING: 3.0}


def _search(pruner: Pruner, judge: Judge, progress: Progress) -> Iterator[Variant]:
    """Yield the original, then each pruned model and the ways to store it."""
    model, config = pruner.subject.model, pruner.config
    progress.begin(ORIGINAL)
    progress.doing("quality on the validation rows")
    original = Variant(ORIGINAL, model, judge.retained(model), Cost(served_bytes(model)))
    yield original
    names, formats = list(pruner.steps), STORAGE_FORMATS
    if np.isnan(original.retained.ratio):
        # Without validation rows no loss can be ruled out, so only int8 rows are safe enough: each
        # entry moves by at most half a step of its row's scale.
        names, formats = [ORIGINAL], {ROWS: STORAGE_FORMATS[ROWS]}
    for name in names:
        if name != ORIGINAL:
            if not progress.fits({**_work_of(name), TIMING: 1.0}, repeated=True):
                progress.leave_out(name)
                reason = f"not tried: no time within the {config.minutes:g} minutes"
                yield Variant(name, model, UNKNOWN_QUALITY, Cost(0), reason)
                continue
            progress.begin(name)
            progress.doing("pruning and recovery", PRUNING)
        pruned = pruner.prune(name)
        if name != ORIGINAL:
            progress.doing("quality on the validation rows")
            variant = _judged(name, pruned, judge, config.budget)
            yield replace(variant, step=name)
            if variant.rejection:
                progress.end(f"retains {variant.retained.ratio:.1%}, rejected", repeated=True)
                continue
        for number, (storage_format, store) in enumerate(formats.items(), 1):
            progress.doing(f"stored as {storage_format}", STORING, number, len(formats))
            label = storage_format if name == ORIGINAL else f"{name}, {storage_format}"
            variant = _judged(label, store(pruned), judge, config.budget)
            yield replace(variant, storage_format=storage_format, step=name)
        ratio = f"retains {variant.retained.ratio:.1%} as {storage_format}"
        progress.end(ratio, repeated=name != ORIGINAL)


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
    progress: Progress,
) -> list[Variant]:
    """Measure the most promising variants as bundles, and reject those slower than the original.

    A latency target replaces that rule. For another machine only the bytes are known.
    """
    measured = _variants_to_measure(variants, every=config.target is not None)
    progress.begin(TIMING)
    progress.doing(f"{len(measured)} bundles, interleaved", TIMING)
    measurements = measure_costs([variant.model for variant in measured])
    progress.end(counted(len(measured), "bundle"))
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
            rejection = too_slow(cost, original_p50)
        result.append(replace(variant, cost=cost, rejection=rejection))
    return result


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


def _nothing_acceptable(
    variants: Sequence[Variant], subject: Subject, config: CompressConfig
) -> str:
    note = f"; {LEARNED}" if subject.judged_on == LEARNED else ""
    acceptable = [variant for variant in variants if variant.rejection is None]
    if not acceptable:
        return (
            f"no model is acceptable: the original is rejected ({variants[0].rejection}); "
            f"see the table for the others{note}"
        )
    smallest = min(acceptable, key=lambda variant: variant.cost.bytes)
    exceeded = " and ".join(exceeded_limits(smallest.cost, config))
    return (
        f"no model that keeps {config.budget} meets the limits: the smallest ({smallest.name}) "
        f"{exceeded}; raise the limit or lower the budget{note}"
    )
