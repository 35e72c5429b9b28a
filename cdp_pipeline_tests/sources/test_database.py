"""Databases as sources: SQLite files, a real Postgres, and servers that are not there."""

from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cdp_pipeline.lake import Lake
from cdp_pipeline.sources import database
from cdp_pipeline.sources.errors import ColumnMissingError, SourceError, SourceUnreachableError
from cdp_pipeline_tests.sources.projects import NOW, ledger, loaded, quarantine, rows, source


@pytest.fixture
def shop(tmp_path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(tmp_path / "shop.sqlite", isolation_level=None)
    connection.execute("CREATE TABLE orders (order_id, ordered_at TEXT, email TEXT, amount, updated_at TEXT)")
    return connection


def from_shop(tmp_path: Path, **words: Any) -> dict[str, Any]:
    return {"sql": {"url": f"sqlite:///{tmp_path / 'shop.sqlite'}", **({"table": "orders"} | words)}}


def add(shop: sqlite3.Connection, *orders: tuple[Any, ...]) -> None:
    shop.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", orders)


AT = "2024-05-01 10:00:00"


def assert_only_noted_when(lake: Lake, now: datetime, before: int) -> None:
    """Nothing was written since a snapshot but the time at which nothing new was found."""
    assert [name for name in ("orders", "quarantine") if lake.touched(f"sources.{name}", before)] == []
    [one] = ledger(lake)
    assert one["loaded_at"] == now.replace(tzinfo=None)


def test_a_table_is_read_and_reading_it_again_changes_nothing(
    lake: Lake, tmp_path: Path, shop: sqlite3.Connection
) -> None:
    add(shop, (1, AT, " Ann@X.io", 12.5, None), ("two", AT, None, "7", None), (3, "nonsense", "c@x.io", 1, None))
    one = source(**from_shop(tmp_path))
    report = loaded(lake, one)
    assert rows(lake, one, "order_id", "email", "amount") == [
        ("1", "ann@x.io", Decimal("12.5000")),
        ("two", None, Decimal("7.0000")),
    ]
    assert [(row["column"], row["reason"]) for row in quarantine(lake)] == [("ordered_at", "wrong_type")]
    assert list(report.drift.unknown) == ["updated_at"]
    before = lake.latest()
    assert loaded(lake, one, now=NOW + timedelta(days=1)).loads == []
    assert_only_noted_when(lake, NOW + timedelta(days=1), before)
    add(shop, (4, AT, None, 1, None))
    assert loaded(lake, one, now=NOW + timedelta(days=2)).inserted == 1


def test_a_cursor_reads_what_is_new_with_an_overlap(lake: Lake, tmp_path: Path, shop: sqlite3.Connection) -> None:
    one = source(**from_shop(tmp_path, cursor="updated_at", overlap="1 hour"))
    add(shop, *((number, AT, None, number, f"2024-05-01 {number:02}:00:00") for number in range(10)))
    loaded(lake, one)
    add(
        shop,
        (10, AT, None, 10, "2024-05-01 08:30:00"),
        (11, AT, None, 11, None),
        (12, AT, None, 12, "2024-05-01 07:30:00"),
    )
    shop.execute("UPDATE orders SET amount = 99, updated_at = '2024-05-01 11:00:00' WHERE order_id = 3")
    report = loaded(lake, one, now=NOW + timedelta(hours=1))
    assert report.total("read") == 5, "8, 9, 3, the late 10, and 11 which says nothing about when"
    assert (report.inserted, report.updated) == (2, 1)
    assert ("3", Decimal("99.0000")) in rows(lake, one, "order_id", "amount")
    assert [row["place"] for row in ledger(lake)] == ["orders", "orders from updated_at 2024-05-01 08:00:00"]


def test_a_query_is_read_and_a_full_copy_becomes_history(lake: Lake, tmp_path: Path, shop: sqlite3.Connection) -> None:
    query = "SELECT order_id, ordered_at, upper(email) AS email, amount FROM orders WHERE amount > 0;"
    one = source(**from_shop(tmp_path, table=None, query=query), mode="snapshot")
    add(shop, (1, AT, "a@x.io", 1, None), (2, AT, "b@x.io", 2, None), (3, AT, "c@x.io", -1, None))
    loaded(lake, one)
    shop.execute("DELETE FROM orders WHERE order_id = 1")
    shop.execute("UPDATE orders SET amount = 5 WHERE order_id = 2")
    loaded(lake, one, now=NOW + timedelta(days=1))
    first, second = datetime(2024, 6, 1, 12), datetime(2024, 6, 2, 12)
    assert rows(lake, one, "order_id", "email", "amount", "_valid_from", "_valid_to") == [
        ("1", "a@x.io", Decimal("1.0000"), first, second),
        ("2", "b@x.io", Decimal("2.0000"), first, second),
        ("2", "b@x.io", Decimal("5.0000"), second, None),
    ]


def test_postgres_types_arrive_as_they_are(lake: Lake, postgres_url: str) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA shop"))
        connection.execute(
            sa.text(
                """CREATE TABLE shop.orders (order_id bigint, ordered_at timestamptz, email text, amount numeric(12, 2),
                                             day date, gift boolean, weight double precision, updated_at timestamp)"""
            )
        )
        connection.execute(
            sa.text(
                """INSERT INTO shop.orders SELECT n, '2024-05-01 10:00:00+02'::timestamptz + n * interval '1 minute',
                          'p' || n || '@x.io', n + 0.25, '2024-05-01', n % 2 = 0, n / 2.0,
                          '2024-05-01'::timestamp + n * interval '1 minute'
                   FROM generate_series(1, 1000) n"""
            )
        )
    columns = {
        "order_id": {"type": "string"},
        "ordered_at": {"type": "timestamp"},
        "amount": {"type": "money"},
        "day": {"type": "date"},
        "gift": {"type": "boolean"},
        "weight": {"type": "number"},
    }
    sql = {"url": url, "table": "shop.orders", "cursor": "updated_at", "overlap": "10 minutes"}
    one = source(sql=sql, columns=columns)
    assert loaded(lake, one).inserted == 1000
    [first] = [row for row in rows(lake, one, *columns, "_utc_offset") if row[0] == "1"]
    assert first == ("1", datetime(2024, 5, 1, 8, 1), Decimal("1.2500"), date(2024, 5, 1), False, 0.5, 0)
    with engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO shop.orders VALUES (1001, now(), 'x', 1, now(), true, 1, '2024-05-02')")
        )
    report = loaded(lake, one, now=NOW + timedelta(hours=1))
    assert (report.total("read"), report.inserted) == (12, 1)
    engine.dispose()


