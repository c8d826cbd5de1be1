"""``prepare`` from the command line: files in, dataset out, one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tlrec_edge.cli.prepare import prepare
from tlrec_edge.data.store import load_dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import DataError


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(prepare, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    behaviour, goods = tmp_path / "user_behavior.csv", tmp_path / "goods_features.csv"
    rows = [f"u{u},g{(u + i) % 7},{i + 1},{i % 2}" for u in range(6) for i in range(4)]
    behaviour.write_text("用户ID,商品ID,点击次数,购买次数\n" + "\n".join(rows) + "\n", "utf-8")
    goods.write_text(
        "商品ID,价格,销量,评分,分类\n"
        + "".join(f"g{i},{i}.5,{i * 10},4.{i},{'手机' if i % 2 else '服装'}\n" for i in range(9)),
        "utf-8",
    )
    return behaviour, goods


def test_two_csv_files_become_a_dataset(tmp_path: Path, files: tuple[Path, Path]) -> None:
    result = run(
        "--interactions", files[0], "--items", files[1], "--out", tmp_path / "ds", "--json"
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    dataset = load_dataset(tmp_path / "ds")
    assert (report["users"], report["items"], report["items_never_sold"]) == (6, 9, 2)
    assert report["item_features"] == {
        "价格": "numeric",
        "销量": "numeric",
        "评分": "numeric",
        "分类": "categorical",
    }
    assert report["interactions"] == len(dataset.interactions) == 36
    assert report["split"]["test"] > 0


def test_tables_tell_what_was_done(tmp_path: Path, files: tuple[Path, Path]) -> None:
    result = run("--interactions", files[0], "--out", tmp_path / "ds")
    assert result.exit_code == 0, result.output
    for words in ("rows read", "24", "user = 用户ID", "item features: none", "split leave-one-out"):
        assert words in result.output


def test_a_schema_and_split_options_reach_the_dataset(tmp_path: Path) -> None:
    log, schema = tmp_path / "log.csv", tmp_path / "schema.toml"
    log.write_text(
        "".join(
            f"{row}\n"
            for row in ["who;what;when", *(f"p{i % 4};i{i};2024-01-{i + 1:02}" for i in range(20))]
        )
    )
    schema.write_text('[interactions]\nuser = "who"\nitem = "what"\ntimestamp = "when"\n')
    arguments = ("--interactions", log, "--schema", schema, "--out", tmp_path / "ds", "--json")
    result = run(
        *arguments,
        "--split",
        "new-users",
        "--folds",
        "2",
        "--test-from",
        "2024-01-16",
        "--min-buyers",
        "1",
    )
    assert result.exit_code == 0, result.output
    split = json.loads(result.stdout)["split"]
    assert (
        split["kind"],
        split["test"],
        split["settings"]["folds"],
        split["settings"]["min_buyers"],
    ) == (
        "new-users",
        5,
        2,
        1,
    )


def test_rows_of_a_user_are_shown_and_can_be_capped(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    files[0].write_text("user,item\n" + "".join(f"bot,i{n}\n" for n in range(30)) + "u,i1\nv,i1\n")
    arguments = ("--interactions", files[0], "--out", tmp_path / "ds")
    assert "interactions per user: median 1, most 30" in run(*arguments).output
    capped = run(*arguments, "--max-per-user", "5", "--json")
    report = json.loads(capped.stdout)
    assert report["rows_per_user"] == {"median": 1.0, "most": 5}
    assert report["cleaning"]["beyond the newest 5 of a user"] == 25
    assert run(*arguments, "--max-per-user", "0").exit_code == 2


def test_names_that_look_like_markup_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,domain\nu,a,[bold]x[/]\n")
    assert "[bold]x[/]" in run("--interactions", log, "--out", tmp_path / "ds").output


def test_candidates_alone_mean_the_given_split(tmp_path: Path, files: tuple[Path, Path]) -> None:
    candidates = tmp_path / "test.tsv"
    candidates.write_text("user\titem\tnegatives\nu1\tg8\tg0,g1\n")
    result = run(
        "--interactions",
        files[0],
        "--items",
        files[1],
        "--candidates",
        candidates,
        "--out",
        tmp_path / "ds",
    )
    assert result.exit_code == 0, result.output
    assert "1 given test row" in result.output
    assert "duplicates" not in result.output
    candidates.write_text("user\titem\tnegatives\nu1\tg8\tg0,g1,g0,g8\n")
    paths = ("--interactions", files[0], "--items", files[1], "--candidates", candidates)
    result = run(*paths, "--out", tmp_path / "ds")
    assert "1 given test row (2 duplicates left out)" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--preset", "complete-journey", "--schema", "s.toml"),
        ("--preset", "movielens"),
        ("--split", "random"),
    ],
)
def test_wrong_usage_ends_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(*arguments, "--out", tmp_path / "ds").exit_code == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("", "is empty"),
        ("user,item\n", "no rows"),
        ("a,b\n1,2\n", "no user column; found a, b"),
        ("user,item\n,\n", "none of 1 row is usable"),
        ("user,item\nu,a,b,c\nv,w\n", "line 2 has 4 cells, the header 2"),
    ],
)
def test_a_bad_file_writes_nothing(tmp_path: Path, content: str | None, words: str) -> None:
    log = tmp_path / "log.csv"
    if content is not None:
        log.write_text(content)
    result = run("--interactions", log, "--out", tmp_path / "ds")
    assert isinstance(result.exception, DataError)
    assert words in str(result.exception)
    assert str(log) in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ["log.csv"] if content is not None else []
    )


def test_a_folder_of_something_else_is_not_overwritten(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    result = run("--interactions", files[0], "--out", tmp_path)
    assert isinstance(result.exception, DataError)
    assert files[0].exists()


def test_one_user_and_one_item_are_enough_to_prepare(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item\nu,a\n")
    assert run("--interactions", log, "--out", tmp_path / "ds").exit_code == 0
    assert len(load_dataset(tmp_path / "ds").interactions) == 1


def test_all_candidates_are_ranked_what_was_seen_too_and_the_validation_rows_stay_out(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log.csv"
    rows = [f"u{u},i{(u * k) % 11},2024-01-01" for u in range(1, 9) for k in range(1, 7)]
    log.write_text("user,item,timestamp\n" + "".join(f"{row}\n" for row in rows))
    plain, all_candidates = tmp_path / "plain", tmp_path / "all_candidates"
    assert run("--interactions", log, "--out", plain).exit_code == 0
    flags = ("--negatives", "0", "--rank-seen", "--no-refit")
    assert run("--interactions", log, "--out", all_candidates, *flags).exit_code == 0
    split = load_dataset(all_candidates).split
    assert (split.negatives, split.mask_seen, split.refit) == (0, False, False)
    split = load_dataset(plain).split
    assert (split.negatives, split.mask_seen, split.refit) == (99, True, True)
    data = load_dataset(all_candidates)
    tasks = make_tasks(data, data.domains)
    assert tasks.final.rows.negatives.shape == (8, 0)
    assert len(tasks.final.train) == len(tasks.choose.train) == 8 * 4
    assert len(tasks.final.history) == 8 * 5
