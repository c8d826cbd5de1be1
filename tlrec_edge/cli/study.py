"""Commands that tell whether transfer pays: study, curve."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from tlrec_edge.choices import ENCODER_SIZES
from tlrec_edge.cli.common import (
    dataset_argument,
    domain_option,
    echo_table,
    figure,
    json_option,
    open_dataset,
    out_file,
    out_folder,
    parse_domains,
    show_progress,
)

FOLD_HELP = "Split new-users: the users of this fold are new to the target.  [default: none, users keep their past]"


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what both commands share."""
    for option in reversed(
        (
            click.option("--fold", type=click.IntRange(0), help=FOLD_HELP),
            click.option(
                "--seed",
                "seeds",
                type=click.IntRange(0),
                multiple=True,
                default=(0,),
                show_default=True,
                help="Seed of every random choice; repeatable, figures are then means.",
            ),
            click.option(
                "--processes",
                type=click.IntRange(1),
                help="Jobs side by side.  [default: one a core]",
            ),
            json_option,
        )
    ):
        command = option(command)
    return command


@click.command()
@dataset_argument
@domain_option
@click.option(
    "--domains", help="Source domains: A,B or '!T' for all but T.  [default: all but the target]"
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=lambda c, p, v: v and out_folder(c, p, v),
    help="Folder for study.json and the source models.  [default: none]",
)
@click.option(
    "--only",
    "names",
    multiple=True,
    metavar="ROW",
    help="This row, beside scratch and finetune; repeatable.  [default: all rows]",
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
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Most passes over the target; validation stops earlier.",
)
@click.option(
    "--pretrain-epochs",
    type=click.IntRange(1),
    help="Passes over the source.  [default: by its size]",
)
@click.option(
    "--min-buyers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Leave rarer items out of histories.",
)
@run_options
def study(
    dataset: Path,
    domain: str,
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
    """Tell whether transfer pays, and what of it.

    One table for a target of DATASET: baselines, every mode, finetune with each alignment and augmentation, without
    each part of the model, and from a source that is noise. Rows choose on validation; the test is only shown.
    """
    from tlrec_edge.evaluation.study import Plan
    from tlrec_edge.evaluation.study import study as run
    from tlrec_edge.train.config import TrainConfig

    data = open_dataset(dataset)
    target = parse_domains(domain, data.domains)
    sources = (
        parse_domains(domains, data.domains)
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
        result = run(
            Plan(dataset, target, sources, config, models, fold, seeds), names, progress, processes
        )
    report = result.to_json()
    if out is not None:
        (out / "study.json").write_text(
            json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8"
        )
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        show_study(report)


@contextmanager
def _models(out: Path | None) -> Iterator[Path]:
    """Yield the folder of the source models: of ``out`` where it is given, else one that goes away."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        yield out / "sources"
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


def show_study(report: Mapping[str, Any]) -> None:
    """Print a study as one table and in words."""
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
            _with_error(row),
            *_lift(row["over_scratch"]),
            *_lift(row["over_finetune"]),
        ]
        for row in report["rows"]
    ]
    echo_table(head, rows, f"{_title(report)}; SE clustered by user")
    for row in report["rows"]:
        if row["why"]:
            click.echo(f"note: {row['name']}: {row['why']}")
    click.echo(f"note: of {len(rows)} rows, about one verdict in twenty is chance")
    for line in report["words"]:
        click.echo(line)


def _title(report: Mapping[str, Any]) -> str:
    who = (
        "users who keep their past"
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


def _with_error(row: Mapping[str, Any]) -> str:
    return (
        figure(None)
        if row["ndcg@10"] is None
        else f"{row['ndcg@10']:.4f} ({figure(row['ndcg@10.se'])})"
    )


def _lift(lift: Mapping[str, Any] | None) -> tuple[str, str]:
    if lift is None:
        return "", ""
    return f"{lift['ndcg@10']:+.4f} ({figure(lift['se'])})", "" if "no " in lift[
        "verdict"
    ] else lift["verdict"]


def _shares(_: click.Context, option: click.Parameter, given: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in given.split(","))
    except ValueError as error:
        raise click.BadParameter(
            f"{given!r} is no list of numbers such as 0.05,1", param=option
        ) from error
    if not all(0 < share <= 1 for share in found):
        raise click.BadParameter(f"{given!r}: a share lies above 0 and at most at 1", param=option)
    return found


@click.command()
@dataset_argument
@domain_option
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    required=True,
    help="Source model, made by pretrain.",
)
@click.option(
    "--shares",
    default="0.01,0.05,0.2,1",
    show_default=True,
    callback=_shares,
    help="Shares of the target's users to learn from.",
)
@click.option(
    "--auto",
    is_flag=True,
    help="Also let --mode auto choose at every share: several times the work.",
)
@click.option(
    "--epochs", type=click.IntRange(0), help="Most passes over the target.  [default: the source's]"
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    callback=out_file,
    help="Page to write, as curve.html; the figures stand in a .json beside it.",
)
@run_options
def curve(
    dataset: Path,
    domain: str,
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
    """Tell how much of the target's data transfer stands for.

    Test NDCG@10 by the share of the target's users that may be learned from, chosen with and validated on: scratch
    beside finetune and the baselines. The smaller share is part of the larger one; the test is always the same.
    """
    from tlrec_edge.evaluation.curve import ROWS, CurvePlan
    from tlrec_edge.evaluation.curve import curve as run
    from tlrec_edge.report import render

    data = open_dataset(dataset)
    target = parse_domains(domain, data.domains)
    plan = CurvePlan(dataset, target, source, shares, fold, seeds, epochs)
    with show_progress("curve") as progress:
        report = run(plan, (*ROWS, "auto") if auto else ROWS, progress, processes).to_json()
    page = {
        "title": f"Does transfer to {report['domain']} pay?",
        "target": _title(report),
        "plain_words": report["words"],
        "curve": report["points"],
    }
    out.write_text(render(page), encoding="utf-8")
    out.with_suffix(".json").write_text(
        json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        show_curve(report)
        click.echo(f"page: {out}")


def show_curve(report: Mapping[str, Any]) -> None:
    """Print a learning curve as one table and in words."""
    points = report["points"]
    names = [line["name"] for line in points[0]["lines"]]
    rows = [
        [
            f"{100 * point['share']:g} %",
            f"{point['users']:,}",
            f"{point['rows']:,}",
            *(_with_error(line) for line in point["lines"]),
            *_lift(point["lift"]),
        ]
        for point in points
    ]
    head = ["share", "users", "rows", *names, "lift (SE)", "at 2 SE"]
    echo_table(
        head,
        rows,
        f"{_title(report)}; test NDCG@10 (SE clustered by user); lift: finetune over scratch",
    )
    for point in points:
        for line in point["lines"]:
            if line["why"]:
                click.echo(f"note: {line['name']} with {100 * point['share']:g} %: {line['why']}")
    for words in report["words"]:
        click.echo(words)
