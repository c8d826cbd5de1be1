"""Parts that pages share: the file around a body, tables, the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlrec_edge.report.style import STYLE
from tlrec_edge.report.words import number, size, text

Data = Mapping[str, Any]
Cell = tuple[str, str]
"""HTML, and a style class."""


def document(title: str, body: str) -> str:
    """Return one HTML file that loads nothing; ``title`` is escaped already."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def facts(facts: Data) -> str:
    """Return names and values in one line."""
    return " · ".join(
        f"{text(str(key).replace('_', ' '))}: {_plain(value)}" for key, value in facts.items()
    )


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return text(", ".join(map(str, value)) if isinstance(value, list | tuple) else value)


def table(
    headers: Sequence[str],
    lines: Sequence[tuple[Sequence[Cell], str]],
    text_columns: Sequence[int] = (),
    caption: str = "",
) -> str:
    """Return a table of ``lines``, each of cells and a style class; nothing where there are none."""
    if not lines:
        return ""
    head = "".join(
        f"<th{_class('text' if at in text_columns else '')}>{name}</th>"
        for at, name in enumerate(headers)
    )
    rows = "".join(
        f"<tr{_class(style)}>{''.join(f'<td{_class(kind)}>{cell}</td>' for cell, kind in cells)}</tr>"
        for cells, style in lines
    )
    caption_html = (
        f'<p class="soft">{caption}</p>' if caption else ""
    )  # a caption would be as wide as the table scrolls
    top = f"<thead><tr>{head}</tr></thead>" if any(headers) else ""
    return f'{caption_html}<div class="wide"><table>{top}<tbody>{rows}</tbody></table></div>'


def _class(name: str) -> str:
    return f' class="{name.strip()}"' if name else ""


def startup(start: Data) -> str:
    """Return the table of a process's start and memory."""
    names = {
        "total_ms": "start of a process to its first score",
        "import_ms": "import",
        "open_ms": "open the bundle",
        "first_score_ms": "first score",
        "cpu_ms": "CPU time",
    }
    lines = [
        ([(name, ""), (f"{number(float(start[key]), 1)} ms", "")], "")
        for key, name in names.items()
        if key in start
    ]
    memory = {
        "rss_bytes": "memory, RSS",
        "pss_bytes": "memory, PSS",
        "uss_bytes": "memory, USS (private)",
    }
    for key, name in memory.items():
        if key in start:
            lines.append(
                (
                    [
                        (name, ""),
                        (size(start[key]) if start[key] is not None else "not readable here", ""),
                    ],
                    "",
                )
            )
    return table(["a fresh process", ""], lines)


def machine_line(machine: Data) -> str:
    """Return what is known of a machine."""
    known = {key: value for key, value in machine.items() if value not in (None, "", [])}
    if "memory_bytes" in known:
        known["memory"] = size(known.pop("memory_bytes"))
    return f'<p class="soft">{facts(known)}</p>' if known else ""
