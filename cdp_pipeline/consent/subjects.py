"""Whom consent is about: a person as identity knows them now, with all identifiers and what law and clock they live by.

Read from the lake, many people at once. What they said is ledger.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import ibis
import pyarrow as pa

from cdp_pipeline.consent.ledger import Identifier
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.lake.lake import LakeView
from cdp_pipeline.spec.project import Project


@dataclass(frozen=True)
class Subject:
    """A living person: `person_id` is the eldest of `ids`, which are all that were merged into them."""

    person_id: str
    ids: frozenset[str]
    identifiers: frozenset[Identifier]
    attributes: Mapping[str, object] = field(default_factory=dict)


Subjects = Callable[[Collection[str]], Mapping[str, Subject]]
"""Subjects by the ids asked for; who is nobody any more is left out."""


def attributes_asked(project: Project) -> list[str]:
    """The attributes that say under which law and by which clock somebody lives."""
    consent, policy = project.consent, project.contact_policy
    names = {consent.jurisdiction if consent is not None else None}
    names |= {hours.zone for hours in policy.quiet_hours} if policy is not None else set()
    return sorted(name for name in names if name is not None)


def subjects(lake: LakeView, project: Project, person_ids: Collection[str]) -> dict[str, Subject]:
    """The people behind some ids, in a few queries however many there are."""
    people = lake.read(PEOPLE).select("person_id", "merged_into")
    asked = lake.engine.table(pa.table({"asked": pa.array(sorted(set(person_ids)), pa.string())}))
    found = asked.join(people, asked.asked == people.person_id)
    living = {row["asked"]: row["merged_into"] or row["asked"] for row in _rows(found.select("asked", "merged_into"))}
    survivors = lake.engine.table(pa.table({"person_id": pa.array(sorted(set(living.values())), pa.string())}))
    ids: dict[str, set[str]] = {person_id: {person_id} for person_id in living.values()}
    merged = people.filter(people.merged_into.notnull())
    for row in _rows(merged.semi_join(survivors, merged.merged_into == survivors.person_id)):
        ids[row["merged_into"]].add(row["person_id"])
    identifiers: dict[str, set[Identifier]] = {}
    theirs = lake.read(IDENTIFIERS).select("person_id", "type", "value").semi_join(survivors, "person_id")
    for person_id, type_, value in zip(*(column.to_pylist() for column in theirs.to_pyarrow().columns), strict=True):
        identifiers.setdefault(person_id, set()).add((type_, value))
    known: dict[str, dict[str, object]] = {}
    names = attributes_asked(project)
    if names and lake.exists("profile.customers"):
        customers = lake.table("profile.customers")
        columns = ["person_id", *(name for name in names if name in customers.columns)]
        for row in _rows(customers.select(*columns).semi_join(survivors, "person_id")):
            known[row["person_id"]] = row
    made = {
        person_id: Subject(
            person_id, frozenset(ids[person_id]), frozenset(identifiers[person_id]), known.get(person_id, {})
        )
        for person_id in identifiers
    }
    return {asked: made[person_id] for asked, person_id in living.items() if person_id in made}


def _rows(table: ibis.Table) -> list[dict[str, Any]]:
    return table.to_pyarrow().to_pylist()
