"""How far sources have told what happened, by real loads of files and databases: quiet ones, late ones, broken ones."""

from __future__ import annotations

import os
import sqlite3
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline.lake import Lake
from cdp_pipeline.profile.watermarks import watermarks
from cdp_pipeline.sources.errors import SourceError
from cdp_pipeline.sources.tables import LOADS
from cdp_pipeline.spec.source import Source
from cdp_pipeline_tests.sources.projects import NOW, loaded, project, source

HEADER = "order_id,ordered_at,email,amount\n"
NOON = NOW.replace(tzinfo=None)
MIDNIGHT = NOON.replace(hour=0)
HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)


def orders(**words: Any) -> Source:
    return source(events=[{"event": "order_completed"}], **words)


def reached(lake: Lake, *sources: Source, timezone: str = "UTC") -> dict[str, datetime]:
    rows = watermarks(lake.read(LOADS), project(*sources, timezone=timezone)).to_pylist()
    return {row["source"]: row["until"] for row in rows}


def export(folder: Path, day: date | str, text: str, written: datetime) -> Path:
    path = folder / f"{day}.csv"
    path.write_text(HEADER + text)
    seconds = (written - datetime(1970, 1, 1)).total_seconds()
    os.utime(path, (seconds, seconds))
    return path


def test_a_quiet_shop_has_told_up_to_when_its_file_was_written(lake: Lake, tmp_path: Path) -> None:
    one = orders(files=str(tmp_path / "{day}.csv"))
    export(tmp_path, NOON.date(), "1,2024-06-01T07:00:00Z,a@x.io,5\n", NOON - 10 * MINUTE)
    loaded(lake, one)
    assert reached(lake, one) == {"orders": NOON - 10 * MINUTE}, "though its newest order is of seven"
    # Exported again with nothing new in it.
    export(tmp_path, NOON.date(), "1,2024-06-01T07:00:00Z,a@x.io,5\n", NOON + 50 * MINUTE)
    assert loaded(lake, one, now=NOW + HOUR).loads == []
    assert reached(lake, one) == {"orders": NOON + 50 * MINUTE}


def test_a_file_of_a_day_says_nothing_of_the_next_one_however_late_it_is_written(lake: Lake, tmp_path: Path) -> None:
    one = orders(files=str(tmp_path / "{day}.csv"))
    export(tmp_path, NOON.date() - DAY, "1,2024-05-31T07:00:00Z,a@x.io,5\n", NOON - HOUR)
    loaded(lake, one)
    assert reached(lake, one) == {"orders": MIDNIGHT}, (
        "today's orders are late: nobody knows what is missing among them"
    )
    assert reached(lake, one, timezone="Europe/London") == {"orders": MIDNIGHT - HOUR}
    export(tmp_path, NOON.date(), "", NOON)
    loaded(lake, one, now=NOW + MINUTE)
    assert reached(lake, one) == {"orders": NOON}, "a file without a single order tells, too"


def test_a_file_without_a_day_has_told_up_to_when_it_was_written(lake: Lake, tmp_path: Path) -> None:
    one = orders(files=str(tmp_path / "all.csv"))
    export(tmp_path, "all", "1,2024-05-31T07:00:00Z,a@x.io,5\n", NOON - HOUR)
    loaded(lake, one)
    assert reached(lake, one) == {"orders": NOON - HOUR}
    assert reached(lake, source(files="all.csv")) == {}, "it tells of no events"


def test_a_day_that_could_not_be_loaded_leaves_open_what_happened_since_for_two_days(
    lake: Lake, tmp_path: Path
) -> None:
    one = orders(files=str(tmp_path / "{day}.csv"))
    yesterday = export(tmp_path, NOON.date() - DAY, "1,2024-05-31T07:00:00Z,a@x.io,5\n", NOON - HOUR)
    loaded(lake, one)
    yesterday.write_text("order_id,email\n2,b@x.io\n")
    export(tmp_path, NOON.date(), "3,2024-06-01T07:00:00Z,a@x.io,5\n", NOON)
    with pytest.raises(SourceError):
        loaded(lake, one, now=NOW + MINUTE)
    assert reached(lake, one) == {"orders": MIDNIGHT - DAY}
    export(tmp_path, NOON.date() + 3 * DAY, "", NOON + 3 * DAY)
    with pytest.raises(SourceError):
        loaded(lake, one, now=NOW + 4 * DAY)
    assert reached(lake, one) == {"orders": NOON + 3 * DAY}
    export(tmp_path, NOON.date() - DAY, "2,2024-05-31T07:00:00Z,b@x.io,5\n", NOON + 5 * DAY)
    loaded(lake, one, now=NOW + 5 * DAY)
    assert reached(lake, one) == {"orders": NOON + 3 * DAY}


@pytest.mark.parametrize("words", [{}, {"cursor": "ordered_at"}, {"cursor": "ordered_at", "overlap": "1 hour"}])
def test_a_database_has_told_up_to_when_it_was_read_though_it_had_nothing_to_tell(
    lake: Lake, tmp_path: Path, words: dict[str, str]
) -> None:
    path = tmp_path / "shop.sqlite"
    with sqlite3.connect(path) as shop:
        shop.execute("CREATE TABLE orders (order_id, ordered_at, email, amount)")
        shop.execute("INSERT INTO orders VALUES (1, '2024-05-30 10:00:00', 'a@x.io', 5)")
    one = orders(sql={"url": f"sqlite:///{path}", "table": "orders"} | words)
    for hours in range(4):
        loaded(lake, one, now=NOW + hours * HOUR)
        assert reached(lake, one) == {"orders": NOON + hours * HOUR}


def test_a_full_copy_has_told_up_to_the_moment_it_stands_for(lake: Lake, tmp_path: Path) -> None:
    one = orders(files=str(tmp_path / "{day}.csv"), mode="snapshot")
    export(tmp_path, NOON.date() - DAY, "1,2024-05-31T07:00:00Z,a@x.io,5\n", NOON - HOUR)
    loaded(lake, one)
    assert reached(lake, one) == {"orders": MIDNIGHT - timedelta(microseconds=1)}
