"""The training loop: softmax over the catalogue, early stopping on validation, seeds."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlrec_edge.errors import TrainingError
from tlrec_edge.train.augment import HistoryBatch
from tlrec_edge.train.checkpoint import FitCheckpoint, TrainingState
from tlrec_edge.train.examples import Batch, Examples
from tlrec_edge.train.model import TwoTower
from tlrec_edge.train.sparse_adamw import RowAdamW, clip_gradients

Progress = Callable[[str], None]
EXTRA_RATE = 10.0
"""How much faster the parameters of an extra loss learn: a domain classifier has to keep up with what it judges."""


@dataclass(frozen=True)
class FitConfig:
    """Knobs of one training run. ``trunk_rate`` scales the rate of everything but the ids and biases of the candidates.

    ``sampled`` bounds the softmax: larger catalogues are sampled by popularity with logQ correction (Bengio and
    Senecal 2008). ``logq`` adds that share of log popularity to the logits (Menon et al. 2021, arXiv 2007.07314).
    ``examples`` bounds an epoch: of more, each epoch draws that many.
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
    logq: float = 0.0

    def __post_init__(self) -> None:
        for name in ("batch", "sampled", "examples", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.epochs < 0:
            raise ValueError(f"epochs must be 0 or more, not {self.epochs}")


@dataclass(frozen=True)
class FitResult:
    """``epochs`` is the best epoch's number, 0 = the start was best; ``values`` begin with the start's.

    ``report`` are the last epoch's means of the extra loss.
    """

    epochs: int
    losses: tuple[float, ...]
    values: tuple[float, ...]
    report: Mapping[str, float] = field(default_factory=dict)


class ExtraLoss(nn.Module):
    """A loss beside the softmax: ``forward(net, epoch)`` gives it, ``epoch`` counting what has passed; ``note`` its
    figures, whose means ``report`` tells once."""

    def __init__(self) -> None:
        super().__init__()
        self._noted: dict[str, list[float]] = defaultdict(list)

    def note(self, **figures: float) -> None:
        for name, value in figures.items():
            self._noted[name].append(value)

    def report(self) -> dict[str, float]:
        means = {name: sum(values) / len(values) for name, values in self._noted.items()}
        self._noted.clear()
        return means


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
    extra: ExtraLoss | None = None,
    checkpoint: FitCheckpoint | None = None,
) -> FitResult:
    """Train in place; with ``validate`` (higher is better) leave the model at its best epoch, the start included.

    ``extra`` is added to each step's loss. ``checkpoint`` holds every epoch on disk and is where a fit that was interrupted
    goes on, to the same end. Raises TrainingError on a loss that is not finite.
    """
    with one_thread():
        return _fit(model, examples, config, validate, mask_seen, progress, extra, checkpoint)


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
    model: TwoTower,
    examples: Examples,
    config: FitConfig,
    validate: Callable[[], float] | None,
    mask_seen: bool,
    progress: Progress | None,
    extra: ExtraLoss | None,
    checkpoint: FitCheckpoint | None,
) -> FitResult:
    torch.manual_seed(config.seed)
    popularity = (
        np.bincount(
            examples.column[examples.log.item[examples.is_target]], minlength=len(model.bias)
        )
        + 1.0
    )
    sampler = torch.from_numpy(popularity / popularity.sum())
    modules = nn.ModuleDict({"net": model} if extra is None else {"net": model, "extra": extra})
    optimizer = RowAdamW(_groups(model, config, extra), weight_decay=config.weight_decay)
    state = TrainingState(modules, optimizer, np.random.default_rng(config.seed))
    if validate:
        state.values.append(validate())
        state.best_net = copy.deepcopy(model.state_dict())
    if checkpoint:
        checkpoint.load(state)
    while (epoch := len(state.losses) + 1) <= config.epochs:
        if validate and epoch - 1 - state.best >= config.patience:
            break
        state.losses.append(_epoch(model, extra, state, examples, config, sampler, mask_seen))
        state.report = extra.report() if extra else {}
        if validate:
            state.values.append(validate())
        if not validate or state.values[-1] > state.values[state.best]:
            state.best = epoch
            state.best_net = copy.deepcopy(model.state_dict()) if validate else {}
        if checkpoint:
            checkpoint.save(state)
        if progress:
            progress(f"epoch {epoch}/{config.epochs}: " + ", ".join(_figures(state)))
    if validate:
        model.load_state_dict(state.best_net)
    model.eval()
    return FitResult(state.best, tuple(state.losses), tuple(state.values), state.report)


