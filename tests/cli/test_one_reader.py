"""The commands read tables by one set of rules, and say what they read and what they lost."""

from __future__ import annotations

import csv
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from helpers import bundles
from helpers.commands import ok, refused
from tlrec_edge.bundle.format import SCHEMA
from tlrec_edge.tabular.schema import load_schema


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reader") / "bundle"
    bundles.build(path, ids=[f"{n:04}" for n in range(80)])
    return path


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def scores(bundle: Path, pairs: Path, log: Path, *options: object) -> list[str]:
    out = pairs.with_name("scores.csv")
    ok("score", bundle, "--pairs", pairs, "--interactions", log, "--out", out, *options)
    with out.open(encoding="utf-8") as file:
        return [row["score"] for row in csv.DictReader(file)]


PLAIN = (
    "user,item,event,time,quantity",
    "u1,0001,purchase,1710000000,1",
    "u1,0007,view,1710000100,1",
)
SAME = {
    "a return": (*PLAIN, "u1,0030,purchase,1710000000,-1"),
    "every row twice": (*PLAIN, *PLAIN[1:]),
    "another separator": tuple(line.replace(",", "|") for line in PLAIN),
    "a blank first line": ("", *PLAIN),
    "another order": (PLAIN[0], PLAIN[2], PLAIN[1]),
    "times as text": (
        PLAIN[0],
        "u1,0001,purchase,2024-03-09 16:00:00 UTC,1",
        "u1,0007,view,2024-3-9 16:01:40,1",
    ),
    "a short row": (*PLAIN, "u2,0003"),
}


@pytest.mark.parametrize("case", SAME)
def test_equal_logs_give_equal_scores(bundle: Path, tmp_path: Path, case: str) -> None:
    pairs = write(tmp_path / "pairs.csv", "user,item", "u1,0010", "u1,0042")
    expected = scores(bundle, pairs, write(tmp_path / "a.csv", *PLAIN))
    assert scores(bundle, pairs, write(tmp_path / "b.csv", *SAME[case])) == expected
    assert len(set(expected)) == 2


def test_a_schema_says_how_a_log_is_read(bundle: Path, tmp_path: Path) -> None:
    """Of ``--schema``, else of the bundle: columns, events and cancellations."""
    pairs = write(tmp_path / "pairs.csv", "user,item", "u1,0010", "u1,0042")
    expected = scores(bundle, pairs, write(tmp_path / "a.csv", *PLAIN))
    log = write(
        tmp_path / "b.csv",
        "invoice,who,what,kind,time",
        "1,u1,0001,2,1710000000",
        "1,u1,0007,0,1710000100",
        "C1,u1,0030,2,1710000050",
    )
    schema = write(
        tmp_path / "schema.toml",
        "[interactions]",
        'user = "who"',
        'item = "what"',
        'event = "kind"',
        "[events]",
        '2 = "purchase"',
        '0 = "view"',
        "[clean]",
        'cancelled = { column = "invoice", prefix = "C" }',
    )
    assert scores(bundle, pairs, log, "--schema", schema) == expected
    carried = _with_schema(bundle, tmp_path / "carried", schema)
    assert scores(carried, pairs, log) == expected
    assert scores(carried, pairs, tmp_path / "a.csv") == expected  # by common names
    assert "no column 'who' for user" in refused(
        *("score", bundle, "--pairs", pairs, "--interactions", tmp_path / "a.csv"),
        *("--schema", schema, "--out", tmp_path / "o.csv"),
    )


def test_pairs_have_a_header_although_the_log_of_the_training_had_none(
    bundle: Path, tmp_path: Path
) -> None:
    schema = write(tmp_path / "s.toml", "[files]", 'columns = ["user", "item", "event", "time"]')
    carried = _with_schema(bundle, tmp_path / "carried", schema)
    pairs = write(tmp_path / "pairs.csv", "user,item", "u1,0010", "u1,0042")
    raw = write(tmp_path / "raw.csv", "u1,0001,purchase,1710000000", "u1,0007,view,1710000100")
    log = write(tmp_path / "log.csv", "user,item,event,time", *raw.read_text().split())
    expected = scores(bundle, pairs, log)
    assert len(expected) == 2
    assert scores(carried, pairs, raw) == scores(carried, pairs, log) == expected


