"""Commands that learn: pretrain, adapt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlrec_edge.choices import (
    ABLATIONS,
    ALIGNMENTS,
    AUGMENTATIONS,
    AUTO,
    ENCODER_SIZES,
    EVENTS,
    MODES,
)
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

if TYPE_CHECKING:
    from tlrec_edge.train.config import TrainConfig


def _choices_from(known: Sequence[str]) -> Callable[..., tuple[str, ...] | None]:
    """Return a callback that reads names out of ``known``, as A,B or repeated; ``none`` names no one."""

    def read(
        _: click.Context, option: click.Parameter, given: Sequence[str]
    ) -> tuple[str, ...] | None:
        names = [name.strip() for text in given for name in text.split(",") if name.strip()]
        for name in names:
            if name not in (*known, "none"):
                raise click.BadParameter(
                    f"{name!r} is none of {', '.join(known)}, none", param=option
                )
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
            raise click.BadParameter(
                f"{text!r} is no EVENT=WEIGHT, with an event of {', '.join(EVENTS)}", param=option
            )
    return tuple(found.items()) or None


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the knobs that pretrain and adapt share; one that is not given is None."""
    for option in reversed(
        (
            click.option(
                "--align",
                type=click.Choice(ALIGNMENTS),
                help="Make source and target items alike.  [default: none]",
            ),
            click.option(
                "--align-weight",
                type=click.FloatRange(0),
                help="Strength of --align.  [default: 1]",
            ),
            click.option(
                "--augment",
                multiple=True,
                callback=_choices_from(AUGMENTATIONS),
                metavar="NAME",
                help=f"Disturb training histories: {', '.join(AUGMENTATIONS)} or none; A,B or repeated.  [default: none]",
            ),
            click.option(
                "--without",
                multiple=True,
                callback=_choices_from(ABLATIONS),
                metavar="PART",
                help=f"Leave out parts of the model: {', '.join(ABLATIONS)}; A,B or repeated.  [default: none]",
            ),
            click.option(
                "--text",
                metavar="ENCODER",
                help="What texts are read by: hashed, wordllama or the folder of a sentence-transformers model as ONNX.  "
                "[default: hashed]",
            ),
            click.option(
                "--logq",
                type=click.FloatRange(0, 1),
                help="Learn what is beyond popularity.  [default: 0]",
            ),
            click.option(
                "--event-weight",
                "event_weights",
                multiple=True,
                callback=_event_weights,
                metavar="EVENT=WEIGHT",
                help="Weight of an event in the loss, as view=0.1; repeatable.  [default: the dataset's]",
            ),
            click.option(
                "--wide-weights",
                type=click.IntRange(1),
                help="Item-item weights a candidate keeps: more rank better, for bytes and time.  [default: 50]",
            ),
            click.option(
                "--wide-rank",
                type=click.IntRange(0),
                help="Rank of what those leave out.  [default: 32]",
            ),
            click.option(
                "--checkpoint",
                type=click.Path(path_type=Path),
                help="Folder to keep every epoch in; the same command goes on from it.",
            ),
        )
    ):
        command = option(command)
    return command


def _config(make: Callable[..., TrainConfig], **hyperparameters: Any) -> TrainConfig:
    """Make a config of the knobs that are given; what it refuses is wrong usage."""
    try:
        return make(**{name: value for name, value in hyperparameters.items() if value is not None})
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _check_outside(out: Path, checkpoint: Path | None) -> None:
    if checkpoint is not None and out.resolve() in (
        checkpoint.resolve(),
        *checkpoint.resolve().parents,
    ):
        raise click.UsageError("--checkpoint must lie outside --out")


