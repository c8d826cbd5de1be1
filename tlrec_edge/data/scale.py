"""Numbers that differ by domain: brought to a common unit by the schema's factors, and shown side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.data.clean import CleanLog
from tlrec_edge.data.dataset import ItemTable
from tlrec_edge.data.schema import Schema, suggestion
from tlrec_edge.errors import DataError

MEDIAN_RATIO = 5.0
"""Ratio of two domains' medians from which another currency or unit is likely."""
_MIN_VALUES = 10


@dataclass(frozen=True)
class DomainStatistics:
    """The numbers of one column in one domain, after scaling; ``median`` and ``largest`` are None without any."""

    column: str
    domain: str
    known: int
    missing: int
    median: float | None
    largest: float | None
    factor: float


def check_scale(schema: Schema, columns: Iterable[str], domains: Sequence[str]) -> None:
    """Raise DataError for a column or domain of [scale] that the data does not have: it is nearly always misspelt."""
    columns = list(columns)
    for column, factors in schema.scale.items():
        if column not in columns:
            known = ", ".join(columns) or "none"
            raise DataError(
                f"[scale.{column}]: no such numeric column{suggestion(column, columns)}; known: {known}"
            )
        for domain in factors:
            if domain not in domains:
                known = ", ".join(domains[:30])
                raise DataError(
                    f"[scale.{column}]: no domain {domain!r}{suggestion(domain, domains)}; known: {known}"
                )


def scale_log(
    log: CleanLog, schema: Schema, codes: NDArray[np.int32], domains: Sequence[str]
) -> CleanLog:
    """Return the log with each row's price in the common unit; ``codes`` (rows,) are the rows' domains."""
    if log.price is None or "price" not in schema.scale:
        return log
    factor = _factors(schema, "price", domains)[codes]
    scaled = {
        "price brought to the common unit (rows)": int(np.isfinite(log.price[factor != 1.0]).sum())
    }
    return replace(log, price=log.price * factor, counts={**log.counts, **scaled})


def scale_items(
    table: ItemTable, schema: Schema, home: NDArray[np.int32], domains: Sequence[str]
) -> tuple[ItemTable, dict[str, int]]:
    """Return the item table in the common unit, by each item's home domain, and how many values were changed.

    Raises DataError where factors are given but no item has a home.
    """
    numeric, counts = dict(table.numeric), {}
    for column in schema.scale:
        if (home < 0).all():
            raise DataError(
                f"[scale.{column}]: no item has a domain; add a domain column to the item table"
            )
        factor = _factors(schema, column, domains)[home]
        numeric[column] = (numeric[column] * factor).astype(np.float32)
        counts[f"{column} brought to the common unit (items)"] = int(
            np.isfinite(numeric[column][factor != 1.0]).sum()
        )
    return replace(table, numeric=numeric), counts


def domain_statistics(
    columns: Mapping[str, NDArray[Any]],
    codes: NDArray[np.int32],
    domains: Sequence[str],
    schema: Schema,
) -> tuple[DomainStatistics, ...]:
    """Describe each column by domain; ``codes`` say in which domain each value is, -1 for none."""
    found = []
    for column, values in columns.items():
        for code, domain in enumerate(domains):
            here = values[codes == code]
            known = here[np.isfinite(here)]
            if len(here):
                found.append(
                    DomainStatistics(
                        column,
                        domain,
                        len(known),
                        len(here) - len(known),
                        float(np.median(known)) if len(known) else None,
                        float(known.max()) if len(known) else None,
                        schema.scale.get(column, {}).get(domain, 1.0),
                    )
                )
    return tuple(found)


def distant_medians(
    statistics: Sequence[DomainStatistics],
) -> list[tuple[DomainStatistics, DomainStatistics]]:
    """Return the highest and the lowest domain of each column whose medians are ``MEDIAN_RATIO`` times apart."""
    pairs = []
    for column in dict.fromkeys(stats.column for stats in statistics):
        mine = [
            stats
            for stats in statistics
            if stats.column == column and stats.known >= _MIN_VALUES and stats.median
        ]
        mine = sorted(
            (stats for stats in mine if (stats.median or 0) > 0),
            key=lambda stats: stats.median or 0,
        )
        if mine and (mine[-1].median or 0) >= MEDIAN_RATIO * (mine[0].median or 0):
            pairs.append((mine[-1], mine[0]))
    return pairs


def _factors(schema: Schema, column: str, domains: Sequence[str]) -> NDArray[np.float64]:
    """Return one factor a domain, and 1 at the end for code -1."""
    return np.array([*(schema.scale[column].get(name, 1.0) for name in domains), 1.0])
