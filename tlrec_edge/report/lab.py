"""From the JSON of `tlrec-edge bench` to one page that loads nothing."""

from __future__ import annotations

from collections.abc import Callable

from tlrec_edge.report import lab_plots, plots
from tlrec_edge.report.html import Cell, Data, document, machine_line, startup, table
from tlrec_edge.report.words import MISSING, microseconds, number, size, text

_PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")
_ONE_BY_ONE = ("single-stream", "top-k")


def render_bench(bench: Data) -> str:
    """Return one HTML file. Raises MissingExtraError where matplotlib is not installed."""
    title = text(f"{(bench.get('bundle') or {}).get('name', 'system')}: latency and cost")
    return document(title, "\n".join(part for part in (make(bench) for make in _SECTIONS) if part))


def render_compare(found: Data) -> str:
    """Return one HTML file of ``bench --compare``. Raises MissingExtraError where matplotlib is not installed."""
    a, b, rows = text(found.get("a")), text(found.get("b")), found.get("compare") or []
    lines = []
    for row in rows:
        times = [(microseconds(row[side]), "") for side in ("a_us", "b_us")]
        spread = f"{number(row['low'], 3)} to {number(row['high'], 3)}"
        style = {"slower": "bad", "faster": "good"}.get(row["verdict"], "")
        cells = [(text(row["shape"]), ""), *times, (number(row["ratio"], 3), ""), (spread, "")]
        lines.append(([*cells, (text(row["verdict"]), f"text {style}")], ""))
    interval = f"interval at {rows[0]['confidence']:.1%}" if rows else ""
    table_html = table(
        ["request", "A", "B", "B / A", interval, "B is"],
        lines,
        text_columns=(5,),
        caption="Medians, microseconds.",
    )
    about = (
        f"<p>A: {a}. B: {b}. Every request went to both in turns; each round opened both anew.</p>"
    )
    return document(
        f"{b} against {a}", _noise(found) + about + lab_plots.compared(rows) + table_html
    )


def _lead(bench: Data) -> str:
    return f'{_noise(bench)}<p class="soft">{text(bench.get("kind"))}.</p>{_cards(bench)}'


def _noise(found: Data) -> str:
    noise = found.get("noise") or {}
    words = [f"equal loops differed by {noise.get('spread', 0):.0%}"]
    for key, template in (
        ("stolen", "the host took {:.1%} of CPU time"),
        ("others", "other processes used {:.0%}"),
    ):
        if noise.get(key) is not None:
            words.append(template.format(noise[key]))
    shaky = ", ".join(words)
    if noise.get("noisy"):
        return f'<p class="bad">Noisy machine: {shaky}; repeat before you rely on these times.</p>'
    return f'<p class="soft">{shaky[:1].upper()}{shaky[1:]}.</p>'


def _cards(bench: Data) -> str:
    cards: list[Cell] = []
    alone = [
        row
        for row in bench.get("rows") or []
        if row["scenario"] in _ONE_BY_ONE and row["state"] != "cold"
    ]
    for row in [row for row in alone if row["scored"] >= 100][:4]:
        what = f"median of {text(row['shape'])}, state {text(row['state'])}"
        cards.append((f"{microseconds(row['latency_us']['p50'])} µs", what))
    peak = bench.get("peak") or {}
    if peak.get("qps"):
        cards.append(
            (
                f"{microseconds(peak['qps'])} / s",
                f"requests within a p99 of {peak['p99_us'] / 1000:g} ms",
            )
        )
    if bench.get("bytes"):
        cards.append((size(bench["bytes"]), "the whole bundle"))
    private = (bench.get("startup") or {}).get("uss_bytes")
    if private:
        cards.append((size(private), "private memory of a process"))
    inner = "".join(
        f'<div class="card"><b>{value}</b><span>{what}</span></div>' for value, what in cards
    )
    return f'<div class="cards">{inner}</div>' if cards else ""


def _one_by_one(bench: Data) -> str:
    rows = [row for row in bench.get("rows") or [] if row["scenario"] in _ONE_BY_ONE]
    if not rows:
        return ""
    encoded = [row for row in rows if row["state"] == "encoded"]
    plot = f'<div class="plots">{lab_plots.distribution(encoded)}{lab_plots.latency(rows)}</div>'
    lines = []
    for row in rows:
        times = [(microseconds(row["latency_us"].get(name)), "") for name in _PERCENTILES]
        rest = microseconds(row["cpu_seconds_per_million"]), microseconds(row["qps"])
        lines.append(
            (
                [
                    (text(row["shape"]), ""),
                    (text(row["state"]), "text"),
                    *times,
                    *((v, "") for v in rest),
                ],
                "",
            )
        )
    headers = ["request", "user state", *_PERCENTILES, "CPU", "per second"]
    table_html = table(
        headers,
        lines,
        text_columns=(1,),
        caption="Microseconds; CPU seconds of a million requests.",
    )
    return f"<h2>One request after another</h2>{plot}{table_html}"


def _against(bench: Data) -> str:
    against = bench.get("against") or {}
    lines = []
    for change in against.get("changes") or []:
        verdict = ("worse", "text bad") if change["regressed"] else ("", "text")
        values = [(microseconds(change[key]), "") for key in ("before", "now")]
        lines.append(
            ([(text(change["what"]), ""), *values, (number(change["ratio"], 2), ""), verdict], "")
        )
    drift = against.get("drift") or 1.0
    caption = (
        f"A fixed loop took {drift:.2f} times as long as then: times are held against that."
        if drift > 1
        else ""
    )
    table_html = table(
        ["figure", "then", "now", "ratio", ""], lines, text_columns=(4,), caption=caption
    )
    return f"<h2>Against the baseline</h2>{table_html}" if table_html else ""


