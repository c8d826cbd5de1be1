"""Plots of quality; each returns a figure element, or nothing without results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlrec_edge.report.figures import Row, Rows, annotate, by_row, css_colour, draw
from tlrec_edge.report.words import sign_class

BASELINES = ("popularity", "itemcf", "itemknn", "content", "last-item", "session-knn", "ease")
"""Beginnings of the names of simple baselines."""
_DOT: Mapping[str, Any] = {"fmt": "o", "ms": 5, "elinewidth": 1.6, "capsize": 2.5}


def quality(title: str, rows: Rows) -> str:
    """Draw NDCG@10 of each model with one standard error on each side."""

    def draw_row(axes: Any, at: int, row: Row) -> None:
        colour = css_colour("other" if str(row["name"]).lower().startswith(BASELINES) else "ours")
        value, error = row["ndcg@10"], row.get("ndcg@10.se") or 0.0
        axes.errorbar(value, at, xerr=error, color=colour, **_DOT)
        annotate(axes, f"{value:.3f}", value + error, at)

    return by_row(
        rows,
        "ndcg@10",
        lambda row: str(row["name"]),
        draw_row,
        "NDCG@10, mean ± 1 standard error",
        margin=0.18,
        title="Ranking quality by model",
        label=f"NDCG@10 by model: {title}",
        caption="Bars: one standard error, clustered by user. Grey: baselines without learned "
        "vectors.",
    )


def lift(title: str, rows: Rows) -> str:
    """Draw differences of NDCG@10 with their intervals and a line at zero."""

    def draw_row(axes: Any, at: int, row: Row) -> None:
        low, high = interval(row)
        colour = css_colour(sign_class(low, high) or "soft")
        axes.plot([low, high], [at, at], color=colour, solid_capstyle="butt")
        axes.plot(row["ndcg@10"], at, "o", ms=5, color=colour)

    return by_row(
        rows,
        "ndcg@10",
        lambda row: f"{row.get('of', '')} − {row.get('over', '')}",
        draw_row,
        "difference of NDCG@10, 95 % interval",
        margin=0.1,
        line=0,
        title="Lift, on the same test rows",
        label=f"Lift in NDCG@10: {title}",
        caption="An interval that crosses zero shows no difference.",
    )


def interval(row: Row) -> tuple[float, float]:
    """Return the 95 % interval of a row, computed from the standard error if it has none."""
    value, error = float(row["ndcg@10"]), float(row.get("se") or 0.0)
    low, high = row.get("low"), row.get("high")
    low = value - 1.96 * error if low is None else float(low)
    return low, value + 1.96 * error if high is None else float(high)


def slices(by: str, rows: Rows) -> str:
    """Draw NDCG@10 of the model and the best baseline in every slice of one kind."""

    def draw_row(axes: Any, at: int, row: Row) -> None:
        for key, shift, colour in (("ndcg@10", -0.16, "ours"), ("over.ndcg@10", 0.16, "other")):
            if row.get(key) is not None:
                axes.errorbar(
                    row[key],
                    at + shift,
                    xerr=row.get(f"{key}.se") or 0.0,
                    color=css_colour(colour),
                    **_DOT,
                )

    lift = (rows[0].get("lift") or {}) if rows else {}
    return by_row(
        rows,
        "ndcg@10",
        lambda row: f"{row.get('slice', '')} ({row.get('tests') or 0:,})",
        draw_row,
        "NDCG@10, mean ± 1 standard error",
        margin=0.08,
        title=_BY.get(by, f"By {by}"),
        label=f"NDCG@10 by {by}",
        caption=f"Blue: {lift.get('of', 'the model')}. "
        f"Grey: {lift.get('over', 'the best baseline')}. "
        "In parentheses: test rows.",
    )


_BY = {
    "history": "By history length",
    "period": "By time",
    "popularity": "By item popularity, in deciles",
}


def pareto_front(rows: Rows) -> str:
    """Draw quality retained by latency for each compressed model; the area shows the bytes."""
    rows = [row for row in rows if row.get("ratio") is not None and row.get("us")]
    if not rows:
        return ""
    largest = max(float(row["bytes"]) for row in rows)

    def draw_axes(axes: Any) -> None:
        for row in rows:
            colour = css_colour(
                "good" if row.get("kept") else "ours" if row.get("front") else "other"
            )
            area = 300.0 * float(row["bytes"]) / largest
            axes.scatter(
                row["us"]["p50"], row["ratio"], s=area, color=colour, alpha=0.55, linewidths=0
            )
            if row.get("kept"):
                at = (row["us"]["p50"], row["ratio"])
                axes.annotate(
                    str(row.get("step", "")),
                    at,
                    (0, 8),
                    textcoords="offset points",
                    ha="center",
                    size=8,
                )
        axes.axhline(1, color=css_colour("soft"), linewidth=1)
        axes.margins(0.22)
        axes.set_xlabel("p50 of a request, µs")
        axes.set_ylabel("quality retained")
        axes.grid()

    return draw(
        draw_axes,
        height=2.9,
        title="Quality, latency, size",
        label="Quality retained by latency for each compressed model",
        caption="Area: size of the bundle. Green: chosen. Blue: Pareto front, no other model is "
        "better in quality, latency and size.",
    )


def ratios(rows: Rows) -> str:
    """Draw the quality of each compressed model over that of the original."""

    def draw_row(axes: Any, at: int, row: Row) -> None:
        kept = row.get("kept", True)
        colour = css_colour("ours" if kept else "other")
        error = 1.96 * (row.get("se") or 0.0)
        axes.errorbar(
            row["ratio"], at, xerr=error, color=colour, mfc=colour if kept else "none", **_DOT
        )

    return by_row(
        rows,
        "ratio",
        lambda row: str(row.get("step", "")),
        draw_row,
        "NDCG@10 over that of the original, 95 % interval",
        margin=0.15,
        line=1,
        title="Quality retained",
        label="NDCG@10 ratio by compressed model",
        caption="Filled dot: the chosen model.",
    )


def training(rows: Rows) -> str:
    """Draw loss and validation NDCG@10 by epoch, one line for each model."""
    rows = [row for row in rows if row.get("losses") or row.get("values")][:6]
    panels = [(key, text) for key, text in _CURVES if any(row.get(key) for row in rows)]
    if not panels:
        return ""

    def draw_axes(axes: Any) -> None:
        for panel, (key, text) in zip([axes] if len(panels) == 1 else axes, panels, strict=True):
            for at, row in enumerate(rows):
                values = row.get(key) or []
                marker = "o" if len(values) < 15 else ""
                epochs = range(1, len(values) + 1)
                panel.plot(
                    epochs,
                    values,
                    color=css_colour(f"c{at + 1}"),
                    marker=marker,
                    ms=3,
                    label=str(row.get("name", "")),
                )
            panel.set_ylabel(text)
            panel.grid(axis="y")
            last = panel
        last.set_xlabel("epoch")
        last.xaxis.get_major_locator().set_params(integer=True)
        figure = last.figure
        handles, labels = last.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2)

    return draw(
        draw_axes,
        rows=len(panels),
        height=0.7 + 1.55 * len(panels),
        title="",
        label="Training curves",
    )


_CURVES = (("losses", "training loss"), ("values", "validation NDCG@10"))


def curve(points: Rows) -> str:
    """Draw NDCG@10 by share of the target's users, with a standard error, for each model."""
    by_model: dict[str, list[tuple[float, float, float]]] = {}
    for point in points:
        for line in point.get("lines") or []:
            value, error = line.get("ndcg@10"), line.get("ndcg@10.se") or 0.0
            if value is not None:
                measured = by_model.setdefault(str(line.get("name", "")), [])
                measured.append((float(point["share"]), value, error))
    if not by_model:
        return ""

    def draw_axes(axes: Any) -> None:
        for at, (name, measured) in enumerate(by_model.items()):
            share, value, error = zip(*measured, strict=True)
            low, high = (
                [v + sign * e for v, e in zip(value, error, strict=True)] for sign in (-1, 1)
            )
            colour, dash = css_colour(f"c{at % 6 + 1}"), "-" if at < 6 else "--"
            axes.plot(share, value, dash, color=colour, marker="o", ms=4, label=name)
            axes.fill_between(share, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        shares = sorted({share for measured in by_model.values() for share, *_ in measured})
        axes.set_xticks(shares, [f"{100 * share:g} %" for share in shares])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("share of the target's users in training (log scale)")
        axes.set_ylabel("NDCG@10")
        axes.grid(axis="y")
        axes.figure.legend(loc="outside lower left", ncols=3)

    return draw(
        draw_axes,
        height=3.4,
        title="NDCG@10 by share of the target's users",
        label="NDCG@10 by share of the target's users",
        caption="Bands: one standard error, clustered by user. Lifts are paired on the same rows, "
        "so their error is smaller.",
    )
