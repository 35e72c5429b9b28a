"""traits.daily as it is published: its declaration, its stamp, and the days that late rows make stale."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import ibis

from cdp_pipeline.lake import Lake, Mirror
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.traits.daily import daily, daily_table, stale_days
from cdp_pipeline.traits.runs import RUNS
from cdp_pipeline_tests.traits.shop import DAYS, PEOPLE, event, project, timeline_rows, trait

Row = dict[str, Any]
SHOP = project(trait("orders", "count"), trait("spent", "sum", value="amount"), trait("last", "last", value="points"))
EVENTS, DAILY = timeline_table(SHOP), daily_table(SHOP)
ANN = ibis.memtable({"person_id": list(PEOPLE[:1])})
FIRST_LOAD = datetime(2024, 3, 10, 5)
LATER = FIRST_LOAD + timedelta(days=1)


def loaded(lake: Lake, rows: list[Row]) -> None:
    lake.publish(Mirror(EVENTS, timeline_rows(rows)))


def computed(lake: Lake, days: list[Any]) -> int:
    rows = daily(lake.read(EVENTS), ANN, days, SHOP)
    return lake.publish(Mirror(DAILY, rows, within={"day": days})).snapshot


def stale(lake: Lake) -> list[Any]:
    return stale_days(lake.read(EVENTS), lake.read(DAILY), lake.read(RUNS)).day.to_pyarrow().to_pylist()


def test_equal_data_makes_an_equal_table_and_no_new_snapshot(lake: Lake) -> None:
    loaded(lake, [event(_loaded_at=FIRST_LOAD)])
    assert computed(lake, DAYS) == computed(lake, DAYS)
    row = lake.read(DAILY).filter(ibis._.day == DAYS[5]).to_pyarrow().to_pylist()[0]
    assert (row["orders"], row["last"], row["_computed_at"]) == (1, 0.5, FIRST_LOAD)


def test_a_day_is_stale_once_a_row_of_it_or_of_an_earlier_day_is_loaded_later(lake: Lake) -> None:
    on_time = event(_day=DAYS[5], _loaded_at=FIRST_LOAD)
    loaded(lake, [on_time])
    computed(lake, DAYS[3:7])
    assert stale(lake) == []
    loaded(lake, [on_time, event(event_id="late", _day=DAYS[4], _loaded_at=LATER)])
    assert stale(lake) == DAYS[4:7]
    computed(lake, DAYS[4:7])
    assert stale(lake) == []


def test_the_rows_of_a_new_day_make_no_older_day_stale(lake: Lake) -> None:
    loaded(lake, [event(_day=DAYS[5], _loaded_at=FIRST_LOAD)])
    computed(lake, DAYS[5:6])
    loaded(lake, [event(_day=DAYS[5], _loaded_at=FIRST_LOAD), event(event_id="e2", _day=DAYS[6], _loaded_at=LATER)])
    assert stale(lake) == []


def test_without_any_events_people_have_empty_days(lake: Lake) -> None:
    computed(lake, DAYS[:1])
    assert [row["orders"] for row in lake.read(DAILY).to_pyarrow().to_pylist()] == [0]
    assert stale(lake) == []
