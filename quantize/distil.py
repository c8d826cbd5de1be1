"""Distillation (arXiv 1503.02531): fit a smaller encoder to a larger one's scores."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tlrec_edge.core.features import TowerInputs
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.errors import ModelError
from tlrec_edge.train.augment import HistoryBatch
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.examples import gather_histories
from tlrec_edge.train.fit import one_thread
from tlrec_edge.train.model import AGE_BUCKETS, FastEncoder, ModelConfig, TwoTower
from tlrec_edge.train.user_histories import UserHistories

BATCH = 256
VALIDATION_BATCHES = 8
"""Batches, not trained on, that decide whether distillation has brought the scores closer."""


class Histories:
    """Histories of a task's training rows, truncated at random positions.

    Raises ModelError if no user has one.
    """

    def __init__(self, model: EdgeModel, dataset: Dataset, task: Task, seed: int) -> None:
        self.user_histories = UserHistories.of(
            task.train, model.rows(dataset), task.n_users, len(model.ids)
        )
        self.users = np.flatnonzero(np.diff(self.user_histories.start) > 0)
        if not len(self.users):
            raise ModelError(
                "an encoder can't be fitted: "
                "no user of this task has a history of items that the model knows"
            )
        self.rng = np.random.default_rng(seed)

    def draw(self, length: int) -> HistoryBatch:
        """Return BATCH histories of the model's item rows, (BATCH, length)."""
        histories = self.user_histories
        user = self.rng.choice(self.users, BATCH)
        start, end = histories.start[user], histories.start[user + 1]
        n_items = 1 + np.floor(self.rng.random(BATCH) * (end - start)).astype(np.int64)
        return gather_histories(
            histories.log, start, start + n_items, histories.rows, length, AGE_BUCKETS
        )


def encode(model: EdgeModel, batch: HistoryBatch) -> Tensor:
    """Return user vectors (batch, d) from the last positions, up to the model's history length."""
    item, *rest = (part[:, -model.net.config.history :] for part in batch)
    vectors = torch.from_numpy(model.history_vectors[item])
    return model.net.encode(vectors, *map(torch.from_numpy, rest))


@dataclass(frozen=True)
class ScoreLoss:
    """The squared error of a student's scores, as a share of the variance of the teacher's.

    Each user's scores are centred first: rankings do not depend on their mean. Expanding the
    squared error leaves only products of the centred candidate tables, so the loss is exact over
    all candidates and costs the same for ten of them as for a million.

    Attributes:
        student: the covariance of the student's candidate vectors, (k, k).
        cross: the covariance between the student's and the teacher's, (k, d).
        teacher: the covariance of the teacher's, (d, d).
    """

    student: Tensor
    cross: Tensor
    teacher: Tensor

    @classmethod
    def between(cls, student: EdgeModel, teacher: EdgeModel) -> ScoreLoss:
        """Raises ModelError if the two models do not score the same candidates."""
        if student.ids != teacher.ids or student.candidates != teacher.candidates:
            raise ModelError(
                "student and teacher must have the same items and candidates: "
                "use a student that was pruned from this teacher"
            )
        small = student.candidate_vectors.astype(np.float64)
        large = teacher.candidate_vectors.astype(np.float64)
        small -= small.mean(0)
        large -= large.mean(0)
        products = (small.T @ small, small.T @ large, large.T @ large)
        return cls(
            *(torch.from_numpy((product / len(small)).astype(np.float32)) for product in products)
        )

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare user vectors of the student (batch, k) with the teacher's (batch, d)."""
        variance = ((teacher @ self.teacher) * teacher).sum()
        error = (
            ((student @ self.student) * student).sum()
            - 2 * ((student @ self.cross) * teacher).sum()
            + variance
        )
        return error / variance.clamp(min=1e-12)


class _Example(NamedTuple):
    """One batch of histories and the teacher's user vectors (batch, d)."""

    batch: HistoryBatch
    users: Tensor


