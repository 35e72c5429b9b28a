"""What is particular to a table: whose columns and types they are, and what one bad row does to its batch."""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import open_ledger
from cdp_pipeline.activation.plan import plan
from cdp_pipeline.activation.protocol import Delivery, DestinationError, Outcome
from cdp_pipeline.activation.sync import approve, holds, submit
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.destinations.sql import SqlConnection
from cdp_pipeline_tests.activation.projects import NOW, project, sync
from cdp_pipeline_tests.destinations.fakes.sql import sql

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'crm.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with made.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE people (email text PRIMARY KEY, since date, seen timestamp, spent numeric(12, 2),"
            " visits integer, share float, vip boolean, note text NOT NULL DEFAULT 'theirs')"
        )
        connection.exec_driver_sql("CREATE TABLE tasks (id text PRIMARY KEY, person text, about text)")
        connection.exec_driver_sql("CREATE TABLE loose (email text, vip boolean)")
    yield made
    made.dispose()


def member(key: str, **data: Any) -> Delivery:
    return Delivery(
        f"op-{key}", "add", {"type": "sync.vips", "key": key, "member": True, "data": {"email": key, **data}}
    )


def send(url: str, *batch: Delivery, **fields: Any) -> list[Outcome]:
    with SqlConnection(sql(url, **{"table": "people", "key": "email", **fields})) as connection:
        return connection.deliver(batch, now=NOW, within=MINUTE)


def rows(engine: sa.Engine, table: str = "people") -> list[dict[str, Any]]:
    with engine.begin() as connection:
        reflected = sa.Table(table, sa.MetaData(), autoload_with=connection)
        return [dict(row) for row in connection.execute(sa.select(reflected).order_by(sa.text("1"))).mappings()]


def test_values_arrive_in_the_columns_types_and_money_stays_exact(url: str, engine: sa.Engine) -> None:
    """Payloads are JSON when they come out of the ledger: dates, times and money are texts there."""
    sent = {"since": "2024-02-29", "seen": "2026-03-10T10:00:00+01:00", "spent": "12.30", "visits": 3, "share": 0.25}
    assert [each.state for each in send(url, member("ann@example.com", vip=True, **sent))] == ["delivered"]
    [row] = rows(engine)
    assert row == {
        "email": "ann@example.com", "since": date(2024, 2, 29), "seen": datetime(2026, 3, 10, 9, 0),
        "spent": decimal.Decimal("12.30"), "visits": 3, "share": 0.25, "vip": True, "note": "theirs",
    }  # fmt: skip
    assert row["seen"].replace(tzinfo=UTC) == datetime(2026, 3, 10, 9, 0, tzinfo=UTC)


def test_an_update_changes_the_mapped_fields_alone_and_may_empty_them(url: str, engine: sa.Engine) -> None:
    send(url, member("ann@example.com", vip=True, visits=3))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE people SET note = 'called on Monday'")
    send(url, member("ann@example.com", vip=None))
    [row] = rows(engine)
    assert (row["vip"], row["visits"], row["note"]) == (None, 3, "called on Monday")


def test_within_one_batch_the_last_word_counts(url: str, engine: sa.Engine) -> None:
    gone = Delivery("op-gone", "remove", {"type": "sync.vips", "key": "ann@example.com", "member": False})
    batch = [member("ann@example.com", visits=1), gone, member("ann@example.com", visits=2), member("bob@example.com")]
    assert {each.state for each in send(url, *batch)} == {"delivered"}
    assert [(row["email"], row["visits"]) for row in rows(engine)] == [
        ("ann@example.com", 2),
        ("bob@example.com", None),
    ]


