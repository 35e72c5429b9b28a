"""Identifiers as people write them: `type:value`, found however it is spelled, or named with the nearest there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.spec.base import unknown

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project


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


def resolve_identifier(text: str, identifiers: ibis.Table, people: ibis.Table, project: Project) -> str:
    """The living person behind `type:value` or a person id; an id that was merged leads to its survivor."""
    if ":" in text:
        found = find_identifier(text, identifiers, project)
        if found.person_id is None:
            raise UnknownIdentifier(f"{found} is nobody's: it is {found.status}: {found.why}")
        return found.person_id
    rows = people.filter(people["person_id"] == text).to_pyarrow().to_pylist()
    if not rows:
        mine = identifiers.filter(identifiers["value"].isin([text, text.strip().lower()])).order_by("type").limit(1)
        for row in mine.to_pyarrow().to_pylist():
            raise UnknownIdentifier(f"no person '{text}', did you mean {row['type']}:{row['value']}?")
        known = ", ".join(sorted(project.identifiers))
        raise UnknownIdentifier(f"no person '{text}': give a person id, or type:value with type one of {known}")
    return rows[0]["merged_into"] or text


def find_identifier(text: str, identifiers: ibis.Table, project: Project) -> Identified:
    """The identifier a human wrote as `type:value`, spelled as its sources normalise it."""
    type_, colon, written = text.partition(":")
    if not colon or type_ not in project.identifiers:
        raise UnknownIdentifier(unknown("identifier type", type_, project.identifiers))
    candidates = list(dict.fromkeys([written, *spellings(type_, written, project)]))
    ours = identifiers.filter(identifiers["type"] == type_)
    found = {row["value"]: row for row in ours.filter(ours["value"].isin(candidates)).to_pyarrow().to_pylist()}
    for spelling in candidates:
        if spelling in found:
            row = found[spelling]
            return Identified(type_, spelling, row["person_id"], row["status"], row["why"])
    raise UnknownIdentifier(f"no identifier {type_}:{written}{_nearest(ours, candidates[-1])}")


def spellings(type_: str, written: str, project: Project) -> list[str]:
    """As written, then as each column of this type would have normalised it."""
    from cdp_pipeline.sources.normalise import LOOKED_UP

    bare = written.strip()
    found = [bare]
    for source in project.sources.values():
        for column in source.columns.values():
            if column.identifier != type_:
                continue
            if column.normalise in ("email", "lower"):
                found.append(bare.lower())
            elif column.normalise in ("upper", "postcode"):
                found.append(" ".join(bare.upper().split()))
            elif column.normalise in LOOKED_UP:
                found.append(LOOKED_UP[column.normalise](bare, source.region) or bare)
            elif column.type == "integer" and bare.isdecimal():
                found.append(str(int(bare)))
    return list(dict.fromkeys(found))


def _nearest(identifiers: ibis.Table, value: str) -> str:
    distance = identifiers["value"].levenshtein(value)
    near = identifiers.mutate(distance=distance).filter(ibis._["distance"] <= 2)
    rows = near.order_by("distance", "value").limit(3).to_pyarrow().to_pylist()
    return ", nearest: " + ", ".join(f"{row['type']}:{row['value']}" for row in rows) if rows else ""
