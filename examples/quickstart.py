"""From two small tables to a recommendation (needs `pip install 'tlrec-edge[build]'`).

The tables are invented. Two markets, `uk` with many customers and `de` with few, sell the same
kinds of products; what customers of `uk` like helps to recommend in `de`.
"""

import random
import tempfile
from pathlib import Path

import pandas as pd

from tlrec_edge import Recommender, pipeline

KINDS = ("coffee", "tea", "books")
rng = random.Random(0)
products, purchases = [], []
for market, customers in (("uk", 200), ("de", 30)):
    for kind in KINDS:
        for number in range(20):
            products.append((f"{market}-{kind}-{number}", market, kind, rng.uniform(2, 20)))
    for customer in range(customers):
        kind = rng.choice(KINDS)
        for day, number in enumerate(rng.sample(range(20), 6), 1):
            item = f"{market}-{kind}-{number}"
            purchases.append((f"{market}-{customer}", item, f"2024-01-{day:02d}"))

# 1. Clean and split the tables. Common column names need no schema.
items = pd.DataFrame(products, columns=["item", "domain", "category", "price"])
log = pd.DataFrame(purchases, columns=["user", "item", "timestamp"])
data = pipeline.Dataset.from_frames(log, items)

# 2. Learn from the large market, and transfer to the small one.
source = pipeline.pretrain(data, "uk", pipeline.TrainConfig(pretrain_epochs=3))
model = pipeline.adapt(data, "de", source=source, mode="finetune")

# 3. Export a bundle, which a server reads without torch or pandas.
with tempfile.TemporaryDirectory() as folder:
    pipeline.export(model, data, Path(folder) / "bundle", cards=False)
    with Recommender.open(Path(folder) / "bundle") as rec:
        found = rec.recommend(["de-tea-3", "de-tea-7"], k=5)
for item, score in zip(found.items, found.scores, strict=True):
    print(f"{item}  {score:.3f}")
