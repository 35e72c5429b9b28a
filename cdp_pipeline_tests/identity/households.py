"""Small towns for tests of households and accounts: who says what, as plain rows, and who belongs together, by hand.

The functions that work something out are oracles: dictionaries and loops, sharing no code with the package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from cdp_pipeline.identity.groups import GROUPS, Grouping, regroup
from cdp_pipeline.spec.group import Group

START = datetime(2026, 1, 1)
NEVER = datetime.min


def group(name: str, *by: dict[str, Any], **settings: Any) -> Group:
    base = {"kind": "group", "name": name, "description": f"Every {name}.", "type": name}
    return Group.model_validate({**base, "by": list(by), **settings})


HOUSEHOLD = group("household", {"same": ["family", "postcode"]}, {"identifier": "phone"}, max_members=4)
ACCOUNT = group("account", {"source": "crm", "column": "number"}, {"email_domain": "email"}, max_members=6)
ADDRESS, PHONE = (way.rule for way in HOUSEHOLD.by)
NUMBER, DOMAIN = (way.rule for way in ACCOUNT.by)


@dataclass(frozen=True, order=True)
class Claim:
    rule: str
    person: str
    key: str
    day: int | None = None

    @property
    def at(self) -> datetime | None:
        return None if self.day is None else START + timedelta(days=self.day)


@dataclass(frozen=True)
class Listed:
    key: str
    name: str | None = None
    parent: str | None = None
    rule: str = NUMBER


def born(person: str) -> datetime:
    """When somebody was first seen: a moment of their own."""
    return START - timedelta(days=sum(map(ord, person)) % 97, seconds=sum(map(ord, person)))


def people_table(people: Iterable[str], merged: dict[str, str] | None = None) -> pa.Table:
    gone = merged or {}
    rows = [
        {"person_id": one, "created_at": born(one), "identifiers": int(one not in gone), "merged_into": gone.get(one)}
        for one in people
    ]
    types = [pa.string(), pa.timestamp("us"), pa.int64(), pa.string()]
    names = ["person_id", "created_at", "identifiers", "merged_into"]
    return pa.Table.from_pylist(rows, schema=pa.schema(list(zip(names, types, strict=True))))


def claims_table(claims: Iterable[Claim]) -> pa.Table:
    latest: dict[tuple[str, str, str], Claim] = {}
    for one in sorted(claims, key=lambda one: one.at or NEVER):
        latest.pop((one.rule, one.person, one.key), None)
        latest[one.rule, one.person, one.key] = one
    kept = sorted(latest.values(), key=list(claims).index)  # in the order in which they were given
    rows = [{"rule": one.rule, "person_id": one.person, "key": one.key, "at": one.at} for one in kept]
    columns = {"rule": pa.string(), "person_id": pa.string(), "key": pa.string(), "at": pa.timestamp("us")}
    return pa.Table.from_pylist(rows, schema=pa.schema(list(columns.items())))


def listed_table(listed: Iterable[Listed]) -> pa.Table:
    rows = [{"rule": one.rule, "key": one.key, "name": one.name, "parent": one.parent, "at": START} for one in listed]
    columns = {**dict.fromkeys(("rule", "key", "name", "parent"), pa.string()), "at": pa.timestamp("us")}
    return pa.Table.from_pylist(rows, schema=pa.schema(list(columns.items())))


def grouped(
    of: Group,
    claims: Iterable[Claim],
    before: Grouping | None = None,
    listed: Iterable[Listed] = (),
    merged: dict[str, str] | None = None,
    everybody: Iterable[str] = (),
) -> Grouping:
    claims = list(claims)
    people = list(dict.fromkeys([*(one.person for one in claims), *everybody, *(merged or {})]))
    last = (None, None, None) if before is None else (before.groups, before.members, before.links)
    tables = {of.name: claims_table(claims)}, {of.name: listed_table(listed)}
    return regroup({of.name: of}, *tables, people_table(people, merged), *last)


def rows(table: pa.Table, *by: str) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: tuple(str(row[name]) for name in by))


def whose(grouping: Grouping) -> dict[str, str]:
    """Person → group id."""
    return {row["person_id"]: row["group_id"] for row in grouping.members.to_pylist()}


def together(grouping: Grouping) -> set[frozenset[str]]:
    found: dict[str, set[str]] = {}
    for person, id_ in whose(grouping).items():
        found.setdefault(id_, set()).add(person)
    return {frozenset(members) for members in found.values()}


def bound(grouping: Grouping) -> list[set[Any]]:
    """The people and the values of each group."""
    found: dict[str, set[Any]] = {}
    for person, id_ in whose(grouping).items():
        found.setdefault(id_, set()).add(person)
    for row in grouping.links.to_pylist():
        found.setdefault(row["group_id"], set()).add((row["rule"], row["key"]))
    return list(found.values())


def living(grouping: Grouping) -> dict[str, dict[str, Any]]:
    return {row["group_id"]: row for row in grouping.groups.to_pylist() if row["status"] != "gone"}


def known_by(grouping: Grouping, key: str) -> dict[str, Any]:
    (found,) = [row for row in living(grouping).values() if row["key"] == key]
    return found


def by_hand(of: Group, claims: Iterable[Claim]) -> tuple[set[frozenset[str]], dict[tuple[str, str, str], str]]:
    """Oracle of regroup(): who is together, and what became of each claim."""
    latest: dict[tuple[str, str, str], datetime] = {}
    for one in claims:
        what = (one.rule, one.person, one.key)
        latest[what] = max(latest.get(what, NEVER), one.at or NEVER)
    share = Counter((rule, key) for rule, _, key in latest)
    most = of.most or 10**9
    nodes: dict[Any, set[Any]] = {}
    for rule, person, key in latest:
        for node in (("person", person), (rule, key)):
            nodes.setdefault(node, {node})
    status = {what: "too_large" for what in latest if share[what[0], what[2]] > most}
    for way in of.by:
        mine = [what for what in latest if what[0] == way.rule and what not in status]
        cluster = {what: id(nodes["person", what[1]]) for what in mine}
        voices = Counter((cluster[what], what[2]) for what in mine)
        mine.sort(key=lambda what: (what[2], what[1]))
        mine.sort(key=lambda what: (voices[cluster[what], what[2]], latest[what]), reverse=True)
        for what in mine:
            one, other = nodes["person", what[1]], nodes[what[0], what[2]]
            if one is other:
                status[what] = "accepted"
                continue
            both = one | other
            numbers = Counter(rule for rule, _ in both if any(w.rule == rule and of.names_it(w) for w in of.by))
            if any(count > 1 for count in numbers.values()):
                status[what] = "refused_number"
            elif sum(kind == "person" for kind, _ in both) > most:
                status[what] = "refused_limit"
            else:
                status[what] = "accepted"
                for node in both:
                    nodes[node] = both
    members = {
        frozenset(text for kind, text in nodes["person", person] if kind == "person")
        for (_, person, _), what in status.items()
        if what == "accepted"
    }
    return members, status


def people_of(groups: Iterable[frozenset[str]]) -> list[str]:
    return sorted(person for one in groups for person in one)


# Few people, keys and days, so that they meet, tie and contradict each other all the time.
_PEOPLE = st.sampled_from([f"p{number:02d}" for number in range(12)])


def claims_of(of: Group, keys: dict[str, list[str]], most: int = 24) -> st.SearchStrategy[list[Claim]]:
    rules = [way.rule for way in of.by]
    one = st.sampled_from(rules).flatmap(
        lambda rule: st.builds(
            Claim, st.just(rule), _PEOPLE, st.sampled_from(keys[rule]), st.none() | st.integers(0, 3)
        )
    )
    return st.lists(one, max_size=most)


HOMES = claims_of(HOUSEHOLD, {ADDRESS: ["hill|ely 1", "hill|ely 2", "ash|ely 1"], PHONE: ["+1", "+2", "+3", "+4"]})
FIRMS = claims_of(
    ACCOUNT,
    {NUMBER: ["A1", "A2", "A3"], DOMAIN: ["a.example", "b.example", "x.b.example", "gmail.com", "post.gmail.com"]},
)
EMPTY = GROUPS.schema.to_pyarrow().empty_table()
