"""Which documents of two projects differ, and what people see of it: no table is read here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdp_pipeline.spec.versions import audience_versions, band_versions, trait_versions

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project

KINDS = {
    "source": "sources", "identifier": "identifiers", "match": "matches", "verdict": "verdicts", "group": "groups",
    "attribute": "attributes", "trait": "traits", "prediction": "predictions", "audience": "audiences",
    "trigger": "triggers", "guard": "guards", "destination": "destinations", "sync": "syncs",
}  # fmt: skip
WORDS_FOR_PEOPLE = {"description", "owner"}


@dataclass(frozen=True)
class DocumentChange:
    """One document that is new, gone or changed, and in which fields."""

    kind: str
    name: str
    change: str
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.change}" + (f": {', '.join(self.fields)}" if self.fields else "")


@dataclass(frozen=True)
class Touched:
    """What must be looked at: names that mean something else in the two projects, those that one of them lacks too.

    identity: who is who is decided otherwise. timeline: sources tell other events. unseen: what only a run can show.
    """

    identity: bool
    timeline: bool
    attributes: set[str]
    traits: set[str]
    bands: set[str]
    audiences: set[str]
    syncs: set[str]
    unseen: list[str]


def documents(project: Project, other: Project) -> list[DocumentChange]:
    """Every document that is not the same in both, by kind and name."""
    found = _changed("project", project.settings.name, project.settings, other.settings)
    for kind, plural in KINDS.items():
        before, after = getattr(project, plural), getattr(other, plural)
        for name in sorted(before.keys() | after.keys()):
            found += _changed(kind, name, before.get(name), after.get(name))
    return found


def _changed(kind: str, name: str, before: Any, after: Any) -> list[DocumentChange]:
    if before is None or after is None:
        return [DocumentChange(kind, name, "new" if before is None else "gone")]
    fields = [
        field for field in type(after).model_fields if getattr(before, field, None) != getattr(after, field)
    ] if before != after else []  # fmt: skip
    return [DocumentChange(kind, name, "changed", tuple(field.rstrip("_") for field in fields))] if fields else []


def touched(project: Project, other: Project) -> Touched:
    """What the differences of two projects reach, by what each definition is made of."""
    both = [(project, other), (other, project)]
    versions = {id(one): trait_versions(one) for one in (project, other)}
    bands = {id(one): band_versions(one, versions[id(one)]) for one in (project, other)}
    audiences = {id(one): audience_versions(one) for one in (project, other)}
    unlike = [
        {name for a, b in both for name, version in of[id(a)].items() if of[id(b)].get(name) != version}
        for of in (versions, bands, audiences)
    ]
    return Touched(
        identity=_identity(project) != _identity(other),
        timeline=_told(project) != _told(other),
        attributes=_unlike(project.attributes, other.attributes),
        traits=unlike[0],
        bands=unlike[1],
        audiences=unlike[2],
        syncs=_unlike(project.syncs, other.syncs),
        unseen=list(_unseen(project, other)),
    )


def _unlike(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {
        name
        for name in before.keys() | after.keys()
        if name not in before
        or name not in after
        or before[name].model_dump(exclude=WORDS_FOR_PEOPLE) != after[name].model_dump(exclude=WORDS_FOR_PEOPLE)
    }


def _identity(project: Project) -> Any:
    columns = {name: source.identifier_columns for name, source in project.sources.items() if source.identifier_columns}
    documents = (project.identifiers, project.matches, project.verdicts)
    dumped = [{n: d.model_dump(exclude=WORDS_FOR_PEOPLE) for n, d in of.items()} for of in documents]
    return project.settings.identity, columns, dumped


def _told(project: Project) -> Any:
    sources = {name: (source.channel, source.events) for name, source in project.sources.items() if source.events}
    return project.settings.timezone, project.settings.currency, sources


def _unseen(project: Project, other: Project) -> list[str]:
    said = []
    for name, source in other.sources.items():
        before = project.sources.get(name)
        if before is None:
            said.append(f"source {name} is new: nothing of it is loaded yet")
        elif any(
            getattr(source, field) != getattr(before, field)
            for field in type(source).model_fields
            if field not in ("events", "channel", "description", "owner", "freshness")
        ):
            said.append(f"source {name} reads its rows otherwise: compared are the rows as they were loaded")
    for name in sorted(_unlike(project.predictions, other.predictions) & other.predictions.keys()):
        said.append(f"prediction {name} must be trained anew: its scores are compared as they are")
    for name in sorted(_unlike(project.matches, other.matches)):
        said.append(f"match {name}: pairs of people are only compared by a run")
    for name in sorted(_unlike(project.groups, other.groups)):
        said.append(f"group {name}: who belongs together is only decided by a run")
    return said
