"""Plots as inline SVG: text stays text, and colours follow the page's light and dark themes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from tlrec_edge.errors import MissingExtraError

# matplotlib has no CSS variables: it draws in these colours, which are replaced in its output.
_CSS_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--soft)",
    "#030303": "var(--line)",
    "#040404": "var(--ours)",
    "#050505": "var(--other)",
    "#060606": "var(--good)",
    "#070707": "var(--bad)",
    "#080808": "var(--paper)",
    "#110101": "var(--c1)",
    "#110202": "var(--c2)",
    "#110303": "var(--c3)",
    "#110404": "var(--c4)",
    "#110505": "var(--c5)",
    "#110606": "var(--c6)",
}
Row = Mapping[str, Any]
Rows = Sequence[Row]
_BY_NAME = {variable[6:-1]: colour for colour, variable in _CSS_COLOURS.items()}
_HEAD, _ROW = 0.7, 0.27
"""Height of the frame of a plot and of one row in it, in inches."""
_WIDTH = 4.3
"""Width in inches: about that of a phone, so that the text is readable there."""


def css_colour(name: str) -> str:
    """Return the colour that is replaced by the page's variable ``--name``."""
    return _BY_NAME[name]


def draw(
    draw_axes: Callable[[Any], None],
    *,
    rows: int = 1,
    height: float,
    title: str,
    label: str,
    caption: str = "",
) -> str:
    """Call ``draw_axes`` with axes, or a list of them if ``rows`` > 1; return a figure element.

    Raises MissingExtraError if matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("the report", "bench") from error
    settings: Any = _settings(label)
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The browser has the fonts for all characters, even if matplotlib has not.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, 1, sharex=rows > 1)
        draw_axes(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f"<figure>{head}{_inline(buffer.getvalue(), label)}{text}</figure>"


def shorten(text: str, max_length: int = 30) -> str:
    """Return text short enough to leave room for the plot next to it."""
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def by_row(
    rows: Rows,
    key: str,
    name: Callable[[Row], str],
    draw_row: Callable[[Any, int, Row], None],
    xlabel: str,
    *,
    margin: float = 0.05,
    line: float | None = None,
    finish: Callable[[Any], None] = lambda axes: None,
    extra_height: float = 0.0,
    title: str,
    label: str,
    caption: str = "",
) -> str:
    """Draw one line of a plot for each row that has ``key``, with its name on the left.

    ``draw_row(axes, y, row)`` draws a row. ``line`` is the place of a vertical line; ``finish``
    completes the axes and may use ``extra_height`` more inches. Return nothing without rows.
    """
    rows = [row for row in rows if row.get(key) is not None]
    if not rows:
        return ""

    def draw_axes(axes: Any) -> None:
        if line is not None:
            axes.axvline(line, color=css_colour("soft"), linewidth=1)
        for at, row in enumerate(rows):
            draw_row(axes, at, row)
        _name_rows(axes, [name(row) for row in rows])
        axes.margins(x=margin)
        axes.set_xlabel(xlabel)
        finish(axes)

    return draw(
        draw_axes,
        height=_HEAD + extra_height + _ROW * len(rows),
        title=title,
        label=label,
        caption=caption,
    )


def annotate(axes: Any, text: str, value: float, at: int, gap: float = 6) -> None:
    """Write text to the right of a value in a row."""
    axes.annotate(text, (value, at), (gap, 0), textcoords="offset points", va="center", size=8)


def _name_rows(axes: Any, names: Sequence[str]) -> None:
    """Write names next to the rows of a plot, the first on top."""
    axes.set_yticks(range(len(names)), [shorten(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelcolor=css_colour("ink"))
    axes.grid(axis="x")


def _settings(salt: str) -> dict[str, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,
        "axes.formatter.use_mathtext": False,
        "axes.unicode_minus": True,
        "font.size": 9,
        "text.color": css_colour("ink"),
        "xaxis.labellocation": "right",
        "axes.labelcolor": css_colour("soft"),
        "axes.edgecolor": css_colour("line"),
        "xtick.color": css_colour("soft"),
        "ytick.color": css_colour("soft"),
        "grid.color": css_colour("line"),
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.8,
    }


def _inline(svg: str, label: str) -> str:
    """Keep only what a browser draws.

    The XML head and metadata go, and so do ids that several figures on a page would share.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(
        r"font: ([^;\"]*?)(?:'[^;\"]*|sans-serif[^;\"]*)", r"font: \1system-ui, sans-serif", svg
    )
    svg = re.sub(r"\n\s*", "\n", svg)
    for colour, variable in _CSS_COLOURS.items():
        svg = svg.replace(colour, variable)
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2]
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
    return head + svg[svg.index(">") + 1 :]
