"""Times of many forms are read; numbers that are not epochs are not read as such."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column import column_of
from tlrec_edge.tabular.times import (
    CLOCK_FORMATS,
    DAY_FORMATS,
    TimeReading,
    looks_like_clock,
    looks_like_dates,
    parse_times,
    read_times,
)

FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M UTC",
    "%Y-%m-%d %H:%M:%S GMT",
    "%Y-%m-%dT%H:%M+0000",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S +00:00",
    "%Y-%m-%dT%H:%M:%S.123Z",
    "%Y%m%d",
    "%Y%m%d%H%M",
    "%Y%m%d%H%M%S",
    "%d %b %Y %H:%M",
    "%B %d, %Y",
)
INVALID = ("", " ", "soon", "never", "2024-13-01", "32/01/2024", "nan", "inf")


def seconds_of(texts: list[str], time_format: str = "") -> list[float]:
    return parse_times(texts, time_format)[0]


moments = st.datetimes(datetime(1975, 1, 1), datetime(2099, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)


@given(
    st.lists(moments, min_size=9, max_size=20, unique_by=lambda moment: moment.date()),
    st.sampled_from([*FORMATS, *(day + clock for day in DAY_FORMATS for clock in CLOCK_FORMATS)]),
    st.sampled_from(INVALID),
)
def test_a_form_is_read_as_strptime_reads_it(
    given: list[datetime], form: str, invalid: str
) -> None:
    texts = [moment.strftime(form) for moment in given]
    try:
        seconds = seconds_of([*texts, invalid])
    except DataError as error:
        assert "fits both" in str(error)  # noqa: PT017
        assert "%d" in form
        return
    plain = form.replace(" UTC", "").replace(" GMT", "").replace("Z", "").replace(".123", "")
    plain = plain.replace(" +00:00", "").replace("+0000", "")
    cut = [text.replace("UTC", "").replace("GMT", "").replace(".123Z", "") for text in texts]
    cut = [text.replace("+00:00", "").replace("+0000", "").strip() for text in cut]
    expected = [datetime.strptime(text, plain).replace(tzinfo=UTC).timestamp() for text in cut]
    assert seconds[:-1] == expected
    assert isnan(seconds[-1])


@given(
    st.lists(moments, min_size=1, max_size=12),
    st.sampled_from([1, 1_000, 1_000_000, 1_000_000_000]),
)
def test_the_size_of_epochs_shows_their_unit(given: list[datetime], unit: int) -> None:
    whole = [int(moment.timestamp()) for moment in given]
    assert seconds_of([str(value * unit) for value in whole]) == whole


@pytest.mark.parametrize(
    ("texts", "expected", "form"),
    [
        (["45322.57", "45323.10"], ["2024-01-31 13:40:48", "2024-02-01 02:24:00"], "spreadsheet"),
        (["202401311345", "202402011000"], ["2024-01-31 13:45:00", "2024-02-01 10:00:00"], "%Y%m"),
        (["20240131134559"], ["2024-01-31 13:45:59"], "%Y%m%d%H%M%S"),
        (["1700000000", "1700000001000"], ["2023-11-14 22:13:20", "2023-11-14 22:13:21"], "and"),
        (
            ["2024-1-31 13:45", "2024-1-31 9:05"],
            ["2024-01-31 13:45:00", "2024-01-31 09:05:00"],
            "I",
        ),
        (["2019-10-01 00:00:00 UTC"], ["2019-10-01 00:00:00"], "ISO 8601"),
        (["1/31/2024 1:45 PM"], ["2024-01-31 13:45:00"], "%m/%d/%Y %I:%M %p"),
    ],
)
def test_what_looks_like_an_epoch_may_be_something_else(
    texts: list[str], expected: list[str], form: str
) -> None:
    seconds, reading = parse_times(texts)
    assert [str(datetime.fromtimestamp(s, UTC))[:19] for s in seconds] == expected
    assert form in reading.form


def test_odd_numbers_are_said() -> None:
    assert parse_times(["1", "2", "711"])[1].note == (
        "they are before 1973, so they are an order only: no half-lives are tried"
    )
    assert "units differ" in parse_times(["1700000000", "1700000001000"])[1].note
    assert parse_times(["1700000000", "x", "1700000001"])[1] == TimeReading(
        "epochs in seconds", "", "x"
    )
    with pytest.raises(DataError, match="fits both"):
        parse_times(["03/04/2024", "05/06/2024"])


def test_dates_and_clocks_are_recognised() -> None:
    for dates in (["2020-01-02", "2020-01-01"], ["31.01.2024"], ["20240131"]):
        assert looks_like_dates(column_of(dates))
    for others in (["1700000000"], ["a", "2020-01-02"], [], ["12", "13"]):
        assert not looks_like_dates(column_of(others))
    assert looks_like_clock(column_of(["13", "1:05", "13:05:59", "1305"]))
    assert not looks_like_clock(column_of(["25", "13"]))


def test_empty_columns_and_cells() -> None:
    assert parse_times([])[0] == []
    assert isnan(seconds_of([" "])[0])
    times, _ = read_times(column_of(["", "2024-01-31"]))
    assert times.invalid.tolist() == [True, False]


@given(st.lists(moments, min_size=1, max_size=9), st.sampled_from(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]))
def test_the_fast_way_reads_what_the_slow_one_does(given: list[datetime], form: str) -> None:
    texts = [moment.strftime(form) for moment in given]
    plain, slow = parse_times(texts)[0], parse_times([*texts, "2024-02-30"])[0]
    assert plain == slow[: len(plain)]
    assert isnan(slow[-1])
