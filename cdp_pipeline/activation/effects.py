"""What a change in who is who does to what people see: attributes and traits, audiences, and what syncs would send.

Everything is derived again in memory, for the people concerned only and by the functions that make the tables. Nothing
is published; who is concerned is identity/consequences.py's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.activation.plan import Held, plan
from cdp_pipeline.audiences.members import members
from cdp_pipeline.audiences.rules import Scope, every_rule, leaves
from cdp_pipeline.identity.living import living
from cdp_pipeline.profile.customers import customers, provenance
from cdp_pipeline.profile.timeline import timeline
from cdp_pipeline.spec.audience import Rule
from cdp_pipeline.spec.operators import CHANGES
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.bands import BANDS, crossings, state_before

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.sync import Sync

People = dict[str, dict[str, Any]]
"""Attributes and traits of each person, by id."""


@dataclass(frozen=True)
class Derived:
    """Some people as the pipeline would tell of them on one day: what is known of each, and who is in each audience."""

    people: People
    members: dict[str, set[str]]


@dataclass(frozen=True)
class Effects:
    """`changed`: for each attribute or trait whose values differ, that of everybody concerned before and after.

    `entered` and `left`: people by audience. `sends`: by sync, how many operations of each kind the change adds.
    """

    day: date
    changed: dict[str, tuple[dict[str, Any], dict[str, Any]]]
    entered: dict[str, list[str]]
    left: dict[str, list[str]]
    sends: dict[str, Counter[str]] = field(default_factory=dict)

    def lines(self, most: int = 5) -> list[str]:
        """For people to read: values while few are concerned, counts otherwise."""
        said = []
        if self.changed and max(map(len, next(iter(self.changed.values())))) > most:
            said.append(f"{len(self.changed)} attributes and traits change")
        elif self.changed:
            said.append(f"who: {' -> '.join(', '.join(some) for some in next(iter(self.changed.values())))}")
            for name, pair in self.changed.items():
                said.append(f"{name}: {' -> '.join(', '.join(map(_text, some.values())) for some in pair)}")
        for name in sorted(self.entered.keys() | self.left.keys()):
            entered, left = self.entered.get(name, []), self.left.get(name, [])
            said.append(f"audience {name}: {_some('enter', entered, most)}, {_some('leave', left, most)}")
        said += [
            f"sync {name} would send: {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}"
            for name, kinds in self.sends.items()
        ]
        return said or ["no attribute, trait, audience or sync changes"]

    def as_json(self) -> dict[str, Any]:
        return {
            "day": self.day,
            "changed": {name: {"before": was, "after": becomes} for name, (was, becomes) in self.changed.items()},
            "entered": self.entered,
            "left": self.left,
            "sends": {name: dict(kinds) for name, kinds in self.sends.items()},
        }


def derived(
    project: Project,
    sources: Mapping[str, ibis.Table],
    identifiers: ibis.Table,
    people: ibis.Table,
    concerned: Collection[str],
    published: Scope,
    day: date,
    now: datetime,
) -> Derived:
    """Attributes, traits and audiences of the people concerned at the end of a day.

    `identifiers` and `people` say who is who; `published` holds the tables as they are, of which bands (the state each
    person was in when the day began) and predictions are taken over: a person who is new has no score yet. Left out are
    audiences that ask a prediction which was never made, what traits were on days before, or others of an account.
    """
    ids = list(concerned)
    theirs = _kept(identifiers.filter(identifiers.person_id.isin(ids)))
    them = people.filter(people.person_id.isin(ids))
    values = provenance(sources, theirs, project, now)
    known = _kept(customers(values, them, project))
    told = timeline(sources, theirs, project)
    told = _kept(told.filter(told.person_id.notnull()))
    traits = _kept(as_of(told, living(them, project), [day], project))
    bands = published.bands if published.bands is not None else ibis.memtable([], schema=BANDS.schema)
    # The state of everybody: a band of which it knew nobody would be new to everybody.
    moved = crossings(traits, state_before(bands, day), project, [day])
    earlier = bands.filter(bands.person_id.isin(ids) & (bands.day < ibis.date(day)))
    scope = Scope(
        traits=traits,
        customers=known,
        predictions=published.predictions,
        bands=_kept(earlier.cast(BANDS.schema).union(moved.cast(BANDS.schema))),
        timeline=told,
        identifiers=theirs,
        sources=sources,
    )
    names = [name for name in project.audiences if _answerable(project, name, published)]
    found: dict[str, set[str]] = {name: set() for name in names}
    if names:
        for row in members(project, names, scope, [day]).to_pyarrow().to_pylist():
            found[row["audience"]].add(row["person_id"])
    facts: People = {}
    for table in (known, traits.drop("day")):
        for row in table.order_by("person_id").to_pyarrow().to_pylist():
            facts.setdefault(row["person_id"], {}).update(row)
    return Derived(facts, found)


def effects(before: Derived, after: Derived, day: date) -> Effects:
    """Compare what is told of the people concerned. A member of an audience under one id both times has not moved."""
    names = list(dict.fromkeys(name for facts in (before, after) for one in facts.people.values() for name in one))
    changed = {}
    for name in names:
        was, becomes = ({person: one.get(name) for person, one in facts.people.items()} for facts in (before, after))
        if name != "person_id" and _differ(was, becomes):
            changed[name] = was, becomes
    audiences = sorted(before.members.keys() | after.members.keys())
    moves = [
        {name: sorted(to.members.get(name, set()) - of.members.get(name, set())) for name in audiences}
        for of, to in ((before, after), (after, before))
    ]
    entered, left = ({name: people for name, people in found.items() if people} for found in moves)
    return Effects(day, changed, entered, left)


def _differ(was: dict[str, Any], becomes: dict[str, Any]) -> bool:
    """Whether somebody who stays has another value, or who came or went brings one that nobody had, or takes one."""
    stays = was.keys() & becomes.keys()
    return any(was[person] != becomes[person] for person in stays) or (
        {repr(value) for value in was.values()} != {repr(value) for value in becomes.values()}
    )


def sent_by(
    sync: Sync,
    members_now: Iterable[str],
    people_now: People,
    before: Derived,
    after: Derived,
    concerned: Collection[str],
    holds: Mapping[str, Held],
) -> Counter[str]:
    """The operations a sync's next plan would hold because of the change, by kind: those it would not hold without."""
    members = set(members_now)
    was = plan(sync, members, people_now, holds)
    gone = members & set(concerned)
    then = (members - gone) | after.members.get(sync.audience, set())
    becomes = plan(sync, then, {**people_now, **after.people}, holds)
    known = {op.op_id for op in was.ops}
    return Counter(op.kind if op.state == "pending" else op.state for op in becomes.ops if op.op_id not in known)


def _answerable(project: Project, audience: str, published: Scope) -> bool:
    """Whether all that an audience asks, also by way of others, can be told of a few people on one day."""
    return not any(
        (rule.prediction is not None and rule.prediction not in published.predictions)
        or rule.op in CHANGES
        or rule.account is not None
        for rule in leaves(every_rule(project, [Rule(audience=audience)]))
    )


def _kept(rows: ibis.Table) -> ibis.Table:
    """The rows in memory: what follows reads them several times."""
    return ibis.memtable(rows.to_pyarrow())


def _some(verb: str, people: list[str], most: int) -> str:
    return f"{len(people)} {verb}" + (f" ({', '.join(people)})" if 0 < len(people) <= most else "")


def _text(value: object) -> str:
    return "nothing" if value is None else str(value)
