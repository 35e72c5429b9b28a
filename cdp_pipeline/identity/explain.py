"""Why two identifiers are, or are not, one person; and whose an identifier written by a human is.

Answers from the published tables with one small read each. It decides nothing: people.py did.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.spec.base import unknown

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project

_LINKING = ("accepted", "redundant")
_MOST_AGAINST = 20


class UnknownIdentifier(LookupError):
    """Nobody has this identifier or person id; the message names the nearest that exist."""


@dataclass(frozen=True)
class Identified:
    """One identifier as it stands: whose it is, and whether it may link."""

    type: str
    value: str
    person_id: str | None
    status: str
    why: str | None

    @property
    def end(self) -> tuple[str, str]:
        return self.type, self.value

    def __str__(self) -> str:
        return f"{self.type}:{self.value}"


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
    def ends(self) -> tuple[tuple[str, str], tuple[str, str]]:
        return (self.type_a, self.value_a), (self.type_b, self.value_b)

    def __str__(self) -> str:
        return (
            f"{self.type_a}:{self.value_a} and {self.type_b}:{self.value_b}: {self.rule} in {self.source} "
            f"(row {self.record_id}), {self.first_seen:%Y-%m-%d} to {self.last_seen:%Y-%m-%d}, score {self.score:g}, "
            + (f"{self.status}: {self.why}" if self.why else self.status)
        )


@dataclass(frozen=True)
class Explanation:
    """`path` joins a to b when they are one person; `against` holds the links that did not join them when not."""

    a: Identified
    b: Identified
    path: list[Link]
    against: list[Link]

    @property
    def same_person(self) -> bool:
        return self.a.person_id is not None and self.a.person_id == self.b.person_id

    def __str__(self) -> str:
        notes = [f"{one} is {one.status}: {one.why}" for one in (self.a, self.b) if one.status != "ok"]
        if self.same_person:
            steps = [str(link) for link in self.path] or ["they are the same identifier"]
            return "\n".join([f"{self.a} and {self.b} are one person, {self.a.person_id}:", *steps, *notes])
        found = [str(link) for link in self.against] or ["no row ever showed them, or what is theirs, together"]
        return "\n".join([f"{self.a} and {self.b} are not one person:", *notes, *found])


def explain_link(edges: ibis.Table, identifiers: ibis.Table, a: str, b: str, project: Project) -> Explanation:
    """The shortest path of links from a to b; where there is none, the links that were refused or do not count.

    a and b are written `type:value`.
    """
    one, other = find_identifier(a, identifiers, project), find_identifier(b, identifiers, project)
    if one.end == other.end:
        return Explanation(one, other, [], [])
    theirs = [_members(identifiers, found) for found in (one, other)]
    links = _links_touching(edges, identifiers, one, other)
    if one.person_id is not None and one.person_id == other.person_id:
        linking = [link for link in links if link.status in _LINKING and theirs[0].issuperset(link.ends)]
        return Explanation(one, other, _shortest_path(linking, one.end, other.end), [])
    return Explanation(one, other, [], _between(links, *theirs))


def resolve_identifier(text: str, identifiers: ibis.Table, people: ibis.Table, project: Project) -> str:
    """The living person behind `type:value` or a person id; an id that was merged leads to its survivor."""
    if ":" in text:
        found = find_identifier(text, identifiers, project)
        if found.person_id is None:
            raise UnknownIdentifier(f"{found} is nobody's: it is {found.status}: {found.why}")
        return found.person_id
    rows = people.filter(people["person_id"] == text).to_pyarrow().to_pylist()
    if not rows:
        known = ", ".join(sorted(project.identifiers))
        raise UnknownIdentifier(f"no person '{text}': give a person id, or type:value with type one of {known}")
    return rows[0]["merged_into"] or text


def find_identifier(text: str, identifiers: ibis.Table, project: Project) -> Identified:
    """The identifier a human wrote as `type:value`, spelled as its sources normalise it."""
    type_, colon, written = text.partition(":")
    if not colon or type_ not in project.identifiers:
        raise UnknownIdentifier(unknown("identifier type", type_, project.identifiers))
    spellings = _spellings(type_, written, project)
    ours = identifiers.filter(identifiers["type"] == type_)
    found = {row["value"]: row for row in ours.filter(ours["value"].isin(spellings)).to_pyarrow().to_pylist()}
    for spelling in spellings:
        if spelling in found:
            row = found[spelling]
            return Identified(type_, spelling, row["person_id"], row["status"], row["why"])
    raise UnknownIdentifier(f"no identifier {type_}:{written}{_nearest(ours, spellings[-1])}")


def _spellings(type_: str, written: str, project: Project) -> list[str]:
    """As written, then as each column of this type would have normalised it."""
    from cdp_pipeline.sources.normalise import phone

    spellings = [written, written.strip()]
    for source in project.sources.values():
        for column in source.columns.values():
            if column.identifier != type_:
                continue
            if column.normalise in ("email", "lower"):
                spellings.append(written.strip().lower())
            elif column.normalise in ("upper", "postcode"):
                spellings.append(written.strip().upper())
            elif column.normalise == "phone":
                spellings.append(phone(written, source.region) or written)
    return list(dict.fromkeys(spellings))


def _nearest(identifiers: ibis.Table, value: str) -> str:
    distance = identifiers["value"].levenshtein(value)
    near = identifiers.mutate(distance=distance).filter(ibis._["distance"] <= 2)
    rows = near.order_by("distance", "value").limit(3).to_pyarrow().to_pylist()
    return ", nearest: " + ", ".join(f"{row['type']}:{row['value']}" for row in rows) if rows else ""


def _members(identifiers: ibis.Table, found: Identified) -> set[tuple[str, str]]:
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
    members = identifiers.filter(ours).select("type", "value")
    touching = [
        edges.semi_join(members, [edges[f"type_{end}"] == members["type"], edges[f"value_{end}"] == members["value"]])
        for end in ("a", "b")
    ]
    names = list(Link.__dataclass_fields__)
    rows = ibis.union(*touching, distinct=True).select(*names).to_pyarrow().to_pylist()
    links = [Link(**row) for row in rows]
    return sorted(links, key=lambda link: (-link.score, link.ends, link.source))


def _shortest_path(links: list[Link], start: tuple[str, str], goal: tuple[str, str]) -> list[Link]:
    """Breadth first; on equal length the links that come first in `links`, each written in its own direction."""
    neighbours: dict[tuple[str, str], list[tuple[tuple[str, str], Link]]] = {}
    for link in links:
        left, right = link.ends
        neighbours.setdefault(left, []).append((right, link))
        neighbours.setdefault(right, []).append((left, link))
    came_by: dict[tuple[str, str], tuple[tuple[str, str], Link] | None] = {start: None}
    queue = deque([start])
    while queue and goal not in came_by:
        here = queue.popleft()
        for there, link in neighbours.get(here, []):
            if there not in came_by:
                came_by[there] = here, link
                queue.append(there)
    path: list[Link] = []
    step = came_by.get(goal)
    while step is not None:
        path.append(step[1])
        step = came_by[step[0]]
    return path[::-1]


def _between(links: list[Link], ours: set[tuple[str, str]], theirs: set[tuple[str, str]]) -> list[Link]:
    """The links from one side to the other, directly or over one value that both were seen with; latest first."""
    unlinked = [link for link in links if link.status not in _LINKING]
    beside: list[set[tuple[str, str]]] = []
    for side in (ours, theirs):
        beside.append({end for link in unlinked for end in link.ends if side.intersection(link.ends)} - side)
    common = (beside[0] & beside[1]) - ours - theirs
    chosen = [
        link
        for link in unlinked
        if (ours.intersection(link.ends) and theirs.intersection(link.ends)) or common.intersection(link.ends)
    ]
    return sorted(chosen, key=lambda link: (-link.last_seen.timestamp(), link.ends, link.source))[:_MOST_AGAINST]
