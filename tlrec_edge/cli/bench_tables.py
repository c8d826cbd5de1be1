"""The results of bench as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from tlrec_edge.bench import BenchResult
from tlrec_edge.bench.baseline import Changes
from tlrec_edge.bench.compare import Ratio
from tlrec_edge.bench.cost_estimate import CostEstimate
from tlrec_edge.bench.latency import PERCENTILES
from tlrec_edge.bench.noise import Noise
from tlrec_edge.bench.result import MaxThroughput, Row
from tlrec_edge.bench.startup import Startup
from tlrec_edge.cli.output import plain

_NOT_READABLE = "not readable here"
_ONE_BY_ONE = ("single-stream", "top-k")


def show(result: BenchResult) -> None:
    """Print a result; a warning comes first if the machine is too noisy."""
    console = Console(soft_wrap=True, highlight=False)
    noise = result.noise
    _warn_if_noisy(console, noise)
    for table in filter(None, (_latency_table(result), _load_table(result))):
        console.print(table)
    if result.max_throughput is not None:
        console.print(plain(_max_throughput_line(result.max_throughput)))
    for note in result.notes:
        console.print(plain(note))
    console.print(_cost_table(result))
    console.print(plain(f"{_machine_line(result)}; {noise}"))


def _machine_line(result: BenchResult) -> str:
    machine = result.machine
    flags = ", ".join(machine.flags) or "no vector flags seen"
    quota = "no quota" if machine.quota_cores is None else f"quota {machine.quota_cores:g} cores"
    hypervisor = {
        True: "virtualised",
        False: "no hypervisor seen",
        None: f"virtualised: {_NOT_READABLE}",
    }[machine.virtualised]
    cpu = f"{machine.cpu} ({flags}), {machine.usable_cores} cores, {quota}, {hypervisor}"
    speed = [f"{machine.mhz:,.0f} MHz"] if machine.mhz else []
    speed += machine.caches
    if result.bandwidth:
        speed.append(f"copies {result.bandwidth / 1e9:.1f} GB/s")
    versions = f"python {machine.python}, numpy {machine.numpy}, onnxruntime {machine.onnxruntime}"
    return f"{cpu}; {', '.join(speed)}; {machine.system}; {versions}"


def show_ratios(ratios: Sequence[Ratio], noise: Noise) -> None:
    """Print how the times of two bundles compare."""
    console = Console(soft_wrap=True, highlight=False)
    _warn_if_noisy(console, noise)
    table = _table(
        "B against A, in turns", "request", ["A us", "B us", "B / A", "interval", "verdict"]
    )
    for r in ratios:
        spread = f"{r.low:.3f} .. {r.high:.3f}"
        table.add_row(
            r.shape, f"{r.a_us:,.0f}", f"{r.b_us:,.0f}", f"{r.ratio:.3f}", spread, r.verdict
        )
    table.caption = (
        f"medians of {len(ratios[0].rounds)} rounds; interval at {ratios[0].confidence:.1%}"
    )
    console.print(table)


def show_changes(changes: Changes) -> None:
    """Print how a run compares with its baseline."""
    console = Console(soft_wrap=True, highlight=False)
    table = _table("against the baseline", "figure", ["then", "now", "ratio", ""])
    for c in changes.changes:
        table.add_row(
            c.what,
            f"{c.before:,.0f}",
            f"{c.now:,.0f}",
            f"{c.ratio:.2f}",
            "WORSE" if c.regressed else "",
        )
    if changes.drift > 1:
        table.caption = (
            f"a fixed loop took {changes.drift:.2f} times as long as then; "
            "the ratios of times are corrected for that"
        )
    console.print(table)


def _warn_if_noisy(console: Console, noise: Noise) -> None:
    if noise.noisy:
        warning = f"NOISY MACHINE: {noise}; repeat the run before you rely on these times"
        console.print(plain(warning), style="bold")


class _Table(Table):
    """A table whose cells are never read as markup."""

    def add_row(self, *cells: str) -> None:  # type: ignore[override]  # other types are not used
        super().add_row(*map(plain, cells))


def _table(title: str, first: str, others: Sequence[str]) -> _Table:
    # Narrow, so that it fits 80 columns.
    table = _Table(title=plain(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _latency_table(result: BenchResult) -> _Table | None:
    rows = [row for row in result.rows if row.scenario in _ONE_BY_ONE]
    if not rows:
        return None
    about = result.bundle
    title = (
        f"{about['name']}: microseconds, one stream, one thread, "
        f"histories of {about['history']} items"
    )
    table = _table(title, "request", ["state", *PERCENTILES, "max", "CPU", "per s"])
    for row in rows:
        # CPU seconds for a million requests are CPU microseconds for one.
        rates = f"{row.latency.cpu_seconds_per_million:,.0f}", f"{row.latency.qps:,.0f}"
        table.add_row(row.shape, row.state, *_times(row, (*PERCENTILES, "max")), *rates)
    table.caption = (
        "state of the user: encoded in the request, or given; cold: the bundle is read from disk; "
        "CPU: time of one request"
    )
    return table


def _load_table(result: BenchResult) -> _Table | None:
    rows = [row for row in result.rows if row.scenario not in _ONE_BY_ONE]
    rows += [row for row, _ in result.max_throughput.trials] if result.max_throughput else []
    if not rows:
        return None
    config = result.config
    workers = f"{config.processes} process(es) of {config.threads} thread(s)"
    title = f"{rows[-1].shape} under load: microseconds, {workers}"
    headers = [
        "arrive/s",
        "per s",
        "p50",
        "p90",
        "p99",
        f"{config.confidence:.0%} sure",
        "max",
        "CPU %",
    ]
    table = _table(title, "scenario", headers)
    for row in rows:
        arrive = "" if row.target_qps is None else f"{row.target_qps:,.0f}"
        bound = (row.latency.bound_us or {}).get("p99")
        p99_bound = "-" if bound is None else f"{bound:,.0f}"
        p50, p90, p99, maximum = _times(row, ("p50", "p90", "p99", "max"))
        busy = f"{row.latency.cpu_percent:.0f}"
        table.add_row(
            row.scenario, arrive, f"{row.latency.qps:,.0f}", p50, p90, p99, p99_bound, maximum, busy
        )
    several = f"multi-stream: queries of {config.streams} requests; " if config.streams > 1 else ""
    table.caption = (
        f"{several}server: from the scheduled time of Poisson arrivals; sure: p99 is at most this"
    )
    return table


def _times(row: Row, names: Sequence[str]) -> list[str]:
    return [f"{row.latency.us[name]:,.0f}" for name in names]


def _max_throughput_line(throughput: MaxThroughput) -> str:
    bound = f"p99 of {throughput.p99_us:,.0f} us at {throughput.confidence:.0%} confidence"
    if throughput.qps is not None:
        return f"highest rate that keeps a {bound}: {throughput.qps:,.0f} requests per second"
    slowest = min((row for row, _ in throughput.trials), key=lambda row: row.target_qps or 0.0)
    found = f"{slowest.latency.us['p99']:,.0f} us at {slowest.target_qps:,.0f} per second"
    return f"no measured rate keeps a {bound}: the lowest has {found}"


def _cost_table(result: BenchResult) -> _Table:
    table = _Table("", "", title="cost", show_header=False, box=box.SIMPLE_HEAD)
    if result.files is not None:
        table.add_row("bundle", f"{result.bytes:,} bytes")
        for group, size in result.files.items():
            table.add_row(f"  {group}", f"{size:,}")
    if result.startup is not None:
        _add_startup(table, result.startup)
    workers = max((row.latency.pss_bytes or 0 for row in result.rows), default=0)
    if workers:
        table.add_row(
            f"memory, PSS of {result.config.processes} processes under load", _megabytes(workers)
        )
    table.add_row("energy of the machine", _energy(result.rows))
    if result.cost_estimate is not None:
        _add_cost(table, result.cost_estimate)
    return table


def _add_startup(table: _Table, start: Startup) -> None:
    table.add_row(
        "start to first score", f"{start.total_ms:,.0f} ms (median of {start.runs} fresh processes)"
    )
    parts = f"{start.import_ms:,.0f}, {start.open_ms:,.1f}, {start.first_score_ms:,.1f} ms"
    table.add_row("  import, open, score", parts)
    table.add_row("  CPU time", f"{start.cpu_ms:,.0f} ms")
    cold = "the page cache could not be emptied here"
    if start.cold_ms is not None and start.cold_read_bytes is not None:
        cold = f"{start.cold_ms:,.0f} ms, {_megabytes(start.cold_read_bytes)} read"
    table.add_row("  bundle not in page cache", cold)
    memory = {"RSS": start.rss_bytes, "PSS": start.pss_bytes, "USS (private)": start.uss_bytes}
    for name, used in memory.items():
        table.add_row(f"memory, {name}", _megabytes(used))
    if start.rss_bytes is not None and start.uss_bytes is not None:
        table.add_row("memory, shared or shareable", _megabytes(start.rss_bytes - start.uss_bytes))


def _add_cost(table: _Table, estimate: CostEstimate) -> None:
    bound = (
        f"p99 within {estimate.p99_us / 1000:g} ms"
        if estimate.p99_us
        else "at full load, no bound of latency"
    )
    table.add_row("requests per second of this machine", f"{estimate.qps:,.0f} ({bound})")
    if estimate.per_million_requests is not None and estimate.per_million_scores is not None:
        table.add_row(
            "a million requests",
            f"{estimate.per_million_requests:.4g} at {estimate.price:g} per hour",
        )
        table.add_row("a million scores", f"{estimate.per_million_scores:.4g}")
    if estimate.machines is not None:
        table.add_row(
            f"machines for {estimate.target_load:,.0f} requests per second",
            f"{estimate.machines:,}",
        )


def _energy(rows: Sequence[Row]) -> str:
    busiest = max(
        (row for row in rows if row.latency.joules is not None),
        key=lambda row: row.latency.qps,
        default=None,
    )
    if busiest is None or busiest.latency.joules is None:
        return _NOT_READABLE
    latency = busiest.latency
    joules = busiest.latency.joules / (latency.samples or latency.queries)
    return f"{joules * 1e6:,.0f} J per million requests ({busiest.scenario})"


def _megabytes(size: int | None) -> str:
    return _NOT_READABLE if size is None else f"{size / 1e6:,.0f} MB"
