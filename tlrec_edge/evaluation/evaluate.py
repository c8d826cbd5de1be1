"""Evaluate models next to their baselines on the same test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

from tlrec_edge.core.progress import Progress, Reporter, Step
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import dataset_hash
from tlrec_edge.data.task import Tasks, make_tasks
from tlrec_edge.errors import DataError, ModelError
from tlrec_edge.evaluation.leaks import check_model, check_tasks
from tlrec_edge.evaluation.result import Catalogue, Evaluation
from tlrec_edge.evaluation.slices import slice_rows
from tlrec_edge.linear.baselines import ease_scorer, simple_rankers
from tlrec_edge.linear.priors import popularity
from tlrec_edge.linear.ranking import Ranking, Scorer, rank_full
from tlrec_edge.linear.tuned import Ranker, rank_once
from tlrec_edge.linear.tuning import EaseHyperparameters
from tlrec_edge.train.adapt import adapt
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.plan import visible_task


def baseline_rankers(
    config: TrainConfig | None,
    dataset: Dataset,
    penalties: Sequence[float] = (),
    decay: bool = True,
) -> dict[str, Ranker]:
    """Return the rankers of the baselines by name.

    Args:
        config: settings of the target-only model, the fair baseline of transfer; None leaves it
            out.
        dataset: the dataset whose tasks will be ranked.
        penalties: ridge penalties of further EASE baselines.
        decay: whether to rank EASE with a decaying popularity, if the dataset has dates.
    """

    rankers = simple_rankers(dataset)
    if not decay:
        rankers.pop("ease-fading", None)
    for penalty in penalties:
        name, hyperparameters = f"ease({penalty:g})", EaseHyperparameters(penalty, 0.0)
        rankers[name] = partial(_rank_ease, name=name, hyperparameters=hyperparameters)
    if config is not None:
        rankers["target-only"] = lambda tasks: _rank_target_only(tasks, dataset, config)
    return rankers


def _rank_ease(tasks: Tasks, name: str, hyperparameters: EaseHyperparameters) -> Ranking:
    return rank_once(tasks.final, name, lambda: ease_scorer(tasks.final, hyperparameters))


def _rank_target_only(tasks: Tasks, dataset: Dataset, config: TrainConfig) -> Ranking:
    task = visible_task(tasks.final, "scratch")

    def fit() -> Scorer:
        model = adapt(dataset, tasks.final.domains, "scratch", None, config, tasks=tasks)
        return model.scorer(dataset, task)

    inputs = dataset_hash(dataset), tasks.choose.digest, asdict(config)
    return rank_once(task, "target-only", fit, *inputs)


def model_ranker(model: EdgeModel, dataset: Dataset) -> Ranker:
    """Return a model's ranker; it raises LeakError if the model was trained on the test rows.

    Candidates that only given test rows name, and that the model does not know, are scored by
    popularity.
    """
    made = model.provenance
    unknown = "error" if dataset.split.rows is None else "popularity"

    def rank(tasks: Tasks) -> Ranking:
        if made.domains != tasks.final.domains:
            raise ModelError(
                f"the model was adapted to {', '.join(made.domains)}, "
                f"not to {', '.join(tasks.final.domains)}: adapt a model to that domain"
            )
        task = visible_task(tasks.final, made.mode)
        scorer = model.scorer(dataset, task, unknown)
        check_model(dataset, tasks, made)
        return rank_full(scorer, task)

    return rank


def evaluate(
    dataset: Dataset,
    domains: tuple[str, ...],
    rankers: Mapping[str, Ranker],
    fold: int | None = None,
    progress: Reporter | None = None,
    tasks: Tasks | None = None,
) -> Evaluation:
    """Rank the test rows of a target with every model.

    Args:
        dataset: the prepared dataset.
        domains: the target.
        rankers: what to compare, by name: ``baseline_rankers`` and ``model_ranker``.
        fold: the fold of a split by new users. None: all users keep their history.
        progress: follows the models, one after the other.
        tasks: the validation and test rows. None: made from ``domains`` and ``fold``.

    Returns:
        The ranks of every model on the same rows, with metrics, lifts and slices.

    Raises:
        DataError: if the split has no test rows in the target.
        LeakError: if held-out rows are among the training rows, or a model was trained on them.
    """
    tasks = tasks or make_tasks(dataset, domains, fold)
    if not len(tasks.final.rows):
        raise DataError(
            f"the split '{dataset.split.kind}' leaves no test rows in {', '.join(domains)}: "
            "prepare with another --split, or give --candidates"
        )
    check_tasks(dataset, tasks)
    rankings = {}
    follow = Progress.of(progress)
    follow.plan(*(Step(name) for name in rankers))
    for name, ranker in rankers.items():
        follow.begin(name)
        rankings[name] = ranker(tasks)
        follow.end()
    final = tasks.final
    catalogue = Catalogue(final.candidates, popularity(final))
    return Evaluation(domains, rankings, slices=slice_rows(dataset, final), catalogue=catalogue)