def distil(
    model: EdgeModel,
    dataset: Dataset,
    task: Task,
    teacher: EdgeModel,
    steps: int = 400,
    seed: int = 0,
    rate: float = 2e-3,
) -> EdgeModel:
    """Return the model with its history encoder fitted to the teacher's scores of the candidates.

    Item vectors, linear parts and bias do not change. If the fitted encoder is further from the
    teacher on validation batches than the model was, the model itself is returned. The same seed
    gives the same result. Raises ValueError if ``steps`` or the learning ``rate`` is out of range,
    ModelError if the two models have different items.
    """
    if steps < 0 or not rate > 0:
        raise ValueError(f"steps must be at least 0 and rate above 0, not {steps} and {rate}")
    loss = ScoreLoss.between(model, teacher)
    if not steps:
        return model
    histories = Histories(teacher, dataset, task, seed)
    with one_thread():
        validation = _examples(teacher, histories, VALIDATION_BATCHES)
        student = replace(model, net=_copy_encoder(model.net))
        _fit(student, teacher, histories, loss, steps, rate)
        improved = _mean_loss(loss, student, validation) < _mean_loss(loss, model, validation)
    return student if improved else model


def _fit(
    student: EdgeModel,
    teacher: EdgeModel,
    histories: Histories,
    loss: ScoreLoss,
    steps: int,
    rate: float,
) -> None:
    """Train the student's encoder in place."""
    parameters = _encoder_parameters(student.net)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        ((batch, users),) = _examples(teacher, histories, 1)
        optimizer.zero_grad(set_to_none=True)
        error = loss(encode(student, batch), users)
        error.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    student.net.requires_grad_(False)


def distance(
    model: EdgeModel, dataset: Dataset, task: Task, teacher: EdgeModel, seed: int = 0
) -> float:
    """Return the ``ScoreLoss`` of the model on random histories; 0 means equal scores."""
    loss, histories = ScoreLoss.between(model, teacher), Histories(teacher, dataset, task, seed)
    return _mean_loss(loss, model, _examples(teacher, histories, VALIDATION_BATCHES))


@torch.no_grad()
def _examples(teacher: EdgeModel, histories: Histories, count: int) -> list[_Example]:
    batches = (histories.draw(teacher.net.config.history) for _ in range(count))
    return [_Example(batch, encode(teacher, batch)) for batch in batches]


@torch.no_grad()
def _mean_loss(loss: ScoreLoss, model: EdgeModel, examples: list[_Example]) -> float:
    return float(np.mean([float(loss(encode(model, batch), users)) for batch, users in examples]))


def distil_fast(
    model: EdgeModel, dataset: Dataset, task: Task, steps: int = 2000, seed: int = 0
) -> EdgeModel:
    """Return a ``fast`` model, distilled from this ``base`` one, on the same tables.

    Only the encoder and the attention biases are new; item vectors, linear parts, bias and score
    weights stay. It comes close to ``base``, but is no better than a ``fast`` model trained
    directly (``benchmarks/structure``). Raises ModelError if the model is ``fast``.
    """
    config = model.net.config
    if config.size == "fast":
        raise ModelError("the model is fast already: distil a base one, or prune this one")
    shape = replace(config, size="fast")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = FastEncoder(shape).state_dict()
    net = reshaped(model.net, shape, {f"encoder.{name}": value for name, value in encoder.items()})
    return distil(replace(model, net=net), dataset, task, model, steps, seed)


def reshaped(net: TwoTower, config: ModelConfig, state: Mapping[str, Tensor]) -> TwoTower:
    """Return a network of another shape.

    ``state`` holds all of its encoder and whatever else differs from ``net``; the rest is shared.
    """
    shared = {
        name: value for name, value in net.state_dict().items() if not name.startswith("encoder.")
    }
    inputs = TowerInputs(*(getattr(net, name).numpy() for name in TowerInputs._fields))
    with torch.device("meta"):
        other = TwoTower(config, net.history_id.num_embeddings, len(net.bias), inputs)
    # Assign the tensors themselves: a view made through numpy dangles once torch moves the tensor.
    for name in TowerInputs._fields:
        setattr(other, name, getattr(net, name))
    other.load_state_dict(shared | dict(state), assign=True)
    return other.eval().requires_grad_(False)


def _copy_encoder(net: TwoTower) -> TwoTower:
    """Copy a network's encoder and attention biases to train them; all else is shared."""
    shared = (
        net.tower,
        net.history_id,
        net.candidate_id,
        net.bias,
        net.text,
        net.numeric,
        net.categories,
    )
    copied = copy.deepcopy(net, {id(part): part for part in shared})
    for parameter in _encoder_parameters(copied):
        parameter.requires_grad_(True)
    return copied.eval()


def _encoder_parameters(net: TwoTower) -> list[torch.nn.Parameter]:
    return [*net.encoder.parameters(), net.position_bias, net.event_bias, net.age_bias]
