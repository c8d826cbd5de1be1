"""Linear scorers and popularity against their definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers import synthetic
from helpers.synthetic import CONFIG
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.data.task import make_tasks
from tlrec_edge.linear import tuning
from tlrec_edge.linear.baselines import TunedEase, ease_scorer
from tlrec_edge.linear.ease import Ease
from tlrec_edge.linear.interest import group_counts, interest_ridge
from tlrec_edge.linear.item_cf import item_cf
from tlrec_edge.linear.item_weights import sparsify_weights, split_weights
from tlrec_edge.linear.matrices import InteractionMatrices, keep_largest_per_column
from tlrec_edge.linear.priors import HALF_LIVES, log_popularity, popularity, sales_prior
from tlrec_edge.linear.tuning import PENALTIES, EaseHyperparameters, tune_ease
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.train import adapt
from tlrec_edge.train.score_weights import fit_score_weights


def binary(users: int, items: int, seed: int = 0) -> sp.csr_array:
    return sp.csr_array(
        (np.random.default_rng(seed).random((users, items)) < 0.25).astype(np.float32)
    )


def textbook_ease(x: np.ndarray, penalty: float) -> np.ndarray:
    inverse = np.linalg.inv(x.T @ x + penalty * np.eye(x.shape[1]))
    weights: np.ndarray = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


@pytest.mark.parametrize(("users", "items"), [(12, 40), (40, 12), (20, 20)])
@pytest.mark.parametrize("few_columns", [True, False], ids=["few columns", "all columns"])
@pytest.mark.parametrize("penalty", [0.5, 100.0])
def test_ease_matches_the_textbook(
    users: int, items: int, few_columns: bool, penalty: float
) -> None:
    x = binary(users, items)
    columns = np.arange(items)[:: 4 if few_columns else 1][::-1].astype(np.int32)
    expected = textbook_ease(x.toarray().astype(np.float64), penalty)[:, columns]
    solver = Ease(x, columns)
    np.testing.assert_allclose(solver.weights(penalty), expected, atol=1e-5)
    history = binary(9, items, seed=1)
    np.testing.assert_allclose(solver.scorer(penalty)(history), history @ expected, atol=1e-5)
    np.testing.assert_allclose(
        solver.scorer(penalty)(history[[2]]), history[[2]] @ expected, atol=1e-5
    )


@pytest.mark.parametrize("users", [3, 12])
def test_candidates_without_interactions_have_no_weights(
    users: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in a target that nobody has bought from. LAPACK wrote to stdout when it got no columns."""
    x = sp.csr_array(np.hstack([binary(users, 8).toarray(), np.zeros((users, 4))]))
    columns = np.arange(8, 12, dtype=np.int32)
    np.testing.assert_array_equal(Ease(x, columns).weights(2.0), np.zeros((12, 4)))
    assert capfd.readouterr() == ("", "")


def test_heavy_users_weigh_less_and_an_interaction_as_much_as_before() -> None:
    x = binary(12, 8)
    size = x.toarray().sum(1)
    weight = np.where(size > 0, np.maximum(size, 1) ** -0.5, 0)
    weight *= size.sum() / (weight * size).sum()
    scaled = x.toarray() * np.sqrt(weight)[:, None]
    columns = np.arange(8, dtype=np.int32)
    np.testing.assert_allclose(
        Ease(x, columns, 0.5).weights(2.0), textbook_ease(scaled, 2.0), atol=1e-5
    )


