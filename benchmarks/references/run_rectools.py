"""EASE of RecTools: ``python run_rectools.py data.npz out.npz``."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from rectools.dataset import Dataset
from rectools.models import EASEModel


def weights(user: np.ndarray, item: np.ndarray, items: int, penalty: float) -> np.ndarray:
    """Return the item-item weights, (items, items), in the order of the items' numbers."""
    log = pd.DataFrame({"user_id": user, "item_id": item, "weight": 1.0})
    log["datetime"] = pd.Timestamp("2026-01-01")
    dataset = Dataset.construct(log)
    model = EASEModel(regularization=penalty).fit(dataset)
    number = dataset.item_id_map.external_ids.astype(int)
    full = np.zeros((items, items))
    full[np.ix_(number, number)] = model.weight
    return full


data = np.load(sys.argv[1])
user, item, penalty = data["user"], data["item"], float(data["penalty"])
items = int(item.max()) + 1
few = user < 100
np.savez(
    sys.argv[2],
    weights=weights(user, item, items, penalty),
    dual=weights(user[few], item[few], items, penalty),
)
