"""Training examples and item features: histories, their positives, and encoded content."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import synthetic
from helpers.logs import AGE_BUCKETS, LENGTH, examples, log_of
from tlrec_edge.core.features import FeatureEncoder, hash_tokens, tokens
from tlrec_edge.data.dataset import Interactions
from tlrec_edge.data.task import make_tasks
from tlrec_edge.data.vocabulary import build_vocabulary
from tlrec_edge.linear.low_rank import truncated_svd
from tlrec_edge.train import examples as module
from tlrec_edge.train.examples import DAY, Examples, age_bucket, gather_histories
from tlrec_edge.train.item_features import cooccurrence_vectors, encode_features, fit_features

LOG = log_of(
    [
        (0, 1, 1),
        (0, 12, 2),
        (0, 13, 2),
        (0, 2, 3),
        (0, 14, 4),
        (1, 15, 1),
        (1, 3, 5),
        (2, 16, 1),
        (2, 17, 2),
    ]
)


def met(found: Examples) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return (history, positives) of one epoch."""
    result = set()
    for batch in found.epoch(np.random.default_rng(0), 2, 99):
        for item, present, positive in zip(
            batch.history.item, batch.history.present, batch.positive, strict=True
        ):
            result.add(
                (
                    tuple(sorted(item[present].tolist())),
                    tuple(sorted(c + 10 for c in positive[positive >= 0])),
                )
            )
    return result


def test_a_basket_follows_the_history_before_it() -> None:
    assert met(examples(LOG)) == {((1,), (12, 13)), ((1, 2, 12, 13), (14,)), ((16,), (17,))}


def test_only_the_last_items_are_read() -> None:
    log = log_of([(0, i, i + 1) for i in range(9)] + [(0, 15, 20)])
    assert met(examples(log)) == {((5, 6, 7, 8), (15,))}


def test_target_dropout_leaves_the_history_of_other_domains() -> None:
    assert met(examples(LOG, target_dropout=1.0)) == {
        ((1,), (12, 13)),
        ((1, 2), (14,)),
        ((16,), (17,)),
    }


def test_first_only_has_no_repeated_positive() -> None:
    log = log_of([(0, 12, 1), (0, 12, 2), (0, 13, 2), (0, 12, 3)])
    assert met(examples(log, first_only=True)) == {((12,), (13,))}


@given(st.integers(0, 99))
def test_random_cuts_have_no_positive_from_the_past(seed: int) -> None:
    log = log_of([(u, (3 * u + i) % 20, 0) for u in range(3) for i in range(6)])
    for batch in examples(log, unit="item").epoch(np.random.default_rng(seed), 8, 99):
        for item, present, positive in zip(
            batch.history.item, batch.history.present, batch.positive, strict=True
        ):
            assert not set(item[present].tolist()) & {
                c + 10 for c in positive[positive >= 0].tolist()
            }
            assert present.any()


def test_an_epoch_is_limited() -> None:
    sizes = [len(batch.positive) for batch in examples(LOG).epoch(np.random.default_rng(0), 2, 3)]
    assert sizes == [2, 1]


