"""What the demo tells is computed: another target, split and shopper change every word of it."""

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
from tlrec_edge.evaluation.evaluate import Evaluation
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
        name: Ranking(rng.integers(1, 9, tests) * 1.0, np.full(tests, 20), user, user)
        for name in ROWS
    }
    return Evaluation(("small shop",), ranks)


def data() -> Dataset:
    """Return the synthetic dataset with another split: 4 folds, 20 negatives, candidates of 7 buyers."""
    found = synthetic.dataset("new-users")
    return replace(
        found, split=replace(found.split, settings={**found.split.settings, "min_buyers": 7})
    )


def story(new: bool = True, folds: int | None = None) -> dict[str, Any]:
    best = Recommendations(("s1",), np.ones(1, np.float32), ("wool",))
    result = DemoResult(
        evaluation(30),
        evaluation(40),
        {NO_CANDIDATE: 10},
        {NO_CANDIDATE: 10, KNOWN: 3},
        (),
        Parity(2, 0.0, 1.0, 0.0, 0.0, 0.0),
        {"bundle": 3_000_000, "bundle-float32": 7_000_000},
        {"bundle": {}},
        "u5",
        new,
        ("tea",),
        best,
        {},
        Path("r.html"),
    )
    source: Any = SimpleNamespace(provenance=Provenance())
    config = DemoConfig(target="small shop", folds=folds, min_buyers=3, seed=8)
    return report_data(result, Prepared(data(), {}, {}, ()), source, config)


def test_numbers_and_names_are_those_of_the_run() -> None:
    told = story()
    new, warm = told["sections"]
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
    whole = json.dumps(told)
    assert not [word for word in ("NUTRITION", "ive folds", "99 ", "week") if word in whole]
    assert (
        "tlrec-edge pretrain dataset --domains '!small shop' --size fast --min-buyers 3 --seed 8 --out source"
        in whole
    )
    assert "2 folds" in story(folds=2)["sections"][0]["note"]


@pytest.mark.parametrize("new", [True, False])
def test_a_shopper_who_bought_in_the_target_is_not_called_new(new: bool) -> None:
    assert ("never bought" in story(new)["recommendations"][0]["user"]) == new


def test_who_is_recommended_to_is_known_as_new_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
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