def test_a_database_that_is_down_is_named_without_its_password(lake: Lake) -> None:
    url = "postgresql+psycopg://shop:hunter2@127.0.0.1:1/orders?connect_timeout=2"
    with pytest.raises(SourceUnreachableError, match=r"shop:\*\*\*@127.0.0.1:1/orders.* does not answer") as raised:
        loaded(lake, source(sql={"url": url, "table": "orders"}))
    cause: BaseException | None = raised.value
    while cause is not None:
        assert "hunter2" not in str(cause)
        cause = cause.__cause__
    assert ledger(lake) == []


def test_a_database_that_goes_away_in_the_middle_leaves_nothing_half_loaded(
    lake: Lake, tmp_path: Path, shop: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite computes row by row, so row 60 overflows when the first batches are through."""
    add(shop, *((number, AT, None, number, None) for number in range(100)))
    monkeypatch.setattr(database, "_BATCH", 10)
    failing = "CASE WHEN order_id = 60 THEN abs(-9223372036854775807 - 1) ELSE amount END"
    query = f"SELECT order_id, ordered_at, {failing} AS amount FROM orders"
    with pytest.raises(SourceError, match="integer overflow"):
        loaded(lake, source(**from_shop(tmp_path, table=None, query=query)))
    assert not lake.exists("sources.orders") and ledger(lake) == []
    assert loaded(lake, source(**from_shop(tmp_path))).inserted == 100


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"table": "order"}, SourceError, "no table 'order', did you mean 'orders'"),
        ({"cursor": "update_at"}, ColumnMissingError, "no cursor column 'update_at', did you mean 'updated_at'"),
        ({"table": None, "query": "SELECT nonsense FROM orders"}, SourceError, "refuses the query: no such column"),
        ({"url": "nosuchdialect://x"}, SourceError, "the database URL cannot be used"),
    ],
)
def test_what_is_declared_wrongly_is_said(
    lake: Lake, tmp_path: Path, shop: sqlite3.Connection, words: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        loaded(lake, source(**from_shop(tmp_path, **words)))


def test_a_column_that_was_renamed_in_the_database_is_said(
    lake: Lake, tmp_path: Path, shop: sqlite3.Connection
) -> None:
    shop.execute("ALTER TABLE orders RENAME COLUMN order_id TO orderid")
    with pytest.raises(ColumnMissingError, match=r"no column 'order_id', .* did you mean 'orderid'"):
        loaded(lake, source(**from_shop(tmp_path)), now=datetime(2024, 6, 1, tzinfo=UTC))
    assert ledger(lake) == []


def test_of_an_overlap_without_news_only_the_time_is_noted(
    lake: Lake, tmp_path: Path, shop: sqlite3.Connection
) -> None:
    one = source(**from_shop(tmp_path, cursor="updated_at", overlap="1 hour"))
    add(shop, *((number, AT, None, number, f"2024-05-01 {number:02}:00:00") for number in range(10)))
    loaded(lake, one)
    before = lake.latest()
    assert loaded(lake, one, now=NOW + timedelta(hours=1)).loads == []
    assert_only_noted_when(lake, NOW + timedelta(hours=1), before)


def test_a_row_of_days_to_come_does_not_hide_those_that_follow(
    lake: Lake, tmp_path: Path, shop: sqlite3.Connection
) -> None:
    one = source(**from_shop(tmp_path, cursor="updated_at"))
    add(shop, (1, AT, None, 1, "2024-05-01 10:00:00"), (2, AT, None, 2, "2099-01-01 00:00:00"))
    loaded(lake, one)
    add(shop, (3, AT, None, 3, "2024-05-02 10:00:00"))
    report = loaded(lake, one, now=NOW + timedelta(hours=1))
    assert (report.total("read"), report.inserted) == (3, 1)
    assert [row["place"] for row in ledger(lake)] == ["orders", "orders from updated_at 2024-05-01 10:00:00"]
    assert database.newest_cursor(one, NOW) == '["string", "2024-05-02 10:00:00"]'


def test_a_value_that_the_driver_cannot_read_is_said_without_it(
    lake: Lake, tmp_path: Path, shop: sqlite3.Connection
) -> None:
    shop.execute("CREATE TABLE dated (order_id, ordered_at TIMESTAMP, email TEXT, amount)")
    shop.execute("INSERT INTO dated VALUES (1, 'ann@x.io', 'b@x.io', 1)")
    with pytest.raises(SourceError, match="source orders: a value is not of its column's type") as caught:
        loaded(lake, source(**from_shop(tmp_path, table="dated")))
    assert "ann@x.io" not in str(caught.value)
