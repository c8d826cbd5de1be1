"""Paths on the command line: an empty one, and one that no message can name, are refused."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from helpers.commands import refused, run
from tlrec_edge.cli import COMMANDS, main
from tlrec_edge.cli.common import PathType

PARAMETERS = [
    (command, parameter)
    for command in COMMANDS
    for parameter in getattr(main.get_command(click.Context(main), command), "params", ())
]
PATHS = [
    (command, parameter.opts[0])
    for command, parameter in PARAMETERS
    if isinstance(parameter.type, click.Path)
]
OUTPUTS = [
    (command, parameter.opts[0])
    for command, parameter in PARAMETERS
    if getattr(parameter.callback, "__name__", "") in ("out_folder", "out_file", "out_table")
]


def test_every_path_is_of_the_one_type() -> None:
    types = {type(p.type) for _, p in PARAMETERS if isinstance(p.type, click.Path)}
    assert types == {PathType}
    assert {"prepare", "export", "synth", "score", "bench"} <= {command for command, _ in OUTPUTS}


@pytest.mark.parametrize(("command", "option"), PATHS)
def test_an_empty_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [option, ""] if option.startswith("-") else [""]
    result = run(command, *arguments)
    assert result.exit_code == 2
    assert "the path is empty" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "option"), OUTPUTS)
def test_a_name_that_is_not_utf8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (b"\xff.csv", b"deep\xff/out.csv"):
        message = refused(command, option, os.fsdecode(name))
        assert f"is not a name in UTF-8; choose another {option}" in message
    assert not list(tmp_path.iterdir())
