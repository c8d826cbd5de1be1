"""From the JSON of `tlrec-edge bench` to one page that loads nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlrec_edge.report import lab_plots, plots
from tlrec_edge.report.html import Cell, Data, document, machine_line, startup, table
from tlrec_edge.report.words import NOTHING, microseconds, number, size, text

_PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")
_ONE_BY_ONE = ("single-stream", "top-k")


def render_bench(bench: Data) -> str:
    """Return one HTML file. Raises MissingExtraError where matplotlib is not installed."""
    title = text(f"{(bench.get('bundle') or {}).get('name', 'system')}: latency and cost")
    return document(title, "\n".join(part for part in (make(bench) for make in _PARTS) if part))


def _lead(bench: Data) -> str:
    noise = bench.get("noise") or {}
    words = [f"equal loops differed by {noise.get('spread', 0):.0%}"]
    for key, said in (("stolen", "the host took {:.1%} of CPU time"), ("others", "other processes used {:.0%}")):
        if noise.get(key) is not None:
            words.append(said.format(noise[key]))
    shaky = ", ".join(words)
    first = f'<p class="bad">Noisy machine: {shaky}; repeat before you rely on these times.</p>'
    steady = f'<p class="soft">{text(bench.get("kind"))}. {shaky[:1].upper()}{shaky[1:]}.</p>'
    return (first if noise.get("noisy") else "") + steady + _cards(bench)


def _cards(bench: Data) -> str:
    cards: list[Cell] = []
    for row in [row for row in bench.get("rows") or [] if row["scenario"] in _ONE_BY_ONE and row["scored"] >= 100][:4]:
        what = f"median of {text(row['shape'])}, state {text(row['state'])}"
        cards.append((f"{microseconds(row['latency_us']['p50'])} µs", what))
    peak = bench.get("peak") or {}
    if peak.get("qps"):
        cards.append((f"{microseconds(peak['qps'])} / s", f"requests within a p99 of {peak['p99_us'] / 1000:g} ms"))
    if bench.get("bytes"):
        cards.append((size(bench["bytes"]), "the whole bundle"))
    private = (bench.get("startup") or {}).get("uss_bytes")
    if private:
        cards.append((size(private), "private memory of a process"))
    inner = "".join(f'<div class="card"><b>{value}</b><span>{what}</span></div>' for value, what in cards)
    return f'<div class="cards">{inner}</div>' if cards else ""


def _one_by_one(bench: Data) -> str:
    rows = [row for row in bench.get("rows") or [] if row["scenario"] in _ONE_BY_ONE]
    if not rows:
        return ""
    encoded = [row for row in rows if row["state"] == "encoded"]
    drawn = f'<div class="plots">{lab_plots.distribution(encoded)}{plots.latency(rows)}</div>'
    lines = []
    for row in rows:
        times = [(microseconds(row["latency_us"].get(name)), "") for name in _PERCENTILES]
        rest = microseconds(row["cpu_seconds_per_million"]), microseconds(row["qps"])
        lines.append(([(text(row["shape"]), ""), (text(row["state"]), "text"), *times, *((v, "") for v in rest)], ""))
    heads = ["request", "user state", *_PERCENTILES, "CPU", "per second"]
    shown = table(heads, lines, text_columns=(1,), caption="Microseconds; CPU seconds of a million requests.")
    return f"<h2>One request after another</h2>{drawn}{shown}"


def _loads(bench: Data) -> str:
    peak = bench.get("peak") or {}
    tried = peak.get("trials") or []
    rows = [row for row in bench.get("rows") or [] if row["scenario"] not in _ONE_BY_ONE] + tried
    if not rows:
        return ""
    lines = []
    for row in rows:
        arrive = NOTHING if row["target_qps"] is None else microseconds(row["target_qps"])
        times = [microseconds(row["latency_us"].get(name)) for name in _PERCENTILES]
        sure = microseconds((row.get("bound_us") or {}).get("p99"))
        cells = [arrive, microseconds(row["qps"]), *times, sure, number(float(row["cpu_percent"]), 0)]
        name = f"{text(row['scenario'])}, {text(row['shape'])}"
        lines.append(([(name, ""), *((cell, "") for cell in cells)], "bad" if row.get("saturated") else ""))
    confidence = (bench.get("config") or {}).get("confidence", 0.99)
    heads = ["scenario", "arrive / s", "per second", *_PERCENTILES, f"p99 ≤ at {confidence:.0%}", "CPU %"]
    drawn = lab_plots.load(rows, peak.get("p99_us"))
    return f"<h2>Under load</h2>{drawn}{table(heads, lines, caption='Microseconds from the scheduled time.')}"


def _compression(bench: Data) -> str:
    points = bench.get("compression") or []
    drawn = plots.front(points)
    return f"<h2>Accuracy, latency, size</h2>{drawn}" if drawn else ""


def _memory(bench: Data) -> str:
    start = bench.get("startup") or {}
    named = {"rss_bytes": "RSS", "pss_bytes": "PSS", "uss_bytes": "private (USS)"}
    used = [{"name": name, "bytes": start[key]} for key, name in named.items() if start.get(key)]
    files = [{"name": name, "bytes": value} for name, value in (bench.get("files") or {}).items()]
    drawn = plots.sizes(used, "memory of a process", title="Memory of one process") + plots.sizes(files, "bundle")
    shown = startup(start) if start else ""
    if start and start.get("cold_ms"):
        shown += f"<p>With the bundle out of the page cache: {number(float(start['cold_ms']), 0)} ms.</p>"
    return f'<h2>Memory and start-up</h2><div class="plots">{drawn}</div>{shown}' if drawn or shown else ""


def _cost(bench: Data) -> str:
    bill, joules = bench.get("bill") or {}, [row.get("joules") for row in bench.get("rows") or []]
    lines: list[tuple[str, str]] = []
    if bill:
        bound = f"p99 within {bill['p99_us'] / 1000:g} ms" if bill.get("p99_us") else "flat out, no bound of latency"
        lines.append((f"requests a second, {bound}", microseconds(bill["qps"])))
    for key, name in (("per_million_requests", "a million requests"), ("per_million_scores", "a million scores")):
        if bill.get(key) is not None:
            lines.append((f"{name}, at {bill['price_per_hour']:g} an hour", f"{bill[key]:.4g}"))
    if bill.get("machines"):
        lines.append((f"machines for {microseconds(bill['wanted_qps'])} requests a second", number(bill["machines"])))
    readable = any(value is not None for value in joules)
    lines.append(("energy", "by row, in the JSON" if readable else "not readable here"))
    return f"<h2>Cost</h2>{table(['', ''], [([(name, ''), (value, '')], '') for name, value in lines])}"


def _machine(bench: Data) -> str:
    machine = dict(bench.get("machine") or {})
    if bench.get("copy_bytes_per_second"):
        machine["copies"] = f"{bench['copy_bytes_per_second'] / 1e9:.1f} GB/s"
    notes = "".join(f'<p class="soft">{text(note)}</p>' for note in bench.get("notes") or [])
    return f"<h2>Machine</h2>{machine_line(machine)}{notes}" if machine else notes


_PARTS: tuple[Callable[[Data], Any], ...] = (_lead, _one_by_one, _loads, _compression, _memory, _cost, _machine)
