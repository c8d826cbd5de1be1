"""Dropout: the share that becomes zero, the scale of the rest, and the seed."""

from __future__ import annotations

import torch

from tlrec_edge.train.dropout import Dropout


def test_a_share_of_the_values_becomes_zero_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    values = Dropout(0.2)(torch.ones(500, 400))
    zeros = (values == 0).float().mean().item()
    assert abs(zeros - 0.2) < 0.005  # five standard errors
    assert abs(values.mean().item() - 1) < 0.006
    assert len(values.unique()) == 2


def test_each_row_and_column_loses_its_share() -> None:
    torch.manual_seed(0)
    zeros = Dropout(0.5)(torch.ones(400, 400)) == 0
    for side in (0, 1):
        assert (zeros.float().mean(side) - 0.5).abs().max() < 0.15  # six standard errors


def test_the_mask_follows_torch_s_generator() -> None:
    dropout, ones = Dropout(0.5), torch.ones(64)
    torch.manual_seed(3)
    first, state, second = dropout(ones), torch.get_rng_state(), dropout(ones)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(ones), second)
    torch.manual_seed(3)
    assert torch.equal(dropout(ones), first)


def test_nothing_is_dropped_in_evaluation_or_at_rate_0() -> None:
    ones = torch.ones(64)
    assert Dropout(0.5).eval()(ones) is ones
    assert Dropout(0.0)(ones) is ones


def test_the_gradient_is_that_of_the_values_that_were_kept() -> None:
    torch.manual_seed(0)
    values = torch.ones(64, requires_grad=True)
    dropped = Dropout(0.5)(values)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, dropped.detach())
