from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from helpers import bundles
from tlrec_edge import BundleError, DataError, History, Recommender, TlrecError, UnknownIdError
from tlrec_edge.bench.pooling_encoder import pooling_encoder
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.cli import main
from tlrec_edge.cli import use as use_module
from tlrec_edge.cli.inspection import inspect, verify
from tlrec_edge.cli.synth import synth
from tlrec_edge.cli.use import recommend, score, similar
from tlrec_edge.data.prepare import prepare_files
from tlrec_edge.errors import MissingExtraError
from tlrec_edge.tabular.histories import read_histories
from tlrec_edge.tabular.tables import read_table
from tlrec_edge.tabular.writer import TableWriter

ODD_IDS = ["a,b", 'say "hi"', "with space", "🛒", "x" * 10_000, "[bold]"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "bundle"
    ids = [*ODD_IDS, *(f"i{row}" for row in range(6, 80))]
    bundles.build(path, users=["ann"], ids=ids)
    return path


def run(command: click.Command, *args: object) -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args])


def ok(command: click.Command, *args: object) -> Result:
    result = run(command, *args)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def fails(error: type[TlrecError], command: click.Command, *args: object) -> str:
    result = run(command, *args)
    assert isinstance(result.exception, error), (result.output, result.exception)
    message = str(result.exception)
    assert "\n" not in message
    return message


def write(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


LOG = [
    ["user", "item", "event", "timestamp"],
    ["u1", "i9", "view", "2026-01-02T00:00:00"],
    ["u1", "a,b", "加购", "2026-01-01"],
    ["u2", "i8", "gazed at", "2026-01-01 00:00:00"],
    ["", "i8", "view", "1"],
    ["u2", "", "view", ""],
]


def test_every_option_and_command_has_help() -> None:
    for command in (inspect, verify, score, recommend, similar, synth):
        assert command.help
        options = [param for param in command.params if isinstance(param, click.Option)]
        assert not [option.name for option in options if not option.help]
        # Through the program: click keeps the first names that a command has for --help.
        assert run(main, command.name, "--help").exit_code == 0


def test_inspect(bundle: Path) -> None:
    shown = ok(inspect, bundle).output
    assert "80, of which 60 candidates" in shown
    assert "ndcg@10" in shown
    assert "encoder.onnx" in shown
    manifest = json.loads(ok(inspect, bundle, "--json").output)
    assert manifest["files"]["encoder.onnx"]["size"] == (bundle / "encoder.onnx").stat().st_size


def test_inspect_shows_cards_as_tables(bundle: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundle, tmp_path / "b"))
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    rows = [
        {"name": "ease", "ndcg@10": 0.204812, "hr@10": 0.3571},
        {"name": "model", "ndcg@10": 0.2127, "more": None},
    ]
    manifest["quality"] = {"users": 677, "tests": 1823, "rows": rows}
    manifest["provenance"] = {"domains": ["[b]"], "train": {"seed": 3}, "fold": None, "choices": []}
    bundles.write_manifest(path, json.dumps(manifest).encode())
    shown = ok(inspect, path).output
    assert not set("{}") & set(shown)
    lines = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in shown.splitlines()]
    for line in (
        ["tests", "1,823"],
        ["name", "ndcg@10", "hr@10", "more"],
        ["ease", "0.2048", "0.3571", "-"],
        ["model", "0.2127", "-", "-"],
        ["domains", "[b]"],
        ["train seed", "3"],
    ):
        assert line in lines


