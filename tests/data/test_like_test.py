"""Validation rows are drawn like test rows that came with the data, or come with it too."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.commands import ok, refused, run, write
from tlrec_edge.data.dataset import TRAIN, VALID, Dataset, EvalRows
from tlrec_edge.data.prepare import SplitPlan, prepare_files
from tlrec_edge.data.store import dataset_hash, load_dataset, split_hash
from tlrec_edge.data.task import Tasks, history_lengths, make_tasks
from tlrec_edge.errors import DataError
from tlrec_edge.linear.baselines import popularity_scorer
from tlrec_edge.linear.ranking import ndcg
from tlrec_edge.linear.validation_notes import validation_notes

ITEMS, POOL = 300, 60
"""Items of the market, and the popular ones, which the test ranks."""
USERS, LONG_USERS = 1500, 500
"""Users, and those of them with long histories, whom the test asks about."""


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log of ids without times, and test rows of long histories among the pool."""
    folder = tmp_path_factory.mktemp("market")
    rng = np.random.default_rng(0)
    weight = np.arange(1, ITEMS + 1) ** -0.9
    log, test = [["user", "item"]], [["user", "item", "negatives"]]
    for user in range(USERS):
        length = int(rng.integers(8, 14)) if user < LONG_USERS else int(rng.integers(3, 6))
        items = rng.choice(ITEMS, length, replace=False, p=weight / weight.sum())
        tested = items[items < POOL]
        if user < LONG_USERS and len(tested):
            free = np.setdiff1d(np.arange(POOL), items)
            negatives = rng.choice(free, 20, replace=False)
            test.append([f"u{user}", f"i{tested[-1]}", ",".join(f"i{i}" for i in negatives)])
            items = items[items != tested[-1]]
        log += [[f"u{user}", f"i{i}"] for i in items]
    write(folder / "log.csv", log)
    write(folder / "test.csv", test)
    return folder


@cache
def prepared(folder: Path, test: str = "test.csv", valid: Path | None = None) -> Dataset:
    plan = SplitPlan("given", candidates=folder / test, valid_candidates=valid)
    return prepare_files([folder / "log.csv"], plan=plan).dataset


def pairs(rows: EvalRows) -> list[tuple[int, int]]:
    return list(zip(rows.user.tolist(), rows.item.tolist(), strict=True))


def popularity_ndcg(tasks: Tasks) -> tuple[float, float]:
    figures = [ndcg(popularity_scorer(task), task) for task in (tasks.choose, tasks.final)]
    return figures[0], figures[1]


def test_popularity_has_the_figure_of_the_test(market: Path) -> None:
    data = prepared(market)
    tasks = make_tasks(data, ("all",))
    valid, test = popularity_ndcg(tasks)
    assert valid == pytest.approx(test, abs=0.06)
    drawn = replace(data, split=replace(data.split, rows=None))
    unlike, _ = popularity_ndcg(Tasks(make_tasks(drawn, ("all",)).choose, tasks.final))
    assert abs(unlike - test) > 0.08


def test_negatives_are_as_many_of_the_same_pool_and_nothing_the_user_has(market: Path) -> None:
    data = prepared(market)
    choose = make_tasks(data, ("all",)).choose
    assert choose.rows.negatives.shape == (len(choose.rows), 20)
    pool = {data.item_row[f"i{i}"] for i in range(POOL)}
    assert set(choose.rows.negatives.ravel().tolist()) == pool
    assert set(choose.rows.item.tolist()) <= pool
    log = choose.history
    owned = {*zip(log.user.tolist(), log.item.tolist(), strict=True), *pairs(choose.rows)}
    for user, negatives in zip(choose.rows.user, choose.rows.negatives, strict=True):
        assert len(set(negatives.tolist())) == 20
        assert not owned & {(int(user), int(item)) for item in negatives}


def test_histories_are_as_long_as_those_of_the_test(market: Path) -> None:
    data = prepared(market)
    tasks = make_tasks(data, ("all",))
    lengths = [
        history_lengths(task, task.rows).sum(1).mean() for task in (tasks.choose, tasks.final)
    ]
    assert lengths[0] > 0.65 * lengths[1]
    assert len(tasks.choose.rows) == 500
    every = int((data.split.role == VALID).sum())
    assert tasks.choose.note.startswith(f"validation rows: 500 of {every:,}, drawn like the ")
    assert pairs(make_tasks(data, ("all",)).choose.rows) == pairs(tasks.choose.rows)


def test_which_user_has_which_positive_does_not_matter(market: Path) -> None:
    data = prepared(market)
    given = data.split.rows
    assert given is not None
    order = np.random.default_rng(0).permutation(len(given))
    shuffled = EvalRows(given.user, given.item[order], given.negatives)
    other = replace(data, split=replace(data.split, rows=shuffled))
    rows, same = (make_tasks(d, ("all",)).choose.rows for d in (data, other))
    assert pairs(rows) == pairs(same)
    assert (rows.negatives == same.negatives).all()


