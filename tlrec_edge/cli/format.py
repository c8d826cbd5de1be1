"""How figures and tables are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlrec_edge.cli.output import plain

MISSING = "-"
"""A figure that was not measured or has no value."""
_PIPE_WIDTH = 160
"""Columns of a table that is not printed to a terminal."""


def figure(value: float | None, *, signed: bool = False) -> str:
    """Format a metric with four decimals."""
    if value is None:
        return MISSING
    return f"{value:+.4f}" if signed else f"{value:.4f}"


def with_error(row: Mapping[str, Any], key: str) -> str:
    """Format the metric ``key`` of a row with its standard error: 0.1234 (0.0056)."""
    if row[key] is None:
        return MISSING
    return f"{figure(row[key])} ({figure(row[f'{key}.se'])})"


def gain(lift: Mapping[str, Any]) -> str:
    """Format a paired difference in NDCG@10 with its standard error: +0.0123 (0.0045)."""
    return f"{figure(lift['ndcg@10'], signed=True)} ({figure(lift['se'])})"


def interval(lift: Mapping[str, Any]) -> str:
    """Format the interval of a paired difference: +0.0033 .. +0.0213."""
    if lift["low"] is None:
        return MISSING
    return f"{figure(lift['low'], signed=True)} .. {figure(lift['high'], signed=True)}"


def any_value(value: Any) -> str:
    """Format a JSON value: numbers with four significant digits or thousands separators."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(any_value(item) for item in value)
    return str(value)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table to stdout: the first column is aligned left, the others right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=plain(title) if title else None, title_justify="left")
    table.show_header = any(head)
    for i, name in enumerate(head):
        table.add_column(plain(name), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(plain(cell) for cell in row))
    console = Console(highlight=False)
    Console(width=console.width if console.is_terminal else _PIPE_WIDTH, highlight=False).print(
        table
    )
