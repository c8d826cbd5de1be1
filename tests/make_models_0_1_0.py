"""Write tests/data/models_0_1_0: tables, models that 0.1.0 trained on them, and their scores.

It has been run once, with version 0.1.0 installed (commit 7a5a385):
`python tests/make_models_0_1_0.py tests/data/models_0_1_0`. Later versions must open these models,
so the files never change. The source model is that of a run with the environment of
`helpers/old_models.py`. `arrays.npz` is compressed afterwards to keep the repository small.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from tlrec_edge.data.build import (  # type: ignore[import-not-found]  # of version 0.1.0
    SplitPlan,
    prepare_tables,
)
from tlrec_edge.data.task import make_tasks
from tlrec_edge.quantize import TableBits, quantize_tables, quantize_wide
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.train import TrainConfig, adapt, adapt_auto, pretrain

TASTES = ("tea", "wool", "iron")
USERS, BIG, SMALL = 90, 15, 12
CONFIG = TrainConfig(width=4, epochs=4, pretrain_epochs=3, interest_rank=2, align="coral")


def interactions() -> pd.DataFrame:
    """Return six purchases a user in the big domain and four in the small one."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        for domain, size, count in (("big", BIG, 6), ("small", SMALL, 4)):
            liked = np.arange(size) % len(TASTES) == user % len(TASTES)
            weight = np.where(liked, 8.0, 1.0)
            bought = rng.choice(size, count, replace=False, p=weight / weight.sum())
            days = rng.choice(300, count, replace=False)
            rows += [
                (f"u{user}", f"{domain[0]}{item}", domain, f"2024-{1 + d // 28:02}-{1 + d % 28:02}")
                for item, d in zip(bought, days, strict=True)
            ]
    return pd.DataFrame(rows, columns=["user", "item", "domain", "timestamp"])


def items() -> pd.DataFrame:
    """Return the title, category and price of every item."""
    rows = [
        (f"{domain[0]}{i}", domain, f"{TASTES[i % 3]} {i}", TASTES[i % 3], f"{5 * (i % 3) + i}")
        for domain, size in (("big", BIG), ("small", SMALL))
        for i in range(size)
    ]
    return pd.DataFrame(rows, columns=["item", "domain", "title", "category", "price"])


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    interactions().to_csv(folder / "interactions.csv", index=False)
    items().to_csv(folder / "items.csv", index=False)
    tables = (pd.read_csv(folder / f"{name}.csv") for name in ("interactions", "items"))
    log, catalogue = (table.astype(str) for table in tables)
    schema, plan = Schema(features={"title": "text"}), SplitPlan(negatives=5)
    data = prepare_tables([log], [catalogue], schema, plan).dataset
    source = pretrain(data, ("big",), CONFIG)
    tuned = adapt(data, ("small",), "finetune", source, CONFIG)
    models = {
        "source": source,
        "auto": adapt_auto(data, ("small",), source, CONFIG)[0],
        "compressed": quantize_wide(quantize_tables(tuned, TableBits(8, 6, 4, 8))),
    }
    task, scores = make_tasks(data, ("small",)).final, {}
    for name, model in models.items():
        model.save(folder / name)
        with np.load(folder / name / "arrays.npz") as stored:
            arrays = dict(stored)
        np.savez_compressed(folder / name / "arrays.npz", **arrays)
        if name != "source":
            scores[name] = model.scorer(data, task)(np.arange(3, dtype=np.int32)).tolist()
    (folder / "scores.json").write_text(json.dumps(scores), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
