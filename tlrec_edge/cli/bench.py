"""The command bench: what a bundle, or another system, costs on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

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
from tlrec_edge.cli.common import (
    Integer,
    Number,
    PathType,
    SectionedCommand,
    json_option,
    out_file,
    seed_option,
    speed_option,
)
from tlrec_edge.cli.output import say_json
from tlrec_edge.cli.progress import quiet_option, say_progress
from tlrec_edge.core.files import write_text
from tlrec_edge.errors import MissingExtraError, RegressionError
from tlrec_edge.report import render_bench, render_compare

_FILE = PathType()


_SECTIONS = {
    "What is measured": ("scenario", "sut", "url", "compare"),
    "Requests": ("candidates", "k", "histories", "replay", "items"),
    "Load (multi-stream, server, offline)": (
        *("load", "qps", "streams", "batch", "threads", "processes"),
    ),
    "Capacity and cost": ("find_qps", "p99", "price_per_hour", "machines_for"),
    "Regression check": ("against", "max_regression"),
    "Measurement": ("seconds", "min_queries", "confidence", "driver", "cache", "seed"),
    "Output": ("as_json", "out", "html"),
}


@click.command(
    cls=SectionedCommand,
    sections=_SECTIONS,
    short_help="Measure latency, throughput, start-up and memory.",
)
@click.argument("bundle", type=_FILE, required=False)
@click.option(
    "--scenario",
    type=click.Choice([*SCENARIOS, "all"]),
    default="all",
    show_default=True,
    help="single-stream: lists of candidates, one request after another; top-k: the same for the "
    "whole catalogue; multi-stream: several requests per query; server: Poisson arrivals; offline: "
    "throughput.",
)
@click.option(
    "--candidates",
    callback=counts,
    default=",".join(map(str, DEFAULT_CANDIDATES)),
    show_default=True,
    help="Numbers of candidates in a request; numbers above the size of the catalogue are skipped.",
)
@click.option(
    "--k",
    type=Integer(min=1),
    default=10,
    show_default=True,
    help="Number of items that top-k returns.",
)
@click.option(
    "--histories",
    callback=counts,
    default="",
    help="Lengths of histories, such as 5,50.  [default: the length that the encoder reads]",
)
@click.option(
    "--load",
    callback=load,
    default="100",
    show_default=True,
    metavar="N|top-k",
    help="Number of candidates in a request, or top-k for the whole catalogue.",
)
@click.option(
    "--qps",
    callback=rates,
    help="Arrival rates of the server scenario in requests per second, such as 500,2000.  "
    "[default: 10 to 90 % of the throughput]",
)
@click.option("--find-qps", is_flag=True, help="Find the highest arrival rate that keeps --p99.")
@click.option(
    "--p99",
    callback=duration,
    metavar="TIME",
    help="Bound of the 99th percentile of latency: 500us, 5ms, 1s.",
)
@click.option(
    "--price-per-hour",
    type=POSITIVE,
    metavar="MONEY",
    help="Price of this machine per hour, for the cost of a million requests and scores.",
)
@click.option(
    "--machines-for",
    type=POSITIVE,
    metavar="QPS",
    help="Requests per second to serve, for the number of machines; needs --find-qps.",
)
@click.option(
    "--streams",
    type=Integer(min=1),
    default=8,
    show_default=True,
    help="Requests per query in multi-stream.",
)
@click.option(
    "--batch",
    type=Integer(min=1),
    default=32,
    show_default=True,
    help="Requests per call in offline.",
)
@click.option(
    "--threads",
    type=Integer(min=1),
    default=1,
    show_default=True,
    help="Threads per process in server and offline.",
)
@click.option(
    "--processes",
    type=Integer(min=1),
    default=1,
    show_default=True,
    help="Processes in server and offline.",
)
@click.option(
    "--replay",
    type=_FILE,
    help='Requests to replay, JSON lines {"history": [ids], "candidates": [ids]}.  '
    "[default: random requests]",
)
@click.option(
    "--sut",
    metavar="MODULE:FUNCTION",
    help="Measure your own system: a function of a request with .user, .candidates and .k.",
)
@click.option(
    "--http",
    "url",
    metavar="URL",
    help="Measure a server: a URL that ends in /infer (Open Inference Protocol), or plain JSON.",
)
@click.option(
    "--items",
    type=Integer(min=1),
    default=10_000,
    show_default=True,
    help="Number of ids item-0, item-1, ... in requests to --sut and --http without BUNDLE.",
)
@click.option(
    "--seconds",
    type=Number(min=0.01),
    default=2.0,
    show_default=True,
    help="Seconds for each kind of request.",
)
@click.option(
    "--min-queries",
    type=Integer(min=1),
    default=1000,
    show_default=True,
    help="Smallest number of queries for each kind, within five times --seconds.",
)
@click.option(
    "--compare",
    type=(_FILE, _FILE),
    metavar="A B",
    help="Time two bundles in turns, for the ratio of their times; instead of BUNDLE.",
)
@click.option(
    "--against",
    type=_FILE,
    metavar="JSON",
    help="Earlier result of --out on this machine, to compare this run with.",
)
@click.option(
    "--max-regression",
    callback=fraction,
    default="10%",
    show_default=True,
    help="Exit with 1 if a figure of --against, or B of --compare, is worse by more than this.",
)
@click.option(
    "--confidence",
    type=Number(0.5, 1, max_open=True),
    default=0.99,
    show_default=True,
    help="Confidence of the bounds of percentiles.",
)
@click.option(
    "--driver",
    type=click.Choice(DRIVERS),
    default=DRIVERS[0],
    show_default=True,
    help="Load generator; loadgen is MLCommons LoadGen (extra [bench]).",
)
@click.option(
    "--cache",
    type=click.Choice(CACHES),
    default=CACHES[0],
    show_default=True,
    help="cold also measures single-stream and top-k with the bundle read from disk.",
)
@speed_option
@click.option(
    "--html",
    type=_FILE,
    callback=out_file,
    help="HTML file for a report.  [default: none]",
)
@seed_option
@quiet_option
@json_option
@click.option(
    "--out", type=_FILE, callback=out_file, help="JSON file for the results.  [default: none]"
)
@click.pass_context
def bench(
    context: click.Context,
    /,
    bundle: Path | None,
    scenario: str,
    find_qps: bool,
    p99: float | None,
    price_per_hour: float | None,
    machines_for: float | None,
    replay: Path | None,
    sut: str | None,
    url: str | None,
    items: int,
    compare: tuple[Path, Path] | None,
    against: Path | None,
    max_regression: float,
    html: Path | None,
    as_json: bool,
    out: Path | None,
    **settings: Any,
) -> None:
    """Measure latency, throughput, start-up, memory and size of BUNDLE, as in MLPerf (unofficial).

    \b
    tlrec-edge bench BUNDLE                                    # everything
    tlrec-edge bench BUNDLE --scenario server --qps 500,2000   # Poisson arrivals
    tlrec-edge bench BUNDLE --find-qps --p99 5ms               # requests per second within 5 ms
    tlrec-edge bench BUNDLE --sut mine.system:answer           # your own system, same requests
    tlrec-edge bench --http http://localhost:8000/v2/models/m/infer
    tlrec-edge bench --compare OLD NEW                         # is NEW slower than OLD?
    tlrec-edge bench BUNDLE --against old.json                 # for CI: exit code 1 if slower
    """
    # ``settings`` are the fields of BenchConfig; their options have the same names.
    output = _Output(out, html, as_json)
    _check_usage(context)
    source: Source | None = FunctionSource(sut) if sut else HttpSource(url) if url else None
    if (bundle is None and source is None) == (compare is None):
        raise click.UsageError("pass a BUNDLE, --sut or --http, or --compare A B")
    try:
        config = BenchConfig(**settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if html is not None and find_spec("matplotlib") is None:
        raise MissingExtraError("--html", "bench")
    if compare is not None:
        _check_compare_options(context)
        _compare(compare, config, max_regression, output)
        return
    baseline = None if against is None else read_baseline(against)
    scenarios = [scenario]
    if scenario == "all":
        scenarios = [] if find_qps else list(SCENARIOS)
    result = run_bench(
        bundle,
        config,
        scenarios,
        say_progress,
        source=source,
        replay=replay,
        items=items,
        p99_us=p99,
        price=price_per_hour,
        target_load=machines_for,
    )
    report = result.to_json()
    output.save(report)  # before the comparison, which may fail
    changes = None if baseline is None else compare_with_baseline(report, baseline, max_regression)
    if changes is not None:
        report["against"] = changes.to_json()
        output.save(report)
    output.write_page(report, render_bench)
    if as_json:
        say_json(report)
    else:
        show(result)
        if changes is not None:
            show_changes(changes)
    regressed = changes.regressed if changes else []
    _raise_on_regression([f"{c.what}: {c.ratio:.2f} times the baseline" for c in regressed])


class _Output(NamedTuple):
    """The destinations of the results: a JSON file, an HTML page, JSON on stdout."""

    out: Path | None
    html: Path | None
    as_json: bool

    def save(self, report: dict[str, Any]) -> None:
        """Write the JSON file if it is wanted."""
        if self.out is not None:
            write_text(self.out, json.dumps(report, ensure_ascii=False, indent=1) + "\n")

    def write_page(self, report: dict[str, Any], render: Callable[[dict[str, Any]], str]) -> None:
        """Write the HTML page if it is wanted."""
        if self.html is not None:
            write_text(self.html, render(report))


def _check_usage(context: click.Context) -> None:
    """Raise UsageError if options contradict each other."""
    given = context.params
    find_qps, driver = given["find_qps"], given["driver"]
    if find_qps != (given["p99"] is not None):
        raise click.UsageError("--find-qps and --p99 need each other: --find-qps --p99 5ms")
    if given["machines_for"] and not find_qps:
        raise click.UsageError("--machines-for needs the rate of one machine: --find-qps --p99 5ms")
    has_rate = find_qps or given["scenario"] in ("all", "offline")
    if given["price_per_hour"] and not has_rate:
        raise click.UsageError(
            "--price-per-hour needs a rate: --scenario offline, or --find-qps --p99 5ms"
        )
    if driver == "loadgen" and (find_qps or given["processes"] > 1):
        raise click.UsageError("--driver loadgen needs one process and no --find-qps")
    if given["cache"] == "cold" and (given["sut"] or given["url"] or driver == "loadgen"):
        raise click.UsageError(
            "--cache cold measures the files of a bundle: omit --sut, --http and --driver loadgen"
        )
    if given["out"] is not None and given["out"] == given["html"]:
        raise click.UsageError("--out and --html are the same file: pass two")
    if given["sut"] and given["url"]:
        raise click.UsageError("--sut and --http are two systems: pass one")


_COMPARE_USES = (
    *("compare", "seconds", "load", "k", "seed", "max_regression", "speed"),
    *("html", "as_json", "out"),
)


def _check_compare_options(context: click.Context) -> None:
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name not in _COMPARE_USES:
            raise click.UsageError(f"--compare does not use {option.opts[0]}: omit it")


def _compare(
    paths: tuple[Path, Path], config: BenchConfig, max_regression: float, output: _Output
) -> None:
    ratios, noise = compare_bundles(*paths, config, say_progress)
    a, b = (path.resolve().name for path in paths)
    compared = [ratio.to_json() for ratio in ratios]
    report = {"a": a, "b": b, "noise": noise.to_json(), "compare": compared}
    output.save(report)
    output.write_page(report, render_compare)
    if output.as_json:
        say_json(report)
    else:
        show_ratios(ratios, noise)
    slower = [r for r in ratios if r.low > 1 + max_regression]
    _raise_on_regression([f"{r.shape}: at least {r.low:.3f} times as long" for r in slower])


def _raise_on_regression(worse: list[str]) -> None:
    if worse:
        raise RegressionError(f"{len(worse)} above --max-regression: {'; '.join(worse)}")
