"""The words of the demo's report are computed: another target, split or shopper changes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers import synthetic
from tlrec_edge import Recommendations
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.prepare import Prepared
from tlrec_edge.data.task import KNOWN, NO_CANDIDATE, make_tasks
from tlrec_edge.demo import DemoConfig, DemoResult, pipeline, run_demo
from tlrec_edge.demo.report_data import report_data
from tlrec_edge.errors import DataError
from tlrec_edge.evaluation.result import Evaluation
from tlrec_edge.export import Parity
from tlrec_edge.linear.ranking import Ranking
from tlrec_edge.train.provenance import Provenance

ROWS = (
    "popularity",
    "itemcf",
    "ease-target",
    "ease",
    "target-only",
    "zero-shot",
    "finetune",
    "compressed",
)


def evaluation(tests: int) -> Evaluation:
    rng = np.random.default_rng(0)
    user = np.arange(tests, dtype=np.int32)
    ranks = {
        name: Ranking(rng.integers(1, 9, tests).astype(np.float64), np.full(tests, 20), user, user)
        for name in ROWS
    }
    return Evaluation(("small shop",), ranks)


def data() -> Dataset:
    """Return the synthetic dataset: 4 folds, 20 negatives, candidates with 7 buyers or more."""
    dataset = synthetic.dataset("new-users")
    settings = {**dataset.split.settings, "min_buyers": 7}
    return replace(dataset, split=replace(dataset.split, settings=settings))


def report(new: bool = True, folds: int | None = None) -> dict[str, Any]:
    best = Recommendations(("s1",), np.ones(1, np.float32), ("wool",))
    result = DemoResult(
        new_users=evaluation(30),
        warm=evaluation(40),
        new_dropped={NO_CANDIDATE: 10},
        warm_dropped={NO_CANDIDATE: 10, KNOWN: 3},
        points=(),
        judged_on="judged on rows not learned",
        parity=Parity(2, 0.0, 1.0, 0.0, 0.0, 0.0),
        sizes={"bundle": 3_000_000, "bundle-float32": 7_000_000},
        bench={"bundle": {}},
        shopper="u5",
        new=new,
        bought=("tea",),
        best=best,
        buyers=(7,),
        seconds={},
        report=Path("r.html"),
    )
    source: Any = SimpleNamespace(provenance=Provenance())
    config = DemoConfig(target="small shop", folds=folds, min_buyers=3, seed=8)
    return report_data(result, Prepared(data(), {}, {}, ()), source, config)


def test_numbers_and_names_are_those_of_the_run() -> None:
    data_of_report = report()
    new, warm = data_of_report["sections"]
    for words in (
        "4 folds",
        "20 other candidates",
        "at least 7 households",
        "leave out 25% of the purchases",
    ):
        assert words in new["note"]
    assert "leave out 20% of the purchases" in warm["note"]
    first, last = (
        str(np.datetime64(int(t), "s"))[:10]
        for t in (data().split.settings["test_from"], data().interactions.time.max())
    )
    assert all(f"from {first} to {last}" in section["note"] for section in (new, warm))
    written = json.dumps(data_of_report)
    assert not [word for word in ("NUTRITION", "ive folds", "99 ", "week") if word in written]
    command = "tlrec-edge pretrain dataset --domains '!small shop' --size fast --min-buyers 3"
    assert f"{command} --seed 8 --out source" in written
    assert "2 folds" in report(folds=2)["sections"][0]["note"]


@pytest.mark.parametrize("new", [True, False])
def test_a_shopper_who_bought_in_the_target_is_not_called_new(new: bool) -> None:
    assert ("never bought" in report(new)["recommendations"][0]["user"]) == new


def test_the_shopper_is_called_new_only_if_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake(SimpleNamespace):
        def __enter__(self) -> Any:
            return SimpleNamespace(recommend=lambda history, k: history)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(pipeline, "Recommender", SimpleNamespace(open=lambda path: Fake()))
    found = synthetic.dataset("time")
    task = make_tasks(found, ("small",)).final
    user, new, _, _ = pipeline.recommend_new(found, task, Path("bundle"))
    bought = np.unique(task.history.user[task.in_target(task.history)])
    assert new == (found.users.index(user) not in bought)
    monkeypatch.setattr(pipeline, "MIN_PURCHASES", 1)
    first = replace(
        task,
        history=task.history.select(~(task.in_target(task.history) & (task.history.user == 3))),
    )
    assert pipeline.recommend_new(found, first, Path("bundle"))[1]


def test_an_unknown_target_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "prepare_preset", lambda name: Prepared(data(), {}, {}, ()))
    with pytest.raises(DataError, match="unknown domain 'x'; known: big, small"):
        run_demo(tmp_path, DemoConfig(target="x"))
    assert not list(tmp_path.iterdir())
