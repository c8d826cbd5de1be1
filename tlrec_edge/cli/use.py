"""The commands score, recommend and similar, which use a bundle."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from tlrec_edge.cli.common import (
    Integer,
    PathType,
    bundle_argument,
    check_inputs,
    json_option,
    key_in_file,
    out_table,
    speed_option,
)
from tlrec_edge.cli.format import print_table
from tlrec_edge.cli.output import say, say_json
from tlrec_edge.cli.progress import quiet_option, say_progress
from tlrec_edge.cli.user_lookup import Reading, UserLookup
from tlrec_edge.core.counts import counted
from tlrec_edge.errors import DataError
from tlrec_edge.runtime.arguments import UNKNOWN_POLICIES
from tlrec_edge.runtime.recommender import Recommendations, Recommender
from tlrec_edge.tabular.ids import read_id_chunks
from tlrec_edge.tabular.writer import TableWriter

_FILE = PathType()
_PAIRS_AT_ONCE = 262_144
"""Pairs in memory, about 100 MB; a user is encoded at most once per chunk."""
_PROGRESS_INTERVAL = 2.0
"""Seconds between two counts."""
_CACHED_STATES = 16_384
"""User states in memory, at most 64 MB."""
_SCORE_COLUMNS = {"user": str, "item": str, "score": float}
_RANK_COLUMNS = {"user": str, "rank": int, "item": str, "score": float, "name": str}
interactions_option = click.option(
    "--interactions",
    type=_FILE,
    help="Table with the users' histories (CSV or Parquet).  [default: states in the bundle]",
)
schema_option = click.option(
    "--schema",
    type=_FILE,
    help="TOML file that says how the tables are read.  [default: as those of the training]",
)
user_key_option = click.option(
    "--user-key-file",
    "user_key",
    type=_FILE,
    callback=key_in_file,
    help="File with the key of hashed user ids, if BUNDLE was exported with one.",
)
k_option = click.option(
    "-k",
    type=Integer(min=1),
    default=10,
    show_default=True,
    help="Number of items to return.",
)


@click.command(short_help="Score the user-item pairs of a table.")
@bundle_argument
@click.option(
    "--pairs", type=_FILE, required=True, help="Table with columns user and item (CSV or Parquet)."
)
@interactions_option
@schema_option
@user_key_option
@click.option(
    "--out",
    type=_FILE,
    required=True,
    callback=out_table,
    help="File to write: user, item, score (.csv, .csv.gz or .parquet).",
)
@click.option(
    "--unknown",
    type=click.Choice(UNKNOWN_POLICIES),
    default="popularity",
    show_default=True,
    help="Score of an item or user that the bundle does not know: by popularity, nan, or an error.",
)
@quiet_option
def score(
    bundle: Path,
    pairs: Path,
    interactions: Path | None,
    schema: Path | None,
    user_key: str | None,
    out: Path,
    unknown: str,
) -> None:
    """Score the user-item pairs of a table with BUNDLE."""
    check_inputs(out, pairs, interactions)
    with (
        Recommender.open(bundle, unknown=unknown, cache=_CACHED_STATES, user_key=user_key) as rec,
        TableWriter(out, _SCORE_COLUMNS) as writer,
    ):
        reading = Reading.of(rec, schema)
        users = UserLookup(rec, interactions, reading)
        progress = _progress_every("pairs scored")
        done = 0
        for chunk in read_id_chunks(pairs, ["user", "item"], reading.schema, _PAIRS_AT_ONCE):
            user, item = chunk["user"], chunk["item"]
            scores = rec.score_pairs([users.get(name) for name in user.ids], item.ids)
            writer.write(user.written, item.written, scores)
            done += len(scores)
            progress(done)
        if not done:
            raise DataError(f"{pairs} has no rows: it needs columns user and item")
        users.report(unknown)
        if missing := rec.stats()["unknown_candidates"]:
            say(
                f"pairs with an item that is not a candidate: {missing:,} ({unknown})",
                err=True,
            )
    say(f"{counted(done, 'pair')} scored: {out}", err=True)


@click.command(short_help="Recommend items for a history or a table of users.")
@bundle_argument
@click.option(
    "--history",
    multiple=True,
    help="Items of one user as a,b,c, oldest first. Quote an id with a comma: '\"a,b\",c'.",
)
@click.option(
    "--item",
    "items",
    multiple=True,
    help="One item of the history, with any characters; repeatable.",
)
@click.option(
    "--users",
    "users_file",
    type=_FILE,
    help="Table with a user column: recommend to every user (CSV or Parquet).",
)
@interactions_option
@schema_option
@user_key_option
@k_option
@click.option(
    "--keep-seen",
    is_flag=True,
    help="Also recommend items of the history.  [default: leave them out]",
)
@click.option("--category", help="Recommend only items of this category.  [default: all]")
@speed_option
@click.option(
    "--out",
    type=_FILE,
    callback=out_table,
    help="File for user, rank, item, score, name (.csv, .csv.gz or .parquet).  [default: print]",
)
@quiet_option
@json_option
def recommend(
    bundle: Path,
    history: Sequence[str],
    items: Sequence[str],
    users_file: Path | None,
    interactions: Path | None,
    schema: Path | None,
    user_key: str | None,
    k: int,
    keep_seen: bool,
    category: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Recommend items of BUNDLE for one history, or for the users of a table."""
    history_items = [*(name for text in history for name in _ids(text)), *items]
    if bool(history or items) == (users_file is not None):
        raise click.UsageError("pass either --history (or --item), or --users FILE")
    if interactions is not None and users_file is None:
        raise click.UsageError("--interactions needs --users: it has the histories of users")
    check_inputs(out, users_file, interactions)
    exclude = None if keep_seen else "history"
    with Recommender.open(bundle, user_key=user_key) as rec:
        _check_k(rec, k)
        allow = None if category is None else rec.category(category)
        if users_file is None:
            found = rec.recommend(history_items, k, exclude=exclude, allow=allow)
            if unknown := rec.stats()["unknown_items"]:
                say(
                    f"{unknown} of {len(history_items)} history items are not in the bundle",
                    err=True,
                )
            results: Iterator[tuple[str, Recommendations]] = iter([("", found)])
            _show(results, out, as_json)
            return
        reading = Reading.of(rec, schema)
        users = UserLookup(rec, interactions, reading)
        progress = _progress_every("users done")
        chunks = read_id_chunks(users_file, ["user"], reading.schema, _PAIRS_AT_ONCE)
        names = dict.fromkeys(user for chunk in chunks for user in chunk["user"].ids)
        if not names:
            raise DataError(f"{users_file} has no rows: it needs a column user")
        results = (
            (user, rec.recommend(users.get(user), k, exclude=exclude, allow=allow))
            for user in names
        )
        _show(_with_progress(results, progress), out, as_json)
        users.report("popularity")


