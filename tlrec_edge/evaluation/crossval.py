"""Cross-validation over users new to the target: adapt and evaluate on every fold, then pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tlrec_edge.choices import AUTO, MODES
from tlrec_edge.core.parallel import parallel_map
from tlrec_edge.core.progress import JOBS, Progress, Reporter, Step
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import load_dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import DataError, ModelError
from tlrec_edge.evaluation.evaluate import baseline_rankers, evaluate, model_ranker
from tlrec_edge.evaluation.result import Evaluation, pool
from tlrec_edge.train.adapt import adapt, check_source
from tlrec_edge.train.auto import adapt_auto
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel


@dataclass(frozen=True)
class CrossvalConfig:
    """What to do on every fold.

    Attributes:
        dataset: the folder of the dataset.
        domains: the target.
        modes: the transfer modes to compare, those of ``adapt`` or "auto".
        source: the folder of the source model; None if no mode needs one.
        train: how to train.
    """

    dataset: Path
    domains: tuple[str, ...]
    modes: tuple[str, ...]
    source: Path | None
    train: TrainConfig

    @property
    def names(self) -> dict[str, str]:
        """Mode by name in the tables; ``scratch`` is the target-only model of every comparison."""
        return {"target-only" if mode == "scratch" else mode: mode for mode in self.modes}


@dataclass(frozen=True)
class Crossval:
    """The result of a cross-validation.

    Attributes:
        evaluation: the test rows of all folds.
        dropped: the number of held-out rows that are not tested, by reason.
        chosen_modes: for each fold, the mode of each model.
        names: the compared models; slices are of the first.
    """

    evaluation: Evaluation
    dropped: Mapping[str, int]
    chosen_modes: tuple[Mapping[str, str], ...]
    names: tuple[str, ...]

    def to_json(self, ks: tuple[int, ...] = (10,)) -> dict[str, Any]:
        """Return the pooled report; keys of lifts name the model if it is not the first."""
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


class _FoldResult(NamedTuple):
    evaluation: Evaluation
    dropped: Mapping[str, int]
    chosen_modes: Mapping[str, str]


def crossval(
    config: CrossvalConfig, dataset: Dataset, progress: Reporter | None = None
) -> Crossval:
    """Adapt with every mode on every fold and rank its users next to the baselines.

    Folds run in parallel processes; ``dataset`` is the one in ``config.dataset``. Raises DataError
    if its split has no folds, ModelError if a mode needs a source model and none is given.
    """
    check_crossval(config, dataset)
    n_folds = dataset.split.folds
    jobs = [(config, fold) for fold in range(n_folds)]
    follow, names = Progress.of(progress), [f"fold {fold}" for fold in range(n_folds)]
    follow.plan(Step("folds", work={JOBS: float(n_folds)}))
    results = list(follow.each("folds", parallel_map(_run_fold, jobs), names))
    dropped = Counter[str]()
    for result in results:
        dropped.update(result.dropped)
    return Crossval(
        pool([result.evaluation for result in results]),
        dropped,
        tuple(result.chosen_modes for result in results),
        tuple(config.names),
    )


def check_crossval(config: CrossvalConfig, dataset: Dataset) -> None:
    """Raise the errors of ``crossval`` before any work."""
    if dataset.split.folds < 2:
        raise DataError(
            f"the split '{dataset.split.kind}' has no folds of users: "
            "prepare with --split new-users"
        )
    source_modes = [
        mode for mode in config.modes if mode in MODES and mode not in ("scratch", "joint")
    ]
    if source_modes and config.source is None:
        raise ModelError(f"mode {source_modes[0]} starts from a source model: give one with --from")
    if config.source is not None:
        check_source(EdgeModel.load(config.source), dataset, config.domains)


def _run_fold(job: tuple[CrossvalConfig, int]) -> _FoldResult:
    config, fold = job
    dataset, domains, train = load_dataset(config.dataset), config.domains, config.train
    source = EdgeModel.load(config.source) if config.source is not None else None
    tasks = make_tasks(dataset, domains, fold)
    models = {}
    for name, mode in config.names.items():
        if mode == AUTO:
            models[name], _ = adapt_auto(dataset, domains, source, train, fold, tasks=tasks)
        else:
            models[name] = adapt(dataset, domains, mode, source, train, fold, tasks=tasks)
    rankers = baseline_rankers(None if "target-only" in models else train, dataset)
    rankers |= {name: model_ranker(model, dataset) for name, model in models.items()}
    evaluation = evaluate(dataset, domains, rankers, tasks=tasks)
    chosen_modes = {name: str(model.provenance.way) for name, model in models.items()}
    return _FoldResult(evaluation, tasks.final.dropped, chosen_modes)
