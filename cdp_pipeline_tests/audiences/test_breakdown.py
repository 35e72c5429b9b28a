"""What sets an audience apart, counted once more in plain Python; and what is never looked at."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from statistics import quantiles
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.audiences.breakdown import Difference, breakdowns, clearest, people_of
from cdp_pipeline.audiences.rules import Scope
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline_tests.audiences.company import audience, rule
from cdp_pipeline_tests.traits.shop import DAYS, project, trait

SHOP = project(trait("orders", "count"), audience("some", rule(trait="orders", op=">", value=0)))
SCHEMA = pa.schema(
    {
        "person_id": pa.string(), "orders": pa.int64(), "spent": pa.decimal128(18, 4), "points": pa.float64(),
        "vip": pa.bool_(), "town": pa.string(), "likes": pa.list_(pa.string()), "born": pa.date32(),
    }
)  # fmt: skip
PEOPLE = st.lists(
    st.fixed_dictionaries({
        "inside": st.booleans(),
        "orders": st.none() | st.integers(-2, 5),
        "spent": st.none() | st.sampled_from([Decimal("0.0000"), Decimal("1.5000"), Decimal("20.0000")]),
        "points": st.none() | st.sampled_from([0.0, 0.1, 0.25, 7.0]),
        "vip": st.none() | st.booleans(),
        "town": st.none() | st.sampled_from(["Ely", "Bath"]),
        "likes": st.none() | st.lists(st.sampled_from(["tea", "cake"]), max_size=3),
        "born": st.none(),
    }), min_size=1, max_size=25,
)  # fmt: skip


def found(people: list[dict[str, Any]], least: int = 1) -> list[Difference]:
    rows = [{"person_id": f"p{n}", **{k: v for k, v in row.items() if k != "inside"}} for n, row in enumerate(people)]
    inside = [{"audience": "some", "person_id": f"p{n}"} for n, row in enumerate(people) if row["inside"]]
    table = ibis.memtable(pa.Table.from_pylist(rows, SCHEMA))
    members = pa.Table.from_pylist(inside, pa.schema({"audience": "string", "person_id": "string"}))
    return breakdowns(SHOP, ["some"], table, ibis.memtable(members), least)["some"]


def segments(name: str, value: Any, values: list[Any]) -> list[str]:
    """The names of the segments a value falls into, worked out from all values."""
    if name == "likes":
        return sorted(set(value or []))
    if value is None:
        return ["unknown"]
    if name == "vip":
        return ["yes" if value else "no"]
    if name == "town":
        return [value]
    numbers = [float(v) for v in values if v is not None]
    some = [v for v in numbers if v]
    cuts = set(quantiles(some, n=4, method="inclusive") if len(some) > 1 else some) | ({0.0} & set(numbers))
    edges = sorted(cuts)
    place = sum(float(value) > edge for edge in edges)
    if place == len(edges):
        return [f"more than {edges[-1]:,.6g}"]
    if place == 0:
        return ["0" if edges[0] == 0 and min(numbers) >= 0 else f"up to {edges[0]:,.6g}"]
    return [f"more than {edges[place - 1]:,.6g}, up to {edges[place]:,.6g}"]


@settings(max_examples=30)
@given(PEOPLE)
def test_people_of_every_segment_are_counted_in_the_audience_and_among_everybody(people: list[dict[str, Any]]) -> None:
    counts: dict[bool, Counter[tuple[str, str]]] = {True: Counter(), False: Counter()}
    for name in ("orders", "spent", "points", "vip", "town", "likes"):
        values = [row[name] for row in people]
        for row in people:
            for segment in segments(name, row[name], values):
                counts[False][name, segment] += 1
                counts[True][name, segment] += row["inside"]
    size = sum(row["inside"] for row in people)
    told = {(one.what, one.says): (one.people, one.share, one.share_of_everybody) for one in found(people)}
    wanted = {
        of: (counts[True][of], counts[True][of] / size, n / len(people))
        for of, n in counts[False].items()
        if size and n < len(people)
    }
    assert told == {of: pytest.approx(figures) for of, figures in wanted.items()}


def crowd() -> list[dict[str, Any]]:
    """Of 100 people 20 are inside; three quarters of those are from Ely, and one in ten of the others."""
    empty = dict.fromkeys(SCHEMA.names[1:])
    return [
        empty | {"inside": n < 20, "orders": n % 2, "town": "Ely" if n < 15 or n >= 92 else "Bath"} for n in range(100)
    ]


def test_an_index_says_how_much_more_common_something_is_and_what_is_asked_anyway_comes_last() -> None:
    differences = found(crowd())
    town = differences[0]
    assert (town.what, town.says, town.people, town.index, town.asked) == ("town", "Ely", 15, 326, False)
    assert [one.asked for one in differences] == [False, False, True, True]
    assert [one.what for one in clearest(differences, 5)] == ["town"], "one line each, and no line for chance"
    assert town.row()["share"] == 0.75 and town.row()["share_of_everybody"] == 0.23


def test_segments_of_few_people_are_not_told() -> None:
    people = [*crowd(), crowd()[0] | {"town": "Little Snoring"}]
    assert {one.says for one in found(people) if one.what == "town"} == {"Ely", "Bath", "Little Snoring"}
    assert {one.says for one in found(people, least=2) if one.what == "town"} == {"Ely", "Bath"}


def test_attributes_that_are_personal_data_are_not_looked_at() -> None:
    source = [{"source": "shop", "column": "id"}]
    town, name = (
        Attribute.model_validate(
            {"kind": "attribute", "name": name, "description": "It.", "pii": pii, "sources": source}
        )
        for name, pii in (("town", False), ("given_name", True))
    )
    whole = project(trait("orders", "count"), town, name)
    traits = ibis.memtable({"person_id": ["p1"], "day": [DAYS[0]], "orders": [1]})
    customers = ibis.memtable({"person_id": ["p1"], "town": ["Ely"], "given_name": ["Ann"]})
    scores = ibis.memtable({"person_id": ["p1"], "day": [DAYS[0]], "score": [0.9], "band": ["high"]})
    people = people_of(whole, Scope(traits, customers, {"churn": scores}), DAYS[0])
    assert people.columns == ("person_id", "orders", "town", "churn score")
