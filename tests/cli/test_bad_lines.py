"""Any command line ends with a result or one line that says what is wrong, never a traceback."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import bad_lines
from helpers.commands import run
from helpers.counts import say
from tlrec_edge.cli.output import printable


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> bad_lines.Inputs:
    return bad_lines.Inputs.make(tmp_path_factory.mktemp("bad-lines"))


def check(inputs: bad_lines.Inputs, seed: int) -> bool:
    """Run a bad command line, and return whether it was refused."""
    arguments = bad_lines.line(inputs, np.random.default_rng(seed))
    shown = f"seed {seed}: {' '.join(map(repr, arguments)):.1000}"
    before = set(inputs.out.parent.rglob("*"))
    began = time.monotonic()
    with bad_lines.writers(inputs.bad):
        result = run(*arguments)
    sys.stdout.write(f"{time.monotonic() - began:5.2f} s, exit {result.exit_code}: {shown:.200}\n")
    assert result.exception is None or isinstance(result.exception, SystemExit), (
        shown,
        result.exc_info,
    )
    assert "Traceback" not in result.output, shown
    for line in result.output.splitlines():
        assert line.expandtabs(4) == printable(line.expandtabs(4)), (shown, line)
    if result.exit_code == 0:
        return False
    assert result.exit_code in (1, 2), shown
    lines = result.stderr.strip().split("\n")
    last = next(at for at, line in enumerate(lines) if line.startswith("Error: "))
    if result.exit_code == 1:
        assert last == len(lines) - 1, (shown, lines)
        assert len(lines[last]) < 1500, (shown, lines)
    left = set(inputs.out.parent.rglob("*")) - before
    assert not {path for path in left if inputs.bad not in path.parents}, (shown, left)
    return True


def check_many(inputs: bad_lines.Inputs, count: int) -> None:
    refused = sum(check(inputs, seed) for seed in range(count))
    say(f"{count} bad command lines: {refused} refused, the others had a result, 0 tracebacks")
    assert refused > 0.7 * count


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_bad_command_lines_are_refused_with_one_line(inputs: bad_lines.Inputs) -> None:
    check_many(inputs, 100)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_300_bad_command_lines_are_refused_with_one_line(inputs: bad_lines.Inputs) -> None:
    check_many(inputs, 300)
