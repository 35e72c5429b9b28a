"""What a contract makes of values: types, normal forms, time zones, and the five actions."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.lake import Lake
from cdp_pipeline.sources.contract import REASONS, Contract, contract
from cdp_pipeline.sources.normalise import country, currency, name, phone
from cdp_pipeline.spec.source import Source
from cdp_pipeline_tests.sources.projects import loaded, quarantine, rows, source


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    opened = duckdb.connect()
    opened.execute("SET TimeZone = 'UTC'")
    return opened


def judged(
    connection: duckdb.DuckDBPyConnection, one: Source, texts: list[dict[str, str | None]], zone: str = "UTC"
) -> tuple[list[dict[str, Any]], Contract]:
    """The contract's own rows for these texts, in order."""
    names = list(one.columns)
    columns = ", ".join(f'"{name}" VARCHAR' for name in names)
    connection.execute(f"CREATE OR REPLACE TABLE texts ({columns})")
    connection.executemany(
        f"INSERT INTO texts VALUES ({', '.join('?' * len(names))})",
        [[row.get(name) for name in names] for row in texts],
    )
    held = contract(
        one, "(SELECT rowid AS _row, 0 AS _place, * FROM texts)", {name: f'"{name}"' for name in names}, {}, {}, zone
    )
    found = connection.execute(f"SELECT * FROM ({held.sql}) ORDER BY _row").to_arrow_table().to_pylist()
    return found, held


def outcome(connection: duckdb.DuckDBPyConnection, text: str | None, **column: Any) -> tuple[Any, str | None]:
    """One value under one column's contract: what it becomes, and the reason if it is a fault."""
    one = Source.model_validate(
        {
            "kind": "source", "name": "s", "description": "S.", "grain": ["key"], "occurred_at": "at", "files": "x.csv",
            "columns": {"key": {"type": "string"}, "at": {"type": "timestamp"}, "x": column},
        }
    )  # fmt: skip
    [row], held = judged(connection, one, [{"key": "1", "at": "2024-05-01 10:00:00", "x": text}])
    return row["x"], None if row["_fault"] is None else held.faults[row["_fault"]].reason


WRONG, DATE = "wrong_type", "impossible_date"


@pytest.mark.parametrize(
    ("type", "text", "value", "reason"),
    [
        ("integer", " 12 ", 12, None),
        ("integer", "-3.00", -3, None),
        ("integer", "1.5", None, WRONG),
        ("integer", "0x1F", None, WRONG),
        ("integer", "1_000", None, WRONG),
        ("integer", "99999999999999999999", None, WRONG),
        ("number", "1e3", 1000.0, None),
        ("number", "inf", None, WRONG),
        ("number", "NaN", None, None),
        ("money", "12.5", Decimal("12.5000"), None),
        ("money", "1,234.50", None, WRONG),
        ("boolean", "Yes", True, None),
        ("boolean", "0", False, None),
        ("boolean", "maybe", None, WRONG),
        ("date", "2024-02-29", date(2024, 2, 29), None),
        ("date", "2023-02-29", None, DATE),
        ("date", "0000-00-00", None, DATE),
        ("date", "0000-01-01", None, DATE),
        ("date", "31/12/2024", None, DATE),
        ("date", "epoch", None, WRONG),
        ("date", "yesterday", None, WRONG),
        ("timestamp", "2024-05-01T10:00:00.123456", datetime(2024, 5, 1, 10, 0, 0, 123456), None),
        ("timestamp", "2024-05-01 10:00", datetime(2024, 5, 1, 10), None),
        ("timestamp", "2024-05-01", datetime(2024, 5, 1), None),
        ("timestamp", "2024-05-01T10:00:00Z", datetime(2024, 5, 1, 10), None),
        ("timestamp", "2024-05-01T10:00:00+05:30", datetime(2024, 5, 1, 4, 30), None),
        ("timestamp", "2024-05-01 10:00:00-07", datetime(2024, 5, 1, 17), None),
        ("timestamp", "2024-05-01 10:00:00 Europe/Berlin", datetime(2024, 5, 1, 8), None),
        ("timestamp", "infinity", None, WRONG),
        ("timestamp", "0000-00-00 00:00:00", None, DATE),
        ("timestamp", "2024-05-01 25:00:00", None, DATE),
        ("string", "  kept as it is ", "  kept as it is ", None),
        *[
            ("string", spelling, None, None)
            for spelling in ("", "  ", "NULL", "null", "n/a", "N/A", "None", "nan", "\\N")
        ],
    ],
)
def test_texts_become_values_of_the_declared_type(
    connection: duckdb.DuckDBPyConnection, type: str, text: str, value: Any, reason: str | None
) -> None:
    assert outcome(connection, text, type=type) == (value, reason)


