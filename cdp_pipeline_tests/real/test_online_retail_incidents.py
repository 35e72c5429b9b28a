"""Incidents planted in the last week of the real shop's lines are named; its healthy months, Christmas too, are not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import ibis
import pytest

from cdp_pipeline.sources.usual import oddities, weekly
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.spec.source import Source

RAW = Path(os.environ.get("CDP_SHARED_DATA", "../shared/data")) / "online_retail_ii.parquet"
pytestmark = pytest.mark.skipif(not RAW.exists(), reason=f"Online Retail II is not at {RAW} (set CDP_SHARED_DATA)")
LAST = date(2011, 3, 24)
WEEK = "invoice_date >= DATE '2011-03-18'"
HEALTHY = [date(2010, month, day) for month in range(3, 13) for day in (1, 26)]
HEALTHY += [date(2011, month, day) for month in range(1, 9) for day in (4, 10)]


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CDP_DATA", str(RAW.parent))
        yield load_project(Path(__file__).parent / "online_retail").sources["order_lines"]


def said(source: Source, days: list[date], lines: str = f"FROM '{RAW}'") -> dict[date, list[str]]:
    connection = ibis.duckdb.connect()
    connection.raw_sql(f"CREATE TABLE lines AS SELECT *, invoice_date::DATE AS _day FROM ({lines})")
    table = connection.table("lines")
    found = {day: oddities(weekly(table, source, day).to_pyarrow().to_pylist(), day) for day in days}
    return {day: words for day, words in found.items() if words}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (f"FROM '{RAW}' WHERE invoice_date < DATE '2011-03-19'", "1,379 rows in the last week, usually 7,212"),
        (f"SELECT * REPLACE (CASE WHEN {WEEK} THEN price * 100 ELSE price END AS price) FROM '{RAW}'",
         "'price' was about 218.73 in the last week, usually 2.36: is it in another unit or currency?"),
        (f"FROM '{RAW}' UNION ALL FROM '{RAW}' WHERE {WEEK} AND invoice LIKE '%7'",
         "are there twice or more, usually 0.8%"),
        (f"FROM '{RAW}' WHERE NOT ({WEEK} AND country = 'Germany')", "no row with country = Germany in the last week"),
        (f"FROM '{RAW}' WHERE NOT ({WEEK} AND country = 'United Kingdom')", "682 rows in the last week, usually 7,212"),
    ],
    ids=["stalled", "currency", "twice", "a country", "the home country"],
)  # fmt: skip
def test_an_incident_is_named(source: Source, lines: str, words: str) -> None:
    found = said(source, [LAST], lines)
    assert any(words in one for one in found.get(LAST, [])), found


def test_no_alarm_in_the_healthy_months(source: Source) -> None:
    assert said(source, [*HEALTHY, LAST]) == {}
