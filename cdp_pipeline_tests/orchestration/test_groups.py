"""Households and accounts from CSV to a person's page: through Dagster, in a process of their own."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from cdp_pipeline.lake import open_lake
from cdp_pipeline.profile.person import flat, profile_of
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.orchestration.commands import Cdp

CONTACTS = """contact_id,email,family_name,postcode,account
1,ann@alpha.example,Lee,LS1 1AA,A2
2,bob@gmail.com,LEE,ls1  1aa,
3,cat@alpha.example,Orr,BS2 2BB,
4,dan@gmail.com,Fox,NR3 3CC,A1
5,none@none.com,Ray,YO4 4DD,
6,eve@tower.example,Hill,SE5 5EE,
7,fay@tower.example,Hill,SE5 5EE,
8,gus@tower.example,Hill,SE5 5EE,
9,hal@tower.example,Hill,SE5 5EE,
"""
ACCOUNTS = """number,company,parent
A1,Alpha Group,
A2,Alpha Ltd,A1
B1,Beta North,B2
B2,Beta South,B1
"""
ORDERS = """order_id,ordered_at,email,total
1,2026-01-02 10:00:00,ann@alpha.example,100.10
2,2026-01-02 11:00:00,cat@alpha.example,20.20
3,2026-01-02 12:00:00,dan@gmail.com,3.30
4,2026-01-02 13:00:00,bob@gmail.com,50.00
"""
TABLES = ("identity.groups", "identity.group_members", "identity.group_links", "traits.account")
KEYS = ("group_id", "person_id", "rule", "key")


def published(cdp: Cdp) -> dict[str, list[dict[str, Any]]]:
    with open_lake(LakeLocation(path=str(cdp.lake)), read_only=True) as lake:
        tables = {name: lake.table(name).to_pyarrow().to_pylist() for name in (*TABLES, "identity.identifiers")}
    return {name: sorted(rows, key=lambda row: [str(row.get(key)) for key in KEYS]) for name, rows in tables.items()}


def test_households_and_accounts_reach_their_tables_their_checks_and_a_persons_page(tmp_path: Path) -> None:
    cdp = Cdp(Path(__file__).parent / "firms", tmp_path / "data", tmp_path / "lake")
    cdp.data.mkdir()
    for name, text in (("contacts", CONTACTS), ("accounts", ACCOUNTS), ("orders", ORDERS)):
        (cdp.data / f"{name}.csv").write_text(text)
    said = cdp.run("run", "--day", "2026-01-02")
    assert re.search(r"identity/groups: no_circles\s+WARN", said) and re.search(r"few_too_large\s+WARN", said)
    assert not re.search("example|gmail|Lee|LS1", said), "no personal data in what is logged"

    tables = published(cdp)
    contact = {row["person_id"]: row["value"] for row in tables["identity.identifiers"] if row["type"] == "contact_id"}
    homes: dict[str, set[str]] = {}
    for row in tables["identity.group_members"]:
        if row["kind"] == "household":
            homes.setdefault(row["group_id"], set()).add(contact[row["person_id"]])
    assert sorted(map(sorted, homes.values())) == [["1", "2"], ["3"], ["4"], ["5"]]
    (tower,) = [row for row in tables["identity.groups"] if row["status"] == "too_large"]
    assert (tower["members"], tower["why"]) == (0, "4 people share it, more than 3")

    firms = {
        row["name"]: (row["people"], row["spent"], row["people_in_all"], row["spent_in_all"])
        for row in tables["traits.account"]
    }
    assert firms == {
        "Alpha Group": (1, Decimal("3.3"), 3, Decimal("123.6")),
        "Alpha Ltd": (2, Decimal("120.3"), 2, Decimal("120.3")),
        "Beta North": (0, None, 0, None),
        "Beta South": (0, None, 0, None),
        "tower.example": (4, None, 4, None),
    }

    with open_lake(LakeLocation(path=str(cdp.lake)), read_only=True) as lake:
        inside = lake.table("audiences.members").to_pyarrow().to_pylist()
    assert {(row["audience"], contact[row["person_id"]]) for row in inside} == {
        ("good_firms", "1"), ("good_firms", "3"), ("of_the_alpha_group", "1"),
    }  # fmt: skip

    ann = next(person for person, value in contact.items() if value == "1")
    with open_lake(LakeLocation(path=str(cdp.lake)), read_only=True) as lake:
        lines = list(flat(profile_of(lake, load_project(cdp.project, cdp.environment), ann)))
    assert [line for line in lines if line[0] == "group"] == [
        ("group", "account", "Alpha Ltd", "2 people; account in contacts; part of Alpha Group"),
        ("group", "household", "lee, ls1 1aa", "2 people; same family name and postcode"),
    ]
    cdp.run("run", "key:identity/groups or key:traits/account")
    assert published(cdp) == tables, "a second run changes nothing"
