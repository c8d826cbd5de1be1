"""HTML parts that the pages share: the file around a body, tables, figures of a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tlrec_edge.report.style import STYLE
from tlrec_edge.report.words import microseconds, number, size, text

Data = Mapping[str, Any]
PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")
NOT_READABLE = "not readable here"
_STARTUP_TIMES = {
    "total_ms": "process start to first score",
    "import_ms": "import",
    "open_ms": "open the bundle",
    "first_score_ms": "first score",
    "cpu_ms": "CPU time",
}
_STARTUP_MEMORY = {
    "rss_bytes": "memory, RSS",
    "pss_bytes": "memory, PSS",
    "uss_bytes": "memory, USS (private)",
}
_NOISE = {
    "spread": "identical loops differed by {:.0%}",
    "stolen": "the host took {:.1%} of CPU time",
    "others": "other processes used {:.0%}",
}


class Cell(NamedTuple):
    """A cell of a table."""

    html: str
    style: str = ""
    """Style class."""


class Table:
    """An HTML table that is filled row by row."""

    def __init__(
        self, headers: Sequence[str], *, text_columns: Sequence[int] = (), caption: str = ""
    ) -> None:
        self._headers, self._text_columns, self._caption = headers, text_columns, caption
        self._rows: list[str] = []

    def add(self, *cells: str | Cell, style: str = "") -> None:
        """Add a row; a plain string is a cell without a style."""
        styled = [cell if isinstance(cell, Cell) else Cell(cell) for cell in cells]
        inner = "".join(self._element("td", at, *cell) for at, cell in enumerate(styled))
        self._rows.append(f"<tr{_class(style)}>{inner}</tr>")

    def html(self) -> str:
        """Return the table, or nothing if it has no row."""
        if not self._rows:
            return ""
        headers = "".join(self._element("th", at, name) for at, name in enumerate(self._headers))
        head = f"<thead><tr>{headers}</tr></thead>" if any(self._headers) else ""
        body = f"<tbody>{''.join(self._rows)}</tbody>"
        # The caption is a paragraph: a caption element would be as wide as the table scrolls.
        caption = paragraph(self._caption, "soft")
        return f'{caption}<div class="wide"><table>{head}{body}</table></div>'

    def _element(self, tag: str, column: int, html: str, style: str = "") -> str:
        is_text = "text " if column in self._text_columns else ""
        return f"<{tag}{_class(is_text + style)}>{html}</{tag}>"


def document(title: str, body: str) -> str:
    """Return one HTML file that loads nothing; ``title`` must be escaped."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def paragraph(html: str, style: str = "") -> str:
    """Return a paragraph, or nothing if it is empty."""
    return f"<p{_class(style)}>{html}</p>" if html else ""


def section(title: str, *parts: str) -> str:
    """Return a heading with its parts, or nothing if all of them are empty."""
    return f"<h2>{title}</h2>{''.join(parts)}" if any(parts) else ""


def plot_grid(*figures: str) -> str:
    """Return figures next to each other, or nothing if all of them are empty."""
    return f'<div class="plots">{"".join(figures)}</div>' if any(figures) else ""


def cards(figures: Sequence[tuple[str, str]]) -> str:
    """Return the most important figures, each with its description."""
    inner = "".join(
        f'<div class="card"><b>{value}</b><span>{description}</span></div>'
        for value, description in figures
    )
    return f'<div class="cards">{inner}</div>' if figures else ""


def notes(found: Data) -> str:
    """Return the notes of a result or a section."""
    return "".join(paragraph(text(note), "soft") for note in found.get("notes") or [])


def facts(values: Data) -> str:
    """Return names and values in one line."""
    return " · ".join(
        f"{text(str(name).replace('_', ' '))}: {_plain(value)}" for name, value in values.items()
    )


def percentiles(row: Data) -> list[str]:
    """Return the cells of a row's percentiles and maximum."""
    return [microseconds(row["latency_us"].get(name)) for name in PERCENTILES]


def latency_table(rows: Sequence[Data], caption: str, cpu: bool = False) -> str:
    """Return the table of requests that were sent one after another."""
    headers = ["request", "user state", *PERCENTILES, *(["CPU"] if cpu else []), "per second"]
    table = Table(headers, text_columns=(1,), caption=caption)
    for row in rows:
        used = [microseconds(row["cpu_seconds_per_million"])] if cpu else []
        shape, state = text(row.get("shape")), text(row.get("state"))
        table.add(shape, state, *percentiles(row), *used, microseconds(row.get("qps")))
    return table.html()


def noise_line(result: Data) -> str:
    """Return how steadily the machine ran, as a warning if its times can't be trusted."""
    noise = result.get("noise") or {}
    parts = [
        template.format(noise[name])
        for name, template in _NOISE.items()
        if noise.get(name) is not None
    ]
    line = ", ".join(parts)
    if noise.get("noisy"):
        warning = f"Noisy machine: {line}; repeat the run before you rely on these times."
        return paragraph(warning, "bad")
    return paragraph(f"{line[:1].upper()}{line[1:]}." if line else "", "soft")


def startup_table(startup: Data) -> str:
    """Return the table of a process's start-up and memory."""
    table = Table(["a fresh process", ""])
    for key, name in _STARTUP_TIMES.items():
        if key in startup:
            table.add(name, f"{number(float(startup[key]), 1)} ms")
    for key, name in _STARTUP_MEMORY.items():
        if key in startup:
            used = startup[key]
            table.add(name, NOT_READABLE if used is None else size(used))
    return table.html()


def machine_line(machine: Data) -> str:
    """Return what is known about a machine."""
    known = {name: value for name, value in machine.items() if value not in (None, "", [])}
    if "memory_bytes" in known:
        known["memory"] = size(known.pop("memory_bytes"))
    return paragraph(facts(known), "soft")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return text(", ".join(map(str, value)) if isinstance(value, list | tuple) else value)


def _class(name: str) -> str:
    return f' class="{name.strip()}"' if name.strip() else ""
