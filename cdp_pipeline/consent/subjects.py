"""Whom consent is about: a person as identity knows them now, with all identifiers and what law and clock they live by.

Read from the lake, many people at once. What they said is ledger.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pyarrow as pa

from cdp_pipeline.consent.ledger import Identifier
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.lake.view import LakeView
from cdp_pipeline.spec.project import Project

if TYPE_CHECKING:
    import duckdb


class Subject(NamedTuple):
    """A living person: `person_id` is the eldest of `ids`, which are all that were merged into them."""

    person_id: str
    ids: tuple[str, ...]
    identifiers: tuple[Identifier, ...]
    attributes: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Everybody:
    """Where DuckDB finds who is who, as what stands behind FROM.

    `people`: person_id, merged_into. `identifiers`: person_id, type, value. `attributes`: person_id and `names`.
    """

    connection: duckdb.DuckDBPyConnection
    people: str
    identifiers: str
    attributes: str | None = None
    names: tuple[str, ...] = ()


class Subjects(Protocol):
    """Who is who, as of when it was first asked."""

    def of(self, person_ids: Collection[str]) -> Mapping[str, Subject]:
        """Subjects by the ids asked for; who is nobody any more is left out."""

    def everybody(self) -> Everybody | None:
        """The same of all people, as tables; None where nobody is known yet."""


def attributes_asked(project: Project) -> list[str]:
    """The attributes that say under which law and by which clock somebody lives."""
    consent, policy = project.consent, project.contact_policy
    names = {consent.jurisdiction if consent is not None else None}
    names |= {hours.zone for hours in policy.quiet_hours} if policy is not None else set()
    return sorted(name for name in names if name is not None)


def everybody(lake: LakeView, project: Project) -> Everybody | None:
    """Who is who in a lake; None where nobody is known yet.

    Asked of DuckDB whatever the engine: it stands between an event and the answer to it.
    """
    if not lake.exists(PEOPLE.name) or not lake.exists(IDENTIFIERS.name):
        return None
    names, attributes = attributes_asked(project), None
    if names and lake.exists("profile.customers"):
        # A column that is not published yet says nothing of anybody.
        stored = lake.stored("profile.customers", lake.version("profile.customers"))
        names = [name for name in names if name in stored]
        attributes = _at(lake, "profile.customers") if names else None
    return Everybody(
        lake.connection, _at(lake, PEOPLE.name), _at(lake, IDENTIFIERS.name), attributes,
        tuple(names) if attributes is not None else (),
    )  # fmt: skip


def subjects(known: Everybody | None, person_ids: Collection[str]) -> dict[str, Subject]:
    """The people behind some ids, in one query however many there are.

    Written as SQL: expressions would take longer to compile than everything else together.
    """
    if known is None or not person_ids:
        return {}
    theirs = "IN (SELECT person_id FROM living)"
    columns = "".join(f', "{name}"' for name in known.names)
    lives = f"LEFT JOIN (SELECT person_id{columns} FROM {known.attributes} WHERE person_id {theirs}) USING (person_id)"
    query = f"""
        WITH living AS MATERIALIZED (
            SELECT person_id AS id, coalesce(merged_into, person_id) AS person_id
            FROM {known.people} WHERE person_id IN (FROM _asked)),
        named AS (
            SELECT person_id, list(type) AS types, list(value) AS spelled
            FROM {known.identifiers} WHERE person_id {theirs} GROUP BY ALL),
        younger AS (
            SELECT merged_into AS person_id, list(person_id) AS ids
            FROM {known.people} WHERE merged_into {theirs} GROUP BY ALL)
        SELECT id, person_id, ids, types, spelled{columns}
        FROM living JOIN named USING (person_id) LEFT JOIN younger USING (person_id) {lives if columns else ""}"""
    known.connection.register("_asked", pa.table({"person_id": pa.array(person_ids, pa.string())}))
    found = known.connection.execute(query).to_arrow_table()
    known.connection.unregister("_asked")
    asked, living, younger, types, spelled, *said = (column.to_pylist() for column in found.columns)
    attributes = [
        {name: value for name, value in zip(known.names, values, strict=True) if value is not None}
        for values in (zip(*said, strict=True) if said else repeat((), len(asked)))
    ]
    owned = (tuple(zip(*named, strict=True)) for named in zip(types, spelled, strict=True))
    each = ((one,) if ids is None else (one, *ids) for one, ids in zip(living, younger, strict=True))
    return dict(zip(asked, map(Subject, living, each, owned, attributes), strict=True))


class LakeSubjects:
    """Who is who as the lake has it, which `found` opens when somebody is asked for first."""

    def __init__(self, found: Callable[[], Everybody | None]) -> None:
        self._found = cache(found)

    def of(self, person_ids: Collection[str]) -> dict[str, Subject]:
        return subjects(self._found(), person_ids)

    def everybody(self) -> Everybody | None:
        return self._found()


def _at(lake: LakeView, name: str) -> str:
    return lake.at(name, lake.version(name))
