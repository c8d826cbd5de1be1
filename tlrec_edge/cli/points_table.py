"""The table of a compression search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tlrec_edge.cli.format import MISSING, figure, print_table
from tlrec_edge.cli.output import say

_NEAREST_MISSES = 3


def print_points(
    points: Sequence[Mapping[str, Any]], budget: Any, title: str, show_all: bool
) -> None:
    """Print the best points, or all of them."""
    shown = points if show_all else _best_points(points)
    rows = [
        [
            point["step"],
            figure(point["value"]),
            f"{figure(point['ratio'])} ({figure(point['se'])})",
            _size(point),
            _latency(point),
            "chosen" if point["kept"] else "front" if point["front"] else "",
            point["why"],
        ]
        for point in shown
    ]
    metric = f"validation {budget.name}"
    head = ["point", metric, "ratio (SE)", "bytes", "p50 / p99 us", "", "why"]
    print_table(head, rows, title)
    if len(shown) < len(points):
        say(f"{len(points) - len(shown)} of {len(points)} models are not shown: --all shows them")


def _best_points(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the original, the chosen point, the front and the nearest misses.

    Misses are smaller than the chosen point; the nearest ones have the highest lower end of the
    interval of quality.
    """
    chosen_bytes = min((point["bytes"] for point in points if point["kept"]), default=math.inf)
    shown = [point for point in points[1:] if point["kept"] or point["front"]]
    smaller = [
        point
        for point in points[1:]
        if point not in shown and point["low"] is not None and point["bytes"] < chosen_bytes
    ]
    nearest = sorted(smaller, key=lambda point: -point["low"])[:_NEAREST_MISSES]
    return [point for point in points if point is points[0] or point in [*shown, *nearest]]


def _size(point: Mapping[str, Any]) -> str:
    """Return the bytes of a point's bundle; an estimate if it was not written to be timed."""
    if not point["bytes"]:
        return MISSING
    return f"{'' if point['us'] else '~'}{point['bytes']:,}"


def _latency(point: Mapping[str, Any]) -> str:
    us = point["us"]
    return f"{us['p50']:.0f} / {us['p99']:.0f}" if us else MISSING
