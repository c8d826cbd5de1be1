"""Turn the JSON of `tlrec-edge bench` into one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable

from tlrec_edge.report import lab_plots, plots
from tlrec_edge.report.html import (
    NOT_READABLE,
    PERCENTILES,
    Cell,
    Data,
    Table,
    cards,
    document,
    latency_table,
    machine_line,
    noise_line,
    notes,
    paragraph,
    percentiles,
    plot_grid,
    section,
    startup_table,
)
from tlrec_edge.report.words import MISSING, microseconds, number, size, text

_ONE_BY_ONE = ("single-stream", "top-k")
_VERDICT_STYLES = {"slower": "bad", "faster": "good"}
_MIN_CARD_CANDIDATES, _MAX_LATENCY_CARDS = 100, 4


def render_bench(bench: Data) -> str:
    """Return one HTML file. Raises MissingExtraError if matplotlib is not installed."""
    title = text(f"{(bench.get('bundle') or {}).get('name', 'system')}: latency and cost")
    return document(title, "\n".join(part for part in (make(bench) for make in _SECTIONS) if part))


def render_compare(found: Data) -> str:
    """Return one HTML file of ``bench --compare``.

    Raises MissingExtraError if matplotlib is not installed.
    """
    a, b, rows = text(found.get("a")), text(found.get("b")), found.get("compare") or []
    interval = f"interval at {rows[0]['confidence']:.1%}" if rows else ""
    table = Table(
        ["request", "A", "B", "B / A", interval, "B is"],
        text_columns=(5,),
        caption="Median times in microseconds.",
    )
    for row in rows:
        table.add(
            text(row["shape"]),
            microseconds(row["a_us"]),
            microseconds(row["b_us"]),
            number(row["ratio"], 3),
            f"{number(row['low'], 3)} to {number(row['high'], 3)}",
            Cell(text(row["verdict"]), _VERDICT_STYLES.get(row["verdict"], "")),
        )
    method = (
        f"A: {a}. B: {b}. Every request went to both, one right after the other; each round opened "
        "both again."
    )
    body = [noise_line(found), paragraph(method), lab_plots.compared(rows), table.html()]
    return document(f"{b} compared with {a}", "".join(body))


def _lead(bench: Data) -> str:
    kind = paragraph(f"{text(bench.get('kind'))}.", "soft")
    return noise_line(bench) + kind + cards(_cards(bench))


def _cards(bench: Data) -> list[tuple[str, str]]:
    found = []
    large = [
        row
        for row in bench.get("rows") or []
        if row["scenario"] in _ONE_BY_ONE
        and row["state"] != "cold"
        and row["scored"] >= _MIN_CARD_CANDIDATES
    ]
    for row in large[:_MAX_LATENCY_CARDS]:
        what = f"median of {text(row['shape'])}, state {text(row['state'])}"
        found.append((f"{microseconds(row['latency_us']['p50'])} µs", what))
    peak = bench.get("peak") or {}
    if peak.get("qps"):
        what = f"requests with p99 within {peak['p99_us'] / 1000:g} ms"
        found.append((f"{microseconds(peak['qps'])} / s", what))
    if bench.get("bytes"):
        found.append((size(bench["bytes"]), "size of the bundle"))
    private = (bench.get("startup") or {}).get("uss_bytes")
    if private:
        found.append((size(private), "private memory of a process"))
    return found


def _against(bench: Data) -> str:
    against = bench.get("against") or {}
    drift = against.get("drift") or 1.0
    caption = (
        f"A fixed loop took {drift:.2f} times as long as in the baseline: "
        "times are expected to be longer by that factor."
    )
    table = Table(
        ["figure", "baseline", "now", "ratio", ""],
        text_columns=(4,),
        caption=caption if drift > 1 else "",
    )
    for change in against.get("changes") or []:
        table.add(
            text(change["what"]),
            microseconds(change["before"]),
            microseconds(change["now"]),
            number(change["ratio"], 2),
            Cell("worse", "bad") if change["regressed"] else "",
        )
    return section("Compared with the baseline", table.html())


def _one_by_one(bench: Data) -> str:
    rows = [row for row in bench.get("rows") or [] if row["scenario"] in _ONE_BY_ONE]
    encoded = [row for row in rows if row["state"] == "encoded"]
    caption = "Microseconds. CPU: seconds of a million requests."
    return section(
        "One request after another",
        plot_grid(lab_plots.distribution(encoded), lab_plots.latency(rows)),
        latency_table(rows, caption, cpu=True),
    )


def _loads(bench: Data) -> str:
    peak = bench.get("peak") or {}
    rows = [row for row in bench.get("rows") or [] if row["scenario"] not in _ONE_BY_ONE]
    rows += peak.get("trials") or []
    if not rows:
        return ""
    bound = f"p99 ≤ at {_confidence(bench)}"
    table = Table(
        ["scenario", "arrive / s", "per second", *PERCENTILES, bound, "CPU %"],
        caption=f"{text(rows[-1]['shape'])} in a request. Microseconds; in the server scenario "
        "from the scheduled time.",
    )
    for row in rows:
        is_trial = "holds" in row
        failed = not row["holds"] if is_trial else row.get("saturated")
        table.add(
            _scenario_name(row, bench) + (", search" if is_trial else ""),
            MISSING if row["target_qps"] is None else microseconds(row["target_qps"]),
            microseconds(row["qps"]),
            *percentiles(row),
            microseconds((row.get("bound_us") or {}).get("p99")),
            number(float(row["cpu_percent"]), 0),
            style="bad" if failed else "",
        )
    plot = lab_plots.load(rows, peak.get("p99_us"))
    return section("Under load", _max_throughput(bench), plot, table.html())


def _scenario_name(row: Data, bench: Data) -> str:
    if row["scenario"] == "multi-stream":
        return f"multi-stream × {(bench.get('config') or {}).get('streams')}"
    return text(row["scenario"])


def _max_throughput(bench: Data) -> str:
    peak = bench.get("peak")
    if not peak:
        return ""
    bound = f"p99 within {peak['p99_us'] / 1000:g} ms at {_confidence(bench)} confidence"
    if peak["qps"] is None:
        return paragraph(
            f"No rate was shown to keep {bound}; see also the notes at the end.", "bad"
        )
    rate = microseconds(peak["qps"])
    return paragraph(f"Highest rate shown to keep {bound}: {rate} requests per second.")


def _confidence(bench: Data) -> str:
    return f"{(bench.get('config') or {}).get('confidence', 0.99):.0%}"


def _compression(bench: Data) -> str:
    points = bench.get("compression") or []
    table = Table(
        ["model", "quality retained", "p50 µs", "size", ""],
        text_columns=(4,),
        caption="The models of the green and blue dots.",
    )
    best = [
        point for point in points if (point.get("front") or point.get("kept")) and point.get("us")
    ]
    for point in sorted(best, key=lambda point: float(point["us"]["p50"])):
        table.add(
            text(point.get("step")),
            number(point.get("ratio"), 4),
            microseconds(point["us"]["p50"]),
            size(point["bytes"]),
            Cell("chosen", "good") if point.get("kept") else "",
        )
    plot = plots.pareto_front(points)
    return section("Accuracy, latency, size", plot, table.html()) if plot else ""


def _memory(bench: Data) -> str:
    startup = bench.get("startup") or {}
    names = {"rss_bytes": "RSS", "pss_bytes": "PSS", "uss_bytes": "private (USS)"}
    used = [
        {"name": name, "bytes": startup[key]} for key, name in names.items() if startup.get(key)
    ]
    files = [{"name": name, "bytes": value} for name, value in (bench.get("files") or {}).items()]
    cold = ""
    if startup.get("cold_ms"):
        cold = f"With the bundle read from disk: {number(float(startup['cold_ms']), 0)} ms."
    return section(
        "Memory and start-up",
        plot_grid(
            lab_plots.sizes(used, "memory of a process", title="Memory of one process"),
            lab_plots.sizes(files, "bundle"),
        ),
        startup_table(startup),
        paragraph(cold),
    )


def _cost(bench: Data) -> str:
    cost, table = bench.get("bill") or {}, Table(["", ""])
    if cost:
        p99_us = cost.get("p99_us")
        bound = f"p99 within {p99_us / 1000:g} ms" if p99_us else "throughput without a bound"
        table.add(f"requests per second, {bound}", microseconds(cost["qps"]))
    for key, name in (
        ("per_million_requests", "a million requests"),
        ("per_million_scores", "a million scores"),
    ):
        if cost.get(key) is not None:
            table.add(f"{name}, at {cost['price_per_hour']:g} per hour", f"{cost[key]:.4g}")
    if cost.get("machines"):
        load = microseconds(cost["wanted_qps"])
        table.add(f"machines for {load} requests per second", number(cost["machines"]))
    readable = any(row.get("joules") is not None for row in bench.get("rows") or [])
    table.add("energy", "in the JSON, for each row" if readable else NOT_READABLE)
    return section("Cost", table.html())


def _machine(bench: Data) -> str:
    machine = dict(bench.get("machine") or {})
    if bench.get("copy_bytes_per_second"):
        machine["copies"] = f"{bench['copy_bytes_per_second'] / 1e9:.1f} GB/s"
    return section("Machine", machine_line(machine)) + notes(bench)


_SECTIONS: tuple[Callable[[Data], str], ...] = (
    _lead,
    _against,
    _one_by_one,
    _loads,
    _compression,
    _memory,
    _cost,
    _machine,
)
