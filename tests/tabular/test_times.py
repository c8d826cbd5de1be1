"""Times are parsed as `prepare` parses them, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from tlrec_edge.data import parse
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.times import CLOCK_FORMATS, DAY_FORMATS, EARLIEST, LATEST, read_times

FORMATS = (
    "%Y-%m-%d",
    "%Y-%m",
    "%Y-%m-%d %H",
    "%Y-%m-%dT%H:%M+0530",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S+02:00",
    "%Y%m%d",
    "%Y-%m-%dT%H:%M:%S.123Z",
)
INVALID = (
    "",
    " ",
    "soon",
    "never",
    "2024-13-01",
    "32/01/2024",
    "nan",
    "inf",
    "1e300",
    "9999-12-31",
    "0001-01-01",
    "1_0",
)


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except DataError as error:
        return str(error)


def agree(column: list[str]) -> None:
    expected = outcome(lambda: parse.read_times(pd.Series(column, dtype="str")))
    seconds = outcome(lambda: read_times(column))
    if isinstance(expected, str) or isinstance(seconds, str):
        assert seconds == expected
        return
    values = np.array([seconds[text] for text in column])
    invalid = np.isnan(values)
    out = ~invalid & ((values < EARLIEST) | (values >= LATEST))
    np.testing.assert_array_equal(invalid, expected.invalid)
    np.testing.assert_array_equal(out, expected.out_of_range)
    np.testing.assert_array_equal(np.where(invalid | out, 0, values), expected.seconds)


moments = st.datetimes(datetime(1960, 1, 1), datetime(2110, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0)
)


@given(
    st.lists(moments, min_size=1, max_size=12),
    st.sampled_from([*FORMATS, *(day + clock for day in DAY_FORMATS for clock in CLOCK_FORMATS)]),
    st.lists(st.sampled_from(INVALID), max_size=6),
)
def test_dates_are_parsed_as_prepare_does(
    given: list[datetime], form: str, invalid: list[str]
) -> None:
    agree([*(moment.strftime(form) for moment in given), *invalid])


@given(
    st.lists(moments, min_size=1, max_size=12),
    st.sampled_from([1, 1e3, 1e6, 1e9]),
    st.lists(st.sampled_from(INVALID), max_size=9),
)
def test_epochs_are_parsed_as_prepare_does(
    given: list[datetime], unit: float, invalid: list[str]
) -> None:
    agree(
        [*(str(int(moment.replace(tzinfo=UTC).timestamp() * unit)) for moment in given), *invalid]
    )


def test_empty_columns_and_cells() -> None:
    assert read_times([]) == {}
    assert math.isnan(read_times([""])[""])
