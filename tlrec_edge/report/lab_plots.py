"""Plots of the latency lab: distributions, and latency by throughput."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tlrec_edge.report.figures import draw, ink
from tlrec_edge.report.plots import duration

Row = Mapping[str, Any]
_TAILS = (0.5, 0.9, 0.99, 0.999, 0.9999)
_COLOURS = 6
_LOADED = {"p50": "c1", "p90": "c2", "p99": "c5"}


def distribution(rows: Sequence[Row]) -> str:
    """Draw latency by share of the requests, both axes logarithmic: each step to the right is a tenth of the tail."""
    rows = [row for row in rows if row.get("curve")][:_COLOURS]
    if not rows:
        return ""

    def paint(axes: Any) -> None:
        for at, row in enumerate(rows):
            # A share that no query lies beyond is not seen.
            seen = [(p, us) for p, us in row["curve"] if p < 1 and (1 - p) * row["queries"] >= 1]
            places = [-math.log10(1 - p) for p, _ in seen]
            name = f"{row['shape']}, {row['state']}"
            axes.plot(places, [us for _, us in seen], color=ink(f"c{at + 1}"), label=name)
        axes.set_yscale("log")
        axes.set_xticks([-math.log10(1 - p) for p in _TAILS], [f"{100 * p:g} %" for p in _TAILS])
        axes.yaxis.set_major_formatter(lambda value, _: duration(value))
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel("share of the requests that were as fast")
        axes.set_ylabel("latency (log scale)")
        axes.grid()
        axes.figure.legend(loc="outside lower left", ncols=2)

    return draw(
        paint, height=3.6,
        title="Distribution of latency",
        label="Latency by percentile",
        caption="One stream. Flat: steady. Where a line climbs, so many requests are slower.",
    )  # fmt: skip


def load(rows: Sequence[Row], bound_us: float | None) -> str:
    """Draw percentiles of latency by rate of arrivals on a log axis, with the bound where one was asked for."""
    rows = sorted((row for row in rows if row.get("target_qps")), key=lambda row: float(row["target_qps"]))
    if not rows:
        return ""

    def paint(axes: Any) -> None:
        rates = [row["target_qps"] for row in rows]
        for name, colour in _LOADED.items():
            axes.plot(rates, [row["latency_us"][name] for row in rows], "o-", ms=4, color=ink(colour), label=name)
        full = [row for row in rows if row.get("saturated")]
        axes.plot(
            [row["target_qps"] for row in full], [row["latency_us"]["p99"] for row in full], "x", ms=8,
            color=ink("bad"), label="queue without end" if full else None,
        )  # fmt: skip
        if bound_us is not None:
            axes.axhline(bound_us, color=ink("bad"), linewidth=1, linestyle="--")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: duration(value))
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel("requests a second")
        axes.set_ylabel("latency (log scale)")
        axes.grid()
        axes.figure.legend(loc="outside lower left", ncols=4)

    return draw(
        paint, height=3.2,
        title="Latency by throughput",
        label="Latency by rate of arrivals",
        caption="Poisson arrivals, timed from when each was due." + (" Dashed: the bound." if bound_us else ""),
    )  # fmt: skip
