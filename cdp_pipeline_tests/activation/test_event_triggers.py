"""Events and dates that set triggers off, from a real lake into the ledger: once, soon, and never long afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from cdp_pipeline.activation.fire import fire
from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.tables import outbox_rows
from cdp_pipeline.activation.triggers import Occasion, fired
from cdp_pipeline.lake import Lake, Mirror, Note, Upsert
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.profile.watermarks import WATERMARKS
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source
from cdp_pipeline_tests.activation.projects import NOW, project, trigger, webhook
from cdp_pipeline_tests.activation.test_happenings import SCHEMA, event

AT = NOW.replace(tzinfo=None)
HOUR, ONE = timedelta(hours=1), timedelta(days=1)
NOTE = Note(run_id="test", asset="test", partition=None)
TYPES = {"amount": "decimal(18, 4)", "occurred_at": "timestamp(6)", "_day": "date", "_loaded_at": "timestamp(6)"}
PROPERTIES = "struct<stars: int64, alarm: string>"
TIMELINE = Table(
    "profile.timeline", "Events.",
    {name: Column(TYPES.get(name, PROPERTIES if name == "properties" else "string")) for name in SCHEMA.names},
    key=("event_id",), derived=True,
)  # fmt: skip
CUSTOMERS = Table(
    "profile.customers", "People.",
    {"person_id": Column("string"), "ends_on": Column("date"), "renewed_at": Column("timestamp(6)")},
    key=("person_id",),
)  # fmt: skip
REVIEWED = {"seen": {"event": "review", "when": "stars <= 2"}}
SHOP = Source.model_validate(
    {
        "kind": "source", "name": "shop", "description": "The shop.", "files": "shop.csv", "grain": ["id"],
        "occurred_at": "at",
        "columns": {
            "id": {"type": "string", "description": "Id."}, "at": {"type": "timestamp", "description": "When."}
        },
        "events": [{"event": name} for name in ("cart", "order", "review")],
    }
)  # fmt: skip


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with open_ledger("sqlite://") as opened:
        yield opened


def tell(lake: Lake, *rows: dict[str, Any], until: datetime = AT + 9 * ONE, **others: datetime) -> None:
    """These and no others are on the timeline; the shop has told `until` then, other sources as they say."""
    reached = [{"source": name, "until": at} for name, at in {"shop": until, **others}.items()]
    lake.publish(
        Mirror(TIMELINE, pa.Table.from_pylist(list(rows), schema=SCHEMA)),
        Mirror(WATERMARKS, pa.Table.from_pylist(reached, schema=WATERMARKS.schema.to_pyarrow())),
        note=NOTE,
    )


def shop(*triggers: Any, **attributes: str) -> Project:
    told = {
        name: Attribute.model_validate({
            "kind": "attribute", "name": name, "description": "x", "survivorship": "most_recent",
            "sources": [{"source": "shop", "column": "at"}],
        })
        for name in attributes
    }  # fmt: skip
    whole = project(webhook("http://127.0.0.1:9/"), *triggers, timezone="Europe/London")
    return replace(whole, sources={"shop": SHOP}, attributes=told)


def sent(ledger: Ledger) -> list[tuple[object, object]]:
    return [(row["person_id"], row["occasion"]) for row in outbox_rows(ledger).to_pylist()]


def test_an_event_is_acted_on_once_however_often_it_is_evaluated_and_says_what_happened(
    lake: Lake, ledger: Ledger
) -> None:
    told = {
        "destination": "hook",
        "mapping": {"person": "person_id", "stars": "event.stars", "article": "event.product_id"},
    }
    whole = shop(trigger(name="cross", on=REVIEWED, do=[told]))
    tell(lake, event("r1", "review", AT - HOUR, stars=1, product_id="S1"), event("r2", "review", AT - HOUR, stars=5))
    assert fire(ledger, lake, whole, now=NOW) == {"cross": {"pending": 1}}
    assert fire(ledger, lake, whole, now=NOW + HOUR)["cross"].get("pending") is None
    [op] = ledger.about(["p1"])
    assert '"data":{"article":"S1","person":"p1","stars":1}' in str(op["payload"])
    tell(lake, event("r1", "review", AT - HOUR, stars=1), event("r3", "review", AT, "p2", stars=2))
    assert fire(ledger, lake, whole, now=NOW + HOUR)["cross"]["pending"] == 1
    assert sent(ledger) == [("p1", "seen:r1"), ("p2", "seen:r3")]


def test_what_was_loaded_late_counts_for_two_days_and_a_backfill_never(lake: Lake, ledger: Ledger) -> None:
    whole = shop(trigger(name="cross", on=REVIEWED))
    tell(lake)
    fire(ledger, lake, whole, now=NOW - 9 * ONE)
    tell(
        lake, *(event(f"late{hours}", "review", AT - hours * HOUR, f"p{hours}", stars=1) for hours in (2, 47, 49, 900))
    )
    fire(ledger, lake, whole, now=NOW)
    assert sent(ledger) == [("p47", "seen:late47"), ("p2", "seen:late2")]


def test_what_happened_more_than_a_day_before_a_trigger_began_is_never_an_occasion_of_it(
    lake: Lake, ledger: Ledger
) -> None:
    left = {"missing": {"event": "order", "after": {"event": "cart"}, "for": "1 hour"}}
    whole = shop(trigger(name="cross", on=REVIEWED), trigger(name="left_behind", on=left))
    rows = [
        event("r23", "review", AT - 23 * HOUR, "p23", stars=1), event("c23", "cart", AT - 23 * HOUR, "p23"),
        event("r30", "review", AT - 30 * HOUR, "p30", stars=1), event("c30", "cart", AT - 30 * HOUR, "p30"),
        event("o1", "order", AT, "p1"),
    ]  # fmt: skip
    tell(lake, *rows)
    for minutes in (0, 10, 300):
        fire(ledger, lake, whole, now=NOW + timedelta(minutes=minutes))
        tell(lake, *(row | {"channel": f"changed {minutes}"} for row in rows))
    assert sent(ledger) == [("p23", "seen:r23"), ("p23", "missing:c23")]


def test_who_is_only_known_later_is_heard_then_and_who_is_found_to_be_somebody_else_is_not_told_twice(
    lake: Lake, ledger: Ledger
) -> None:
    whole = shop(trigger(name="cross", on=REVIEWED))
    rows = [event("r1", "review", AT - HOUR, None, stars=1), event("r2", "review", AT - HOUR, "p2", stars=1)]
    tell(lake, *rows)
    fire(ledger, lake, whole, now=NOW)
    assert sent(ledger) == [("p2", "seen:r2")]
    tell(lake, rows[0] | {"person_id": "p1"}, rows[1] | {"person_id": "p3"})
    assert fire(ledger, lake, whole, now=NOW + HOUR) == {"cross": {"known": 1, "pending": 1}}
    assert sent(ledger) == [("p2", "seen:r2"), ("p1", "seen:r1")]


def test_two_who_find_an_event_of_different_people_at_once_record_it_once(ledger: Ledger) -> None:
    whole = shop(trigger(name="cross", on=REVIEWED))
    for person in ("p1", "p2"):  # As the worker sees it, and as the batch does.
        happened = [Occasion(person, "seen:r1", NOW.date(), {"stars": 1})]
        ops = fired(whole.triggers["cross"], happened, people={}, destinations=whole.destinations)
        ledger.fire("cross", ops, day=NOW.date(), now=NOW)
    assert sent(ledger) == [("p1", "seen:r1")]


def test_only_the_rows_that_are_new_are_looked_at_and_all_of_them_where_the_lake_began_anew(
    lake: Lake, ledger: Ledger
) -> None:
    whole = shop(trigger(name="cross", on=REVIEWED))
    first = event("r1", "review", AT - HOUR, stars=1)
    tell(lake, first)
    fire(ledger, lake, whole, now=NOW)
    tell(lake, first, event("r2", "review", AT - HOUR, "p2", stars=5))
    assert fire(ledger, lake, whole, now=NOW) == {"cross": {}}, "r1 is not even known again: its row is not new"
    ledger.fire("cross", [], day=NOW.date(), now=NOW, mark=10_000)
    assert fire(ledger, lake, whole, now=NOW) == {"cross": {"known": 1}}


def test_an_event_of_a_clock_that_is_ahead_is_an_occasion_once_its_time_has_come(lake: Lake, ledger: Ledger) -> None:
    whole = shop(trigger(name="cross", on=REVIEWED))
    tell(lake)
    fire(ledger, lake, whole, now=NOW - HOUR)
    ahead = event("r1", "review", AT + HOUR, stars=1) | {"_loaded_at": AT}
    tell(lake, ahead)
    assert fire(ledger, lake, whole, now=NOW) == {"cross": {}}
    tell(lake, ahead, event("else", "order", AT))
    assert fire(ledger, lake, whole, now=NOW + 2 * HOUR) == {"cross": {"pending": 1}}
    assert fire(ledger, lake, whole, now=NOW + 3 * HOUR) == {"cross": {"known": 1}}


LEFT = {"missing": {"event": "order", "after": {"event": "cart"}, "for": "2 hours"}}


def test_a_cart_without_an_order_is_acted_on_as_soon_as_the_shop_was_loaded_two_hours_further(
    lake: Lake, ledger: Ledger
) -> None:
    whole = shop(trigger(name="left_behind", on=LEFT, cool_down="7 days"))
    rows = [
        event("c1", "cart", AT - 4 * HOUR), event("c2", "cart", AT - 4 * HOUR, "p2"),
        event("o2", "order", AT - 3 * HOUR, "p2"),
    ]  # fmt: skip
    tell(lake, *rows, until=AT - 2.1 * HOUR)
    assert fire(ledger, lake, whole, now=NOW) == {"left_behind": {}}, "an order of the last minutes may be on its way"
    tell(lake, *rows, until=AT - 2 * HOUR)  # Quiet since: no event of anybody says how late it is.
    assert fire(ledger, lake, whole, now=NOW) == {"left_behind": {"pending": 1}}
    assert fire(ledger, lake, whole, now=NOW) == {"left_behind": {"known": 1}}
    assert sent(ledger) == [("p1", "missing:c1")]


def test_a_cart_waits_for_every_source_that_tells_of_orders_and_an_order_that_comes_late_is_no_missing_one(
    lake: Lake, ledger: Ledger
) -> None:
    whole = shop(trigger(name="left_behind", on=LEFT))
    till = SHOP.model_copy(update={"name": "till", "events": [SHOP.events[1]]})
    whole = replace(whole, sources={"shop": SHOP, "till": till})
    carts = [event("c1", "cart", AT - 4 * HOUR), event("c2", "cart", AT - 4 * HOUR, "p2")]
    tell(lake, *carts, till=AT - 5 * HOUR)
    assert fire(ledger, lake, whole, now=NOW) == {"left_behind": {}}
    tell(lake, *carts, event("o2", "order", AT - 3 * HOUR, "p2", source="till"), till=AT)
    assert fire(ledger, lake, whole, now=NOW) == {"left_behind": {"pending": 1}}
    assert sent(ledger) == [("p1", "missing:c1")]


def test_a_guarded_trigger_waits_until_there_is_something_to_ask_its_guard_of(lake: Lake, ledger: Ledger) -> None:
    whole = shop(trigger(name="cross", on=REVIEWED, unless=[{"trait": "orders", "op": ">", "value": 1}]))
    tell(lake, event("r1", "review", AT - HOUR, stars=1))
    assert fire(ledger, lake, whole, now=NOW) == {}


def test_a_date_sets_off_on_its_day_and_a_new_date_again(lake: Lake, ledger: Ledger) -> None:
    today = NOW.date()
    ending = trigger(name="ending", on={"date": {"of": "ends_on", "before": "30 days"}})
    renewed = trigger(name="renewed", on={"date": {"of": "renewed_at"}})
    whole = shop(ending, renewed, ends_on="date", renewed_at="timestamp")

    def known(person: str, ends_on: date | None = None, renewed_at: datetime | None = None) -> None:
        row = {"person_id": person, "ends_on": ends_on, "renewed_at": renewed_at}
        lake.publish(Upsert(CUSTOMERS, pa.Table.from_pylist([row], schema=CUSTOMERS.schema.to_pyarrow())), note=NOTE)

    known("due", today + 30 * ONE)
    known("tomorrow", today + 31 * ONE)
    known("yesterday", today + 29 * ONE)
    known("summer", None, datetime(2026, 3, 28, 23, 30))
    fire(ledger, lake, whole, now=NOW)
    assert sent(ledger) == [("due", f"date:ends_on:{today + 30 * ONE}:-30")]
    fire(ledger, lake, whole, now=NOW + ONE)
    assert sent(ledger)[1:] == [("tomorrow", f"date:ends_on:{today + 31 * ONE}:-30")]
    known("due", today + 32 * ONE)
    fire(ledger, lake, whole, now=NOW + 2 * ONE)
    assert sent(ledger)[2:] == [("due", f"date:ends_on:{today + 32 * ONE}:-30")]
    spring = datetime.combine(date(2026, 3, 29), NOW.timetz())  # The clocks went forward that night.
    known("summer", None, datetime(2026, 3, 28, 23, 30))
    known("after", None, datetime(2026, 3, 29, 23, 30))
    fire(ledger, lake, whole, now=spring - ONE)
    assert sent(ledger)[3:] == [("summer", "date:renewed_at:2026-03-28:+0")]
    fire(ledger, lake, whole, now=spring + ONE)
    assert sent(ledger)[4:] == [("after", "date:renewed_at:2026-03-30:+0")]


def test_a_date_that_is_only_loaded_the_night_after_is_reached_all_the_same_but_none_of_before_it_began(
    lake: Lake, ledger: Ledger
) -> None:
    whole = shop(trigger(name="renewed", on={"date": {"of": "ends_on"}}), ends_on="date")
    today = NOW.date()

    def known(*dates: date) -> None:
        rows = [{"person_id": f"p{at.day}", "ends_on": at, "renewed_at": None} for at in dates]
        lake.publish(Mirror(CUSTOMERS, pa.Table.from_pylist(rows, schema=CUSTOMERS.schema.to_pyarrow())), note=NOTE)

    known()
    for days in range(4):
        fire(ledger, lake, whole, now=NOW + days * ONE)
    known(*(today + days * ONE for days in range(-3, 5)))  # The third night's run.
    fire(ledger, lake, whole, now=NOW + 3 * ONE)
    assert [person for person, _ in sent(ledger)] == [f"p{(today + days * ONE).day}" for days in (1, 2, 3)]
    other, begun = shop(trigger(name="other", on={"date": {"of": "ends_on"}}), ends_on="date"), NOW + 3 * ONE
    for _ in range(2):
        fire(ledger, lake, other, now=begun)
    assert len(sent(ledger)) == 4, "one of its first day"