def write_test(folder: Path, name: str, negatives: list[list[int]]) -> str:
    rows = [[f"u{u}", "i0", ",".join(f"i{i}" for i in row)] for u, row in enumerate(negatives)]
    write(folder / name, [["user", "item", "negatives"], *rows])
    return name


def test_negatives_that_were_drawn_by_popularity_are_drawn_so_again(market: Path) -> None:
    rng = np.random.default_rng(1)
    weight = np.arange(1, POOL)[::-1] ** 2.0
    p = weight / weight.sum()
    negatives = [(1 + rng.choice(POOL - 1, 8, replace=False, p=p)).tolist() for _ in range(400)]
    name = write_test(market, "popular.csv", negatives)
    data = prepared(market, name)
    tasks = make_tasks(data, ("all",))
    shares = []
    for task in (tasks.choose, tasks.final):
        count = np.bincount(task.rows.negatives.ravel(), minlength=task.n_items)
        shares.append(count / count.sum())
    assert np.abs(shares[0] - shares[1]).sum() < 0.25
    assert np.corrcoef(*shares)[0, 1] > 0.9


def test_few_test_rows_do_not_show_the_pool_and_their_numbers_of_negatives_stay(
    market: Path,
) -> None:
    name = write_test(market, "few.csv", [[1, 2, 3], [4, 5], []])
    choose = make_tasks(prepared(market, name), ("all",)).choose
    assert set(np.unique((choose.rows.negatives >= 0).sum(1)).tolist()) == {2, 3}
    assert len(np.unique(choose.rows.negatives)) > POOL


def test_without_negatives_validation_ranks_among_all_too(market: Path) -> None:
    name = write_test(market, "none.csv", [[], []])
    choose = make_tasks(prepared(market, name), ("all",)).choose
    assert choose.rows.negatives.shape == (len(choose.rows), 0)
    assert len(choose.rows)


def test_validation_rows_of_a_file_are_used_as_they_are(market: Path, tmp_path: Path) -> None:
    log = pd.read_csv(market / "log.csv").groupby("user").last().reset_index()
    rows = [[user, item, "i1,i2,i3"] for user, item in log.itertuples(index=False)][:50]
    file = write(tmp_path / "valid.csv", [["user", "item", "negatives"], *rows])
    tables = ("--interactions", market / "log.csv", "--candidates", market / "test.csv")
    found = ok("prepare", *tables, "--valid-candidates", file, "--out", tmp_path / "ds")
    assert ", 50 valid, 0 test, 500 given test rows, 50 given validation rows" in found.stdout
    data = load_dataset(tmp_path / "ds")
    again = prepared(market, valid=file)
    assert dataset_hash(data) == dataset_hash(again)
    assert split_hash(data) != split_hash(prepared(market))
    tasks = make_tasks(data, ("all",))
    named = [[data.users[user], data.items[item]] for user, item in pairs(tasks.choose.rows)]
    assert named == [row[:2] for row in rows]
    held_out = set(pairs(tasks.choose.rows))
    learned = [
        set(zip(t.train.user.tolist(), t.train.item.tolist(), strict=True))
        for t in (tasks.choose, tasks.final)
    ]
    assert not held_out & learned[0]
    assert held_out <= learned[1]
    assert set(data.split.role.tolist()) == {TRAIN, VALID}


def test_validation_rows_of_a_file_need_test_rows_of_a_file(market: Path) -> None:
    assert "add --candidates FILE" in refused(
        *("prepare", "--interactions", market / "log.csv", "--valid-candidates"),
        *(market / "test.csv", "--out", market / "ds"),
    )


def test_unlike_candidates_are_said(market: Path, tmp_path: Path) -> None:
    test = pd.read_csv(market / "test.csv")
    rare = ",".join(f"i{i}" for i in range(ITEMS - 20, ITEMS))
    test.assign(negatives=rare).to_csv(tmp_path / "valid.csv", index=False)
    assert not validation_notes(make_tasks(prepared(market), ("all",)))[1:]
    unlike = make_tasks(prepared(market, valid=tmp_path / "valid.csv"), ("all",))
    (note,) = validation_notes(unlike)
    assert note.startswith("popularity has NDCG@10 ")
    alike = make_tasks(prepared(market, valid=market / "test.csv"), ("all",))
    assert not validation_notes(alike)


SALES = [["user", "item", "domain"]] + [
    [f"u{u}", f"{domain}{(u * 3 + k) % 8}", domain]
    for u in range(20)
    for domain in "ab"
    for k in range(4)
]


