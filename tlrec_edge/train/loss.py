"""The loss of a training step: softmax over the catalogue, or over a sample of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlrec_edge.train.augment import HistoryBatch
from tlrec_edge.train.examples import Batch, Examples
from tlrec_edge.train.model import TwoTower
from tlrec_edge.types import Indices, Longs

MASKED = -1e9
"""The logit of a negative that does not take part."""


def as_tensors(history: HistoryBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return views of a batch's arrays as tensors."""
    item, event, age, present = (torch.from_numpy(part) for part in history)
    return item, event, age, present


def softmax_loss(
    model: TwoTower,
    batch: Batch,
    examples: Examples,
    sampler: Tensor,
    sampled: int,
    logq: float = 0.0,
    mask_seen: bool = True,
) -> Tensor:
    """Return the mean negative log likelihood of the positives among the candidates.

    Every example weighs the same, or as much as its heaviest positive (``Examples.by_weight``).

    Args:
        model: The network.
        batch: The examples of the step.
        examples: The training examples that the batch is from.
        sampler: The share of each candidate in the positives, (C,).
        sampled: Negatives to draw. A catalogue of at most twice as many is not sampled.
        logq: Share of log popularity that is added to the logits (see ``TrainConfig``).
        mask_seen: Whether items in the history are excluded from the negatives.
    """
    user = model.users(*as_tensors(batch.history))
    positive = torch.from_numpy(batch.positive)
    columns, correction, index = _softmax_columns(positive, sampler, sampled)
    offset = model.bias[columns] - correction
    if logq:
        # Popularity is given to the logits, so that vectors and biases need not learn that share
        # of it: served without it, the model favours popular items less (Menon et al. 2021).
        offset = offset + logq * torch.log(sampler[columns]).float()
    none = np.empty(0, np.int64)
    masked = _seen(batch, examples, columns.numpy()) if mask_seen else (none, none)
    loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]  # torch has no types for it
        user,
        model.candidate_vectors(columns),
        offset,
        tuple(torch.from_numpy(part) for part in masked),
        index.clamp(min=0),
        _positive_weights(batch, examples.by_weight),
    )
    return loss


def _positive_weights(batch: Batch, by_weight: bool) -> Tensor:
    """Return the weight of each positive in the loss of the step, (batch, p); they add up to 1."""
    weight = torch.from_numpy(batch.weight) * torch.from_numpy(batch.positive >= 0)
    total = weight.sum(1, keepdim=True)
    example = weight.amax(1, keepdim=True) if by_weight else (total > 0).float()
    return weight / total.clamp(min=1e-9) * (example / example.sum().clamp(min=1e-9))


def _softmax_columns(
    positive: Tensor, sampler: Tensor, sampled: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the candidates of a softmax over the catalogue, or over a sample of it.

    Returns the candidates (n,) in ascending order, what to subtract from their logits (n,), and the
    index of each positive among them.
    """
    catalogue = len(sampler)
    if catalogue <= 2 * sampled:
        return torch.arange(catalogue), torch.zeros(catalogue), positive
    drawn = torch.multinomial(sampler, sampled, replacement=True)
    columns = torch.unique(torch.cat([drawn, positive[positive >= 0]]))
    # A popular candidate is nearly always in the sample, and its logit would be pushed down too
    # often. The log of the probability to be drawn at least once makes up for it: the softmax over
    # the sample then estimates that over the catalogue (Bengio and Senecal 2008).
    correction = torch.log(1.0 - (1.0 - sampler[columns]) ** sampled).float()
    return columns, correction, torch.searchsorted(columns, positive.clamp(min=0))


def _seen(batch: Batch, examples: Examples, columns: Longs) -> tuple[Indices, Indices]:
    """Return the rows and columns of the candidates that are in the history and not positive."""
    row, place = np.nonzero(batch.history.present)
    candidate = examples.column_of_row[batch.history.item[row, place]]
    column = np.minimum(np.searchsorted(columns, candidate), len(columns) - 1)
    is_seen = columns[column] == candidate
    is_seen &= ~(batch.positive[row] == candidate[:, None]).any(1)
    return row[is_seen], column[is_seen]


class _CrossEntropy(torch.autograd.Function):
    """The weighted cross entropy of positives in the softmax over all candidates.

    It holds one array of users x candidates and writes its gradient into it. Composed of torch's
    operations it would hold seven, and the passes over them would take longer than the products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        user: Tensor,
        candidates: Tensor,
        offset: Tensor,
        masked: tuple[Tensor, Tensor],
        positive: Tensor,
        weight: Tensor,
    ) -> Tensor:
        """Return the sum over the positives of weight times negative log likelihood.

        Args:
            ctx: Torch's context.
            user: User vectors, (batch, width).
            candidates: Candidate vectors, (n, width).
            offset: What is added to the logits of each candidate, (n,).
            masked: Rows and columns of the logits that do not take part.
            positive: Columns of the positives, (batch, p).
            weight: Their weights, (batch, p); 0 for none.
        """
        logits = torch.addmm(offset, user, candidates.T)
        logits[masked] = MASKED
        log_likelihood = logits.gather(1, positive)
        highest = logits.amax(1, keepdim=True)
        exponential = logits.sub_(highest).exp_()
        total = exponential.sum(1, keepdim=True)
        log_likelihood -= highest + total.log()
        ctx.save_for_backward(user, candidates, exponential, total, positive, weight)
        return -(log_likelihood * weight).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        user, candidates, exponential, total, positive, weight = ctx.saved_tensors
        weight = weight * gradient
        of_logits = exponential.mul_(weight.sum(1, keepdim=True) / total)
        of_logits.scatter_add_(1, positive, -weight)
        return of_logits @ candidates, of_logits.T @ user, of_logits.sum(0), None, None, None
