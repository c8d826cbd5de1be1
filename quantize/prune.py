"""Prune the encoder's feed-forward width, then recover by distillation from the unpruned encoder."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import Task
from tlrec_edge.train.artifact import EdgeModel, Past
from tlrec_edge.train.examples import take_histories
from tlrec_edge.train.model import AGES, FeedForward, TwoTower

BATCH = 256


def prune_feed_forward(
    model: EdgeModel, dataset: Dataset, task: Task, keep: float = 0.5, steps: int = 200, seed: int = 0
) -> EdgeModel:
    """Return the model with ``keep`` of its feed-forward units, chosen by importance and recovered.

    Importance is first-order Taylor (Molchanov et al., arXiv 1906.10771): the mean squared product of a unit's
    activation and the gradient of the users' score spread. Recovery fits the pruned encoder to the scores that the
    unpruned one gives the candidates, on histories of the task's training part.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must lie in (0, 1], not {keep}")
    past = Past.of(task.train, model.rows(dataset), task.n_users, len(model.ids))
    rng = np.random.default_rng(seed)
    teacher = model.net
    student = _shrunk(
        teacher, keep, [_batch(model, past, rng) for _ in range(4)], torch.from_numpy(model.candidate_vectors)
    )
    _recover(student, teacher, model, past, rng, steps)
    return replace(model, net=student)


def _batch(model: EdgeModel, past: Past, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw histories cut at random places: item vectors (batch, length, width) and log weights (batch, length)."""
    users = np.flatnonzero(np.diff(past.start) > 0)
    user = rng.choice(users, BATCH)
    start = past.start[user]
    stop = start + 1 + np.floor(rng.random(BATCH) * (past.start[user + 1] - start)).astype(np.int64)
    item, *rest = take_histories(past.log, start, stop, past.rows, model.net.config.history, AGES)
    with torch.no_grad():
        log_weight = model.net.log_weight(*map(torch.from_numpy, rest))
    return torch.from_numpy(model.history_vectors[item]), log_weight


def _parts(encoder: nn.Module) -> list[FeedForward]:
    return [part for part in encoder.modules() if isinstance(part, FeedForward)]


def _importance(
    teacher: TwoTower, batches: list[tuple[Tensor, Tensor]], candidates: Tensor
) -> list[NDArray[np.float64]]:
    """Return one importance a hidden unit for each feed-forward part."""
    encoder = copy.deepcopy(teacher.encoder).eval().requires_grad_(True)
    seen: list[list[Tensor]] = [[] for _ in _parts(encoder)]

    def keep_gradient(kept: list[Tensor], inputs: tuple[Tensor, ...]) -> None:
        inputs[0].retain_grad()
        kept.append(inputs[0])

    for part, kept in zip(_parts(encoder), seen, strict=True):
        part.down.register_forward_pre_hook(lambda _, inputs, kept=kept: keep_gradient(kept, inputs))
    for history, log_weight in batches:
        scores = encoder(history, log_weight) @ candidates.T
        (scores - scores.mean(1, keepdim=True)).square().mean().backward()
    totals = []
    for kept in seen:
        taylor = [(x * x.grad).detach().flatten(0, -2).square().mean(0) for x in kept if x.grad is not None]
        totals.append(torch.stack(taylor).mean(0).double().numpy())
    return totals


def _shrunk(teacher: TwoTower, keep: float, batches: list[tuple[Tensor, Tensor]], candidates: Tensor) -> TwoTower:
    student = copy.deepcopy(teacher)
    width = max(1, round(teacher.config.feed_forward * keep))
    student.config = replace(teacher.config, feed_forward=width)
    for part, importance in zip(_parts(student.encoder), _importance(teacher, batches, candidates), strict=True):
        best = torch.from_numpy(np.sort(np.argsort(-importance, kind="stable")[:width]))
        up, down = nn.Linear(part.up.in_features, width), nn.Linear(width, part.down.out_features)
        with torch.no_grad():
            up.weight.copy_(part.up.weight[best])
            up.bias.copy_(part.up.bias[best])
            down.weight.copy_(part.down.weight[:, best])
            down.bias.copy_(part.down.bias)
        part.up, part.down = up, down
    return student


def _recover(
    student: TwoTower, teacher: TwoTower, model: EdgeModel, past: Past, rng: np.random.Generator, steps: int
) -> None:
    candidates = torch.from_numpy(model.candidate_vectors)
    candidates = candidates - candidates.mean(0)  # a shift of all scores of a user does not change a ranking
    gram = candidates.T @ candidates / len(candidates)  # (width, width)
    student.encoder.requires_grad_(True).eval()
    optimizer = torch.optim.AdamW(student.encoder.parameters(), lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in range(steps):
        history, log_weight = _batch(model, past, rng)
        with torch.no_grad():
            wanted = teacher.encoder(history, log_weight)
        off = student.encoder(history, log_weight) - wanted  # (batch, width)
        loss = ((off @ gram) * off).sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    student.requires_grad_(False).eval()