@pytest.mark.parametrize("rank", [0, 3, 30])
def test_the_residual_is_the_best_low_rank_matrix_of_the_small_weights(rank: int) -> None:
    weights = np.random.default_rng(0).normal(0, 1, (40, 12)).astype(np.float32)
    sparse, residual = split_weights(weights, 5, 4, rank)
    assert np.array_equal(sparse.toarray(), sparsify_weights(weights, 5, 4).toarray())
    assert residual.rank == min(rank, 12)
    small = np.where(sparse.toarray() != 0, 0, weights)
    u, s, v = np.linalg.svd(small, full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    np.testing.assert_allclose(residual.input_factors @ residual.output_factors.T, best, atol=1e-4)
    if rank:
        assert np.mean(residual.output_factors**2) == pytest.approx(1.0, rel=1e-5)


def test_ease_of_items_nobody_bought_is_zero() -> None:
    x = sp.csr_array(np.array([[1, 1, 0], [1, 0, 0]], np.float32))
    weights = Ease(x, np.arange(3, dtype=np.int32)).weights(1.0)
    assert not weights[2].any()
    assert not weights[:, 2].any()


def test_item_cf_by_hand() -> None:
    x = sp.csr_array(np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0]], np.float32))
    columns = np.array([1, 0], np.int32)
    np.testing.assert_allclose(
        item_cf(x, columns).toarray(), [[2 / 3, 0], [0, 2 / 3], [1 / 2, 1 / 3]]
    )
    cosine = item_cf(x, columns, "cosine").toarray()
    np.testing.assert_allclose(
        cosine, [[2 / np.sqrt(6), 0], [0, 2 / np.sqrt(6)], [1 / np.sqrt(2), 1 / np.sqrt(3)]]
    )


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-5, 5)
    ),
    st.integers(1, 10),
    st.integers(1, 10),
)
def test_sparsify_weights_limits_columns_then_rows(
    weights: np.ndarray, per_column: int, per_row: int
) -> None:
    sparse = sparsify_weights(weights, per_column, per_row)
    dense = sparse.toarray()
    assert (np.count_nonzero(dense, 0) <= per_column).all()
    assert (np.count_nonzero(dense, 1) <= per_row).all()
    assert ((dense == 0) | (dense == weights)).all()
    if per_column >= len(weights) and per_row >= weights.shape[1]:
        np.testing.assert_array_equal(dense, weights)


def test_sparsify_weights_keeps_the_largest() -> None:
    weights = np.array([[1, -5, 3], [2, 4, -9], [-3, 1, 1]], np.float32)
    assert sparsify_weights(weights, 2, 9).toarray().tolist() == [
        [0, -5, 3],
        [2, 4, -9],
        [-3, 0, 0],
    ]
    assert sparsify_weights(weights, 2, 1).toarray().tolist() == [
        [0, -5, 0],
        [0, 0, -9],
        [-3, 0, 0],
    ]


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_interest_ridge_is_truncated_to_its_rank(rank: int) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, (80, 6)).astype(np.float32)
    labels = (rng.random((80, 9)) < 0.3).astype(np.float32)
    factors = interest_ridge(counts, labels, 2.0, rank)
    assert (factors.input_factors.shape, factors.output_factors.shape) == ((6, rank), (9, rank))
    x = np.log1p(counts) - np.log1p(counts).mean(0)
    full = np.linalg.solve(x.T @ x + 2.0 * np.eye(6), x.T @ (labels - labels.mean(0)))
    left, values, right = np.linalg.svd(full, full_matrices=False)
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    np.testing.assert_allclose(factors.input_factors @ factors.output_factors.T, best, atol=1e-5)


def test_group_counts_by_hand() -> None:
    seen = sp.csr_array(np.array([[1, 1, 1], [0, 0, 0]], np.float32))
    groups = np.array([[0, 2], [0, -1], [1, -1]], np.int32)
    assert group_counts(seen, groups, 4).tolist() == [[2, 1, 1, 0], [0, 0, 0, 0]]


def test_popularity_counts_buyers_of_the_target_once() -> None:
    task = make_tasks(synthetic.dataset(), ("small",)).final
    buyers: dict[int, set[int]] = {}
    for user, item in synthetic.pairs(task, "train"):
        buyers.setdefault(item, set()).add(user)
    assert popularity(task).tolist() == [len(buyers.get(item, ())) for item in task.candidates]


