"""Windows see the days their words say, told by calendars that are not ours, on every day that is special."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cdp_pipeline.spec.window import Window, WindowText, parse_window
from cdp_pipeline_tests.traits.oracle import days_seen

WINDOW: TypeAdapter[Window] = TypeAdapter(WindowText)
SPECIAL = [date(2023, 12, 31), date(2024, 1, 1), date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 31)]
COUNTED = [f"{reach} {number} {unit}" for reach in ("last", "next") for number, unit in (
    (1, "day"), (30, "days"), (1, "week"), (12, "weeks"), (1, "month"), (3, "months"), (13, "months"), (1, "year"),
    (4, "years"),
)]  # fmt: skip
CALENDAR = [f"{reach} {unit}" for reach in ("this", "previous") for unit in ("week", "month", "quarter", "year")]
BETWEEN = ["between 60 and 30 days ago", "between 2 and 1 weeks ago", "between 12 and 6 months ago"]
WINDOWS = ["lifetime", "last session", *COUNTED, *CALENDAR, *BETWEEN]


@given(st.sampled_from(SPECIAL) | st.dates(date(1999, 1, 1), date(2101, 1, 1)), st.sampled_from(WINDOWS))
def test_a_window_sees_the_days_it_says(day: date, words: str) -> None:
    first, last = WINDOW.validate_python(words).span(day)
    assert (first or date.min, last) == days_seen(words, day)


@pytest.mark.parametrize("words", WINDOWS)
def test_a_window_is_written_as_it_is_read(words: str) -> None:
    assert str(WINDOW.validate_python(words)) == words == WINDOW.dump_python(WINDOW.validate_python(words))


@pytest.mark.parametrize("unit", ["days", "weeks", "months", "years"])
@pytest.mark.parametrize("day", SPECIAL)
def test_neighbouring_windows_share_no_day_and_miss_none(day: date, unit: str) -> None:
    near, far = WINDOW.validate_python(f"last 2 {unit}"), WINDOW.validate_python(f"last 5 {unit}")
    between = WINDOW.validate_python(f"between 5 and 2 {unit} ago")
    assert between.span(day)[1] + timedelta(days=1) == near.span(day)[0]
    assert between.span(day)[0] == far.span(day)[0]


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ("last month", "'previous month'"),
        ("next quarter", "'next 3 months'"),
        ("last 90", "'last 90 days'"),
        ("in the next 14 days", "'next 14 days'"),
        ("between 30 and 60 days ago", "'between 60 and 30 days ago'"),
        ("previous 2 weeks", "'previous week'"),
        ("sesion", "'last session'"),
        (None, "'last 90 days'"),
    ],
)
def test_what_is_no_window_is_told_the_nearest_that_is(words: object, right: str) -> None:
    with pytest.raises(ValueError, match=right):
        parse_window(words)