@given(st.integers(0, 999), st.sampled_from(["basket", "item"]))
def test_interactions_of_one_time_are_shuffled_and_stay_together(seed: int, unit: str) -> None:
    """Compared with the definition: the log sorted by user, time and chance."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 40))
    rows = sorted(
        zip(*(rng.integers(0, top, size).tolist() for top in (4, 20, 3)), strict=True),
        key=lambda r: (r[0], r[2]),
    )
    log, found = log_of(rows), examples(log_of(rows), unit=unit)
    start, _, stop = (
        found._baskets if unit == "basket" else found._random_cuts(np.random.default_rng(seed))
    )
    chance = rng.random(size)
    order = found._shuffle_ties(start.astype(np.int64), stop.astype(np.int64), chance)
    plain = np.lexsort((chance, log.time, log.user))
    for low, high in zip(start, stop, strict=True):
        np.testing.assert_array_equal(order[low:high], plain[low:high])
    assert sorted(order.tolist()) == list(range(size))


@pytest.mark.parametrize("block", [1, 5, 1 << 20])
def test_first_purchases_are_found_some_users_at_a_time(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_PER_BLOCK", block)
    rng = np.random.default_rng(0)
    log = log_of(sorted((int(u), int(i), 1) for u, i in rng.integers(0, (9, 6), (80, 2))))
    seen: set[tuple[int, int]] = set()
    for user, item, first in zip(
        log.user.tolist(), log.item.tolist(), examples(log)._first(), strict=True
    ):
        assert first == ((user, item) not in seen)
        seen.add((user, item))


@pytest.mark.parametrize("unit", ["basket", "item"])
def test_an_epoch_takes_a_few_bytes_per_interaction(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_PER_BLOCK", 4096)
    size = 200_000
    user = np.sort(np.random.default_rng(0).integers(0, size // 20, size)).astype(np.int32)
    item, day = (
        np.arange(size, dtype=np.int32) % 20,
        np.arange(size) // 2 if unit == "basket" else np.zeros(size),
    )
    time, weight, place = (
        day.astype(np.int64) * DAY,
        np.ones(size, np.float32),
        np.arange(size, dtype=np.int32),
    )
    log = Interactions(user, item, item // 10, item * 0 + 3, weight, time, place)
    found = examples(log, unit=unit, first_only=True)
    tracemalloc.start()
    try:
        epoch = found.epoch(np.random.default_rng(0), 64, 1000)
        next(epoch)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 24 * size, held / size
    assert peak < 60 * size, peak / size


def test_histories_are_right_aligned_with_events_and_ages() -> None:
    rows = np.arange(20, dtype=np.int32)
    rows[13] = -1
    found = gather_histories(LOG, np.array([0]), np.array([5]), rows, LENGTH, AGE_BUCKETS)
    assert found.present.tolist() == [[True, False, True, True]]
    assert found.item.tolist() == [[12, 0, 2, 14]]
    assert found.age[found.present].tolist() == [1, 1, 0]
    short = gather_histories(LOG, np.array([5]), np.array([6]), rows, LENGTH, AGE_BUCKETS)
    assert short.present.tolist() == [[False, False, False, True]]
    assert gather_histories(
        log_of([(0, 1, 0)]), np.array([0]), np.array([1]), rows, LENGTH, AGE_BUCKETS
    ).age.tolist() == [[-1] * 4]


def test_ages_grow_by_powers_of_two() -> None:
    days = np.array([-5, 0, 0.9, 1, 2.9, 3, 1e9])
    assert age_bucket((days * DAY).astype(np.int64), AGE_BUCKETS).tolist() == [0, 0, 0, 1, 1, 2, 11]


def test_candidates_come_first_and_rare_items_stay_out() -> None:
    task = make_tasks(synthetic.dataset(), ("small",)).final
    every, few = (
        build_vocabulary(synthetic.dataset(), task),
        build_vocabulary(synthetic.dataset(), task, 40),
    )
    assert every.candidates == few.candidates == len(task.candidates)
    assert [name[0] for name in every.ids] == ["s"] * every.candidates + ["b"] * (
        len(every.ids) - every.candidates
    )
    assert every.candidates < len(few.ids) < len(every.ids)
    known = every.rows >= 0
    np.testing.assert_array_equal(every.dataset_rows[every.rows[known]], np.flatnonzero(known))


@pytest.mark.parametrize("shape", [(60, 30), (30, 60), (200, 90), (5, 2)])
@pytest.mark.parametrize("true_rank", [3, 40])
def test_low_rank_is_the_svd_and_repeats(shape: tuple[int, int], true_rank: int) -> None:
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    dense = rng.standard_normal((shape[0], true_rank)) @ rng.standard_normal((true_rank, shape[1]))
    rank = min(8, min(shape) - 1)
    left, values, right = truncated_svd(sp.csr_array(dense), rank)
    u, s, v = np.linalg.svd(dense, full_matrices=False)
    np.testing.assert_allclose(values, s[:rank], rtol=0.02, atol=1e-4)
    best = np.linalg.norm(dense - (u[:, :rank] * s[:rank]) @ v[:rank])
    assert np.linalg.norm(dense - (left * values) @ right.T) <= 1.02 * best + 1e-3
    for one, again in zip(
        (left, values, right), truncated_svd(sp.csr_array(dense), rank), strict=True
    ):
        np.testing.assert_array_equal(one, again)


def test_items_that_share_baskets_have_similar_vectors() -> None:
    log = log_of(
        [(user, item, 1) for user in range(20) for item in ((1, 2, 3) if user % 2 else (4, 5, 6))]
    )
    vectors = cooccurrence_vectors(log, np.arange(20, dtype=np.int32), 20, 6, by_basket=False)
    assert vectors[1] @ vectors[2] > 0.9
    assert abs(vectors[1] @ vectors[5]) < 0.1
    assert not vectors[7].any()


def test_features_by_hand() -> None:
    encoder = FeatureEncoder(
        (), {"colour": ("blue", "red")}, {"price": (0.0, 10.0, 20.0)}, np.zeros((0, 0), np.float32)
    )
    found = encoder.encode(
        {"colour": ["red", "green", ""], "price": [5.0, float("nan"), float("inf")]}, 3
    )
    assert found.categories.tolist() == [[2], [0], [0]]
    assert found.numeric.tolist() == [[-0.5, 0.0], [0.0, 1.0], [0.0, 1.0]]
    assert encoder.encode({"price": [-99, "12", None]}, 3).numeric.tolist() == [
        [-1.0, 0.0],
        [pytest.approx(0.2), 0],
        [0, 1],
    ]


def test_fitted_features_of_the_synthetic_dataset() -> None:
    data = synthetic.dataset()
    encoder = fit_features(data)
    assert encoder.vocabulary == {"category": tuple(sorted(synthetic.TASTES))}
    found = encode_features(data, encoder, np.arange(len(data.items), dtype=np.int32))
    assert np.isfinite(found.text).all()
    np.testing.assert_allclose(np.linalg.norm(found.text, axis=1), 1.0, atol=1e-5)
    assert np.abs(found.numeric).max() <= 1.0
    missing = np.isnan(data.features.numeric["price"])
    np.testing.assert_array_equal(found.numeric[:, 1], missing)
    same, other = found.text[data.item_row["b0"]], found.text[data.item_row["b1"]]
    assert same @ found.text[data.item_row["b4"]] > same @ other


@given(st.text(max_size=40))
def test_tokens_of_any_text(text: str) -> None:
    found = tokens(text)
    assert found == tokens(text.lower())
    buckets, rows = hash_tokens([text, "", text], 64)
    assert len(buckets) == 2 * len(found)
    assert set(rows.tolist()) <= {0, 2}
    assert ((buckets >= 0) & (buckets < 64)).all()