def test_only_whom_the_sync_names_is_deleted(url: str, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO people (email) VALUES ('theirs@example.com')")
    send(url, member("ann@example.com"))
    send(url, Delivery("op", "remove", {"type": "sync.vips", "key": "ann@example.com", "member": False}))
    assert [row["email"] for row in rows(engine)] == ["theirs@example.com"]


@pytest.mark.parametrize(
    ("data", "column"),
    [({"visits": "many"}, "visits"), ({"visits": 1.5}, "visits"), ({"since": "yesterday"}, "since"),
     ({"spent": "a lot"}, "spent"), ({"vip": "perhaps"}, "vip"), ({"visit": 1}, "visit"), ({"note": None}, "")],
)  # fmt: skip
def test_a_value_that_does_not_fit_fails_its_row_and_names_the_column(
    url: str, engine: sa.Engine, data: dict[str, Any], column: str
) -> None:
    batch = [member("ann@example.com"), member("bob@example.com", **data), member("cid@example.com")]
    outcomes = send(url, *batch)
    assert [each.state for each in outcomes] == ["delivered", "failed", "delivered"]
    assert f"'{column}'" in outcomes[1].reason or not column
    assert [row["email"] for row in rows(engine)] == ["ann@example.com", "cid@example.com"]


def test_a_mistaken_column_is_told_its_nearest_neighbour(url: str, engine: sa.Engine) -> None:
    [outcome] = send(url, member("ann@example.com", visit=1))
    assert outcome.reason == "unknown column 'visit', did you mean 'visits'?"


def test_a_triggers_act_is_a_row_of_its_own_under_its_own_id(url: str, engine: sa.Engine) -> None:
    act = Delivery("0f3a", "act", {"type": "trigger.low_nps", "data": {"person": "p1", "about": "Call them"}})
    for _ in range(2):
        assert [each.state for each in send(url, act, table="tasks", key="id")] == ["delivered"]
    assert rows(engine, "tasks") == [{"id": "0f3a", "person": "p1", "about": "Call them"}]


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"table": "peeple"}, "did you mean 'people'"), ({"key": "mail"}, "did you mean 'email'"),
     ({"table": "loose"}, "not unique")],
)  # fmt: skip
def test_a_destination_declared_wrongly_rests_and_says_what_is_there(
    url: str, engine: sa.Engine, fields: dict[str, Any], words: str
) -> None:
    outcomes = send(url, member("ann@example.com"), member("bob@example.com"), **fields)
    assert [each.state for each in outcomes] == ["retry", "untried"]
    assert words in outcomes[0].reason


def test_a_sync_that_knows_people_by_another_field_deletes_nobody(url: str, engine: sa.Engine) -> None:
    """The sync's key and the table's differ: a removal would look for a customer number among the addresses."""
    wrong = {"type": "sync.vips", "key": "c-17", "member": True, "data": {"email": "ann@example.com"}}
    [outcome] = send(url, Delivery("op", "add", wrong))
    assert outcome.state == "failed" and "another field" in outcome.reason


@pytest.mark.parametrize("address", ["oracle://db.example.com/crm", "nonsense"])
def test_a_database_that_is_not_spoken_is_refused_with_those_that_are(address: str) -> None:
    with pytest.raises(DestinationError, match="postgresql"):
        SqlConnection(sql(address))


def test_an_audience_is_kept_in_the_table_through_leaving_and_coming_back(url: str, engine: sa.Engine) -> None:
    """From members to rows, by plans and the ledger."""
    destination = sql(url, name="crm", table="people", key="email")
    kept = sync(destination="crm", key="email", mapping={"email": "email", "visits": "visits"})
    people = {name: {"email": f"{name}@example.com", "visits": len(name)} for name in ("ann", "bert", "cid")}
    days = [["ann", "bert"], ["ann", "cid"], ["ann", "bert", "cid"]]
    with open_ledger("sqlite://") as ledger:
        for number, members in enumerate(days):
            now = NOW + timedelta(days=number)
            planned = plan(kept, members, people, holds(ledger, kept))
            if submit(ledger, planned, dry_run=False, now=now).state == "held":
                approve(ledger, planned.plan_id, by="ann", now=now)
                submit(ledger, planned, dry_run=False, now=now)
            deliver(ledger, project(destination, kept), now=now, connect=destination_for)
            assert [row["email"] for row in rows(engine)] == [f"{name}@example.com" for name in members]