def _with_schema(bundle: Path, path: Path, schema: Path) -> Path:
    """Write the bundle again, as if its training had read tables by a schema."""
    bundles.build(path, ids=[f"{n:04}" for n in range(80)])
    content = json.dumps(load_schema(schema).to_json()).encode()
    bundles.replace_file(path, SCHEMA, content)
    return path


def test_ids_stored_as_floats_are_integers_in_every_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    bundles.build(bundle, ids=[str(n) for n in range(80)])
    whole = write(tmp_path / "a.csv", "user,item", "7,16", "7,3")
    floats = write(tmp_path / "b.csv", "user,item", "7.0,16.0", "7.0,3.0")
    pairs = write(tmp_path / "pairs.csv", "user,item", "7,20", "7,21")
    float_pairs = write(tmp_path / "c.csv", "user,item", "7.0,20.0", "7.0,21.0")
    expected = scores(bundle, pairs, whole)
    assert scores(bundle, pairs, floats) == expected
    assert scores(bundle, float_pairs, whole) == expected
    mixed = write(tmp_path / "d.csv", "user,item", *["7,20.0"] * 3, "7,x")
    assert scores(bundle, mixed, whole)  # one chunk: the ids are text
    monkeypatch.setattr("tlrec_edge.cli.use._PAIRS_AT_ONCE", 3)
    assert "written in two ways" in refused(
        "score", bundle, "--pairs", mixed, "--out", tmp_path / "o.csv"
    )


def test_histories_without_a_known_item_are_counted(bundle: Path, tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", "user,item", "u1,0001", "u2,1", "u3,2")
    pairs = write(tmp_path / "pairs.csv", "user,item", "u1,0010", "u2,0010")
    result = ok(
        *("score", bundle, "--pairs", pairs, "--interactions", log),
        *("--out", tmp_path / "o.csv"),
    )
    assert "2 of 3 users: no item of their history is in the bundle" in result.stderr
    result = ok("recommend", bundle, "--users", pairs, "--interactions", log, "--json")
    assert "2 of 3 users: no item of their history is in the bundle" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes")
def test_pairs_come_from_a_pipe(bundle: Path, tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.csv", "user,item", "u1,0010")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(pairs.read_bytes()))
    writer.start()
    ok("score", bundle, "--pairs", tmp_path / "pipe", "--out", tmp_path / "o.csv")
    writer.join()
    assert (tmp_path / "o.csv").read_text().count("\n") == 2


def test_prepare_says_how_it_read_the_tables(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", *PLAIN)
    items = write(tmp_path / "items.csv", "item;price;colour", "0001;6,30;red", "0007;1,50;blue")
    shown = ok("prepare", "--interactions", log, "--items", items, "--dry-run").stdout
    for line in (
        "read as: text, utf-8",
        "times: 2024-03-09 16:00:00 to 2024-03-09 16:01:40 UTC, read as epochs in seconds",
        "items of the log in the item table: 2 of 2",
        "item features: price (numeric), colour (categorical)",
        "wrote nothing",
    ):
        assert line in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.csv", "log.csv"]
    report = json.loads(
        ok("prepare", "--interactions", log, "--dry-run", "--json").stdout.splitlines()[-1]
    )
    assert (report["out"], report["notes"]) == (None, [])
    headless = write(tmp_path / "raw.csv", *PLAIN[1:])
    assert "no header line?" in refused("prepare", "--interactions", headless, "--dry-run")
    names = ("--columns", "user,item,event,time,quantity")
    shown = ok("prepare", "--interactions", headless, *names, "--dry-run").stdout
    assert "2024-03-09 16:00:00 to 2024-03-09 16:01:40" in shown
    assert "unknown encoding" in refused(
        "prepare", "--interactions", log, "--encoding", "klingon", "--dry-run"
    )
