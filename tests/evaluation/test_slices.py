"""Full rankings, slices and catalogue metrics, compared with figures counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers import synthetic
from tlrec_edge.core.metrics import rank_of_positive
from tlrec_edge.data.dataset import TEST, EvalRows
from tlrec_edge.data.task import Task, make_tasks
from tlrec_edge.evaluation import Evaluation, evaluate
from tlrec_edge.evaluation.evaluate import baseline_rankers
from tlrec_edge.evaluation.result import Catalogue, pool
from tlrec_edge.evaluation.slices import DECILES, UNKNOWN, slice_rows
from tlrec_edge.linear.ranking import ALL, TOP, Ranking, rank_full, rank_rows


def some_task(kind: str = "leave-one-out", fold: int | None = None) -> Task:
    return make_tasks(synthetic.dataset(kind), ("small",), fold).final


def scores_of(task: Task) -> np.ndarray:
    """Return coarse scores with ties and some NaN, (users, C)."""
    table = (
        np.random.default_rng(0).integers(0, 9, (task.n_users, len(task.candidates))).astype(float)
    )
    table[::7, ::5] = np.nan
    return table


@pytest.mark.parametrize(
    ("kind", "fold"), [("leave-one-out", None), ("time", None), ("new-users", 1), ("given", None)]
)
def test_the_full_rank_is_among_all_but_known_and_other_positive_items(
    kind: str, fold: int | None
) -> None:
    task = some_task(kind, fold)
    table = scores_of(task)
    found = rank_full(lambda users, columns=ALL: table[users][:, columns], task)
    sampled = rank_rows(lambda users, columns=ALL: table[users][:, columns], task)
    np.testing.assert_array_equal(found.rank, sampled.rank)
    assert found.full_rank is not None
    assert found.full_candidates is not None
    for at in range(0, len(task.rows), 11):
        user, item = int(task.rows.user[at]), int(task.rows.item[at])
        known = set(task.history.item[task.history.user == user]) | set(
            task.rows.item[task.rows.user == user]
        )
        rest = [c for c, i in enumerate(task.candidates) if i not in known]
        line = np.concatenate([table[user, [task.column[item]]], table[user, rest]])[None]
        assert found.full_rank[at] == rank_of_positive(line)[0]
        assert found.full_candidates[at] == len(rest)


def test_recommendations_are_best_first_and_not_known() -> None:
    task = some_task("time")
    table = scores_of(task)
    found = rank_full(lambda users, columns=ALL: table[users][:, columns], task)
    users = np.unique(task.rows.user)
    assert found.top is not None
    assert found.top.shape == (len(users), TOP)
    for user, best in zip(users, found.top, strict=True):
        known = np.isin(task.candidates, task.history.item[task.history.user == user])
        free = np.where(known, -np.inf, np.nan_to_num(table[user], nan=-np.inf))
        assert free[task.column[best]].tolist() == sorted(free.tolist(), reverse=True)[:TOP]


def test_rows_without_negatives_are_ranked_in_full_already() -> None:
    task = some_task()
    bare = replace(task, rows=replace(task.rows, negatives=np.empty((len(task.rows), 0), np.int32)))
    found = rank_full(lambda users, columns=ALL: scores_of(task)[users][:, columns], bare)
    assert (found.full_rank, found.full_candidates) == (None, None)
    assert found.top is not None


@pytest.mark.parametrize(
    ("kind", "fold"), [("leave-one-out", None), ("time", None), ("new-users", 2)]
)
def test_slices_equal_a_count_by_hand(kind: str, fold: int | None) -> None:
    data = synthetic.dataset(kind)
    task = make_tasks(data, ("small",), fold).final
    found = slice_rows(data, task)
    history, log, small = task.history, data.interactions, data.domains.index("small")
    sold = task.train.select(task.in_target(task.train))
    for at, (user, item) in enumerate(zip(task.rows.user, task.rows.item, strict=True)):
        user_history = history.domain[history.user == user]
        known = (
            "known in the target"
            if (user_history == small).any()
            else "none in the target"
            if len(user_history)
            else "no history"
        )
        assert found["user"][at] == known
        assert found["item"][at] == (
            "sold in the target" if (sold.item == item).any() else "never sold"
        )
        low, _, high = found["history"][at].partition("-")
        assert int(low) <= len(user_history) <= int(high or low)
        row = (
            (log.user == user)
            & (log.item == item)
            & (log.domain == small)
            & (data.split.role == TEST)
        )
        day = str(np.datetime64(int(log.time[row].min()), "s"))
        assert (
            found["period"][at] in (day[:7], f"week of {day[:10]}")
            or "week of" in found["period"][at]
        )
    if fold is not None:
        assert set(found["user"]) <= {"none in the target", "no history"}


def test_deciles_hold_equal_shares_of_the_candidates_and_ties_stay_together() -> None:
    data = synthetic.dataset()
    task = some_task()
    every = EvalRows(
        np.zeros(len(task.candidates), np.int32),
        task.candidates,
        np.empty((len(task.candidates), 0), np.int32),
    )
    label = slice_rows(data, replace(task, rows=every))["popularity"]
    buyers = np.bincount(task.train.item, minlength=task.n_items)[task.candidates]
    place = np.array([DECILES.index(name) for name in label])
    assert (np.diff(place[np.argsort(buyers, kind="stable")]) >= 0).all()
    for count in np.unique(buyers):
        assert len(set(place[buyers == count])) == 1
    assert abs(place.mean() - 4.5) < 0.5


def test_months_weeks_and_unknown_times() -> None:
    data = synthetic.dataset("time")
    months = set(slice_rows(data, some_task("time"))["period"])
    assert all(name.startswith("2024-") for name in months)
    one = replace(
        data,
        interactions=replace(
            data.interactions, time=np.minimum(data.interactions.time, 1_720_000_000)
        ),
    )
    assert set(slice_rows(one, make_tasks(one, ("small",)).final)["period"]) == {
        "week of 2024-07-01"
    }
    given = synthetic.dataset("given")
    assert "period" not in slice_rows(given, some_task("given"))
    assert "period" not in slice_rows(
        synthetic.ids_only(), make_tasks(synthetic.ids_only(), ("all",)).final
    )
    # A row from a file that stands among the held-out rows has their time, the others none.
    task = some_task("time")
    not_in_log = replace(
        task,
        rows=EvalRows(
            *(
                np.append(c[:1], c[:1], 0)
                for c in (task.rows.user, task.rows.item, task.rows.negatives)
            )
        ),
    )
    not_in_log.rows.item[1] = data.item_row["b0"]
    assert slice_rows(data, not_in_log)["period"].tolist()[1] == UNKNOWN


def test_several_targets_are_slices_too() -> None:
    data = synthetic.dataset()
    found = evaluate(data, ("big", "small"), baseline_rankers(None, data))
    lines = [line for line in found.to_json(model="ease")["slices"] if line["by"] == "domain"]
    assert [line["slice"] for line in lines] == ["big", "small"]
    assert sum(line["tests"] for line in lines) == found.tests


def by_hand(full: list[float] | None = None) -> Evaluation:
    user = np.array([0, 0, 1, 2], np.int32)
    top = np.array([[5, 7] + [-1] * 8, [5, -1] + [-1] * 8, [5, 9] + [-1] * 8], np.int32)

    def ranking(rank: list[float], whole: list[float] | None) -> Ranking:
        others = np.full(4, 9)
        return Ranking(
            np.array(rank),
            others,
            user,
            user,
            None if whole is None else np.array(whole),
            others,
            top,
        )

    return Evaluation(
        ("t",),
        {"ease": ranking([3, 3, 3, 3], full and [1.0] * 4), "model": ranking([1, 1, 2, 2], full)},
        slices={"history": np.array(["5-19", "0", "0", "5-19"])},
        catalogue=Catalogue(np.array([3, 5, 7, 9], np.int32), np.array([1, 8, 2, 2], np.float32)),
    )


def test_coverage_gini_and_popularity_of_recommendations() -> None:
    row = by_hand().rows()[1]
    assert row["coverage@10"] == 3 / 4
    assert row["buyers@10"] == pytest.approx((8 * 3 + 2 + 2) / 5)
    assert row["gini@10"] == pytest.approx(0.45)
    assert by_hand().to_json()["candidates"] == 4


def test_a_slice_holds_both_sides_and_their_lift_in_its_own_order() -> None:
    lines = by_hand().to_json()["slices"]
    assert [(line["slice"], line["tests"], line["users"]) for line in lines] == [
        ("0", 2, 2),
        ("5-19", 2, 2),
    ]
    assert lines[0]["ndcg@10"] == pytest.approx((1 + 1 / np.log2(3)) / 2)
    assert (lines[0]["over.ndcg@10"], lines[0]["lift"]["of"], lines[0]["lift"]["over"]) == (
        0.5,
        "model",
        "ease",
    )
    assert lines[0]["lift"]["verdict"] == "too few users"
    assert lines[0]["lift"]["ndcg@10"] == pytest.approx(lines[0]["ndcg@10"] - 0.5)


def test_a_lift_of_another_sign_against_the_full_catalogue_is_noted() -> None:
    found = by_hand([4.0, 4.0, 4.0, 4.0]).to_json()
    assert found["lift"]["model"]["ndcg@10"] > 0 > found["lift"]["model"]["full"]["ndcg@10"]
    assert any("against sampled negatives, but" in note for note in found["notes"])
    assert found["rows"][1]["full.hr@10"] == 1.0
    assert not [note for note in by_hand([1.0] * 4).to_json()["notes"] if "sampled" in note]
    assert "full" not in by_hand().to_json()["lift"]["model"]


def test_pooled_folds_keep_slices_and_the_catalogue() -> None:
    data = synthetic.dataset("new-users")
    parts = [evaluate(data, ("small",), baseline_rankers(None, data), fold) for fold in (0, 1)]
    whole = pool(parts)
    assert len(whole.slices["user"]) == whole.tests
    found = whole.to_json(model="ease")
    assert sum(line["tests"] for line in found["slices"] if line["by"] == "history") == whole.tests
    assert all(0 < row["coverage@10"] <= 1 for row in found["rows"])
    assert pool([replace(parts[0], slices={}), parts[1]]).slices == {}
