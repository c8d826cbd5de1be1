"""Choose the smallest acceptable variant, and make the final model in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tlrec_edge.core.cost import Cost
from tlrec_edge.core.progress import Progress
from tlrec_edge.train.edge_model import EdgeModel

from .config import CompressConfig
from .costs import CostMeasurement, served_bytes, too_slow
from .points import Variant, exceeded_limits
from .search_space import ORIGINAL
from .subject import Pruner

FINAL = "final model"
"""The step that does to the final model what was chosen."""


@dataclass(frozen=True)
class Choice:
    """The result of a search.

    Attributes:
        variant: what was chosen, as it was judged.
        model: the final model after the same steps.
        cost: what that model costs.
        original: what the final model costs before them.
    """

    variant: Variant
    model: EdgeModel
    cost: Cost
    original: Cost


def choose(
    variants: Sequence[Variant],
    pruner: Pruner,
    measure_costs: CostMeasurement | None,
    config: CompressConfig,
    progress: Progress,
) -> tuple[Choice | None, list[Variant]]:
    """Return the smallest variant that meets the limits, None if none does, and all variants.

    If the final model is another than the judged one, it must meet the limits too after the same
    steps. Variants whose final model does not are rejected in the list that is returned.
    """
    by_name = {variant.name: variant for variant in variants}
    affordable = [
        variant
        for variant in variants
        if variant.rejection is None and not exceeded_limits(variant.cost, config)
    ]
    for variant in sorted(affordable, key=lambda v: (v.cost.bytes, -v.retained.ratio)):
        if pruner.subject.final is pruner.subject.model:
            choice = Choice(variant, variant.model, variant.cost, variants[0].cost)
            return choice, list(variants)
        progress.begin(FINAL)
        progress.doing(variant.name)
        choice = _apply_to_final(variant, pruner, measure_costs, config)
        rejection = _rejection(choice, config)
        progress.end(f"{variant.name}{', rejected' if rejection else ''}")
        if rejection is None:
            return choice, list(by_name.values())
        reason = f"fitted with the validation rows, it {rejection}"
        by_name[variant.name] = replace(variant, rejection=reason)
    return None, list(by_name.values())


def _apply_to_final(
    variant: Variant,
    pruner: Pruner,
    measure_costs: CostMeasurement | None,
    config: CompressConfig,
) -> Choice:
    original = pruner.subject.final
    model = pruner.apply_to_final(variant.step, variant.storage_format)
    models = [original] if variant.name == ORIGINAL else [original, model]
    if measure_costs is None:
        costs = [Cost(served_bytes(model)) for model in models]
    else:
        costs = measure_costs(models)
    if config.machine != "this":
        costs = [replace(cost, us={}) for cost in costs]
    return Choice(variant, model, costs[-1], costs[0])


def _rejection(choice: Choice, config: CompressConfig) -> str | None:
    """Return why the final model is not acceptable, or None if it is."""
    if choice.cost.error is not None:
        return f"fails as a bundle: {choice.cost.error}"
    if limits := exceeded_limits(choice.cost, config):
        return " and ".join(limits)
    if not choice.cost.us or config.target is not None:
        return None
    return too_slow(choice.cost, choice.original.us.get("p50", np.inf))