def test_the_penalty_is_chosen_on_validation() -> None:
    task = make_tasks(synthetic.dataset(), ("small",)).choose
    lines: list[str] = []
    tuned = tune_ease(task, InteractionMatrices.of(task), lines.append)
    assert tuned.ndcg > 0.4
    assert lines[0] == "penalty 100, 1 of 4"
    assert lines[1].startswith("penalty 300, 2 of 4, best validation 0.")
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize(
    ("peak", "edge"), [(300.0, False), (30.0, False), (3e4, False), (1.0, True), (1e5, True)]
)
def test_the_penalty_grid_is_widened_until_the_best_lies_inside(
    peak: float, edge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The solver is replaced by one that scores best at the penalty ``peak``."""
    task = make_tasks(synthetic.dataset(), ("small",)).choose
    tried: list[float] = []

    def scorer(self: Ease, penalty: float, needed: object) -> object:
        tried.append(penalty)
        noise = np.random.default_rng(0).random((task.n_users, len(task.candidates)))
        hit = np.zeros_like(noise)
        hit[task.rows.user, task.column[task.rows.item]] = 1 / (1 + abs(np.log(penalty / peak)))
        users = np.unique(task.rows.user)
        return lambda history, columns: (noise + 2 * hit)[users]

    monkeypatch.setattr(Ease, "scorer", scorer)
    tuned = tune_ease(task, InteractionMatrices.of(task))
    assert (tuned.penalty, tuned.at_grid_edge) == (peak, edge)
    assert len(tried) == len(set(tried)) <= len(PENALTIES)
    assert edge or min(tried) < peak < max(tried)


def test_a_constant_part_gets_no_weight() -> None:
    rng = np.random.default_rng(0)
    good = rng.random((200, 11))
    good[:, 0] += 0.5
    valid = np.ones(good.shape, bool)
    found = fit_score_weights([np.zeros_like(good), good], valid)
    assert found.weights[0] == 0
    assert found.weights[1] > 0
    assert found.ndcg > fit_score_weights([rng.random((200, 11))], valid).ndcg
    assert fit_score_weights(
        [np.zeros_like(good), good], valid, start=found.weights
    ).weights == pytest.approx(found.weights)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_sales_prior_is_the_centred_log_of_the_sales_column(bad: float) -> None:
    data = synthetic.dataset()
    rows = np.arange(5, dtype=np.int32)

    def prior(*values: float) -> list[float]:
        sold = np.full(len(data.items), bad, np.float32)
        sold[: len(values)] = values
        changed = replace(data, features=replace(data.features, numeric={"sales": sold}))
        return sales_prior(changed, rows).tolist()  # type: ignore[no-any-return]  # numpy gives Any

    assert prior(0, np.e - 1, np.e**2 - 1, bad, -5) == pytest.approx(
        [-0.75, 0.25, 1.25, 0.0, -0.75]
    )
    assert prior() == [0.0] * 5
    assert sales_prior(data, rows).tolist() == [0.0] * 5


def test_a_tuned_ranker_remembers_its_hyperparameters() -> None:
    tasks = make_tasks(synthetic.dataset(), ("small",))
    ranker = TunedEase(target_only=False)
    assert len(ranker(tasks).rank) == len(tasks.final.rows)
    assert ranker.choice is not None
    assert ranker.choice.penalty in PENALTIES


def test_popularity_decays_with_the_days_since_each_buyers_last_purchase() -> None:
    task = make_tasks(synthetic.dataset(), ("small",)).final
    log = task.train.select(task.in_target(task.train))
    now = log.time.max()
    expected = np.zeros(task.n_items)
    for user, item in set(zip(log.user.tolist(), log.item.tolist(), strict=True)):
        last = log.time[(log.user == user) & (log.item == item)].max()
        expected[item] += 0.5 ** ((now - last) / 86_400 / 30.0)
    np.testing.assert_allclose(popularity(task, 30.0), expected[task.candidates], rtol=1e-5)
    assert (popularity(task, 1e9) <= popularity(task) + 1e-4).all()


def changing_shop(seed: int = 0) -> Dataset:
    """Return a log in which everyone buys other items each month, so old popularity is no guide."""
    rng = np.random.default_rng(seed)
    rows = [
        (
            f"u{user}",
            f"i{(month * 10 + rng.integers(14)) % 120}",
            f"2024-{1 + month:02}-{1 + rng.integers(28):02}",
        )
        for user in range(300)
        for month in rng.permutation(12)[:5]
    ]
    table = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    plan = SplitPlan("time", test_from="2024-12-01", valid_from="2024-11-01", negatives=30)
    return prepare_tables([table], [], Schema(), plan).dataset


def test_popularity_decays_only_if_fashion_changes() -> None:
    data = changing_shop()
    model = adapt(data, data.domains, "scratch", None, replace(CONFIG, without=("deep", "wide")))
    choices = model.provenance.choices
    assert choices is not None
    half_life = choices.half_life
    assert half_life in HALF_LIVES
    task = make_tasks(data, data.domains).final
    np.testing.assert_allclose(
        model.bias, log_popularity(task, half_life)[model.rows(data)[task.candidates]]
    )
    validation = make_tasks(data, data.domains).choose
    assert (
        tune_ease(validation, InteractionMatrices.of(validation), decay=True).half_life is not None
    )
    steady = adapt(synthetic.dataset(), ("small",), "scratch", None, CONFIG)
    assert steady.provenance.choices is not None
    assert steady.provenance.choices.half_life is None


def test_a_trimmed_ease_scores_by_the_largest_weights_of_each_candidate() -> None:
    task = make_tasks(synthetic.dataset(), ("small",)).final
    users = np.unique(task.rows.user)[:20]
    full, trimmed = (
        ease_scorer(task, EaseHyperparameters(100.0, 0.0, max_weights=limit))(users)
        for limit in (None, 3)
    )
    data = InteractionMatrices.of(task)
    weights = keep_largest_per_column(Ease(data.train, data.columns).weights(100.0), 3)
    np.testing.assert_allclose(trimmed, (data.history[users] @ weights).toarray(), atol=1e-5)
    assert not np.allclose(trimmed, full)


def test_a_badly_conditioned_matrix_is_solved_in_double_precision() -> None:
    """Items bought by the same users, and hardly a penalty: single precision would give noise."""
    x = binary(400, 12)
    twice = sp.csr_array(sp.hstack([x, x], format="csr"))
    expected = textbook_ease(twice.toarray().astype(np.float64), 1e-3)
    weights = Ease(twice, np.arange(24, dtype=np.int32)).weights(1e-3)
    np.testing.assert_allclose(weights, expected, atol=1e-4)


def test_unbought_items_and_idle_users_change_no_weight() -> None:
    x = binary(30, 10)
    padded = sp.csr_array((50, 17), dtype=np.float32).tolil()
    padded[5:35, 4:14] = x.toarray()
    columns = np.array([16, 6, 9, 0], np.int32)
    weights = Ease(sp.csr_array(padded), columns).weights(2.0)
    assert not weights[:, [0, 3]].any()
    expected = Ease(x, columns[1:3] - 4).weights(2.0)
    np.testing.assert_allclose(weights[4:14, 1:3], expected, atol=1e-6)
    assert not weights[:4].any()
    assert not weights[14:].any()


def test_a_large_search_begins_on_the_most_bought_items(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_tasks(synthetic.dataset(), ("small",)).choose
    data = InteractionMatrices.of(task)
    plain: list[str] = []
    every = tune_ease(task, data, plain.append)
    monkeypatch.setattr(tuning, "SEARCH_ITEMS", 30)
    lines: list[str] = []
    found = tune_ease(task, data, lines.append)
    assert lines[0] == "penalties on the 30 most bought items"
    solved = [[line for line in said if line.startswith("penalty ")] for said in (lines, plain)]
    assert len(solved[0]) < len(solved[1])
    assert found.ndcg == pytest.approx(every.ndcg, abs=0.01)
