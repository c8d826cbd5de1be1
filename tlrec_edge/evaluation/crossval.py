"""Users new to the target, all of them: adapt and evaluate on every fold, side by side, and pool the questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlrec_edge.core.parallel import parallel_map
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import load_dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import DataError, ModelError
from tlrec_edge.evaluation.evaluate import (
    Evaluation,
    baseline_rankers,
    evaluate,
    model_ranker,
    pool,
)
from tlrec_edge.train.adapt import adapt, check_source
from tlrec_edge.train.auto import adapt_auto
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.modes import MODES


@dataclass(frozen=True)
class CrossvalPlan:
    """What is done on every fold; ``dataset`` and ``source`` are folders, ``modes`` those of adapt, or auto."""

    dataset: Path
    domains: tuple[str, ...]
    modes: tuple[str, ...]
    source: Path | None
    config: TrainConfig

    @property
    def names(self) -> dict[str, str]:
        """Name in the tables -> mode: ``scratch`` is the fair target-only model that stands there anyway."""
        return {"target-only" if mode == "scratch" else mode: mode for mode in self.modes}


@dataclass(frozen=True)
class Crossval:
    """The folds' questions under each other, the held-out rows that are none by reason, and the mode each fold took."""

    evaluation: Evaluation
    dropped: Mapping[str, int]
    chosen_modes: tuple[Mapping[str, str], ...]
    names: tuple[str, ...]

    def to_json(self, ks: tuple[int, ...] = (10,)) -> dict[str, Any]:
        """Return the pooled report, slices by the first mode; lifts of several modes have the mode in their name."""
        report = self.evaluation.to_json(ks, self.names[0])
        for name in self.names[1:]:
            other = self.evaluation.to_json(ks, name)
            report["lift"] |= {
                f"{key}: {name}": lift for key, lift in other["lift"].items() if key != "pooling"
            }
            report["notes"] += [note for note in other["notes"] if note not in report["notes"]]
        return {
            **report,
            "folds": [dict(fold) for fold in self.chosen_modes],
            "dropped": dict(self.dropped),
        }


def crossval(
    plan: CrossvalPlan, dataset: Dataset, progress: Callable[[str], None] = lambda line: None
) -> Crossval:
    """Adapt with every mode on every fold and rank its users beside the baselines, in a process each.

    ``dataset`` is what ``plan.dataset`` holds. Raises DataError where its split has no folds, ModelError for a mode
    that needs a source and has none.
    """
    check_crossval(plan, dataset)
    folds = dataset.split.folds
    done = []
    for at, result in enumerate(parallel_map(_fold, [(plan, fold) for fold in range(folds)])):
        progress(f"fold {at + 1} of {folds} done")
        done.append(result)
    dropped = Counter[str]()
    for _, left_out, _ in done:
        dropped.update(left_out)
    evaluation = pool([evaluation for evaluation, _, _ in done])
    return Crossval(
        evaluation, dropped, tuple(chosen_modes for *_, chosen_modes in done), tuple(plan.names)
    )


def check_crossval(plan: CrossvalPlan, dataset: Dataset) -> None:
    """Refuse before any work what would fail on every fold."""
    if dataset.split.folds < 2:
        raise DataError(
            f"the split '{dataset.split.kind}' has no folds of users: prepare with --split new-users"
        )
    source_modes = [
        mode for mode in plan.modes if mode in MODES and mode not in ("scratch", "joint")
    ]
    if source_modes and plan.source is None:
        raise ModelError(f"mode {source_modes[0]} starts from a source model: give one with --from")
    if plan.source is not None:
        check_source(EdgeModel.load(plan.source), dataset, plan.domains)


def _fold(job: tuple[CrossvalPlan, int]) -> tuple[Evaluation, Mapping[str, int], Mapping[str, str]]:
    plan, fold = job
    data = load_dataset(plan.dataset)
    source = EdgeModel.load(plan.source) if plan.source is not None else None
    tasks = make_tasks(data, plan.domains, fold)
    models = {}
    for name, mode in plan.names.items():
        if mode == "auto":
            models[name], _ = adapt_auto(data, plan.domains, source, plan.config, fold, tasks=tasks)
        else:
            models[name] = adapt(data, plan.domains, mode, source, plan.config, fold, tasks=tasks)
    rankers = baseline_rankers(None if "target-only" in models else plan.config, data)
    rankers |= {name: model_ranker(model, data) for name, model in models.items()}
    chosen_modes = {name: str(model.provenance.way) for name, model in models.items()}
    return evaluate(data, plan.domains, rankers, tasks=tasks), tasks.final.dropped, chosen_modes
