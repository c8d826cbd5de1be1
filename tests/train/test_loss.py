"""The loss of a step: weights of events, and the correction for popularity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import synthetic
from helpers.logs import examples, log_of
from helpers.networks import SMALL, network
from helpers.synthetic import CONFIG
from tlrec_edge.choices import EVENT_WEIGHTS, EVENTS
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.train import TrainConfig, pretrain
from tlrec_edge.train.augment import HistoryBatch
from tlrec_edge.train.examples import Batch, Examples
from tlrec_edge.train.fit import FitConfig
from tlrec_edge.train.loss import softmax_loss
from tlrec_edge.train.model import TwoTower
from tlrec_edge.train.user_histories import UserHistories

QUICK = replace(CONFIG, pretrain_epochs=2)
UNIFORM = torch.full((4,), 0.25)


def batch(positive: list[list[int]], weight: list[list[float]]) -> Batch:
    n = len(positive)
    present = np.ones((n, SMALL.history), bool)
    item = np.tile(np.arange(SMALL.history), (n, 1))
    history = HistoryBatch(item, np.full_like(item, 3), np.zeros_like(item), present)
    return Batch(history, np.array(positive), np.array(weight, np.float32))


def loss_of(
    found: Batch,
    config: FitConfig | None = None,
    by_weight: bool = False,
    sampler: torch.Tensor = UNIFORM,
) -> float:
    weighted: Examples = replace(examples(log_of([(0, 1, 1), (0, 12, 2)])), by_weight=by_weight)
    config = config or FitConfig()
    net = network(SMALL)
    return softmax_loss(net, found, weighted, sampler, config.sampled, config.logq, False).item()


def test_positives_of_one_example_weigh_by_their_events() -> None:
    one, other = loss_of(batch([[0]], [[1.0]])), loss_of(batch([[1]], [[1.0]]))
    both = loss_of(batch([[0, 1]], [[1.0, 0.2]]))
    assert both == pytest.approx((one + 0.2 * other) / 1.2, rel=1e-5)


def test_examples_weigh_the_same_unless_event_weights_are_set() -> None:
    """If a basket has one event, only the example's weight separates views from purchases."""
    one, other = loss_of(batch([[0]], [[1.0]])), loss_of(batch([[1]], [[1.0]]))
    two = batch([[0], [1]], [[1.0], [0.2]])
    assert loss_of(two) == pytest.approx((one + other) / 2, rel=1e-5)
    assert loss_of(two, by_weight=True) == pytest.approx((one + 0.2 * other) / 1.2, rel=1e-5)


@pytest.mark.parametrize("by_weight", [False, True])
@pytest.mark.parametrize("mask_seen", [False, True])
def test_loss_and_gradients_are_those_of_the_formula(mask_seen: bool, by_weight: bool) -> None:
    """The loss writes its own gradient: it must be that of the same loss in plain operations."""
    net, known = network(SMALL), examples(log_of([(0, 1, 1), (0, 12, 2)]))
    known = replace(known, by_weight=by_weight)
    found = batch([[0, 2, 2], [3, -1, -1], [-1, -1, -1]], [[1.0, 0.5, 0.2], [0.3, 1, 1], [1, 1, 1]])
    found.history.present[1, :-1] = False
    share = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    gradients = []
    for loss in (
        softmax_loss(net, found, known, share, 10, 0.5, mask_seen),
        plain_loss(net, found, known, share, 0.5, mask_seen),
    ):
        net.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        used = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        gradients.append((loss.detach(), used))
    (ours, our_gradients), (plain, plain_gradients) = gradients
    torch.testing.assert_close(ours, plain)
    assert our_gradients.keys() == plain_gradients.keys() >= {"bias", "candidate_id.weight"}
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], atol=1e-6, rtol=1e-4)