def _loads(bench: Data) -> str:
    peak = bench.get("peak") or {}
    rows = [row for row in bench.get("rows") or [] if row["scenario"] not in _ONE_BY_ONE]
    rows += peak.get("trials") or []
    if not rows:
        return ""
    config = bench.get("config") or {}
    lines = []
    for row in rows:
        arrive = MISSING if row["target_qps"] is None else microseconds(row["target_qps"])
        times = [microseconds(row["latency_us"].get(name)) for name in _PERCENTILES]
        bound = microseconds((row.get("bound_us") or {}).get("p99"))
        cells = [
            arrive,
            microseconds(row["qps"]),
            *times,
            bound,
            number(float(row["cpu_percent"]), 0),
        ]
        name = (
            f"multi-stream × {config.get('streams')}"
            if row["scenario"] == "multi-stream"
            else text(row["scenario"])
        )
        wrong = not row["holds"] if "holds" in row else row.get("saturated")
        name += ", searched" if "holds" in row else ""
        lines.append(([(name, ""), *((cell, "") for cell in cells)], "bad" if wrong else ""))
    headers = [
        "scenario",
        "arrive / s",
        "per second",
        *_PERCENTILES,
        f"p99 ≤ at {_confidence(bench)}",
        "CPU %",
    ]
    caption = (
        f"{text(rows[-1]['shape'])} a request. Microseconds, of server from the scheduled time."
    )
    plot = lab_plots.load(rows, peak.get("p99_us"))
    return f"<h2>Under load</h2>{_peak(bench)}{plot}{table(headers, lines, caption=caption)}"


def _peak(bench: Data) -> str:
    peak = bench.get("peak")
    if not peak:
        return ""
    bound = f"a p99 of {peak['p99_us'] / 1000:g} ms at {_confidence(bench)} confidence"
    if peak["qps"] is None:
        return f'<p class="bad">No rate was shown to keep {bound}.</p>'
    return f"<p>The highest rate shown to keep {bound}: {microseconds(peak['qps'])} requests a second.</p>"


def _confidence(bench: Data) -> str:
    return f"{(bench.get('config') or {}).get('confidence', 0.99):.0%}"


def _compression(bench: Data) -> str:
    points = bench.get("compression") or []
    plot = plots.pareto_front(points)
    best = [
        point for point in points if (point.get("front") or point.get("kept")) and point.get("us")
    ]
    lines = []
    for point in sorted(best, key=lambda point: float(point["us"]["p50"])):
        figures = [
            number(point.get("ratio"), 4),
            microseconds(point["us"]["p50"]),
            size(point["bytes"]),
        ]
        verdict = ("chosen", "text good") if point.get("kept") else ("", "text")
        lines.append(
            ([(text(point.get("step")), ""), *((value, "") for value in figures), verdict], "")
        )
    table_html = table(
        ["model", "metric kept", "p50 µs", "size", ""],
        lines,
        text_columns=(4,),
        caption="Green and blue dots.",
    )
    return f"<h2>Accuracy, latency, size</h2>{plot}{table_html}" if plot else ""


def _memory(bench: Data) -> str:
    start = bench.get("startup") or {}
    named = {"rss_bytes": "RSS", "pss_bytes": "PSS", "uss_bytes": "private (USS)"}
    used = [{"name": name, "bytes": start[key]} for key, name in named.items() if start.get(key)]
    files = [{"name": name, "bytes": value} for name, value in (bench.get("files") or {}).items()]
    plot = lab_plots.sizes(
        used, "memory of a process", title="Memory of one process"
    ) + lab_plots.sizes(files, "bundle")
    table_html = startup(start) if start else ""
    if start and start.get("cold_ms"):
        table_html += f"<p>With the bundle out of the page cache: {number(float(start['cold_ms']), 0)} ms.</p>"
    return (
        f'<h2>Memory and start-up</h2><div class="plots">{plot}</div>{table_html}'
        if plot or table_html
        else ""
    )


def _cost(bench: Data) -> str:
    bill, joules = bench.get("bill") or {}, [row.get("joules") for row in bench.get("rows") or []]
    lines: list[tuple[str, str]] = []
    if bill:
        bound = (
            f"p99 within {bill['p99_us'] / 1000:g} ms"
            if bill.get("p99_us")
            else "flat out, no bound of latency"
        )
        lines.append((f"requests a second, {bound}", microseconds(bill["qps"])))
    for key, name in (
        ("per_million_requests", "a million requests"),
        ("per_million_scores", "a million scores"),
    ):
        if bill.get(key) is not None:
            lines.append((f"{name}, at {bill['price_per_hour']:g} an hour", f"{bill[key]:.4g}"))
    if bill.get("machines"):
        lines.append(
            (
                f"machines for {microseconds(bill['wanted_qps'])} requests a second",
                number(bill["machines"]),
            )
        )
    readable = any(value is not None for value in joules)
    lines.append(("energy", "by row, in the JSON" if readable else "not readable here"))
    return f"<h2>Cost</h2>{table(['', ''], [([(name, ''), (value, '')], '') for name, value in lines])}"


def _machine(bench: Data) -> str:
    machine = dict(bench.get("machine") or {})
    if bench.get("copy_bytes_per_second"):
        machine["copies"] = f"{bench['copy_bytes_per_second'] / 1e9:.1f} GB/s"
    notes = "".join(f'<p class="soft">{text(note)}</p>' for note in bench.get("notes") or [])
    return f"<h2>Machine</h2>{machine_line(machine)}{notes}" if machine else notes


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
