"""Computation in chunks and on neighbours gives the exact result, or one that is close to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from helpers import synthetic
from helpers.synthetic import CONFIG
from tlrec_edge.data.task import make_tasks
from tlrec_edge.evaluation.evaluate import model_ranker
from tlrec_edge.linear import item_cf as item_cf_module
from tlrec_edge.linear import low_rank, matrices, ranking, sparse_ease
from tlrec_edge.linear.baselines import ease_scorer, item_cf_scorer, popularity_scorer
from tlrec_edge.linear.ease import Ease
from tlrec_edge.linear.interest import interest_ridge, sparse_interest_ridge
from tlrec_edge.linear.item_cf import item_cf
from tlrec_edge.linear.matrices import InteractionMatrices, keep_largest_per_row
from tlrec_edge.linear.ranking import ALL, Ranking, make_queries, rank_rows, row_scores, sample_rows
from tlrec_edge.linear.sparse_ease import (
    EASE_NEIGHBOURS,
    SparseEase,
    make_ease,
    subsample_rows,
    top_neighbours,
)
from tlrec_edge.linear.tuning import EaseHyperparameters, tune_ease
from tlrec_edge.train import adapt, pretrain, score_weights
from tlrec_edge.train import model as model_module
from tlrec_edge.train.checkpoint import resumable
from tlrec_edge.train.sparse_adamw import RowAdamW, clip_gradients


def binary(users: int, items: int, seed: int = 0) -> sp.csr_array:
    return sp.csr_array(
        (np.random.default_rng(seed).random((users, items)) < 0.25).astype(np.float32)
    )


def lower_limits(monkeypatch: pytest.MonkeyPatch, largest: int = 10) -> None:
    """Lower every limit, so that small data counts as too large to be computed at once."""
    monkeypatch.setattr(ranking, "FULL_RANKING_LIMIT", 10)
    monkeypatch.setattr(score_weights, "FULL_RANKING_LIMIT", 10)
    monkeypatch.setattr(ranking, "USERS_PER_CHUNK", 32)
    monkeypatch.setattr(sparse_ease, "EXACT_EASE_LIMIT", largest)
    monkeypatch.setattr(item_cf_module, "CANDIDATES_PER_CHUNK", largest)
    monkeypatch.setattr(matrices, "DENSE_MATRIX_LIMIT", largest**2)


@pytest.mark.parametrize("power", [0.0, 0.25])
@pytest.mark.parametrize("penalty", [1.0, 100.0])
@pytest.mark.parametrize("entries", [100, sparse_ease.BATCH_ENTRIES])
def test_sparse_ease_with_all_items_as_neighbours_is_exact(
    power: float, penalty: float, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_ease, "BATCH_ENTRIES", entries)
    monkeypatch.setattr(sparse_ease, "EASE_NEIGHBOURS", 40)
    x, columns = binary(300, 40), np.arange(0, 40, 2, dtype=np.int32)
    expected = Ease(x, columns, power).weights(penalty)
    solver = SparseEase(x, columns, power)
    np.testing.assert_allclose(solver.weights(penalty).toarray(), expected, atol=1e-5)
    two = solver.weights(penalty, np.array([3, 7])).toarray()
    np.testing.assert_allclose(two[:, [3, 7]], expected[:, [3, 7]], atol=1e-5)
    assert not np.delete(two, [3, 7], 1).any()
    history = binary(9, 40, seed=1)
    np.testing.assert_allclose(
        solver.scorer(penalty)(history, np.array([4])), history @ expected[:, [4]], atol=1e-4
    )


def test_a_column_starts_as_the_ridge_on_its_nearest_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sparse_ease, "DESCENT_STEPS", 0)
    x = binary(60, EASE_NEIGHBOURS + 30)
    dense = x.toarray().astype(np.float64)
    weights = SparseEase(x, np.array([5], np.int32)).weights(3.0).toarray()[:, 0]
    cosine = dense.T @ dense[:, 5] / np.sqrt(dense.sum(0))
    cosine[5] = -1
    support = np.sort(np.flatnonzero(weights))
    assert len(support) == EASE_NEIGHBOURS
    assert cosine[support].min() >= np.sort(cosine)[-EASE_NEIGHBOURS] - 1e-6
    s = dense[:, support]
    np.testing.assert_allclose(
        weights[support],
        np.linalg.solve(s.T @ s + 3 * np.eye(EASE_NEIGHBOURS), s.T @ dense[:, 5]),
        atol=1e-5,
    )


def test_each_step_brings_the_other_items_closer_to_the_ridge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sparse_ease, "EASE_NEIGHBOURS", 10)
    x, columns, penalty = binary(150, 90), np.arange(0, 90, 3, dtype=np.int32), 5.0
    dense = x.toarray().astype(np.float64)

    def loss(weights: np.ndarray) -> np.ndarray:
        """Return what the regression of each column minimizes."""
        error = dense[:, columns] - dense @ weights
        penalized: np.ndarray = (error**2).sum(0) + penalty * (weights**2).sum(0)
        return penalized

    losses = []
    for steps in (0, 1, 2, 30):
        monkeypatch.setattr(sparse_ease, "DESCENT_STEPS", steps)
        weights = SparseEase(x, columns).weights(penalty).toarray()
        assert not weights[columns, np.arange(len(columns))].any()
        losses.append(loss(weights))
    assert all((after < before).all() for before, after in pairwise(losses))
    exact = loss(Ease(x, columns).weights(penalty))
    assert (losses[-1] >= exact - 1e-3).all()
    assert (losses[-1] - exact < 0.1 * (losses[0] - exact)).all()


def test_the_number_of_weights_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_ease, "WEIGHTS_PER_COLUMN", (10, 500))
    x, columns = binary(150, 90), np.arange(90, dtype=np.int32)
    whole = SparseEase(x, columns).weights(5.0)
    assert np.diff(whole.indptr).min() > 80
    monkeypatch.setattr(sparse_ease, "MAX_WEIGHTS", 90 * 20)
    limited = SparseEase(x, columns).weights(5.0)
    assert np.diff(limited.indptr).tolist() == [20] * 90
    for column in range(90):
        kept = np.abs(limited[:, [column]].toarray().ravel())
        assert kept[kept > 0].min() >= np.sort(np.abs(whole[:, [column]].toarray().ravel()))[-20]
    monkeypatch.setattr(sparse_ease, "MAX_WEIGHTS", 0)
    least = SparseEase(x, columns).weights(5.0)
    assert np.diff(least.indptr).tolist() == [10] * 90


def test_items_without_buyers_have_no_neighbours() -> None:
    x = sp.csr_array(np.array([[1, 1, 0], [1, 0, 0]], np.float32))
    assert SparseEase(x, np.arange(3, dtype=np.int32)).weights(1.0).toarray()[2].tolist() == [
        0,
        0,
        0,
    ]
    assert SparseEase(x, np.array([2], np.int32)).weights(1.0).nnz == 0


def test_an_item_is_not_its_own_neighbour() -> None:
    similarity = sp.csr_array(np.array([[9, 1, 5, 3], [0, 2, 0, 0], [4, 0, 0, 8]], np.float32))
    neighbours, present = top_neighbours(similarity, np.array([0, 1, 3], np.int32), 2)
    assert [row[mask].tolist() for row, mask in zip(neighbours, present, strict=True)] == [
        [2, 3],
        [],
        [0],
    ]


def test_only_the_heaviest_users_are_subsampled() -> None:
    x = sp.csr_array(np.tril(np.ones((12, 12), np.float32)))
    assert subsample_rows(x, 10_000) is x
    subsampled = subsample_rows(x, 300)
    size = np.diff(subsampled.indptr)
    assert (size**2).sum() <= 300
    assert size.tolist() == np.minimum(np.arange(1, 13), size.max()).tolist()
    assert (x.toarray()[subsampled.nonzero()] == 1).all()
    np.testing.assert_array_equal(subsample_rows(x, 300).toarray(), subsampled.toarray())


def test_exact_ease_is_used_if_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    x, columns = binary(12, 40), np.arange(40, dtype=np.int32)
    assert isinstance(make_ease(x, columns), Ease)
    lower_limits(monkeypatch, 25)
    assert isinstance(make_ease(x, columns), SparseEase)  # 12 users, but 40 x 40 weights
    assert isinstance(make_ease(x, columns[:10]), Ease)


def test_each_row_keeps_its_largest_weights() -> None:
    weights = sp.csr_array(np.array([[1, -5, 3], [2, 4, -9], [0, 1, 0]], np.float32))
    assert keep_largest_per_row(weights, 2).toarray().tolist() == [
        [0, -5, 3],
        [0, 4, -9],
        [0, 1, 0],
    ]


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_sparse_interest_ridge_equals_the_dense_one(rank: int) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, (80, 6)).astype(np.float32)
    labels = (rng.random((80, 9)) < 0.3).astype(np.float32)
    dense = interest_ridge(counts, labels, 2.0, rank)
    sparse = sparse_interest_ridge(sp.csr_array(counts), sp.csr_array(labels), 2.0, rank)
    np.testing.assert_allclose(
        sparse.input_factors @ sparse.output_factors.T,
        dense.input_factors @ dense.output_factors.T,
        atol=1e-5,
    )


def test_item_cf_in_chunks_keeps_the_most_similar_items(monkeypatch: pytest.MonkeyPatch) -> None:
    x, columns = binary(60, 30), np.arange(0, 30, 2, dtype=np.int32)
    full = item_cf(x, columns).toarray()
    lower_limits(monkeypatch, 4)
    np.testing.assert_allclose(item_cf(x, columns).toarray(), full, rtol=1e-6)
    monkeypatch.setattr(item_cf_module, "NEIGHBOURS", 5)
    trimmed = item_cf(x, columns).toarray()
    assert (np.count_nonzero(trimmed, 0) == 5).all()
    np.testing.assert_allclose(trimmed.max(0), full.max(0), rtol=1e-6)


@pytest.mark.parametrize("name", ["popularity", "itemcf", "ease", "model"])
@pytest.mark.parametrize("kind", ["leave-one-out", "given"])
def test_scoring_only_the_requested_candidates_gives_the_same_ranks(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = synthetic.dataset(kind)
    tasks = make_tasks(data, ("small",))
    rankings: dict[str, Callable[[], Ranking]] = {
        "popularity": lambda: rank_rows(popularity_scorer(tasks.final), tasks.final),
        "itemcf": lambda: rank_rows(item_cf_scorer(tasks.final), tasks.final),
        "ease": lambda: rank_rows(ease_scorer(tasks.final, EaseHyperparameters(30.0)), tasks.final),
        "model": lambda: model_ranker(
            adapt(data, ("small",), "scratch", None, replace(CONFIG, epochs=1)), data
        )(tasks),
    }
    make = rankings[name]
    expected = make()
    monkeypatch.setattr(ranking, "FULL_RANKING_LIMIT", 10)
    monkeypatch.setattr(ranking, "USERS_PER_CHUNK", 4)
    np.testing.assert_allclose(make().rank, expected.rank)


def test_rows_are_scored_in_chunks_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    task = sample_rows(make_tasks(synthetic.dataset(), ("small",)).choose, 100)
    scores = np.random.default_rng(0).random((task.n_users, len(task.candidates)))
    queries = make_queries(task, task.rows)
    assert queries.requested == ALL
    expected = queries.gather(scores[queries.user])
    lower_limits(monkeypatch)
    (found,) = row_scores(lambda q: [scores[q.user][:, q.requested]], task)
    np.testing.assert_array_equal(found, expected)


def test_fewer_rows_are_sampled_if_each_is_ranked_against_many_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = make_tasks(synthetic.dataset(), ("small",)).choose
    task = replace(task, rows=replace(task.rows, negatives=task.rows.negatives[:, :0]))
    lower_limits(monkeypatch)
    assert len(sample_rows(task, 200).rows) == 50


def test_adapt_works_beyond_every_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = synthetic.dataset()
    source = synthetic.source()
    lower_limits(monkeypatch)
    lines: list[str] = []
    model = adapt(
        data, ("small",), "finetune", source, replace(CONFIG, epochs=2), progress=lines.append
    )
    assert any("too many for exact EASE" in line for line in lines)
    assert model.residual.rank == 0
    assert model.wide.nnz
    choices = model.provenance.choices
    assert choices is not None
    assert choices.validation_ndcg is not None
    assert choices.validation_ndcg > 0.3


def test_sparse_ease_chooses_a_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_tasks(synthetic.dataset(), ("small",)).choose
    exact = tune_ease(task, InteractionMatrices.of(task))
    lower_limits(monkeypatch)
    assert tune_ease(task, InteractionMatrices.of(task)).ndcg == pytest.approx(exact.ndcg, abs=0.05)


def test_row_adamw_moves_the_touched_rows_as_adamw_does() -> None:
    torch.manual_seed(0)
    start, touched = torch.randn(6, 3), torch.tensor([1, 4, 4])

    def train(sparse: bool, optimizer: type[torch.optim.Optimizer]) -> torch.Tensor:
        table = torch.nn.Embedding(6, 3, sparse=sparse)
        with torch.no_grad():
            table.weight.copy_(start)
        step = optimizer(table.parameters(), lr=0.1, weight_decay=0.2)  # type: ignore[call-arg]  # both optimizers accept these
        for _ in range(3):
            step.zero_grad()
            (table(touched) ** 2).sum().backward()
            clip_gradients(table, 5.0) if sparse else torch.nn.utils.clip_grad_norm_(
                table.parameters(), 5.0
            )
            step.step()
        return table.weight.detach()

    dense, rows = train(False, torch.optim.AdamW), train(True, RowAdamW)
    torch.testing.assert_close(rows[[1, 4]], dense[[1, 4]])
    assert torch.equal(rows[[0, 2, 3, 5]], start[[0, 2, 3, 5]])


def test_training_with_sparse_gradients_resumes_to_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = synthetic.dataset()
    monkeypatch.setattr(model_module, "SPARSE_GRADIENT_ROWS", 10)
    config = replace(CONFIG, pretrain_epochs=3)
    model = pretrain(data, ("big",), config)
    assert model.net.sparse
    assert model.provenance.losses[-1] < model.provenance.losses[0]

    class Stop(Exception):
        pass

    def stop(line: str) -> None:
        if "epoch 2" in line:
            raise Stop

    with pytest.raises(Stop), resumable(tmp_path / "checkpoint", data, config) as checkpoint:
        pretrain(data, ("big",), config, stop, checkpoint)
    with resumable(tmp_path / "checkpoint", data, config) as checkpoint:
        resumed = pretrain(data, ("big",), config, None, checkpoint)
    for name, value in model.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


def test_right_vectors_are_those_of_the_svd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_rank, "ROWS_PER_BLOCK", 7)
    x = binary(90, 12)
    values, right = low_rank.right_singular_vectors(x, 3)
    _, expected, expected_right = low_rank.truncated_svd(x, 3)
    np.testing.assert_allclose(values, expected, rtol=1e-3)
    np.testing.assert_allclose(np.abs((right * expected_right).sum(0)), 1, atol=1e-3)
