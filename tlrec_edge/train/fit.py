"""The training loop: softmax over the catalogue, early stopping on validation, checkpoints."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from tlrec_edge.core.progress import Progress, Reporter
from tlrec_edge.errors import TrainingError
from tlrec_edge.train.checkpoint import FitCheckpoint, TrainingState
from tlrec_edge.train.examples import Examples
from tlrec_edge.train.loss import softmax_loss
from tlrec_edge.train.model import TwoTower
from tlrec_edge.train.sparse_adamw import RowAdamW, clip_gradients

EPOCHS = "epochs"
"""The kind of work of a training run."""
EXTRA_RATE = 10.0
"""Factor on the learning rate of an extra loss: a domain classifier has to keep up with the tower
that works against it."""
MAX_GRADIENT_NORM = 5.0


@dataclass(frozen=True)
class FitConfig:
    """Hyperparameters of one training run; a value outside its range raises ValueError.

    Attributes:
        epochs: Most epochs.
        batch: Examples per step.
        rate: Learning rate of the candidates' ids and biases.
        trunk_rate: Factor on ``rate`` for everything else.
        weight_decay: Weight decay of AdamW.
        sampled: Negatives per step. A catalogue of at most twice as many is not sampled.
        examples: Most examples per epoch; if there are more, each epoch draws that many.
        patience: Epochs without a better validation value after which training stops.
        seed: Seed of batches, negatives, dropout and augmentation.
        logq: Share of log popularity that is added to the logits (see ``TrainConfig``).
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
    """What a training run reached.

    Attributes:
        epochs: The number of the best epoch; 0: the start was best.
        losses: The mean loss of each epoch.
        values: Validation values, beginning with that of the start.
        report: Means of the extra loss's figures over the last epoch.
    """

    epochs: int
    losses: tuple[float, ...]
    values: tuple[float, ...]
    report: Mapping[str, float] = field(default_factory=dict)


class ExtraLoss(nn.Module):
    """A loss that is added to the softmax loss.

    ``forward(net, epoch)`` returns it; ``epoch`` is the number of epochs that have passed, with
    fractions. ``forward`` may ``note`` figures, whose means ``report`` returns.
    """

    def __init__(self) -> None:
        super().__init__()
        self._noted: dict[str, list[float]] = defaultdict(list)

    def note(self, **figures: float) -> None:
        """Record figures of one step."""
        for name, value in figures.items():
            self._noted[name].append(value)

    def report(self) -> dict[str, float]:
        """Return the mean of each figure since the last report."""
        means = {name: sum(values) / len(values) for name, values in self._noted.items()}
        self._noted.clear()
        return means


