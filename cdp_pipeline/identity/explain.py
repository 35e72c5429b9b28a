"""Why two identifiers are, or are not, one person.

Answers from the published tables with a few small reads each. It decides nothing: people.py did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.identity.named import Identified, UnknownIdentifier, find_identifier, resolve_identifier
from cdp_pipeline.identity.verdicts import VERDICT, vetoes

if TYPE_CHECKING:
    from cdp_pipeline.spec.identifier import Identifier
    from cdp_pipeline.spec.project import Project

End = tuple[str, str]
_HOLDS = ("accepted", "redundant")
_MOST_AGAINST = 20
_MOST_CHAINED = 200_000
"""Links of one component that are searched for a chain; beyond it is a collapse, and nobody's story."""


@dataclass(frozen=True)
class Link:
    """One edge with its evidence and what became of it."""

    type_a: str
    value_a: str
    type_b: str
    value_b: str
    source: str
    record_id: str
    first_seen: datetime
    last_seen: datetime
    rule: str
    score: float
    status: str
    why: str | None

    @property
    def ends(self) -> tuple[End, End]:
        return (self.type_a, self.value_a), (self.type_b, self.value_b)

    @property
    def holds(self) -> bool:
        return self.status in _HOLDS

    def __str__(self) -> str:
        seen = f"{self.first_seen:%Y-%m-%d} to {self.last_seen:%Y-%m-%d}"
        how = (
            f"verdict {self.record_id}, {self.first_seen:%Y-%m-%d}"
            if self.rule == VERDICT
            else f"{self.rule} in {self.source} (row {self.record_id}), {seen}"
        )
        became = f"{self.status}: {self.why}" if self.why else self.status
        return f"{self.type_a}:{self.value_a} and {self.type_b}:{self.value_b}: {how}, score {self.score:g}, {became}"


@dataclass(frozen=True)
class Held:
    """How many identifiers of a limited type the person has, or the two would have together."""

    type: str
    count: int
    most: int
    days: int | None

    @property
    def broken(self) -> bool:
        return self.count > self.most

    def __str__(self) -> str:
        within = "" if self.days is None else f" first seen within {self.days} days"
        return f"{self.count} {self.type}, a person has at most {self.most}{within}"


@dataclass(frozen=True)
class Explanation:
    """Why two identifiers are one person, or are not.

    `path` joins a to b when they are one person. When not: `against` holds the links between what is theirs that did
    not join them; `chain` leads from a to b over others, with the fewest links that do not hold; `verdicts` keep them
    apart. `limits` are those the person is under, or the two together would be. `notes`: what else one should know.
    """

    a: Identified
    b: Identified
    path: list[Link]
    against: list[Link]
    chain: list[Link] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    limits: list[Held] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    waterfalls: dict[Link, list[str]] = field(default_factory=dict)

    @property
    def same_person(self) -> bool:
        return self.a.person_id is not None and self.a.person_id == self.b.person_id

    def __str__(self) -> str:
        notes = [f"{one} is {one.status}: {one.why}" for one in (self.a, self.b) if one.status != "ok"] + self.notes
        if self.same_person:
            steps = self._told(self.path) or ["they are the same identifier"]
            limits = [f"of {self.a.person_id}: {held}" for held in self.limits]
            return "\n".join([f"{self.a} and {self.b} are one person, {self.a.person_id}:", *steps, *limits, *notes])
        apart = f"{self.a} ({self.a.person_id or 'nobody'}) and {self.b} ({self.b.person_id or 'nobody'})"
        limits = [f"together they would have {held}" for held in self.limits if held.broken]
        found = self._told(self.against)
        if not found and self.chain:
            failing = sum(not link.holds for link in self.chain)
            found = [f"the nearest way from one to the other, {failing} of {len(self.chain)} links do not hold:"]
            found += self._told(self.chain)
        nothing = ["no row ever showed them, or what is theirs, together"]
        return "\n".join([f"{apart} are not one person:", *notes, *self.verdicts, *limits, *(found or nothing)])

    def _told(self, links: Iterable[Link]) -> list[str]:
        return [line for link in links for line in (str(link), *self.waterfalls.get(link, []))]

    def as_json(self) -> dict[str, Any]:
        return {
            "same_person": self.same_person,
            "a": vars(self.a),
            "b": vars(self.b),
            **{name: [vars(link) for link in getattr(self, name)] for name in ("path", "against", "chain")},
            "verdicts": self.verdicts,
            "limits": [vars(held) | {"broken": held.broken} for held in self.limits],
            "notes": self.notes,
            "waterfalls": [{"a": link.ends[0], "b": link.ends[1], "lines": w} for link, w in self.waterfalls.items()],
        }


