"""The command prepare: tables to a dataset folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click

from tlrec_edge.choices import PRESETS, SPLITS
from tlrec_edge.cli.common import (
    Integer,
    PathType,
    SectionedCommand,
    json_option,
    out_folder,
)
from tlrec_edge.cli.format import MISSING, print_table
from tlrec_edge.cli.output import say, say_json
from tlrec_edge.cli.progress import quiet_option, show_progress
from tlrec_edge.core.counts import counted
from tlrec_edge.core.folders import check_target
from tlrec_edge.errors import MissingExtraError

_MAX_DOMAINS = 30
_MAX_MERGED = 20
_FILE = PathType()


_SECTIONS = {
    "Tables": (
        *("interactions", "items", "schema", "columns", "encoding", "preset"),
        *("max_per_user", "dry_run"),
    ),
    "Split": (
        *(
            "split",
            "candidates",
            "valid_candidates",
            "folds",
            "test_from",
            "valid_from",
            "min_buyers",
        ),
        *("negatives", "mask_seen", "refit", "seed"),
    ),
}


@click.command(
    cls=SectionedCommand, sections=_SECTIONS, short_help="Clean and split tables into a dataset."
)
@click.option(
    "--interactions",
    multiple=True,
    type=_FILE,
    help="Interaction table: CSV, TSV, JSON lines or Parquet, compressed or not, or a folder of "
    "such files; repeatable.",
)
@click.option(
    "--items",
    multiple=True,
    type=_FILE,
    help="Item table, one row per item; repeatable.  [default: no item features]",
)
@click.option(
    "--schema",
    type=_FILE,
    help="TOML file that names columns which are not recognised (see above).  [default: none]",
)
@click.option(
    "--columns",
    metavar="NAMES",
    help="Column names of an interaction table without a header line, as user,item,event,time.",
)
@click.option(
    "--encoding",
    help="Encoding of text files that are not UTF-8, such as cp949.  [default: found, or refused]",
)
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    help="Public data set with known columns; complete-journey needs no files.",
)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    help="Way to hold out test rows.  [default: leave-one-out, or the preset's]",
)
@click.option(
    "--candidates",
    type=_FILE,
    help="Table with test rows for --split given: user, item(s), negatives, and domain if the rows "
    "test several.",
)
@click.option(
    "--valid-candidates",
    type=_FILE,
    help="Table with validation rows, as --candidates has them.  [default: drawn like the test "
    "rows]",
)
@click.option(
    "--folds", type=Integer(2), help="Number of folds of --split new-users.  [default: 5]"
)
@click.option(
    "--test-from",
    metavar="DATE",
    help="First day of the test rows, for splits by time.  [default: the last 10 % of rows]",
)
@click.option(
    "--valid-from",
    metavar="DATE",
    help="First day of the validation rows.  [default: the last 1/9 of rows before the test]",
)
@click.option(
    "--min-buyers",
    type=Integer(0),
    help="Number of buyers that a candidate needs before the test period.  [default: 0]",
)
@click.option(
    "--negatives",
    type=Integer(0),
    help="Negatives per test item; 0: all candidates.  [default: 99, or those of --candidates]",
)
@click.option(
    "--mask-seen/--rank-seen",
    default=None,
    help="Leave items that a user already has out of the ranking, or rank them.  [default: mask]",
)
@click.option(
    "--refit/--no-refit",
    default=None,
    help="Train final models on the validation rows too.  [default: refit]",
)
@click.option(
    "--max-per-user",
    type=Integer(1),
    help="Use only so many of the newest interactions of a user.  [default: all]",
)
@click.option("--seed", type=Integer(0), help="Seed of every random choice.  [default: 0]")
@click.option(
    "--dry-run", is_flag=True, help="Only show how the tables are read; write no dataset."
)
@quiet_option
@json_option
@click.option(
    "--out",
    type=_FILE,
    callback=out_folder,
    help="Folder to write; a dataset in it is replaced.",
)
def prepare(
    interactions: tuple[Path, ...],
    items: tuple[Path, ...],
    schema: Path | None,
    columns: str | None,
    encoding: str | None,
    preset: str | None,
    max_per_user: int | None,
    dry_run: bool,
    as_json: bool,
    out: Path | None,
    **split_options: Any,
) -> None:
    """Clean tables of interactions and items, split them, and write a dataset.

    Rows that are left out are counted by reason. The split is stored for all later commands.

    \b
    A schema names columns that are not recognised, for example:
      [files]
      encoding = "cp949"           # if it cannot be found
      decimal = ","
      columns = ["who", "what"]    # if interactions have no header line
      [interactions]
      user = "who"
      [items]
      text = ["about"]
      list = { genres = "|" }      # several categories in a cell: A|B|C
      [domains]
      "United Kingdom" = "uk"
      "*" = "non_uk"
      [events]
      kauf = "purchase"
      [clean]
      duplicates = "first-pair"
      positive_price = true
      missing = ["NULL"]           # ids that mean that there is none
      cancelled = { column = "InvoiceNo", prefix = "C" }
      max_per_user = 2000
    
    If domains differ in their units or names:
      [scale]
      by_domain = true             # rank numbers within their domain
      [scale.price]
      uk = 1.17                    # pounds to the common euro
      [align.category]
      mode = "name"                # or "id" with id = "COLUMN", or "vector"
      pairs = { "Lait" = "Milk" }  # other name = the name that stays
      [align]
      item_map = "map.csv"         # columns from, to: one product, two ids
    """
    if preset and (schema or items):
        raise click.UsageError("--preset has its own schema and items: omit --schema and --items")
    if not preset and not interactions:
        raise click.UsageError("pass --interactions FILE or --preset NAME")
    if out is None and not dry_run:
        raise click.UsageError("pass --out FOLDER, or --dry-run")
    if preset and (columns or encoding):
        raise click.UsageError("--preset has its own schema: omit --columns and --encoding")
    _check_extra()
    from tlrec_edge.data.describe import describe
    from tlrec_edge.data.store import DATASET, dataset_hash, save_dataset, split_hash

    if out is not None and not dry_run:
        check_target(out, DATASET)
    with show_progress("prepare") as progress:
        progress.begin(preset or ", ".join(path.name for path in interactions))
        changes = _Changes(max_per_user, columns, encoding)
        prepared = _build(interactions, items, schema, preset, changes, split_options)
        if out is not None and not dry_run:
            save_dataset(prepared.dataset, out)
    hashes = {"hash": dataset_hash(prepared.dataset), "split_hash": split_hash(prepared.dataset)}
    report = {"out": None if dry_run else str(out), **hashes, **describe(prepared)}
    if as_json:
        say_json(report)
    else:
        _show(report)


def _check_extra() -> None:
    for name in ("pyarrow", "scipy"):
        if find_spec(name) is None:
            raise MissingExtraError(f"prepare ({name})", "build")


class _Changes(NamedTuple):
    """Options that change the schema; None leaves it as it is."""

    max_per_user: int | None
    columns: str | None
    encoding: str | None


def _build(
    interactions: tuple[Path, ...],
    items: tuple[Path, ...],
    schema: Path | None,
    preset: str | None,
    changes: _Changes,
    split_options: Mapping[str, Any],
) -> Any:
    from tlrec_edge.data.prepare import SplitPlan, prepare_files
    from tlrec_edge.data.presets import PRESETS as KNOWN
    from tlrec_edge.data.presets import prepare_preset
    from tlrec_edge.tabular.schema import Schema, load_schema

    settings = {name: value for name, value in split_options.items() if value is not None}
    kind = settings.pop("split", "given" if "candidates" in settings else None)
    plan = KNOWN[preset].plan if preset else SplitPlan()
    plan = replace(plan, kind=kind or plan.kind, **settings)
    if preset:
        return prepare_preset(preset, interactions, plan, changes.max_per_user or 0)
    rules = load_schema(schema) if schema else Schema()
    files = rules.files
    if changes.columns is not None:
        names = tuple(name.strip() for name in changes.columns.split(","))
        files = replace(files, columns=names)
    if changes.encoding is not None:
        files = replace(files, encoding=changes.encoding)
    limit = changes.max_per_user or rules.max_per_user
    rules = replace(rules, max_per_user=limit, files=files)
    return prepare_files(interactions, items, rules, plan)


def _show(report: Mapping[str, Any]) -> None:
    cleaning = [[reason, f"{count:,}"] for reason, count in report["cleaning"].items()]
    print_table(["rows", "count"], cleaning, "Cleaning")
    domains = sorted(report["domains"].items(), key=lambda pair: -pair[1])[:_MAX_DOMAINS]
    rows = [[name, f"{count:,}"] for name, count in domains]
    title = f"Domains, {len(rows)} largest of {len(report['domains'])}"
    print_table(["domain", "interactions"], rows, title)
    if len(report["domains"]) > 1 and report["numbers"]:
        _show_numbers(report["numbers"])
    if report["merged"]:
        _show_merged(report["merged"])
    for line in _lines(report):
        say(line)


def _show_numbers(levels: Sequence[Mapping[str, Any]]) -> None:
    head = ["number", "domain", "known", "missing", "median", "largest", "scaled by"]
    rows = []
    for level in levels[:_MAX_DOMAINS]:
        values = (level[name] for name in ("median", "largest", "factor"))
        sizes = (MISSING if value is None else f"{value:,.6g}" for value in values)
        counts = f"{level['known']:,}", f"{level['missing']:,}"
        rows.append([level["column"], level["domain"], *counts, *sizes])
    print_table(head, rows, "Numbers by domain")


def _show_merged(merged: Sequence[Mapping[str, Any]]) -> None:
    shown = merged[:_MAX_MERGED]
    rows = [
        [str(row[name]) for name in ("column", "name", "into", "how", "items")] for row in shown
    ]
    head = ["column", "name", "is now", "by", "items"]
    print_table(head, rows, f"Names merged, {len(shown)} of {len(merged)}")


def _lines(report: Mapping[str, Any]) -> list[str]:
    split, per_user = report["split"], report["rows_per_user"]
    roles = report["interaction_columns"].items()
    columns = ", ".join(f"{role} = {column}" for role, column in roles)
    kinds = report["item_features"].items()
    features = ", ".join(f"{column} ({kind})" for column, kind in kinds)
    parts = ", ".join(f"{split[part]:,} {part}" for part in ("train", "valid", "test"))
    if split["test_rows"] is not None:
        parts += f", {counted(split['test_rows'], 'given test row')}"
    if split["valid_rows"] is not None:
        parts += f", {counted(split['valid_rows'], 'given validation row')}"
    if split["duplicates"]:
        parts += f" ({counted(split['duplicates'], 'duplicate')} left out)"
    never_sold = f"{report['items_never_sold']:,} never sold"
    written = f"wrote {report['out']} ({report['hash'][:12]})" if report["out"] else "wrote nothing"
    return [
        *map(_scale_warning, report["far_apart"]),
        *(f"note: {note}" for note in report["notes"]),
        f"read as: {'; '.join(report['formats'])}",
        *_lines_on_times(report["times"]),
        *_lines_on_items(report["item_table"]),
        f"columns: {columns}",
        f"item features: {features or 'none'}",
        f"columns not used: {', '.join(report['unused_columns']) or 'none'}",
        f"split {split['kind']}: {parts}",
        f"{counted(report['users'], 'user')}, {counted(report['items'], 'item')} ({never_sold})",
        f"interactions per user: median {per_user['median']:,g}, most {per_user['most']:,}",
        written,
    ]


def _lines_on_times(times: Mapping[str, str] | None) -> list[str]:
    if times is None:
        return []
    return [f"times: {times['first']} to {times['last']} UTC, read as {times['read_as']}"]


def _lines_on_items(match: Mapping[str, int] | None) -> list[str]:
    if match is None:
        return []
    return [f"items of the log in the item table: {match['known']:,} of {match['of']:,}"]


def _scale_warning(pair: Mapping[str, Any]) -> str:
    medians = f"the median of {pair['high']} is {pair['times']:,.0f} times that of {pair['low']}"
    return (
        f"{pair['column']}: {medians}; another currency or unit? "
        "See [scale] in: tlrec-edge prepare --help"
    )
