"""Commands on a finished bundle: inspect, verify, score, recommend, similar."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tlrec_edge.bundle.format import MANIFEST
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.cli.common import out_file, speed_option
from tlrec_edge.errors import DataError
from tlrec_edge.runtime.arguments import UNKNOWN_POLICIES
from tlrec_edge.runtime.history import History
from tlrec_edge.runtime.recommender import Recommendations, Recommender
from tlrec_edge.tabular.histories import read_histories
from tlrec_edge.tabular.tables import TableWriter, read_columns

_FILE = click.Path(path_type=Path)
_PROGRESS_INTERVAL = 2.0
_PAIRS_AT_ONCE, _STATES = (
    262_144,
    16_384,
)  # a user is encoded once a chunk at most; each some 100 MB
_LARGE, _LARGE_TABLE = 1_000_000_000, 30_000_000
_SCORE_COLUMNS = {"user": str, "item": str, "score": float}
_RANK_COLUMNS = {"user": str, "rank": int, "item": str, "score": float, "name": str}
bundle_argument = click.argument("bundle", type=_FILE)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for machines instead of a table."
)
interactions_option = click.option(
    "--interactions",
    type=_FILE,
    help="Interaction table (CSV or Parquet) that the users' histories are read from.",
)
k_option = click.option(
    "-k",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many items to return.",
)


@click.command()
@bundle_argument
@json_option
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE is: its cards, sizes and hashes."""
    opened = Bundle.open(bundle)
    if as_json:
        click.echo(json.dumps(opened.manifest, ensure_ascii=False))
        return
    console = Console(soft_wrap=True, highlight=False)
    manifest, shape = opened.manifest, opened.shape
    overview = Table("", "", title=str(bundle), show_header=False)
    written = f"{manifest.get('created')} by tlrec-edge {manifest.get('tlrec_edge')}"
    overview.add_row("written", f"{written}, format {manifest['format']}")
    overview.add_row(
        "model",
        f"{manifest['model'].get('size')}, {manifest['model'].get('mode')}, tables {shape.tables}",
    )
    overview.add_row("items", f"{shape.items:,}, of which {shape.candidates:,} candidates")
    overview.add_row("vectors", f"{shape.d} deep + {shape.r} interest, history of {shape.length}")
    console.print(overview)
    for card in ("quality", "transfer", "latency", "index", "parity", "provenance"):
        if manifest.get(card):
            for table in _card(card, manifest[card]):
                console.print(table)
    files = Table("file", "bytes", "sha256", title="files")
    for name, entry in manifest["files"].items():
        files.add_row(name, f"{entry['size']:,}", entry["sha256"][:16])
    total = sum(entry["size"] for entry in manifest["files"].values())
    files.add_row("total", f"{total:,}", "")
    console.print(files)


@click.command()
@bundle_argument
@json_option
def verify(bundle: Path, as_json: bool) -> None:
    """Hash every file of BUNDLE, check its arrays and load its graphs."""
    _announce_if_large(
        "hashing", sum(file.stat().st_size for file in bundle.iterdir()) if bundle.is_dir() else 0
    )
    with Recommender.open(bundle, verify="full") as opened:
        files = opened.manifest["files"]
    size = sum(entry["size"] for entry in files.values()) + (bundle / MANIFEST).stat().st_size
    if as_json:
        click.echo(json.dumps({"ok": True, "files": len(files), "bytes": size}))
    else:
        click.echo(f"ok: {len(files)} files, {size:,} bytes, as the manifest says")