def _figures(state: TrainingState) -> Iterator[str]:
    yield f"loss {state.losses[-1]:.4f}"
    if state.values:
        yield f"validation {state.values[-1]:.4f}"
    yield from (f"alignment {name} {value:.4f}" for name, value in state.report.items())


def _groups(model: TwoTower, config: FitConfig, extra: ExtraLoss | None) -> list[dict[str, object]]:
    own = {"candidate_id.weight", "bias"}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if name in own], "lr": config.rate},
        {
            "params": [p for name, p in named if name not in own],
            "lr": config.rate * config.trunk_rate,
        },
        {"params": list(extra.parameters()) if extra else [], "lr": EXTRA_RATE * config.rate},
    ]
    return [group for group in groups if group["params"]]


def _epoch(
    model: TwoTower,
    extra: ExtraLoss | None,
    state: TrainingState,
    examples: Examples,
    config: FitConfig,
    sampler: Tensor,
    mask_seen: bool,
) -> float:
    steps = -(-min(examples.size(), config.examples) // config.batch)
    model.train()
    total, count = 0.0, 0
    for step, batch in enumerate(examples.epoch(state.rng, config.batch, config.examples)):
        if not (batch.positive >= 0).any():
            continue
        loss = softmax_loss(model, batch, examples, sampler, config, mask_seen)
        total_loss = (
            loss if extra is None else loss + extra(model, len(state.losses) + step / steps)
        )
        if not torch.isfinite(total_loss):
            raise TrainingError(
                f"loss is {total_loss.item()}: lower the learning rate (now {config.rate}) or check the features"
            )
        state.optimizer.zero_grad(set_to_none=True)
        total_loss.backward()
        if model.sparse:
            clip_gradients(model, 5.0)
        else:
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        state.optimizer.step()
        total, count = total + loss.item(), count + 1
    model.eval()
    if not count:
        raise TrainingError(
            "no training example: the target needs a user with at least two interactions at different times"
        )
    return total / count


def softmax_loss(
    model: TwoTower,
    batch: Batch,
    examples: Examples,
    sampler: Tensor,
    config: FitConfig,
    mask_seen: bool,
) -> Tensor:
    """Return the mean negative log likelihood of the positives, each example weighing the same or by its heaviest."""
    user = model.users(*as_tensors(batch.history))
    positive, weight = torch.from_numpy(batch.positive), torch.from_numpy(batch.weight)
    catalogue, sampled = len(model.bias), config.sampled
    if catalogue <= 2 * sampled:
        columns, correction = torch.arange(catalogue), torch.zeros(catalogue)
        place = positive
    else:
        drawn = torch.multinomial(sampler, sampled, replacement=True)
        columns = torch.unique(torch.cat([drawn, positive[positive >= 0]]))
        correction = torch.log(1.0 - (1.0 - sampler[columns]) ** sampled).float()
        place = torch.searchsorted(columns, positive.clamp(min=0))
    logits = (
        user @ model.candidate_vectors(columns).T + model.bias[columns] - correction
    )  # (batch, columns)
    if config.logq:
        logits = logits + config.logq * torch.log(sampler[columns]).float()
    if mask_seen:
        logits = logits + _seen(batch, examples, columns.numpy(), catalogue)
    target_weight = (positive >= 0).float() * weight
    chosen = torch.gather(torch.log_softmax(logits, 1), 1, place.clamp(min=0))
    total_weight = target_weight.sum(1)
    per_example = -(chosen * target_weight).sum(1) / total_weight.clamp(min=1e-9)
    example_weight = target_weight.amax(1) if examples.by_weight else torch.ones_like(total_weight)
    has_positive = total_weight > 0
    return (per_example * example_weight)[has_positive].mean() / example_weight[has_positive].mean()


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
