"""Commands that learn and measure: pretrain, adapt, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlrec_edge.cli.common import (
    dataset_argument,
    domain_option,
    echo_table,
    figure,
    json_option,
    open_dataset,
    other_data,
    out_option,
    parse_domains,
    progress,
    with_candidates,
)
from tlrec_edge.layout import EVENTS

if TYPE_CHECKING:
    from tlrec_edge.train.config import TrainConfig

MODES = ("auto", "scratch", "zero-shot", "frozen", "finetune", "joint")
SIZES = ("fast", "base")
ALIGN = ("none", "adversarial", "coral")
AUGMENT = ("crop", "mask", "reorder", "token-dropout")
WITHOUT = ("deep", "wide", "counts", "content", "ids")


def _some_of(known: Sequence[str]) -> Callable[..., tuple[str, ...] | None]:
    """Return a callback that reads names out of ``known``, as A,B or repeated; ``none`` names no one."""

    def read(_: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[str, ...] | None:
        names = [name.strip() for text in given for name in text.split(",") if name.strip()]
        for name in names:
            if name not in (*known, "none"):
                raise click.BadParameter(f"{name!r} is none of {', '.join(known)}, none", param=option)
        return tuple(name for name in dict.fromkeys(names) if name != "none") if names else None

    return read


def _event_weights(
    context: click.Context, option: click.Parameter, given: Sequence[str]
) -> tuple[tuple[str, float], ...] | None:
    found: dict[str, float] = {}
    for text in given:
        name, _, weight = text.partition("=")
        try:
            found[name] = float(weight)
        except ValueError:
            found[name] = -1.0
        if name not in EVENTS or not 0 <= found[name] < float("inf"):
            raise click.BadParameter(f"{text!r} is no EVENT=WEIGHT, with an event of {', '.join(EVENTS)}", param=option)
    return tuple(found.items()) or None


def knob_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the knobs that pretrain and adapt share; one that is not given is None."""
    for option in reversed((
        click.option("--align", type=click.Choice(ALIGN), help="Make source and target items alike.  [default: none]"),
        click.option("--align-weight", type=click.FloatRange(0), help="Strength of --align.  [default: 1]"),
        click.option(
            "--augment", multiple=True, callback=_some_of(AUGMENT), metavar="NAME",
            help=f"Disturb training histories: {', '.join(AUGMENT)} or none; A,B or repeated.  [default: none]",
        ),
        click.option(
            "--without", multiple=True, callback=_some_of(WITHOUT), metavar="PART",
            help=f"Leave out parts of the model: {', '.join(WITHOUT)}; A,B or repeated.  [default: none]",
        ),
        click.option(
            "--text", metavar="ENCODER",
            help="What texts are read by: hashed, wordllama or the folder of a sentence-transformers model as ONNX.  "
            "[default: hashed]",
        ),
        click.option("--logq", type=click.FloatRange(0, 1), help="Learn what is beyond popularity.  [default: 0]"),
        click.option(
            "--event-weight", "event_weights", multiple=True, callback=_event_weights, metavar="EVENT=WEIGHT",
            help="Weight of an event in the loss, as view=0.1; repeatable.  [default: the dataset's]",
        ),
        click.option(
            "--checkpoint", type=click.Path(path_type=Path),
            help="Folder to keep every epoch in; the same command goes on from it.",
        ),
    )):  # fmt: skip
        command = option(command)
    return command


def _config(make: Callable[..., TrainConfig], **knobs: Any) -> TrainConfig:
    """Make a config of the knobs that are given; what it refuses is wrong usage."""
    try:
        return make(**{name: value for name, value in knobs.items() if value is not None})
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _check_apart(out: Path, checkpoint: Path | None) -> None:
    if checkpoint is not None and out.resolve() in (checkpoint.resolve(), *checkpoint.resolve().parents):
        raise click.UsageError("--checkpoint must lie outside --out")