@click.command()
@bundle_argument
@click.option("--pairs", type=_FILE, required=True, help="Table of user, item (CSV or Parquet).")
@interactions_option
@click.option(
    "--out",
    type=_FILE,
    required=True,
    callback=out_file,
    help="File to write: user, item, score (.csv, .csv.gz or .parquet).",
)
@click.option(
    "--unknown",
    type=click.Choice(UNKNOWN_POLICIES),
    default="popularity",
    show_default=True,
    help="How an item or user that the bundle does not know is scored.",
)
def score(bundle: Path, pairs: Path, interactions: Path | None, out: Path, unknown: str) -> None:
    """Score the user-item pairs of a file with BUNDLE."""
    with (
        Recommender.open(bundle, unknown=unknown, cache=_STATES) as rec,
        TableWriter(out, _SCORE_COLUMNS) as writer,
    ):
        users = UserLookup(rec, interactions)
        progress = _progress_every("pairs scored")
        done = 0
        for chunk in read_columns(pairs, ["user", "item"], chunk=_PAIRS_AT_ONCE):
            scores = rec.score_pairs([users.get(user) for user in chunk["user"]], chunk["item"])
            writer.write(chunk["user"], chunk["item"], scores)
            done += len(scores)
            progress(done)
        if not done:
            raise DataError(f"{pairs} has no rows; expected user, item")
        users.report(unknown)
        if missing := rec.stats()["unknown_candidates"]:
            click.echo(
                f"{missing:,} pairs name an item that is no candidate of the bundle ({unknown})",
                err=True,
            )
    click.echo(f"{done:,} pairs scored: {out}", err=True)


