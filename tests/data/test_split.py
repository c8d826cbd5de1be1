"""Splits: the held-out rows, by hand on small logs and by property on random ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlrec_edge.data.dataset import TEST, TRAIN, VALID, Interactions
from tlrec_edge.data.eval_rows import read_eval_rows
from tlrec_edge.data.prepare import SplitPlan, prepare_tables
from tlrec_edge.data.split import SPLITS, as_seconds, make_split
from tlrec_edge.errors import DataError


def log_of(rows: list[tuple[int, int, int, int]]) -> Interactions:
    """Return interactions from rows of (user, domain, item, time)."""
    user, domain, item, time = (
        np.array(column) for column in zip(*sorted(rows, key=lambda r: (r[0], r[3])), strict=True)
    )
    n = len(rows)
    return Interactions(
        user.astype(np.int32),
        item.astype(np.int32),
        domain.astype(np.int32),
        np.zeros(n, np.int32),
        np.ones(n, np.float32),
        time.astype(np.int64),
        np.arange(n, dtype=np.int32),
    )


def roles(log: Interactions, kind: str, **options: object) -> list[int]:
    users = [str(code) for code in range(int(log.user.max()) + 1)]
    split = make_split(log, users, kind, **options)  # type: ignore[arg-type]  # options of several types
    found: list[int] = split.role.tolist()
    return found


def test_leave_one_out_by_user_and_domain() -> None:
    log = log_of(
        [(0, 0, 1, 1), (0, 1, 2, 2), (0, 0, 3, 3), (0, 0, 4, 4), (0, 1, 5, 5), (1, 0, 1, 9)]
    )
    assert roles(log, "leave-one-out") == [TRAIN, TRAIN, VALID, TEST, TRAIN, TRAIN]


def test_leave_one_out_without_time_holds_out_all_rows_of_an_item() -> None:
    log = log_of([(0, 0, item, 0) for item in (1, 1, 2, 2, 3, 3)])
    role = np.array(roles(log, "leave-one-out"))
    assert sorted(role) == [TRAIN, TRAIN, VALID, VALID, TEST, TEST]
    assert all(len(set(role[log.item == item])) == 1 for item in (1, 2, 3))
    assert len({tuple(roles(log, "leave-one-out", seed=seed)) for seed in range(9)}) > 1
    assert roles(log, "leave-one-out", seed=3) == roles(log, "leave-one-out", seed=3)


def test_last_basket_needs_two_for_a_test_and_three_for_validation() -> None:
    rows = [
        (0, 0, 1, 1),
        (0, 0, 2, 2),
        (0, 0, 3, 3),
        (0, 0, 4, 3),
        (1, 0, 1, 1),
        (1, 0, 2, 2),
        (2, 0, 1, 1),
        (2, 0, 2, 1),
    ]
    assert roles(log_of(rows), "last-basket") == [
        TRAIN,
        VALID,
        TEST,
        TEST,
        TRAIN,
        TEST,
        TRAIN,
        TRAIN,
    ]


def test_by_time_takes_the_last_tenths_or_the_given_dates() -> None:
    log = log_of([(0, 0, i, 1_700_000_000 + i) for i in range(100)])
    assert np.bincount(roles(log, "time")).tolist() == pytest.approx([80, 10, 10], abs=2)
    dated = roles(log, "time", test_from=1_700_000_050)
    assert dated[50:] == [TEST] * 50
    assert VALID in dated[:50]
    with pytest.raises(DataError, match=r"valid_from .* is after test_from"):
        roles(log, "time", test_from=1_700_000_050, valid_from=1_700_000_060)
    with pytest.raises(DataError, match="the data, which run from 2023-11-14 to 2023-11-14"):
        roles(log, "time", test_from="2025-01-01")


def test_new_users_draws_folds_over_users_in_the_order_of_their_ids() -> None:
    log = log_of([(u, 0, i, 1_700_000_000 + i) for u in range(4) for i in range(10)])
    split = make_split(log, ["10", "9", "100", "1"], "new-users", folds=3)
    drawn = np.random.default_rng(7).integers(0, 3, 4)
    assert split.fold.tolist() == [drawn[2], drawn[1], drawn[3], drawn[0]]
    assert split.settings["folds"] == 3
    with pytest.raises(DataError, match="5 folds do not fit 4 users; choose --folds from 2 to 4"):
        make_split(log, ["10", "9", "100", "1"], "new-users")


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 5), st.integers(1, 6)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(["leave-one-out", "last-basket"]),
)
def test_nothing_is_trained_on_that_comes_after_the_test(
    rows: list[tuple[int, int, int, int]], kind: str
) -> None:
    log = log_of(rows)
    role = np.array(roles(log, kind))
    for user in range(4):
        for domain in range(2):
            mine = (log.user == user) & (log.domain == domain)
            times = {r: log.time[mine & (role == r)] for r in (TRAIN, VALID, TEST)}
            assert times[TEST].min(initial=99) >= times[VALID].max(initial=0) >= 0
            assert times[TEST].min(initial=99) >= times[TRAIN].max(initial=0)
            assert not len(times[TEST]) or len(times[TRAIN])


@pytest.mark.parametrize(
    "kind", [kind for kind in SPLITS if kind not in ("leave-one-out", "given")]
)
def test_without_times_the_message_names_a_split_that_works(kind: str) -> None:
    log = log_of([(0, 0, 1, 0), (1, 0, 2, 0)])
    with pytest.raises(
        DataError, match="needs times and the data has none; use --split leave-one-out"
    ):
        roles(log, kind, folds=2)


def test_unknown_kinds_and_invalid_dates_are_named() -> None:
    log = log_of([(0, 0, 1, 1)])
    with pytest.raises(DataError, match="unknown split 'random'; known: leave-one-out"):
        roles(log, "random")
    with pytest.raises(DataError, match="cannot read date 'monday'"):
        as_seconds("monday")
    with pytest.raises(DataError, match="needs a file of test rows: --candidates"):
        roles(log, "given")
    assert as_seconds("1970-01-02") == as_seconds("1970-01-02T02:00:00+02:00") == 86400


LOG = pd.DataFrame(
    [
        ("u", "a", "2024-01-01"),
        ("u", "b", "2024-01-02"),
        ("v", "a", "2024-01-01"),
        ("w,1", "x,y", "2024-01-03"),
    ],
    columns=["user", "item", "time"],
)


def write_rows(folder: Path, text: str) -> Path:
    path = folder / "test.tsv"
    path.write_text(text)
    return path


def test_given_rows_bring_their_ids_and_the_last_basket_validates(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "user\titem\tnegatives\nu\tc\ta, b,d\nv\tx,y\t\nnew\ta,b\tb,c\n")
    dataset = prepare_tables([LOG], plan=SplitPlan("given", candidates=path)).dataset
    assert dataset.items == ("a", "b", "c", "d", "x,y")
    assert dataset.users == ("new", "u", "v", "w,1")
    assert dataset.split.role.tolist() == [TRAIN, VALID, TRAIN, TRAIN]
    rows = read_eval_rows(path, dataset)
    named = [
        (dataset.users[u], dataset.items[i]) for u, i in zip(rows.user, rows.item, strict=True)
    ]
    assert named == [("u", "c"), ("v", "x,y"), ("new", "a"), ("new", "b")]
    assert rows.negatives.tolist() == [[0, 1, 3], [-1, -1, -1], [2, -1, -1], [2, -1, -1]]
    stored = dataset.split.rows
    assert stored is not None
    assert (stored.negatives == rows.negatives).all()


@pytest.mark.parametrize("cell", ["b,c", "['b', 'c']", '[""b"", ""c""]', "b|c"])
def test_negatives_may_be_a_list_and_unknown_ids_are_said(tmp_path: Path, cell: str) -> None:
    path = write_rows(tmp_path, f'user\titem\tnegatives\nu\ta\t"{cell}"\n')
    prepared = prepare_tables([LOG], plan=SplitPlan("given", candidates=path))
    new = cell if "|" in cell else "c"
    assert prepared.dataset.items == tuple(sorted(["a", "b", new, "x,y"]))
    assert prepared.notes == (f"1 item is only in the test rows, first {new!r}",)


@pytest.mark.parametrize(
    ("row", "same", "duplicates"),
    [
        ("u\tc\ta,a,a,b,d,b", "u\tc\ta,b,d", 3),
        ("u\tc\tc,a,b,c", "u\tc\ta,b", 2),
        ("u\tc,a,c\tb, a ,d,b", "u\tc,a\tb,d", 3),
        ("u\tc\ta,b", "u\tc\ta,b", 0),
    ],
)
def test_an_id_that_occurs_twice_in_a_row_is_left_out(
    tmp_path: Path, row: str, same: str, duplicates: int
) -> None:
    log = pd.DataFrame([("u", name) for name in "abcd"], columns=["user", "item"])
    dataset = prepare_tables([log]).dataset
    rows, expected = (
        read_eval_rows(write_rows(tmp_path, f"user\titem\tnegatives\n{text}\n"), dataset)
        for text in (row, same)
    )
    assert rows.item.tolist() == expected.item.tolist()
    assert rows.negatives.tolist() == expected.negatives.tolist()
    assert (rows.duplicates, expected.duplicates) == (duplicates, 0)


def test_rows_without_negatives_are_ranked_among_all_candidates(tmp_path: Path) -> None:
    dataset = prepare_tables([LOG]).dataset
    assert read_eval_rows(
        write_rows(tmp_path, "customer_id\titems\nu\ta\n"), dataset
    ).negatives.shape == (1, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("user\titem\nu\ta\nz\ta\nz\tb\n", "2 of 3 rows name an unknown user, first 'z' in line 3"),
        ("user\titem\nu\tq\n", "1 of 1 rows name an unknown item, first 'q' in line 2"),
        ("user\titem\tnegatives\nu\ta\tb,q\n", "unknown negative item, first 'q'"),
        ("user\titem\nu\t\n", "line 2 has no item"),
        ("user\tthing\nu\ta\n", "no item column; found user, thing"),
    ],
)
def test_invalid_evaluation_rows_are_counted_and_named(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read_eval_rows(write_rows(tmp_path, text), prepare_tables([LOG]).dataset)


def test_a_million_rows_split_in_seconds() -> None:
    rng = np.random.default_rng(0)
    n = 1_000_000
    user = np.sort(rng.integers(0, 5000, n)).astype(np.int32)
    time = np.arange(n) + 1
    ones = np.ones(n)
    log = Interactions(
        user,
        user,
        (user % 3).astype(np.int32),
        ones.astype(np.int32),
        ones.astype(np.float32),
        time,
        user,
    )
    assert (np.array(roles(log, "last-basket")) == TEST).sum() == len(np.unique(user))
