"""What conditions are asked of: the tables, narrowed to some people if need be, and the columns found there."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ibis
import pyarrow as pa


@dataclass(frozen=True)
class Scope:
    """The tables conditions are asked of. Only `traits` is always needed: its rows are the people there are each day.

    traits: traits.daily. customers: profile.customers. predictions: by name. bands: traits.bands. timeline:
    profile.timeline. identifiers: identity.identifiers. groups: identity.group_members. sources: sources.<name>, by
    name. all_days: a table with every day traits were computed for, where `traits` has only some people.
    """

    traits: ibis.Table
    customers: ibis.Table | None = None
    predictions: Mapping[str, ibis.Table] = field(default_factory=dict)
    bands: ibis.Table | None = None
    timeline: ibis.Table | None = None
    identifiers: ibis.Table | None = None
    groups: ibis.Table | None = None
    sources: Mapping[str, ibis.Table] = field(default_factory=dict)
    all_days: ibis.Table | None = None

    def of_people(self, theirs: ibis.Table) -> Scope:
        """The same of these people only, a table with person_id. Sources stay whole: identifiers say whose a row is."""

        def only(table: ibis.Table | None) -> ibis.Table | None:
            return None if table is None else table.semi_join(theirs, "person_id")

        return replace(
            self,
            traits=self.traits.semi_join(theirs, "person_id"),
            customers=only(self.customers),
            predictions={name: table.semi_join(theirs, "person_id") for name, table in self.predictions.items()},
            bands=only(self.bands),
            timeline=only(self.timeline),
            identifiers=only(self.identifiers),
            groups=only(self.groups),
            all_days=self.traits if self.all_days is None else self.all_days,
        )


def persons(people: Collection[str]) -> pa.Table:
    """These people as rows to join with: a list of thousands in a condition takes seconds to compile."""
    return pa.table({"person_id": pa.array(list(people), pa.string())})


def named(people: Collection[str]) -> ibis.Table:
    """The same as a table of an expression."""
    return ibis.memtable(persons(people))


class ScopeError(ValueError):
    """A condition asks for a table that was not given: it was not computed yet."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"a condition asks about '{subject}', of which there is no table yet: cdp run")
        self.subject = subject


def given(subject: str, table: ibis.Table | None) -> ibis.Table:
    if table is None:
        raise ScopeError(subject)
    return table


@dataclass(frozen=True)
class Found:
    """Columns to join, by person_id or by person_id and day, and what each says of people it does not know."""

    table: ibis.Table
    otherwise: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        return [key for key in ("person_id", "day") if key in self.table.columns]


def digest(*parts: object) -> str:
    """A short name for a question: equal questions share a column."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
