"""What shipped traits say: of made-up histories, against SQL written by hand, and never anything of the future."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import ibis
import pyarrow as pa
import pytest

from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.load import DEMO, load_project
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.daily import trait_types
from cdp_pipeline_tests.traits.shop import rows_table

DAYS = [date(2024, 2, 11), date(2024, 3, 1)]
"""Two days of which the later one sees other days of the first's year, a leap day among them."""
PEOPLE = [f"p_{number:02}" for number in range(30)]
FIRST, LAST = DAYS[0] - timedelta(days=500), DAYS[-1] + timedelta(days=20)


def rows(seed: int, count: int) -> list[dict[str, Any]]:
    """Events of every kind the demo company's traits speak of; a few days know most of them, so that ties happen."""
    chance = random.Random(seed)
    project = load_project(DEMO, {})
    kinds = sorted({event for trait in project.traits.values() for event in trait.event})
    heavy = ["order_completed", "order_line_bought", "product_viewed", "cart_added", "page_viewed", "message_sent",
             "message_opened", "nps_answered", "ticket_closed"]  # fmt: skip

    def some(*values: Any) -> Any:
        return chance.choice([*values, None])

    found = []
    for number in range(count):
        event = chance.choice(chance.choice([kinds, heavy]))
        ago = int(chance.expovariate(1 / 60)) if chance.random() < 0.7 else chance.randrange((LAST - FIRST).days)
        day = max(FIRST, LAST - timedelta(days=ago))
        person = PEOPLE[int(len(PEOPLE) * chance.random() ** 4)] if chance.random() < 0.9 else None
        hour, minute = chance.choice([0, *[9] * 12, 23]), chance.choice([0, 20, 45])
        loaded = datetime.combine(day + timedelta(days=chance.choice([0, 0, 0, 1, 5])), time(23))
        found.append(
            {
                "event_id": f"e{chance.randrange(10**9):09}{number}", "person_id": person,
                "occurred_at": datetime.combine(day, time(hour, minute)),
                "source": "made_up", "event": event, "channel": some("web", "app", "store", "email", "push", "sms"),
                "amount": some(Decimal("9.99"), Decimal(40), Decimal("125.50"), Decimal("-3")), "currency": "GBP",
                "product_id": some("A", "B", "C"), "category": some("tea", "cake", "smart_home"), "_day": day,
                "_loaded_at": loaded, "coupon": some("SAVE"), "country": some("GB", "IE"),
                "brand": some("Oak", "Ash", "Elm", "Yew"), "colour": some("red", "blue"), "size": some("S", "M"),
                "unit_price": some(Decimal(8), Decimal(30)), "price": some(Decimal(30), Decimal(300)),
                "quantity": some(1, 2), "discount": some(Decimal(0), Decimal("2.50")), "store": some("York", "Bath"),
                "session_id": some("s1", "s2", "s3", "s4"), "device": some("phone", "desktop"),
                "search_term": some("gift"), "utm_source": some("social"), "utm_campaign": some("brand"),
                "campaign": some("coupon_1", "news"), "topic": some("delivery", "return"), "priority": some("high"),
                "csat": some(1, 3, 4, 5), "score": some(0, 6, 7, 9, 10), "stars": some(1, 5), "reason": some("broken"),
                "minutes": some(5, 30), "ends_on": some(day + timedelta(days=700)), "serial_number": some("SN1", "SN2"),
                "alarm": some("leak"), "battery": some(10, 90),
            }
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Made:
    """The made-up rows, and the demo company's traits of them: by person and day, and their schema."""

    project: Project
    connection: Any
    timeline: ibis.Table
    people: ibis.Table
    schema: ibis.Schema
    values: dict[tuple[str, date], dict[str, Any]]

    def as_of(self, timeline: ibis.Table, days: list[date]) -> dict[tuple[str, date], dict[str, Any]]:
        return by_key(as_of(timeline, self.people, days, self.project))


def by_key(table: ibis.Table) -> dict[tuple[str, date], dict[str, Any]]:
    return {(row["person_id"], row["day"]): row for row in table.to_pyarrow().to_pylist()}


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    project, connection = load_project(DEMO, {}), ibis.duckdb.connect()
    timeline = connection.create_table("timeline", rows_table(timeline_table(project), rows(1, 4_000)))
    people = connection.create_table("people", pa.table({"person_id": PEOPLE}))
    traits = as_of(timeline, people, DAYS, project)
    yield Made(project, connection, timeline, people, traits.schema(), by_key(traits))
    connection.disconnect()


def close(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return one is not None and other is not None and abs(float(one) - float(other)) <= 1e-9 * max(1, abs(one))
    return bool(one == other)


def test_every_trait_is_told_in_its_declared_type(made: Made) -> None:
    assert {name: str(made.schema[name]) for name in made.project.traits} == trait_types(made.project)
    assert len(made.values) == len(PEOPLE) * len(DAYS)


def test_every_trait_tells_people_apart(made: Made) -> None:
    """None is always the same: a field or a channel under a wrong name would be."""
    dull = {name for name in made.project.traits if len({repr(row[name]) for row in made.values.values()}) < 2}
    assert dull == set()


def test_no_trait_knows_what_comes_after(made: Made) -> None:
    """Built from what had happened by the day's end, it is what it is built from everything, among other days."""
    day = DAYS[0]
    told = made.as_of(made.timeline.filter(made.timeline._day <= ibis.date(day)), [day])
    assert len(told) == len(PEOPLE)
    for key, row in told.items():
        for name in made.project.traits:
            assert close(row[name], made.values[key][name]), (name, row[name], made.values[key][name])


BUY, LINE = "event IN ('order_completed', 'receipt_paid')", "event IN ('order_line_bought', 'receipt_line_bought')"
VISIT, P = "event IN ('page_viewed', 'product_viewed', 'product_searched')", "properties"
EMAIL_90D = "channel = 'email' AND _day > $day - 90"
BY_HAND = {
    "is_customer": f"bool_or({BUY})",
    "orders_lifetime": f"count(*) FILTER ({BUY})",
    "orders_90d": f"count(*) FILTER ({BUY} AND _day > $day - 90)",
    "orders_previous_90d": f"count(*) FILTER ({BUY} AND _day > $day - 180 AND _day <= $day - 90)",
    "revenue_365d": f"coalesce(sum(amount) FILTER ({BUY} AND _day > $day - 365), 0)",
    "revenue_this_year": f"coalesce(sum(amount) FILTER ({BUY} AND year(_day) = year($day)), 0)",
    "revenue_previous_year": f"coalesce(sum(amount) FILTER ({BUY} AND year(_day) = year($day) - 1), 0)",
    "average_order_value": f"avg(amount::DOUBLE) FILTER ({BUY})",
    "median_order_value": f"median(amount::DOUBLE) FILTER ({BUY})",
    "largest_order": f"max(amount) FILTER ({BUY})",
    "order_value_spread": f"stddev_samp(amount::DOUBLE) FILTER ({BUY})",
    "last_order_value": f"arg_max(amount, (occurred_at, event_id)) FILTER ({BUY} AND amount IS NOT NULL)",
    "last_order_at": f"max(occurred_at) FILTER ({BUY})",
    "days_since_last_order": f"$day - max(_day) FILTER ({BUY})",
    "days_since_first_order": f"$day - min(_day) FILTER ({BUY})",
    "days_between_orders": f"(max(_day) FILTER ({BUY}) - min(_day) FILTER ({BUY}))::DOUBLE"
                           f" / nullif(count(DISTINCT _day) FILTER ({BUY}) - 1, 0)",
    "decayed_revenue": f"coalesce(sum(amount * power(0.5, ($day - _day) / 90.0)) FILTER ({BUY}), 0)::DOUBLE",
    "store_share": f"(count(*) FILTER ({BUY} AND channel = 'store' AND _day > $day - 365))::DOUBLE"
                   f" / nullif(count(*) FILTER ({BUY} AND _day > $day - 365), 0)",
    "coupon_share": f"(count({P}.coupon) FILTER ({BUY} AND _day > $day - 365))::DOUBLE"
                    f" / nullif(count(*) FILTER ({BUY} AND _day > $day - 365), 0)",
    "discount_share": f"coalesce(sum({P}.discount) FILTER ({LINE} AND _day > $day - 365), 0)::DOUBLE"
                      f" / nullif((sum(amount + coalesce({P}.discount, 0)) FILTER ({LINE} AND _day > $day - 365)), 0)",
    "average_item_price": f"avg({P}.unit_price::DOUBLE) FILTER ({LINE} AND _day > $day - 365)",
    "categories_bought": f"coalesce(list_sort(list(DISTINCT category) FILTER ({LINE} AND category IS NOT NULL)), [])",
    "net_revenue_365d": f"coalesce(sum(amount) FILTER ({BUY} AND _day > $day - 365), 0)"
                        " - coalesce(sum(amount) FILTER (event = 'item_returned' AND _day > $day - 365), 0)",
    "sessions_30d": f"count(DISTINCT {P}.session_id) FILTER ({VISIT} AND _day > $day - 30)",
    "cart_value_7d": "coalesce(sum(amount) FILTER (event = 'cart_added' AND _day > $day - 7), 0)",
    "email_open_share": f"(count(*) FILTER (event = 'message_opened' AND {EMAIL_90D}))::DOUBLE"
                        f" / nullif(count(*) FILTER (event = 'message_sent' AND {EMAIL_90D}), 0)",
    "message_momentum": "coalesce(sum(CASE event WHEN 'message_clicked' THEN 3 ELSE 1 END"
                        " * power(0.5, ($day - _day) / 30.0))"
                        " FILTER (event IN ('message_opened', 'message_clicked')), 0)",
    "open_tickets": "count(*) FILTER (event = 'ticket_opened') - count(*) FILTER (event = 'ticket_closed')",
    "csat_share": f"avg(({P}.csat >= 4)::INT) FILTER (event = 'ticket_closed')",
    "nps": f"avg(CASE WHEN {P}.score >= 9 THEN 100.0 WHEN {P}.score <= 6 THEN -100.0 WHEN {P}.score IS NOT NULL THEN 0"
           " END::DOUBLE) FILTER (event = 'nps_answered')",
    "ces_average": f"avg({P}.score) FILTER (event = 'ces_answered')",
    "warranty_ends_on": f"max({P}.ends_on) FILTER (event = 'warranty_registered')",
    "devices_connected": f"count(DISTINCT {P}.serial_number) FILTER (event = 'device_reported')",
    "smart_home_spent": f"coalesce(sum(amount) FILTER ({LINE} AND category = 'smart_home'), 0)",
}  # fmt: skip
BY_HAND |= {
    "lifecycle_stage": """CASE WHEN {orders_lifetime} = 1 AND {days_since_last_order} <= 60 THEN 'new'
        WHEN {orders_365d} >= 5 AND {days_since_last_order} <= 120 THEN 'loyal'
        WHEN {days_since_last_order} <= 120 THEN 'active' WHEN {days_since_last_order} <= 240 THEN 'slipping'
        WHEN {orders_lifetime} >= 1 THEN 'lapsed'
        WHEN $day - max(_day) FILTER (event IN ('page_viewed', 'product_viewed')) <= 90
          OR $day - max(_day) FILTER (event = 'message_opened') <= 90 THEN 'prospect' ELSE 'dormant' END""".format(
        **BY_HAND, orders_365d=f"count(*) FILTER ({BUY} AND _day > $day - 365)"
    ),
    "spending_pace": f"""CASE WHEN {BY_HAND["revenue_365d"]} > 0 THEN (coalesce(sum(amount) FILTER ({BUY} AND
        _day > $day - 90), 0))::DOUBLE * 365.0 / (({BY_HAND["revenue_365d"]})::DOUBLE * 90.0) END""",
}


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_a_spread_of_traits_equals_sql_written_by_hand(made: Made, day: date) -> None:
    columns = ", ".join(f"{sql} AS {name}" for name, sql in BY_HAND.items()).replace("$day", f"DATE '{day}'")
    rows = made.connection.raw_sql(
        f"SELECT person_id, {columns} FROM people LEFT JOIN (SELECT * FROM timeline WHERE _day <= DATE '{day}')"
        " USING (person_id) GROUP BY person_id"
    ).to_arrow_table()
    assert rows.num_rows == len(PEOPLE)
    for row in rows.to_pylist():
        ours = made.values[row["person_id"], day]
        for name in BY_HAND:
            assert close(ours[name], row[name]), (name, row["person_id"], ours[name], row[name])


@pytest.mark.parametrize("day", DAYS, ids=str)
@pytest.mark.parametrize(
    ("trait", "top", "value"),
    [
        ("favourite_category", "top_categories", "category"),
        ("favourite_brand", "top_brands", "properties.brand"),
        ("favourite_size", None, "properties.size"),
    ],
)
def test_interests_weigh_what_people_do_and_forget_by_half_lives(
    made: Made, day: date, trait: str, top: str | None, value: str
) -> None:
    found = made.connection.raw_sql(f"""
        WITH weighed AS (
            SELECT person_id, {value} AS value, max(_day) AS seen, sum(power(0.5, (DATE '{day}' - _day) / 60.0) * CASE
                event WHEN 'product_viewed' THEN 1 WHEN 'cart_added' THEN 3 ELSE 5 END) AS weight FROM timeline
            WHERE _day <= DATE '{day}' AND {value} IS NOT NULL
              AND event IN ('product_viewed', 'cart_added', 'order_line_bought', 'receipt_line_bought') GROUP BY ALL)
        SELECT person_id, list(value ORDER BY weight DESC)[:3] AS best FROM weighed
        WHERE person_id IS NOT NULL GROUP BY person_id""").to_arrow_table()
    best = {row["person_id"]: row["best"] for row in found.to_pylist()}
    for person in PEOPLE:
        ours = made.values[person, day]
        assert ours[trait] == best.get(person, [None])[0]
        assert top is None or ours[top] == best.get(person, [])


def test_spending_trend_is_the_slope_of_twelve_months_of_thirty_days(made: Made) -> None:
    day = DAYS[1]
    found = made.connection.raw_sql(f"""
        SELECT p.person_id, regr_slope(total, 12 - month) AS slope FROM (
            SELECT p.person_id, month, coalesce(sum(amount), 0)::DOUBLE AS total FROM people p
            CROSS JOIN range(12) AS months(month) LEFT JOIN timeline t ON t.person_id = p.person_id AND {BUY}
                AND (DATE '{day}' - _day) // 30 = month AND _day <= DATE '{day}' GROUP BY ALL) p GROUP BY ALL
        """).to_arrow_table()
    for row in found.to_pylist():
        assert abs(made.values[row["person_id"], day]["spending_trend"] - row["slope"]) < 1e-6
