"""The cleaned data every later stage reads: columns of integers, checked once at construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column_names import SALES_NAMES, normalize_key
from tlrec_edge.types import Bools, Floats, Ints

EVENT_WEIGHTS = (0.2, 0.4, 0.7, 1.0, 0.5)
"""Default weight of each of ``tlrec_edge.choices.EVENTS``."""

TRAIN, VALID, TEST = 0, 1, 2
"""Roles of an interaction in the stored split."""


@dataclass(frozen=True)
class Interactions:
    """Columns of equal length n, sorted by user, then time (stable).

    ``weight`` is the event's weight times its count; ``time`` is in seconds since 1970 and 0 where the data has no
    time; ``position`` is the row's place in the cleaned input, which orders rows of one time across users.
    """

    user: Ints
    item: Ints
    domain: Ints
    event: Ints
    weight: Floats
    time: NDArray[np.int64]
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

    def select(self, keep: Bools | NDArray[np.intp]) -> Interactions:
        """Return the rows that a mask (or rising positions) picks."""
        return Interactions(
            **{name: getattr(self, name)[keep] for name in self.__dataclass_fields__}
        )


@dataclass(frozen=True)
class ItemTable:
    """Raw features, one row an item: text (empty where missing), categories ("" where missing), numbers (NaN).

    ``aliases`` maps other names of a categorical column's values to those it holds, where names were aligned;
    ``by_domain`` says that numbers are to be ranked among those of an item's home domain.
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
        """The numeric column of units sold, found by its name; None if there is none."""
        names = (name for name in self.numeric if normalize_key(name) in SALES_NAMES)
        return next((self.numeric[name] for name in names), None)


@dataclass(frozen=True)
class EvalRows:
    """Ranking questions: user ``user[m]`` bought ``item[m]``; rank it among itself and ``negatives[m]``.

    ``negatives`` has shape (m, k), filled with -1 where a row has fewer; (m, 0) means: rank the whole candidate set.
    """

    user: Ints
    item: Ints
    negatives: Ints

    def __len__(self) -> int:
        return len(self.user)

    def select(self, keep: Bools | NDArray[np.intp]) -> EvalRows:
        return EvalRows(self.user[keep], self.item[keep], self.negatives[keep])


@dataclass(frozen=True)
class Split:
    """How the interactions were divided. ``role`` has one entry an interaction.

    ``fold`` (one entry a user, -1 for none) is used by kind ``new-users``: the users of a fold are treated as new to
    the target domain. ``refit`` says whether the final model may also learn from the validation rows. ``rows`` are test
    questions that came with the data (kind ``given``); other kinds derive them from the roles.
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

    @property
    def folds(self) -> int:
        return int(self.fold.max(initial=-1)) + 1


@dataclass(frozen=True, eq=False)
class Dataset:
    """Users, items, domains and what happened between them, with the split that every later stage obeys.

    Compared and hashed by identity; ``store.dataset_hash`` tells contents apart.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    domains: tuple[str, ...]
    interactions: Interactions
    features: ItemTable
    split: Split
    item_domain: Ints
    """Home domain of each item, -1 where it has none: of an item never sold this is all that is known."""
    cleaning: Mapping[str, int] = field(default_factory=dict)
    """Rows read, rows kept, and rows dropped by reason."""
    source: str = ""

    def __post_init__(self) -> None:
        log = self.interactions
        if not len(log):
            raise DataError(
                "the dataset has no interactions; see the cleaning table for where they went"
            )
        for name, column, size in (
            ("user", log.user, len(self.users)),
            ("item", log.item, len(self.items)),
            ("domain", log.domain, len(self.domains)),
        ):
            if column.min() < 0 or column.max() >= size:
                raise DataError(f"interaction column '{name}' points outside its table of {size}")
        if len(self.features) != len(self.items) or len(self.item_domain) != len(self.items):
            raise DataError(
                f"item features have {len(self.features)} rows, expected {len(self.items)}"
            )
        if len(self.split.role) != len(log) or len(self.split.fold) != len(self.users):
            raise DataError("the split does not fit the interactions")

    @cached_property
    def item_row(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.items)}

    @cached_property
    def user_row(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.users)}

    @property
    def has_time(self) -> bool:
        return bool(self.interactions.time.any())

    def domain_codes(self, names: tuple[str, ...]) -> Ints:
        """Return the codes of domain names. Raises DataError that lists the known ones."""
        unknown = [name for name in names if name not in self.domains]
        if unknown:
            raise DataError(f"unknown domain {unknown[0]!r}; known: {', '.join(self.domains[:30])}")
        return np.array([self.domains.index(name) for name in names], np.int32)

    def replace(self, **changes: Any) -> Self:
        from dataclasses import replace

        return replace(self, **changes)
