"""Evaluate a model or a bundle next to its baselines, with what to know about the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tlrec_edge.core.counts import counted
from tlrec_edge.core.metrics import nan_to_none
from tlrec_edge.core.progress import Reporter
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.evaluation.compared import ComparedModel
from tlrec_edge.evaluation.evaluate import baseline_rankers, evaluate
from tlrec_edge.evaluation.leaks import leak_notes
from tlrec_edge.evaluation.result import Evaluation
from tlrec_edge.linear.tuning import EaseHyperparameters


@dataclass(frozen=True)
class ModelEvaluation:
    """The evaluation of a model, called "model", and of its baselines.

    Attributes:
        result: the ranks of the test rows under each of them.
        choices: what the tuned baselines chose on validation rows, by baseline.
        dropped: test rows that are not evaluated, by reason.
        notes: what to know about the figures.
    """

    result: Evaluation
    choices: Mapping[str, Any]
    dropped: Mapping[str, int]
    notes: tuple[str, ...]

    def to_json(self, ks: Sequence[int] = (10,)) -> dict[str, Any]:
        """Return the report as plain data, with metrics at the cut-offs ``ks`` and at 10."""
        report = self.result.to_json(tuple(ks) if 10 in ks else (10, *ks))
        choices = {name: nan_to_none(asdict(choice)) for name, choice in self.choices.items()}
        notes = [*report["notes"], *self.notes]
        return report | {"dropped": dict(self.dropped), "choices": choices, "notes": notes}

    def __repr__(self) -> str:
        """Return NDCG@10 of every model with its standard error, as a table."""
        rows = self.result.rows()
        width = max(len(row["name"]) for row in rows)
        tests = counted(self.result.tests, "test row")
        size = f"{tests} of {counted(self.result.users, 'user')}"
        head = f"NDCG@10 (SE) on {', '.join(self.result.domains)}, {size}"
        lines = (
            f"  {row['name']:{width}}  {row['ndcg@10']:.4f} ({row['ndcg@10.se'] or 0:.4f})"
            for row in rows
        )
        return "\n".join((head, *lines))


def evaluate_model(
    compared: ComparedModel,
    dataset: Dataset,
    domains: tuple[str, ...],
    *,
    fold: int | None = None,
    target_only: bool = True,
    ease_penalties: Sequence[float] = (),
    progress: Reporter | None = None,
) -> ModelEvaluation:
    """Rank the test rows by a model and by its baselines.

    Args:
        compared: the model.
        dataset: the dataset, with its split.
        domains: the target.
        fold: the fold of users of a new-users split. None: that of the model.
        target_only: whether to train the same model on the target alone.
        ease_penalties: penalties to evaluate EASE with, besides the tuned one.
        progress: follows the models, one after the other; a function receives lines of text.

    Raises:
        LeakError: if the model was trained on test rows, or on later ones.
        DataError: if the target has no test rows.
    """
    made = compared.provenance
    target_config = made.train if target_only and made.mode != "scratch" else None
    rankers = baseline_rankers(target_config, dataset, ease_penalties)
    baselines = dict(rankers)
    tasks = make_tasks(dataset, domains, made.fold if fold is None else fold)
    # The model first: one of another domain is refused before the baselines are fitted.
    ranked = compared.ranker(dataset)(tasks)
    rankers["model"] = lambda _: ranked
    result = evaluate(dataset, domains, rankers, progress=progress, tasks=tasks)
    if not made.source:
        result = replace(result, no_source=frozenset({"model"}))
    chosen = {name: getattr(ranker, "choice", None) for name, ranker in baselines.items()}
    choices = {name: choice for name, choice in chosen.items() if choice is not None}
    edges = (
        f"{name}: penalty {choice.penalty:g} is at the edge of its grid"
        for name, choice in choices.items()
        if isinstance(choice, EaseHyperparameters) and choice.at_grid_edge
    )
    notes = (*_note_on_unknown(compared, dataset), *leak_notes(dataset, tasks, made), *edges)
    return ModelEvaluation(result, choices, dict(tasks.final.dropped), notes)


def _note_on_unknown(compared: ComparedModel, dataset: Dataset) -> list[str]:
    """Say how many items of given test rows the model does not know."""
    rows = dataset.split.rows
    if rows is None:
        return []
    named = np.unique(np.concatenate([rows.item, rows.negatives.ravel()]))
    ids = [dataset.items[row] for row in named if row >= 0]
    n_unknown = int((~compared.knows(ids)).sum())
    if not n_unknown:
        return []
    counts = f"{n_unknown:,} of {len(ids):,} candidates"
    return [f"{counts} are unknown to the model: they are scored as the least popular one"]