def explain_link(
    edges: ibis.Table,
    identifiers: ibis.Table,
    a: str,
    b: str,
    project: Project,
    people: ibis.Table | None = None,
    waterfall: Callable[[Link], list[str]] | None = None,
) -> Explanation:
    """The shortest path of links from a to b; where there is none, what keeps them apart.

    a and b are written `type:value`; with `people` they may be person ids, also of those who were merged since.
    `waterfall` says how the score of a fuzzy link came about, one line per step.
    """
    (one, about_one), (other, about_other) = (_spoken_of(text, identifiers, people, project) for text in (a, b))
    notes = [*about_one, *about_other]
    if one.end == other.end:
        return Explanation(one, other, [], [], notes=notes)
    theirs = [_members(identifiers, found) for found in (one, other)]
    links = _links_touching(edges, identifiers, one, other)
    if one.person_id is not None and one.person_id == other.person_id:
        holding = [link for link in links if link.holds and theirs[0].issuperset(link.ends)]
        path = _shortest_path(holding, one.end, other.end)
        answer = Explanation(one, other, path, [], limits=_held(theirs[0], project), notes=notes)
    else:
        against = _between(links, *theirs)
        answer = Explanation(
            one,
            other,
            [],
            against,
            chain=[] if against else _chain(edges, identifiers, one, other),
            verdicts=_verdicts(project, *theirs),
            limits=_held(theirs[0] | theirs[1], project),
            notes=notes,
        )
    if waterfall is not None:
        matched = [link for link in (*answer.path, *answer.against, *answer.chain) if link.rule.startswith("match:")]
        answer.waterfalls.update({link: waterfall(link) for link in matched})
    return answer


def waterfall_of(matches: ibis.Table) -> Callable[[Link], list[str]]:
    """How the score of a fuzzy link came about, from identity.matches; nothing where it is not there any more."""
    from cdp_pipeline.identity.matching.matches import waterfall_lines

    def lines(link: Link) -> list[str]:
        (type_a, value_a), (type_b, value_b) = link.ends
        ours = matches["match"] == link.rule.removeprefix("match:")
        ours &= (matches["type_a"] == type_a) & (matches["value_a"] == value_a)
        ours &= (matches["type_b"] == type_b) & (matches["value_b"] == value_b)
        return [line for row in matches.filter(ours).to_pyarrow().to_pylist() for line in waterfall_lines(row)]

    return lines


def _spoken_of(
    text: str, identifiers: ibis.Table, people: ibis.Table | None, project: Project
) -> tuple[Identified, list[str]]:
    """The identifier a text means: `type:value`, or the strongest a person id began with; and what to say of that."""
    if ":" in text or people is None:
        return find_identifier(text, identifiers, project), []
    person_id = resolve_identifier(text, identifiers, people, project)
    theirs = identifiers.filter(identifiers["person_id"] == person_id).to_pyarrow().to_pylist()
    if not theirs:
        raise UnknownIdentifier(f"{text} has no identifiers any more")
    row = min(
        theirs,
        key=lambda row: (
            (row["first_person_id"] or row["person_id"]) != text,
            row["status"] != "ok",
            -project.identifiers[row["type"]].priority,
            row["first_seen"],
            row["value"],
        ),
    )
    found = Identified(row["type"], row["value"], row["person_id"], row["status"], row["why"])
    merged = [] if person_id == text else [f"{text} was merged into {person_id}"]
    return found, [*merged, f"of {text}, {found} is meant"]


def _members(identifiers: ibis.Table, found: Identified) -> set[End]:
    if found.person_id is None:
        return {found.end}
    rows = identifiers.filter(identifiers["person_id"] == found.person_id).select("type", "value").to_pyarrow()
    return set(zip(rows["type"].to_pylist(), rows["value"].to_pylist(), strict=True))


def _links_touching(edges: ibis.Table, identifiers: ibis.Table, *found: Identified) -> list[Link]:
    """All edges with an end among these identifiers or what else is their persons'."""
    people = [one.person_id for one in found if one.person_id is not None]
    ours = identifiers["person_id"].isin(people) if people else ibis.literal(False)
    for one in found:
        ours = ours | ((identifiers["type"] == one.type) & (identifiers["value"] == one.value))
    ids = identifiers.filter(ours).select("id").to_pyarrow()["id"].to_pylist()
    return _links(edges.filter(edges["id_a"].isin(ids) | edges["id_b"].isin(ids)))


