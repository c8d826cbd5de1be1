"""Simple baselines against small examples by hand: graph, session kNN, content, and their list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log

import numpy as np
import pandas as pd
import pytest

from helpers import synthetic
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.data.task import Task, Tasks, make_tasks
from tlrec_edge.linear.baselines import SIMPLE_BASELINES, ItemKnnWithContent, simple_rankers
from tlrec_edge.linear.content import ContentSettings, content_scorers, item_content
from tlrec_edge.linear.item_knn import ITEM_KNN_SETTINGS, item_knn_scorers
from tlrec_edge.linear.last_items import TransitionSettings, transition_scorers
from tlrec_edge.linear.ranking import Scorer
from tlrec_edge.linear.session_knn import SessionKnnSettings, session_knn_scorers
from tlrec_edge.linear.tuned import TunedScorer
from tlrec_edge.report.plots import BASELINES

HISTORIES = {
    "ann": "tea cup pot",
    "bob": "tea pot",
    "cat": "cup tea",
    "dan": "oil cup",
    "eve": "tea",
}
"""What each user bought, in order. Each next row is a day later than all before."""


def shop(histories: dict[str, str] = HISTORIES, **item_columns: Sequence[str]) -> Dataset:
    """Return a dataset of these histories; ``item_columns`` are columns of the items by id."""
    bought = [(user, item) for user, line in histories.items() for item in line.split()]
    log_table = pd.DataFrame(bought, columns=["user", "item"])
    log_table["timestamp"] = [1.7e9 + 86_400 * day for day in range(len(bought))]
    items = sorted(set(log_table["item"]))
    tables = [pd.DataFrame({"item": items, **item_columns})] if item_columns else []
    return prepare_tables(
        [log_table], tables, None, SplitPlan("leave-one-out", negatives=2)
    ).dataset


def everything(data: Dataset) -> Task:
    """Return a task that trains on all rows and knows all of every history."""
    task = make_tasks(data, data.domains).final
    n = len(data.items)
    candidates = np.arange(n, dtype=np.int32)
    log = data.interactions
    return replace(task, train=log, history=log, candidates=candidates)


def score(data: Dataset, scorer: Scorer, user: str) -> dict[str, float]:
    row = np.array([data.user_row[user]], np.int32)
    found = scorer(row)[0].tolist()
    return dict(zip(data.items, found, strict=True))


def test_the_graph_follows_the_last_item() -> None:
    """After tea came cup once and pot once, after cup pot once and tea once."""
    data = shop()
    scorers = transition_scorers(everything(data))
    # Buyers: tea 4, cup 3, pot 2, oil 1.
    last = scorers(TransitionSettings(decay=0.0, window=1, both_ways=False, prior=1.0))
    assert score(data, last, "eve") == pytest.approx(
        {
            "cup": (1 + 0.3) / 3,
            "pot": (1 + 0.2) / 3,
            "tea": 0.4 / 3,
            "oil": 0.1 / 3,
        },
        abs=1e-6,
    )
    two = scorers(TransitionSettings(decay=0.5, window=1, both_ways=False, prior=1.0))
    # The last item, tea, counts 1, and the cup before it 1/2.
    assert score(data, two, "cat")["pot"] == pytest.approx(1.2 / 3 + 0.5 * 1.2 / 3, abs=1e-6)


def test_the_graph_has_a_window_and_directions() -> None:
    data = shop({"ann": "a b c", "bob": "c"})
    task = everything(data)
    wide = transition_scorers(task)(TransitionSettings(0.0, 2, True, 0.0))
    # c is one step from b, and two from a, which count half: 1.5 in all.
    assert score(data, wide, "bob") == pytest.approx({"a": 1 / 3, "b": 2 / 3, "c": 0.0}, abs=1e-6)
    narrow = transition_scorers(task)(TransitionSettings(0.0, 1, False, 1.0))
    # Nothing came after c: popularity decides.
    assert score(data, narrow, "bob") == pytest.approx({"a": 0.25, "b": 0.25, "c": 0.5}, abs=1e-6)


def test_session_knn_by_hand() -> None:
    data = shop()
    scorers = session_knn_scorers(everything(data))
    scorer = scorers(SessionKnnSettings(last_items=2, recent=9, neighbours=9))
    # Cat's last item is tea (weight 1), before it cup (1/2). Neighbours: ann has both (similarity
    # 1.5) and bob and eve tea (1), all matched at tea (weight 1); dan has cup: 1/2, weight 1/2.
    idf = {"tea": log(5 / 4), "cup": log(5 / 3), "pot": log(5 / 2), "oil": log(5 / 1)}
    near = {"tea": 1.5 + 1 + 1, "cup": 1.5 + 0.25, "pot": 1.5 + 1, "oil": 0.25}
    expected = {item: near[item] * idf[item] for item in idf}
    assert score(data, scorer, "cat") == pytest.approx(expected, rel=1e-5)


def test_session_knn_takes_recent_and_near_histories() -> None:
    data = shop()
    scorers = session_knn_scorers(everything(data))
    nearest = scorers(SessionKnnSettings(last_items=2, recent=9, neighbours=1))
    idf = {"tea": log(5 / 4), "cup": log(5 / 3), "pot": log(5 / 2), "oil": 0.0}
    assert score(data, nearest, "cat") == pytest.approx(
        {item: 1.5 * idf[item] for item in idf}, rel=1e-5
    )
    # The two most recent with tea are eve and cat herself; with cup dan and cat. Of the others
    # eve is the most recent, and dan is next.
    recent = scorers(SessionKnnSettings(last_items=2, recent=2, neighbours=9))
    expected = {"tea": log(5 / 4), "cup": 0.25 * log(5 / 3), "pot": 0.0, "oil": 0.25 * log(5)}
    assert score(data, recent, "cat") == pytest.approx(expected, rel=1e-5)


def test_content_is_the_cosine_of_words_and_categories() -> None:
    # Items in order of their ids: cup, oil, pot, tea.
    columns = {
        "title": ["blue cup", "oil", "blue pot", "tea"],
        "category": ["kitchen", "", "kitchen", "food"],
    }
    data = shop({"ann": "cup tea", "bob": "pot oil cup tea"}, **columns)
    task = everything(data)
    scorers = content_scorers(data, task)
    by_category = score(data, scorers(ContentSettings(category_weight=1.0)), "ann")
    assert by_category == pytest.approx({"cup": 1.0, "pot": 1.0, "tea": 1.0, "oil": 0.0})
    faded = score(data, scorers(ContentSettings(category_weight=1.0, decay=0.5)), "ann")
    assert faded == pytest.approx({"cup": 0.5, "pot": 0.5, "tea": 1.0, "oil": 0.0})
    by_text = score(data, scorers(ContentSettings(category_weight=0.0)), "ann")
    assert by_text["oil"] < by_text["pot"] < by_text["cup"]
    half = score(data, scorers(ContentSettings(category_weight=0.5)), "ann")
    assert half == pytest.approx({k: (by_text[k] + by_category[k]) / 2 for k in half}, abs=1e-6)


def test_content_of_an_item_without_words_is_empty() -> None:
    content = item_content(synthetic.dataset())
    for part in content:
        norm = np.sqrt(part.power(2).sum(1))
        np.testing.assert_allclose(norm[norm > 0], 1.0, rtol=1e-5)
    assert not item_content(synthetic.ids_only()).texts.nnz


def test_nearest_items_by_buyers_and_content_add_up() -> None:
    data = synthetic.dataset()
    tasks = make_tasks(data, ("small",))
    item_knn = TunedScorer("itemknn", item_knn_scorers, ITEM_KNN_SETTINGS[:1])
    content = TunedScorer("content", lambda task: content_scorers(data, task), [ContentSettings()])
    ranker = ItemKnnWithContent(item_knn, content)
    ranking = ranker(tasks)
    assert ranker.choice is not None
    weight = ranker.choice.content
    users = np.unique(tasks.final.rows.user)
    bought = item_knn_scorers(tasks.final)(ITEM_KNN_SETTINGS[0])
    alike = content_scorers(data, tasks.final)(ContentSettings())
    expected = bought(users) + weight * alike(users)
    first = np.flatnonzero(users == tasks.final.rows.user[0])[0]
    positive = tasks.final.column[tasks.final.rows.item[0]]
    negatives = tasks.final.column[tasks.final.rows.negatives[0]]
    above = (expected[first, negatives] > expected[first, positive]).sum()
    equal = (expected[first, negatives] == expected[first, positive]).sum()
    assert ranking.rank[0] == 1 + above + equal / 2


def test_the_best_setting_on_validation_rows_is_taken() -> None:
    """A scorer that puts the positives of the validation rows first wins over one that does not."""
    tasks = make_tasks(synthetic.dataset(), ("small",))
    rows = tasks.choose.rows

    def fit(task: Task) -> Callable[[ContentSettings], Scorer]:
        good = np.zeros((task.n_users, len(task.candidates)))
        good[rows.user, task.column[rows.item]] = 1.0
        return lambda setting: (
            lambda users, columns=slice(None): setting.decay * good[users][:, columns]
        )

    settings = [ContentSettings(decay=-1.0), ContentSettings(decay=1.0)]
    ranker = TunedScorer("test", fit, settings)
    ranker(tasks)
    assert ranker.choice == settings[1]
    none = replace(tasks.choose, rows=rows.select(np.arange(0)))
    assert ranker.choose(none) == settings[0]


@pytest.mark.parametrize("kind", ["leave-one-out", "new-users"])
def test_every_baseline_ranks_every_row(kind: str) -> None:
    data = synthetic.dataset(kind)
    tasks = make_tasks(data, ("small",), 0 if kind == "new-users" else None)
    for name, ranker in simple_rankers(data).items():
        ranking = ranker(tasks)
        assert len(ranking.rank) == len(tasks.final.rows), name
        assert np.isfinite(ranking.rank).all(), name


def test_baselines_of_the_target_alone_read_no_other_domain() -> None:
    """They rank the same if the other domains' rows are absent from the tasks."""
    data = synthetic.dataset()
    tasks = make_tasks(data, ("small",))
    alone = Tasks(tasks.choose.target_only(), tasks.final.target_only())
    for baseline in SIMPLE_BASELINES:
        if baseline.target_only:
            pooled, separate = (baseline.ranker(data)(given).rank for given in (tasks, alone))
            np.testing.assert_array_equal(pooled, separate, err_msg=baseline.name)


def test_a_dataset_of_ids_has_no_baseline_of_times_or_content() -> None:
    names = set(simple_rankers(synthetic.ids_only()))
    assert {"popularity", "itemcf", "itemknn", "session-knn", "ease"} <= names
    assert not names & {"content", "itemknn-content", "last-item-graph", "ease-fading"}
    assert not any(name.endswith("-target") for name in names), "one domain: they are the same"


def test_plots_know_every_simple_baseline() -> None:
    assert all(baseline.name.startswith(BASELINES) for baseline in SIMPLE_BASELINES)
