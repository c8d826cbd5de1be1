"""Command `bench`: what a bundle, or another system, costs on this machine."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tlrec_edge.bench import BenchConfig, compare_bundles, run_bench
from tlrec_edge.bench.baseline import compare_with_baseline, read_baseline
from tlrec_edge.bench.config import CACHES, DEFAULT_CANDIDATES, DRIVERS
from tlrec_edge.bench.endpoint import HttpSource
from tlrec_edge.bench.function import FunctionSource
from tlrec_edge.bench.scenarios import SCENARIOS
from tlrec_edge.bench.system import Source
from tlrec_edge.cli.bench_options import POSITIVE, counts, duration, fraction, load, rates
from tlrec_edge.cli.bench_tables import show, show_changes, show_ratios
from tlrec_edge.cli.common import out_file, speed_option
from tlrec_edge.errors import DataError, MissingExtraError, RegressionError
from tlrec_edge.report import render_bench, render_compare

_FILE = click.Path(path_type=Path)


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
@click.option(
    "--k",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Items that top-k returns.",
)
@click.option(
    "--histories",
    callback=counts,
    default="",
    help="Lengths of history.  [default: what the encoder reads]",
)
@click.option(
    "--load",
    callback=load,
    default="100",
    show_default=True,
    metavar="N|top-k",
    help="Candidates of a request in multi-stream, server and offline, or top-k.",
)
@click.option(
    "--qps",
    callback=rates,
    help="Rates of the server scenario.  [default: 10 to 90 % of its throughput]",
)
@click.option("--find-qps", is_flag=True, help="Search the highest rate that keeps --p99.")
@click.option(
    "--p99", callback=duration, metavar="TIME", help="Bound of the 99th percentile: 500us, 5ms, 1s."
)
@click.option(
    "--price-per-hour",
    type=POSITIVE,
    metavar="MONEY",
    help="Price of this machine: gives the cost of a million requests and scores.",
)
@click.option(
    "--machines-for",
    type=POSITIVE,
    metavar="QPS",
    help="Load of all machines: gives how many are needed. With --find-qps.",
)
@click.option(
    "--streams",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Requests in one query of multi-stream.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Requests in one call of offline.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads of a process that answer in server and offline.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that answer in server and offline.",
)
@click.option(
    "--replay",
    type=_FILE,
    help='Requests to replay: JSON lines {"history": [ids], "candidates": [ids]}.',
)
@click.option(
    "--sut",
    metavar="MODULE:FUNCTION",
    help="Measure your own system: a function of one request (.user, .candidates, .k).",
)
@click.option(
    "--http",
    "url",
    metavar="URL",
    help="Measure a server: .../v2/models/NAME/infer (Open Inference Protocol), or plain JSON.",
)
@click.option(
    "--items",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Ids item-0, item-1, ... that --sut and --http are asked for without BUNDLE.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.01),
    default=2.0,
    show_default=True,
    help="Time for each shape of request.",
)
@click.option(
    "--min-queries",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Queries that each needs beyond that time, for five times as long at most.",
)
@click.option(
    "--compare",
    type=(_FILE, _FILE),
    metavar="A B",
    help="Two bundles in turns, the ratio of their times with its interval; instead of BUNDLE.",
)
@click.option(
    "--against",
    type=_FILE,
    metavar="JSON",
    help="An earlier --out of this machine to hold this run against.",
)
@click.option(
    "--max-regression",
    callback=fraction,
    default="10%",
    show_default=True,
    help="How much worse than --against, or B than A of --compare, ends with exit code 1.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, max_open=True),
    default=0.99,
    show_default=True,
    help="Of the stated bounds of percentiles.",
)
@click.option(
    "--driver",
    type=click.Choice(DRIVERS),
    default=DRIVERS[0],
    show_default=True,
    help="loadgen: MLCommons LoadGen sends the queries (extra [bench]).",
)
@click.option(
    "--cache",
    type=click.Choice(CACHES),
    default=CACHES[0],
    show_default=True,
    help="cold: single-stream and top-k also with the bundle's files out of the page cache.",
)
@speed_option
@click.option(
    "--html", type=_FILE, callback=out_file, help="File to write a report to: one page, no network."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of requests and arrivals.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines instead of a table.")
@click.option("--out", type=_FILE, callback=out_file, help="File to write the JSON to as well.")
@click.pass_context
def bench(
    context: click.Context,
    bundle: Path | None,
    scenario: str,
    candidates: tuple[int, ...],
    k: int,
    histories: tuple[int, ...],
    load: int,
    qps: tuple[float, ...],
    find_qps: bool,
    p99: float | None,
    price_per_hour: float | None,
    machines_for: float | None,
    streams: int,
    batch: int,
    threads: int,
    processes: int,
    replay: Path | None,
    sut: str | None,
    url: str | None,
    items: int,
    seconds: float,
    min_queries: int,
    compare: tuple[Path, Path] | None,
    against: Path | None,
    max_regression: float,
    confidence: float,
    driver: str,
    cache: str,
    seed: int,
    html: Path | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Measure BUNDLE here: latency, throughput, start-up, memory, bytes. MLPerf-style, unofficial.

    \b
    tlrec-edge bench BUNDLE                                     # everything
    tlrec-edge bench BUNDLE --scenario server --qps 500,2000    # Poisson arrivals, from the scheduled time
    tlrec-edge bench BUNDLE --find-qps --p99 5ms                # how many requests a second within 5 ms
    tlrec-edge bench BUNDLE --sut mine.system:answer            # your own system, the same requests
    tlrec-edge bench --http http://localhost:8000/v2/models/m/infer
    tlrec-edge bench --compare OLD NEW                          # in turns: is NEW slower?
    tlrec-edge bench BUNDLE --against old.json                  # for CI: exit code 1 where it is
    """
    if find_qps != (p99 is not None):
        raise click.UsageError("--find-qps and --p99 go together: --find-qps --p99 5ms")
    if machines_for and not find_qps:
        raise click.UsageError("--machines-for needs the rate of one machine: --find-qps --p99 5ms")
    if price_per_hour and not find_qps and scenario not in ("all", "offline"):
        raise click.UsageError(
            "--price-per-hour needs a rate: --scenario offline, or --find-qps --p99 5ms"
        )
    if driver == "loadgen" and (find_qps or processes > 1):
        raise click.UsageError("--driver loadgen goes with one process and without --find-qps")
    if cache == "cold" and (sut or url or driver == "loadgen"):
        raise click.UsageError(
            "--cache cold is of a bundle's own files, by our driver: leave --sut, --http, --driver out"
        )
    if out is not None and out == html:
        raise click.UsageError("--out and --html name one file: give two")
    if sut and url:
        raise click.UsageError("--sut and --http are two systems: give one")
    source: Source | None = FunctionSource(sut) if sut else HttpSource(url) if url else None
    if (bundle is None and source is None) == (compare is None):
        raise click.UsageError("give a BUNDLE, --sut or --http, or --compare A B")
    try:
        config = BenchConfig(
            candidates=candidates,
            k=k,
            seconds=seconds,
            min_queries=min_queries,
            seed=seed,
            histories=histories,
            load=load,
            qps=qps,
            streams=streams,
            batch=batch,
            threads=threads,
            processes=processes,
            confidence=confidence,
            driver=driver,
            cache=cache,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if html is not None and find_spec("matplotlib") is None:
        raise MissingExtraError("--html", "bench")
    if compare is not None:
        _check_compare_options(context)
        _compare(compare, config, max_regression, html, as_json, out)
        return
    baseline = None if against is None else read_baseline(against)
    names = list(SCENARIOS) if scenario == "all" else [scenario]
    if find_qps and scenario == "all":
        names = []
    result = run_bench(
        bundle,
        config,
        names,
        _progress,
        source=source,
        replay=replay,
        items=items,
        p99_us=p99,
        price=price_per_hour,
        target_load=machines_for,
    )
    found = result.to_json()
    _save(found, out)  # what was measured is kept, whatever it is held against
    changes = None if baseline is None else compare_with_baseline(found, baseline, max_regression)
    if changes is not None:
        found["against"] = changes.to_json()
        _save(found, out)
    if html is not None:
        _write(html, render_bench(found))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        show(result)
        if changes is not None:
            show_changes(changes)
    _raise_on_regression(
        [
            f"{c.what}: {c.ratio:.2f} times the baseline"
            for c in (changes.regressed if changes else [])
        ]
    )


_COMPARE_READS = (
    "compare",
    "seconds",
    "load",
    "k",
    "seed",
    "max_regression",
    "speed",
    "html",
    "as_json",
    "out",
)


def _check_compare_options(context: click.Context) -> None:
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name not in _COMPARE_READS:
            raise click.UsageError(f"--compare does not read {option.opts[0]}: leave it out")


def _compare(
    paths: tuple[Path, Path],
    config: BenchConfig,
    max_regression: float,
    html: Path | None,
    as_json: bool,
    out: Path | None,
) -> None:
    ratios, noise = compare_bundles(*paths, config, _progress)
    a, b = (path.resolve().name for path in paths)
    found = {
        "a": a,
        "b": b,
        "noise": noise.to_json(),
        "compare": [ratio.to_json() for ratio in ratios],
    }
    _save(found, out)
    if html is not None:
        _write(html, render_compare(found))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        show_ratios(ratios, noise)
    _raise_on_regression(
        [
            f"{r.shape}: {r.low:.3f} times as long at least"
            for r in ratios
            if r.low > 1 + max_regression
        ]
    )


def _raise_on_regression(worse: list[str]) -> None:
    if worse:
        raise RegressionError(f"{len(worse)} above --max-regression; {'; '.join(worse)}")


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _save(found: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        _write(out, json.dumps(found, ensure_ascii=False, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror}; name another file") from error
