"""Whose a source row is: the row's identifiers looked up in identity.identifiers. Every row is kept, also nobody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.source import Source


def person_of_rows(rows: ibis.Table, source: Source, identifiers: ibis.Table, project: Project) -> ibis.Table:
    """The rows with `person_id`: the person of the row's strongest identifier, null where no identifier has one.

    A shared identifier (a tablet in a shop) only says whose a row is when no other on the row does.
    """
    strongest_first = sorted(
        source.identifier_columns.items(), key=lambda column: -project.identifiers[column[1]].priority
    )
    joined, own, shared = rows, [], []
    for place, (column, identifier) in enumerate(strongest_first):
        value, person, status = (f"_{name}_{place}" for name in ("value", "person", "status"))
        owners = identifiers.filter((identifiers["type"] == identifier) & identifiers["person_id"].notnull()).select(
            **{value: "value", person: "person_id", status: "status"}
        )
        joined = joined.left_join(owners, joined[column].cast("string") == owners[value])
        own.append(ibis.ifelse(ibis._[status] == "ok", ibis._[person], ibis.null("string")))
        shared.append(ibis._[person])
    whose = ibis.coalesce(*own, *shared) if own else ibis.null("string")
    return joined.select(*rows.columns, person_id=whose)
