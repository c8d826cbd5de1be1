"""Numbers in different units by domain: scaled by the schema's factors, and compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.data.dataset import ItemTable
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.clean import CleanLog
from tlrec_edge.tabular.roles import suggestion
from tlrec_edge.tabular.schema import Schema
from tlrec_edge.types import Doubles, Ints

MEDIAN_RATIO = 5.0
"""Two domains whose medians differ by this factor probably have different units."""
_MIN_VALUES = 10
"""Number of values that a domain needs for its median to be compared."""


@dataclass(frozen=True)
class DomainStatistics:
    """The values of one numeric column in one domain, after scaling.

    Attributes:
        column: the column.
        domain: the domain.
        known: number of values.
        missing: number of missing values.
        median: median, None without values.
        largest: maximum, None without values.
        factor: the factor that was applied.
    """

    column: str
    domain: str
    known: int
    missing: int
    median: float | None
    largest: float | None
    factor: float


def check_scale(schema: Schema, columns: Iterable[str], domains: Sequence[str]) -> None:
    """Raise DataError if [scale] names a column or a domain that the data does not have."""
    columns = list(columns)
    for column, factors in schema.scale.items():
        if column not in columns:
            known = ", ".join(columns) or "none"
            raise DataError(
                f"[scale.{column}]: no such numeric column{suggestion(column, columns)}; "
                f"known: {known}"
            )
        for domain in factors:
            if domain not in domains:
                known = ", ".join(domains[:30])
                raise DataError(
                    f"[scale.{column}]: no domain {domain!r}{suggestion(domain, domains)}; "
                    f"known: {known}"
                )


def scale_log(log: CleanLog, schema: Schema, codes: Ints, domains: Sequence[str]) -> CleanLog:
    """Return the log with prices in the common unit; ``codes`` (rows,) are the rows' domains."""
    if log.price is None or "price" not in schema.scale:
        return log
    factor = _factors(schema, "price", domains)[codes]
    n_scaled = int(np.isfinite(log.price[factor != 1.0]).sum())
    counts = {**log.counts, "price brought to the common unit (rows)": n_scaled}
    return replace(log, price=log.price * factor, counts=counts)


def scale_items(
    table: ItemTable, schema: Schema, item_domain: Ints, domains: Sequence[str]
) -> tuple[ItemTable, dict[str, int]]:
    """Return the item table with numbers in the common unit, and the number of values changed.

    ``item_domain`` (items,) are the items' domains. Raises DataError if no item has a domain.
    """
    numeric, counts = dict(table.numeric), {}
    for column in schema.scale:
        if (item_domain < 0).all():
            raise DataError(
                f"[scale.{column}]: no item has a domain; add a domain column to the item table"
            )
        factor = _factors(schema, column, domains)[item_domain]
        numeric[column] = (numeric[column] * factor).astype(np.float32)
        counts[f"{column} brought to the common unit (items)"] = int(
            np.isfinite(numeric[column][factor != 1.0]).sum()
        )
    return replace(table, numeric=numeric), counts


def domain_statistics(
    columns: Mapping[str, NDArray[Any]],
    codes: Ints,
    domains: Sequence[str],
    schema: Schema,
) -> tuple[DomainStatistics, ...]:
    """Describe each column by domain; ``codes`` are the values' domains, -1 for none."""
    statistics = []
    for column, values in columns.items():
        for code, domain in enumerate(domains):
            in_domain = values[codes == code]
            known = in_domain[np.isfinite(in_domain)]
            if not len(in_domain):
                continue
            statistics.append(
                DomainStatistics(
                    column,
                    domain,
                    known=len(known),
                    missing=len(in_domain) - len(known),
                    median=float(np.median(known)) if len(known) else None,
                    largest=float(known.max()) if len(known) else None,
                    factor=schema.scale.get(column, {}).get(domain, 1.0),
                )
            )
    return tuple(statistics)


def distant_medians(
    statistics: Sequence[DomainStatistics],
) -> list[tuple[DomainStatistics, DomainStatistics]]:
    """Return the domains of each column's highest and lowest median, if MEDIAN_RATIO apart."""
    pairs = []
    for column in dict.fromkeys(stats.column for stats in statistics):
        by_median = sorted(
            (stats for stats in statistics if stats.column == column and _has_median(stats)),
            key=_median,
        )
        if by_median and _median(by_median[-1]) >= MEDIAN_RATIO * _median(by_median[0]):
            pairs.append((by_median[-1], by_median[0]))
    return pairs


def _has_median(statistics: DomainStatistics) -> bool:
    return statistics.known >= _MIN_VALUES and _median(statistics) > 0


def _median(statistics: DomainStatistics) -> float:
    return statistics.median or 0.0


def _factors(schema: Schema, column: str, domains: Sequence[str]) -> Doubles:
    """Return one factor per domain, then 1 for code -1."""
    return np.array([*(schema.scale[column].get(name, 1.0) for name in domains), 1.0])
