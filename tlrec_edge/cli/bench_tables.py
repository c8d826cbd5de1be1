"""What `bench` found, for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from tlrec_edge.bench import BenchResult
from tlrec_edge.bench.latency import PERCENTILES
from tlrec_edge.bench.result import Peak, Row
from tlrec_edge.bench.startup import Startup

_NOT_READABLE = "not readable here"
_ONE_BY_ONE = ("single-stream", "top-k")


def show(result: BenchResult) -> None:
    """Print a result for people; a machine too noisy to trust is told first."""
    console = Console(soft_wrap=True, highlight=False)
    machine, noise = result.machine, result.noise
    stolen = "" if noise.stolen is None else f", the host took {noise.stolen:.1%} of CPU time"
    steadiness = f"equal loops differ by {noise.spread:.0%}{stolen}"
    if noise.noisy:
        console.print(f"NOISY MACHINE: {steadiness}; repeat before you rely on these times", style="bold")
    for table in filter(None, (_latency_table(result), _load_table(result))):
        console.print(table)
    if result.peak is not None:
        console.print(_peak_line(result.peak), markup=False)
    for note in result.notes:
        console.print(note, markup=False)
    if result.files is not None and result.startup is not None:
        console.print(_cost_table(result.files, result.startup))
    virtual = {True: "virtualised", False: "no hypervisor seen", None: f"virtualised: {_NOT_READABLE}"}
    quota = "no quota" if machine.quota_cores is None else f"quota {machine.quota_cores:g} cores"
    flags = ", ".join(machine.flags) or "no vector flags seen"
    where = f"{machine.cpu} ({flags}), {machine.usable_cores} cores, {quota}, {virtual[machine.virtualised]}"
    versions = f"python {machine.python}, numpy {machine.numpy}, onnxruntime {machine.onnxruntime}"
    console.print(f"{where}; {machine.system}; {versions}; {steadiness}", markup=False)


def _table(title: str, heads: Sequence[str]) -> Table:
    # Narrow, so that it fits 80 columns.
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("request")
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _latency_table(result: BenchResult) -> Table | None:
    rows = [row for row in result.rows if row.scenario in _ONE_BY_ONE]
    if not rows:
        return None
    about = result.bundle
    title = f"{about['name']}: microseconds, one stream, one thread, histories of {about['history']} items"
    table = _table(title, ["state", *PERCENTILES, "max", "CPU", "per s"])
    for row in rows:
        # CPU seconds for a million requests are CPU microseconds for one.
        rates = f"{row.latency.cpu_seconds_per_million:,.0f}", f"{row.latency.qps:,.0f}"
        table.add_row(row.shape, row.state, *_times(row, (*PERCENTILES, "max")), *rates)
    table.caption = "state of the user: encoded in the request, or given; CPU: CPU time of one request"
    return table


def _load_table(result: BenchResult) -> Table | None:
    rows = [row for row in result.rows if row.scenario not in _ONE_BY_ONE]
    rows += [row for row, _ in result.peak.trials] if result.peak else []
    if not rows:
        return None
    config = result.config
    workers = f"{config.processes} process(es) of {config.threads} thread(s)"
    title = f"{rows[-1].shape} under load: microseconds, {workers}"
    heads = ["arrive/s", "per s", "p50", "p90", "p99", f"{config.confidence:.0%} sure", "max", "CPU %"]
    table = _table(title, heads)
    table.columns[0].header = "scenario"
    for row in rows:
        arrive = "" if row.target_qps is None else f"{row.target_qps:,.0f}"
        bound = (row.latency.bound_us or {}).get("p99")
        sure = "-" if bound is None else f"{bound:,.0f}"
        p50, p90, p99, most = _times(row, ("p50", "p90", "p99", "max"))
        name = f"{row.scenario} x{config.streams}" if row.scenario == "multi-stream" else row.scenario
        busy = f"{row.latency.cpu_percent:.0f}"
        table.add_row(name, arrive, f"{row.latency.qps:,.0f}", p50, p90, p99, sure, most, busy)
    table.caption = "server: from the scheduled time of Poisson arrivals; sure: p99 is at most this"
    return table


def _times(row: Row, names: Sequence[str]) -> list[str]:
    return [f"{row.latency.us[name]:,.0f}" for name in names]


def _peak_line(peak: Peak) -> str:
    bound = f"p99 of {peak.p99_us:,.0f} us at {peak.confidence:.0%} confidence"
    if peak.qps is not None:
        return f"highest rate that keeps a {bound}: {peak.qps:,.0f} requests a second"
    slowest = min((row for row, _ in peak.trials), key=lambda row: row.target_qps or 0.0)
    found = f"{slowest.latency.us['p99']:,.0f} us at {slowest.target_qps:,.0f} a second"
    return f"no rate was shown to keep a {bound}: it is {found}"


def _cost_table(files: dict[str, int], start: Startup) -> Table:
    table = Table("", "", title="bytes, start-up, memory", show_header=False, box=box.SIMPLE_HEAD)
    table.add_row("bundle", f"{sum(files.values()):,} bytes")
    for group, size in files.items():
        table.add_row(f"  {group}", f"{size:,}")
    table.add_row("start to first score", f"{start.total_ms:,.0f} ms (median of {start.runs} fresh processes)")
    parts = f"{start.import_ms:,.0f}, {start.open_ms:,.1f}, {start.first_score_ms:,.1f} ms"
    table.add_row("  import, open, score", parts)
    table.add_row("  CPU time", f"{start.cpu_ms:,.0f} ms")
    memory = {"RSS": start.rss_bytes, "PSS": start.pss_bytes, "USS (private)": start.uss_bytes}
    for name, used in memory.items():
        table.add_row(f"memory, {name}", _NOT_READABLE if used is None else f"{used / 1e6:,.0f} MB")
    return table
