"""What a lake remembers of a trait: its definitions, and anybody's values under each of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.versions import trait_versions
from cdp_pipeline.traits.history import DEFINITIONS, RESTATED, values_under
from cdp_pipeline.traits.runs import recorded_versions

if TYPE_CHECKING:
    from cdp_pipeline.lake import LakeView
    from cdp_pipeline.spec.project import Project


class UnknownTraitError(LookupError):
    """No definition of that trait was ever computed."""


def definitions_of(lake: LakeView, project: Project, trait: str) -> list[dict[str, Any]]:
    """Every definition, oldest first: whether it is today's, the days it holds for, the days it was replaced on.

    `changed` counts the values (people and days) that its successor made otherwise.
    """
    recorded, current = recorded_versions(lake), trait_versions(project).get(trait)
    restated = lake.read(RESTATED)
    replaced = restated.filter(restated.trait == trait).to_pyarrow().to_pylist()
    rows = []
    for row in _definitions(lake, project, trait):
        holds = sorted(day for day, versions in recorded.items() if versions.get(trait) == row["version"])
        gone = [one for one in replaced if one["version"] == row["version"]]
        rows.append(
            {
                "version": row["version"],
                "since": row["since"],
                "today": row["version"] == current,
                "days": len(holds),
                "from": holds[0] if holds else None,
                "to": holds[-1] if holds else None,
                "days_replaced": len(gone),
                "changed": sum(one["people"] for one in gone),
                "definition": json.loads(row["definition"]),
            }
        )
    return rows


def values_of(
    lake: LakeView, project: Project, trait: str, person_id: str, version: str | None = None
) -> list[dict[str, Any]]:
    """A person's values by day and version, as text."""
    known = {row["version"] for row in _definitions(lake, project, trait)}
    if version is not None and version not in known:
        raise UnknownTraitError(unknown(f"version of trait '{trait}'", version, known))
    recorded, found = recorded_versions(lake), []
    for one in sorted(known) if version is None else [version]:
        rows = values_under(lake, recorded, trait, one)
        rows = rows.filter(rows.person_id == person_id)
        found += [
            {
                "day": row["day"],
                "version": one,
                "now": recorded.get(row["day"], {}).get(trait) == one,
                "value": row["value"],
            }
            for row in rows.to_pyarrow().to_pylist()
        ]
    return sorted(found, key=lambda row: (row["day"], row["now"], row["version"]))


def _definitions(lake: LakeView, project: Project, trait: str) -> list[dict[str, Any]]:
    table = lake.read(DEFINITIONS)
    rows = table.filter(table.trait == trait).order_by("since", "version").to_pyarrow().to_pylist()
    if not rows:
        every = {*table.trait.to_pyarrow().to_pylist(), *project.traits}
        if trait in every:
            raise UnknownTraitError(f"trait '{trait}' was not computed yet: cdp run group:traits")
        raise UnknownTraitError(unknown("trait", trait, every))
    return rows
