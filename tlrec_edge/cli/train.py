"""The commands pretrain and adapt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
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
    Integer,
    Minutes,
    Number,
    PathType,
    cache_option,
    check_checkpoint,
    combine_options,
    dataset_argument,
    domain_option,
    domains_help,
    inherited_seed_option,
    json_option,
    open_dataset,
    other_data_note,
    out_option,
    parse_domains,
    seed_option,
)
from tlrec_edge.cli.format import print_table
from tlrec_edge.cli.output import say, say_json
from tlrec_edge.cli.progress import quiet_option, show_progress
from tlrec_edge.core.counts import counted
from tlrec_edge.core.folders import check_target

if TYPE_CHECKING:
    from tlrec_edge.data.dataset import Dataset
    from tlrec_edge.train.config import TrainConfig
    from tlrec_edge.train.edge_model import EdgeModel


def _choices_from(known: Sequence[str]) -> Callable[..., tuple[str, ...] | None]:
    """Return a callback that reads names, as A,B or repeated; ``none`` selects none of them."""

    def read(
        _: click.Context, option: click.Parameter, given: Sequence[str]
    ) -> tuple[str, ...] | None:
        names = [name.strip() for text in given for name in text.split(",") if name.strip()]
        for name in names:
            if name not in (*known, "none"):
                raise click.BadParameter(
                    f"{name!r} is not one of {', '.join(known)}, none", param=option
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
                f"{text!r} is not EVENT=WEIGHT: the event is one of {', '.join(EVENTS)}, "
                "the weight 0 or more",
                param=option,
            )
    return tuple(found.items()) or None


_AUTO_RULE = (
    "rule: transfer is chosen if its modes beat the target-only model by 2 SE on average; "
    "of them, the simplest one that the best does not beat by 1 SE"
)


training_options = combine_options(
    click.option(
        "--align",
        type=click.Choice(ALIGNMENTS),
        help="Way to align the content vectors of source and target items.  [default: none]",
    ),
    click.option(
        "--align-weight",
        type=Number(0),
        help="Weight of the alignment loss.  [default: 1]",
    ),
    click.option(
        "--augment",
        multiple=True,
        callback=_choices_from(AUGMENTATIONS),
        metavar="NAME",
        help=f"Augment training histories: {', '.join(AUGMENTATIONS)} or none; as A,B or "
        "repeated.  [default: none]",
    ),
    click.option(
        "--without",
        multiple=True,
        callback=_choices_from(ABLATIONS),
        metavar="PART",
        help=f"Leave out parts of the model: {', '.join(ABLATIONS)}; as A,B or repeated.  "
        "[default: none]",
    ),
    click.option(
        "--text",
        metavar="ENCODER",
        help="Text encoder: hashed, wordllama, or the folder of a sentence-transformers model "
        "as ONNX.  [default: hashed]",
    ),
    click.option(
        "--logq",
        type=Number(0, 1),
        help="Add log popularity times this to the training logits, so that the model learns less "
        "popularity itself.  [default: 0]",
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
        type=Integer(1),
        help="Item-item weights per candidate; more can rank better, but cost bytes and time.  "
        "[default: 50]",
    ),
    click.option(
        "--wide-rank",
        type=Integer(0),
        help="Rank of the low-rank approximation of all smaller weights.  [default: 32]",
    ),
    click.option(
        "--checkpoint",
        type=PathType(),
        help="Folder to save every epoch in; the same command then resumes.  [default: none]",
    ),
)
"""Hyperparameters that pretrain and adapt share; None if one is not given."""


def _config(make: Callable[..., TrainConfig], **hyperparameters: Any) -> TrainConfig:
    """Make a config of the values that are not None. Raises UsageError if one is not allowed."""
    try:
        return make(**{name: value for name, value in hyperparameters.items() if value is not None})
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@click.command(short_help="Train a source model.")
@dataset_argument
@click.option("--domains", help=f"{domains_help}  [default: the only one]")
@out_option
@click.option(
    "--size",
    type=click.Choice(ENCODER_SIZES),
    default="fast",
    show_default=True,
    help="History encoder: fast (attention pooling) or base (SASRec).",
)
@click.option(
    "--epochs",
    type=Integer(1),
    help="Epochs on the source.  [default: 2 to 40, for about 300 steps]",
)
@click.option(
    "--min-buyers",
    type=Integer(1),
    default=1,
    show_default=True,
    help="Leave items with fewer buyers out of histories.",
)
@seed_option
@training_options
@quiet_option
def pretrain(
    dataset: Path,
    domains: str | None,
    out: Path,
    size: str,
    epochs: int | None,
    min_buyers: int,
    seed: int,
    checkpoint: Path | None,
    **hyperparameters: Any,
) -> None:
    """Train a source model on domains of DATASET."""
    from tlrec_edge import pipeline
    from tlrec_edge.train.config import TrainConfig
    from tlrec_edge.train.edge_model import MODEL

    check_target(out, MODEL)
    check_checkpoint(out, checkpoint)
    data = open_dataset(dataset)
    source = parse_domains(domains, data.domains, "--domains")
    config = _config(
        TrainConfig,
        size=size,
        pretrain_epochs=epochs,
        min_buyers=min_buyers,
        seed=seed,
        **hyperparameters,
    )
    with show_progress("pretrain") as progress:
        model = pipeline.pretrain(
            data, source, config, out=out, progress=progress, checkpoint=checkpoint
        )
    domains = counted(len(model.provenance.domains), "domain")
    say(f"{out}: {counted(len(model.ids), 'item')} of {domains}, size {size}")


@click.command(short_help="Adapt a source model to a target domain.")
@dataset_argument
@domain_option
@click.option(
    "--from",
    "source",
    type=PathType(),
    help="Source model, written by pretrain.  [default: none, train on the target alone]",
)
@click.option(
    "--mode",
    type=click.Choice((AUTO, *MODES)),
    default=AUTO,
    show_default=True,
    help="Transfer mode; auto chooses one on validation rows.",
)
@out_option
@click.option(
    "--fold",
    type=Integer(0),
    help="Fold of a new-users split; its users are held out as new to the target.",
)
@click.option(
    "--epochs",
    type=Integer(0),
    default=20,
    show_default=True,
    help="Largest number of epochs; validation may stop earlier.",
)
@click.option(
    "--size",
    type=click.Choice(ENCODER_SIZES),
    help="History encoder: fast (attention pooling) or base (SASRec).  "
    "[default: the source's, else fast]",
)
@inherited_seed_option
@training_options
@click.option(
    "--time-budget",
    "minutes",
    type=Minutes(),
    metavar="TIME",
    help="Time to return the best found by then: 90s, 2m, 1h or a number of minutes. What is left "
    "out depends on the speed of the machine.  [default: no bound]",
)
@cache_option
@quiet_option
@json_option
def adapt(
    dataset: Path,
    domain: str | None,
    source: Path | None,
    mode: str,
    out: Path,
    fold: int | None,
    epochs: int,
    size: str | None,
    checkpoint: Path | None,
    minutes: float | None,
    cache: bool,
    as_json: bool,
    **hyperparameters: Any,
) -> None:
    """Adapt a source model to a target domain of DATASET.

    All choices are made on validation rows. By default, --align, --augment, --text, --logq,
    --event-weight, --wide-weights and --wide-rank have the values of the source model.
    """
    from dataclasses import replace
    from functools import partial

    from tlrec_edge import pipeline
    from tlrec_edge.train.adapt import config_of
    from tlrec_edge.train.edge_model import MODEL, EdgeModel

    check_target(out, MODEL)
    check_checkpoint(out, checkpoint)
    if source is not None and out.resolve() == source.resolve():
        raise click.UsageError("--out is the source model itself: choose another folder")
    if minutes is not None and checkpoint is not None:
        raise click.UsageError(
            "--time-budget and --checkpoint exclude each other: a run that a budget cuts short "
            "cannot resume to the same end"
        )
    data = open_dataset(dataset, cache)
    target = parse_domains(domain, data.domains)
    start = EdgeModel.load(source) if source else None
    config = _config(
        partial(replace, config_of(start)), epochs=epochs, size=size, **hyperparameters
    )
    if start is not None and size not in (None, start.net.config.size):
        raise click.UsageError(
            f"--size {size} does not fit the source model, which is {start.net.config.size}"
        )
    for note in _notes_on_validation(data, target, fold):
        say(f"note: {note}", err=True)
    with show_progress("adapt") as progress:
        model = pipeline.adapt(
            data,
            target,
            source=start,
            mode=mode,
            config=config,
            fold=fold,
            out=out,
            progress=progress,
            checkpoint=checkpoint,
            minutes=minutes,
        )
    if (
        source
        and start
        and (note := other_data_note(source, start.provenance.dataset_sha256, data))
    ):
        say(f"note: {note}", err=True)
    made, table = model.provenance, model.provenance.auto
    if note := _note_on_popularity(model, data):
        say(f"note: {out} {note}", err=True)
    if as_json:
        say_json({"out": str(out), **made.to_json()})
        return
    if table:
        rows = [
            [
                row.mode,
                f"{row.ndcg:.4f}",
                f"{row.lift:+.4f} ({row.se:.4f}) over {row.over}",
                "chosen" if row.chosen else "",
            ]
            for row in table
        ]
        head = ["candidate", "validation NDCG@10", "paired lift (SE)", ""]
        print_table(head, rows, "Modes on validation rows")
        say(_AUTO_RULE)
    epochs = made.choices.epochs if made.choices else 0
    sizes = f"{counted(model.candidates, 'candidate')}, {counted(epochs, 'epoch')}"
    say(f"{out}: {made.way}, {sizes}")
    if made.left_out:
        say(f"left out by --time-budget: {'; '.join(made.left_out)}")
    if made.source is None:
        fallback = f"; auto fell back to {made.way}" if table and start is not None else ""
        say(f"transfer: none (trained on the target alone{fallback})")


def _notes_on_validation(data: Dataset, target: tuple[str, ...], fold: int | None) -> list[str]:
    """Say how the validation rows compare with test rows that came with the data."""
    if data.split.rows is None:
        return []
    from tlrec_edge.data.task import make_tasks
    from tlrec_edge.linear.validation_notes import validation_notes

    return validation_notes(make_tasks(data, target, fold))


def _note_on_popularity(model: EdgeModel, data: Dataset) -> str:
    """Say that the target's log taught a model only popularity; "" if it taught more."""
    import numpy as np

    from tlrec_edge.data.dataset import VALID

    made, weights = model.provenance, asdict(model.score_weights)
    if made.choices is None or made.mode == "zero-shot":
        return ""
    was_fitted = made.choices.epochs > 0 or model.wide.nnz > 0
    if was_fitted and any(weights[part] for part in weights if part != "bias"):
        return ""
    codes = data.domain_codes(made.domains)
    in_target = np.isin(data.interactions.domain, codes)
    rows = int((in_target & (data.split.role == VALID)).sum())
    if data.split.valid_rows is not None:
        rows = len(data.split.valid_rows.of_domains(codes))
    return (
        f"learned nothing but popularity from the log of {', '.join(made.domains)}, which may be "
        f"too small: {counted(made.choices.epochs, 'epoch')} of training, "
        f"{counted(rows, 'validation row')}"
    )
