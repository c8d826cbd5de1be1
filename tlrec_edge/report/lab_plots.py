"""Plots of time and size; each returns a figure element, or nothing without results."""

from __future__ import annotations

import math
from typing import Any

from tlrec_edge.report.figures import Row, Rows, annotate, by_row, css_colour, draw
from tlrec_edge.report.words import size

_TAIL_TICKS = (0.5, 0.9, 0.99, 0.999, 0.9999)
_COLOURS = 6
_PERCENTILE_COLOURS = {"p50": "c1", "p90": "c2", "p99": "c5"}
_STATE_COLOURS = {"encoded": "c1", "given": "c3", "cold": "c2"}
_VERDICT_COLOURS = {"slower": "bad", "faster": "good"}
_MARKS = {"p50": "o", "p90": "D", "p99": "s", "p99.9": "^", "max": "|"}


def distribution(rows: Rows) -> str:
    """Draw latency by percentile, both axes logarithmic.

    Each step to the right is a tenth of the tail.
    """
    rows = [row for row in rows if row.get("curve")][:_COLOURS]
    if not rows:
        return ""

    def draw_axes(axes: Any) -> None:
        for at, row in enumerate(rows):
            # A percentile that no query exceeds is left out.
            points = [(p, us) for p, us in row["curve"] if p < 1 and (1 - p) * row["queries"] >= 1]
            positions = [-math.log10(1 - p) for p, _ in points]
            name = f"{row['shape']}, {row['state']}"
            axes.plot(
                positions, [us for _, us in points], color=css_colour(f"c{at + 1}"), label=name
            )
        axes.set_xticks(
            [-math.log10(1 - p) for p in _TAIL_TICKS], [f"{100 * p:g} %" for p in _TAIL_TICKS]
        )
        _latency_by(axes, "requests that were at least as fast", columns=2)

    return draw(
        draw_axes,
        height=3.6,
        title="Distribution of latency",
        label="Latency by percentile",
        caption="One stream. Flat: steady latency. Rising: the slowest requests take longer.",
    )


def load(rows: Rows, bound_us: float | None) -> str:
    """Draw percentiles of latency by arrival rate, with the bound of p99 if there is one."""
    rows = sorted(
        (row for row in rows if row.get("target_qps")), key=lambda row: float(row["target_qps"])
    )
    if not rows:
        return ""

    def draw_axes(axes: Any) -> None:
        rates = [row["target_qps"] for row in rows]
        for name, colour in _PERCENTILE_COLOURS.items():
            axes.plot(
                rates,
                [row["latency_us"][name] for row in rows],
                "o-",
                ms=4,
                color=css_colour(colour),
                label=name,
            )
        # A trial of the search is stopped early: requests that still wait do not mean overload.
        full = [row for row in rows if row.get("saturated") and "holds" not in row]
        axes.plot(
            [row["target_qps"] for row in full],
            [row["latency_us"]["p99"] for row in full],
            "x",
            ms=8,
            color=css_colour("bad"),
            label="queue grows without end" if full else None,
        )
        if bound_us is not None:
            axes.axhline(bound_us, color=css_colour("bad"), linewidth=1, linestyle="--")
        _latency_by(axes, "requests per second", columns=4)

    return draw(
        draw_axes,
        height=3.2,
        title="Latency by throughput",
        label="Latency by arrival rate",
        caption="Poisson arrivals; latency counts from the scheduled time of a request."
        + (" Dashed: the bound." if bound_us else ""),
    )


def _latency_by(axes: Any, xlabel: str, columns: int) -> None:
    axes.set_yscale("log")
    _durations(axes.yaxis)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("latency (log scale)")
    axes.grid()
    axes.figure.legend(loc="outside lower left", ncols=columns)


def _durations(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: duration(value))
    axis.set_minor_formatter(lambda value, _: "")


def duration(us: float) -> str:
    """Format microseconds as s, ms or µs."""
    for unit, name in ((1e6, "s"), (1e3, "ms")):
        if us >= unit:
            return f"{us / unit:g} {name}"
    return f"{us:g} µs"


def latency(rows: Rows) -> str:
    """Draw percentiles of each shape of request on a log axis."""

    def draw_row(axes: Any, at: int, row: Row) -> None:
        points = {name: row["latency_us"][name] for name in _MARKS if name in row["latency_us"]}
        colour = css_colour(_STATE_COLOURS.get(str(row.get("state")), "c2"))
        axes.plot(list(points.values()), [at] * len(points), color=colour, linewidth=1, alpha=0.6)
        for name, value in points.items():
            axes.plot(value, at, _MARKS[name], ms=4.5, color=colour)

    def finish(axes: Any) -> None:
        for name, shape in _MARKS.items():
            axes.plot([], [], shape, ms=4.5, color=css_colour("soft"), linestyle="none", label=name)
        axes.set_xscale("log")
        _durations(axes.xaxis)
        axes.figure.legend(loc="outside lower right", ncols=5, columnspacing=1, handletextpad=0.1)

    has_cold = any(row.get("state") == "cold" for row in rows)
    return by_row(
        [row for row in rows if row.get("latency_us")],
        "latency_us",
        lambda row: f"{row.get('shape', '')}, {row.get('state', '')}",
        draw_row,
        "latency of one request (log scale)",
        finish=finish,
        extra_height=0.2,
        title="Latency, one stream on one thread",
        label="Latency percentiles",
        caption="Blue, encoded: the request encodes the history. Green, given: the user's state is "
        "passed in." + (" Orange, cold: the bundle is read from disk." if has_cold else ""),
    )


def compared(rows: Rows) -> str:
    """Draw the ratio of two systems' times, with its interval and the ratios of the rounds."""

    def draw_row(axes: Any, at: int, row: Row) -> None:
        colour = css_colour(_VERDICT_COLOURS.get(str(row["verdict"]), "soft"))
        rounds = row.get("rounds") or []
        axes.plot(rounds, [at] * len(rounds), "|", ms=9, color=css_colour("other"))
        axes.plot([row["low"], row["high"]], [at, at], color=colour, solid_capstyle="butt")
        axes.plot(row["ratio"], at, "o", ms=5, color=colour)

    return by_row(
        rows,
        "ratio",
        lambda row: str(row.get("shape", "")),
        draw_row,
        "time of B over time of A",
        margin=0.1,
        line=1,
        title="Ratio of times",
        label="Time of B over time of A by shape of request",
        caption="Dot and line: median of the rounds and its interval. Strokes: the rounds.",
    )


def sizes(rows: Rows, what: str, title: str = "Size on disk") -> str:
    """Draw bytes as bars from zero."""
    largest = max(
        (float(row["bytes"]) for row in rows if row.get("bytes") is not None), default=0.0
    )
    unit, name = next(
        ((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if largest >= u), (1.0, "bytes")
    )

    def draw_row(axes: Any, at: int, row: Row) -> None:
        axes.barh(at, row["bytes"] / unit, height=0.55, color=css_colour("ours"))
        annotate(axes, size(row["bytes"]), row["bytes"] / unit, at, gap=4)

    return by_row(
        rows,
        "bytes",
        lambda row: str(row.get("name", "")),
        draw_row,
        f"size, {name}",
        margin=0.22,
        title=title,
        label=f"{title}: {what}",
    )
