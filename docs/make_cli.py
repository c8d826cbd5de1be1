"""Write cli.md from the commands' own `--help`: `python docs/make_cli.py`. A test compares them."""

from __future__ import annotations

from pathlib import Path

import click
from click.testing import CliRunner

from tlrec_edge.cli import main

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100
HEAD = """# Command line

This page is generated from `tlrec-edge COMMAND --help` by `python docs/make_cli.py`.

A command exits with 0 if it succeeds. It exits with 1, and prints one line on stderr, if your data,
a bundle or the value of an option cannot be used. It exits with 2 if the command line itself is
wrong. Progress goes to stderr and results go to stdout, with `--json` as JSON.
"""


def render() -> str:
    """Return the page: a section for each command, in the order of the pipeline."""
    sections = [HEAD, _section("tlrec-edge", [])]
    for name in main.list_commands(click.Context(main)):
        sections.append(_section(name, [name]))
    return "\n".join(sections)


def _section(title: str, command: list[str]) -> str:
    shown = CliRunner().invoke(
        main,
        [*command, "--help"],
        prog_name="tlrec-edge",
        terminal_width=WIDTH,
        max_content_width=WIDTH,
    )
    if shown.exit_code:
        raise SystemExit(f"`{' '.join(command)} --help` failed: {shown.output}")
    return f"## {title}\n\n```text\n{shown.output.strip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
