"""Command `bench`: what a bundle, or another system, costs on this machine."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import click

from tlrec_edge.bench import BenchConfig, run_bench
from tlrec_edge.bench.config import DEFAULT_CANDIDATES, DRIVERS, TOP_K
from tlrec_edge.bench.endpoint import HttpSource
from tlrec_edge.bench.scenarios import SCENARIOS
from tlrec_edge.bench.system import FunctionSource, Source
from tlrec_edge.cli.bench_tables import show
from tlrec_edge.cli.common import out_file
from tlrec_edge.errors import DataError

_FILE = click.Path(path_type=Path)
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def counts(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Read a list of counts: 1,32,100."""
    if not value:
        return _empty(parameter, value)
    try:
        found = tuple(int(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r:.60} is no list of counts; write 1,32,100") from None
    if min(found) < 1:
        raise click.BadParameter(f"{value!r:.60}: every count must be at least 1")
    return found


def _empty(parameter: click.Parameter, value: str) -> tuple[int, ...]:
    if parameter.default == value:
        return ()
    raise click.BadParameter("the list is empty; write 1,32,100")


def rates(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Read a list of rates: 100,2000."""
    try:
        found = tuple(float(word) for word in (value or "").split(",") if value)
    except ValueError:
        raise click.BadParameter(f"{value!r:.60} is no list of rates; write 100,2000") from None
    if not all(0 < rate < float("inf") for rate in found):
        raise click.BadParameter(f"{value!r:.60}: every rate must be more than 0")
    return found


def duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Read a time, 500us, 5ms or 1s, as microseconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)", value.strip())
    if found is None or not float(found[1]):
        raise click.BadParameter(f"{value!r:.60} is no time; write 500us, 5ms or 1s")
    return float(found[1]) * _UNITS[found[2]]


def load(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Read a number of candidates, or top-k."""
    if value == "top-k":
        return TOP_K
    if not value.isdecimal() or not int(value):
        raise click.BadParameter(f"{value!r:.60}: write a number of candidates, or top-k")
    return int(value)


@click.command()
@click.argument("bundle", type=_FILE, required=False)
@click.option(
    "--scenario",
    type=click.Choice([*SCENARIOS, "all"]),
    default="all",
    show_default=True,
    help="single-stream: lists of candidates, one request after another; top-k: the whole catalogue likewise; "
    "multi-stream: several requests a query; server: Poisson arrivals; offline: throughput.",
)
@click.option(
    "--candidates",
    callback=counts,
    default=",".join(map(str, DEFAULT_CANDIDATES)),
    show_default=True,
    help="Candidates in a request; more than the bundle has are left out.",
)
@click.option("--k", type=click.IntRange(min=1), default=10, show_default=True, help="Items that top-k returns.")
@click.option("--histories", callback=counts, default="", help="Lengths of history.  [default: what the encoder reads]")
@click.option("--load", callback=load, default="100", show_default=True, metavar="N|top-k",
              help="Candidates of a request in multi-stream, server and offline, or top-k.")  # fmt: skip
@click.option("--qps", callback=rates, help="Rates of the server scenario.  [default: 10 to 90 % of its throughput]")
@click.option("--find-qps", is_flag=True, help="Search the highest rate that keeps --p99.")
@click.option("--p99", callback=duration, metavar="TIME", help="Bound of the 99th percentile: 500us, 5ms, 1s.")
@click.option("--price-per-hour", type=click.FloatRange(min=0, min_open=True), metavar="MONEY",
              help="Price of this machine: gives the cost of a million requests and scores.")  # fmt: skip
@click.option("--machines-for", type=click.FloatRange(min=0, min_open=True), metavar="QPS",
              help="Load of all machines: gives how many are needed. With --find-qps.")  # fmt: skip
@click.option("--streams", type=click.IntRange(min=1), default=8, show_default=True,
              help="Requests in one query of multi-stream.")  # fmt: skip
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True,
              help="Requests in one call of offline.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True,
              help="Threads of a process that answer in server and offline.")  # fmt: skip
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True,
              help="Processes that answer in server and offline.")  # fmt: skip
