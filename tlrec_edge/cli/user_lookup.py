"""Find the users that a command is run for: in a table of interactions, or in the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tlrec_edge.cli.common import announce_if_slow
from tlrec_edge.cli.output import say
from tlrec_edge.runtime.history import History
from tlrec_edge.runtime.recommender import Recommender
from tlrec_edge.tabular.histories import read_histories
from tlrec_edge.tabular.schema import Schema, load_schema, parse_schema

_SLOW_TO_READ = 30_000_000
"""Bytes above which reading a table takes more than about two seconds."""


class Reading(NamedTuple):
    """How the user's tables are read.

    Attributes:
        schema: that of ``--schema``, else that of the training.
        strict: whether columns that the schema names must occur in a log.
    """

    schema: Schema
    strict: bool

    @classmethod
    def of(cls, rec: Recommender, path: Path | None) -> Reading:
        """Read the schema file, or take the bundle's schema."""
        if path is not None:
            return cls(load_schema(path), strict=True)
        return cls(parse_schema(rec.schema), strict=False)


class UserLookup:
    """Finds users by id: their history in a table, else their state in the bundle."""

    def __init__(self, rec: Recommender, interactions: Path | None, reading: Reading) -> None:
        self._rec = rec
        self._histories: dict[str, History] = {}
        if interactions is not None:
            size = interactions.stat().st_size if interactions.is_file() else 0
            announce_if_slow(f"reading {interactions},", size, _SLOW_TO_READ)
            self._histories = read_histories(interactions, _to_stderr, *reading)
            self._report_lost(interactions)
        self._seen: set[str] = set()
        self._unknown: set[str] = set()

    def get(self, user: str) -> History | str:
        """Return the user's history, or the id if the table has none: the bundle may know it."""
        if user in self._histories:
            return self._histories[user]
        if user not in self._seen:
            self._seen.add(user)
            if not self._rec.has_user(user):
                self._unknown.add(user)
        return user

    def _report_lost(self, interactions: Path) -> None:
        """Write to stderr how many histories the bundle cannot use, because it knows no item."""
        histories = self._histories
        items = dict.fromkeys(item for history in histories.values() for item in history.items)
        rows = self._rec.rows(list(items))
        known = {item for item, row in zip(items, rows, strict=True) if row >= 0}
        lost = sum(known.isdisjoint(history.items) for history in histories.values())
        if lost:
            _to_stderr(
                f"{interactions}: {lost:,} of {len(histories):,} users: no item of their history "
                "is in the bundle"
            )

    def report(self, policy: str) -> None:
        """Write the number of unknown users to stderr."""
        if self._unknown:
            say(
                f"unknown users: {len(self._unknown):,} (scored by {policy})",
                err=True,
            )


def _to_stderr(line: str) -> None:
    say(line, err=True)
