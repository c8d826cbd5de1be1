"""The command line as a user types it, in this process, and the CSV files it reads and writes."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner, Result

from tlrec_edge.cli import main

PROGRESS = re.compile(r"(pretrain|adapt|evaluate|compress|export): ")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def ok(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*arguments: object) -> str:
    """Run a command that must end with one line on stderr and exit code 1."""
    result = run(*arguments)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.strip().splitlines() if not PROGRESS.match(line)]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    assert not result.stdout
    return lines[0]


def write(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(1_000_000)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
