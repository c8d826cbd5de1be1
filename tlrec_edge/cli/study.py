"""The commands study and curve: does transfer pay?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from tlrec_edge.choices import ENCODER_SIZES
from tlrec_edge.cli.common import (
    Integer,
    PathType,
    combine_options,
    dataset_argument,
    domain_option,
    domains_help,
    json_option,
    open_dataset,
    out_file,
    out_folder,
    parse_domains,
)
from tlrec_edge.cli.format import figure, gain, print_table, with_error
from tlrec_edge.cli.output import say, say_json
from tlrec_edge.cli.progress import quiet_option, show_progress
from tlrec_edge.core.files import write_text

FOLD_HELP = (
    "Fold of a new-users split, whose users are new to the target.  "
    "[default: none, users keep their histories]"
)


run_options = combine_options(
    click.option("--fold", type=Integer(0), help=FOLD_HELP),
    click.option(
        "--seed",
        "seeds",
        type=Integer(0),
        multiple=True,
        default=(0,),
        show_default=True,
        help="Seed of every random choice; repeat it for means over seeds.",
    ),
    click.option(
        "--processes",
        type=Integer(1),
        help="Parallel jobs.  [default: one per core]",
    ),
    quiet_option,
    json_option,
)
"""Options of both commands."""


@click.command(short_help="Compare transfer modes, alignment and model components.")
@dataset_argument
@domain_option
@click.option("--domains", help=f"{domains_help}  [default: all except the target]")
@click.option(
    "--out",
    type=PathType(),
    callback=out_folder,
    help="Folder for study.json and the source models.  [default: none]",
)
@click.option(
    "--only",
    "names",
    multiple=True,
    metavar="ROW",
    help="Run only this row, besides scratch and finetune; repeatable.  [default: all rows]",
)
@click.option(
    "--size",
    type=click.Choice(ENCODER_SIZES),
    default="fast",
    show_default=True,
    help="History encoder.",
)
@click.option(
    "--epochs",
    type=Integer(0),
    default=20,
    show_default=True,
    help="Largest number of epochs on the target; validation may stop earlier.",
)
@click.option(
    "--pretrain-epochs",
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
@run_options
def study(
    dataset: Path,
    domain: str | None,
    domains: str | None,
    out: Path | None,
    names: tuple[str, ...],
    size: str,
    epochs: int,
    pretrain_epochs: int | None,
    min_buyers: int,
    fold: int | None,
    seeds: tuple[int, ...],
    processes: int | None,
    as_json: bool,
) -> None:
    """Compare every transfer mode, alignment method and model component (ablation).

    The table has a row for each baseline and mode, and for finetune with each alignment and
    augmentation, without each part of the model, and from a source of noise. All choices are made
    on validation rows; the table reports the test rows.
    """
    from tlrec_edge.evaluation.study import StudyConfig
    from tlrec_edge.evaluation.study import study as run
    from tlrec_edge.train.config import TrainConfig

    data = open_dataset(dataset)
    target = parse_domains(domain, data.domains)
    sources = (
        parse_domains(domains, data.domains, "--domains")
        if domains
        else tuple(d for d in data.domains if d not in target)
    )
    config = TrainConfig(
        size=size,
        epochs=epochs,
        pretrain_epochs=pretrain_epochs,
        min_buyers=min_buyers,
        seed=seeds[0],
    )
    with _models(out) as models, show_progress("study") as progress:
        options = StudyConfig(dataset, target, sources, config, models, fold, seeds)
        result = run(options, names, progress, processes)
    report = result.to_json()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "study.json", json.dumps(report, ensure_ascii=False, indent=1))
    if as_json:
        say_json(report)
    else:
        show_study(report)


@contextmanager
def _models(out: Path | None) -> Iterator[Path]:
    """Yield a folder for source models: in ``out`` if it is given, else a temporary one."""
    if out is not None:
        yield out / "sources"  # made when the first model is saved
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


def show_study(report: Mapping[str, Any]) -> None:
    """Print a study as one table and in sentences."""
    head = [
        "",
        "validation",
        "test NDCG@10 (SE)",
        "over scratch (SE)",
        "at 2 SE",
        "over finetune (SE)",
        "at 2 SE",
    ]
    rows = [
        [
            _row_name(row),
            figure(row["validation_ndcg@10"]),
            with_error(row, "ndcg@10"),
            *_gain_and_verdict(row["over_scratch"]),
            *_gain_and_verdict(row["over_finetune"]),
        ]
        for row in report["rows"]
    ]
    print_table(head, rows, f"{_title(report)}; SE clustered by user")
    for row in report["rows"]:
        if row["why"]:
            say(f"note: {row['name']}: {row['why']}")
    say(f"note: {len(rows)} rows: about one verdict in twenty is due to chance")
    for line in report["words"]:
        say(line)


def _title(report: Mapping[str, Any]) -> str:
    who = (
        "users with their histories"
        if report["fold"] is None
        else f"fold {report['fold']}, users new to it"
    )
    seeds = f", {len(report['seeds'])} seeds" if len(report["seeds"]) > 1 else ""
    return (
        f"{report['domain']}, {who}: {report['tests']:,} tests of {report['users']:,} users{seeds}"
    )


def _row_name(row: Mapping[str, Any]) -> str:
    chosen = "/".join(dict.fromkeys(row["chosen"]))
    return f"{row['name']}: {chosen}" if chosen else str(row["name"])


def _gain_and_verdict(lift: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the gain and its verdict; the verdict is empty if no difference was shown."""
    if lift is None:
        return "", ""
    return gain(lift), "" if "no " in lift["verdict"] else lift["verdict"]


