"""The clean data that every later stage reads: integer columns, checked on construction."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.choices import EVENTS, SPLITS
from tlrec_edge.core.counts import counted
from tlrec_edge.core.result_cache import ResultCache
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column_names import SALES_NAMES, normalize_key
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.tabular.times import PLAUSIBLE
from tlrec_edge.types import Bools, Floats, Indices, Ints, Longs

if TYPE_CHECKING:
    from tlrec_edge.data.prepare import SplitPlan

_MAX_SHOWN = 5
"""Domains that the text of a dataset names."""
TRAIN, VALID, TEST = 0, 1, 2
"""Roles of an interaction in the split."""


class DataWarning(UserWarning):
    """Something is odd about a table, but may be right. Filter it as any warning of Python."""


@dataclass(frozen=True)
class Interactions:
    """Columns of equal length n, sorted by user, then by time.

    Attributes:
        user: row of the user.
        item: row of the item.
        domain: code of the domain.
        event: index into ``EVENTS``.
        weight: the event's weight, times ``log1p`` of its count if the data has counts.
        time: seconds since 1970, 0 if the data has no times.
        position: index of the row in the clean input, which orders rows of equal time.

    Raises:
        DataError: if the columns differ in length or are not sorted.
    """

    user: Ints
    item: Ints
    domain: Ints
    event: Ints
    weight: Floats
    time: Longs
    position: Ints

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(set(lengths.values())) != 1:
            raise DataError(f"interaction columns differ in length: {lengths}")
        order = (self.user[1:] > self.user[:-1]) | (
            (self.user[1:] == self.user[:-1]) & (self.time[1:] >= self.time[:-1])
        )
        if not order.all():
            raise DataError("interactions must be sorted by user, then time")

    def __len__(self) -> int:
        return len(self.user)

    @property
    def has_dates(self) -> bool:
        """Whether the times are dates: the log has some, and they are not an order only."""
        return bool(self.time.max(initial=0) >= PLAUSIBLE)

    def select(self, keep: Bools | Indices) -> Interactions:
        """Return the rows of a mask, or of ascending indices."""
        return Interactions(
            **{name: getattr(self, name)[keep] for name in self.__dataclass_fields__}
        )


@dataclass(frozen=True)
class ItemTable:
    """Raw features, one row an item.

    Attributes:
        name: display names.
        text: text columns, "" for missing values.
        categorical: categorical columns, "" for missing values.
        numeric: numeric columns, NaN for missing values.
        aliases: for each categorical column whose names were aligned, other name to the name used.
        by_domain: whether numbers are ranked within the item's domain.

    Raises:
        DataError: if a column differs in length.
    """

    name: tuple[str, ...]
    text: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    categorical: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numeric: Mapping[str, Floats] = field(default_factory=dict)
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    by_domain: bool = False

    def __post_init__(self) -> None:
        for group in (self.text, self.categorical, self.numeric):
            for column, values in group.items():
                if len(values) != len(self.name):
                    raise DataError(
                        f"item column '{column}' has {len(values)} rows, expected {len(self.name)}"
                    )

    def __len__(self) -> int:
        return len(self.name)

    @property
    def sales(self) -> Floats | None:
        """The numeric column of units sold, found by its name; None without one."""
        names = (name for name in self.numeric if normalize_key(name) in SALES_NAMES)
        return next((self.numeric[name] for name in names), None)


@dataclass(frozen=True)
class EvalRows:
    """Evaluation rows: rank ``item`` (the positive) among ``negatives`` for ``user``.

    Attributes:
        user: (m,) rows of the users.
        item: (m,) rows of the positives.
        negatives: (m, k) rows of the negatives, -1 if a row has fewer than k. With k = 0 the
            positive is ranked among all candidates.
        domain: (m,) code of the domain that a row tests, -1 for every domain; None: all rows are
            for every domain.
        duplicates: number of ids that were left out when the rows were read, because they occur
            twice in their row.
    """

    user: Ints
    item: Ints
    negatives: Ints
    domain: Ints | None = None
    duplicates: int = field(default=0, kw_only=True)

    def __len__(self) -> int:
        return len(self.user)

    def select(self, keep: Bools | Indices) -> EvalRows:
        """Return the rows of a mask, or of indices."""
        domain = None if self.domain is None else self.domain[keep]
        return EvalRows(self.user[keep], self.item[keep], self.negatives[keep], domain)

    def of_domains(self, codes: Ints) -> EvalRows:
        """Return the rows that test any of the domains in ``codes``, or every domain."""
        if self.domain is None:
            return self
        return self.select(np.isin(self.domain, [*codes, -1]))


@dataclass(frozen=True)
class Split:
    """How the interactions are divided into training, validation and test.

    Attributes:
        kind: name of the kind of split.
        role: (interactions,) TRAIN, VALID or TEST.
        fold: (users,) fold of each user, -1 for none. Kind new-users treats the users of a fold as
            new to the target.
        refit: whether the final model is fitted on the validation rows too.
        mask_seen: whether items that the user already had are excluded from the ranking.
        negatives: sampled negatives per evaluation row, 0 for all candidates.
        seed: seed of everything that is drawn.
        settings: what else the kind of split stores.
        rows: test rows that came with the data (kind given); other kinds derive them from the
            roles.
        valid_rows: validation rows that came with the data; None: they are drawn.

    Raises:
        DataError: if the kind is unknown, or a number is negative.
    """

    kind: str
    role: NDArray[np.int8]
    fold: Ints
    refit: bool = True
    mask_seen: bool = True
    negatives: int = 99
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: EvalRows | None = None
    valid_rows: EvalRows | None = None

    def __post_init__(self) -> None:
        if self.kind not in SPLITS:
            raise DataError(f"unknown split {self.kind!r:.40}; known: {', '.join(SPLITS)}")
        for name in ("negatives", "seed"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise DataError(f"{name} = {value!r:.40}, expected a whole number of 0 or more")

    @property
    def folds(self) -> int:
        """The number of folds of the users."""
        return int(self.fold.max(initial=-1)) + 1


@dataclass(frozen=True, eq=False)
class Dataset:
    """Users, items, domains, their interactions, and the split.

    Datasets are compared by identity; use ``store.dataset_hash`` to compare contents.

    Attributes:
        users: user ids.
        items: item ids.
        domains: domain names.
        interactions: the log.
        features: the item features.
        split: how the log is divided.
        item_domain: (items,) code of each item's own domain, -1 if it has none.
        cleaning: rows read, rows kept, and rows dropped by reason.
        source: origin of the data, for the model card.
        schema: how the tables were read; an export carries it, so that a log that is scored later
            is read in the same way.
        cache: a store of results that depend on the data; None: they are not kept.

    Raises:
        DataError: if there are no interactions or the parts do not fit together.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    domains: tuple[str, ...]
    interactions: Interactions
    features: ItemTable
    split: Split
    item_domain: Ints
    cleaning: Mapping[str, int] = field(default_factory=dict)
    source: str = ""
    schema: Schema = field(default_factory=Schema)
    cache: ResultCache | None = None

    def __post_init__(self) -> None:
        log = self.interactions
        if not len(log):
            raise DataError(
                "the dataset has no interactions; the cleaning table shows why rows were dropped"
            )
        if len(self.features) != len(self.items) or len(self.item_domain) != len(self.items):
            raise DataError(
                f"item features have {len(self.features)} rows, expected {len(self.items)}"
            )
        if len(self.split.role) != len(log) or len(self.split.fold) != len(self.users):
            raise DataError("the split does not fit the interactions")
        users, items, domains = len(self.users), len(self.items), len(self.domains)
        _check_codes("interaction column 'user'", log.user, 0, users)
        _check_codes("interaction column 'item'", log.item, 0, items)
        _check_codes("interaction column 'domain'", log.domain, 0, domains)
        _check_codes("interaction column 'event'", log.event, 0, len(EVENTS))
        _check_codes("the items' domains", self.item_domain, -1, domains)
        _check_codes("the roles of the split", self.split.role, TRAIN, TEST + 1)
        _check_codes("the folds of the split", self.split.fold, -1, users)
        for rows in (self.split.rows, self.split.valid_rows):
            if rows is not None:
                _check_eval_rows(rows, users, items, domains)

    @classmethod
    def from_frames(
        cls,
        interactions: Any,
        items: Any = None,
        *,
        schema: Schema | Mapping[str, Any] | None = None,
        split: SplitPlan | None = None,
    ) -> Dataset:
        """Clean and split tables in memory, as ``tlrec-edge prepare`` does it with files.

        Args:
            interactions: a pandas, polars or pyarrow table, or another object with the Arrow
                PyCapsule interface; or a list of them.
            items: the same with the items' features, one row an item. None: no features.
            schema: roles of the columns and cleaning rules: a ``Schema``, or the tables of a
                schema file, such as ``{"interactions": {"user": "who"}}``. None: columns are
                found by their common names.
            split: how to hold out test rows. None: each user's last rows.

        Returns:
            The dataset. ``tlrec_edge.data.prepare.prepare_tables`` also says how the columns were
            read.

        Raises:
            DataError: if a table, a column or the split cannot be used.

        Warns:
            DataWarning: once for each thing that is odd about the tables, but may be right, such
                as events that are not recognised: what ``prepare`` prints as notes.

        Example:
            >>> log = {"user": ["ann", "ann"], "item": ["tea", "mug"], "time": [1.7e9, 1.8e9]}
            >>> Dataset.from_frames(log).items
            ('mug', 'tea')
        """
        from tlrec_edge.data.prepare import prepare_tables  # which makes datasets

        tables = _as_list(interactions), [] if items is None else _as_list(items)
        prepared = prepare_tables(*tables, schema, split)
        for note in dict.fromkeys(prepared.notes):
            warnings.warn(note, DataWarning, stacklevel=2)
        return prepared.dataset

    def __repr__(self) -> str:
        """Return the sizes: all rows of a log would fill the screen."""
        names = [repr(name) for name in self.domains[:_MAX_SHOWN]]
        others = (
            [f"and {len(self.domains) - len(names):,} more"] if self.domains[_MAX_SHOWN:] else []
        )
        sizes = ", ".join(
            (
                counted(len(self.interactions), "interaction"),
                counted(len(self.users), "user"),
                counted(len(self.items), "item"),
                f"{counted(len(self.domains), 'domain')} ({', '.join(names + others)})",
            )
        )
        return f"<Dataset: {sizes}, split {self.split.kind}>"

    @cached_property
    def item_row(self) -> dict[str, int]:
        """Row of each item id."""
        return {name: row for row, name in enumerate(self.items)}

    @cached_property
    def user_row(self) -> dict[str, int]:
        """Row of each user id."""
        return {name: row for row, name in enumerate(self.users)}

    @property
    def has_time(self) -> bool:
        """Whether the interactions have times."""
        return bool(self.interactions.time.any())

    def domain_codes(self, names: tuple[str, ...]) -> Ints:
        """Return the codes of domain names. Raises DataError if one is unknown."""
        unknown = [name for name in names if name not in self.domains]
        if unknown:
            raise DataError(f"unknown domain {unknown[0]!r}; known: {', '.join(self.domains[:30])}")
        return np.array([self.domains.index(name) for name in names], np.int32)

    def with_items(self, ids: Sequence[str]) -> Self:
        """Return the dataset with more items, which have no features and no domain."""
        features, n = self.features, len(ids)
        blank, unknown = ("",) * n, np.full(n, np.nan, np.float32)
        table = replace(
            features,
            name=(*features.name, *ids),
            text={name: (*column, *blank) for name, column in features.text.items()},
            categorical={k: (*column, *blank) for k, column in features.categorical.items()},
            numeric={k: np.append(column, unknown) for k, column in features.numeric.items()},
        )
        item_domain = np.append(self.item_domain, np.full(n, -1, np.int32))
        return self.replace(items=(*self.items, *ids), features=table, item_domain=item_domain)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values for some fields."""
        return replace(self, **changes)


def _check_codes(name: str, codes: NDArray[Any], low: int, end: int) -> None:
    if codes.size and not (low <= codes.min() and codes.max() < end):
        raise DataError(f"{name}: codes outside {low}..{end - 1}, the rows of their table")


def _check_eval_rows(rows: EvalRows, users: int, items: int, domains: int) -> None:
    domain = np.full(len(rows), -1) if rows.domain is None else rows.domain
    if not len(rows.user) == len(rows.item) == len(rows.negatives) == len(domain):
        raise DataError("the columns of the evaluation rows differ in length")
    _check_codes("evaluation column 'user'", rows.user, 0, users)
    _check_codes("evaluation column 'item'", rows.item, 0, items)
    _check_codes("evaluation column 'negatives'", rows.negatives, -1, items)
    _check_codes("evaluation column 'domain'", domain, -1, domains)


def _as_list(tables: Any) -> list[Any]:
    """Return one table or several as a list."""
    return list(tables) if isinstance(tables, (list, tuple)) else [tables]
