"""The commands evaluate and crossval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlrec_edge.choices import AUTO, MODES
from tlrec_edge.cli.common import (
    Integer,
    Number,
    PathType,
    cache_option,
    combine_options,
    dataset_argument,
    domain_option,
    inherited_seed_option,
    json_option,
    open_dataset,
    other_data_note,
    out_file,
    out_table,
    parse_domains,
    with_candidates,
)
from tlrec_edge.cli.format import MISSING, figure, gain, interval, print_table, with_error
from tlrec_edge.cli.output import say, say_json
from tlrec_edge.cli.progress import quiet_option, show_progress
from tlrec_edge.core.counts import counted
from tlrec_edge.core.files import write_text

if TYPE_CHECKING:
    from tlrec_edge.data.dataset import Dataset
    from tlrec_edge.evaluation.per_user import PerUser
    from tlrec_edge.evaluation.result import Evaluation


report_options = combine_options(
    click.option(
        "-k",
        "ks",
        multiple=True,
        type=Integer(1),
        default=(10,),
        show_default=True,
        help="Cut-off of NDCG, HR and MRR; repeatable.",
    ),
    click.option(
        "--slices",
        is_flag=True,
        help="Show results by group of users, items, histories, popularity, domains and periods.",
    ),
    click.option(
        "--per-user",
        type=PathType(),
        callback=out_table,
        help="File for every model's metrics by user (.csv, .csv.gz or .parquet).  [default: none]",
    ),
    click.option(
        "--against",
        type=PathType(),
        help="--per-user file of another evaluation, to compare with by user.  [default: none]",
    ),
    click.option(
        "--report",
        "page",
        type=PathType(),
        callback=out_file,
        help="HTML file for a report.  [default: none]",
    ),
    quiet_option,
    json_option,
)
"""Options of what is reported."""


@click.command(short_help="Compare a model or bundle with baselines.")
@click.argument("model", type=PathType())
@dataset_argument
@domain_option
@click.option(
    "--candidates",
    type=PathType(),
    help="Table with test rows: user, item(s), negatives.  [default: the rows of the split]",
)
@click.option(
    "--schema",
    type=PathType(),
    help="TOML file that names the columns of --candidates.  [default: that of prepare]",
)
@click.option(
    "--fold",
    type=Integer(0),
    help="Fold of a new-users split.  [default: the fold of the model]",
)
@click.option(
    "--target-only/--no-target-only",
    default=True,
    show_default=True,
    help="Also train the same model on the target alone, for comparison.",
)
@click.option(
    "--ease-penalty",
    multiple=True,
    type=Number(min=0, min_open=True),
    help="Also evaluate EASE with this penalty; repeatable.  [default: only the tuned penalty]",
)
@cache_option
@report_options
def evaluate(
    model: Path,
    dataset: Path,
    domain: str | None,
    candidates: Path | None,
    schema: Path | None,
    fold: int | None,
    target_only: bool,
    ease_penalty: tuple[float, ...],
    cache: bool,
    ks: tuple[int, ...],
    slices: bool,
    per_user: Path | None,
    against: Path | None,
    page: Path | None,
    as_json: bool,
) -> None:
    """Evaluate MODEL (a model or bundle folder) and baselines on the test rows of DATASET.

    Refuses to run if the model was trained on test rows, or on rows that are later than them.
    """
    from tlrec_edge.evaluation.compared import open_compared_model
    from tlrec_edge.evaluation.evaluate_model import evaluate_model

    if schema is not None and candidates is None:
        raise click.UsageError("--schema names the columns of --candidates: pass both")
    earlier = _read_earlier(against, "model")
    data = open_dataset(dataset, cache)
    target = None if domain is None else parse_domains(domain, data.domains)
    compared = open_compared_model(model, data)
    made = compared.provenance
    target = target or made.domains or parse_domains(None, data.domains)
    note = other_data_note(model, made.dataset_sha256, data)
    data = with_candidates(data, candidates, schema)
    with show_progress("evaluate") as progress:
        evaluated = evaluate_model(
            compared,
            data,
            target,
            fold=fold,
            target_only=target_only,
            ease_penalties=ease_penalty,
            progress=progress,
        )
    report, result = evaluated.to_json(ks), evaluated.result
    first = [*([note] if note else []), *_candidates_notes(candidates, data)]
    report["notes"] = [*first, *report["notes"]]
    _compare(report, result, "model", data, earlier)
    _finish(report, result, data, ks, slices, per_user, page, as_json)


@click.command(short_help="Adapt and evaluate on every fold of new users.")
@dataset_argument
@domain_option
@click.option(
    "--from",
    "source",
    type=PathType(),
    help="Source model, written by pretrain.  [default: none, for scratch, joint or auto]",
)
@click.option(
    "--mode",
    "modes",
    type=click.Choice((AUTO, *MODES)),
    multiple=True,
    default=(AUTO,),
    show_default=True,
    help="Transfer mode; repeatable.",
)
@click.option(
    "--epochs",
    type=Integer(0),
    default=20,
    show_default=True,
    help="Largest number of epochs on the target; validation may stop earlier.",
)
@inherited_seed_option
@report_options
def crossval(
    dataset: Path,
    domain: str | None,
    source: Path | None,
    modes: tuple[str, ...],
    epochs: int,
    seed: int | None,
    ks: tuple[int, ...],
    slices: bool,
    per_user: Path | None,
    against: Path | None,
    page: Path | None,
    as_json: bool,
) -> None:
    """Adapt and evaluate on every fold of a new-users split of DATASET, and pool the results."""
    from dataclasses import replace

    from tlrec_edge.evaluation.crossval import CrossvalConfig
    from tlrec_edge.evaluation.crossval import crossval as run
    from tlrec_edge.train.adapt import config_of
    from tlrec_edge.train.edge_model import EdgeModel

    data = open_dataset(dataset)
    target = parse_domains(domain, data.domains)
    config = replace(config_of(EdgeModel.load(source) if source else None), epochs=epochs)
    if seed is not None:
        config = replace(config, seed=seed)
    cross = CrossvalConfig(dataset, target, tuple(dict.fromkeys(modes)), source, config)
    earlier = _read_earlier(against, next(iter(cross.names)))
    with show_progress("crossval") as progress:
        result = run(cross, data, progress)
    report = result.to_json(ks if 10 in ks else (10, *ks))
    if "auto" in result.names:
        chosen_modes = Counter(fold["auto"] for fold in result.chosen_modes).most_common()
        folds = ", ".join(f"{mode} on {count}" for mode, count in chosen_modes)
        report["notes"].append(f"auto chose {folds} of {len(result.chosen_modes)} folds")
    _compare(report, result.evaluation, result.names[0], data, earlier)
    _finish(report, result.evaluation, data, ks, slices, per_user, page, as_json)


def _candidates_notes(file: Path | None, data: Dataset) -> list[str]:
    """Return a sentence if ids in the rows of ``--candidates`` were left out."""
    rows = data.split.rows
    if file is None or rows is None or not rows.duplicates:
        return []
    return [
        f"{file}: {counted(rows.duplicates, 'duplicate')} left out (ids that occur twice in a row)"
    ]


def _read_earlier(against: Path | None, name: str) -> tuple[str, PerUser] | None:
    """Return a model's figures in an earlier evaluation and their title. Raises DataError.

    Read before any work, because the evaluation may take an hour.
    """
    if against is None:
        return None
    from tlrec_edge.evaluation.per_user import read_per_user

    return f"{name} of {against.name}", read_per_user(against, name)


def _compare(
    report: dict[str, Any],
    result: Evaluation,
    name: str,
    data: Dataset,
    earlier: tuple[str, PerUser] | None,
) -> None:
    """Add the gain over the model of the same name in an earlier evaluation."""
    if earlier is None:
        return
    from tlrec_edge.core.metrics import lift_json
    from tlrec_edge.evaluation.per_user import by_user, compare

    title, figures = earlier
    lift = compare(by_user(result, name, data.users), figures)
    report["lift"]["against"] = lift_json(name, title, lift)


def _finish(
    report: dict[str, Any],
    result: Evaluation,
    data: Dataset,
    ks: tuple[int, ...],
    slices: bool,
    per_user: Path | None,
    page: Path | None,
    as_json: bool,
) -> None:
    from tlrec_edge.evaluation.per_user import write_per_user
    from tlrec_edge.report import render

    if report["dropped"]:
        why = ", ".join(f"{reason} {n:,}" for reason, n in report["dropped"].items())
        report["notes"].append(f"test rows left out: {why}")
    if per_user is not None:
        write_per_user(per_user, result, data.users)
    if page is not None:
        section = {**report, "title": report["domain"], "lift": list(report["lift"].values())}
        title = f"Evaluation on {report['domain']}"
        write_text(page, render({"title": title, "sections": [section]}))
    if as_json:
        say_json(report)
    else:
        show_evaluation(report, ks, slices)


def show_evaluation(
    report: Mapping[str, Any], ks: tuple[int, ...] = (10,), slices: bool = False
) -> None:
    """Print an evaluation as tables, with its notes below the first."""
    full = any("full.ndcg@10" in row for row in report["rows"])
    head = ["", *(f"{m}@{k}" for k in ks for m in ("NDCG", "HR", "MRR")), "AUC", "NDCG@10 by user"]
    rows = []
    for row in report["rows"]:
        cells = [
            with_error(row, f"{m}@{k}") if m == "ndcg" else figure(row[f"{m}@{k}"])
            for k in ks
            for m in ("ndcg", "hr", "mrr")
        ]
        cells += [figure(row["auc"]), figure(row["ndcg@10.by_user"])]
        rows.append([row["name"], *cells, *([with_error(row, "full.ndcg@10")] if full else [])])
    tests = f"{report['tests']:,} tests of {report['users']:,} users"
    title = f"{report['domain']}: {tests}; SE clustered by user"
    print_table([*head, *(["NDCG@10 among all"] if full else [])], rows, title)
    for note in report["notes"]:
        say(f"note: {note}")
    lifts = [
        [key, f"{lift['of']} over {lift['over']}", gain(lift), interval(lift), lift["verdict"]]
        for key, lift in report["lift"].items()
    ]
    print_table(
        ["lift", "", "NDCG@10 (SE)", "95 % interval", "verdict at 2 SE"],
        lifts,
        "Paired lifts on the same rows",
    )
    if slices:
        _show_catalogue(report)
        _show_slices(report["slices"])


def _show_catalogue(report: Mapping[str, Any]) -> None:
    rows = [
        [
            row["name"],
            figure(row["recall@10.by_user"]),
            f"{row['coverage@10']:.1%}",
            figure(row["gini@10"]),
            MISSING if row["buyers@10"] is None else f"{row['buyers@10']:,.1f}",
        ]
        for row in report["rows"]
        if "coverage@10" in row
    ]
    candidates = f"{report['candidates'] or 0:,} candidates"
    title = f"Top-10 lists of {report['users']:,} users, out of {candidates}"
    head = [
        "",
        "recall@10 by user",
        "coverage",
        "Gini of exposure",
        "mean buyers of an item",
    ]
    print_table(head, rows, title)


def _show_slices(slices: list[dict[str, Any]]) -> None:
    if not slices:
        return
    of, over = slices[0]["lift"]["of"], slices[0]["lift"]["over"]
    rows = [
        [
            f"{line['by']}: {line['slice']}",
            f"{line['tests']:,}",
            f"{line['users']:,}",
            with_error(line, "ndcg@10"),
            with_error(line, "over.ndcg@10"),
            figure(line["recall@10"]),
            figure(line["over.recall@10"]),
            gain(line["lift"]),
            line["lift"]["verdict"],
        ]
        for line in slices
    ]
    head = [
        "slice",
        "tests",
        "users",
        of,
        over,
        f"R@10 {of}",
        f"R@10 {over}",
        "lift (SE)",
        "at 2 SE",
    ]
    title = (
        f"Slices, NDCG@10 (SE) and recall@10: {of} and the best baseline, {over}; "
        "one slice in 20 differs by chance"
    )
    print_table(head, rows, title)
