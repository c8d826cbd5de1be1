"""All commands of the pipeline one after the other, and their errors for invalid input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest

from helpers import synthetic
from helpers.commands import ok, read, refused, run, write
from helpers.costs import equal_costs
from tlrec_edge.cli import main
from tlrec_edge.data.task import KNOWN, NO_CANDIDATE, REPEATED

ODD = (
    "two words",
    'say "hi"',
    "a,b",
    "🛒🎁",
    "x" * 10_000,
    "[bold]",
    "用户",
    "'; drop--",
    "007",
    " lead",
)


FEW = ("--only", "feed-forward 1/2")
"""One pruning step is enough if the search itself is not tested."""


pytestmark = pytest.mark.usefixtures("small_batches")


@pytest.fixture(scope="module", autouse=True)
def untimed() -> Iterator[None]:
    """Let compress choose by bytes alone, however fast this machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlrec_edge.export.cost.measure_costs", equal_costs)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make everything once: tables, dataset, models, bundle."""
    path = tmp_path_factory.mktemp("pipeline")
    synthetic.interactions().to_csv(path / "log.csv", index=False)
    synthetic.items().to_csv(path / "items.csv", index=False)
    ok(
        "prepare",
        "--interactions",
        path / "log.csv",
        "--items",
        path / "items.csv",
        "--out",
        path / "ds",
    )
    ok("pretrain", path / "ds", "--domains", "big", "--epochs", 3, "--out", path / "source")
    adapted = ("--domain", "small", "--from", path / "source", "--mode", "finetune", "--epochs", 2)
    ok("adapt", path / "ds", *adapted, "--out", path / "model")
    ok(
        "compress",
        path / "model",
        path / "ds",
        "--domain",
        "small",
        "--out",
        path / "light",
        "--budget",
        0.5,
        *FEW,
    )
    ok(
        "export",
        path / "light",
        path / "ds",
        "--domain",
        "small",
        "--out",
        path / "bundle",
        "--with-users",
    )
    return path


def test_every_stage_left_what_the_next_reads(work: Path) -> None:
    names = {path.name for path in work.iterdir()}
    made = {"log.csv", "items.csv", "ds", "ds.cache", "source", "model", "light", "bundle"}
    assert names == made
    assert "hashed" in ok("inspect", work / "bundle", "--json").stdout
    assert "transfer" in ok("inspect", work / "bundle").stdout
    assert json.loads(ok("verify", work / "bundle", "--json").stdout)["ok"]


@pytest.mark.parametrize("what", ["model", "light", "bundle"])
def test_evaluate_prints_the_agreed_json(work: Path, what: str) -> None:
    report = json.loads(
        ok(
            "evaluate", work / what, work / "ds", "--domain", "small", "--json", "--no-target-only"
        ).stdout
    )
    assert (report["domain"], report["users"], report["tests"]) == ("small", 240, 240)
    rows = {row["name"]: row for row in report["rows"]}
    assert {"model", "popularity", "itemcf", "ease"} <= set(rows)
    assert all({"ndcg@10", "hr@10"} <= set(row) for row in rows.values())
    assert rows["model"]["ndcg@10"] > rows["popularity"]["ndcg@10"] + 0.05
    assert report["lift"]["transfer"]["verdict"] == "better"
    assert not any("other data" in note for note in report["notes"])


def test_evaluate_shows_tables_and_more_cut_offs(work: Path) -> None:
    result = ok(
        "evaluate",
        work / "bundle",
        work / "ds",
        "--domain",
        "small",
        "-k",
        5,
        "--ease-penalty",
        100,
    )
    for words in (
        "target-only",
        "popularity",
        "ease(100)",
        "NDCG@5",
        "verdict at 2 SE",
        "240 tests of 240 users",
    ):
        assert words in result.stdout


def test_evaluate_takes_test_rows_from_a_file(work: Path, tmp_path: Path) -> None:
    rows = [["user", "item", "negatives"]] + [
        [f"u{u}", f"s{u % 7}", "s8,s9,s10"] for u in range(30)
    ]
    file = write(tmp_path / "test.csv", rows)
    found = ok(
        "evaluate", work / "model", work / "ds", "--domain", "small", "--candidates", file, "--json"
    )
    report = json.loads(found.stdout)
    assert report["tests"] == 30
    assert not any("duplicates" in note for note in report["notes"])


