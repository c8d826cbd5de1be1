"""``tlrec-edge prepare``: raw tables to a dataset folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlrec_edge.choices import PRESETS, SPLITS
from tlrec_edge.cli.common import out_folder
from tlrec_edge.core.folders import check_target
from tlrec_edge.errors import MissingExtraError

if TYPE_CHECKING:
    from rich.table import Table

_MAX_DOMAINS = 30
_MAX_MERGED = 20
_FILE = click.Path(path_type=Path)


@click.command(short_help="Clean raw tables into a dataset.")
@click.option(
    "--interactions",
    multiple=True,
    type=_FILE,
    help="CSV, TSV (also .gz) or Parquet; repeat the flag for more files.",
)
@click.option(
    "--items",
    multiple=True,
    type=_FILE,
    help="Item features, one row an item; repeat for more files.",
)
@click.option(
    "--schema",
    type=_FILE,
    help="TOML file: which column means what; common names are found without.",
)
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    help="A known data set; complete-journey needs no files.",
)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    help="How to hold out tests.  [default: leave-one-out, or the preset's]",
)
@click.option(
    "--candidates", type=_FILE, help="Test rows for --split given: user, item(s), negatives."
)
@click.option("--folds", type=click.IntRange(2), help="Folds of --split new-users.  [default: 5]")
@click.option(
    "--test-from", metavar="DATE", help="First test day, for splits by time.  [default: last 10 %]"
)
@click.option(
    "--valid-from",
    metavar="DATE",
    help="First validation day.  [default: last 1/9 before the test]",
)
@click.option(
    "--min-buyers",
    type=click.IntRange(0),
    help="Buyers a candidate needs before the test.  [default: 0]",
)
@click.option(
    "--negatives",
    type=click.IntRange(0),
    help="Others beside each test item; 0 = all.  [default: 99]",
)
@click.option(
    "--mask-seen/--rank-seen",
    default=None,
    help="Rank what a user already had among the others?  [default: mask]",
)
@click.option(
    "--refit/--no-refit",
    default=None,
    help="Let the final model learn from the validation rows.  [default: refit]",
)
@click.option(
    "--max-per-user",
    type=click.IntRange(1),
    help="Newest interactions kept of a user.  [default: all]",
)
@click.option("--seed", type=click.IntRange(0), help="Seed of every random choice.  [default: 0]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option(
    "--out",
    required=True,
    type=_FILE,
    callback=out_folder,
    help="Dataset folder to write; an older dataset there is replaced.",
)
def prepare(
    interactions: tuple[Path, ...],
    items: tuple[Path, ...],
    schema: Path | None,
    preset: str | None,
    max_per_user: int | None,
    as_json: bool,
    out: Path,
    **split_options: Any,
) -> None:
    """Read and clean tables of behaviour and items, split them, and store the dataset.

    Every row that is left out is counted by its reason. Later commands all obey the split that is stored here.

    \b
    A schema names what is not found by itself, for example:
      [interactions]
      user = "who"
      [items]
      text = ["about"]
      [domains]
      "United Kingdom" = "uk"
      "*" = "non_uk"
      [events]
      kauf = "purchase"
      [clean]
      duplicates = "first-pair"
      positive_price = true
      cancelled = { column = "InvoiceNo", prefix = "C" }
      max_per_user = 2000
    
    Where domains differ in their units or names:
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
        raise click.UsageError(
            "--preset brings its own schema and items: leave --schema and --items out"
        )
    if not preset and not interactions:
        raise click.UsageError("give --interactions FILE or --preset NAME")
    from rich.console import Console

    _check_extra()
    from tlrec_edge.data.describe import describe
    from tlrec_edge.data.store import DATASET, dataset_hash, save_dataset, split_hash

    check_target(out, DATASET)
    with Console(stderr=True).status(
        f"preparing {preset or ', '.join(path.name for path in interactions)} ..."
    ):
        prepared = _build(interactions, items, schema, preset, max_per_user or 0, split_options)
        save_dataset(prepared.dataset, out)
    hashes = {"hash": dataset_hash(prepared.dataset), "split_hash": split_hash(prepared.dataset)}
    report = {"out": str(out), **hashes, **describe(prepared)}
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        _show(report)