def test_verify(bundle: Path, tmp_path: Path) -> None:
    assert "ok: " in ok(verify, bundle).output
    assert json.loads(ok(verify, bundle, "--json").output)["ok"]
    assert "does not exist" in fails(BundleError, verify, tmp_path / "none")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_score_equals_the_library(bundle: Path, tmp_path: Path, suffix: str) -> None:
    pairs = [
        ["u1", "i7"],
        ["ann", "a,b"],
        ["nobody", "🛒"],
        ["u2", "i12"],
        ["u1", "who"],
        ["nobody", ODD_IDS[4]],
    ]
    source, out = tmp_path / f"pairs{suffix}", tmp_path / f"out{suffix}"
    if suffix == ".parquet":
        pq.write_table(
            pa.table({"user_id": [u for u, _ in pairs], "商品ID": [i for _, i in pairs]}), source
        )
    else:
        plain = write(tmp_path / "plain.csv", [["user_id", "商品ID"], *pairs])
        source.write_bytes(
            gzip.compress(plain.read_bytes()) if suffix == ".csv.gz" else plain.read_bytes()
        )
    result = ok(
        score,
        bundle,
        "--pairs",
        source,
        "--interactions",
        write(tmp_path / "log.csv", LOG),
        "--out",
        out,
    )
    assert "unknown users: 1 (scored by popularity)" in result.stderr
    assert "pairs with an item that is not a candidate: 1" in result.stderr
    if suffix == ".parquet":
        found = [list(map(str, row.values())) for row in pq.read_table(out).to_pylist()]
    else:
        text = gzip.decompress(out.read_bytes()) if suffix == ".csv.gz" else out.read_bytes()
        (tmp_path / "text.csv").write_bytes(text)
        header, *found = read(tmp_path / "text.csv")
        assert header == ["user", "item", "score"]
    assert [row[:2] for row in found] == pairs
    u1 = History(["a,b", "i9"], ["cart", "view"], [1767225600, 1767312000])
    u2 = History(["i8"], ["other"], [1767225600])
    with Recommender.open(bundle) as rec:
        users = {"u1": u1, "u2": u2}
        expected = rec.score_pairs(
            [users.get(user, user) for user, _ in pairs], [item for _, item in pairs]
        )
    assert np.array([row[2] for row in found], np.float32).tolist() == expected.tolist()
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith(".")) == []


def test_score_streams_in_chunks(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write(
        tmp_path / "pairs.csv",
        [["user", "item"], *[["ann", f"i{6 + row % 50}"] for row in range(40)]],
    )
    ok(score, bundle, "--pairs", pairs, "--out", tmp_path / "at_once.csv")
    monkeypatch.setattr(use_module, "_PAIRS_AT_ONCE", 7)
    ok(score, bundle, "--pairs", pairs, "--out", tmp_path / "parts.csv")
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "at_once.csv").read_bytes()


