"""Synthetic users with tastes: a big domain shows them, a small one is the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

from tlrec_edge.core.features import TowerInputs
from tlrec_edge.core.rowwise import quantize_rows
from tlrec_edge.data.dataset import TEST, TRAIN, VALID, Dataset, EvalRows
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.data.split import make_split
from tlrec_edge.data.task import Task
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.train import EdgeModel, TrainConfig, adapt, pretrain
from tlrec_edge.train.quantized import QuantizedTable, QuantizedTables

TASTES = ("tea", "wool", "iron", "glass")
USERS, BIG, SMALL, NEVER_SOLD = 240, 60, 44, 4
CONFIG = TrainConfig(width=16, epochs=10, pretrain_epochs=10, interest_rank=4)


@cache
def interactions(seed: int = 0, loyal: float = 0.85) -> pd.DataFrame:
    """Return ten purchases per user in the big domain, three or four in the small one, no repeats.

    Items of the user's taste are ``loyal / (1 - loyal) * 3`` times as likely as others.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(USERS):
        bought = [("b", i) for i in _basket(rng, user, BIG, 10, loyal)]
        bought += [
            ("s", i) for i in _basket(rng, user, SMALL - NEVER_SOLD, 3 if user % 2 else 4, loyal)
        ]
        days = rng.choice(336, len(bought), replace=False)
        rows += [
            (
                f"u{user}",
                f"{letter}{item}",
                "big" if letter == "b" else "small",
                f"2024-{1 + d // 28:02}-{1 + d % 28:02}",
            )
            for (letter, item), d in zip(bought, days, strict=True)
        ]
    return pd.DataFrame(rows, columns=["user", "item", "domain", "timestamp"])


def _basket(rng: np.random.Generator, user: int, size: int, count: int, loyal: float) -> list[int]:
    """Draw distinct items, early ones more often."""
    weight = (1 + np.arange(size) // len(TASTES)) ** -0.6
    weight *= np.where(
        np.arange(size) % len(TASTES) == user % len(TASTES), loyal, (1 - loyal) / (len(TASTES) - 1)
    )
    items: list[int] = rng.choice(size, count, replace=False, p=weight / weight.sum()).tolist()
    return items


@cache
def items(seed: int = 0) -> pd.DataFrame:
    """Return title, category and price of every item; the last small ones were never sold."""
    rng = np.random.default_rng(seed)
    rows = []
    for domain, size in (("big", BIG), ("small", SMALL)):
        for item in range(size):
            taste = item % len(TASTES)
            title = f"{TASTES[taste]} no {item} for {rng.choice(['home', 'garden', 'travel'])}"
            price = "" if item % 9 == 0 else f"{10 * taste + 1 + rng.random():.2f}"
            rows.append((f"{domain[0]}{item}", domain, title, TASTES[taste], price))
    return pd.DataFrame(rows, columns=["item", "domain", "title", "category", "price"])


@cache
def dataset(kind: str = "leave-one-out") -> Dataset:
    """Return the dataset under a split; "given" ranks last purchases among five negatives."""
    if kind == "given":
        return _given()
    plan = SplitPlan(kind, folds=4, negatives=20)
    return prepare_tables(
        [interactions()], [items()], Schema(features={"title": "text"}), plan
    ).dataset


def _given() -> Dataset:
    data = dataset("last-basket")
    log, small = data.interactions, data.domains.index("small")
    asked = (log.domain == small) & (data.split.role == TEST)
    pool = np.flatnonzero(data.item_domain == small)
    rng = np.random.default_rng(0)
    others = [rng.choice(pool[pool != item], 5, replace=False) for item in log.item[asked]]
    rows = EvalRows(log.user[asked], log.item[asked], np.array(others, np.int32))
    kept = log.select(~asked)
    split = make_split(kept, data.users, "given", rows=rows)
    return replace(data, interactions=kept, split=split)


@cache
def ids_only() -> Dataset:
    """Return ids without content, time or domain."""
    return prepare_tables(
        [interactions()[["user", "item"]]], [], None, SplitPlan(negatives=20)
    ).dataset


def source(size: str = "fast") -> EdgeModel:
    return _source(size)


def model(mode: str = "finetune", size: str = "fast") -> EdgeModel:
    return _model(mode, size)


@cache
def _source(size: str) -> EdgeModel:
    return pretrain(dataset(), ("big",), replace(CONFIG, size=size))


@cache
def _model(mode: str, size: str) -> EdgeModel:
    start = None if mode == "scratch" else source(size)
    return adapt(dataset(), ("small",), mode, start, replace(CONFIG, size=size))


def six_bits(model: EdgeModel, *names: str) -> EdgeModel:
    """Return a quantized model with the named tables (default all) in 6 bits, as in 0.1."""
    whole = replace(model, tables=None)
    vectors = {
        "history": whole.history_vectors,
        "candidate": whole.candidate_vectors,
        "taste_in": whole.residual_in,
        "taste": whole.low_rank_vectors,
    }
    six = {name: QuantizedTable(*quantize_rows(vectors[name], 6), 6) for name in names or vectors}
    return replace(model, tables=QuantizedTables(**{**vars(model.tables), **six}))


def inputs_of(model: EdgeModel) -> TowerInputs:
    """Return what a model's item tower reads."""
    return TowerInputs(*(getattr(model.net, name).numpy() for name in TowerInputs._fields))


def source_of(data: Dataset) -> EdgeModel:
    """Return a hasty source model of another dataset: a source serves one split only."""
    return pretrain(data, ("big",), replace(CONFIG, pretrain_epochs=3))


@cache
def no_validation() -> Dataset:
    """Return the dataset without validation rows, so that every epoch is run."""
    data = dataset()
    return replace(
        data,
        split=replace(data.split, role=np.where(data.split.role == VALID, TRAIN, data.split.role)),
    )


def shuffled(change: Callable[[np.ndarray], np.ndarray], domain: str = "small") -> Dataset:
    """Return the synthetic dataset with the items of one domain's interactions changed."""
    data = dataset()
    log = data.interactions
    inside = log.domain == data.domains.index(domain)
    item = log.item.copy()
    item[inside] = change(item[inside])
    return replace(data, interactions=replace(log, item=item))


def pairs(task: Task, log_name: str) -> set[tuple[int, int]]:
    """Return the distinct (user, item) pairs of the target in a task's ``train`` or ``history``."""
    log = getattr(task, log_name)
    inside = log.select(task.in_target(log))
    return set(zip(inside.user.tolist(), inside.item.tolist(), strict=True))
