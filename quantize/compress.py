"""Compress a model step by step, measure every step on the validation rows, and say what was kept and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tlrec_edge.quantize.prune import prune_feed_forward
from tlrec_edge.quantize.tables import quantize_tables

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task, Tasks, make_tasks
from tlrec_edge.metrics import METRICS, clustered, measured
from tlrec_edge.train.artifact import EdgeModel
from tlrec_edge.train.ranking import rank_rows, sample_rows
from tlrec_edge.train.stored import stored_arrays


@dataclass(frozen=True)
class CompressConfig:
    """``budget``: the least share of NDCG@10 a step may leave; ``keep``: share of feed-forward units that stay."""

    budget: float = 0.995
    keep: float = 0.5
    recovery_steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise ValueError(f"budget must lie in (0, 1], not {self.budget}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must lie in (0, 1], not {self.keep}")


@dataclass(frozen=True)
class Step:
    """What one step did: NDCG@10 on validation, its ratio to the uncompressed model with paired SE, bytes as served."""

    name: str
    ndcg: float
    ratio: float
    se: float
    bytes: int
    kept: bool
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data; a figure that could not be measured is None."""
        named = {"step": self.name, "ndcg@10": self.ndcg}
        data = named | {k: v for k, v in asdict(self).items() if k not in ("name", "ndcg")}
        return measured(data)


@dataclass(frozen=True)
class Compression:
    model: EdgeModel
    steps: tuple[Step, ...]


def compress(
    model: EdgeModel, dataset: Dataset, config: CompressConfig | None = None,
    say: Callable[[str], None] | None = None, tasks: Tasks | None = None,
) -> Compression:  # fmt: skip
    """Prune the feed-forward width, then quantize the tables; a step outside the budget is left out.

    Quality is measured on the target's validation rows, paired with the uncompressed model; the rows of a user count
    as one draw in the standard error. The final model has learned from these rows, so the ratio is what counts, not
    the level.
    """
    config = config or CompressConfig()
    tasks = tasks or make_tasks(dataset, tuple(model.about["domains"]), model.about.get("fold"))
    asked = sample_rows(tasks.choose)
    steps = [Step("as given", *_quality(model, model, dataset, asked), served_bytes(model), True, "reference")]
    reference, now = model, model
    width = model.net.config.feed_forward
    trials: list[tuple[str, Callable[[EdgeModel], EdgeModel]]] = [
        (
            f"feed-forward {width} -> {max(1, round(width * config.keep))}",
            lambda m: prune_feed_forward(m, dataset, tasks.final, config.keep, config.recovery_steps, config.seed),
        ),
        ("int8 rows", quantize_tables),
    ]
    for name, step in trials:
        if say:
            say(name)
        if not name.startswith("int8") and model.mix.deep == 0.0:
            steps.append(
                Step(
                    name,
                    steps[-1].ndcg,
                    1.0,
                    0.0,
                    served_bytes(now),
                    False,
                    "the deep part has no weight: nothing to gain",
                )
            )
            continue
        trial = step(now)
        ndcg, ratio, se = _quality(trial, reference, dataset, asked)
        fits = not len(asked.rows) or ratio >= config.budget
        why = "within the budget" if fits else f"keeps {ratio:.1%} of NDCG@10, the budget is {config.budget:.1%}"
        if not len(asked.rows):
            why = "not measured: the target has no validation rows"
        steps.append(Step(name, ndcg, ratio, se, served_bytes(trial), fits, why))
        now = trial if fits else now
    return Compression(now.with_about(compression=[step.to_json() for step in steps]), tuple(steps))


def served_bytes(model: EdgeModel) -> int:
    """Return the bytes of the arrays that scoring reads, as a bundle stores them, and of the encoder."""
    arrays = sum(array.nbytes for array in stored_arrays(model).values())
    encoder = sum(p.numel() * 4 for p in model.net.encoder.parameters())
    return int(arrays + encoder)


def _quality(model: EdgeModel, reference: EdgeModel, dataset: Dataset, asked: Task) -> tuple[float, float, float]:
    """Return NDCG@10, its ratio to the reference and the ratio's standard error."""
    if not len(asked.rows):
        return float("nan"), 1.0, float("nan")
    values = METRICS["ndcg"](rank_rows(model.scorer(dataset, asked), asked).rank, 10)
    base = METRICS["ndcg"](rank_rows(reference.scorer(dataset, asked), asked).rank, 10)
    mean = base.mean()
    if mean == 0.0:
        return float(values.mean()), 1.0, float("nan")
    ratio = float(values.mean() / mean)
    se = clustered(np.asarray(values - ratio * base), asked.rows.user).se / mean
    return float(values.mean()), ratio, float(se)