def _links(edges: ibis.Table) -> list[Link]:
    """Surest first, then in the order of what they link."""
    rows = edges.select(*Link.__dataclass_fields__).to_pyarrow().to_pylist()
    return sorted((Link(**row) for row in rows), key=lambda link: (-link.score, link.ends, link.source))


def _chain(edges: ibis.Table, identifiers: ibis.Table, one: Identified, other: Identified) -> list[Link]:
    """The way from one to the other over others with the fewest links that do not hold; the shortest of those."""
    ends = (identifiers["type"] == one.type) & (identifiers["value"] == one.value)
    ends = ends | ((identifiers["type"] == other.type) & (identifiers["value"] == other.value))
    components = set(identifiers.filter(ends).select("component").to_pyarrow()["component"].to_pylist())
    if len(components) != 1 or None in components:
        return []
    members = identifiers.filter(identifiers["component"] == components.pop())
    inside = edges.semi_join(members.select(id_a="id"), "id_a").semi_join(members.select(id_b="id"), "id_b")
    if inside.count().to_pyarrow().as_py() > _MOST_CHAINED:
        return []
    return _shortest_path(_links(inside), one.end, other.end, cost=lambda link: 0 if link.holds else 1)


def _shortest_path(
    links: Sequence[Link], start: End, goal: End, cost: Callable[[Link], int] = lambda link: 0
) -> list[Link]:
    """The path of least cost (0 or 1 a link), of those the shortest, of those by the links that come first."""
    neighbours: dict[End, list[tuple[End, Link]]] = {}
    for link in links:
        left, right = link.ends
        neighbours.setdefault(left, []).append((right, link))
        neighbours.setdefault(right, []).append((left, link))
    came_by: dict[End, tuple[End, Link]] = {}
    reached = {start: (0, 0)}
    waiting = [(0, 0, start)]
    while waiting:
        paid, steps, here = heappop(waiting)
        if here == goal:
            break
        for there, link in neighbours.get(here, []) if reached[here] == (paid, steps) else ():
            so_far = paid + cost(link), steps + 1
            if there not in reached or so_far < reached[there]:
                reached[there], came_by[there] = so_far, (here, link)
                heappush(waiting, (*so_far, there))
    path: list[Link] = []
    while goal in came_by:
        goal, link = came_by[goal]
        path.append(link)
    return path[::-1]


def _between(links: list[Link], ours: set[End], theirs: set[End]) -> list[Link]:
    """The links from one side to the other, directly or over one value that both were seen with; latest first."""
    unlinked = [link for link in links if not link.holds]
    beside: list[set[End]] = []
    for side in (ours, theirs):
        beside.append({end for link in unlinked for end in link.ends if side.intersection(link.ends)} - side)
    common = (beside[0] & beside[1]) - ours - theirs
    chosen = [
        link
        for link in unlinked
        if (ours.intersection(link.ends) and theirs.intersection(link.ends)) or common.intersection(link.ends)
    ]
    return sorted(chosen, key=lambda link: (-link.last_seen.timestamp(), link.ends, link.source))[:_MOST_AGAINST]


def _verdicts(project: Project, ours: set[End], theirs: set[End]) -> list[str]:
    """The verdicts that keep something of the one from something of the other."""
    found = []
    for one, other, name in vetoes(project):
        if (one in ours and other in theirs) or (one in theirs and other in ours):
            verdict = project.verdicts[name]
            two = f"{':'.join(one)} and {':'.join(other)}"
            found.append(f"verdict {name} keeps {two} apart ({verdict.by}, {verdict.on}): {verdict.why}")
    return found


def _held(members: Iterable[End], project: Project) -> list[Held]:
    """How many identifiers of each limited type these are, strongest type first; types they have none of left out."""
    counts: dict[str, int] = {}
    for type_, _ in members:
        counts[type_] = counts.get(type_, 0) + 1
    specs = [project.identifiers[type_] for type_ in counts if type_ in project.identifiers]
    return [
        Held(spec.name, counts[spec.name], *bound)
        for spec in sorted(specs, key=lambda spec: (-spec.priority, spec.name))
        if (bound := _bound(spec)) is not None
    ]


def _bound(spec: Identifier) -> tuple[int, int | None] | None:
    """The limit of a type and the days within which it counts; 1 where a type is unique and sets none."""
    if spec.limit is None:
        return (1, None) if spec.unique else None
    return spec.limit.count, None if spec.limit.within is None else spec.limit.within.days