def _check_extra() -> None:
    for name in ("pandas", "pyarrow"):
        if find_spec(name) is None:
            raise MissingExtraError(f"prepare ({name})", "build")


def _build(
    interactions: tuple[Path, ...],
    items: tuple[Path, ...],
    schema: Path | None,
    preset: str | None,
    max_per_user: int,
    split_options: Mapping[str, Any],
) -> Any:
    from tlrec_edge.data.prepare import SplitPlan, prepare_files
    from tlrec_edge.data.presets import PRESETS as KNOWN
    from tlrec_edge.data.presets import prepare_preset
    from tlrec_edge.data.schema import Schema, load_schema

    given = {name: value for name, value in split_options.items() if value is not None}
    kind = given.pop("split", "given" if "candidates" in given else None)
    plan = KNOWN[preset].plan if preset else SplitPlan()
    plan = replace(plan, kind=kind or plan.kind, **given)
    if preset:
        return prepare_preset(preset, interactions, plan, max_per_user)
    found = load_schema(schema) if schema else Schema()
    found = replace(found, max_per_user=max_per_user or found.max_per_user)
    return prepare_files(interactions, items, found, plan)


def _show(report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=True)
    table = Table("rows", "count", title="Cleaning")
    table.columns[1].justify = "right"
    for reason, count in report["cleaning"].items():
        table.add_row(reason, f"{count:,}")
    console.print(table)
    shown = sorted(report["domains"].items(), key=lambda pair: -pair[1])[:_MAX_DOMAINS]
    domains = Table(
        "domain", "interactions", title=f"Domains, {len(shown)} largest of {len(report['domains'])}"
    )
    domains.columns[1].justify = "right"
    for name, count in shown:
        domains.add_row(
            Text(name), f"{count:,}"
        )  # Text: a name may hold "[", which is rich's markup
    console.print(domains)
    if len(report["domains"]) > 1 and report["numbers"]:
        console.print(_numbers(report["numbers"]))
    if report["merged"]:
        console.print(_merged(report["merged"]))
    for line in _lines(report):
        click.echo(line)


def _numbers(levels: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "number",
        "domain",
        "known",
        "missing",
        "median",
        "largest",
        "scaled by",
        title="Numbers by domain",
    )
    for row in levels[:_MAX_DOMAINS]:
        size = (
            "-" if row[name] is None else f"{row[name]:,.6g}"
            for name in ("median", "largest", "factor")
        )
        table.add_row(
            Text(row["column"]),
            Text(row["domain"]),
            f"{row['known']:,}",
            f"{row['missing']:,}",
            *size,
        )
    for column in table.columns[2:]:
        column.justify = "right"
    return table


def _merged(merged: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    shown = merged[:_MAX_MERGED]
    table = Table(
        "column",
        "name",
        "is now",
        "by",
        "items",
        title=f"Names merged, {len(shown)} of {len(merged)}",
    )
    for row in shown:
        table.add_row(
            *(Text(str(row[name])) for name in ("column", "name", "into", "how", "items"))
        )
    return table


def _lines(report: Mapping[str, Any]) -> list[str]:
    split, rows = report["split"], report["rows_per_user"]
    columns = ", ".join(
        f"{role} = {column}" for role, column in report["interaction_columns"].items()
    )
    features = ", ".join(f"{column} ({kind})" for column, kind in report["item_features"].items())
    test_rows = (
        f", {split['test_rows']:,} given test rows" if split["test_rows"] is not None else ""
    )
    return [
        *(
            f"{pair['column']}: the median of {pair['high']} is {pair['times']:,.0f} times that of {pair['low']}; "
            "another currency or unit? see [scale] in: tlrec-edge prepare --help"
            for pair in report["far_apart"]
        ),
        f"columns: {columns}",
        f"item features: {features or 'none'}",
        f"columns not used: {', '.join(report['unused_columns']) or 'none'}",
        f"split {split['kind']}: {split['train']:,} train, {split['valid']:,} valid, {split['test']:,} test{test_rows}",
        f"{report['users']:,} users, {report['items']:,} items ({report['items_never_sold']:,} never sold)",
        f"interactions a user: median {rows['median']:,g}, most {rows['most']:,}",
        f"wrote {report['out']} ({report['hash'][:12]})",
    ]
