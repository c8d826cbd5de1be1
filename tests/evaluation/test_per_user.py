"""Figures by user in a file have the same lift as the test rows they come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import synthetic
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import DataError
from tlrec_edge.evaluation import Evaluation, evaluate
from tlrec_edge.evaluation.evaluate import baseline_rankers
from tlrec_edge.evaluation.per_user import by_user, compare, read_per_user, write_per_user


@pytest.fixture(scope="module")
def found() -> Evaluation:
    data = synthetic.dataset("time")
    return evaluate(data, ("small",), baseline_rankers(None, data))


@pytest.mark.parametrize("name", ["u.csv", "u.csv.gz", "u.parquet"])
def test_a_lift_from_files_equals_that_of_the_rows(
    found: Evaluation, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    write_per_user(file, found, synthetic.dataset("time").users)
    ease, popularity = read_per_user(file, "ease"), read_per_user(file, "popularity")
    row = next(row for row in found.rows() if row["name"] == "ease")
    assert ease.n.sum() == found.tests
    assert len(ease.user) == found.users
    assert (ease.hr * ease.n).sum() / ease.n.sum() == pytest.approx(row["hr@10"])
    from_files, from_rows = compare(ease, popularity), found.lift("ease", "popularity")
    for key in ("mean", "se", "low", "high"):
        assert getattr(from_files, key) == pytest.approx(getattr(from_rows, key), abs=1e-6)
    back = np.argsort(ease.user)[::-1]
    other_order = ease._replace(
        user=tuple(ease.user[i] for i in back), n=ease.n[back], ndcg=ease.ndcg[back]
    )
    assert compare(ease, other_order).mean == 0.0


def test_other_test_rows_are_refused(found: Evaluation, tmp_path: Path) -> None:
    data = synthetic.dataset("time")
    tasks = make_tasks(data, ("small",))
    fewer = replace(tasks, final=replace(tasks.final, rows=tasks.final.rows.select(np.arange(9))))
    less = evaluate(data, ("small",), baseline_rankers(None, data), tasks=fewer)
    with pytest.raises(
        DataError, match=r"have different test rows: .* users differ, the first, 'u"
    ):
        compare(by_user(found, "ease", data.users), by_user(less, "ease", data.users))
    write_per_user(tmp_path / "u.csv", less, data.users)
    with pytest.raises(
        DataError, match="has no model 'model'; it has popularity, itemcf-target, itemcf, "
    ):
        read_per_user(tmp_path / "u.csv", "model")
    (tmp_path / "bad.csv").write_text("user,item\na,b\n")
    with pytest.raises(DataError, match="expected model, user, n, "):
        read_per_user(tmp_path / "bad.csv", "model")
    (tmp_path / "odd.csv").write_text("model,user,n,ndcg@10,hr@10\nmodel,u,x,0,0\n")
    with pytest.raises(DataError, match=r"odd\.csv"):
        read_per_user(tmp_path / "odd.csv", "model")
    with pytest.raises(DataError, match="name it"):
        write_per_user(tmp_path / "u.txt", less, data.users)
