"""From two small tables to a recommendation (needs `pip install 'tlrec-edge[build]'`).

The tables are invented. Two markets, `uk` with many customers and `de` with few, sell the same
kinds of products; what customers of `uk` like helps to recommend in `de`.
"""

import random
import tempfile
from pathlib import Path

import pandas as pd

from tlrec_edge import Recommender
from tlrec_edge.data.prepare import prepare_tables
from tlrec_edge.export import export_bundle
from tlrec_edge.train import TrainConfig, adapt, pretrain

KINDS = ("coffee", "tea", "books")
rng = random.Random(0)
items, interactions = [], []
for market, customers in (("uk", 200), ("de", 30)):
    for kind in KINDS:
        for number in range(20):
            items.append((f"{market}-{kind}-{number}", market, kind, rng.uniform(2, 20)))
    for customer in range(customers):
        kind = rng.choice(KINDS)
        for day, number in enumerate(rng.sample(range(20), 6), 1):
            item = f"{market}-{kind}-{number}"
            interactions.append((f"{market}-{customer}", item, f"2024-01-{day:02d}"))

with tempfile.TemporaryDirectory() as folder:
    log_file, items_file = Path(folder) / "log.csv", Path(folder) / "items.csv"
    item_table = pd.DataFrame(items, columns=["item", "domain", "category", "price"])
    item_table.to_csv(items_file, index=False)
    log = pd.DataFrame(interactions, columns=["user", "item", "timestamp"])
    log.to_csv(log_file, index=False)

    # 1. Clean and split the tables. Common column names need no schema.
    dataset = prepare_tables([pd.read_csv(log_file)], [pd.read_csv(items_file)]).dataset

    # 2. Learn from the large market, and transfer to the small one.
    source = pretrain(dataset, ("uk",), TrainConfig(pretrain_epochs=3))
    model = adapt(dataset, ("de",), "finetune", source, TrainConfig(epochs=3))

    # 3. Export a bundle, which a server reads without torch or pandas.
    export_bundle(model, dataset, Path(folder) / "bundle")
    with Recommender.open(Path(folder) / "bundle") as rec:
        found = rec.recommend(["de-tea-3", "de-tea-7"], k=5)
    for item, score in zip(found.items, found.scores, strict=True):
        print(f"{item}  {score:.3f}")
