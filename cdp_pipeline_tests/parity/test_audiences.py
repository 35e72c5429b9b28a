"""Audiences, their moves and sizes are equal on every engine, and what plain Python says."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa

from cdp_pipeline.audiences.members import CHANGES, MEMBERS, SIZES, changes, members, sizes
from cdp_pipeline.audiences.reach import reach
from cdp_pipeline.audiences.rules import Scope
from cdp_pipeline.traits.bands import BANDS
from cdp_pipeline_tests.audiences.test_rules import ASKED, RECENCY, SCHEMAS, TRAITS, audience, holds, rule
from cdp_pipeline_tests.parity.conftest import EngineUnderTest, normalised
from cdp_pipeline_tests.parity.test_traits import history
from cdp_pipeline_tests.traits.shop import DAYS, PEOPLE, project, timeline_rows

Row = dict[str, Any]
DECLARED = [
    audience("rich", rule(trait="spent", op=">=", value=2.5), rule(trait="orders", op="between", value=[0, 2])),
    audience("tea", rule(trait="favourite", op="contains", value="TEA")),
    audience("strangers", rule(none=[{"audience": "rich"}, {"identifier": "email"}])),
    audience("active", rule(event="order", count=2, when="amount > 0", window="last 5 days")),
    audience(
        "asleep", rule(event="visit", did=False), rule(any=[{"band": "recency", "is": "alarm"}, {"audience": "tea"}])
    ),
    audience(
        "locals", rule(attribute="town", op="in", value=["Ely", "York"]), rule(attribute="vip", op="=", value=True)
    ),
    audience("born_late", rule(attribute="born", op=">", value="2000-02-29"), rule(attribute="age", op="!=", value=3)),
    audience(
        "leaving", rule(prediction="churn", op=">", value=0.4), rule(prediction="churn", field="band", op="not_null")
    ),
    audience("nobody", rule(trait="orders", op="<", value=-1)),
]
SHOP = project(*TRAITS, RECENCY, *DECLARED)
NAMES = list(SHOP.audiences)
COMPANY: dict[str, list[Row]] = {
    "traits": [
        {
            "person_id": person,
            "day": day,
            "spent": [None, Decimal("2.5"), Decimal("19.99")][(number + shift) % 3],
            "orders": [0, 2, None, 5][(number * (shift + 1)) % 4],
            "favourite": [None, "tea", "Black Tea", "cake"][(number + shift) % 4],
        }
        for number, person in enumerate(PEOPLE)
        for shift, day in enumerate([DAYS[3], *ASKED])
        if (number + shift) % 7
    ],
    "customers": [
        {
            "person_id": person,
            "town": [None, "Ely", "Bath", "York"][number % 4],
            "age": [None, 3, 4][number % 3],
            "vip": [True, None, False][number % 3],
            "born": [date(2000, 2, 29), date(2001, 1, 1), None][number % 3],
        }
        for number, person in enumerate(PEOPLE[:10])
    ],
    "churn": [
        {"person_id": person, "day": day, "score": number / 10, "rank": number, "band": ["high", None][number % 2]}
        for number, person in enumerate(PEOPLE[:10])
        for day in ASKED
    ],
    "bands": [
        {"person_id": person, "day": DAYS[number % 6], "to_band": ["alarm", "ok"][number % 2]}
        for number, person in enumerate(PEOPLE[:8])
    ],
    "identifiers": [
        {"person_id": person, "type": ["email", "phone", "cookie"][number % 3]} for number, person in enumerate(PEOPLE)
    ],
    "timeline": history(),
}


def scope(engine: EngineUnderTest) -> Scope:
    def table(name: str) -> Any:
        return engine.table(pa.Table.from_pylist(COMPANY[name], schema=_schema(name)))

    moves = pa.Table.from_pylist(
        [{"trait": "recency", **row} for row in COMPANY["bands"]], schema=BANDS.schema.to_pyarrow()
    )
    return Scope(
        traits=table("traits"),
        customers=table("customers"),
        predictions={"churn": table("churn")},
        bands=engine.table(moves),
        timeline=engine.table(timeline_rows(COMPANY["timeline"])),
        identifiers=table("identifiers"),
    )


def _schema(name: str) -> pa.Schema:
    import ibis

    return ibis.schema(SCHEMAS[name]).to_pyarrow()


def inside(day: date) -> set[tuple[str, str]]:
    return {
        (name, row["person_id"])
        for name, one in SHOP.audiences.items()
        for row in COMPANY["traits"]
        if row["day"] == day and all(holds(r, row["person_id"], day, COMPANY, SHOP) for r in one.rules)
    }


def test_members_moves_and_sizes_say_the_same(engine: EngineUnderTest) -> None:
    asked = scope(engine)
    found = members(SHOP, NAMES, asked, ASKED)
    rows = engine.rows(found)
    assert {(row["audience"], row["person_id"], row["day"]) for row in rows} == {
        (name, person, day) for day in ASKED for name, person in inside(day)
    }
    assert len(rows) == sum(len(inside(day)) for day in ASKED)

    kept = engine.table(pa.Table.from_pylist(rows, schema=MEMBERS.schema.to_pyarrow()))
    types = {row["person_id"]: row["type"] for row in COMPANY["identifiers"]}
    reached = reach(SHOP, kept, asked.identifiers, asked.customers)
    assert engine.rows(sizes(kept, reached, NAMES, ASKED)) == normalised(
        [
            {
                "audience": name,
                "day": day,
                "people": len(there := [person for other, person in inside(day) if other == name]),
                "reachable_email": sum(types[person] == "email" for person in there),
                "reachable_phone": sum(types[person] == "phone" for person in there),
            }
            for name in NAMES
            for day in ASKED
        ]
    )

    days = {name: [*ASKED, *([DAYS[3]] if name != "tea" else [])] for name in NAMES}
    counted = [{"audience": name, "day": day, "people": 0} for name, some in days.items() for day in some]
    computed = engine.table(pa.Table.from_pylist(counted, schema=SIZES.schema.to_pyarrow()))
    moved = engine.rows(changes(kept, computed, asked.traits, NAMES, ASKED))
    assert [set(row) for row in moved[:1]] == [set(CHANGES.columns)]
    first, second = inside(ASKED[0]), inside(ASKED[1])
    assert {(row["audience"], row["person_id"], row["day"], row["change"]) for row in moved} == {
        *((*one, ASKED[0], "entered") for one in first),
        *((*one, ASKED[1], "entered") for one in second - first),
        *((*one, ASKED[1], "left") for one in first - second),
    }
    assert {row["audience"] for row in moved if row["cause"] == "baseline"} == {"tea"}