@pytest.mark.parametrize("compared", ["model", "bundle"])
def test_candidates_that_the_model_does_not_know_are_scored_as_the_least_popular(
    work: Path, tmp_path: Path, compared: str
) -> None:
    log = synthetic.interactions()
    last = log[log.domain == "small"].groupby("user", sort=False).item.last()

    def measure(negatives: str) -> dict[str, Any]:
        rows = [(u, i, negatives) for u, i in last.items() if i not in negatives.split(",")]
        file = write(tmp_path / "test.csv", [["user", "item", "negatives"], *rows])
        command = ("evaluate", work / compared, work / "ds", "--no-target-only", "--json")
        report: dict[str, Any] = json.loads(ok(*command, "--candidates", file).stdout)
        return report

    candidates = {*last, "s8", "s9", "s10", "never-seen", "b3"}
    note = (
        f"2 of {len(candidates)} candidates are unknown to the model: "
        "they are scored as the least popular one"
    )
    report = measure("s8,s9,s10,never-seen,b3")
    assert note in report["notes"]
    of_model = next(row for row in report["rows"] if row["name"] == "model")
    plain = next(row for row in measure("s8,s9,s10")["rows"] if row["name"] == "model")
    assert of_model["hr@10"] == plain["hr@10"] == 1.0
    assert of_model["ndcg@10"] >= plain["ndcg@10"] - 0.02
    assert "30 of 30 rows name an unknown item" in refused(
        *("evaluate", work / compared, work / "ds", "--json", "--candidates"),
        write(tmp_path / "wrong.csv", [["user", "item"], *[(f"u{u}", "x") for u in range(30)]]),
    )


def test_repeated_negatives_do_not_change_the_metrics(work: Path, tmp_path: Path) -> None:
    def measure(negatives: Callable[[str], str]) -> dict[str, Any]:
        rows = [(f"u{u}", f"s{u % 7}", negatives(f"s{u % 7}")) for u in range(30)]
        file = write(tmp_path / "test.csv", [["user", "item", "negatives"], *rows])
        command = ("evaluate", work / "bundle", work / "ds", "--domain", "small", "--json")
        report: dict[str, Any] = json.loads(ok(*command, "--candidates", file).stdout)
        return report

    plain = measure(lambda target: "s8,s9,s10")
    repeated = measure(lambda target: f"s8,{target},s8,s8,s9,s10,s9")
    assert repeated["rows"] == plain["rows"]
    note = "120 duplicates left out (ids that occur twice in a row)"
    assert [text for text in repeated["notes"] if note in text]


