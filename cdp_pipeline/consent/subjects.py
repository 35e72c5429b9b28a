"""Whom consent is about: a person as identity knows them now, with all identifiers and what law and clock they live by.

Read from the lake, many people at once. What they said is ledger.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from cdp_pipeline.consent.ledger import Identifier
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.lake.lake import Lake
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


def subjects(lake: Lake, project: Project, person_ids: Collection[str]) -> dict[str, Subject]:
    """The people behind some ids, in four queries however many there are.

    Written as SQL, and asked of DuckDB whatever the engine: this stands between an event and the answer to it, and
    expressions would take longer to compile than everything else together.
    """
    if not lake.exists(PEOPLE.name) or not lake.exists(IDENTIFIERS.name):
        return {}

    def rows(query: str, asked: Collection[str]) -> list[tuple[Any, ...]]:
        return lake.connection.execute(query, [list(asked)]).fetchall()

    people, known = _at(lake, PEOPLE.name), _at(lake, IDENTIFIERS.name)
    living = dict(
        rows(f"SELECT person_id, coalesce(merged_into, person_id) FROM {people} WHERE {_MINE}", set(person_ids))
    )
    survivors = set(living.values())
    ids: dict[str, set[str]] = {person_id: {person_id} for person_id in survivors}
    merged = _MINE.replace("person_id", "merged_into")
    for elder, person_id in rows(f"SELECT merged_into, person_id FROM {people} WHERE {merged}", survivors):
        ids[elder].add(person_id)
    identifiers: dict[str, set[Identifier]] = {}
    for person_id, type_, value in rows(f"SELECT person_id, type, value FROM {known} WHERE {_MINE}", survivors):
        identifiers.setdefault(person_id, set()).add((type_, value))
    attributes: dict[str, dict[str, object]] = {}
    names = attributes_asked(project)
    if names and lake.exists("profile.customers"):
        # A column that is not published yet says nothing of anybody.
        stored = lake.stored("profile.customers", lake.version("profile.customers"))
        names = [name for name in names if name in stored]
        asked = ", ".join(["person_id", *names])
        for person_id, *values in rows(
            f"SELECT {asked} FROM {_at(lake, 'profile.customers')} WHERE {_MINE}", survivors
        ):
            attributes[person_id] = dict(zip(names, values, strict=True))
    made = {
        person_id: Subject(person_id, frozenset(ids[person_id]), frozenset(theirs), attributes.get(person_id, {}))
        for person_id, theirs in identifiers.items()
    }
    return {asked: made[person_id] for asked, person_id in living.items() if person_id in made}


_MINE = "person_id IN (SELECT unnest(?::VARCHAR[]))"


def _at(lake: Lake, name: str) -> str:
    return lake.at(name, lake.version(name))