@pytest.mark.parametrize("header", ["domain", "market", "Country"])
def test_rows_of_several_targets_are_in_one_file(tmp_path: Path, header: str) -> None:
    log = write(tmp_path / "log.csv", [["user", "item", "Country"], *SALES[1:]])
    rows = [
        ["u0", "a5", "a6,a7", "a"],
        ["u1", "b1", "b7", "b"],
        ["u2", "a2", "a1", ""],
        ["u3", "b2", "b1,b0", "b"],
    ]
    file = write(tmp_path / "test.csv", [["user", "item", "negatives", header], *rows])
    schema = tmp_path / "schema.toml"
    schema.write_text('[interactions]\ndomain = "Country"\n')
    ok(
        "prepare",
        "--interactions",
        log,
        "--candidates",
        file,
        "--schema",
        schema,
        "--out",
        tmp_path / "ds",
    )
    data = load_dataset(tmp_path / "ds")
    tested = {
        domain: [data.users[user] for user in make_tasks(data, tuple(domain)).final.rows.user]
        for domain in ("a", "b", "ab")
    }
    assert tested == {"a": ["u0", "u2"], "b": ["u1", "u2", "u3"], "ab": ["u0", "u1", "u2", "u3"]}
    assert data.item_row["b7"] not in make_tasks(data, ("a",)).final.candidates
    for domain in "ab":
        options = ("--mode", "scratch", "--epochs", 1, "--out", tmp_path / domain)
        adapted = ok("adapt", tmp_path / "ds", "--domain", domain, *options)
        n_test = f"like the {len(tested[domain])} test rows"
        assert "note: validation rows: 20 of 20, drawn " + n_test in adapted.stderr
        report = ok("evaluate", tmp_path / domain, tmp_path / "ds")
        assert f"{len(tested[domain])} tests" in report.stdout


def test_evaluate_takes_a_schema_for_the_columns_of_its_test_rows(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", SALES)
    ok("prepare", "--interactions", log, "--out", tmp_path / "ds")
    options = ("--domain", "a", "--mode", "scratch", "--epochs", 1, "--out", tmp_path / "m")
    ok("adapt", tmp_path / "ds", *options)
    file = write(tmp_path / "test.csv", [["who", "what"], ["u0", "a5"]])
    command = ("evaluate", tmp_path / "m", tmp_path / "ds", "--candidates", file)
    assert "no user column" in refused(*command)
    schema = tmp_path / "schema.toml"
    schema.write_text('[interactions]\nuser = "who"\nitem = "what"\n')
    assert "a: 1 tests" in ok(*command, "--schema", schema).stdout
    assert run(*command[:3], "--schema", schema).exit_code == 2


def test_an_unknown_domain_of_a_row_is_refused(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", SALES)
    rows = [["user", "item", "domain"], ["u0", "a5", "a"], ["u0", "a5", "c"]]
    file = write(tmp_path / "test.csv", rows)
    with pytest.raises(DataError, match="line 3 has the domain 'c'; known: a, b; correct it"):
        prepare_files([log], plan=SplitPlan("given", candidates=file))


@pytest.mark.parametrize(
    "names", [("neg1", "neg2"), ("neg_1", "neg_2"), ("Negative 1", "negative2")]
)
def test_negatives_may_have_a_column_each(tmp_path: Path, names: tuple[str, str]) -> None:
    log = write(tmp_path / "log.csv", SALES)
    rows = [["u0", "a5", "a6", "a7", "5"], ["u1", "a1", "a2", "", "4"]]
    file = write(tmp_path / "test.csv", [["user", "item", *names, "stars"], *rows])
    prepared = prepare_files([log], plan=SplitPlan("given", candidates=file))
    data, given = prepared.dataset, prepared.dataset.split.rows
    assert given is not None
    named = [[data.items[item] for item in row if item >= 0] for row in given.negatives]
    assert named == [["a6", "a7"], ["a2"]]
    assert prepared.notes == (
        "no time column: the order of the file counts",
        f"{file}: columns not used: stars",
    )


def test_times_before_1973_are_an_order_and_no_half_lives_are_tried(tmp_path: Path) -> None:
    steps = [[*row, 5 * i] for i, row in enumerate(SALES[1:])]
    log = write(tmp_path / "log.csv", [["user", "item", "domain", "time"], *steps])
    found = ok("prepare", "--interactions", log, "--out", tmp_path / "ds")
    assert "an order only: no half-lives are tried" in found.stdout
    options = ("--domain", "a", "--mode", "scratch", "--epochs", 1, "--out", tmp_path / "m")
    ok("adapt", tmp_path / "ds", *options)
    report = ok("evaluate", tmp_path / "m", tmp_path / "ds").stdout
    assert "ease-target" in report
    assert "ease-fading" not in report
