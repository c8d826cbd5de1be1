"""Metrics against values computed by hand, and properties that hold for any scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tlrec_edge.core.metrics import (
    METRICS,
    Estimate,
    Lift,
    auc,
    clustered_mean,
    describe,
    gini,
    paired_lift,
    rank_of_positive,
)

NAN, INF = float("nan"), float("inf")
scores = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.integers(-9, 9)
)


@pytest.mark.parametrize(
    ("row", "rank"),
    [
        ([3, 1, 2], 1.0),
        ([1, 3, 2], 3.0),
        ([2, 2, 1], 1.5),
        ([0, 0, 0, 0], 2.5),
        ([NAN, 1, 2], 3.0),
        ([1, NAN, 2], 2.0),
        ([NAN, NAN, 1], 2.5),
        ([INF, 1, 2], 1.0),
        ([-INF, NAN, 1], 2.5),
        ([5], 1.0),
    ],
)
def test_ranks_by_hand(row: list[float], rank: float) -> None:
    assert rank_of_positive(np.array([row], np.float64)).tolist() == [rank]


def test_only_valid_columns_are_compared() -> None:
    valid = np.array([[True, False, True, False]])
    assert rank_of_positive(np.array([[1.0, 9.0, 2.0, 1.0]]), valid).tolist() == [2.0]


@pytest.mark.parametrize(
    ("rank", "ndcg", "hit", "mrr"),
    [
        (1.0, 1.0, 1, 1.0),
        (1.5, 1 / math.log2(2.5), 1, 1 / 1.5),
        (3.0, 0.5, 1, 1 / 3),
        (3.5, 1 / math.log2(4.5), 1, 1 / 3.5),
        (4.0, 0.0, 0, 0.0),
        (99.0, 0.0, 0, 0.0),
    ],
)
def test_metrics_at_3_by_hand(rank: float, ndcg: float, hit: float, mrr: float) -> None:
    metrics = [METRICS[name](np.array([rank]), 3)[0] for name in ("ndcg", "hr", "mrr")]
    assert metrics == pytest.approx([ndcg, hit, mrr])


def test_auc_is_the_share_of_beaten_candidates() -> None:
    assert auc(np.array([1.0, 3.0, 2.0, 1.0]), np.array([4, 2, 2, 0])).tolist() == [
        1.0,
        0.0,
        0.5,
        1.0,
    ]


@given(scores)
def test_an_increasing_transform_keeps_ranks(table: np.ndarray) -> None:
    np.testing.assert_array_equal(
        rank_of_positive(table), rank_of_positive(table**3 / 7 + 2 * table - 5)
    )


@given(scores)
def test_ranks_of_all_columns_sum_to_those_of_a_permutation(table: np.ndarray) -> None:
    n = table.shape[1]
    ranks = [rank_of_positive(np.roll(table, -column, axis=1)) for column in range(n)]
    np.testing.assert_allclose(np.sum(ranks, 0), n * (n + 1) / 2)


@given(scores, st.integers(1, 12))
def test_metrics_lie_between_0_and_1_and_grow_with_k(table: np.ndarray, k: int) -> None:
    rank = rank_of_positive(table)
    for metric in METRICS.values():
        assert ((metric(rank, k) >= 0) & (metric(rank, k) <= metric(rank, k + 1))).all()
        assert (metric(rank, k + 1) <= 1).all()


def test_the_clustered_error_equals_the_bootstrap_error() -> None:
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 150, 600))
    values = rng.random(600) * 0.2 + rng.random(150)[users]
    total, count = np.bincount(users, weights=values), np.bincount(users)
    draws = []
    for _ in range(4000):
        pick = rng.integers(0, len(count), len(count))
        draws.append(total[pick].sum() / count[pick].sum())
    estimate = clustered_mean(values, users)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.se == pytest.approx(np.std(draws), rel=0.05)
    assert estimate.by_user == pytest.approx((total[count > 0] / count[count > 0]).mean())
    assert estimate.se > 2 * values.std() / math.sqrt(600)


def test_an_estimate_from_no_rows_is_nan() -> None:
    estimate = clustered_mean(np.empty(0), np.empty(0, int))
    assert all(math.isnan(value) for value in (estimate.mean, estimate.se, estimate.by_user))
    assert isinstance(estimate, Estimate)


def test_lift_is_paired() -> None:
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(100), 3)
    base = rng.random(300)
    lift = paired_lift(base + 0.05 + 0.01 * rng.standard_normal(300), base, users)
    assert lift.mean == pytest.approx(0.05, abs=0.003)
    assert lift.low < 0.05 < lift.high
    assert (lift.high - lift.low) / 2 == pytest.approx(1.96 * lift.se, rel=0.15)
    assert lift.verdict == "better"
    assert Lift(-0.3, 0.1, -0.5, -0.1).verdict == "worse"
    assert Lift(0.19, 0.1, 0.0, 0.4).verdict == "no difference shown"
    assert Lift(NAN, NAN, NAN, NAN).verdict == "no difference shown"


@pytest.mark.parametrize("count", [2, 240, 20_000])
def test_the_interval_is_that_of_samples_drawn_one_by_one(count: int) -> None:
    rng = np.random.default_rng(2)
    users = np.repeat(np.arange(count), rng.integers(1, 4, count))
    values = rng.standard_normal(len(users))
    lift = paired_lift(values, np.zeros(len(users)), users, draws=50, seed=3)
    total, rows = np.bincount(users, weights=values), np.bincount(users)
    one_by_one, means = np.random.default_rng(3), []
    for _ in range(50):
        sample = one_by_one.integers(0, count, count)
        means.append(total[sample].sum() / rows[sample].sum())
    assert [lift.low, lift.high] == np.quantile(means, [0.025, 0.975]).tolist()


def test_describe_returns_every_figure() -> None:
    figures = describe(np.array([1.0, 11.0]), np.array([19, 19]), np.array([0, 1]), (5, 20))
    assert figures["recall@5"] == figures["hr@5"] == 0.5
    assert figures["hr@20"] == 1.0
    assert figures["auc"] == pytest.approx(1 - 5 / 19)
    assert set(figures) == {
        *(f"{name}@{k}" for name in ("ndcg", "hr", "mrr", "recall") for k in (5, 20)),
        *(f"ndcg@{k}.{kind}" for kind in ("se", "by_user") for k in (5, 20)),
        *(f"recall@{k}.by_user" for k in (5, 20)),
        "auc",
    }


def test_recall_by_user_is_the_share_of_a_users_positives() -> None:
    figures = describe(np.array([1.0, 9.0, 2.0]), np.full(3, 9), np.array([0, 0, 1]), (3,))
    assert figures["recall@3"] == pytest.approx(2 / 3)
    assert figures["recall@3.by_user"] == pytest.approx((0.5 + 1) / 2)


@pytest.mark.parametrize("users", [[], [4], [4, 4]])
def test_a_lift_of_fewer_than_two_users_has_no_interval(users: list[int]) -> None:
    lift = paired_lift(np.ones(len(users)), np.zeros(len(users)), np.array(users, int))
    assert all(math.isnan(value) for value in (lift.se, lift.low, lift.high))
    assert math.isnan(lift.mean) if not users else lift.mean == 1.0
    assert lift.verdict == "no difference shown"


@pytest.mark.parametrize(
    ("counts", "value"), [([5, 5, 5, 5], 0.0), ([0, 0, 0, 8], 0.75), ([1, 3], 0.25), ([0, 0], NAN)]
)
def test_gini_by_hand(counts: list[int], value: float) -> None:
    assert gini(np.array(counts)) == pytest.approx(value, nan_ok=True)
