"""What one way of telling who is who does to people, compared with another: merges, splits, identifiers that move.

Pure: two states of identity in, figures and the people concerned out. What follows further down the line (profiles,
audiences, deliveries) is not known here.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import ibis

Tally = dict[str, int]
"""Identifiers by type."""


@dataclass(frozen=True)
class Regrouped:
    """One person before whose identifiers are several people's after (`parts`), or the reverse."""

    person_id: str
    parts: dict[str, Tally]

    def __str__(self) -> str:
        own_first = sorted(self.parts.items(), key=lambda part: (part[0] != self.person_id, part[0]))
        return " and ".join(f"{other} ({_said(tally)})" for other, tally in own_first)


@dataclass(frozen=True)
class Consequences:
    """Two states compared. `identifiers` counts those that had a person before, `moved` those whose person changed.

    `split`: who becomes several people; `merged`: who is made of several. `before` and `after` name everybody whose
    identifiers are not the same in both. `refused` counts links by why they do not hold.
    """

    people_before: int
    people_after: int
    identifiers: int
    moved: int
    largest_before: int
    largest_after: int
    split: list[Regrouped]
    merged: list[Regrouped]
    before: frozenset[str]
    after: frozenset[str]
    refused_before: dict[str, int]
    refused_after: dict[str, int]

    @property
    def churn(self) -> float:
        """The share of identifiers whose person changes."""
        return self.moved / self.identifiers if self.identifiers else 0.0

    def lines(self, most: int = 10) -> list[str]:
        """For people to read: figures, then who splits and merges, with identifiers in counts only."""
        said = [
            f"people: {self.people_before:,} before, {self.people_after:,} after; "
            f"{len(self.split):,} split, {len(self.merged):,} merged",
            f"identifiers whose person changes: {self.moved:,} of {self.identifiers:,} ({self.churn:.2%})",
            f"largest person: {self.largest_before:,} identifiers before, {self.largest_after:,} after",
        ]
        for found, word in ((self.split, "becomes"), (self.merged, "is made of")):
            said += [f"{one.person_id} {word} {one}" for one in found[:most]]
            if len(found) > most:
                said.append(f"… and {len(found) - most:,} more")
        for why in sorted(self.refused_before.keys() | self.refused_after.keys()):
            before, after = self.refused_before.get(why, 0), self.refused_after.get(why, 0)
            if before != after:
                said.append(f"links that do not hold, {why}: {before:,} before, {after:,} after")
        return said

    def as_json(self) -> dict[str, Any]:
        return {
            "people_before": self.people_before, "people_after": self.people_after,
            "identifiers": self.identifiers, "moved": self.moved, "churn": self.churn,
            "largest_before": self.largest_before, "largest_after": self.largest_after,
            "split": [{"person_id": one.person_id, "into": one.parts} for one in self.split],
            "merged": [{"person_id": one.person_id, "of": one.parts} for one in self.merged],
            "refused_before": self.refused_before, "refused_after": self.refused_after,
        }  # fmt: skip


def consequences(
    identifiers_before: ibis.Table,
    identifiers_after: ibis.Table,
    edges_before: ibis.Table,
    edges_after: ibis.Table,
) -> Consequences:
    """Compare two states: type, value, person_id of every identifier, and status and why of every edge."""
    was = identifiers_before.select("type", "value", before="person_id")
    becomes = identifiers_after.select("type", "value", after="person_id")
    both = was.outer_join(becomes, ["type", "value"])
    both = both.select(type=ibis.coalesce(both.type, both.type_right), before=both.before, after=both.after)
    grouped = both.group_by("type", "before", "after").agg(identifiers=both.count())
    # Whoever keeps exactly what they had is left to the engine.
    same = grouped.before.identical_to(grouped.after)
    moving = grouped.filter(~same)
    concerned = (
        moving.select(person="before").union(moving.select(person="after")).filter(ibis._.person.notnull()).distinct()
    )
    theirs = grouped.filter(grouped.before.isin(concerned.person) | grouped.after.isin(concerned.person) | ~same)
    totals = grouped.agg(
        identifiers=grouped.identifiers.sum(where=grouped.before.notnull()).fill_null(0),
        moved=grouped.identifiers.sum(where=grouped.before.notnull() & ~same).fill_null(0),
    )
    figures = totals.to_pyarrow().to_pylist()[0]
    into: dict[str, dict[str, Tally]] = defaultdict(lambda: defaultdict(dict))
    of: dict[str, dict[str, Tally]] = defaultdict(lambda: defaultdict(dict))
    before, after = set(), set()
    for row in theirs.order_by("type").to_pyarrow().to_pylist():
        one, other, type_, count = row["before"], row["after"], row["type"], row["identifiers"]
        before |= {one} - {None}
        after |= {other} - {None}
        if one is not None and other is not None:
            into[one][other][type_] = count
            of[other][one][type_] = count
    people, largest = zip(*(_sizes(table) for table in (identifiers_before, identifiers_after)), strict=True)
    return Consequences(
        people_before=people[0],
        people_after=people[1],
        identifiers=figures["identifiers"],
        moved=figures["moved"],
        largest_before=largest[0],
        largest_after=largest[1],
        split=_several(into),
        merged=_several(of),
        before=frozenset(before),
        after=frozenset(after),
        refused_before=_refused(edges_before),
        refused_after=_refused(edges_after),
    )


def _several(found: dict[str, dict[str, Tally]]) -> list[Regrouped]:
    """Those with several counterparts, those with most identifiers first."""
    regrouped = [Regrouped(person, dict(parts)) for person, parts in found.items() if len(parts) > 1]
    return sorted(regrouped, key=lambda one: (-sum(sum(t.values()) for t in one.parts.values()), one.person_id))


def _sizes(identifiers: ibis.Table) -> tuple[int, int]:
    sizes = identifiers.filter(identifiers.person_id.notnull()).group_by("person_id").agg(size=ibis._.count())
    row = sizes.agg(people=sizes.count(), largest=sizes["size"].max().fill_null(0)).to_pyarrow().to_pylist()[0]
    return row["people"], row["largest"]


def _refused(edges: ibis.Table) -> dict[str, int]:
    """Links by why they do not hold."""
    found = edges.filter(edges.why.notnull()).group_by("why").agg(links=ibis._.count())
    return {row["why"]: row["links"] for row in found.order_by("why").to_pyarrow().to_pylist()}


def _said(tally: Tally) -> str:
    return ", ".join(f"{count} {type_}" for type_, count in sorted(tally.items()))