@pytest.mark.parametrize(
    ("type", "text", "value"),
    [
        ("money", "€ 1.234,50", Decimal("1234.5000")),
        ("money", "1,234.50 GBP", Decimal("1234.5000")),
        ("money", "1'234", Decimal("1234.0000")),
        ("money", "1,234", Decimal("1234.0000")),
        ("money", "12,5", Decimal("12.5000")),
        ("money", "(12.00)", Decimal("-12.0000")),
        ("money", "12.00-", Decimal("-12.0000")),
        ("integer", "1,000", 1000),
        ("number", "1.234.567,5", 1234567.5),
        ("date", "31/12/2024", date(2024, 12, 31)),
        ("date", "20241231", date(2024, 12, 31)),
        ("timestamp", "31.12.2024 10:30", datetime(2024, 12, 31, 10, 30)),
        ("timestamp", "1714557600", datetime(2024, 5, 1, 10)),
        ("timestamp", "1714557600000", datetime(2024, 5, 1, 10)),
    ],
)
def test_coerce_mends_what_people_write(
    connection: duckdb.DuckDBPyConnection, type: str, text: str, value: Any
) -> None:
    assert outcome(connection, text, type=type, invalid="coerce") == (value, None)


@pytest.mark.parametrize(
    ("type", "text"), [("money", "twelve"), ("integer", "1,5"), ("boolean", "maybe"), ("date", "soon")]
)
def test_what_coerce_cannot_mend_is_set_aside(connection: duckdb.DuckDBPyConnection, type: str, text: str) -> None:
    assert outcome(connection, text, type=type, invalid="coerce") == (None, WRONG)


@pytest.mark.parametrize(
    ("normaliser", "text", "value"),
    [
        ("trim", " a B\t", "a B"),
        ("lower", " ÄB ", "äb"),
        ("upper", " äb\n", "ÄB"),
        ("email", " Ann.O'Hara+x@Example.COM ", "ann.o'hara+x@example.com"),
        ("postcode", " ec1a   1bb ", "EC1A 1BB"),
    ],
)
def test_normal_forms_in_sql(connection: duckdb.DuckDBPyConnection, normaliser: str, text: str, value: str) -> None:
    assert outcome(connection, text, type="string", normalise=normaliser) == (value, None)


@pytest.mark.parametrize("text", ["ann", "ann@", "@x.io", "a b@x.io", "a@b@x.io", "a@x", "Ann <a@x.io>", "a@x.io."])
def test_what_is_no_address_is_not_recognised(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    assert outcome(connection, text, type="string", normalise="email") == (None, "unrecognised")
    assert outcome(connection, text, type="string", normalise="email", invalid="omit") == (None, None)
    assert outcome(connection, text, type="string", normalise="email", invalid="allow") == (text, None)


def test_normal_forms_by_value() -> None:
    assert phone("07400 123456", "GB") == phone("+44 7400-123 456", None) == "+447400123456"
    assert phone("12", "GB") is None and phone("no number", "GB") is None and phone("07400 123456", None) is None
    assert [name(text) for text in ("  ANNE-MARIE  o'neil ", "mcdonald", "McDonald", "ann")] == [
        "ANNE-MARIE o'neil", "Mcdonald", "McDonald", "Ann"
    ]  # fmt: skip
    assert [country(text) for text in ("uk", "GBR", "Germany", "de", "Atlantis")] == ["GB", "GB", "DE", "DE", None]
    assert [currency(text) for text in ("eur", "€", "Pound Sterling", "$", "ABCD")] == ["EUR", "EUR", "GBP", None, None]


def test_declared_spellings_of_null_and_meant_values(connection: duckdb.DuckDBPyConnection) -> None:
    assert outcome(connection, "-1", type="integer", nulls=["-1"]) == (None, None)
    assert outcome(connection, "not given, sorry", type="string", nulls=["not given, sorry"]) == (None, None)
    accepted = [{"accepted": ["none", "gold"]}]
    assert outcome(connection, "none", type="string", checks=accepted) == ("none", None)
    assert outcome(connection, "NULL", type="string", checks=accepted) == (None, None)


CHECKS = [
    ("string", {"accepted": ["web", "app"]}, "App ", "not_accepted", "app"),
    ("integer", {"accepted": [1, 2]}, "3", "not_accepted", None),
    ("money", {"range": [0, 100]}, "-0.01", "out_of_range", Decimal("0.0000")),
    ("number", {"range": [None, 1.5]}, "1.6", "out_of_range", 1.5),
    ("string", {"pattern": "[A-Z]{2}[0-9]+"}, "xAB12", "pattern_mismatch", None),
    ("integer", {"expression": "x > 5 or key = '2'"}, "3", "failed_expression", None),
]


@pytest.mark.parametrize(("type", "check", "text", "reason", "mended"), CHECKS)
def test_each_check_with_each_action(
    connection: duckdb.DuckDBPyConnection, type: str, check: dict[str, Any], text: str, reason: str, mended: Any
) -> None:
    def under(action: str) -> tuple[Any, str | None]:
        return outcome(connection, text, type=type, checks=[check | {"action": action}])

    kept, _ = under("allow")
    assert kept is not None
    assert under("quarantine") == (kept, reason)
    assert under("reject") == (kept, reason)
    assert under("omit") == (None, None)
    assert under("coerce") == ((mended, None) if mended is not None else (kept, reason))
    assert outcome(connection, None, type=type, checks=[check]) == (None, None), "no value breaks no check"


def test_required_columns_and_keys_that_are_empty_or_emptied(connection: duckdb.DuckDBPyConnection) -> None:
    assert outcome(connection, "", type="string", required=True) == (None, "missing_required")
    check = {"accepted": ["a"], "action": "omit"}
    assert outcome(connection, "b", type="string", required=True, checks=[check]) == (None, "missing_required")
    assert outcome(connection, "b", type="integer", required=True, invalid="omit") == (None, "missing_required")


def test_every_reason_is_explained_in_words() -> None:
    assert all(text.endswith(".") for text in REASONS.values())


moments = st.datetimes(datetime(1971, 1, 1), datetime(2037, 12, 31)).map(lambda moment: moment.replace(microsecond=0))


@settings(max_examples=40)
@given(
    st.lists(moments, min_size=1, max_size=30), st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata"])
)
def test_clock_times_become_utc_as_the_time_zone_database_says(clock: list[datetime], zone: str) -> None:
    """Oracle: zoneinfo. In a fold the second pass counts, in a gap the offset before it."""
    around_changes = [datetime(2024, 3, 31, 2, 30), datetime(2024, 10, 27, 2, 30), datetime(2024, 3, 10, 2, 30)]
    one = source(
        timezone=zone, files="x.csv", columns={"order_id": {"type": "string"}, "ordered_at": {"type": "timestamp"}}
    )
    times = [*clock, *around_changes, datetime(2024, 11, 3, 1, 30)]
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    found, _ = judged(connection, one, [{"order_id": "1", "ordered_at": str(time)} for time in times], zone)
    for time, row in zip(times, found, strict=True):
        before, after = (time.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1))
        gap = before > after
        expected = (before if gap else after).replace(tzinfo=None)
        assert row["_occurred_at"] == expected
        assert row["_utc_offset"] == (time - expected) / timedelta(minutes=1)
        assert row["_day"] == expected.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).date()


