"""What is done where everything at once would be too large gives what everything at once gives, or says how near."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from helpers import synthetic
from helpers.synthetic import CONFIG
from tlrec_edge.data.task import make_tasks
from tlrec_edge.evaluation.evaluate import model_ranker
from tlrec_edge.linear import ease as linear
from tlrec_edge.linear import low_rank as factors
from tlrec_edge.linear import ranking
from tlrec_edge.linear import sparse_ease as neighbours
from tlrec_edge.linear.baselines import ease_scorer, item_cf_scorer, popularity_scorer
from tlrec_edge.linear.ease import Ease, interest_ridge, item_cf, keep_largest_per_row, sparse_ridge
from tlrec_edge.linear.item_weights import EaseHyperparameters, InteractionMatrices, tune_ease
from tlrec_edge.linear.ranking import ALL, make_queries, rank_rows, row_scores, sample_rows
from tlrec_edge.linear.sparse_ease import (
    EASE_NEIGHBOURS,
    SparseEase,
    make_ease,
    subsample_rows,
    top_neighbours,
)
from tlrec_edge.train import adapt, pretrain
from tlrec_edge.train import model as model_module
from tlrec_edge.train import score_weights as mix
from tlrec_edge.train.checkpoint import resumable
from tlrec_edge.train.sparse_adamw import RowAdamW, clip_gradients


def binary(users: int, items: int, seed: int = 0) -> sp.csr_array:
    return sp.csr_array(
        (np.random.default_rng(seed).random((users, items)) < 0.25).astype(np.float32)
    )


def make_large(monkeypatch: pytest.MonkeyPatch, largest: int = 10) -> None:
    """Let everything count as too large to be done at once."""
    monkeypatch.setattr(ranking, "FULL_RANKING_LIMIT", 10)
    monkeypatch.setattr(mix, "FULL_RANKING_LIMIT", 10)
    monkeypatch.setattr(ranking, "USERS_PER_CHUNK", 32)
    for module in (linear, neighbours):
        monkeypatch.setattr(module, "EXACT_EASE_LIMIT", largest)
    monkeypatch.setattr(linear, "DENSE_MATRIX_LIMIT", largest**2)


@pytest.mark.parametrize("power", [0.0, 0.25])
@pytest.mark.parametrize("penalty", [1.0, 100.0])
@pytest.mark.parametrize("entries", [100, neighbours.BATCH_ENTRIES])
def test_ease_on_all_items_as_neighbours_is_ease(
    power: float, penalty: float, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BATCH_ENTRIES", entries)
    x, columns = binary(300, 40), np.arange(0, 40, 2, dtype=np.int32)
    wanted = Ease(x, columns, power).weights(penalty)
    sparse = SparseEase(x, columns, power)
    np.testing.assert_allclose(sparse.weights(penalty).toarray(), wanted, atol=1e-5)
    some = sparse.weights(penalty, np.array([3, 7])).toarray()
    np.testing.assert_allclose(some[:, [3, 7]], wanted[:, [3, 7]], atol=1e-5)
    assert not np.delete(some, [3, 7], 1).any()
    history = binary(9, 40, seed=1)
    np.testing.assert_allclose(
        sparse.scorer(penalty)(history, np.array([4])), history @ wanted[:, [4]], atol=1e-4
    )


def test_a_column_is_the_ridge_on_its_nearest_items() -> None:
    x = binary(60, EASE_NEIGHBOURS + 30)
    dense = x.toarray().astype(np.float64)
    found = SparseEase(x, np.array([5], np.int32)).weights(3.0).toarray()[:, 0]
    cosine = dense.T @ dense[:, 5] / np.sqrt(dense.sum(0))
    cosine[5] = -1
    support = np.sort(np.flatnonzero(found))
    assert len(support) == EASE_NEIGHBOURS
    assert cosine[support].min() >= np.sort(cosine)[-EASE_NEIGHBOURS] - 1e-6
    s = dense[:, support]
    np.testing.assert_allclose(
        found[support],
        np.linalg.solve(s.T @ s + 3 * np.eye(EASE_NEIGHBOURS), s.T @ dense[:, 5]),
        atol=1e-5,
    )


def test_items_that_nobody_bought_have_no_neighbours() -> None:
    x = sp.csr_array(np.array([[1, 1, 0], [1, 0, 0]], np.float32))
    assert SparseEase(x, np.arange(3, dtype=np.int32)).weights(1.0).toarray()[2].tolist() == [
        0,
        0,
        0,
    ]
    assert SparseEase(x, np.array([2], np.int32)).weights(1.0).nnz == 0


def test_nearest_are_the_largest_but_the_own() -> None:
    near = sp.csr_array(np.array([[9, 1, 5, 3], [0, 2, 0, 0], [4, 0, 0, 8]], np.float32))
    found, present = top_neighbours(near, np.array([0, 1, 3], np.int32), 2)
    assert [row[kept].tolist() for row, kept in zip(found, present, strict=True)] == [
        [2, 3],
        [],
        [0],
    ]


def test_only_the_heaviest_users_are_thinned() -> None:
    x = sp.csr_array(np.tril(np.ones((12, 12), np.float32)))
    assert subsample_rows(x, 10_000) is x
    thinned = subsample_rows(x, 300)
    size = np.diff(thinned.indptr)
    assert (size**2).sum() <= 300
    assert size.tolist() == np.minimum(np.arange(1, 13), size.max()).tolist()
    assert (x.toarray()[thinned.nonzero()] == 1).all()
    assert (subsample_rows(x, 300) != thinned).nnz == 0


def test_exact_ease_is_taken_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    x, columns = binary(12, 40), np.arange(40, dtype=np.int32)
    assert isinstance(make_ease(x, columns), Ease)
    make_large(monkeypatch, 25)
    assert isinstance(make_ease(x, columns), SparseEase)  # 12 users, but 40 x 40 weights
    assert isinstance(make_ease(x, columns[:10]), Ease)


def test_rows_keep_their_largest() -> None:
    weights = sp.csr_array(np.array([[1, -5, 3], [2, 4, -9], [0, 1, 0]], np.float32))
    assert keep_largest_per_row(weights, 2).toarray().tolist() == [
        [0, -5, 3],
        [0, 4, -9],
        [0, 1, 0],
    ]


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_sparse_ridge_is_the_ridge(rank: int) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, (80, 6)).astype(np.float32)
    labels = (rng.random((80, 9)) < 0.3).astype(np.float32)
    one = interest_ridge(counts, labels, 2.0, rank)
    other = sparse_ridge(sp.csr_array(counts), sp.csr_array(labels), 2.0, rank)
    np.testing.assert_allclose(
        other.input_factors @ other.output_factors.T,
        one.input_factors @ one.output_factors.T,
        atol=1e-5,
    )


def test_item_cf_in_parts_keeps_the_most_similar(monkeypatch: pytest.MonkeyPatch) -> None:
    x, columns = binary(60, 30), np.arange(0, 30, 2, dtype=np.int32)
    whole = item_cf(x, columns).toarray()
    make_large(monkeypatch, 4)
    np.testing.assert_allclose(item_cf(x, columns).toarray(), whole, rtol=1e-6)
    monkeypatch.setattr(linear, "ITEMCF_NEIGHBOURS", 5)
    cut = item_cf(x, columns).toarray()
    assert (np.count_nonzero(cut, 0) == 5).all()
    np.testing.assert_allclose(cut.max(0), whole.max(0), rtol=1e-6)


@pytest.mark.parametrize("name", ["popularity", "itemcf", "ease", "model"])
@pytest.mark.parametrize("kind", ["leave-one-out", "given"])
def test_asked_columns_rank_as_all_columns_do(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = synthetic.dataset(kind)
    tasks = make_tasks(data, ("small",))
    make = {
        "popularity": lambda: rank_rows(popularity_scorer(tasks.final), tasks.final),
        "itemcf": lambda: rank_rows(item_cf_scorer(tasks.final), tasks.final),
        "ease": lambda: rank_rows(ease_scorer(tasks.final, EaseHyperparameters(30.0)), tasks.final),
        "model": lambda: model_ranker(
            adapt(data, ("small",), "scratch", None, replace(CONFIG, epochs=1)), data
        )(tasks),
    }[name]
    wanted = make()
    monkeypatch.setattr(ranking, "FULL_RANKING_LIMIT", 10)
    monkeypatch.setattr(ranking, "USERS_PER_CHUNK", 4)
    np.testing.assert_allclose(make().rank, wanted.rank)


def test_rows_are_scored_in_chunks_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    task = sample_rows(make_tasks(synthetic.dataset(), ("small",)).choose, 100)
    scores = np.random.default_rng(0).random((task.n_users, len(task.candidates)))
    whole = make_queries(task, task.rows)
    assert whole.requested == ALL
    wanted = whole.gather(scores[whole.user])
    make_large(monkeypatch)
    (found,) = row_scores(lambda q: [scores[q.user][:, q.requested]], task)
    np.testing.assert_array_equal(found, wanted)


def test_full_rankings_of_many_candidates_ask_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_tasks(synthetic.dataset(), ("small",)).choose
    task = replace(task, rows=replace(task.rows, negatives=task.rows.negatives[:, :0]))
    make_large(monkeypatch)
    assert len(sample_rows(task, 200).rows) == 50


def test_large_data_go_through_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    data = synthetic.dataset()
    source = synthetic.source()
    make_large(monkeypatch)
    said: list[str] = []
    model = adapt(
        data, ("small",), "finetune", source, replace(CONFIG, epochs=2), progress=said.append
    )
    assert any("nearest items" in line for line in said)
    assert model.residual.rank == 0
    assert model.wide.nnz
    assert model.provenance.choices.validation_ndcg > 0.3


def test_sparse_ease_chooses_a_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_tasks(synthetic.dataset(), ("small",)).choose
    exact = tune_ease(task, InteractionMatrices.of(task))
    make_large(monkeypatch)
    assert tune_ease(task, InteractionMatrices.of(task)).ndcg == pytest.approx(exact.ndcg, abs=0.05)


def test_sparse_gradients_move_the_touched_rows_as_adamw_does() -> None:
    torch.manual_seed(0)
    start, picked = torch.randn(6, 3), torch.tensor([1, 4, 4])

    def train(sparse: bool, optimizer: type[torch.optim.Optimizer]) -> torch.Tensor:
        table = torch.nn.Embedding.from_pretrained(start.clone(), freeze=False, sparse=sparse)
        step = optimizer(table.parameters(), lr=0.1, weight_decay=0.2)  # type: ignore[call-arg]
        for _ in range(3):
            step.zero_grad()
            (table(picked) ** 2).sum().backward()
            clip_gradients(table, 5.0) if sparse else torch.nn.utils.clip_grad_norm_(
                table.parameters(), 5.0
            )
            step.step()
        return table.weight.detach()

    dense, rows = train(False, torch.optim.AdamW), train(True, RowAdamW)
    torch.testing.assert_close(rows[[1, 4]], dense[[1, 4]])
    assert torch.equal(rows[[0, 2, 3, 5]], start[[0, 2, 3, 5]])


def test_a_model_of_many_rows_trains_and_resumes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = synthetic.dataset()
    monkeypatch.setattr(model_module, "SPARSE_GRADIENT_ROWS", 10)
    config = replace(CONFIG, pretrain_epochs=3)
    whole = pretrain(data, ("big",), config)
    assert whole.net.sparse
    assert whole.provenance.losses[-1] < whole.provenance.losses[0]

    class Stop(Exception):
        pass

    def stop(line: str) -> None:
        if "epoch 2" in line:
            raise Stop

    with pytest.raises(Stop), resumable(tmp_path / "kept", data, config) as kept:
        pretrain(data, ("big",), config, stop, kept)
    with resumable(tmp_path / "kept", data, config) as kept:
        again = pretrain(data, ("big",), config, None, kept)
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[name]), name


def test_right_vectors_are_those_of_the_svd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "BLOCK_ROWS", 7)
    x = binary(90, 12)
    values, right = factors.right_singular_vectors(x, 3)
    _, wanted, wanted_right = factors.truncated_svd(x, 3)
    np.testing.assert_allclose(values, wanted, rtol=1e-3)
    np.testing.assert_allclose(np.abs((right * wanted_right).sum(0)), 1, atol=1e-3)
