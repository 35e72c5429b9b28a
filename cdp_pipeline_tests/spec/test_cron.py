"""Cadences: what is accepted here, Dagster accepts too."""

from __future__ import annotations

import pytest
from dagster._utils.schedules import is_valid_cron_schedule
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from cdp_pipeline.spec.project import Cron

CRON = TypeAdapter(Cron)
value = st.sampled_from(["*", "0", "5", "12", "23", "31", "59", "60", "7", "jan", "mon", "FRI", "dec", "x"])
part = st.builds("".join, st.tuples(value, st.sampled_from(["", "-5", "-10", "-fri", "/2", "/0", "/15", "-", ","])))
field = st.lists(part, min_size=1, max_size=2).map(",".join)


def accepted(text: str) -> bool:
    try:
        CRON.validate_python(text)
    except ValidationError:
        return False
    return True


@settings(max_examples=500)
@given(st.lists(value | field, min_size=5, max_size=5).map(" ".join))
def test_whatever_is_accepted_is_a_schedule_to_dagster(text):
    assert not accepted(text) or is_valid_cron_schedule(text)


@pytest.mark.parametrize(
    "text", ["30 4 * * *", "*/15 * * * *", "0 6,18 * * mon-fri", "0 0 1 jan,jul *", "5 0-23/2 * * 7"]
)
def test_usual_cadences_are_accepted(text):
    assert accepted(text)
    assert is_valid_cron_schedule(text)


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * foo *", "@daily", "5-1 * * * *"]
)
def test_what_is_no_schedule_is_refused(text):
    assert not accepted(text)