@click.command()
@dataset_argument
@click.option("--domains", required=True, help="Source domains: A,B or '!T' for all but T.")
@out_option
@click.option(
    "--size",
    type=click.Choice(ENCODER_SIZES),
    default="fast",
    show_default=True,
    help="History encoder.",
)
@click.option(
    "--epochs", type=click.IntRange(1), help="Passes over the source.  [default: by its size]"
)
@click.option(
    "--min-buyers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Leave rarer items out of histories.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of every random choice.",
)
@training_options
def pretrain(
    dataset: Path,
    domains: str,
    out: Path,
    size: str,
    epochs: int | None,
    min_buyers: int,
    seed: int,
    checkpoint: Path | None,
    **hyperparameters: Any,
) -> None:
    """Train a model on source domains of DATASET."""
    from tlrec_edge.train.checkpoint import resumable
    from tlrec_edge.train.config import TrainConfig
    from tlrec_edge.train.edge_model import MODEL
    from tlrec_edge.train.pretrain import pretrain as run

    check_target(out, MODEL)
    _check_outside(out, checkpoint)
    data = open_dataset(dataset)
    source = parse_domains(domains, data.domains)
    config = _config(
        TrainConfig,
        size=size,
        pretrain_epochs=epochs,
        min_buyers=min_buyers,
        seed=seed,
        **hyperparameters,
    )
    with (
        show_progress("pretrain") as progress,
        resumable(checkpoint, data, config, command="pretrain", domains=source) as saved,
    ):
        model = run(data, source, config, progress, saved)
        model.save(out)
    domain_count = len(model.provenance.domains)
    of = f"{domain_count} domain{'s' * (domain_count != 1)}"
    click.echo(f"{out}: {len(model.ids):,} items of {of}, size {size}")


@click.command()
@dataset_argument
@domain_option
@click.option(
    "--from", "source", type=click.Path(path_type=Path), help="Source model, made by pretrain."
)
@click.option(
    "--mode",
    type=click.Choice((AUTO, *MODES)),
    default=AUTO,
    show_default=True,
    help="How to transfer.",
)
@out_option
@click.option(
    "--fold",
    type=click.IntRange(0),
    help="Split new-users: hold this fold's users out as new to the target.",
)
@click.option(
    "--epochs",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Most passes; validation stops earlier.",
)
@click.option(
    "--size",
    type=click.Choice(ENCODER_SIZES),
    help="History encoder.  [default: the source's, else fast]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="Seed of every random choice.  [default: the source's, else 0]",
)
@training_options
@json_option
def adapt(
    dataset: Path,
    domain: str,
    source: Path | None,
    mode: str,
    out: Path,
    fold: int | None,
    epochs: int,
    size: str | None,
    checkpoint: Path | None,
    as_json: bool,
    **hyperparameters: Any,
) -> None:
    """Adapt to the target domain of DATASET; choices are made on its validation rows.

    What is not given of --align, --augment, --text, --logq, --event-weight, --wide-weights and --wide-rank is as the
    source was trained.
    """
    from dataclasses import replace
    from functools import partial

    from tlrec_edge.train.adapt import adapt as run
    from tlrec_edge.train.adapt import config_of
    from tlrec_edge.train.auto import adapt_auto
    from tlrec_edge.train.checkpoint import resumable
    from tlrec_edge.train.edge_model import MODEL, EdgeModel

    check_target(out, MODEL)
    _check_outside(out, checkpoint)
    data = open_dataset(dataset)
    target = parse_domains(domain, data.domains)
    start = EdgeModel.load(source) if source else None
    config = _config(
        partial(replace, config_of(start)), epochs=epochs, size=size, **hyperparameters
    )
    if start is not None and size not in (None, start.net.config.size):
        raise click.UsageError(
            f"--size {size} does not fit the source model, which is {start.net.config.size}"
        )
    facts = {
        "domains": target,
        "mode": mode,
        "fold": fold,
        "source": start.provenance.to_json() if start else None,
    }
    with (
        show_progress("adapt") as progress,
        resumable(checkpoint, data, config, command="adapt", **facts) as saved,
    ):
        if mode == AUTO:
            model, table = adapt_auto(data, target, start, config, fold, progress, checkpoint=saved)
        else:
            model, table = (
                run(data, target, mode, start, config, fold, progress, checkpoint=saved),
                (),
            )
        model.save(out)
    if source and start and (other := other_data(source, start.provenance.dataset_sha256, data)):
        click.echo(f"note: {other}", err=True)
    made = model.provenance
    if as_json:
        click.echo(json.dumps({"out": str(out), **made.to_json()}, ensure_ascii=False))
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
            "transfer is taken where its ways beat the target alone by 2 SE on average; "
            "of them the simplest that the best does not beat by 1 SE",
        )
    epochs = made.choices.epochs if made.choices else 0
    click.echo(f"{out}: {made.way}, {model.candidates:,} candidates, {epochs} epochs")
    if made.source is None:
        fallback = f"; auto fell back on {made.way}" if table and start is not None else ""
        click.echo(f"transfer: none (the model learns from the target alone{fallback})")
