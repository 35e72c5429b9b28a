"""Who is compared: one row per person the identifiers made, under their strongest identifier, with what is compared.

What is known of a person comes from survivorship (profile/), computed for these people; this module only lays it out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import ibis

if TYPE_CHECKING:
    from cdp_pipeline.spec.match import Match
    from cdp_pipeline.spec.project import Project


def reads_only(match: Match, project: Project) -> Project:
    """The project with the attributes the match compares and no others: what survivorship must compute for it."""
    return replace(project, attributes={name: project.attributes[name] for name in match.attributes})


def units(identifiers: ibis.Table, profiles: ibis.Table, match: Match, project: Project) -> ibis.Table:
    """One row per person: type and value of their anchor, first_seen, and the compared attributes as texts.

    identifiers: as the graph without fuzzy links has them (type, value, person_id, first_seen, status); profiles:
    person_id and the attributes. The anchor is the strongest identifier (by priority, then the earliest, then by
    content), so that a person is the same unit whatever id they have; who has none of their own is not compared.
    """
    own = identifiers.filter(identifiers["person_id"].notnull() & (identifiers["status"] == "ok"))
    strength = ibis.cases(
        *((own["type"] == name, spec.priority) for name, spec in project.identifiers.items()), else_=0
    )
    strongest_first = ibis.window(
        group_by=own["person_id"],
        order_by=[strength.desc(), own["first_seen"].asc(), own["type"].asc(), own["value"].asc()],
    )
    since = own["first_seen"].min().over(group_by=own["person_id"])
    ranked = own.mutate(place=ibis.row_number().over(strongest_first), since=since)
    anchors = ranked.filter(ranked["place"] == 0).select("person_id", "type", "value", first_seen="since")
    known = profiles.select("person_id", **{name: profiles[name].cast("string") for name in match.attributes})
    return anchors.inner_join(known, "person_id").select("type", "value", "first_seen", *match.attributes)
