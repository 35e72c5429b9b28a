"""The timeline against a loop over source rows and their declared events."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.profile.timeline import event_scope, timeline, timeline_table
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import EventMapping
from cdp_pipeline.spec.types import event_columns
from cdp_pipeline_tests.identity.shop import CRM, TILL, WEB, Row, ibis_tables, persons, project, resolved

WEB_EVENTS = [
    EventMapping(column="event", names=["viewed", "searched"], channel="name", properties=["name", "points"]),
    EventMapping(event="bought", when="event = 'bought' and paid > 0", amount="paid * 2", product_id="name"),
]
TILL_EVENTS = [
    EventMapping(event="receipt", amount="paid", currency="'USD'", category="upper(name)", properties=["agrees"])
]
CRM_EVENTS = [EventMapping(event="contact_known", amount="points")]


def of() -> Project:
    sources = {
        "web": WEB.model_copy(update={"events": WEB_EVENTS}),
        "till": TILL.model_copy(update={"events": TILL_EVENTS}),
        "crm": CRM.model_copy(update={"events": CRM_EVENTS}),
    }
    return project(sources=sources)


def by_hand(row: Row) -> list[dict[str, Any]]:
    """What one row says happened, as the declarations above have it."""
    said: dict[str, Any] = dict.fromkeys(["channel", "amount", "currency", "product_id", "category"])
    kept: dict[str, Any] = dict.fromkeys(["agrees", "name", "points"])
    if row.source == "web" and row.event in ("viewed", "searched"):
        return [
            said
            | {"event": row.event, "channel": row.name, "properties": kept | {"name": row.name, "points": row.points}}
        ]
    if row.source == "web" and row.event == "bought" and row.paid is not None and row.paid > 0:
        said |= {"event": "bought", "channel": "web", "amount": row.paid * 2, "currency": "GBP", "product_id": row.name}
        return [said | {"properties": kept}]
    if row.source == "till":
        category, currency = row.name and row.name.upper(), None if row.paid is None else "USD"
        said |= {"event": "receipt", "channel": "store", "amount": row.paid, "currency": currency, "category": category}
        return [said | {"properties": kept | {"agrees": row.agrees}}]
    if row.source == "crm" and row.until is None:
        amount = None if row.points is None else Decimal(row.points)
        currency = None if amount is None else "EUR"
        return [said | {"event": "contact_known", "amount": amount, "currency": currency, "properties": kept}]
    return []


@st.composite
def _rows(draw: st.DrawFn) -> list[Row]:
    found = draw(
        st.lists(
            st.builds(
                Row, source=st.sampled_from(["web", "till", "crm"]), record=st.just(0), day=st.integers(0, 3),
                customer=st.none() | st.integers(1, 3), cookie=st.none() | st.sampled_from(["k1", "anonymous"]),
                event=st.sampled_from([None, "viewed", "searched", "bought", "unheard_of"]),
                name=st.none() | st.sampled_from(["tea", "mug"]), points=st.none() | st.integers(0, 3),
                paid=st.none() | st.sampled_from([Decimal("0.1000"), Decimal("-2.5000")]),
                agrees=st.none() | st.booleans(), until=st.none() | st.just(5),
            ),
            max_size=40,
        )
    )  # fmt: skip
    return [dataclasses.replace(row, record=place) for place, row in enumerate(found)]


@settings(max_examples=8)
@given(_rows())
def test_every_event_of_every_row_is_told_once_with_whose_it_is(found: list[Row]) -> None:
    result = resolved(found, of=of())
    whose = persons(result)
    expected = []
    for row in found:
        ones = [("customer_id", str(row.customer)), ("anonymous_id", str(row.cookie))]
        person = next((whose[one] for one in ones if whose.get(one) is not None), None)
        for event in by_hand(row):
            row_says = {
                "event_id": f"{row.record_id}:{event['event']}", "person_id": person, "source": row.source,
                "occurred_at": row.at, "_day": row.at.date(),
            }  # fmt: skip
            expected.append(event | row_says | {"properties": {"record_id": row.record_id, **event["properties"]}})
    table = timeline(ibis_tables(found), ibis.memtable(result.identifiers), of())
    assert table.schema() == timeline_table(of()).schema
    told = [
        {name: value for name, value in row.items() if name != "_loaded_at"} for row in table.to_pyarrow().to_pylist()
    ]
    assert sorted(told, key=lambda row: row["event_id"]) == sorted(expected, key=lambda row: row["event_id"])


def test_events_of_nobody_are_kept() -> None:
    found = [Row("till", 1, 0, paid=Decimal(5)), Row("web", 2, 0, event="viewed", cookie="anonymous")]
    result = resolved(found, of=of())
    table = timeline(ibis_tables(found), ibis.memtable(result.identifiers), of()).to_pyarrow()
    assert table["person_id"].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("declared", "mapping", "expected"),
    [
        ("GBP", {"amount": "paid"}, "GBP"),
        ("name", {"amount": "paid"}, "JPY"),
        (None, {"amount": "paid"}, "EUR"),
        ("GBP", {"amount": "paid", "currency": "'USD'"}, "USD"),
        ("GBP", {"amount": "paid", "currency": "event"}, "GBP"),
        ("GBP", {"amount": "points"}, "EUR"),
        ("GBP", {}, None),
    ],
    ids=["the code", "the column", "the project", "said", "said but empty", "not money", "no amount"],
)
def test_the_currency_is_what_is_said_else_the_money_columns_else_the_projects(
    declared: str | None, mapping: dict[str, str], expected: str | None
) -> None:
    columns = WEB.columns | {"paid": WEB.columns["paid"].model_copy(update={"currency": declared})}
    web = WEB.model_copy(update={"columns": columns, "events": [EventMapping(event="bought", **mapping)]})
    whole = project(sources={"web": web})
    rows = ibis_tables([Row("web", 1, 0, name="JPY", paid=Decimal(1), points=1)])
    nobody = ibis.memtable(resolved([]).identifiers)
    assert timeline({"web": rows["web"]}, nobody, whole).to_pyarrow()["currency"].to_pylist() == [expected]


def test_an_expression_about_events_may_name_columns_and_properties() -> None:
    columns = event_columns(of().sources.values())
    assert columns["points"] == "int64" and columns["amount"] == "decimal(18, 4)"
    assert {"channel", "source", "occurred_at", "record_id", "agrees"} <= set(columns)
    assert expressions.check("points + 1 > 2 and source = 'web'", columns) == "boolean"
    found = [Row("web", 1, 0, event="viewed", points=points) for points in (1, 2)]
    found = [dataclasses.replace(row, record=place) for place, row in enumerate(found)]
    table = timeline(ibis_tables(found), ibis.memtable(resolved(found).identifiers), of())
    assert set(event_scope(table)) == set(columns)
    kept = table.filter(expressions.compile("points + 1 > 2 and source = 'web'", event_scope(table)))
    assert kept.to_pyarrow()["event_id"].to_pylist() == ["web0001:viewed"]


def test_a_project_without_events_has_an_empty_timeline() -> None:
    nobody = ibis.memtable(resolved([]).identifiers)
    table = timeline(ibis_tables([Row("web", 1, 0)]), nobody, project()).to_pyarrow()
    assert table.num_rows == 0
    assert isinstance(table, pa.Table) and table.column_names == list(timeline_table(project()).columns)
