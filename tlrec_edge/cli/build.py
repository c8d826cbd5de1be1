"""Commands that shrink and ship: compress, export."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tlrec_edge.choices import GATES, MACHINES
from tlrec_edge.cli.common import (
    dataset_argument,
    domain_option,
    echo_table,
    json_option,
    open_dataset,
    other_data,
    out_option,
    parse_domains,
    show_progress,
)
from tlrec_edge.core.folders import check_target
from tlrec_edge.errors import BudgetError, ModelError

model_argument = click.argument("model", type=click.Path(path_type=Path))


def _open(model: Path, dataset: Path, domain: str) -> tuple[Any, Any]:
    from tlrec_edge.train.edge_model import EdgeModel

    data = open_dataset(dataset)
    target = parse_domains(domain, data.domains)
    loaded = EdgeModel.load(model)
    loaded.check_split(data)
    if other := other_data(model, loaded.provenance.dataset_sha256, data):
        raise ModelError(f"{other}: adapt one to this dataset")
    if (own := loaded.provenance.domains) != target:
        raise ModelError(
            f"{model} was adapted to {', '.join(own)}, not to {domain}: adapt one to {domain}"
        )
    return loaded, data


def _parse_with(
    parse: Callable[[str], Any],
) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def read(context: click.Context, option: click.Parameter, given: str | None) -> Any:
        try:
            return None if given is None else parse(given)
        except ValueError as error:
            raise click.BadParameter(str(error), param=option) from error

    return read


def _budget(text: str) -> Any:
    from tlrec_edge.quantize.budget import Budget

    return Budget.parse(text)


def _target(text: str) -> Any:
    from tlrec_edge.quantize.budget import Target

    return Target.parse(text)


def _size(text: str) -> Any:
    from tlrec_edge.quantize.budget import parse_bytes

    return parse_bytes(text)


@click.command()
@model_argument
@dataset_argument
@domain_option
@out_option
@click.option(
    "--budget",
    callback=_parse_with(_budget),
    default="ndcg@10>=99.5%",
    show_default=True,
    help="What must stay on the validation rows (ndcg, hr or mrr), by the lower end of a 95 % interval.",
)
@click.option(
    "--target",
    callback=_parse_with(_target),
    metavar="P<=T",
    help="Latency of a request, as p99<=1ms.",
)
@click.option(
    "--max-bytes", callback=_parse_with(_size), metavar="SIZE", help="Bytes of the bundle, as 5MB."
)
@click.option(
    "--for",
    "machine",
    type=click.Choice(MACHINES),
    default="this",
    show_default=True,
    help="Where it will run; latency is measured for this machine alone.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="When they are over no other cut is tried.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="CUT",
    help="Of the cuts try this one alone, as 'width 1/2'; repeatable.  [default: all]",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the recovery."
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Folder to keep cut models in; the same command goes on.",
)
@json_option
def compress(
    model: Path,
    dataset: Path,
    domain: str,
    out: Path,
    budget: Any,
    target: Any,
    max_bytes: int | None,
    machine: str,
    minutes: float,
    only: tuple[str, ...],
    seed: int,
    checkpoint: Path | None,
    as_json: bool,
) -> None:
    """Cut and quantize MODEL: the smallest that keeps the budget, and of every other why not.

    Cuts of the structure are recovered by distillation, tables and weights stored in fewer bits. Every point is judged
    on the validation rows, paired with MODEL, and timed beside it as a bundle.
    """
    from dataclasses import asdict
    from functools import partial

    from tlrec_edge.bench.machine import fingerprint
    from tlrec_edge.export.cost import measure_costs
    from tlrec_edge.quantize import CompressConfig
    from tlrec_edge.quantize import compress as run
    from tlrec_edge.train.edge_model import MODEL

    check_target(out, MODEL)
    if checkpoint is not None and out.resolve() in (
        checkpoint.resolve(),
        *checkpoint.resolve().parents,
    ):
        raise click.UsageError("--checkpoint must lie outside --out")
    if out.resolve() == model.resolve():
        raise click.UsageError(
            "--out is MODEL itself, which the search compares with: choose another folder"
        )
    try:
        config = CompressConfig(
            budget, target, max_bytes, machine, minutes, seed=seed, only=only or None
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    loaded, data = _open(model, dataset, domain)

    measure_costs, here = partial(measure_costs, dataset=data), asdict(fingerprint())
    try:
        with show_progress("compress") as progress:
            result = run(
                loaded,
                data,
                config,
                progress,
                measure_costs=measure_costs,
                checkpoint=checkpoint,
                about_machine=here,
            )
    except BudgetError as error:
        if as_json:
            click.echo(
                json.dumps(
                    {"out": None, "budget": str(budget), "points": error.points, "test": None}
                )
            )
        elif error.points:
            _echo_points(error.points, budget, "nothing chosen")
        raise
    except KeyboardInterrupt:
        if checkpoint is not None:
            click.echo(
                f"stopped: what is done lies in {checkpoint}; the same command goes on", err=True
            )
        raise
    result.model.save(out)
    points = [point.to_json() for point in result.points]
    test = result.model.provenance.compression["test"]
    if as_json:
        click.echo(
            json.dumps({"out": str(out), "budget": str(budget), "points": points, "test": test})
        )
        return
    _echo_points(points, budget, str(out))
    click.echo(
        f"on the test rows, looked at once: {_figure(test['ratio'])} (SE {_figure(test['se'])}) of {budget.name}"
    )


def _echo_points(points: Sequence[Mapping[str, Any]], budget: Any, title: str) -> None:
    rows = [
        [
            p["step"],
            _figure(p["value"]),
            f"{_figure(p['ratio'])} ({_figure(p['se'])})",
            f"{'' if p['us'] else '~'}{p['bytes']:,}" if p["bytes"] else "-",
            f"{p['us']['p50']:.0f} / {p['us']['p99']:.0f}" if p["us"] else "-",
            "chosen" if p["kept"] else "front" if p["front"] else "",
            p["why"],
        ]
        for p in points
    ]
    headers = [
        "point",
        f"validation {budget.name}",
        "ratio (SE)",
        "bytes",
        "p50 / p99 us",
        "",
        "why",
    ]
    echo_table(headers, rows, title)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@click.command()
@model_argument
@dataset_argument
@domain_option
@out_option
@click.option(
    "--with-users",
    is_flag=True,
    help="Store the states of known users under keyed hashes of their ids.",
)
@click.option(
    "--plain-user-ids", is_flag=True, help="With --with-users: store the ids as they are."
)
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(GATES),
    help="Export in spite of this gate; the manifest says so. Repeatable.",
)
@click.option(
    "--cards/--no-cards",
    default=True,
    show_default=True,
    help="Measure quality and transfer on the test rows for the cards.",
)
@json_option
def export(
    model: Path,
    dataset: Path,
    domain: str,
    out: Path,
    with_users: bool,
    plain_user_ids: bool,
    cards: bool,
    allow: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write MODEL as a bundle: graphs, tables, cards; refused where a gate finds it is not what it should be.

    Gates: parity with the trained model; the same bits in a batch and in any order; unknown ids; no graph of a slow
    shape; the quality budget; not slower than the original; no transfer claimed that is not shown.
    """
    from dataclasses import asdict

    from tlrec_edge.bundle.writer import BUNDLE
    from tlrec_edge.evaluation.cards import measure_cards
    from tlrec_edge.export import ExportConfig, export_bundle

    if plain_user_ids and not with_users:
        raise click.UsageError("--plain-user-ids goes with --with-users")
    check_target(out, BUNDLE)
    loaded, data = _open(model, dataset, domain)
    kind = ("plain" if plain_user_ids else "hashed") if with_users else None
    with show_progress("export") as progress:
        measured = measure_cards(loaded, data, progress) if cards else {}
        progress("graphs and gates")
        parity = export_bundle(loaded, data, out, ExportConfig(kind, allow=allow), measured)
    size = sum(file.stat().st_size for file in out.iterdir())
    transfer = measured.get("transfer", {"claim": "none", "why": "not measured"})
    if as_json:
        click.echo(
            json.dumps(
                {"out": str(out), "bytes": size, "parity": asdict(parity), "transfer": transfer}
            )
        )
        return
    click.echo(f"{out}: {size:,} bytes")
    click.echo(
        f"float path within {parity.max_error:.1e} of torch, top-10 overlap {parity.top10_overlap:.3f}"
    )
    if parity.exact_max_error is not None:
        click.echo(
            f"exact path within {parity.exact_max_error:.1e} of the float path (bound {parity.exact_bound:.1e})"
        )
    measured_claim = (
        f"{transfer['ndcg@10']:+.4f} NDCG@10 (SE {transfer['se']:.4f}) over {transfer['over']}"
        if transfer["claim"] != "none"
        else transfer["why"]
    )
    click.echo(f"transfer claim: {transfer['claim']} ({measured_claim})")
