"""The command plan: the machines that a catalogue of a given size needs."""

from __future__ import annotations

from pathlib import Path

import click

from tlrec_edge.bench.baseline import read_result
from tlrec_edge.bench.machine import fingerprint
from tlrec_edge.bench.plan import FIGURES, MeasuredSize, Plan, Workload, make_plan, measure_sizes
from tlrec_edge.cli.bench_options import duration
from tlrec_edge.cli.common import Integer, Number, PathType, json_option, seed_option
from tlrec_edge.cli.format import print_table
from tlrec_edge.cli.output import say, say_json
from tlrec_edge.cli.progress import quiet_option, say_progress
from tlrec_edge.cli.synth import count


@click.command(short_help="Estimate the machines that a catalogue needs.")
@click.option("--items", type=count, required=True, help="Number of candidates: 50000, 50k or 2M.")
@click.option(
    "--dim",
    type=Integer(min=1),
    default=64,
    show_default=True,
    help="Width of the item vectors.",
)
@click.option(
    "--qps",
    type=Number(min=0, min_open=True),
    required=True,
    help="Requests per second to serve.",
)
@click.option(
    "--p99",
    callback=duration,
    required=True,
    metavar="TIME",
    help="Bound of the 99th percentile of latency: 500us, 10ms, 1s.",
)
@click.option(
    "--users",
    type=count,
    default=0,
    help="Number of users, to state the size of stored user states.  [default: 0, not stated]",
)
@click.option(
    "--price-per-hour",
    type=Number(min=0, min_open=True),
    help="Price of this machine per hour, for the cost.  [default: no cost shown]",
)
@click.option(
    "--from",
    "sources",
    type=PathType(),
    multiple=True,
    metavar="JSON",
    help="Result of `bench --load top-k --out`; repeat for three sizes.  [default: measure now]",
)
@click.option(
    "--seconds",
    type=Number(min=0.01),
    default=1.0,
    show_default=True,
    help="Seconds for each measurement.",
)
@seed_option
@quiet_option
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
    """Estimate latency, memory and the number of machines for top-10 requests.

    Measures three synthetic bundles, or reads the file of --from, and extrapolates to the size of
    the catalogue, which may be ten times the largest bundle. Measuring takes about a minute. To
    state its error, it predicts the largest bundle from the other two.
    """
    workload = Workload(items, dim, qps, p99, users)
    if sources:
        sizes = [MeasuredSize.from_result(read_result(path), str(path)) for path in sources]
    else:
        sizes = measure_sizes(items, dim, seconds, seed, say_progress)
    found = make_plan(workload, sizes, fingerprint().memory_bytes)
    if as_json:
        say_json(found.to_json() | {"price_per_hour": price_per_hour})
        return
    _show(found, price_per_hour)


def _show(plan: Plan, price: float | None) -> None:
    if plan.noisy:
        say("NOISY MACHINE during the measurement: repeat it before you rely on the result")
    workload = plan.workload
    fitted = " and ".join(f"{size:,}" for size in plan.fitted)
    rows = [
        [FIGURES[name], f"{value:,.0f}", f"{plan.errors[name]:+.1%}"]
        for name, value in plan.figures.items()
    ]
    rows += [
        [
            f"requests per second per machine ({plan.workers} workers)",
            f"{plan.qps_per_machine:,.0f}",
            "",
        ],
        ["utilisation at which p99 holds", f"{plan.utilisation:.0%}", ""],
        ["machines", f"{plan.machines:,}", f"{plan.machines_with_error:,} with that error"],
    ]
    if price is not None:
        rows.append(
            [
                "cost per hour",
                f"{plan.machines * price:,.4g}",
                f"{plan.machines_with_error * price:,.4g}",
            ]
        )
    title = (
        f"{workload.items:,} items of {workload.dim}, {workload.qps:,.0f} requests per second, "
        f"p99 {workload.p99_us / 1000:g} ms"
    )
    print_table(
        ["", "needs", f"error at {plan.validation_size:,} items, from {fitted}"], rows, title
    )
    if workload.users:
        vectors = workload.users * 4 * workload.dim / 1e9
        say(
            f"{workload.users:,} users need no memory if their histories come with the requests; "
            f"states in the bundle (export --with-users) need {vectors:.1f} GB for their vectors."
        )