def plain_loss(
    net: TwoTower,
    found: Batch,
    known: Examples,
    share: torch.Tensor,
    logq: float,
    mask_seen: bool,
) -> torch.Tensor:
    """Return ``softmax_loss`` over all candidates, one example after the other."""
    users = net.users(*(torch.from_numpy(part) for part in found.history))
    logits = users @ net.candidate_vectors().T + net.bias + logq * share.log().float()
    total, weights = torch.zeros(()), 0.0
    for row, (positive, weight) in enumerate(zip(found.positive, found.weight, strict=True)):
        wanted = positive[positive >= 0]
        if not len(wanted):
            continue
        allowed = torch.ones(logits.shape[1], dtype=torch.bool)
        if mask_seen:
            seen = known.column_of_row[found.history.item[row][found.history.present[row]]]
            allowed[seen[seen >= 0]] = False
            allowed[wanted] = True
        log_likelihood = logits[row] - torch.logsumexp(logits[row][allowed], 0)
        share_of = torch.from_numpy(weight[positive >= 0])
        example = share_of.max().item() if known.by_weight else 1.0
        total = total - example * (log_likelihood[wanted] * share_of).sum() / share_of.sum()
        weights += example
    return total / weights


def test_log_popularity_is_added_to_the_logits() -> None:
    share = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)
    found, net = batch([[1]], [[1.0]]), network(SMALL)
    with torch.no_grad():
        logits = (
            net.users(*(torch.from_numpy(x) for x in found.history)) @ net.candidate_vectors().T
            + net.bias
        )
    for logq in (0.0, 0.5, 1.0):
        want = -torch.log_softmax(logits + logq * share.log().float(), 1)[0, 1].item()
        assert loss_of(found, FitConfig(logq=logq), sampler=share) == pytest.approx(want, rel=1e-5)


def test_the_sampled_softmax_adds_it_to_its_own_correction() -> None:
    share = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)
    found = batch([[0, 1]], [[1.0, 1.0]])  # two columns at least, whatever is drawn
    plain, corrected = (
        loss_of(found, FitConfig(logq=q, sampled=1), sampler=share) for q in (0.0, 1.0)
    )
    assert plain != corrected


def test_with_the_correction_popular_items_score_lower() -> None:
    data = synthetic.dataset()
    popular = np.bincount(data.interactions.item, minlength=len(data.items))
    slopes = []
    for logq in (0.0, 1.0):
        source = pretrain(data, ("big",), replace(CONFIG, logq=logq))
        assert source.provenance.train.logq == logq
        count = np.log1p(popular[[data.item_row[name] for name in source.ids[: source.candidates]]])
        histories = UserHistories.of(
            data.interactions, source.rows(data), len(data.users), len(source.ids)
        )
        parts = source.part_scores(histories, np.arange(60, dtype=np.int32))
        slopes.append(np.polyfit(count, (parts.two_tower + parts.bias).mean(0), 1)[0])
    assert slopes[1] < slopes[0] - 0.3, slopes


def with_views() -> Dataset:
    """Return the synthetic dataset; every other interaction is a view."""
    data = synthetic.dataset()
    log = data.interactions
    event = np.where(
        np.arange(len(log)) % 2, EVENTS.index("view"), EVENTS.index("purchase")
    ).astype(np.int32)
    return replace(
        data,
        interactions=replace(log, event=event, weight=np.array(EVENT_WEIGHTS, np.float32)[event]),
    )


def test_event_weights_change_the_loss() -> None:
    data = with_views()
    losses = {
        weights: pretrain(data, ("big",), replace(QUICK, event_weights=weights)).provenance.losses
        for weights in ((), (("view", 0.2),), (("view", 0.01),), (("view", 0.0),))
    }
    assert len({tuple(values) for values in losses.values()}) == 4
    quarter_weight = data.interactions.weight / np.float32(4)
    quarter = replace(data, interactions=replace(data.interactions, weight=quarter_weight))
    assert pretrain(quarter, ("big",), QUICK).provenance.losses == pytest.approx(
        losses[()], rel=1e-6
    )


def test_an_event_of_weight_0_is_never_a_positive() -> None:
    log = log_of([(0, 1, 1), (0, 12, 2), (0, 13, 3), (0, 12, 4)])
    log = replace(log, weight=np.array([1, 0, 1, 1], np.float32))
    found = examples(log, first_only=True)
    assert found.is_target.tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"logq": 1.5}, r"logq must lie in \[0, 1\]"),
        ({"event_weights": (("glance", 1.0),)}, "event_weights take view, click"),
        ({"event_weights": (("view", -1.0),)}, "0 or more"),
        ({"event_weights": (("view", float("nan")),)}, "0 or more"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrainConfig(**options)  # type: ignore[arg-type]  # one of several options