def test_adapt_says_in_json_what_it_chose(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    found = json.loads(
        ok(
            "adapt",
            work / "ds",
            "--domain",
            "small",
            "--mode",
            "scratch",
            "--epochs",
            1,
            "--out",
            out,
            "--json",
        ).stdout
    )
    assert (found["mode"], found["source"], found["out"]) == ("scratch", None, str(out))
    auto = ok(
        "adapt", work / "ds", "--domain", "small", "--mode", "auto", "--epochs", 1, "--out", out
    )
    assert "popularity" in auto.stdout
    assert "transfer: none" in auto.stdout


def test_score_recommend_similar(work: Path, tmp_path: Path) -> None:
    pairs = write(
        tmp_path / "pairs.csv",
        [["user", "item"], ["u1", "s1"], ["u1", "s2"], ["nobody", "s1"], ["u2", "zzz"]],
    )
    ok("score", work / "bundle", "--pairs", pairs, "--out", tmp_path / "scores.csv")
    rows = read(tmp_path / "scores.csv")
    assert [(row["user"], row["item"]) for row in rows] == [
        ("u1", "s1"),
        ("u1", "s2"),
        ("nobody", "s1"),
        ("u2", "zzz"),
    ]
    assert np.isfinite([float(row["score"]) for row in rows]).all()
    users = write(tmp_path / "users.csv", [["user"], ["u1"], ["u2"]])
    given = ("--users", users, "--interactions", work / "log.csv")
    ok("recommend", work / "bundle", *given, "-k", 3, "--out", tmp_path / "found.csv")
    assert [(row["user"], row["rank"]) for row in read(tmp_path / "found.csv")] == [
        (user, rank) for user in ("u1", "u2") for rank in "123"
    ]
    liked = json.loads(
        ok("recommend", work / "bundle", "--history", "b0,b4,b8", "-k", 5, "--json").stdout
    )["items"]
    assert sum(int(item["item"][1:]) % 4 == 0 for item in liked) >= 3
    near = json.loads(ok("similar", work / "bundle", "s1", "-k", 4, "--json").stdout)["items"]
    assert len(near) == 4


def test_odd_ids_go_all_the_way(tmp_path: Path) -> None:
    log = [["user", "item", "domain", "timestamp"]]
    for u, user in enumerate(ODD):
        for i in range(6):
            domain = "c|d" if i < 3 else "a, b"
            log.append(
                [
                    user,
                    ODD[(u + i) % len(ODD)] + ("!" if i < 3 else ""),
                    domain,
                    f"2024-01-{1 + i:02}",
                ]
            )
    items: list[list[str | int]] = [
        ["item", "title", "price"],
    ]
    items += [[name, f"{name[:40]} thing", i] for i, name in enumerate(ODD)]
    ds, model, bundle = tmp_path / "d s", tmp_path / "mödel", tmp_path / "bün,dle"
    files = (
        "--interactions",
        write(tmp_path / "log.csv", log),
        "--items",
        write(tmp_path / "i.csv", items),
    )
    ok("prepare", *files, "--out", ds)
    ok("pretrain", ds, "--domains", "c|d", "--epochs", 1, "--out", tmp_path / "source")
    how = ("--from", tmp_path / "source", "--mode", "finetune", "--epochs", 1)
    ok("adapt", ds, "--domain", "a, b", *how, "--out", model)
    ok("export", model, ds, "--domain", "a, b", "--out", bundle, "--with-users")
    pairs = write(
        tmp_path / "pairs.csv", [["user", "item"], *([user, item] for user in ODD for item in ODD)]
    )
    result = ok("score", bundle, "--pairs", pairs, "--out", tmp_path / "s.csv")
    assert "nothing is known" not in result.stderr
    assert "no candidate" not in result.stderr
    assert [row["user"] for row in read(tmp_path / "s.csv")][:: len(ODD)] == list(ODD)
    for name in ODD:
        assert json.loads(ok("similar", bundle, name, "-k", 3, "--json").stdout)["items"]
    ok("evaluate", bundle, ds, "--domain", "a, b")
    ok("recommend", bundle, "--item", "a,b", "--item", "🛒🎁", "-k", 2)


def test_ids_only_and_items_never_sold_go_through(tmp_path: Path) -> None:
    synthetic.interactions()[["user", "item"]].to_csv(tmp_path / "ids.csv", index=False)
    ok("prepare", "--interactions", tmp_path / "ids.csv", "--out", tmp_path / "ds")
    ok(
        "adapt",
        tmp_path / "ds",
        "--domain",
        "all",
        "--mode",
        "scratch",
        "--epochs",
        1,
        "--out",
        tmp_path / "m",
    )
    ok("export", tmp_path / "m", tmp_path / "ds", "--domain", "all", "--out", tmp_path / "b")
    found = json.loads(
        ok("recommend", tmp_path / "b", "--history", "b0,s4", "-k", 3, "--json").stdout
    )["items"]
    assert len(found) == 3


def test_items_never_sold_are_recommended(work: Path) -> None:
    never = {f"s{i}" for i in range(synthetic.SMALL - synthetic.NEVER_SOLD, synthetic.SMALL)}
    every = json.loads(
        ok(
            "recommend", work / "bundle", "--history", "b0,b4", "-k", synthetic.SMALL, "--json"
        ).stdout
    )
    place = {row["item"]: rank for rank, row in enumerate(every["items"])}
    assert never <= set(place)
    same = next(name for name in never if int(name[1:]) % 4 == 0)
    assert place[same] < len(place) / 2


def test_only_items_never_sold_are_a_target_too(tmp_path: Path) -> None:
    """A new shop: its items have content and nobody has bought there."""
    log = synthetic.interactions()
    log[log["domain"] == "big"].to_csv(tmp_path / "log.csv", index=False)
    synthetic.items().to_csv(tmp_path / "items.csv", index=False)
    ok(
        "prepare",
        "--interactions",
        tmp_path / "log.csv",
        "--items",
        tmp_path / "items.csv",
        "--out",
        tmp_path / "ds",
    )
    ok(
        "pretrain",
        tmp_path / "ds",
        "--domains",
        "big",
        "--epochs",
        15,
        "--out",
        tmp_path / "source",
    )
    ok(
        "adapt",
        tmp_path / "ds",
        "--domain",
        "small",
        "--from",
        tmp_path / "source",
        "--mode",
        "zero-shot",
        "--out",
        tmp_path / "m",
    )
    ok(
        "compress",
        tmp_path / "m",
        tmp_path / "ds",
        "--domain",
        "small",
        "--out",
        tmp_path / "light",
        *FEW,
    )
    ok("export", tmp_path / "light", tmp_path / "ds", "--domain", "small", "--out", tmp_path / "b")
    found = json.loads(
        ok("recommend", tmp_path / "b", "--history", "b1,b5,b9", "-k", 5, "--json").stdout
    )["items"]
    assert sum(int(row["item"][1:]) % 4 == 1 for row in found) >= 4


@pytest.fixture
def untouched(work: Path, tmp_path: Path) -> Iterator[Path]:
    """Fail if a refused command leaves anything behind."""
    before = sorted(path for path in work.rglob("*"))
    yield tmp_path / "out"
    assert sorted(path for path in work.rglob("*")) == before
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.csv").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


BAD_CALLS: dict[str, tuple[str, str]] = {
    "pretrain without a dataset": ("pretrain $W/none --domains big --out $OUT", "none"),
    "pretrain on a model": ("pretrain $W/model --domains big --out $OUT", "model"),
    "pretrain on a file": ("pretrain $W/log.csv --domains big --out $OUT", "log.csv"),
    "pretrain unknown domain": ("pretrain $W/ds --domains huge --out $OUT", "known: big, small"),
    "pretrain misspelt domain": ("pretrain $W/ds --domains bigg --out $OUT", "mean 'big'?"),
    "pretrain without domains": ("pretrain $W/ds --out $OUT", "choose with --domains"),
    "pretrain no domain": ("pretrain $W/ds --domains !big,small --out $OUT", "selects no domain"),
    "pretrain onto other things": ("pretrain $W/ds --domains big --out $W", "choose another --out"),
    "pretrain under a file": (
        "pretrain $W/ds --domains big --epochs 1 --out $W/log.csv/m",
        "log.csv",
    ),
    "adapt unknown domain": (
        "adapt $W/ds --domain smal --mode scratch --out $OUT",
        "known: big, small",
    ),
    "adapt without source": ("adapt $W/ds --domain small --mode finetune --out $OUT", "--from"),
    "adapt from no model": (
        "adapt $W/ds --domain small --from $W/ds --out $OUT",
        "not a model folder",
    ),
    "adapt from a bundle": (
        "adapt $W/ds --domain small --from $W/bundle --out $OUT",
        "not a model folder",
    ),
    "adapt a fold that is not": (
        "adapt $W/ds --domain small --mode scratch --fold 2 --out $OUT",
        "fold 2 does not exist",
    ),
    "evaluate a source": ("evaluate $W/source $W/ds --domain small", "source model"),
    "evaluate nothing": ("evaluate $W/none $W/ds --domain small", "none"),
    "evaluate a dataset": ("evaluate $W/ds $W/ds --domain small", "not a model folder"),
    "evaluate another domain": ("evaluate $W/model $W/ds --domain big", "adapt"),
    "evaluate a bundle elsewhere": (
        "evaluate $W/bundle $W/ds --domain big",
        "was made for small, not for big",
    ),
    "evaluate unknown domain": ("evaluate $W/model $W/ds --domain x", "known: big, small"),
    "evaluate candidates missing": (
        "evaluate $W/model $W/ds --domain small --candidates $W/no.csv",
        "no.csv",
    ),
    "evaluate candidates of another kind": (
        "evaluate $W/model $W/ds --domain small --candidates $W/items.csv",
        "no user column",
    ),
    "compress a source": ("compress $W/source $W/ds --domain small --out $OUT", "source model"),
    "compress a bundle": (
        "compress $W/bundle $W/ds --domain small --out $OUT",
        "not a model folder",
    ),
    "compress to another domain": (
        "compress $W/model $W/ds --domain big --out $OUT",
        "was adapted to small, not to big",
    ),
    "export a source": ("export $W/source $W/ds --domain small --out $OUT", "source model"),
    "export to another domain": (
        "export $W/model $W/ds --domain big --out $OUT",
        "was adapted to small, not to big",
    ),
    "export onto other things": (
        "export $W/model $W/ds --domain small --out $W",
        "choose another --out",
    ),
    "inspect a model": ("inspect $W/model", "manifest.json"),
    "verify nothing": ("verify $W/none", "none does not exist"),
    "score without a file": ("score $W/bundle --pairs $W/no.csv --out $OUT.csv", "no.csv"),
    "score with a model": ("score $W/model --pairs $W/log.csv --out $OUT.csv", "manifest.json"),
    "recommend too many": ("recommend $W/bundle --history b0 -k 45", "at most 44"),
    "similar to nothing": ("similar $W/bundle zzz", "zzz"),
    "similar too many": ("similar $W/bundle s0 -k 4500", "at most 44"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_wrong_call_is_one_line_and_leaves_nothing(
    work: Path, untouched: Path, case: str
) -> None:
    call, words = BAD_CALLS[case]
    assert words in refused(*call.replace("$W", str(work)).replace("$OUT", str(untouched)).split())


OUT_CALLS = {
    "prepare": "prepare --interactions $W/log.csv --out $OUT",
    "pretrain": "pretrain $W/ds --domains big --out $OUT",
    "adapt": "adapt $W/ds --domain small --mode scratch --out $OUT",
    "compress": "compress $W/model $W/ds --domain small --out $OUT",
    "export": "export $W/light $W/ds --domain small --out $OUT",
    "study": "study $W/ds --domain small --domains big --out $OUT",
    "curve": "curve $W/ds --domain small --from $W/source --out $OUT.html",
    "synth": "synth --items 10 --out $OUT",
    "demo": "demo --out $OUT",
    "bench": "bench $W/bundle --out $OUT",
    "score": "score $W/bundle --pairs $W/log.csv --out $OUT.csv",
    "recommend": "recommend $W/bundle --users $W/log.csv --out $OUT.csv",
}


@pytest.mark.parametrize("name", OUT_CALLS)
def test_an_out_that_cannot_be_written_is_told_before_any_work(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def worked(*_: object, **__: object) -> None:
        raise AssertionError("work began")

    for place in ("data.store.load_dataset", "data.prepare.prepare_files", "demo.run_demo"):
        monkeypatch.setattr(f"tlrec_edge.{place}", worked)
    for place in ("cli.bench.run_bench", "cli.synth.synthesize", "cli.use.Recommender.open"):
        monkeypatch.setattr(f"tlrec_edge.{place}", worked)
    file = tmp_path / "file"
    file.touch()
    for under in (file / "out", file / "deep" / "out"):
        message = refused(
            *OUT_CALLS[name].replace("$W", str(work)).replace("$OUT", str(under)).split()
        )
        assert str(under) in message
        assert "is not a folder" in message


def test_every_command_with_an_out_is_tried() -> None:
    commands = {
        name: main.get_command(click.Context(main), name)
        for name in main.list_commands(click.Context(main))
    }
    assert set(OUT_CALLS) == {
        name
        for name, command in commands.items()
        if command and "out" in {param.name for param in command.params}
    }


def test_another_domain_is_told_before_the_baselines_are_fitted(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: object) -> None:
        raise AssertionError("a baseline was fitted")

    monkeypatch.setattr("tlrec_edge.linear.tuned.remember", fit)
    for what in ("model", "bundle"):
        refused("evaluate", work / what, work / "ds", "--domain", "big")
        assert "known: big, small" in refused("evaluate", work / what, work / "ds", "--domain", "x")


HEAD = "user,item,timestamp\n"
BAD_TABLES: dict[str, tuple[bytes | None, tuple[str, ...]]] = {
    "missing": (None, ("no such file",)),
    "no text": (b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe\x00", ("log.csv",)),
    "wrong encoding": ("user,item\nné,ü\n".encode("utf-16-le")[1:], ("log.csv",)),
    "no user column": (
        b"uzer,item\na,b\n",
        ("no user column", "found uzer, item", "is 'uzer' the user?"),
    ),
    "empty": (b"", ("is empty",)),
    "only a header": (HEAD.encode(), ("no rows",)),
    "no dates": (HEAD.encode() + b"u,a,yesterday\nv,b,never\n", ("log.csv",)),
    "no ids": (HEAD.encode() + b",,2024-01-01\n", ("none of 1 row is usable",)),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_one_line_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    content, words = BAD_TABLES[case]
    log = tmp_path / "log.csv"
    if content is not None:
        log.write_bytes(content)
    message = refused("prepare", "--interactions", log, "--out", tmp_path / "ds")
    assert all(word in message for word in words), message
    assert not (tmp_path / "ds").exists()


def test_rows_that_are_strange_but_usable_go_through(tmp_path: Path) -> None:
    """Count duplicates and odd dates, and mark NaN and infinite numbers as missing."""
    log = [["user", "item", "timestamp", "price"]]
    for u in range(12):
        for i in range(5):
            day = (f"2024-01-0{i + 1}", "9999-12-31", "0001-01-01", "1", "2024-01-09")[
                i if u % 4 == 0 else 0
            ]
            log += [[f"u{u}", f"i{(u + i) % 8}", day, ("nan", "inf", "-inf", "1e400", "3")[i]]] * 2
    items = [
        ["item", "price", "size"],
        *([f"i{i}", ("nan", "inf", "", "-1e30")[i % 4], "NaN"] for i in range(8)),
    ]
    files = (
        "--interactions",
        write(tmp_path / "log.csv", log),
        "--items",
        write(tmp_path / "items.csv", items),
    )
    report = json.loads(ok("prepare", *files, "--out", tmp_path / "ds", "--json").stdout)
    assert sum(count for reason, count in report["cleaning"].items() if "duplicate" in reason) >= 50
    ok(
        "adapt",
        tmp_path / "ds",
        "--domain",
        "all",
        "--mode",
        "scratch",
        "--epochs",
        1,
        "--out",
        tmp_path / "m",
    )
    ok("export", tmp_path / "m", tmp_path / "ds", "--domain", "all", "--out", tmp_path / "b")
    ok("recommend", tmp_path / "b", "--history", "i1,i2", "-k", 3)


@pytest.mark.parametrize(
    "rows", [["u,a"], ["u,a", "u,b"], ["u,a", "v,a"], ["u,a", "u,b", "u,c", "u,d"]]
)
def test_one_user_or_one_item_is_a_result_or_one_line(tmp_path: Path, rows: list[str]) -> None:
    (tmp_path / "log.csv").write_text("\n".join(["user,item", *rows]) + "\n")
    ok("prepare", "--interactions", tmp_path / "log.csv", "--out", tmp_path / "ds")
    for command in (
        (
            "pretrain",
            tmp_path / "ds",
            "--domains",
            "all",
            "--epochs",
            1,
            "--out",
            tmp_path / "source",
        ),
        ("adapt", tmp_path / "ds", "--domain", "all", "--mode", "auto", "--out", tmp_path / "auto"),
    ):
        if run(*command).exit_code:
            refused(*command)
            assert not Path(str(command[-1])).exists()
    ok(
        "adapt",
        tmp_path / "ds",
        "--domain",
        "all",
        "--mode",
        "scratch",
        "--epochs",
        1,
        "--out",
        tmp_path / "m",
    )
    ok(
        "compress",
        tmp_path / "m",
        tmp_path / "ds",
        "--domain",
        "all",
        "--out",
        tmp_path / "light",
        *FEW,
    )
    ok("export", tmp_path / "light", tmp_path / "ds", "--domain", "all", "--out", tmp_path / "b")
    assert json.loads(ok("recommend", tmp_path / "b", "--history", "u", "-k", 1, "--json").stdout)[
        "items"
    ]


@pytest.mark.parametrize("damage", ["missing", "cut", "altered"])
@pytest.mark.parametrize(
    "name", ["encoder.onnx", "candidate_rows.npy", "manifest.json", "wide_values.npy"]
)
def test_a_damaged_bundle_names_the_file(
    work: Path, tmp_path: Path, damage: str, name: str
) -> None:
    broken = tmp_path / "bundle"
    shutil.copytree(work / "bundle", broken)
    content = (broken / name).read_bytes()
    if damage == "missing":
        (broken / name).unlink()
    elif damage == "cut":
        (broken / name).write_bytes(content[: len(content) // 2])
    else:
        (broken / name).write_bytes(content[:-9] + bytes(255 - byte for byte in content[-9:]))
    assert name in refused("verify", broken)
    if damage != "altered" or name == "manifest.json":
        for command in (
            ["inspect", broken],
            ["recommend", broken, "--history", "b0"],
            ["similar", broken, "s0"],
        ):
            assert name in refused(*command)


def test_a_model_of_another_split_is_refused(work: Path, tmp_path: Path) -> None:
    given = (
        "--interactions",
        work / "log.csv",
        "--items",
        work / "items.csv",
        "--split",
        "last-basket",
    )
    ok("prepare", *given, "--out", tmp_path / "ds")
    for command in (
        (
            "adapt",
            tmp_path / "ds",
            "--domain",
            "small",
            "--from",
            work / "source",
            "--out",
            tmp_path / "out",
        ),
        ("evaluate", work / "model", tmp_path / "ds", "--domain", "small"),
        ("evaluate", work / "bundle", tmp_path / "ds", "--domain", "small"),
        (
            "compress",
            work / "model",
            tmp_path / "ds",
            "--domain",
            "small",
            "--out",
            tmp_path / "out",
        ),
        ("export", work / "model", tmp_path / "ds", "--domain", "small", "--out", tmp_path / "out"),
    ):
        assert "another split" in refused(*command)
    assert not (tmp_path / "out").exists()


def test_a_model_of_other_data_under_the_same_split_says_so(work: Path, tmp_path: Path) -> None:
    items = synthetic.items().assign(category="the same")
    items.to_csv(tmp_path / "items.csv", index=False)
    ds = tmp_path / "ds"
    ok(
        "prepare",
        "--interactions",
        work / "log.csv",
        "--items",
        tmp_path / "items.csv",
        "--out",
        ds,
    )
    for what in ("model", "light", "bundle"):
        call = ("evaluate", work / what, ds, "--domain", "small", "--no-target-only")
        said = f"{work / what} was made from other data than this dataset"
        assert said in ok(*call).stdout.replace("\n", "")
    assert said in json.loads(ok(*call, "--json").stdout)["notes"][0]
    how = ("--from", work / "source", "--mode", "zero-shot", "--epochs", 1)
    assert (
        "other data" in ok("adapt", ds, "--domain", "small", *how, "--out", tmp_path / "m").stderr
    )
    for command in ("compress", "export"):
        assert "other data" in refused(
            command, work / "model", ds, "--domain", "small", "--out", tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["model", "bundle"])
def test_evaluate_says_what_it_did_not_ask_and_what_it_chose(
    work: Path, tmp_path: Path, what: str
) -> None:
    log = synthetic.interactions()
    pd.concat(
        [log, log[log["domain"] == "small"].groupby("user").tail(1).assign(timestamp="2025-06-01")]
    ).to_csv(tmp_path / "log.csv", index=False)
    ds, made = tmp_path / "ds", tmp_path / "model"
    ok(
        "prepare",
        "--interactions",
        tmp_path / "log.csv",
        "--split",
        "time",
        "--min-buyers",
        20,
        "--out",
        ds,
    )
    ok("adapt", ds, "--domain", "small", "--mode", "scratch", "--epochs", 0, "--out", made)
    if what == "bundle":
        ok("export", made, ds, "--domain", "small", "--no-cards", "--out", tmp_path / "bundle")
    found = json.loads(ok("evaluate", tmp_path / what, ds, "--domain", "small", "--json").stdout)
    assert set(found["dropped"]) == {REPEATED, NO_CANDIDATE, KNOWN}
    assert found["choices"]["ease"]["penalty"] > 0
    shown = ok("evaluate", tmp_path / what, ds, "--domain", "small").stdout
    assert f"{KNOWN} {found['dropped'][KNOWN]}" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["pretrain"],
        ["pretrain", "ds"],
        ["adapt", "ds", "--domain", "x", "--mode", "magic", "--out", "m"],
        ["compress", "m", "ds", "--domain", "x", "--out", "o", "--budget", "2"],
        ["export", "m", "ds", "--domain", "x", "--out", "o", "--plain-user-ids"],
        ["evaluate", "m", "ds", "--domain", "x", "-k", "0"],
        ["recommend", "b"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2