@click.command(short_help="Show the items most similar to an item.")
@bundle_argument
@click.argument("item")
@k_option
@json_option
def similar(bundle: Path, item: str, k: int, as_json: bool) -> None:
    """Show the candidates of BUNDLE whose vectors are most similar to that of ITEM."""
    with Recommender.open(bundle) as rec:
        _check_k(rec, k)
        _show(iter([("", rec.similar(item, k))]), None, as_json)


def _ids(text: str) -> list[str]:
    try:
        return [name for name in next(csv.reader([text], skipinitialspace=True), []) if name]
    except csv.Error as error:
        raise click.BadParameter(f"{text!r:.60} is not a list a,b,c ({error})") from error


def _check_k(rec: Recommender, k: int) -> None:
    if k > len(rec):
        raise DataError(
            f"-k {k} is more than the {len(rec):,} candidates of the bundle: use at most {len(rec)}"
        )


def _progress_every(unit: str) -> Callable[[int], None]:
    """Return a function that writes a count to stderr, at most every two seconds."""
    last = time.monotonic()

    def progress(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _PROGRESS_INTERVAL:
            last = time.monotonic()
            say_progress(f"{done:,} {unit}")

    return progress


def _with_progress(
    results: Iterable[tuple[str, Recommendations]], progress: Callable[[int], None]
) -> Iterator[Any]:
    for done, result in enumerate(results, 1):
        yield result
        progress(done)


def _show(results: Iterator[tuple[str, Recommendations]], out: Path | None, as_json: bool) -> None:
    """Write results to ``out``, or print one line of JSON or one table for each user."""
    if out is not None:
        with TableWriter(out, _RANK_COLUMNS) as writer:
            for user, found in results:
                n = len(found.items)
                writer.write(
                    [user] * n, list(range(1, n + 1)), found.items, found.scores, found.names
                )
        return
    for user, found in results:
        rows = zip(found.items, found.scores.tolist(), found.names, strict=True)
        if as_json:
            best = [{"item": item, "score": value, "name": name} for item, value, name in rows]
            record = {"user": user, "items": best} if user else {"items": best}
            say_json(record)
            continue
        cells = [
            [str(rank), item, f"{value:.4f}", name]
            for rank, (item, value, name) in enumerate(rows, 1)
        ]
        print_table(["rank", "item", "score", "name"], cells, f"user {user}" if user else "")
