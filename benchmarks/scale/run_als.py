"""ALS of implicit: ``python run_als.py data.npz out.npz --alpha 1``."""

from __future__ import annotations

import argparse

import exchange
import numpy as np
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix  # a requirement of implicit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("data")
parser.add_argument("out")
parser.add_argument("--alpha", type=float, default=1.0)
parser.add_argument("--regularization", type=float, default=0.01)
given = parser.parse_args()


def counts(user: np.ndarray, item: np.ndarray, shape: tuple[int, int]) -> csr_matrix:
    return csr_matrix((np.ones(len(user), np.float32), (user, item)), shape)


data = exchange.read(given.data)
items = int(data["items"])
model = AlternatingLeastSquares(
    factors=64,
    alpha=given.alpha,
    regularization=given.regularization,
    num_threads=1,
    random_state=0,
)
train = counts(data["user"], data["item"], (int(data["user"].max()) + 1, items))
model.fit(train, show_progress=False)
cost = exchange.cost_until_now()
users = int(data["row_user"].max()) + 1
history = counts(data["history_user"], data["history_item"], (users, items))
vectors = model.recalculate_user(np.arange(users), history)
exchange.write(given.out, exchange.score_rows(vectors, model.item_factors, data), cost)
