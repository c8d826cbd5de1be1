"""Markets with other names or price levels: transfer improves once they are aligned."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from helpers import synthetic
from helpers.synthetic import CONFIG
from tlrec_edge import Recommender
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.evaluation import evaluate
from tlrec_edge.evaluation.evaluate import model_ranker
from tlrec_edge.export import ExportConfig, export_bundle
from tlrec_edge.tabular.schema import AlignRule, Schema
from tlrec_edge.train import EdgeModel, adapt, pretrain
from tlrec_edge.train import item_features as vocabulary

RENAMED = {"tea": "thé", "wool": "laine", "iron": "fer", "glass": "verre"}
DEARER = 150.0


def renamed(align: AlignRule | None = None) -> Dataset:
    """Return the synthetic dataset without titles and prices; small has other category names."""
    goods = synthetic.items()[["item", "domain", "category"]].copy()
    goods["shelf_code"] = goods["category"].map({name: f"s{n}" for n, name in enumerate(RENAMED)})
    small = goods["domain"] == "small"
    goods.loc[small, "category"] = goods["category"][small].map(RENAMED)
    schema = Schema(features={"shelf_code": "ignore"}, align={"category": align} if align else {})
    return prepare_tables(
        [synthetic.interactions()], [goods], schema, SplitPlan(negatives=20)
    ).dataset


def priced(schema: Schema) -> Dataset:
    """Return the synthetic dataset with prices alone; those of small are 150 times as high."""
    goods = synthetic.items()[["item", "domain", "price"]].copy()
    small = goods["domain"] == "small"
    goods.loc[small, "price"] = [
        f"{float(p) * DEARER:.2f}" if p else "" for p in goods["price"][small]
    ]
    return prepare_tables(
        [synthetic.interactions()], [goods], schema, SplitPlan(negatives=20)
    ).dataset


def zero_shot(data: Dataset) -> tuple[EdgeModel, float]:
    """Return a zero-shot model from big to small, and its NDCG@10."""
    model = adapt(data, ("small",), "zero-shot", pretrain(data, ("big",), CONFIG), CONFIG)
    return model, float(
        evaluate(data, ("small",), {"model": model_ranker(model, data)}).values("model").mean()
    )


@cache
def without_alignment() -> float:
    return zero_shot(renamed())[1]


@pytest.mark.parametrize(
    "align",
    [
        AlignRule(pairs={other: name for name, other in RENAMED.items()}),
        AlignRule("id", id="shelf_code"),
    ],
    ids=["pairs", "id"],
)
def test_aligned_categories_transfer_better(align: AlignRule) -> None:
    assert zero_shot(renamed(align))[1] > without_alignment() + 0.1


def ids_alone(item_map: dict[str, str]) -> Dataset:
    log = synthetic.interactions()
    return prepare_tables(
        [log], schema=Schema(item_map=item_map), plan=SplitPlan(negatives=20)
    ).dataset


def test_products_known_to_be_the_same_transfer_better() -> None:
    sold = synthetic.SMALL - synthetic.NEVER_SOLD
    same = {f"b{n}": f"s{n}" for n in range(sold)}
    assert zero_shot(ids_alone(same))[1] > zero_shot(ids_alone({}))[1] + 0.1


@pytest.fixture
def few_items_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MIN_DOMAIN_ITEMS", 30)


@pytest.mark.usefixtures("few_items_are_enough")
def test_prices_of_one_scale_transfer_better(tmp_path: Path) -> None:
    apart = zero_shot(priced(Schema()))[1]
    assert zero_shot(priced(Schema(scale={"price": {"small": 1 / DEARER}})))[1] > apart + 0.01
    data = priced(Schema(by_domain=True))
    model, within = zero_shot(data)
    assert within > apart + 0.01
    assert_added_items_are_priced_by_the_target(model, data, tmp_path)


def assert_added_items_are_priced_by_the_target(
    model: EdgeModel, data: Dataset, folder: Path
) -> None:
    """An item added at run time has the vector of the target's item of the same price."""
    model.save(folder / "model")
    export_bundle(EdgeModel.load(folder / "model"), data, folder / "bundle", ExportConfig("plain"))
    price = data.features.numeric["price"][data.item_row["s21"]]
    with Recommender.open(folder / "bundle", deterministic=False) as rec:
        rec.add_items({"new": {"price": float(price)}, "dear": {"price": float(price) * DEARER}})
        scores = rec.score(["b1", "b5"], ["s21", "new", "dear"])
    bias = model.bias
    own = bias[model.ids.index("s21")] - bias.min()
    np.testing.assert_allclose(scores[1], scores[0] - model.score_weights.bias * own, atol=1e-3)
    assert abs(scores[2] - scores[1]) > 1e-2