def test_unknown_policies(bundle: Path, tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.csv", [["user", "item"], ["ann", "i7"], ["nobody", "i7"]])
    ok(score, bundle, "--pairs", pairs, "--out", tmp_path / "o.csv", "--unknown", "nan")
    assert read(tmp_path / "o.csv")[2][2] == "nan"
    message = fails(
        UnknownIdError,
        score,
        bundle,
        "--pairs",
        pairs,
        "--out",
        tmp_path / "e.csv",
        "--unknown",
        "error",
    )
    assert "'nobody'" in message
    assert not (tmp_path / "e.csv").exists()


BAD_PAIRS = {
    "missing column": (b"user,thing\nu,i\n", "no item column; found user, thing"),
    "comma": (b"user,item\nu,i,j\n", "line 2 has 3 cells"),
    "later comma": (b"user,item\nu,i\n" * 9 + b"u,i,j\n", "line 19 has 3 cells"),
    "empty": (b"", "is empty"),
    "header only": (b"user,item\n", "has no rows"),
    "latin": (b"user,item\n\xe9,i\n", "is not UTF-8"),
    "quotes": (b'user,item\n"ux,i\n', "EOF inside string"),
    "binary": (b"PAR1\x00\x01\xff", "pairs.csv"),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_bad_pairs_leave_nothing_behind(bundle: Path, tmp_path: Path, case: str) -> None:
    content, expected = BAD_PAIRS[case]
    (tmp_path / "pairs.csv").write_bytes(content)
    message = fails(
        DataError, score, bundle, "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "out.csv"
    )
    assert expected in message
    assert "pairs.csv" in message
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.csv"]


def test_bad_paths(bundle: Path, tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.csv", [["user", "item"], ["ann", "i7"]])
    args = (score, bundle, "--pairs", pairs, "--out")
    assert "name it .csv" in fails(DataError, *args, tmp_path / "out.txt")
    assert "no is not a folder" in fails(DataError, *args, tmp_path / "no" / "out.csv")
    (tmp_path / "dir.csv").mkdir()
    assert "is a folder" in fails(DataError, *args, tmp_path / "dir.csv")
    assert "no such file" in fails(
        DataError, score, bundle, "--pairs", tmp_path / "no.csv", "--out", tmp_path / "o.csv"
    )
    (tmp_path / "p.parquet").write_bytes(b"PAR1 no")
    message = fails(
        DataError, score, bundle, "--pairs", tmp_path / "p.parquet", "--out", tmp_path / "o.csv"
    )
    assert "is a damaged Parquet file" in message
    assert "interactions" not in fails(
        DataError, *args, tmp_path / "o.csv", "--interactions", tmp_path / "no.csv"
    )


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match=r"\[build\]"):
        read_table(tmp_path / "p.parquet")
    with (
        pytest.raises(MissingExtraError, match=r"\[build\]"),
        TableWriter(tmp_path / "o.parquet", {"user": str}),
    ):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]


def test_histories_from_counts_and_categories(tmp_path: Path) -> None:
    rows: list[list[str | int]] = [
        ["用户ID", "分类", "点击次数", "购买次数"],
        ["u", "toys", 3, 1],
        ["u", "books", 0, 2],
        ["v", "toys", 0, 0],
    ]
    found = read_histories(write(tmp_path / "b.csv", rows))
    expected = History(
        ["category:toys", "category:toys", "category:books"], ["click", "purchase", "purchase"]
    )
    assert found == {"u": expected}
    plain = read_histories(write(tmp_path / "p.csv", [["user;item"], ["u;i1"]]))
    assert plain == {"u": History(["i1"])}
    with pytest.raises(DataError, match="no item column"):
        read_histories(write(tmp_path / "n.csv", [["user", "x"], ["u", "i"]]))


def test_parquet_ids_and_times_of_any_kind(tmp_path: Path) -> None:
    day = np.datetime64("2026-01-02", "s")
    log = pa.table(
        {"user": [1.0, None, 2.0], "item": [b"a", b"b", b"c"], "time": pa.array([day, day, None])}
    )
    pq.write_table(log, tmp_path / "log.parquet")
    found = read_histories(tmp_path / "log.parquet")
    assert found == {"1": History(["a"], timestamps=[1767312000.0])}


TIMES = ["2026-01-02", "soon", "", "9999-12-31", "2026-01-03T12:00:00Z"]


def test_score_leaves_out_the_rows_that_prepare_leaves_out(bundle: Path, tmp_path: Path) -> None:
    rows = [["u", f"i{at}", time] for at, time in enumerate(TIMES, 6)]
    log = write(
        tmp_path / "log.csv",
        [["user", "item", "time"], *rows, ["", "i6", "2026-01-02"], ["u", " ", "2026-01-02"]],
    )
    prepared = prepare_files([log]).dataset
    said: list[str] = []
    (history,) = read_histories(log, said.append).values()
    log_read = prepared.interactions
    assert history == History(
        [prepared.items[i] for i in log_read.item], timestamps=log_read.time.tolist()
    )
    went = {
        reason: n
        for reason, n in prepared.cleaning.items()
        if n and reason.startswith(("no ", "unparsable", "time"))
    }
    assert said[:1] == [
        f"{log}: rows left out: {', '.join(f'{reason} {n}' for reason, n in went.items())}"
    ]
    pairs = write(tmp_path / "pairs.csv", [["user", "item"], ["u", "i7"]])
    result = ok(score, bundle, "--pairs", pairs, "--interactions", log, "--out", tmp_path / "o.csv")
    assert said[0] in result.stderr


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (["soon"], "none of 1 row is usable (unparsable time 1)"),
        (["9999-12-31"], "none of 1 row is usable (time out of range 1)"),
        (["03/04/2024", "05/06/2024"], "fits both"),
    ],
)
def test_times_of_no_use_are_named(tmp_path: Path, times: list[str], words: str) -> None:
    log = write(
        tmp_path / "log.csv", [["user", "item", "time"], *(["u", "i", time] for time in times)]
    )
    for read in (read_histories, lambda path: prepare_files([path])):
        with pytest.raises(DataError, match=re.escape(words)):
            read(log)


