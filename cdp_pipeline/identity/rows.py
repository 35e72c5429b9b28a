"""Whose a source row is: the row's identifiers looked up in identity.identifiers. Every row is kept, also nobody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.identity.seen import happened_at

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.source import Source


def person_of_rows(rows: ibis.Table, source: Source, identifiers: ibis.Table, project: Project) -> ibis.Table:
    """The rows with `person_id`: the person of the row's strongest identifier, null where no identifier has one.

    A shared identifier (a tablet in a shop) only says whose a row is when no other on the row does: such rows stay with
    the device. Under the strategy `link` they go to whoever is known on that device next, in the same source; those
    after the last time anybody was known stay with the device.
    """
    joined, own, shared = rows, [], []
    devices = []
    for place, (column, identifier) in enumerate(_strongest_first(source, project)):
        value, person, status = (f"_{name}_{place}" for name in ("value", "person", "status"))
        owners = identifiers.filter((identifiers["type"] == identifier) & identifiers["person_id"].notnull()).select(
            **{value: "value", person: "person_id", status: "status"}
        )
        joined = joined.left_join(owners, joined[column].cast("string") == owners[value])
        own.append(ibis.ifelse(ibis._[status] == "ok", ibis._[person], ibis.null("string")))
        shared.append(ibis._[person])
        if not project.identifiers[identifier].known:
            devices.append((value, status))
    if project.settings.identity.strategy == "link" and devices and len(own) > len(devices):
        joined = joined.mutate(_own=ibis.coalesce(*own))
        for value, status in devices:
            joined = _known_next(joined, value, status)
        own = [ibis._["_own"]]
    whose = ibis.coalesce(*own, *shared) if own else ibis.null("string")
    return joined.select(*rows.columns, person_id=whose)


def of_the_known(rows: ibis.Table, source: Source, identifiers: ibis.Table, project: Project) -> ibis.Table:
    """The rows whose strongest identifier that names anybody is known as one person's, so that they will stay theirs.

    Of any other row only the next computation of people can say whose it is.
    """
    joined = rows
    cases: list[tuple[ibis.Value, ibis.Value]] = []
    for place, (column, identifier) in enumerate(_strongest_first(source, project)):
        value, status = f"_value_{place}", f"_status_{place}"
        known = identifiers.filter(identifiers["type"] == identifier).select(**{value: "value", status: "status"})
        joined = joined.left_join(known, joined[column].cast("string") == known[value])
        said = ibis._[column].notnull() & (ibis.coalesce(ibis._[status], "") != "blocked")
        cases.append((said, ibis.coalesce(ibis._[status] == "ok", False)))
    return joined.filter(ibis.cases(*cases, else_=False) if cases else ibis.literal(False)).select(*rows.columns)


def _strongest_first(source: Source, project: Project) -> list[tuple[str, str]]:
    """Column and identifier type, by the type's priority."""
    return sorted(source.identifier_columns.items(), key=lambda column: -project.identifiers[column[1]].priority)


def _known_next(rows: ibis.Table, device: str, status: str) -> ibis.Table:
    """Give the rows of nobody on a shared device (`_own` null) to the person of the next row on it that has one.

    A known row ends a spell of the device; rows with as many known rows from here on are of one spell.
    """
    at, known = happened_at(rows), rows["_own"].notnull().cast("int64")
    last_first = ibis.cumulative_window(group_by=device, order_by=[at.desc(), rows["_record_id"].desc()])
    rows = rows.mutate(_spells=known.sum().over(last_first))
    spell = rows["_own"].max().over(ibis.window(group_by=[device, "_spells"]))
    theirs = (rows[status] == "shared") & (rows["_spells"] > 0)
    return rows.mutate(_own=ibis.coalesce(rows["_own"], ibis.ifelse(theirs, spell, ibis.null("string")))).drop(
        "_spells"
    )
