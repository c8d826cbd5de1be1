"""The commands compress and export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from tlrec_edge.choices import GATES, MACHINES
from tlrec_edge.cli.common import (
    Minutes,
    Number,
    PathType,
    cache_option,
    check_checkpoint,
    dataset_argument,
    domain_option,
    json_option,
    key_in_file,
    open_dataset,
    other_data_note,
    out_option,
    parse_domains,
    seed_option,
)
from tlrec_edge.cli.format import figure
from tlrec_edge.cli.output import say, say_json
from tlrec_edge.cli.points_table import print_points
from tlrec_edge.cli.progress import quiet_option, show_progress
from tlrec_edge.core.folders import check_target
from tlrec_edge.errors import BudgetError, ModelError

model_argument = click.argument("model", type=PathType())


def _open(
    model: Path, dataset: Path, domain: str | None, cache: bool, before_refit: bool = False
) -> tuple[Any, Any]:
    from tlrec_edge.train.edge_model import EdgeModel

    data = open_dataset(dataset, cache)
    target = None if domain is None else parse_domains(domain, data.domains)
    loaded = EdgeModel.load(model, before_refit)
    loaded.check_split(data)
    if note := other_data_note(model, loaded.provenance.dataset_sha256, data):
        raise ModelError(f"{note}: adapt a model to this dataset")
    if (domains := loaded.provenance.domains) != target and target is not None:
        adapted = ", ".join(domains)
        raise ModelError(
            f"{model} was adapted to {adapted}, not to {domain}: adapt a model to {domain}"
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


def _max_bytes(text: str) -> Any:
    from tlrec_edge.quantize.budget import parse_bytes

    return parse_bytes(text)


def _warn_renamed(
    context: click.Context, option: click.Parameter, given: float | None
) -> float | None:
    if given is not None:
        say(f"{option.opts[0]} is now --time-budget; the old name goes in 0.3", err=True)
    return given


@click.command(short_help="Find the smallest model within a quality budget.")
@model_argument
@dataset_argument
@domain_option
@out_option
@click.option(
    "--budget",
    callback=_parse_with(_budget),
    default="ndcg@10>=99.5%",
    show_default=True,
    help="Share of ndcg, hr or mrr on the validation rows that must remain, at the lower end of "
    "its 95 % interval.",
)
@click.option(
    "--target",
    callback=_parse_with(_target),
    metavar="P<=T",
    help="Largest latency of a request, such as p99<=1ms.  [default: no bound]",
)
@click.option(
    "--max-bytes",
    callback=_parse_with(_max_bytes),
    metavar="SIZE",
    help="Largest size of the bundle, such as 5MB.  [default: no bound]",
)
@click.option(
    "--for",
    "machine",
    type=click.Choice(MACHINES),
    default="this",
    show_default=True,
    help="Processor that will serve the bundle; latency is only measured for 'this'.",
)
@click.option(
    "--time-budget",
    "minutes",
    type=Minutes(),
    default="10m",
    show_default=True,
    metavar="TIME",
    help="Time to return the best found by then: 90s, 2m, 1h or a number of minutes. What is left "
    "out depends on the speed of the machine.",
)
@click.option(
    "--minutes",
    "old_minutes",
    type=Number(0, min_open=True),
    hidden=True,
    callback=_warn_renamed,
    help="Old name.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="STEP",
    help="Try only this pruning step, such as 'width 1/2'; repeatable.  [default: all]",
)
@click.option(
    "--all", "show_all", is_flag=True, help="Show all models in the table, not the best alone."
)
@seed_option
@click.option(
    "--checkpoint",
    type=PathType(),
    help="Folder to save pruned models in; the same command then resumes.  [default: none]",
)
@cache_option
@quiet_option
@json_option
def compress(
    model: Path,
    dataset: Path,
    domain: str | None,
    out: Path,
    budget: Any,
    target: Any,
    max_bytes: int | None,
    machine: str,
    minutes: float,
    old_minutes: float | None,
    only: tuple[str, ...],
    show_all: bool,
    seed: int,
    checkpoint: Path | None,
    cache: bool,
    as_json: bool,
) -> None:
    """Prune and quantize MODEL: find the smallest model within the budget.

    Pruned models are distilled from MODEL; tables and weights are stored in fewer bits. Every
    smaller model is compared with its original on the validation rows, and the smallest ones are
    timed as bundles. The original is MODEL before it was fitted again with these rows; what the
    search chooses is then done to MODEL. The table shows the front (models that no other
    beats in size, latency and quality) and the nearest misses, and why each was not chosen.
    """
    from tlrec_edge import pipeline
    from tlrec_edge.quantize import CompressConfig
    from tlrec_edge.train.edge_model import MODEL

    check_target(out, MODEL)
    check_checkpoint(out, checkpoint)
    if out.resolve() == model.resolve():
        raise click.UsageError("--out is MODEL itself: choose another folder")
    try:
        config = CompressConfig(
            budget,
            target,
            max_bytes,
            machine,
            minutes if old_minutes is None else old_minutes,
            seed=seed,
            only=only or None,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    loaded, data = _open(model, dataset, domain, cache, before_refit=True)
    try:
        with show_progress("compress") as progress:
            result = pipeline.compress(
                loaded, data, config, progress=progress, checkpoint=checkpoint
            )
    except BudgetError as error:
        if as_json:
            rejected = {"out": None, "budget": str(budget), "points": error.points, "test": None}
            say_json(rejected)
        elif error.points:
            print_points(error.points, budget, "nothing chosen", show_all)
        raise
    result.model.save(out)
    points = [point.to_json() for point in result.points]
    card = result.model.provenance.compression
    test, judged_on = card["test"], result.judged_on
    if as_json:
        report = {"out": str(out), "budget": str(budget), "points": points, "test": test}
        say_json(report | {"judged_on": judged_on})
        return
    print_points(points, budget, str(out), show_all)
    say(f"points: {judged_on}")
    sizes = f"about {card['bytes']:,} bytes, that of the original {card['original_bytes']:,}"
    say(f"{out}: a bundle of it has {sizes}")
    kept = f"{figure(test['ratio'])} (SE {figure(test['se'])})"
    say(f"test rows, evaluated once: {kept} of {budget.name}")
    if left_out := card["left_out"]:
        say(f"left out by --time-budget: {'; '.join(left_out)}")


@click.command(short_help="Write a model as a bundle.")
@model_argument
@dataset_argument
@domain_option
@out_option
@click.option(
    "--with-users",
    is_flag=True,
    help="Store the states of the target's users, under keyed hashes of their ids (pseudonyms).",
)
@click.option(
    "--all-users",
    is_flag=True,
    help="With --with-users: also store users who are known from other domains only.",
)
@click.option("--plain-user-ids", is_flag=True, help="With --with-users: store the ids themselves.")
@click.option(
    "--user-key-file",
    "user_key",
    type=PathType(),
    callback=key_in_file,
    help="With --with-users: file with the key of the hashes, 32 to 128 hexadecimal digits. The "
    "bundle does not hold it.  [default: a random key, in the manifest]",
)
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(GATES),
    help="Export even if this gate fails; the manifest records it. Repeatable.",
)
@click.option(
    "--cards/--no-cards",
    default=True,
    show_default=True,
    help="Measure quality and transfer on the test rows, for the manifest.",
)
@cache_option
@quiet_option
@json_option
def export(
    model: Path,
    dataset: Path,
    domain: str | None,
    out: Path,
    with_users: bool,
    all_users: bool,
    plain_user_ids: bool,
    user_key: str | None,
    cards: bool,
    allow: tuple[str, ...],
    cache: bool,
    as_json: bool,
) -> None:
    """Write MODEL as a bundle: graphs, tables and cards.

    The bundle is written only if it passes every gate: its scores equal the trained model's
    (parity); a score has the same bits alone, in a batch and in any order (batch, order; not
    checked if the tables are float32, as those of a model that was not compressed); unknown
    ids are scored by policy (unknown); the graphs have only fast operators (graph); a compressed
    model keeps its budget (quality) and is not slower than the original (speed); a claim of
    transfer rests on a significant gain (transfer).
    """
    from dataclasses import asdict

    from tlrec_edge import pipeline
    from tlrec_edge.bundle.reader import Bundle
    from tlrec_edge.bundle.writer import BUNDLE
    from tlrec_edge.export import ExportConfig

    for option, given in (("--plain-user-ids", plain_user_ids), ("--all-users", all_users)):
        if given and not with_users:
            raise click.UsageError(f"{option} needs --with-users")
    if user_key is not None and (plain_user_ids or not with_users):
        raise click.UsageError("--user-key-file needs --with-users without --plain-user-ids")
    check_target(out, BUNDLE)
    loaded, data = _open(model, dataset, domain, cache)
    kind = ("plain" if plain_user_ids else "hashed") if with_users else None
    with show_progress("export") as progress:
        config = ExportConfig(kind, all_users=all_users, user_key=user_key, allow=allow)
        parity = pipeline.export(loaded, data, out, config, cards=cards, progress=progress)
    size = sum(file.stat().st_size for file in out.iterdir())
    written = Bundle.open(out, verify="none")
    gates, transfer = written.manifest["gates"], written.manifest["transfer"]
    content_id = written.content_id
    if as_json:
        report = {"out": str(out), "bytes": size, "content_id": content_id}
        report |= {"parity": asdict(parity), "gates": gates, "transfer": transfer}
        say_json(report)
        return
    say(f"{out}: {size:,} bytes, content id {content_id}")
    if parity.users:
        overlap = f"top-10 overlap {parity.top10_overlap:.3f}"
        say(f"float path: within {parity.max_error:.1e} of torch, {overlap}")
    if parity.exact_max_error is not None:
        bound = f"(bound {parity.exact_bound:.1e})"
        error = f"within {parity.exact_max_error:.1e} of the float path"
        say(f"deterministic path: {error} {bound}")
    say(f"gates passed: {', '.join(gates['passed']) or 'none'}")
    for name, why in gates["not_checked"].items():
        say(f"gate {name}: not checked ({why})")
    for name, why in gates["allowed"].items():
        say(f"gate {name}: failed, but allowed ({why})")
    say(f"transfer claim: {transfer['claim']} ({_claim(transfer)})")


def _claim(transfer: Mapping[str, Any]) -> str:
    if transfer["claim"] == "none":
        return str(transfer["why"])
    gain = f"{transfer['ndcg@10']:+.4f} NDCG@10 (SE {transfer['se']:.4f})"
    return str(transfer.get("why", f"{gain} over {transfer['over']}"))