def test_a_cut_gzip_file_is_an_error(tmp_path: Path) -> None:
    content = gzip.compress(b"user,item\n" + b"u,i\n" * 9999)
    for damaged in (content[:60], content[:20] + b"junk" + content[24:]):
        (tmp_path / "p.csv.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"p\.csv\.gz"):
            read_table(tmp_path / "p.csv.gz")


def test_recommend_one_history(bundle: Path) -> None:
    found = json.loads(
        ok(recommend, bundle, "--history", 'i9,"a,b"', "--item", "i8", "-k", 5, "--json").stdout
    )
    with Recommender.open(bundle) as rec:
        expected = rec.recommend(["i9", "a,b", "i8"], 5)
    assert [row["item"] for row in found["items"]] == list(expected.items)
    assert [row["score"] for row in found["items"]] == expected.scores.tolist()
    result = ok(recommend, bundle, "--history", "i9, who", "-k", 60, "--keep-seen")
    assert "1 of 2 history items are not in the bundle" in result.stderr
    assert "[bold]" in result.output
    assert "name of i9" in result.output


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_recommend_to_users(bundle: Path, tmp_path: Path, suffix: str) -> None:
    users = write(tmp_path / "users.csv", [["用户ID"], ["u1"], ["ann"], ["u1"], ["nobody"]])
    log, out = write(tmp_path / "log.csv", LOG), tmp_path / f"out{suffix}"
    result = ok(recommend, bundle, "--users", users, "--interactions", log, "-k", 3, "--out", out)
    assert "unknown users: 1" in result.stderr
    rows = (
        read(out)[1:]
        if suffix == ".csv"
        else [list(map(str, row.values())) for row in pq.read_table(out).to_pylist()]
    )
    assert [row[:2] for row in rows] == [
        [user, str(rank)] for user in ("u1", "ann", "nobody") for rank in (1, 2, 3)
    ]
    assert not {"i9", "a,b"} & {row[2] for row in rows[:3]}
    lines = ok(
        recommend, bundle, "--users", users, "--interactions", log, "-k", 3, "--json"
    ).stdout.splitlines()
    assert [[row["item"] for row in json.loads(line)["items"]] for line in lines] == [
        [row[2] for row in rows[start : start + 3]] for start in (0, 3, 6)
    ]
    assert "user ann" in ok(recommend, bundle, "--users", users, "-k", 3).output


def test_similar(bundle: Path) -> None:
    found = json.loads(ok(similar, bundle, "a,b", "-k", 4, "--json").output)
    with Recommender.open(bundle) as rec:
        assert [row["item"] for row in found["items"]] == list(rec.similar("a,b", 4).items)
    assert "'who' is not in the bundle" in fails(UnknownIdError, similar, bundle, "who")


def test_k_beyond_the_catalogue_names_its_size(bundle: Path) -> None:
    for args in ((recommend, bundle, "--history", "i9"), (similar, bundle, "i9")):
        assert "-k 61 is more than the 60 candidates" in fails(DataError, *args, "-k", 61)
        assert run(*args, "-k", 0).exit_code == 2


def test_recommend_wants_one_source(bundle: Path, tmp_path: Path) -> None:
    assert run(recommend, bundle).exit_code == 2
    assert run(recommend, bundle, "--history", "a\nb").exit_code == 2
    assert json.loads(ok(recommend, bundle, "--history", "", "-k", 1, "--json").stdout)["items"]
    assert run(recommend, bundle, "--history", "i9", "--users", tmp_path / "u.csv").exit_code == 2


@pytest.mark.parametrize(
    ("tables", "weights"),
    [("int8", "float32"), ("float32", "float32"), ("int4", "int8"), ("int4", "float32")],
)
def test_synth(tmp_path: Path, tables: str, weights: str) -> None:
    kinds = ("--tables", tables, "--weights", weights)
    ok(synth, "--items", "0.5k", "--history-only", 50, "--dim", 16, *kinds, "--out", tmp_path / "b")
    bundle = Bundle.open(tmp_path / "b", verify="full")
    assert (bundle.shape.candidates, bundle.shape.items) == (500, 550)
    columns, indptr = bundle.array("wide_columns").astype(int), bundle.array("wide_indptr")
    for row in range(550):
        assert (np.diff(columns[indptr[row] : indptr[row + 1]]) > 0).all()
    with Recommender.open(tmp_path / "b") as rec:
        found = rec.recommend(["SKU00000003", "SKU00000520"], 10)
        scores = rec.score(["SKU00000003", "SKU00000520"], found.items)
        assert np.abs(scores - found.scores).max() <= (0 if rec.deterministic else 1e-6)
    before = {file.name: file.read_bytes() for file in (tmp_path / "b").glob("*.npy")}
    ok(synth, "--items", 500, "--history-only", 50, "--dim", 16, *kinds, "--out", tmp_path / "b")
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "b").glob("*.npy")}