@click.option("--replay", type=_FILE,
              help='Requests to replay: JSON lines {"history": [ids], "candidates": [ids]}.')  # fmt: skip
@click.option("--sut", metavar="MODULE:FUNCTION",
              help="Measure your own system: a function of one request (.user, .candidates, .k).")  # fmt: skip
@click.option("--http", "url", metavar="URL",
              help="Measure a server: .../v2/models/NAME/infer (Open Inference Protocol), or plain JSON.")  # fmt: skip
@click.option("--items", type=click.IntRange(min=1), default=10_000, show_default=True,
              help="Ids item-0, item-1, ... that --sut and --http are asked for without BUNDLE.")  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(min=0.01), default=2.0, show_default=True, help="Time for each shape of request."
)
@click.option("--min-queries", type=click.IntRange(min=1), default=1000, show_default=True,
              help="Queries that each needs beyond that time, for five times as long at most.")  # fmt: skip
@click.option("--confidence", type=click.FloatRange(0.5, 1, max_open=True), default=0.99, show_default=True,
              help="Of the stated bounds of percentiles.")  # fmt: skip
@click.option("--driver", type=click.Choice(DRIVERS), default=DRIVERS[0], show_default=True,
              help="loadgen: MLCommons LoadGen sends the queries (extra [bench]).")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of requests and arrivals.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines instead of a table.")
@click.option("--out", type=_FILE, callback=out_file, help="File to write the JSON to as well.")
def bench(
    bundle: Path | None, scenario: str, candidates: tuple[int, ...], k: int, histories: tuple[int, ...], load: int,
    qps: tuple[float, ...], find_qps: bool, p99: float | None, price_per_hour: float | None,
    machines_for: float | None, streams: int, batch: int, threads: int, processes: int,
    replay: Path | None, sut: str | None, url: str | None, items: int, seconds: float, min_queries: int,
    confidence: float, driver: str, seed: int, as_json: bool, out: Path | None,
) -> None:  # fmt: skip
    """Measure BUNDLE here: latency, throughput, start-up, memory, bytes. MLPerf-style, unofficial.

    \b
    tlrec-edge bench BUNDLE                                     # everything
    tlrec-edge bench BUNDLE --scenario server --qps 500,2000    # Poisson arrivals, from the scheduled time
    tlrec-edge bench BUNDLE --find-qps --p99 5ms                # how many requests a second within 5 ms
    tlrec-edge bench BUNDLE --sut mine.system:answer            # your own system, the same requests
    tlrec-edge bench --http http://localhost:8000/v2/models/m/infer
    """
    if find_qps != (p99 is not None):
        raise click.UsageError("--find-qps and --p99 go together: --find-qps --p99 5ms")
    if machines_for and not find_qps:
        raise click.UsageError("--machines-for needs the rate of one machine: --find-qps --p99 5ms")
    if sut and url:
        raise click.UsageError("--sut and --http are two systems: give one")
    source: Source | None = FunctionSource(sut) if sut else HttpSource(url) if url else None
    if bundle is None and source is None:
        raise click.UsageError("give a BUNDLE, --sut or --http")
    config = BenchConfig(
        candidates=candidates, k=k, seconds=seconds, min_queries=min_queries, seed=seed, histories=histories, load=load,
        qps=qps, streams=streams, batch=batch, threads=threads, processes=processes, confidence=confidence,
        driver=driver,
    )  # fmt: skip
    names = list(SCENARIOS) if scenario == "all" else [scenario]
    if find_qps and scenario == "all":
        names = []
    result = run_bench(
        bundle, config, names, lambda line: click.echo(line, err=True),
        source=source, replay=replay, items=items, p99_us=p99, price=price_per_hour, wanted=machines_for,
    )  # fmt: skip
    found = result.to_json()
    if out is not None:
        _write(out, found)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        show(result)


def _write(path: Path, found: dict[str, Any]) -> None:
    text = json.dumps(found, ensure_ascii=False, indent=1) + "\n"
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, "utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror}; name another file") from error
