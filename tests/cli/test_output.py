"""What the commands print: text from files never reaches a terminal as code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlrec_edge.cli
from helpers import bundles
from helpers.commands import ok, refused, run, write
from helpers.counts import say as say_count
from tlrec_edge.cli.output import plain, printable, say, say_json
from tlrec_edge.runtime.recommender import Recommender

CODES = "\x1b[31m\x1b]0;title\x07 \x9b1m\x7f\x00\r\n\t\u2028\u202egnp\u2066[red]x[/red]\udc80"
SHOWN = (
    "\\x1b[31m\\x1b]0;title\\x07 \\x9b1m\\x7f\\x00\\r\\n\\t\\u2028\\u202egnp\\u2066[red]x[/red]"
    "\\udc80"
)
IN_BUNDLE = CODES[:-1]
"""A bundle holds no lone surrogates."""
KEPT = "ä, 用户, 🛒🎁, 👩\u200d👩, עברית \u200f, [bold], \\x1b, ' \""


def test_codes_are_escaped_and_letters_are_kept() -> None:
    assert printable(CODES) == str(plain(CODES)) == SHOWN
    assert printable(KEPT) == str(plain(KEPT)) == KEPT


def test_json_keeps_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    value = {CODES: [CODES, KEPT, 1.5, None]}
    say_json(value)
    shown = capsys.readouterr().out
    assert shown.endswith("\n")
    assert printable(shown[:-1]) == shown[:-1]
    assert json.loads(shown) == value
    assert "用户" in shown


def test_a_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say(CODES)
    say(CODES, err=True)
    shown = capsys.readouterr()
    assert shown.out == shown.err == f"{SHOWN}\n"


def test_all_commands_print_through_one_module() -> None:
    folder = Path(tlrec_edge.cli.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text("utf-8")
        if path.name != "output.py":
            assert "click.echo" not in text, path.name
            assert "click.secho" not in text, path.name
            assert "sys.stdout" not in text, path.name
            assert "markup" not in text or path.name == "bench_tables.py", path.name


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle whose ids, names and cards are terminal codes and markup."""
    path = tmp_path_factory.mktemp("codes") / "bundle"
    bundles.build(path, ids=[f"{IN_BUNDLE}{row}" for row in range(80)])

    def change(manifest: dict[str, Any]) -> None:
        manifest["quality"] = {
            IN_BUNDLE: IN_BUNDLE,
            "rows": [{IN_BUNDLE: IN_BUNDLE}],
            "list": [IN_BUNDLE],
        }
        manifest["provenance"] = {"deep": {IN_BUNDLE: {"note": IN_BUNDLE}}}
        manifest["model"]["mode"] = manifest["created"] = IN_BUNDLE
        manifest["index"] = {}

    bundles.edit_manifest(path, change)
    return path


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    users = [f"{IN_BUNDLE}{row}".replace("\0", "") for row in range(3)]
    write(tmp_path / "users.csv", [["user"], *([user] for user in users)])
    write(tmp_path / "log.csv", [["user", "item"], *([user, "[red]i1"] for user in users)])
    write(tmp_path / "schema.csv", [[f"\x1b[2Juser{at}" for at in range(3)], "abc"])
    return tmp_path


LINES: dict[str, Sequence[str]] = {
    "inspect": ["inspect", "$B"],
    "inspect json": ["inspect", "$B", "--json"],
    "recommend": ["recommend", "$B", "--item", f"{IN_BUNDLE}1", "--item", "\x1b[1m"],
    "recommend json": ["recommend", "$B", "--item", f"{IN_BUNDLE}1", "--json"],
    "recommend to users": ["recommend", "$B", "--users", "$T/users.csv", "-k", "2"],
    "recommend with histories": [
        *("recommend", "$B", "--users", "$T/users.csv"),
        *("--interactions", "$T/log.csv", "--json"),
    ],
    "similar": ["similar", "$B", f"{IN_BUNDLE}1"],
    "similar json": ["similar", "$B", f"{IN_BUNDLE}1", "--json"],
    "unknown item": ["similar", "$B", "\x1b[31mnothing"],
    "unknown category": ["recommend", "$B", "--item", "a", "--category", "\x1b[31mx"],
    "prepare": ["prepare", "--interactions", "$T/log.csv", "--out", "$T/data"],
    "prepare json": ["prepare", "--interactions", "$T/log.csv", "--out", "$T/data", "--json"],
    "columns": ["score", "$B", "--pairs", "$T/schema.csv", "--out", "$T/o.csv"],
    "unknown command": ["\x1b[31mrun"],
    "unknown option": ["inspect", "$B", "--\x1b[31m"],
    "unknown option before": ["--\x1b[31m", "inspect"],
    "a value of an option": ["recommend", "$B", "-k", "\x1b[31m"],
    "a choice": ["synth", "--items", "9", "--out", "$T/x", "--tables", "\x1b[31m"],
    "a path": ["inspect", "$T/\x1b]0;x\x07\udcff[red]"],
    "an output": ["synth", "--items", "9", "--dim", "4", "--out", "$T/\x1b]0;x\x07[red]"],
}