def test_synth_without_popularity_and_with_an_encoder_given(tmp_path: Path) -> None:
    ok(synth, "--items", 50, "--popularity", 0, "--out", tmp_path / "b")
    assert not Bundle.open(tmp_path / "b").array("candidate_bias").any()
    graph = pooling_encoder(64, 50, seed=7)
    assert synthesize(tmp_path / "c", SynthConfig(50), encoder=graph).read("encoder.onnx") == graph
    assert "popularity = -1" in fails(
        DataError, synth, "--items", 5, "--popularity", -1, "--out", tmp_path / "d"
    )


def test_synth_says_what_it_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(synth, "--items", "many", "--out", tmp_path / "b").exit_code == 2
    assert "items = 0" in fails(DataError, synth, "--items", 0, "--out", tmp_path / "b")
    assert run(synth, "--items", 10, "--tables", "int6", "--out", tmp_path / "b").exit_code == 2
    with pytest.raises(ValueError, match="tables = 'int6'; expected one of float32, int8, int4"):
        SynthConfig(10, tables="int6")
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert "[build]" in fails(MissingExtraError, synth, "--items", 10, "--out", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("items", [1, 2, 3, 7])
def test_tiny_catalogues(tmp_path: Path, items: int) -> None:
    ok(synth, "--items", items, "--out", tmp_path / "b")
    with Recommender.open(tmp_path / "b", verify="full") as rec:
        assert len(rec.recommend(["SKU00000000"], 10).items) == items - 1


def test_a_result_never_replaces_its_own_input(bundle: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "log.csv", LOG)
    other = write(tmp_path / "pairs.csv", [["user", "item"], ["ann", "i7"]])
    before = table.read_bytes()
    for arguments in (
        (score, bundle, "--pairs", table, "--out", table),
        (score, bundle, "--pairs", other, "--interactions", table, "--out", table),
        (recommend, bundle, "--users", table, "--out", tmp_path / "." / "log.csv"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert f"--out is {arguments[-1]}, which is read: choose another file" in result.output
        assert table.read_bytes() == before


def test_interactions_need_users(bundle: Path, tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", LOG)
    result = run(recommend, bundle, "--history", "i7", "--interactions", log)
    assert result.exit_code == 2
    assert "--interactions needs --users" in result.output


def test_events_with_unknown_names_are_counted(bundle: Path, tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", LOG)
    result = ok(recommend, bundle, "--users", log, "--interactions", log, "-k", 1)
    assert f"{log}: event 'gazed at' is not recognised and counts as other" in result.stderr


def test_a_file_that_may_not_be_read_is_not_called_damaged(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: Any, *args: Any, **options: Any) -> int:
        if Path(path).name == "encoder.onnx":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    message = fails(BundleError, recommend, bundle, "--history", "i7")
    assert f"not allowed to read {bundle / 'encoder.onnx'}; check the permissions" in message


def test_files_that_cannot_be_read_name_the_key_of_a_schema(bundle: Path, tmp_path: Path) -> None:
    """The options --encoding and --columns are those of prepare; no other command has them."""
    table, out = tmp_path / "table.csv", tmp_path / "out.csv"
    for content, key in (
        ("user,item\nJürgen,i9\n".encode("latin-1"), 'encoding = "cp1252" under [files]'),
        ("user,item\nu,i9\n".encode("utf-16-le"), 'encoding = "utf-16-le" under [files]'),
        (b"u1,7,2024-01-31\nu2,8,2024-01-31\n", 'columns = ["user", "item", "time"] under [files]'),
    ):
        table.write_bytes(content)
        for call in (
            (score, bundle, "--pairs", table, "--out", out),
            (recommend, bundle, "--users", table, "--interactions", table),
        ):
            message = fails(DataError, *call)
            assert f"{key} in a file for --schema" in message
            assert not re.search("--encoding|--columns", message)
