"""The training loop: softmax over the catalogue, early stopping on validation, seeds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlrec_edge.errors import TrainingError
from tlrec_edge.train.examples import Batch, Examples, HistoryBatch
from tlrec_edge.train.model import TwoTower

Progress = Callable[[str], None]


@dataclass(frozen=True)
class FitConfig:
    """Knobs of one training run. ``trunk_rate`` scales the rate of everything but the ids and biases of the candidates.

    ``sampled`` bounds the softmax: larger catalogues are sampled by popularity with logQ correction (Bengio and
    Senecal 2008). ``examples`` bounds an epoch: of more, each epoch draws that many.
    ``patience`` counts epochs without a better validation value.
    """

    epochs: int = 20
    batch: int = 256
    rate: float = 2e-3
    trunk_rate: float = 1.0
    weight_decay: float = 0.01
    sampled: int = 4096
    examples: int = 40_000
    patience: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "sampled", "examples", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.epochs < 0:
            raise ValueError(f"epochs must be 0 or more, not {self.epochs}")


@dataclass(frozen=True)
class FitResult:
    """``epochs`` is the best epoch's number, 0 = the start was best; ``values`` begin with the start's."""

    epochs: int
    losses: tuple[float, ...]
    values: tuple[float, ...]


def as_tensors(history: HistoryBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    item, event, age, present = (torch.from_numpy(part) for part in history)
    return item, event, age, present


def fit(
    model: TwoTower,
    examples: Examples,
    config: FitConfig,
    validate: Callable[[], float] | None = None,
    mask_seen: bool = True,
    progress: Progress | None = None,
) -> FitResult:
    """Train in place; with ``validate`` (higher is better) leave the model at its best epoch, the start included.

    Raises TrainingError on a loss that is not finite.
    """
    with one_thread():
        return _fit(model, examples, config, validate, mask_seen, progress)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: sums of gradients over several come in no fixed order, and the same seed must give the
    same model; batches this small gain little from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(
    model: TwoTower, examples: Examples, config: FitConfig, validate: Callable[[], float] | None, mask_seen: bool,
    progress: Progress | None,
) -> FitResult:  # fmt: skip
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    popularity = np.bincount(examples.column[examples.log.item[examples.wanted]], minlength=len(model.bias)) + 1.0
    sampler = torch.from_numpy(popularity / popularity.sum())
    optimizer = torch.optim.AdamW(_groups(model, config), weight_decay=config.weight_decay)
    losses: list[float] = []
    values = [validate()] if validate else []
    best, state = 0, copy.deepcopy(model.state_dict()) if validate else {}
    for epoch in range(1, config.epochs + 1):
        losses.append(_epoch(model, examples, config, optimizer, sampler, mask_seen, rng))
        if validate:
            values.append(validate())
            if values[-1] > values[best]:
                best, state = epoch, copy.deepcopy(model.state_dict())
        else:
            best = epoch
        if progress:
            progress(
                f"epoch {epoch}/{config.epochs}: loss {losses[-1]:.4f}"
                + (f", validation {values[-1]:.4f}" if values else "")
            )
        if validate and epoch - best >= config.patience:
            break
    if validate:
        model.load_state_dict(state)
    model.eval()
    return FitResult(best, tuple(losses), tuple(values))


def _groups(model: TwoTower, config: FitConfig) -> list[dict[str, object]]:
    own = {"candidate_id.weight", "bias"}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if name in own], "lr": config.rate},
        {"params": [p for name, p in named if name not in own], "lr": config.rate * config.trunk_rate},
    ]
    return [group for group in groups if group["params"]]


def _epoch(
    model: TwoTower, examples: Examples, config: FitConfig, optimizer: torch.optim.Optimizer, sampler: Tensor,
    mask_seen: bool, rng: np.random.Generator,
) -> float:  # fmt: skip
    model.train()
    total, count = 0.0, 0
    for batch in examples.epoch(rng, config.batch, config.examples):
        if not (batch.positive >= 0).any():
            continue
        loss = softmax_loss(model, batch, examples, sampler, config.sampled, mask_seen)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"loss is {loss.item()}: lower the learning rate (now {config.rate}) or check the features"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        total, count = total + loss.item(), count + 1
    model.eval()
    if not count:
        raise TrainingError(
            "no training example: the target needs a user with at least two interactions at different times"
        )
    return total / count


def softmax_loss(
    model: TwoTower, batch: Batch, examples: Examples, sampler: Tensor, sampled: int, mask_seen: bool
) -> Tensor:
    """Return the mean negative log likelihood of the positives, each example weighing the same."""
    user = model.users(*as_tensors(batch.history))
    positive, weight = torch.from_numpy(batch.positive), torch.from_numpy(batch.weight)
    catalogue = len(model.bias)
    if catalogue <= 2 * sampled:
        columns, correction = torch.arange(catalogue), torch.zeros(catalogue)
        place = positive
    else:
        drawn = torch.multinomial(sampler, sampled, replacement=True)
        columns = torch.unique(torch.cat([drawn, positive[positive >= 0]]))
        correction = torch.log(1.0 - (1.0 - sampler[columns]) ** sampled).float()
        place = torch.searchsorted(columns, positive.clamp(min=0))
    logits = user @ model.candidate_vectors(columns).T + model.bias[columns] - correction  # (batch, columns)
    if mask_seen:
        logits = logits + _seen(batch, examples, columns.numpy(), catalogue)
    wanted = (positive >= 0).float() * weight
    chosen = torch.gather(torch.log_softmax(logits, 1), 1, place.clamp(min=0))
    mass = wanted.sum(1)
    per_example = -(chosen * wanted).sum(1) / mass.clamp(min=1e-9)
    return per_example[mass > 0].mean()


def _seen(batch: Batch, examples: Examples, columns: NDArray[np.int64], catalogue: int) -> Tensor:
    """Return -1e9 at the candidates that stand in the history, unless they are asked for. Shape (batch, columns)."""
    last = len(columns)
    place = np.full(catalogue + 1, last, np.int64)  # catalogue: the place of "no candidate"
    place[columns] = np.arange(last)
    known = examples.column_of_row[batch.history.item]
    mask = np.zeros((len(batch.positive), last + 1), np.float32)
    row = np.arange(len(mask))[:, None]
    mask[row, place[np.where(batch.history.present, known, -1)]] = -1e9
    mask[row, place[batch.positive]] = 0.0
    return torch.from_numpy(mask[:, :last])
