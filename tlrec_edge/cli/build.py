"""Commands that shrink and ship: compress, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tlrec_edge.cli.common import (
    dataset_argument,
    domain_option,
    echo_table,
    json_option,
    open_dataset,
    other_data,
    out_option,
    parse_domains,
    progress,
)
from tlrec_edge.errors import ModelError

model_argument = click.argument("model", type=click.Path(path_type=Path))


def _open(model: Path, dataset: Path, domain: str) -> tuple[Any, Any]:
    from tlrec_edge.train.artifact import EdgeModel

    data = open_dataset(dataset)
    target = parse_domains(domain, data.domains)
    loaded = EdgeModel.load(model)
    loaded.check_split(data)
    if other := other_data(model, loaded.about, data):
        raise ModelError(f"{other}: adapt one to this dataset")
    if tuple(loaded.about["domains"]) != target:
        raise ModelError(
            f"{model} was adapted to {', '.join(loaded.about['domains'])}, not to {domain}: adapt one to {domain}"
        )
    return loaded, data


@click.command()
@model_argument
@dataset_argument
@domain_option
@out_option
@click.option(
    "--budget",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.995,
    show_default=True,
    help="Share of validation NDCG@10 that must stay.",
)
@click.option(
    "--keep",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Share of feed-forward units that stay.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the recovery.")
@json_option
def compress(
    model: Path, dataset: Path, domain: str, out: Path, budget: float, keep: float, seed: int, as_json: bool
) -> None:
    """Prune the encoder of MODEL and quantize its tables, keeping each step that stays in the budget."""
    from tlrec_edge.quantize import CompressConfig
    from tlrec_edge.quantize import compress as run
    from tlrec_edge.train.artifact import check_target

    check_target(out)
    loaded, data = _open(model, dataset, domain)
    with progress("compress") as say:
        result = run(loaded, data, CompressConfig(budget, keep, seed=seed), say)
    result.model.save(out)
    steps = [step.to_json() for step in result.steps]
    if as_json:
        click.echo(json.dumps({"out": str(out), "steps": steps}))
        return
    rows = [
        [
            s["step"],
            _figure(s["ndcg@10"]),
            f"{_figure(s['ratio'])} ({_figure(s['se'])})",
            f"{s['bytes']:,}",
            "kept" if s["kept"] else "left out",
            s["why"],
        ]
        for s in steps
    ]
    echo_table(["step", "validation NDCG@10", "ratio (SE)", "bytes", "", "why"], rows, f"{out}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@click.command()
@model_argument
@dataset_argument
@domain_option
@out_option
@click.option("--with-users", is_flag=True, help="Store the states of known users under keyed hashes of their ids.")
@click.option("--plain-user-ids", is_flag=True, help="With --with-users: store the ids as they are.")
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
    as_json: bool,
) -> None:
    """Write MODEL as a bundle: graphs, tables, cards; refused where its scores are not the model's."""
    from dataclasses import asdict

    from tlrec_edge.export import ExportConfig, check_target, export_bundle
    from tlrec_edge.train.cards import measure_cards

    if plain_user_ids and not with_users:
        raise click.UsageError("--plain-user-ids goes with --with-users")
    check_target(out)
    loaded, data = _open(model, dataset, domain)
    kind = ("plain" if plain_user_ids else "hashed") if with_users else None
    with progress("export") as say:
        measured = measure_cards(loaded, data, say) if cards else {}
        say("graphs and parity")
        parity = export_bundle(loaded, data, out, ExportConfig(kind), measured)
    size = sum(file.stat().st_size for file in out.iterdir())
    transfer = measured.get("transfer", {"claim": "none", "why": "not measured"})
    if as_json:
        click.echo(json.dumps({"out": str(out), "bytes": size, "parity": asdict(parity), "transfer": transfer}))
        return
    click.echo(f"{out}: {size:,} bytes")
    click.echo(f"float path within {parity.max_error:.1e} of torch, top-10 overlap {parity.top10_overlap:.3f}")
    if parity.exact_max_error is not None:
        click.echo(f"exact path within {parity.exact_max_error:.1e} of the float path (bound {parity.exact_bound:.1e})")
    said = (
        f"{transfer['ndcg@10']:+.4f} NDCG@10 (SE {transfer['se']:.4f}) over {transfer['over']}"
        if transfer["claim"] != "none"
        else transfer["why"]
    )
    click.echo(f"transfer claim: {transfer['claim']} ({said})")
