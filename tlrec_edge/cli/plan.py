"""Command `plan`: what a shop of a given size needs of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tlrec_edge.bench.baseline import read_result
from tlrec_edge.bench.machine import fingerprint
from tlrec_edge.bench.plan import FIGURES, MeasuredSize, Plan, Workload, make_plan, measure_sizes
from tlrec_edge.cli.bench_options import duration
from tlrec_edge.cli.common import echo_table, json_option
from tlrec_edge.cli.synth import count


@click.command()
@click.option(
    "--items", type=count, required=True, help="Candidates of the catalogue: 50000, 50k or 2M."
)
@click.option(
    "--dim",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Width of the deep vectors.",
)
@click.option(
    "--qps",
    type=click.FloatRange(min=0, min_open=True),
    required=True,
    help="Requests a second to serve.",
)
@click.option(
    "--p99",
    callback=duration,
    required=True,
    metavar="TIME",
    help="Bound of the 99th percentile: 10ms.",
)
@click.option(
    "--users", type=count, default=0, help="Users; their histories come with the requests."
)
@click.option(
    "--price-per-hour", type=click.FloatRange(min=0, min_open=True), help="Price of this machine."
)
@click.option(
    "--from",
    "sources",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="JSON",
    help="A result of `bench --load top-k --out`; give three sizes.  [default: measure now]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.01),
    default=1.0,
    show_default=True,
    help="Time for each measurement.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of bundles and requests.",
)
@json_option
def plan(
    items: int,
    dim: int,
    qps: float,
    p99: float,
    users: int,
    price_per_hour: float | None,
    sources: tuple[Path, ...],
    seconds: float,
    seed: int,
    as_json: bool,
) -> None:
    """Say what top-10 requests of a catalogue need: latency, memory, machines like this one, and how sure that is.

    Measures three synthetic bundles, small enough to take a minute, or reads --from, and extrapolates. The error is
    that at the largest of the three, predicted from the others. What cannot be known is refused.
    """
    workload = Workload(items, dim, qps, p99, users)
    if sources:
        sizes = [MeasuredSize.from_result(read_result(path), str(path)) for path in sources]
    else:
        sizes = measure_sizes(items, dim, seconds, seed, lambda line: click.echo(line, err=True))
    found = make_plan(workload, sizes, fingerprint().memory_bytes)
    if as_json:
        click.echo(json.dumps(found.to_json() | {"price_per_hour": price_per_hour}))
        return
    _show(found, price_per_hour)


def _show(plan: Plan, price: float | None) -> None:
    if plan.noisy:
        click.echo("NOISY MACHINE while this was measured; repeat before you rely on it")
    workload = plan.workload
    fitted = " and ".join(f"{size:,}" for size in plan.fitted)
    rows = [
        [FIGURES[name], f"{value:,.0f}", f"{plan.errors[name]:+.1%}"]
        for name, value in plan.figures.items()
    ]
    rows += [
        [
            f"requests a second of a machine ({plan.workers} workers)",
            f"{plan.qps_per_machine:,.0f}",
            "",
        ],
        ["share of its capacity at which p99 holds", f"{plan.utilisation:.0%}", ""],
        ["machines", f"{plan.machines:,}", f"{plan.machines_with_error:,} with that error"],
    ]
    if price is not None:
        rows.append(
            [
                "cost an hour",
                f"{plan.machines * price:,.4g}",
                f"{plan.machines_with_error * price:,.4g}",
            ]
        )
    title = (
        f"{workload.items:,} items of {workload.dim}, {workload.qps:,.0f} requests a second, "
        f"p99 {workload.p99_us / 1000:g} ms"
    )
    echo_table(
        ["", "needs", f"error at {plan.validation_size:,} items, from {fitted}"], rows, title
    )
    if workload.users:
        vectors = workload.users * 4 * workload.dim / 1e9
        click.echo(
            f"{workload.users:,} users take no memory while their histories come with the requests; states stored "
            f"in the bundle (export --with-users) would take {vectors:.1f} GB for their deep vectors alone."
        )
