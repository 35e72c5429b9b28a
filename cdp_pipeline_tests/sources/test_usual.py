"""What is unusual about a week beside the weeks before it: planted one by one, and nothing else is said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import ibis
import pyarrow as pa
import pytest

from cdp_pipeline.sources.usual import oddities, weekly
from cdp_pipeline.spec.source import Source

LAST = date(2024, 6, 30)
LINES = Source.model_validate(
    {
        "kind": "source", "name": "lines", "description": "Lines.", "files": "x.csv", "grain": ["id"],
        "repeatable": True, "occurred_at": "at",
        "columns": {
            "id": {"type": "string"}, "at": {"type": "timestamp"}, "price": {"type": "number"},
            "country": {"type": "string"}, "street": {"type": "string", "pii": True},
        },
    }
)  # fmt: skip
Row = dict[str, Any]


def a_quarter() -> list[Row]:
    """Thirty lines on every day but Sundays, a third of them from DE."""
    days = [LAST - timedelta(days=ago) for ago in range(70)]
    return [
        {
            "id": f"{day}-{n}", "at": datetime(day.year, day.month, day.day), "price": 10.0 + n,
            "country": "GB" if n % 3 else "DE", "street": "only here", "_day": day,
        }
        for day in days if day.weekday() < 6 for n in range(30)
    ]  # fmt: skip


def said(rows: list[Row], last_day: date = LAST) -> list[str]:
    return oddities(
        weekly(ibis.memtable(pa.Table.from_pylist(rows)), LINES, last_day).to_pyarrow().to_pylist(), last_day
    )


def in_last_week(row: Row) -> bool:
    return row["_day"] > LAST - timedelta(days=7)


def with_repeats(rows: list[Row]) -> list[Row]:
    return rows + [row for n, row in enumerate(rows) if in_last_week(row) and n % 10 == 0]


PLANTED: dict[str, tuple[Callable[[list[Row]], list[Row]], str]] = {
    "stalled": (
        lambda rows: [row for row in rows if row["_day"] < LAST - timedelta(days=5)],
        "no row since 2024-06-24, 6 days: the longest pause is usually 1",
    ),
    "doubled": (with_repeats, "9.1% of the rows of the last week are there twice or more, usually 0.0%"),
    "currency": (
        lambda rows: [row | {"price": row["price"] * 100} if in_last_week(row) else row for row in rows],
        "'price' was about 2,282.",
    ),
    "country": (
        lambda rows: [row for row in rows if not (in_last_week(row) and row["country"] == "DE")],
        "no row with country = DE in the last week, usually 60",
    ),
    "flood": (
        lambda rows: rows + [row | {"id": f"{row['id']}-{n}"} for row in rows if in_last_week(row) for n in range(4)],
        "900 rows in the last week, usually 180",
    ),
}


@pytest.mark.parametrize("incident", PLANTED)
def test_an_incident_is_named(incident: str) -> None:
    plant, words = PLANTED[incident]
    assert any(words in one for one in said(plant(a_quarter()))), said(plant(a_quarter()))


def test_a_healthy_quarter_has_nothing_to_say_nor_has_a_source_that_just_began() -> None:
    for ago in range(7):
        rows = [row for row in a_quarter() if row["_day"] <= LAST - timedelta(days=ago)]
        assert said(rows, LAST - timedelta(days=ago)) == []
    assert said([row for row in a_quarter() if row["_day"] > LAST - timedelta(days=20)]) == []
    assert said(a_quarter()[:1]) == []


def test_a_closed_week_is_usual_where_the_same_week_of_last_year_was_closed() -> None:
    closed = [row for row in a_quarter() if not in_last_week(row)]
    year_ago = [
        row | {"_day": row["_day"] - back, "id": f"{row['id']}-{back}"}
        for back in (timedelta(days=364), timedelta(days=364 - 70)) for row in closed
    ]  # fmt: skip
    assert said(closed + year_ago) == []
    assert said(closed) != []