@click.command()
@bundle_argument
@click.option(
    "--history",
    multiple=True,
    help="Items of one user, oldest first: a,b,c. An id with a comma: '\"a,b\",c'.",
)
@click.option(
    "--item",
    "items",
    multiple=True,
    help="One item of the history, taken as it is; may be repeated.",
)
@click.option(
    "--users", "users_file", type=_FILE, help="Table with a user column: recommend to each of them."
)
@interactions_option
@k_option
@click.option("--keep-seen", is_flag=True, help="Recommend items of the history too.")
@click.option("--category", help="Recommend items of this category alone.")
@speed_option
@click.option(
    "--out",
    type=_FILE,
    callback=out_file,
    help="File to write: user, rank, item, score, name (.csv, .csv.gz or .parquet).",
)
@json_option
def recommend(
    bundle: Path,
    history: Sequence[str],
    items: Sequence[str],
    users_file: Path | None,
    interactions: Path | None,
    k: int,
    keep_seen: bool,
    category: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Recommend items from BUNDLE to one history, or to the users of a file."""
    history_items = [*(name for text in history for name in _ids(text)), *items]
    if bool(history or items) == (users_file is not None):
        raise click.UsageError("give either --history (or --item), or --users FILE")
    exclude = None if keep_seen else "history"
    with Recommender.open(bundle) as rec:
        _check_k(rec, k)
        allow = None if category is None else rec.category(category)
        if users_file is None:
            found = rec.recommend(history_items, k, exclude=exclude, allow=allow)
            if unknown := rec.stats()["unknown_items"]:
                click.echo(
                    f"{unknown} of {len(history_items)} history items are not in the bundle",
                    err=True,
                )
            results: Iterator[tuple[str, Recommendations]] = iter([("", found)])
            _show(results, out, as_json)
            return
        users = UserLookup(rec, interactions)
        progress = _progress_every("users done")
        names = dict.fromkeys(
            user for chunk in read_columns(users_file, ["user"]) for user in chunk["user"]
        )
        if not names:
            raise DataError(f"{users_file} has no rows; expected a user column")
        results = (
            (user, rec.recommend(users.get(user), k, exclude=exclude, allow=allow))
            for user in names
        )
        _show(_with_progress(results, progress), out, as_json)
        users.report("popularity")


@click.command()
@bundle_argument
@click.argument("item")
@k_option
@json_option
def similar(bundle: Path, item: str, k: int, as_json: bool) -> None:
    """Show the candidates of BUNDLE whose vectors are nearest to ITEM."""
    with Recommender.open(bundle) as rec:
        _check_k(rec, k)
        _show(iter([("", rec.similar(item, k))]), None, as_json)


class UserLookup:
    """User ids to what the Recommender takes: the history of a file, else the bundle's own user table."""

    def __init__(self, rec: Recommender, interactions: Path | None) -> None:
        self._rec = rec
        self._histories: dict[str, History] = {}
        if interactions is not None:
            size = interactions.stat().st_size if interactions.is_file() else 0
            _announce_if_large(f"reading {interactions},", size, _LARGE_TABLE)
            self._histories = read_histories(interactions, lambda line: click.echo(line, err=True))
        self._seen: set[str] = set()
        self._unknown: set[str] = set()

    def get(self, user: str) -> History | str:
        """Return the user's history, or the id: the bundle's state, or popularity where it stores none."""
        if user in self._histories:
            return self._histories[user]
        if user not in self._seen:
            self._seen.add(user)
            if not self._rec.has_user(user):
                self._unknown.add(user)
        return user

    def report(self, policy: str) -> None:
        """Say on stderr how many users nothing is known of."""
        if self._unknown:
            click.echo(
                f"{len(self._unknown):,} users of whom nothing is known: scored by {policy}",
                err=True,
            )


def _announce_if_large(what: str, size: int, limit: int = _LARGE) -> None:
    """Say on stderr what takes more than about two seconds."""
    if size > limit:
        click.echo(f"{what} {size:,} bytes", err=True)


def _ids(text: str) -> list[str]:
    try:
        return [name for name in next(csv.reader([text], skipinitialspace=True), []) if name]
    except csv.Error as error:
        raise click.BadParameter(f"{text!r:.60} is not a list a,b,c ({error})") from error


def _check_k(rec: Recommender, k: int) -> None:
    if k > len(rec):
        raise DataError(
            f"-k {k} is more than the {len(rec):,} candidates of the bundle; ask for at most {len(rec)}"
        )


def _card(title: str, card: Any) -> Iterator[Table]:
    """Yield a card as a table of names and values, and each list of records in it as a table of its own."""
    overview = Table("", "", title=title, show_header=False)
    records = []
    for key, value in _flat(card) if isinstance(card, dict) else [("", card)]:
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            records.append((key, value))
        else:
            overview.add_row(_safe_text(key), _safe_text(_format_value(value)))
    if overview.row_count:
        yield overview
    for key, rows in records:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = Table(*(Column(_safe_text(name)) for name in columns), title=f"{title}: {key}")
        for row in rows:
            table.add_row(*(_safe_text(_format_value(row.get(name))) for name in columns))
        yield table


def _flat(card: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in card.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value


def _format_value(value: Any) -> str:
    """Return a value of a card as a reader wants it: four digits, thousands, no brackets."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return ", ".join(map(_format_value, value)) if isinstance(value, list) else str(value)


def _progress_every(what: str) -> Callable[[int], None]:
    """Return a function that says how far the work is, at most every two seconds."""
    last = time.monotonic()

    def progress(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _PROGRESS_INTERVAL:
            last = time.monotonic()
            click.echo(f"{done:,} {what}", err=True)

    return progress


def _with_progress(
    results: Iterable[tuple[str, Recommendations]], progress: Callable[[int], None]
) -> Iterator[Any]:
    for done, result in enumerate(results, 1):
        yield result
        progress(done)


def _show(results: Iterator[tuple[str, Recommendations]], out: Path | None, as_json: bool) -> None:
    """Write results to ``out``, or print them: one line of JSON for each user, or one table each."""
    if out is not None:
        with TableWriter(out, _RANK_COLUMNS) as writer:
            for user, found in results:
                n = len(found.items)
                writer.write(
                    [user] * n, list(range(1, n + 1)), found.items, found.scores, found.names
                )
        return
    console = Console(soft_wrap=True, highlight=False)
    for user, found in results:
        rows = zip(found.items, found.scores.tolist(), found.names, strict=True)
        if as_json:
            best = [{"item": item, "score": value, "name": name} for item, value, name in rows]
            click.echo(
                json.dumps(
                    {"user": user, "items": best} if user else {"items": best}, ensure_ascii=False
                )
            )
            continue
        table = Table("rank", "item", "score", "name", title=f"user {user}" if user else None)
        for rank, (item, value, name) in enumerate(rows, 1):
            table.add_row(str(rank), _safe_text(item), f"{value:.4f}", _safe_text(name))
        console.print(table)


def _safe_text(text: str) -> Text:
    """Return text that rich does not read as markup, and that a terminal can show."""
    return Text(text.encode("utf-8", "replace").decode())
