"""Numbers as people write them; commas that may mean two things are not guessed."""

from __future__ import annotations

from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlrec_edge.tabular.column import column_of
from tlrec_edge.tabular.numbers import ambiguous_number, parse_numbers, read_numbers


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["6,30", "12,50"], [6.3, 12.5]),
        (["6,30 €", "1.234,00 €", "1.234"], [6.3, 1234.0, 1234.0]),
        (["$1,234.50", "$99", "$1,234"], [1234.5, 99.0, 1234.0]),
        (["¥1,234,567", "¥99"], [1234567.0, 99.0]),
        (["1.2万", "3万", "500"], [12000.0, 30000.0, 500.0]),
        (["１２．５", "３"], [12.5, 3.0]),
        (["1 234,5", "12\u00a0345,25"], [1234.5, 12345.25]),
        (["EUR 6.30", "7.10 EUR"], [6.3, 7.1]),
        (["1,0"], [1.0]),
        (["1'234.50"], [1234.5]),
        (["-5", "+5", "1e3", ".5"], [-5.0, 5.0, 1000.0, 0.5]),
    ],
)
def test_numbers_of_many_forms(texts: list[str], numbers: list[float]) -> None:
    assert parse_numbers(texts) == numbers


@pytest.mark.parametrize("texts", [["1,234"], ["1,234", "5"], ["6,30", "1,234.50"]])
def test_a_comma_that_may_mean_two_things_is_not_guessed(texts: list[str]) -> None:
    parsed = parse_numbers(texts)
    assert isnan(parsed[0])
    if "1,234" in texts:
        assert ambiguous_number(texts) == "1,234"
        assert parse_numbers(["1,234"], ",") == [1.234]
        assert parse_numbers(["1,234"], ".") == [1234.0]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_python_writes_is_read_again(value: float) -> None:
    assert parse_numbers([repr(value)]) == [value]


@given(st.lists(st.text(), max_size=9))
def test_any_text_is_a_number_or_marked(texts: list[str]) -> None:
    numbers = read_numbers(column_of(texts))
    blank = [not text.strip() for text in texts]
    for value, invalid, is_blank in zip(numbers.values, numbers.invalid, blank, strict=True):
        assert isnan(value) == (bool(invalid) or is_blank)


@given(st.integers(0, 10**9), st.integers(1, 99))
def test_a_decimal_comma_and_points_for_thousands(whole: int, cents: int) -> None:
    text = f"{whole:,}".replace(",", ".") + f",{cents:02}"
    assert parse_numbers([text]) == [float(f"{whole}.{cents:02}")]
