"""Fit a smaller encoder to the scores that a larger one gives all candidates (distillation, arXiv 1503.02531)."""

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
from tlrec_edge.train.edge_model import EdgeModel, UserHistories
from tlrec_edge.train.examples import gather_histories
from tlrec_edge.train.fit import one_thread
from tlrec_edge.train.model import AGE_BUCKETS, FastEncoder, ModelConfig, TwoTower

BATCH = 256
HELD_OUT = 8
"""Batches that tell whether fitting has brought the scores closer."""


class Histories:
    """Histories of a task's training part, cut at random places. Raises ModelError where there are none."""

    def __init__(self, model: EdgeModel, dataset: Dataset, task: Task, seed: int) -> None:
        self.user_histories = UserHistories.of(
            task.train, model.rows(dataset), task.n_users, len(model.ids)
        )
        self.users = np.flatnonzero(np.diff(self.user_histories.start) > 0)
        if not len(self.users):
            raise ModelError(
                "no user of this task has a history that the model knows: nothing to fit an encoder to"
            )
        self.rng = np.random.default_rng(seed)

    def draw(self, length: int) -> HistoryBatch:
        """Return BATCH histories of the model's item rows, (BATCH, length)."""
        start = self.user_histories.start
        user = self.rng.choice(self.users, BATCH)
        stop = (
            start[user]
            + 1
            + np.floor(self.rng.random(BATCH) * (start[user + 1] - start[user])).astype(np.int64)
        )
        return gather_histories(
            self.user_histories.log,
            start[user],
            stop,
            self.user_histories.rows,
            length,
            AGE_BUCKETS,
        )


def encode(model: EdgeModel, batch: HistoryBatch) -> Tensor:
    """Return user vectors (batch, width) from the last positions of a batch, as many as the model reads."""
    item, *rest = (part[:, -model.net.config.history :] for part in batch)
    return model.net.encode(
        torch.from_numpy(model.history_vectors[item]), *map(torch.from_numpy, rest)
    )


@dataclass(frozen=True)
class ScoreLoss:
    """How far a student's scores of all candidates are from the teacher's, in shares of the teacher's variance.

    A user's scores are taken about their mean, which no ranking depends on. The products of the centred candidate
    tables, ``own`` (k, k), ``cross`` (k, d) and ``whole`` (d, d), stand in for the candidates: the loss is that over
    all of them, and costs the same for ten and for a million.
    """

    own: Tensor
    cross: Tensor
    whole: Tensor

    @classmethod
    def between(cls, student: EdgeModel, teacher: EdgeModel) -> ScoreLoss:
        """Raise ModelError where the two do not score the same candidates."""
        if student.ids != teacher.ids or student.candidates != teacher.candidates:
            raise ModelError(
                "student and teacher must have the same items and candidates: prune the teacher itself"
            )
        own, whole = (model.candidate_vectors.astype(np.float64) for model in (student, teacher))
        own -= own.mean(0)
        whole -= whole.mean(0)
        products = (own.T @ own, own.T @ whole, whole.T @ whole)
        return cls(
            *(torch.from_numpy((product / len(own)).astype(np.float32)) for product in products)
        )

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare user vectors (batch, k) with the teacher's (batch, d)."""
        variance = ((teacher @ self.whole) * teacher).sum()
        missed = (
            ((student @ self.own) * student).sum()
            - 2 * ((student @ self.cross) * teacher).sum()
            + variance
        )
        return missed / variance.clamp(min=1e-12)


class Target(NamedTuple):
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
    """Return the model with its history encoder fitted to the scores that the teacher gives the candidates.

    Items, linear parts and bias stay. A fit that ends further from the teacher on histories held out is left aside, so
    the result is never the worse of the two. Same seed, same result. Raises ValueError for arguments out of range and
    ModelError where the two models do not share their items.
    """
    if steps < 0 or not rate > 0:
        raise ValueError(f"steps must be at least 0 and rate above 0, not {steps} and {rate}")
    loss = ScoreLoss.between(model, teacher)
    if not steps:
        return model
    histories = Histories(teacher, dataset, task, seed)
    with one_thread():
        held_out = [_target(teacher, histories) for _ in range(HELD_OUT)]
        student = replace(model, net=_own_encoder(model.net))
        fitted = _fitted(student.net)
        optimizer = torch.optim.AdamW(fitted, lr=rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
        for _ in range(steps):
            batch, users = _target(teacher, histories)
            optimizer.zero_grad(set_to_none=True)
            loss(encode(student, batch), users).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            torch.nn.utils.clip_grad_norm_(fitted, 1.0)
            optimizer.step()
            schedule.step()
        student.net.requires_grad_(False)
        return student if _mean(loss, student, held_out) < _mean(loss, model, held_out) else model


def distance(
    model: EdgeModel, dataset: Dataset, task: Task, teacher: EdgeModel, seed: int = 0
) -> float:
    """Return the share of the variance of the teacher's scores that the model misses, on histories drawn by seed."""
    loss, histories = ScoreLoss.between(model, teacher), Histories(teacher, dataset, task, seed)
    return _mean(loss, model, [_target(teacher, histories) for _ in range(HELD_OUT)])


@torch.no_grad()
def _target(teacher: EdgeModel, histories: Histories) -> Target:
    batch = histories.draw(teacher.net.config.history)
    return Target(batch, encode(teacher, batch))


@torch.no_grad()
def _mean(loss: ScoreLoss, model: EdgeModel, targets: list[Target]) -> float:
    return float(np.mean([float(loss(encode(model, batch), users)) for batch, users in targets]))


def distil_fast(
    model: EdgeModel, dataset: Dataset, task: Task, steps: int = 2000, seed: int = 0
) -> EdgeModel:
    """Return a ``fast`` model that scores like this ``base`` one, on its tables.

    Only the encoder and the attention biases are new; items, linear parts, bias and mix stay. It comes close to
    ``base``, not above a ``fast`` model trained by itself (``benchmarks/structure``). Raises ModelError where the model
    is ``fast`` already.
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


def reshaped(net: TwoTower, config: ModelConfig, changed: Mapping[str, Tensor]) -> TwoTower:
    """Return a network of another shape: ``changed`` by name, the encoder among it, the rest shared with ``net``."""
    state = {
        name: value for name, value in net.state_dict().items() if not name.startswith("encoder.")
    }
    inputs = TowerInputs(*(getattr(net, name).numpy() for name in TowerInputs._fields))
    with torch.device("meta"):
        other = TwoTower(config, net.history_id.num_embeddings, len(net.bias), inputs)
    for (
        name
    ) in TowerInputs._fields:  # the tensor itself: a view of it dangles once torch moves the tensor
        setattr(other, name, getattr(net, name))
    other.load_state_dict(state | dict(changed), assign=True)
    return other.eval().requires_grad_(False)


def _own_encoder(net: TwoTower) -> TwoTower:
    """Copy a network's encoder and attention biases; all that belongs to items is shared."""
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
    for parameter in _fitted(copied):
        parameter.requires_grad_(True)
    return copied.eval()


def _fitted(net: TwoTower) -> list[torch.nn.Parameter]:
    return [*net.encoder.parameters(), net.position_bias, net.event_bias, net.age_bias]