def test_the_day_is_the_projects_and_the_offset_the_sources(lake: Lake, tmp_path: Path) -> None:
    text = "order_id,ordered_at\n1,2024-05-01 23:30:00\n2,2024-05-01T23:30:00+00:00\n3,2024-05-01T23:30:00-10:00\n"
    (tmp_path / "o.csv").write_text(text)
    one = source(files=str(tmp_path / "o.csv"), timezone="America/New_York")
    loaded(lake, one, timezone="Europe/Berlin")
    assert rows(lake, one, "order_id", "_occurred_at", "_utc_offset", "_day") == [
        ("1", datetime(2024, 5, 2, 3, 30), -240, date(2024, 5, 2)),
        ("2", datetime(2024, 5, 1, 23, 30), 0, date(2024, 5, 2)),
        ("3", datetime(2024, 5, 2, 9, 30), -600, date(2024, 5, 2)),
    ]


def test_formats_that_are_declared_are_the_only_ones_read(connection: duckdb.DuckDBPyConnection) -> None:
    british = {"type": "timestamp", "format": "%d/%m/%Y %H:%M"}
    assert outcome(connection, "02/01/2024 09:05", **british) == (datetime(2024, 1, 2, 9, 5), None)
    assert outcome(connection, "2024-01-02 09:05", **british) == (None, DATE)
    zoned = {"type": "timestamp", "format": "%d %b %Y %H:%M:%S %z"}
    assert outcome(connection, "02 Jan 2024 09:05:00 +0200", **zoned) == (datetime(2024, 1, 2, 7, 5), None)


def test_looked_up_forms_reach_the_table_and_their_failures_the_quarantine(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "order_id,ordered_at,phone,country,name\n"
        "1,2024-05-01 10:00:00,07400 123456,United Kingdom,ANN\n"
        "2,2024-05-01 10:00:00,banana,uk,Bob\n"
        "3,2024-05-01 10:00:00,,Atlantis,\n"
    )
    columns = {
        "order_id": {"type": "string"},
        "ordered_at": {"type": "timestamp"},
        "phone": {"type": "string", "normalise": "phone"},
        "country": {"type": "string", "normalise": "country", "invalid": "omit"},
        "name": {"type": "string", "normalise": "name"},
    }
    one = source(files=str(tmp_path / "p.csv"), columns=columns, region="GB")
    report = loaded(lake, one)
    assert rows(lake, one, "order_id", "phone", "country", "name") == [
        ("1", "+447400123456", "GB", "Ann"),
        ("3", None, None, None),
    ]
    assert [(row["column"], row["reason"]) for row in quarantine(lake)] == [("phone", "unrecognised")]
    assert report.total("omitted") == 1
