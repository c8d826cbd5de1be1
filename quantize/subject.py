"""What a search compresses and judges: the model as it was before it learned validation rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task, Tasks
from tlrec_edge.train.edge_model import EdgeModel

from .config import CompressConfig
from .prune_cache import PruneCache
from .search_space import ORIGINAL, STORAGE_FORMATS, PruningStep

NOT_LEARNED = "judged on validation rows that the judged model has not learned"
LEARNED = "judged on rows that the model has learned: the figures are too good"
NOT_JUDGED = "not judged: there are no validation rows"


@dataclass(frozen=True)
class Subject:
    """The model that a search compresses and judges, and the one that its result is made from.

    Attributes:
        model: the model to judge, before it was fitted again with the validation rows.
        task: the task whose training rows its pruned models recover on.
        final: the model that the chosen steps are applied to; the same if there was no refit, or
            if the model from before it is not known.
        final_task: the task whose training rows the pruned final model recovers on.
        judged_on: which of the cases above it is, in a sentence for the card.
    """

    model: EdgeModel
    task: Task
    final: EdgeModel
    final_task: Task
    judged_on: str

    @classmethod
    def of(cls, model: EdgeModel, tasks: Tasks) -> Subject:
        """Return what to judge of a model."""
        if not len(tasks.choose.rows):
            return cls(model, tasks.final, model, tasks.final, NOT_JUDGED)
        if model.before_refit is not None:
            return cls(model.before_refit, tasks.choose, model, tasks.final, NOT_LEARNED)
        # A zero-shot model learns nothing from the target's rows.
        learned = tasks.final_learns_validation and model.provenance.mode != "zero-shot"
        judged_on = LEARNED if learned else NOT_LEARNED
        return cls(model, tasks.final, model, tasks.final, judged_on)


@dataclass(frozen=True)
class Pruner:
    """Applies pruning steps to the two models of a subject, or loads what an earlier search made.

    Attributes:
        subject: the models.
        dataset: the dataset that they were adapted to.
        steps: pruning steps by name.
        config: the effort of the search.
        cache: the models that were pruned before.
    """

    subject: Subject
    dataset: Dataset
    steps: Mapping[str, PruningStep]
    config: CompressConfig
    cache: PruneCache

    def prune(self, step: str) -> EdgeModel:
        """Return the model to judge after a pruning step."""
        return self._pruned(step, step, self.subject.model, self.subject.task)

    def apply_to_final(self, step: str, storage_format: str) -> EdgeModel:
        """Return the final model after a pruning step, in a storage format; "" is float32."""
        pruned = self._pruned(f"final, {step}", step, self.subject.final, self.subject.final_task)
        return STORAGE_FORMATS[storage_format](pruned) if storage_format else pruned

    def _pruned(self, name: str, step: str, model: EdgeModel, task: Task) -> EdgeModel:
        if step == ORIGINAL:
            return model
        effort, seed = self.config.recovery_steps, self.config.seed
        return self.cache.get_or_prune(
            name, lambda: self.steps[step](model, self.dataset, task, effort, seed)
        )
