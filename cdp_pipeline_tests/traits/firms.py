"""A holding with firms below it, for tests of what a group's people come to: plain rows, and sums by hand."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import ibis
import pyarrow as pa

from cdp_pipeline.identity.groups import GROUPS, MEMBERS
from cdp_pipeline.identity.hierarchy import lineage
from cdp_pipeline.profile.customers import customers_table
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline.spec.group import Group
from cdp_pipeline.traits.daily import daily_table
from cdp_pipeline.traits.rollup import rollup
from cdp_pipeline_tests.traits.shop import DAYS, project, trait

DAY = DAYS[-1]
EVALUATIONS = {
    "spent": ("sum", "trait", "spent"), "orders": ("sum", "trait", "orders"), "rate": ("average", "trait", "spent"),
    "score": ("sum", "trait", "score"), "first_due": ("min", "trait", "due"), "best": ("max", "trait", "spent"),
    "buyers": ("count", "trait", "spent"), "fond": ("count", "trait", "fond"), "anybody": ("any", "trait", "fond"),
    "everybody": ("all", "trait", "fond"), "nobody": ("none", "trait", "fond"), "some": ("at_least", "trait", "fond"),
    "part": ("share", "trait", "fond"), "youngest": ("max", "attribute", "born"), "heads": ("count", None, None),
}  # fmt: skip
SHOP = dataclasses.replace(
    project(
        trait("spent", "sum", value="amount"),
        trait("orders", "count"),
        trait("score", "average", value="points"),
        trait("due", "min", value="due"),
        trait("fond", "last", value="gift"),
        Attribute.model_validate(
            {
                "kind": "attribute", "name": "born", "description": "Born.",
                "sources": [{"source": "shop", "column": "due"}],
            }
        ),
    )
)  # fmt: skip
ACCOUNT = Group.model_validate(
    {
        "kind": "group", "name": "account", "description": "Firms.", "type": "account",
        "by": [{"email_domain": "born"}],
        "rollup": [
            {"name": f"{name}_{over}", "description": name, "evaluation": evaluation, "over": over}
            | ({field: of} if field else {})
            | ({"least": 2} if evaluation == "at_least" else {})
            for over in ("members", "hierarchy")
            for name, (evaluation, field, of) in EVALUATIONS.items()
        ],
    }
)  # fmt: skip


def company(seed: int, groups: int = 9, people: int = 30) -> dict[str, list[dict[str, Any]]]:
    """groups, members, daily (two days), customers: some without people, some people without values or a group."""
    chance = random.Random(seed)
    parents = [None, *(chance.choice([None, *range(place)]) for place in range(1, groups))]
    found: dict[str, list[dict[str, Any]]] = {"groups": [], "members": [], "daily": [], "customers": []}
    for place, parent in enumerate(parents):
        status = "gone" if place == groups - 1 else "ok"
        found["groups"].append(
            {
                "kind": "account", "group_id": f"g{place}", "name": f"Firm {place}", "status": status,
                "parent_group_id": None if parent is None or status == "gone" else f"g{parent}",
            }
        )  # fmt: skip
    found["groups"].append({"kind": "household", "group_id": "h1", "name": None, "status": "ok"})
    for number in range(people):
        person = f"p{number:02d}"
        if number % 7:
            found["members"].append(
                {"kind": "account", "group_id": f"g{chance.randrange(groups - 3)}", "person_id": person}
            )
        found["members"].append({"kind": "household", "group_id": "h1", "person_id": person})
        for day in (DAYS[0], DAY):
            if number % 5 or day == DAYS[0]:
                found["daily"].append(
                    {
                        "person_id": person, "day": day, "orders": chance.randrange(4),
                        "spent": chance.choice([None, Decimal("0.1000"), Decimal("19.9900"), Decimal("-3.3333")]),
                        "score": chance.choice([None, 0.5, 0.25]), "fond": chance.choice([None, True, False]),
                        "due": chance.choice([None, date(2024, 5, 1), date(2023, 2, 3)]),
                        "_computed_at": datetime(2024, 3, 1),
                    }
                )  # fmt: skip
        if number % 4:
            found["customers"].append({"person_id": person, "born": chance.choice([None, date(1990, 1, number + 1)])})
    return found


def found_by(rows: dict[str, list[dict[str, Any]]], make: Callable[[pa.Table], ibis.Table]) -> ibis.Table:
    schemas = {
        "groups": GROUPS.schema, "members": MEMBERS.schema, "daily": daily_table(SHOP).schema,
        "customers": customers_table(SHOP).schema,
    }  # fmt: skip
    at = {
        name: pa.Table.from_pylist(
            [{column: row.get(column) for column in schema.names} for row in rows[name]], schema=schema.to_pyarrow()
        )
        for name, schema in schemas.items()
    }
    above = make(lineage(at["groups"].filter(pa.compute.equal(at["groups"]["kind"], "account"))))
    tables = {name: make(table) for name, table in at.items()}
    return rollup(
        ACCOUNT, tables["groups"], tables["members"], above, tables["daily"], tables["customers"], DAY, SHOP
    )  # fmt: skip


def _average(values: list[Any]) -> float:
    return float(sum(values)) / len(values)


def by_hand(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Oracle of rollup(): for each living account, loops over its people and over those of everything below it."""
    groups = {row["group_id"]: row for row in rows["groups"] if row["kind"] == "account" and row["status"] != "gone"}
    people = {id_: [r["person_id"] for r in rows["members"] if r["group_id"] == id_] for id_ in groups}
    values = {row["person_id"]: row for row in rows["daily"] if row["day"] == DAY}
    born = {row["person_id"]: row["born"] for row in rows["customers"]}

    def below(id_: str) -> list[str]:
        return [
            id_,
            *(one for child, row in groups.items() if row.get("parent_group_id") == id_ for one in below(child)),
        ]

    found = []
    for id_, group in groups.items():
        line: dict[str, Any] = {"group_id": id_, "name": group["name"], "day": DAY, "people": len(people[id_])}
        for over, reach in (("members", [id_]), ("hierarchy", below(id_))):
            who = [person for one in reach for person in people[one]]
            for name, (evaluation, field, of) in EVALUATIONS.items():
                every = [born.get(p) if field == "attribute" else values.get(p, {}).get(of) for p in who]
                known = [value for value in every if value is not None]
                ways: dict[str, Callable[[list[Any]], Any]] = {
                    "sum": sum,
                    "average": _average,
                    "min": min,
                    "max": max,
                    "any": any,
                    "count": len,
                    "all": all,
                }
                ways |= {"none": lambda v: not any(v), "at_least": lambda v: sum(v) >= 2, "share": _average}
                line[f"{name}_{over}"] = ways[evaluation](known) if known else None
                if evaluation == "count":
                    line[f"{name}_{over}"] = len(who) if field is None else sum(value is not False for value in known)
        found.append(line)
    return found