@click.command()
@dataset_argument
@click.option("--domains", required=True, help="Source domains: A,B or '!T' for all but T.")
@out_option
@click.option("--size", type=click.Choice(SIZES), default="fast", show_default=True, help="History encoder.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the source.  [default: by its size]")
@click.option(
    "--min-buyers", type=click.IntRange(1), default=1, show_default=True, help="Leave rarer items out of histories."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of every random choice.")
@knob_options
def pretrain(
    dataset: Path, domains: str, out: Path, size: str, epochs: int | None, min_buyers: int, seed: int,
    checkpoint: Path | None, **knobs: Any,
) -> None:  # fmt: skip
    """Train a model on source domains of DATASET."""
    from tlrec_edge.data.store import dataset_hash
    from tlrec_edge.train.artifact import check_target
    from tlrec_edge.train.checkpoint import resumable
    from tlrec_edge.train.config import TrainConfig
    from tlrec_edge.train.pretrain import pretrain as run

    check_target(out)
    _check_apart(out, checkpoint)
    data = open_dataset(dataset)
    source = parse_domains(domains, data.domains)
    config = _config(TrainConfig, size=size, pretrain_epochs=epochs, min_buyers=min_buyers, seed=seed, **knobs)
    with progress("pretrain") as say, resumable(checkpoint, data, config, command="pretrain", domains=source) as kept:
        model = run(data, source, config, say, kept)
        model.with_about(dataset_sha256=dataset_hash(data)).save(out)
    domain_count = len(model.about["domains"])
    of = f"{domain_count} domain{'s' * (domain_count != 1)}"
    click.echo(f"{out}: {len(model.ids):,} items of {of}, size {size}")


@click.command()
@dataset_argument
@domain_option
@click.option("--from", "source", type=click.Path(path_type=Path), help="Source model, made by pretrain.")
@click.option("--mode", type=click.Choice(MODES), default="auto", show_default=True, help="How to transfer.")
@out_option
@click.option(
    "--fold", type=click.IntRange(0), help="Split new-users: hold this fold's users out as new to the target."
)
@click.option(
    "--epochs", type=click.IntRange(0), default=20, show_default=True, help="Most passes; validation stops earlier."
)
@click.option("--size", type=click.Choice(SIZES), help="History encoder.  [default: the source's, else fast]")
@click.option("--seed", type=click.IntRange(0), help="Seed of every random choice.  [default: the source's, else 0]")
@knob_options
@json_option
def adapt(
    dataset: Path, domain: str, source: Path | None, mode: str, out: Path, fold: int | None, epochs: int,
    size: str | None, checkpoint: Path | None, as_json: bool, **knobs: Any,
) -> None:  # fmt: skip
    """Adapt to the target domain of DATASET; choices are made on its validation rows.

    What is not given of --align, --augment, --text, --logq and --event-weight is as the source was trained.
    """
    from dataclasses import replace
    from functools import partial

    from tlrec_edge.data.store import dataset_hash
    from tlrec_edge.train.adapt import adapt as run
    from tlrec_edge.train.adapt import config_of
    from tlrec_edge.train.artifact import EdgeModel, check_target
    from tlrec_edge.train.auto import adapt_auto
    from tlrec_edge.train.checkpoint import resumable

    check_target(out)
    _check_apart(out, checkpoint)
    data = open_dataset(dataset)
    target = parse_domains(domain, data.domains)
    start = EdgeModel.load(source) if source else None
    config = _config(partial(replace, config_of(start)), epochs=epochs, size=size, **knobs)
    if start is not None and size not in (None, start.net.config.size):
        raise click.UsageError(f"--size {size} does not fit the source model, which is {start.net.config.size}")
    facts = {"domains": target, "mode": mode, "fold": fold, "source": dict(start.about) if start else None}
    with progress("adapt") as say, resumable(checkpoint, data, config, command="adapt", **facts) as kept:
        if mode == "auto":
            model, table = adapt_auto(data, target, start, config, fold, say, kept=kept)
        else:
            model, table = run(data, target, mode, start, config, fold, say, kept=kept), ()
        model = model.with_about(dataset_sha256=dataset_hash(data))
        model.save(out)
    if source and start and (other := other_data(source, start.about, data)):
        click.echo(f"note: {other}", err=True)
    about = dict(model.about)
    if as_json:
        click.echo(json.dumps({"out": str(out), **about}, ensure_ascii=False))
        return
    if table:
        rows = [
            [
                line.mode,
                f"{line.ndcg:.4f}",
                f"{line.lift:+.4f} ({line.se:.4f}) over {line.over}",
                "chosen" if line.chosen else "",
            ]
            for line in table
        ]
        echo_table(
            ["candidate", "validation NDCG@10", "paired lift (SE)", ""],
            rows,
            "chosen: the simplest that none beats by 2 SE",
        )
    click.echo(f"{out}: {about['mode']}, {model.candidates:,} candidates, {about['choices']['epochs']} epochs")
    if about["source"] is None:
        click.echo("transfer: none (the model learns from the target alone)")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@dataset_argument
@domain_option
@click.option("--candidates", type=click.Path(path_type=Path), help="Test rows from a file: user, item(s), negatives.")
@click.option("--fold", type=click.IntRange(0), help="Fold of split new-users.  [default: the model's]")
@click.option(
    "--target-only/--no-target-only",
    default=True,
    show_default=True,
    help="Train the fair target-only model beside it.",
)
@click.option(
    "--ease-penalty",
    multiple=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Also show EASE with this penalty; repeatable.",
)
@click.option(
    "-k", "ks", multiple=True, type=click.IntRange(1), default=(10,), show_default=True, help="Cut-offs; repeatable."
)
@json_option
def evaluate(
    model: Path, dataset: Path, domain: str, candidates: Path | None, fold: int | None, target_only: bool,
    ease_penalty: tuple[float, ...], ks: tuple[int, ...], as_json: bool,
) -> None:  # fmt: skip
    """Evaluate MODEL (a model or bundle folder) on the test rows of DATASET, always beside the baselines."""
    from dataclasses import asdict

    from tlrec_edge.data.task import make_tasks
    from tlrec_edge.metrics import measured
    from tlrec_edge.train.baselines import TunedEase
    from tlrec_edge.train.contenders import open_contender
    from tlrec_edge.train.evaluate import baseline_entries
    from tlrec_edge.train.evaluate import evaluate as run

    data = open_dataset(dataset)
    target = parse_domains(domain, data.domains)
    contender = open_contender(model, data)
    other = other_data(model, _made_from(model), data)
    data = with_candidates(data, candidates)
    tuned = {"ease-target": TunedEase(target_only=True), "ease": TunedEase(target_only=False)}
    entries = baseline_entries(
        contender.config if target_only and contender.mode != "scratch" else None, data, ease_penalty
    )
    tasks = make_tasks(data, target, contender.fold if fold is None else fold)
    with progress("evaluate") as say:
        # The model comes first, so that one of another domain is refused before the baselines are fitted.
        ranked = contender.entry(tasks)
        result = run(data, target, {**entries, **tuned, "model": lambda _: ranked}, say=say, tasks=tasks)
    report = result.to_json(ks if 10 in ks else (10, *ks))
    choices = {name: entry.choice for name, entry in tuned.items() if entry.choice is not None}
    dropped = dict(tasks.final.dropped)
    report |= {
        "dropped": dropped,
        "choices": {name: measured(asdict(choice)) for name, choice in choices.items()},
        "notes": [
            *([other] if other else []),
            *([f"test rows not asked: {', '.join(f'{why} {n:,}' for why, n in dropped.items())}"] if dropped else []),
            *(f"{name}: penalty {c.penalty:g} is the edge of its grid" for name, c in choices.items() if c.on_edge),
        ],
    }
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        show_evaluation(report, ks)


def _made_from(path: Path) -> Mapping[str, Any]:
    """Return what a model or bundle folder says of where it comes from."""
    from tlrec_edge.bundle import Bundle
    from tlrec_edge.train.artifact import EdgeModel

    if (path / "manifest.json").is_file():
        return Bundle.open(path).manifest.get("provenance") or {}
    return EdgeModel.load(path).about


def show_evaluation(report: Mapping[str, Any], ks: tuple[int, ...] = (10,)) -> None:
    """Print an evaluation as tables, its notes under the first."""
    head = ["", *(f"{m}@{k}" for k in ks for m in ("NDCG", "HR", "MRR")), "AUC", "NDCG@10 by user"]
    rows = []
    for row in report["rows"]:
        cells = [
            figure(row[f"{m}@{k}"]) + (f" ({figure(row[f'ndcg@{k}.se'])})" if m == "ndcg" else "")
            for k in ks
            for m in ("ndcg", "hr", "mrr")
        ]
        rows.append([row["name"], *cells, figure(row["auc"]), figure(row["ndcg@10.by_user"])])
    echo_table(
        head, rows, f"{report['domain']}: {report['tests']:,} tests of {report['users']:,} users; SE clustered by user"
    )
    for note in report["notes"]:
        click.echo(f"note: {note}")
    lifts = [
        [
            key,
            f"{lift['of']} over {lift['over']}",
            f"{lift['ndcg@10']:+.4f} ({figure(lift['se'])})",
            f"{lift['low']:+.4f} .. {lift['high']:+.4f}",
            lift["verdict"],
        ]
        for key, lift in report["lift"].items()
    ]
    echo_table(["lift", "", "NDCG@10 (SE)", "95 % interval", "verdict at 2 SE"], lifts, "Paired lifts on the same rows")
