"""Plots of time and size; each takes a part of the results and returns a figure element, or nothing."""

from __future__ import annotations

import math
from typing import Any

from tlrec_edge.report.figures import Row, Rows, annotate, by_row, css_colour, draw
from tlrec_edge.report.words import size

_TAILS = (0.5, 0.9, 0.99, 0.999, 0.9999)
_COLOURS = 6
_LOADED = {"p50": "c1", "p90": "c2", "p99": "c5"}
_MARKS = {"p50": "o", "p90": "D", "p99": "s", "p99.9": "^", "max": "|"}


def distribution(rows: Rows) -> str:
    """Draw latency by share of the requests, both axes logarithmic: each step to the right is a tenth of the tail."""
    rows = [row for row in rows if row.get("curve")][:_COLOURS]
    if not rows:
        return ""

    def draw_axes(axes: Any) -> None:
        for at, row in enumerate(rows):
            # A share that no query lies beyond is left out.
            points = [(p, us) for p, us in row["curve"] if p < 1 and (1 - p) * row["queries"] >= 1]
            positions = [-math.log10(1 - p) for p, _ in points]
            name = f"{row['shape']}, {row['state']}"
            axes.plot(
                positions, [us for _, us in points], color=css_colour(f"c{at + 1}"), label=name
            )
        axes.set_xticks([-math.log10(1 - p) for p in _TAILS], [f"{100 * p:g} %" for p in _TAILS])
        _latency_by(axes, "share of the requests that were as fast", columns=2)

    return draw(
        draw_axes,
        height=3.6,
        title="Distribution of latency",
        label="Latency by percentile",
        caption="One stream. Flat: steady. Where a line climbs, so many requests are slower.",
    )


def load(rows: Rows, bound_us: float | None) -> str:
    """Draw percentiles of latency by rate of arrivals on a log axis, with the bound where one was asked for."""
    rows = sorted(
        (row for row in rows if row.get("target_qps")), key=lambda row: float(row["target_qps"])
    )
    if not rows:
        return ""

    def draw_axes(axes: Any) -> None:
        rates = [row["target_qps"] for row in rows]
        for name, colour in _LOADED.items():
            axes.plot(
                rates,
                [row["latency_us"][name] for row in rows],
                "o-",
                ms=4,
                color=css_colour(colour),
                label=name,
            )
        # A trial of the search ends with requests that wait because it was stopped.
        full = [row for row in rows if row.get("saturated") and "holds" not in row]
        axes.plot(
            [row["target_qps"] for row in full],
            [row["latency_us"]["p99"] for row in full],
            "x",
            ms=8,
            color=css_colour("bad"),
            label="queue without end" if full else None,
        )
        if bound_us is not None:
            axes.axhline(bound_us, color=css_colour("bad"), linewidth=1, linestyle="--")
        _latency_by(axes, "requests a second", columns=4)

    return draw(
        draw_axes,
        height=3.2,
        title="Latency by throughput",
        label="Latency by rate of arrivals",
        caption="Poisson arrivals, timed from when each was due."
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
    """Return microseconds in the unit that fits."""
    for unit, name in ((1e6, "s"), (1e3, "ms")):
        if us >= unit:
            return f"{us / unit:g} {name}"
    return f"{us:g} µs"


def latency(rows: Rows) -> str:
    """Percentiles of each shape of request on a log axis."""

    def draw_row(axes: Any, at: int, row: Row) -> None:
        points = {name: row["latency_us"][name] for name in _MARKS if name in row["latency_us"]}
        colour = css_colour({"encoded": "c1", "given": "c3"}.get(str(row.get("state")), "c2"))
        axes.plot(list(points.values()), [at] * len(points), color=colour, linewidth=1, alpha=0.6)
        for name, value in points.items():
            axes.plot(value, at, _MARKS[name], ms=4.5, color=colour)

    def finish(axes: Any) -> None:
        for name, shape in _MARKS.items():
            axes.plot([], [], shape, ms=4.5, color=css_colour("soft"), linestyle="none", label=name)
        axes.set_xscale("log")
        _durations(axes.xaxis)
        axes.figure.legend(loc="outside lower right", ncols=5, columnspacing=1, handletextpad=0.1)

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
        caption="Blue, encoded: the request encodes the history. Green, given: the user's state was at hand."
        + (
            " Orange, cold: encoded, the bundle read from disk."
            if any(r.get("state") == "cold" for r in rows)
            else ""
        ),
    )


def compared(rows: Rows) -> str:
    """Draw the ratio of two systems' times with its interval and those of the rounds, and a line at 1."""

    def draw_row(axes: Any, at: int, row: Row) -> None:
        colour = css_colour({"slower": "bad", "faster": "good"}.get(str(row["verdict"]), "soft"))
        rounds = row.get("rounds") or []
        axes.plot(rounds, [at] * len(rounds), "|", ms=9, color=css_colour("other"))
        axes.plot([row["low"], row["high"]], [at, at], color=colour, solid_capstyle="butt")
        axes.plot(row["ratio"], at, "o", ms=5, color=colour)

    return by_row(
        rows,
        "ratio",
        lambda row: str(row.get("shape", "")),
        draw_row,
        "time of B over that of A",
        margin=0.1,
        line=1,
        title="How many times as long",
        label="Time of B over that of A by shape of request",
        caption="Dot and line: median of the rounds, and its interval. Strokes: the rounds.",
    )


def sizes(rows: Rows, what: str, title: str = "Size on disk") -> str:
    """Bytes, as bars from zero."""
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