@pytest.mark.parametrize("case", LINES)
def test_codes_in_the_data_are_printed_as_text(bundle: Path, tables: Path, case: str) -> None:
    arguments = [part.replace("$B", str(bundle)).replace("$T", str(tables)) for part in LINES[case]]
    result = run(*arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    for line in (*result.stdout.split("\n"), *result.stderr.split("\n")):
        assert printable(line) == line
    assert result.stdout or result.stderr
    if "json" in case:
        assert [json.loads(line) for line in result.stdout.splitlines()]


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command line in bash, in a folder; ``tlrec-edge`` is that of this checkout."""
    program = f"{sys.executable} -c 'from tlrec_edge.cli import main; main()'"
    script = f'set -o pipefail; tlrec-edge() {{ {program} "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(tlrec_edge.cli.__file__).parents[2])}
        | environment,
        capture_output=True,
        timeout=120,
        check=False,
    )


needs_bash = pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no /dev/fd on this system")


@needs_bash
def test_tables_may_come_through_pipes(tmp_path: Path) -> None:
    bundles.build(tmp_path / "b")
    write(tmp_path / "p.csv", [["user", "item"], ["ann", "i1"], ["bob", "i2"]])
    write(tmp_path / "l.csv", [["user", "item"], ["ann", "i3"]])
    ok("score", tmp_path / "b", "--pairs", tmp_path / "p.csv", "--out", tmp_path / "plain.csv")
    done = shell(
        "tlrec-edge score b --pairs <(cat p.csv) --out one.csv && "
        "cat p.csv | tlrec-edge score b --pairs /dev/stdin --out two.csv && "
        "tlrec-edge score b --pairs <(cat p.csv) --interactions <(cat l.csv) --out three.csv",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    expected = (tmp_path / "plain.csv").read_bytes()
    assert (tmp_path / "one.csv").read_bytes() == expected
    assert (tmp_path / "two.csv").read_bytes() == expected
    assert len((tmp_path / "three.csv").read_bytes().splitlines()) == 3


@needs_bash
def test_a_reader_that_stops_early_leaves_no_traceback(tmp_path: Path) -> None:
    bundles.build(tmp_path / "b")
    write(tmp_path / "u.csv", [["user"], *([f"u{at}"] for at in range(2000))])
    for command in ("inspect b --json | head -c 1", "recommend b --users u.csv | head -n 1"):
        done = shell(f"tlrec-edge {command}", tmp_path)
        assert b"Traceback" not in done.stderr, done.stderr
        assert b"BrokenPipe" not in done.stderr, done.stderr


def test_what_a_terminal_cannot_encode_is_escaped(tmp_path: Path) -> None:
    bundles.build(tmp_path / "b", ids=["🛒", *(f"ä{at}" for at in range(79))])
    done = shell(
        "tlrec-edge similar b 🛒 -k 2 && tlrec-edge similar b 🛒 -k 2 --json",
        tmp_path,
        PYTHONIOENCODING="ascii",
        PYTHONUTF8="1",
    )
    assert done.returncode == 0, done.stderr
    *_, line = done.stdout.splitlines()
    assert json.loads(line)["items"][0]["item"].startswith("ä")
    assert b"\\xe4" in done.stdout


INTERRUPTED = "interrupted; nothing was written"


def interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_command_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles.build(tmp_path / "b")
    pairs = write(tmp_path / "p.csv", [["user", "item"], ["ann", "i1"]])
    before = set(tmp_path.iterdir())
    monkeypatch.setattr(Recommender, "score_pairs", interrupted)
    result = run("score", tmp_path / "b", "--pairs", pairs, "--out", tmp_path / "o.csv")
    assert (result.exit_code, result.stderr.strip()) == (130, INTERRUPTED)
    monkeypatch.setattr(Recommender, "recommend", interrupted)
    result = run("recommend", tmp_path / "b", "--users", pairs, "--out", tmp_path / "o.parquet")
    assert (result.exit_code, result.stderr.strip()) == (130, INTERRUPTED)
    monkeypatch.setattr(np.random, "default_rng", interrupted)
    result = run("synth", "--items", 50, "--dim", 4, "--out", tmp_path / "s")
    assert (result.exit_code, result.stderr.strip()) == (130, INTERRUPTED)
    assert set(tmp_path.iterdir()) == before


@needs_bash
@pytest.mark.slow
def test_an_interrupt_of_a_process_leaves_nothing(tmp_path: Path) -> None:
    """Interrupt a writer at many moments of its run."""
    arguments = ("synth", "--items", "30000", "--dim", "32", "--out", str(tmp_path / "b"))
    code = "from tlrec_edge.cli import main; main()"
    aborted = 0
    for seconds in np.arange(0.2, 3, 0.2):
        done = subprocess.run(
            ["timeout", "-s", "INT", f"{seconds:.1f}", sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": str(Path(tlrec_edge.cli.__file__).parents[2])},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            capture_output=True,
            check=False,
        )
        aborted += INTERRUPTED.encode() in done.stderr
        # Before the command line runs, an interrupt is Python's own.
        if INTERRUPTED.encode() in done.stderr or done.returncode == 0:
            assert {path.name for path in tmp_path.iterdir()} <= {"b"}, done.stderr
    say_count(f"{aborted} interrupts of a writer: 0 left-overs")


def test_an_empty_path_and_a_pipe_are_no_files_to_write(tmp_path: Path) -> None:
    bundles.build(tmp_path / "b")
    pairs = write(tmp_path / "p.csv", [["user", "item"], ["ann", "i1"]])
    assert run("synth", "--items", 9, "--out", "").exit_code == 2
    os.mkfifo(tmp_path / "x.csv")
    line = refused("score", tmp_path / "b", "--pairs", pairs, "--out", tmp_path / "x.csv")
    assert "is a pipe or a device" in line
    assert (tmp_path / "x.csv").is_fifo()
    (tmp_path / "link.csv").symlink_to(tmp_path / "target.csv")
    (tmp_path / "target.csv").write_text("old", "utf-8")
    ok("score", tmp_path / "b", "--pairs", pairs, "--out", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "target.csv").read_text("utf-8").startswith("user,item,score")
