"""Augmentation: what each way may change in a history, and that each history gets one way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import synthetic
from helpers.synthetic import CONFIG
from tlrec_edge.train import TrainConfig, pretrain
from tlrec_edge.train.augment import AUGMENTATIONS, CROP, MASK, REORDER, HistoryBatch, augment

LENGTH = 12


def histories(present: np.ndarray) -> HistoryBatch:
    """Return histories of distinct items; events and ages follow from the items."""
    item = np.arange(1, present.size + 1).reshape(present.shape)
    item = np.where(present, item, 0)
    return HistoryBatch(item, item * 2 % 5, item * 3 % 7, present)


def rows(batch: HistoryBatch) -> list[list[int]]:
    return [item[there].tolist() for item, there in zip(batch.item, batch.present, strict=True)]


shapes = st.lists(
    st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH), min_size=1, max_size=6
).map(np.array)


@pytest.mark.parametrize("name", [*AUGMENTATIONS, "all"])
@given(present=shapes, seed=st.integers(0, 99))
def test_no_history_is_emptied_and_events_move_with_their_items(
    name: str, present: np.ndarray, seed: int
) -> None:
    before = histories(present)
    names = tuple(AUGMENTATIONS) if name == "all" else (name,)
    after = augment(histories(present), names, np.random.default_rng(seed))
    assert [part.dtype for part in after] == [part.dtype for part in before]
    for old, new in zip(rows(before), rows(after), strict=True):
        assert set(new) <= set(old)
        assert len(new) == len(set(new))
        assert bool(new) == bool(old)
    there = after.present
    np.testing.assert_array_equal(after.event[there], after.item[there] * 2 % 5)
    np.testing.assert_array_equal(after.age[there], after.item[there] * 3 % 7)


@given(present=shapes, seed=st.integers(0, 99))
def test_each_way_does_what_its_name_says(present: np.ndarray, seed: int) -> None:
    def after(name: str) -> HistoryBatch:
        return augment(histories(present), (name,), np.random.default_rng(seed))

    old = rows(histories(present))
    for row, new, there in zip(old, rows(after("crop")), after("crop").present, strict=True):
        assert len(new) == (max(1, int(CROP * len(row))) if row else 0)
        start = row.index(new[0]) if new else 0
        assert new == row[start : start + len(new)]
        assert there[LENGTH - len(new) :].all()
    for row, new in zip(old, rows(after("mask")), strict=True):
        assert len(new) == len(row) - int(MASK * len(row))
        assert new == sorted(new)
    for row, new in zip(old, rows(after("reorder")), strict=True):
        assert sorted(new) == row
        moved = [i for i, (a, b) in enumerate(zip(row, new, strict=True)) if a != b]
        assert not moved or moved[-1] - moved[0] < max(1, int(REORDER * len(row)))
    np.testing.assert_array_equal(after("reorder").present, present)
    for new in rows(after("token-dropout")):
        assert new == sorted(new)


def test_token_dropout_drops_each_item_by_itself() -> None:
    present = np.ones((4000, LENGTH), bool)
    remaining = augment(histories(present), ("token-dropout",), np.random.default_rng(0)).present
    np.testing.assert_allclose(remaining.mean(0), 0.8, atol=0.03)
    assert abs(np.corrcoef(remaining[:, 0], remaining[:, 1])[0, 1]) < 0.06


def test_a_history_is_changed_in_one_random_way() -> None:
    present = np.ones((3000, LENGTH), bool)
    after = augment(histories(present), ("crop", "mask"), np.random.default_rng(0)).present
    cropped = after.sum(1) == int(CROP * LENGTH)
    assert set(after.sum(1).tolist()) == {int(CROP * LENGTH), LENGTH - int(MASK * LENGTH)}
    assert 0.45 < cropped.mean() < 0.55


def test_without_names_nothing_is_drawn() -> None:
    rng, batch = np.random.default_rng(0), histories(np.ones((2, LENGTH), bool))
    assert augment(batch, (), rng) is batch
    assert rng.random() == np.random.default_rng(0).random()


def test_training_is_augmented_and_seeded() -> None:
    data = synthetic.dataset()
    quick = replace(CONFIG, pretrain_epochs=2)
    config = replace(quick, augment=("crop", "reorder"))
    one, again, plain = (
        pretrain(data, ("big",), each).provenance.losses for each in (config, config, quick)
    )
    assert one == again
    assert one != plain


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"augment must be among .*'crop'.*, not 'shake'"):
        TrainConfig(augment=("shake",))
