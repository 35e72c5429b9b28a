"""What people say, and sources say of them, that may put them into one group: a household, an account.

Evidence only, one row per person and value, as expressions; who ends up together is decided in groups.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.identity.blocked import ROLE
from cdp_pipeline.identity.rows import person_of_rows
from cdp_pipeline.identity.seen import happened_at

if TYPE_CHECKING:
    from cdp_pipeline.spec.group import Directory, Group, Way
    from cdp_pipeline.spec.project import Project

CLAIMS = {"rule": "string", "person_id": "string", "key": "string", "at": "timestamp(6)"}
LISTED = {"rule": "string", "key": "string", "name": "string", "parent": "string", "at": "timestamp(6)"}


def claims(
    group: Group,
    customers: ibis.Table,
    identifiers: ibis.Table,
    edges: ibis.Table,
    sources: Mapping[str, ibis.Table],
    project: Project,
    now: datetime,
) -> ibis.Table:
    """One row per way, person and value: rule, person_id, key, at (when it was last said, null where no row says).

    `customers` is profile.customers, the other tables are identity's. Free-mail domains are still in.
    """
    found = []
    for way in group.by:
        if way.same is not None or way.email_domain is not None:
            rows = _of_profile(way, customers, identifiers, project)
        elif way.column is not None:
            rows = _of_column(way, sources, identifiers, project)
        else:
            rows = _of_identifier(way, identifiers, edges, project, now)
        said = rows.filter(rows["person_id"].notnull() & (rows["key"] != ""))
        each = said.group_by("person_id", "key").agg(at=said["at"].max().cast("timestamp(6)"))
        found.append(each.select(rule=ibis.literal(way.rule), person_id="person_id", key="key", at="at"))
    return ibis.union(*found)


def listed(group: Group, sources: Mapping[str, ibis.Table]) -> ibis.Table:
    """The groups that directories list, with people or without: rule, key, name, parent, at (first heard of)."""
    found = [
        _of_directory(way, way.directory, sources[way.directory.source], current)
        for way in group.by
        if way.directory is not None
        for current in ["_valid_to" in sources[way.directory.source].columns]
    ]
    return ibis.union(*found) if found else ibis.memtable([], schema=LISTED)


def plain(value: ibis.Value) -> ibis.Value:
    """A value as it is compared: small letters and digits, one space for whatever stands between them."""
    return value.cast("string").lower().re_replace(r"[^\p{L}\p{M}\p{N}]+", " ").strip()


def _of_profile(way: Way, customers: ibis.Table, identifiers: ibis.Table, project: Project) -> ibis.Table:
    """What the profile says, but for values that identity blocks: none@none.com is no address, whoever typed it.

    The mailbox of a role is nobody's, but it is at the company's domain.
    """
    never = ibis.null("timestamp(6)")
    blocked = identifiers.filter(identifiers["status"] == "blocked")
    if way.email_domain is not None:
        meant = _without(customers, way.email_domain, blocked.filter(blocked["why"] != ROLE), project)
        domain = meant[way.email_domain].lower().strip().re_extract("@([^@]+)$", 1)
        return meant.select("person_id", key=domain.fill_null(""), at=never)
    for name in way.same or []:
        customers = _without(customers, name, blocked, project)
    parts = [plain(customers[name]) for name in way.same or []]
    whole = ibis.and_(*(part.fill_null("") != "" for part in parts))
    return customers.filter(whole).select("person_id", key=ibis.literal("|").join(parts), at=never)


def _without(customers: ibis.Table, attribute: str, blocked: ibis.Table, project: Project) -> ibis.Table:
    """The customers whose attribute is none of the blocked values of the identifiers it is filled from."""
    columns = [project.sources[one.source].columns.get(one.column) for one in project.attributes[attribute].sources]
    types = sorted({column.identifier for column in columns if column is not None and column.identifier is not None})
    if not types:
        return customers
    values = blocked.filter(blocked["type"].isin(types)).select("value").distinct()
    return customers.anti_join(values, customers[attribute].cast("string") == values["value"])


def _of_column(way: Way, sources: Mapping[str, ibis.Table], identifiers: ibis.Table, project: Project) -> ibis.Table:
    source = project.sources[str(way.source)]
    rows = sources[source.name]
    if source.mode == "snapshot":
        rows = rows.filter(rows["_valid_to"].isnull())
    owned = person_of_rows(rows, source, identifiers, project)
    return owned.select("person_id", key=_number(owned[way.column]), at=happened_at(owned).cast("timestamp(6)"))


def _number(value: ibis.Value) -> ibis.Value:
    return value.cast("string").strip().fill_null("")


def _of_identifier(way: Way, identifiers: ibis.Table, edges: ibis.Table, project: Project, now: datetime) -> ibis.Table:
    """Whose the value is, and whose identifiers stood on a row with it, although it was shared or refused them.

    A link that a verdict undid counts for nothing here either.
    """
    type_ = way.identifier
    alive = identifiers.filter(identifiers["person_id"].notnull() & (identifiers["status"] == "ok"))
    own = alive.filter(alive["type"] == type_)
    found = [own.select("person_id", key="value", at="last_seen")]
    expires = project.identifiers[str(type_)].expires
    links = edges.filter(edges["status"] != "refused_verdict")
    if expires is not None:
        lasting = [name for name, source in project.sources.items() if source.mode == "snapshot"]
        since = ibis.timestamp((now.astimezone(UTC) - expires).replace(tzinfo=None))
        links = links.filter((links["last_seen"] > since) | links["source"].isin(lasting))
    values = identifiers.filter((identifiers["type"] == type_) & (identifiers["status"] != "blocked"))
    for one, other in (("a", "b"), ("b", "a")):
        met = links.filter(links[f"type_{one}"] == type_).select(
            key=f"value_{one}", type=f"type_{other}", value=f"value_{other}", at="last_seen"
        )
        met = met.semi_join(values, met["key"] == values["value"])
        whose = met.join(alive.select("type", "value", "person_id"), ["type", "value"])
        found.append(whose.select("person_id", "key", "at"))
    return ibis.union(*found)


def _of_directory(way: Way, directory: Directory, rows: ibis.Table, current: bool) -> ibis.Table:
    at = happened_at(rows).cast("timestamp(6)")
    nothing = ibis.null("string")
    told = rows.select(
        key=_number(rows[directory.key]),
        name=nothing if directory.name is None else rows[directory.name].cast("string"),
        parent=nothing if directory.parent is None else _number(rows[directory.parent]),
        at=at,
        holds=rows["_valid_to"].isnull() if current else ibis.literal(True),
        record_id=rows["_record_id"],
    )
    told = told.filter(told["key"] != "")
    # Of several rows with one number the latest speaks; a struct compares field by field.
    latest = ibis.struct({name: told[name] for name in ("at", "record_id", "name", "parent")})
    each = told.group_by("key").agg(latest=latest.max(where=told["holds"]), first=told["at"].min())
    each = each.filter(each["latest"].notnull())
    return each.select(
        rule=ibis.literal(way.rule),
        key="key",
        name=each["latest"]["name"],
        parent=each["latest"]["parent"].nullif(""),
        at=each["first"],
    )