def _shares(_: click.Context, option: click.Parameter, given: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in given.split(","))
    except ValueError as error:
        raise click.BadParameter(
            f"{given!r} is not a list of numbers such as 0.05,1", param=option
        ) from error
    if not all(0 < share <= 1 for share in found):
        raise click.BadParameter(f"{given!r}: a share must be above 0 and at most 1", param=option)
    return found


@click.command(short_help="Show how much target data transfer replaces.")
@dataset_argument
@domain_option
@click.option(
    "--from",
    "source",
    type=PathType(),
    required=True,
    help="Source model, written by pretrain.",
)
@click.option(
    "--shares",
    default="0.01,0.05,0.2,1",
    show_default=True,
    callback=_shares,
    help="Shares of the target's users to train on.",
)
@click.option(
    "--auto",
    is_flag=True,
    help="Also run mode auto at every share; this takes several times as long.",
)
@click.option(
    "--epochs",
    type=Integer(0),
    help="Largest number of epochs on the target.  [default: the source's]",
)
@click.option(
    "--out",
    type=PathType(),
    required=True,
    callback=out_file,
    help="HTML page to write, for example curve.html; a .json next to it has the metrics.",
)
@run_options
def curve(
    dataset: Path,
    domain: str | None,
    source: Path,
    shares: tuple[float, ...],
    auto: bool,
    epochs: int | None,
    out: Path,
    fold: int | None,
    seeds: tuple[int, ...],
    processes: int | None,
    as_json: bool,
) -> None:
    """Show how much target data transfer replaces, by learning curves with and without transfer.

    The curves show the test NDCG@10 of scratch, finetune and the baselines by the share of the
    target's users that are used for training and validation. A smaller share is a subset of a
    larger one; the test rows are always the same.
    """
    from tlrec_edge.evaluation.curve import ROWS, CurveConfig
    from tlrec_edge.evaluation.curve import curve as run
    from tlrec_edge.report import render

    data = open_dataset(dataset)
    target = parse_domains(domain, data.domains)
    config = CurveConfig(dataset, target, source, shares, fold, seeds, epochs)
    with show_progress("curve") as progress:
        report = run(config, (*ROWS, "auto") if auto else ROWS, progress, processes).to_json()
    page = {
        "title": f"Does transfer to {report['domain']} pay?",
        "target": _title(report),
        "plain_words": report["words"],
        "curve": report["points"],
    }
    write_text(out, render(page))
    write_text(out.with_suffix(".json"), json.dumps(report, ensure_ascii=False, indent=1))
    if as_json:
        say_json(report)
    else:
        show_curve(report)
        say(f"page: {out}")


def show_curve(report: Mapping[str, Any]) -> None:
    """Print a learning curve as one table and in sentences."""
    points = report["points"]
    names = [line["name"] for line in points[0]["lines"]]
    rows = [
        [
            f"{100 * point['share']:g} %",
            f"{point['users']:,}",
            f"{point['rows']:,}",
            *(with_error(line, "ndcg@10") for line in point["lines"]),
            *_gain_and_verdict(point["lift"]),
        ]
        for point in points
    ]
    head = ["share", "users", "rows", *names, "lift (SE)", "at 2 SE"]
    print_table(
        head,
        rows,
        f"{_title(report)}; test NDCG@10 (SE clustered by user); lift: finetune over scratch",
    )
    for point in points:
        for line in point["lines"]:
            if line["why"]:
                say(f"note: {line['name']} with {100 * point['share']:g} %: {line['why']}")
    for words in report["words"]:
        say(words)
