"""Nearest items: cosines with weights of users, and histories that fade."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import synthetic
from tlrec_edge.data.task import Task, make_tasks
from tlrec_edge.linear.item_knn import ItemKnnSettings, item_knn_scorers


@pytest.fixture(scope="module")
def task() -> Task:
    return make_tasks(synthetic.dataset(), ("small",)).choose


@pytest.mark.parametrize("user_power", [0.0, 0.5])
@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_scores_are_sums_of_cosines_by_hand(task: Task, user_power: float, decay: float) -> None:
    x = np.zeros((task.n_users, task.n_items))
    x[task.train.user, task.train.item] = 1.0
    size = np.maximum(x.sum(1, keepdims=True), 1)
    shared = (x * size**-user_power).T @ x
    norm = np.sqrt(np.diag(shared))
    cosine = shared / np.maximum(np.outer(norm, norm), 1e-12)
    np.fill_diagonal(cosine, 0.0)
    history = np.zeros_like(x)
    for user in range(task.n_users):
        items = task.history.item[task.history.user == user]
        for step, item in enumerate(reversed(items.tolist())):
            history[user, item] = max(history[user, item], decay**step)
    users = np.arange(task.n_users, dtype=np.int32)
    scorer = item_knn_scorers(task)(ItemKnnSettings(user_power, decay))
    expected = (history @ cosine)[:, task.candidates]
    np.testing.assert_allclose(scorer(users), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scorer(users, np.array([2, 0])), expected[:, [2, 0]], rtol=1e-4)