def fit(
    model: TwoTower,
    examples: Examples,
    config: FitConfig,
    validate: Callable[[], float] | None = None,
    mask_seen: bool = True,
    progress: Reporter | None = None,
    extra: ExtraLoss | None = None,
    checkpoint: FitCheckpoint | None = None,
) -> FitResult:
    """Train a network in place.

    Args:
        model: The network.
        examples: The training examples.
        config: Hyperparameters of the run.
        validate: Returns the validation value, higher is better. The network ends at its best
            epoch, or as it started. None: it ends at the last epoch.
        mask_seen: Whether items in the history are excluded from the negatives.
        progress: Follows the epochs; a function receives a line of text before each. If validation
            decides the length, its time budget may end the run earlier.
        extra: A loss to add at each step.
        checkpoint: Saves each epoch, and resumes an interrupted run.

    Returns:
        The best epoch, and the losses and validation values of all.

    Raises:
        TrainingError: The loss is not finite, or no user gives a training example.
    """
    with one_thread():
        follow = Progress.of(progress)
        return _fit(model, examples, config, validate, mask_seen, follow, extra, checkpoint)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread.

    Several threads add up gradients in no fixed order, and the same seed must give the same model.
    Batches of this size gain little from more threads.
    """
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
    progress: Progress,
    extra: ExtraLoss | None,
    checkpoint: FitCheckpoint | None,
) -> FitResult:
    torch.manual_seed(config.seed)
    sampler = _popularity(examples, len(model.bias))
    modules = nn.ModuleDict({"net": model} if extra is None else {"net": model, "extra": extra})
    groups = _parameter_groups(model, config, extra)
    optimizer = RowAdamW(groups, weight_decay=config.weight_decay, fused=True)
    state = TrainingState(modules, optimizer, np.random.default_rng(config.seed))
    if validate:
        state.values.append(validate())
        state.best_net = copy.deepcopy(model.state_dict())
    if checkpoint:
        checkpoint.load(state)
    while (epoch := len(state.losses) + 1) <= config.epochs:
        if validate and epoch - 1 - state.best >= config.patience:
            break
        if validate and progress.late(EPOCHS, config.epochs):
            progress.cut_short(f"epochs {epoch} to {config.epochs}")
            break
        text = ", ".join((f"epoch {epoch} of {config.epochs}", *_figures(state)))
        progress.doing(text, EPOCHS, epoch, config.epochs)
        state.losses.append(_epoch(model, extra, state, examples, config, sampler, mask_seen))
        state.report = extra.report() if extra else {}
        if validate:
            state.values.append(validate())
        if not validate or state.values[-1] > state.values[state.best]:
            state.best = epoch
            state.best_net = copy.deepcopy(model.state_dict()) if validate else {}
        if checkpoint:
            checkpoint.save(state)
    if validate:
        model.load_state_dict(state.best_net)
    model.eval()
    return FitResult(state.best, tuple(state.losses), tuple(state.values), state.report)


def _popularity(examples: Examples, candidates: int) -> Tensor:
    """Return the share of each candidate in the positives, (C,), smoothed by one each."""
    positives = examples.column[examples.log.item[examples.is_target]]
    count = np.bincount(positives, minlength=candidates) + 1.0
    return torch.from_numpy(count / count.sum())


def _figures(state: TrainingState) -> Iterator[str]:
    """Describe the epochs so far."""
    if state.losses:
        yield f"loss {state.losses[-1]:.4f}"
    if state.values:
        at = f"epoch {state.best}" if state.best else "the start"
        yield f"best validation {state.values[state.best]:.4f} at {at}"
    yield from (f"alignment {name} {value:.4f}" for name, value in state.report.items())


def _parameter_groups(
    model: TwoTower, config: FitConfig, extra: ExtraLoss | None
) -> list[dict[str, object]]:
    """Return the optimizer's groups: candidates' ids and biases, the trunk, the extra loss."""
    of_candidates: list[Tensor] = []
    trunk: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_of_candidates = name in ("candidate_id.weight", "bias")
            (of_candidates if is_of_candidates else trunk).append(parameter)
    of_extra = list(extra.parameters()) if extra else []
    groups: list[dict[str, object]] = [
        {"params": of_candidates, "lr": config.rate},
        {"params": trunk, "lr": config.rate * config.trunk_rate},
        {"params": of_extra, "lr": EXTRA_RATE * config.rate},
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
    """Train one epoch; return the mean softmax loss of its steps."""
    steps = -(-min(examples.size(), config.examples) // config.batch)
    model.train()
    total, count = 0.0, 0
    for step, batch in enumerate(examples.epoch(state.rng, config.batch, config.examples)):
        if not (batch.positive >= 0).any():
            continue
        loss = softmax_loss(model, batch, examples, sampler, config.sampled, config.logq, mask_seen)
        passed = len(state.losses) + step / steps
        with_extra = loss if extra is None else loss + extra(model, passed)
        if not torch.isfinite(with_extra):
            raise TrainingError(
                f"loss is {with_extra.item()}: lower the learning rate (now {config.rate}) "
                "or check the features"
            )
        _step(model, state.optimizer, with_extra)
        total, count = total + loss.item(), count + 1
    model.eval()
    if not count:
        raise TrainingError(
            "no training example: the target needs a user with at least two interactions "
            "at different times"
        )
    return total / count


def _step(model: TwoTower, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
    if model.sparse:
        clip_gradients(model, MAX_GRADIENT_NORM)
    else:
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
