"""Command `bench`: what a bundle costs on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from tlrec_edge.bench import BenchConfig, BenchResult, run_bench
from tlrec_edge.bench.config import DEFAULT_CANDIDATES
from tlrec_edge.bench.latency import PERCENTILES
from tlrec_edge.bench.scenarios import SCENARIOS
from tlrec_edge.cli.common import out_file
from tlrec_edge.errors import DataError

_NOT_READABLE = "not readable here"
_FILE = click.Path(path_type=Path)


def counts(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Read a list of counts: 1,32,100."""
    try:
        found = tuple(int(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r:.60} is no list of counts; write 1,32,100") from None
    if min(found) < 1:
        raise click.BadParameter(f"{value!r:.60}: every count must be at least 1")
    return found


@click.command()
@click.argument("bundle", type=_FILE)
@click.option(
    "--scenario",
    type=click.Choice([*SCENARIOS, "all"]),
    default="all",
    show_default=True,
    help="single-stream scores lists of candidates, top-k ranks the whole catalogue.",
)
@click.option(
    "--candidates",
    callback=counts,
    default=",".join(map(str, DEFAULT_CANDIDATES)),
    show_default=True,
    help="Candidates in a request; more than the bundle has are left out.",
)
@click.option("--k", type=click.IntRange(min=1), default=10, show_default=True, help="Items that top-k returns.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.01), default=2.0, show_default=True, help="Time for each shape of request."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the requests.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines instead of a table.")
@click.option("--out", type=_FILE, callback=out_file, help="File to write the JSON to as well.")
def bench(
    bundle: Path,
    scenario: str,
    candidates: tuple[int, ...],
    k: int,
    seconds: float,
    seed: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """Measure BUNDLE here: latency, start-up, memory, bytes. MLPerf-style, unofficial."""
    config = BenchConfig(candidates=candidates, k=k, seconds=seconds, seed=seed)
    names = list(SCENARIOS) if scenario == "all" else [scenario]
    result = run_bench(bundle, config, names, lambda line: click.echo(line, err=True))
    found = result.to_json()
    if out is not None:
        _write(out, found)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        show(result)


def show(result: BenchResult) -> None:
    """Print a result for people; a machine too noisy to trust is told first."""
    console = Console(soft_wrap=True, highlight=False)
    machine, noise = result.machine, result.noise
    stolen = "" if noise.stolen is None else f", the host took {noise.stolen:.1%} of CPU time"
    steadiness = f"equal loops differ by {noise.spread:.0%}{stolen}"
    if noise.noisy:
        console.print(f"NOISY MACHINE: {steadiness}; repeat before you rely on these times", style="bold")
    console.print(_latency_table(result))
    for note in result.notes:
        console.print(note, markup=False)
    console.print(_cost_table(result))
    virtual = {True: "virtualised", False: "no hypervisor seen", None: f"virtualised: {_NOT_READABLE}"}
    quota = "no quota" if machine.quota_cores is None else f"quota {machine.quota_cores:g} cores"
    flags = ", ".join(machine.flags) or "no vector flags seen"
    where = f"{machine.cpu} ({flags}), {machine.usable_cores} cores, {quota}, {virtual[machine.virtualised]}"
    versions = f"python {machine.python}, numpy {machine.numpy}, onnxruntime {machine.onnxruntime}"
    console.print(f"{where}; {machine.system}; {versions}; {steadiness}", markup=False)


def _latency_table(result: BenchResult) -> Table:
    about = result.bundle
    title = f"{about['name']}: microseconds, one stream, one thread, histories of {about['history']} items"
    # Narrow, so that it fits 80 columns.
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("request")
    table.add_column("state", no_wrap=True)
    for name in (*PERCENTILES, "max", "CPU", "per s"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.rows:
        times = [f"{value:,.0f}" for value in row.latency.us.values()]
        # CPU seconds for a million requests are CPU microseconds for one.
        rates = f"{row.latency.cpu_seconds_per_million:,.0f}", f"{row.latency.qps:,.0f}"
        table.add_row(row.shape, row.state, *times, *rates)
    table.caption = "state of the user: encoded in the request, or given; CPU: CPU time of one request"
    return table


def _cost_table(result: BenchResult) -> Table:
    table = Table("", "", title="bytes, start-up, memory", show_header=False, box=box.SIMPLE_HEAD)
    start = result.startup
    table.add_row("bundle", f"{result.bytes:,} bytes")
    for group, size in result.files.items():
        table.add_row(f"  {group}", f"{size:,}")
    table.add_row("start to first score", f"{start.total_ms:,.0f} ms (median of {start.runs} fresh processes)")
    parts = f"{start.import_ms:,.0f}, {start.open_ms:,.1f}, {start.first_score_ms:,.1f} ms"
    table.add_row("  import, open, score", parts)
    table.add_row("  CPU time", f"{start.cpu_ms:,.0f} ms")
    memory = {"RSS": start.rss_bytes, "PSS": start.pss_bytes, "USS (private)": start.uss_bytes}
    for name, used in memory.items():
        table.add_row(f"memory, {name}", _NOT_READABLE if used is None else f"{used / 1e6:,.0f} MB")
    return table


def _write(path: Path, found: dict[str, Any]) -> None:
    text = json.dumps(found, ensure_ascii=False, indent=1) + "\n"
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, "utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror}; name another file") from error
