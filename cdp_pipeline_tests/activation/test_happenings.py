"""Which events set a trigger off, and which were missed: on small timelines, against a plain loop."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import ibis
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.activation.happenings import low_watermark, occasions_of_events, since
from cdp_pipeline.activation.triggers import Occasion
from cdp_pipeline_tests.activation.projects import NOW, trigger

AT = NOW.replace(tzinfo=None)
HOUR = timedelta(hours=1)
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("event_id", "person_id", "source", "event", "channel", "currency", "product_id")]
    + [("category", pa.string()), ("amount", pa.decimal128(18, 4)), ("occurred_at", pa.timestamp("us"))]
    + [("_day", pa.date32()), ("_loaded_at", pa.timestamp("us"))]
    + [("properties", pa.struct([("stars", pa.int64()), ("alarm", pa.string())]))]
)


def event(id_: str, name: str, at: datetime, person: str | None = "p1", **said: Any) -> dict[str, Any]:
    properties = {key: said.pop(key, None) for key in ("stars", "alarm")}
    row = {"event_id": id_, "event": name, "occurred_at": at, "person_id": person, "source": "shop", "_day": at.date()}
    row |= {"_loaded_at": at}
    return dict.fromkeys(SCHEMA.names) | row | {"properties": properties} | said


def timeline(rows: Iterable[dict[str, Any]]) -> ibis.Table:
    return ibis.memtable(pa.Table.from_pylist(list(rows), schema=SCHEMA))


def found(on: dict[str, Any], rows: Iterable[dict[str, Any]], after: datetime, until: datetime) -> list[Occasion]:
    return occasions_of_events(trigger(on=on).on, timeline(rows), after=after, until=until)


def test_an_event_is_an_occasion_once_for_its_person_with_what_it_says() -> None:
    rows = [
        event("bad", "review", AT - HOUR, stars=1, product_id="S1"),
        event("good", "review", AT - HOUR, stars=5),
        event("silent", "review", AT - HOUR),
        event("nobody", "review", AT - HOUR, None, stars=1),
        event("old", "review", AT - 50 * HOUR, stars=1),
        event("ahead", "review", AT + HOUR, stars=1),
        event("other", "order", AT - HOUR, stars=1),
        event("first", "review", AT - 2 * HOUR, "p2", stars=2),
    ]
    happened = found({"seen": {"event": "review", "when": "stars <= 2"}}, rows, since(AT, AT - 90 * HOUR), AT)
    assert [(one.person_id, one.text) for one in happened] == [("p2", "seen:first"), ("p1", "seen:bad")]
    assert happened[1].event["stars"] == 1 and happened[1].event["product_id"] == "S1"
    assert happened[1].day == AT.date()


def test_of_two_windows_that_meet_an_event_is_in_one() -> None:
    rows = [event(f"e{hours}", "review", AT + hours * HOUR, stars=1) for hours in (0, 1, 2)]
    windows = [(AT, AT + HOUR), (AT + HOUR, AT + 2 * HOUR)]
    assert [
        [one.text for one in found({"seen": {"event": "review"}}, rows, after, until)] for after, until in windows
    ] == [["seen:e1"], ["seen:e2"]]
    carts = [event("c", "cart", AT)]
    assert [len(found(CART, carts, AT + hours * HOUR, AT + (hours + 1) * HOUR)) for hours in (0, 1, 2)] == [0, 1, 0]


def test_a_trigger_looks_back_two_days_but_never_further_than_a_day_before_it_began() -> None:
    one = timedelta(days=1)
    assert since(AT, None) == since(AT, AT) == AT - one
    assert since(AT + HOUR, AT) == AT - one
    assert since(AT + one, AT) == since(AT + one, AT - 9 * one) == AT - one


CART = {"missing": {"event": "order", "after": {"event": "cart"}, "for": "2 hours"}}


def test_an_order_is_missed_two_hours_after_the_last_cart_and_not_before() -> None:
    rows = [event("c1", "cart", AT), event("c2", "cart", AT + HOUR), event("else", "order", AT + HOUR, "p2")]
    assert found(CART, rows, AT - 48 * HOUR, AT + 2.9 * HOUR) == []
    [missed] = found(CART, rows, AT - 48 * HOUR, AT + 3 * HOUR)
    assert (missed.person_id, missed.text) == ("p1", "missing:c2")
    for hours, missing in ((2.5, 0), (3, 0), (3.001, 1)):
        ordered = [*rows, event("o", "order", AT + hours * HOUR)]
        assert len(found(CART, ordered, AT - 48 * HOUR, AT + 9 * HOUR)) == missing


steps = st.lists(
    st.tuples(st.sampled_from(["p1", "p2"]), st.sampled_from(["cart", "order", "page"]), st.integers(0, 40)), max_size=9
)


@settings(max_examples=60)
@given(steps, st.integers(0, 40))
def test_what_is_missing_is_what_a_loop_over_the_events_misses(drawn: list[tuple[str, str, int]], end: int) -> None:
    unit, until = HOUR / 4, AT + HOUR / 4 * end
    rows = [event(f"e{i}", name, AT + unit * at, person) for i, (person, name, at) in enumerate(drawn)]
    wanted = set()
    for cart in rows:
        over = cart["occurred_at"] + 2 * HOUR
        later = [
            row for row in rows
            if row["person_id"] == cart["person_id"]
            and row["event"] in ("cart", "order")
            and cart["occurred_at"] <= row["occurred_at"] <= min(over, until)
            and (row["occurred_at"], row["event"] == "order", row["event_id"])
            > (cart["occurred_at"], cart["event"] == "order", cart["event_id"])
        ]  # fmt: skip
        if cart["event"] == "cart" and over <= until and not later:
            wanted.add((cart["person_id"], f"missing:{cart['event_id']}"))
    happened = found(CART, rows, AT - 48 * HOUR, until)
    assert {(one.person_id, one.text) for one in happened} == wanted and len(happened) == len(wanted)


def test_nothing_is_missed_beyond_what_its_sources_have_told() -> None:
    told = ibis.memtable([{"source": "shop", "until": AT + HOUR}, {"source": "till", "until": AT - HOUR}])
    assert low_watermark(told, ["shop"], AT + 9 * HOUR) == AT + HOUR
    assert low_watermark(told, ["shop", "till"], AT + 9 * HOUR) == AT - HOUR
    assert low_watermark(told, ["shop"], AT) == AT
    assert low_watermark(told, ["never"], AT) == AT


def test_an_event_s_day_is_its_own() -> None:
    at = datetime(2026, 3, 8, 23, 30, tzinfo=UTC).replace(tzinfo=None)
    [one] = found(
        {"seen": {"event": "order"}}, [event("o", "order", at) | {"_day": date(2026, 3, 9)}], AT - 48 * HOUR, AT
    )
    assert one.day == date(2026, 3, 9)
