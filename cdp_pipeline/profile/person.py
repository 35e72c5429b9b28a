"""One person's page: attributes and their origin, traits, bands, predictions, audiences, and their timeline."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.profile.customers import PROVENANCE

if TYPE_CHECKING:
    from cdp_pipeline.lake import LakeView
    from cdp_pipeline.spec.project import Project

BEST = 3
"""How many items of a prediction over items are shown."""


def profile_of(lake: LakeView, project: Project, person_id: str, as_of: date | None = None) -> dict[str, Any]:
    """Everything known of a person. Traits, predictions and audiences are those of the newest day up to `as_of`."""
    single = [name for name, prediction in project.predictions.items() if not prediction.over_items]
    where = [("traits.daily", "traits")] + [(f"predictions.{name}", name) for name in single]
    page: dict[str, Any] = {
        "person_id": person_id,
        "identifiers": _rows(lake, "identity.identifiers", person_id, "type", "value", "status", "last_seen"),
        "attributes": _attributes(lake, person_id),
    }
    newest = {title: _newest(lake, name, person_id, as_of) for name, title in where}
    page["traits"] = newest.pop("traits")
    page["predictions"] = {name: row for name, row in newest.items() if row}
    others = [name for name in project.predictions if name not in single]
    best = {name: best_items(lake, f"predictions.{name}", person_id, as_of) for name in others}
    page["items"] = {name: rows for name, rows in best.items() if rows}
    page["bands"] = _bands(lake, person_id, as_of)
    page["groups"] = _groups(lake, person_id)
    page["audiences"] = _audiences(lake, person_id, as_of)
    return page


def timeline_of(lake: LakeView, person_id: str, limit: int) -> list[dict[str, Any]]:
    """Their newest events, newest first."""
    if not lake.exists("profile.timeline"):
        return []
    table = lake.table("profile.timeline")
    told = table.filter(table.person_id == person_id).order_by(ibis.desc("occurred_at"), "event_id").limit(limit)
    return told.drop("_day", "_loaded_at").to_pyarrow().to_pylist()


def _rows(lake: LakeView, name: str, person_id: str, *columns: str) -> list[dict[str, Any]]:
    if not lake.exists(name):
        return []
    table = lake.table(name)
    return table.filter(table.person_id == person_id).select(*columns).order_by(*columns[:2]).to_pyarrow().to_pylist()


def _attributes(lake: LakeView, person_id: str) -> list[dict[str, Any]]:
    table = lake.read(PROVENANCE)
    mine = table.filter(table.person_id == person_id).drop("person_id", "record_id")
    return mine.order_by("attribute", "value").to_pyarrow().to_pylist()


def _until(table: ibis.Table, as_of: date | None) -> ibis.Table:
    return table if as_of is None else table.filter(table.day <= ibis.date(as_of))


def _newest(lake: LakeView, name: str, person_id: str, as_of: date | None) -> dict[str, Any]:
    if not lake.exists(name):
        return {}
    table = _until(lake.table(name), as_of)
    rows = table.filter(table.person_id == person_id).order_by(ibis.desc("day")).limit(1).to_pyarrow().to_pylist()
    return {key: value for row in rows for key, value in row.items() if key != "person_id" and not key.startswith("_")}


def best_items(lake: LakeView, name: str, person_id: str, as_of: date | None, most: int = BEST) -> list[dict[str, Any]]:
    """What comes first for them of a prediction over items on its newest day, best first; at most so many."""
    if not lake.exists(name):
        return []
    table = _until(lake.table(name), as_of)
    mine = table.filter((table.person_id == person_id) & (table["rank"] <= most))
    rows = mine.order_by(ibis.desc("day"), "rank").limit(most).drop("person_id").to_pyarrow().to_pylist()
    return [row for row in rows if row["day"] == rows[0]["day"]]


def _bands(lake: LakeView, person_id: str, as_of: date | None) -> dict[str, str]:
    if not lake.exists("traits.bands"):
        return {}
    table = _until(lake.table("traits.bands"), as_of)
    mine = table.filter(table.person_id == person_id)
    states = mine.group_by("trait").agg(band=mine.to_band.argmax(mine.day)).to_pyarrow().to_pylist()
    return {row["trait"]: row["band"] for row in sorted(states, key=lambda row: row["trait"])}


def _audiences(lake: LakeView, person_id: str, as_of: date | None) -> list[str]:
    if not lake.exists("audiences.members"):
        return []
    sizes, table = _until(lake.table("audiences.sizes"), as_of), lake.table("audiences.members")
    newest = sizes.group_by("audience").agg(day=sizes.day.max())
    mine = table.filter(table.person_id == person_id).semi_join(newest, ["audience", "day"])
    return sorted(mine.audience.to_pyarrow().to_pylist())


def _groups(lake: LakeView, person_id: str) -> list[dict[str, Any]]:
    """Their household, their account: what it is called, who is at the top of it, how many are in it, and why they."""
    if not lake.exists("identity.group_members"):
        return []
    members, groups = lake.table("identity.group_members"), lake.table("identity.groups")
    top = groups.select(root_group_id="group_id", top="name")
    mine = members.filter(members.person_id == person_id).drop("kind").join(groups.drop("rule", "why"), "group_id")
    found = mine.left_join(top, "root_group_id").select("kind", "group_id", "name", "key", "members", "top", "why")
    return found.order_by("kind").to_pyarrow().to_pylist()


def flat(page: dict[str, Any]) -> Iterator[tuple[str, str, Any, str]]:
    """The page as lines: section, name, value, and what is to be said about the value."""
    for row in page["identifiers"]:
        yield "identifier", row["type"], row["value"], "" if row["status"] == "ok" else row["status"]
    for row in page["attributes"]:
        others = f", of {row['values_seen']} values" if (row["values_seen"] or 1) > 1 else ""
        yield "attribute", row["attribute"], row["value"], f"{row['rule'].replace('_', ' ')} in {row['source']}{others}"
    for row in page.get("groups", []):
        top = f"; part of {row['top']}" if row["top"] not in (None, row["name"]) else ""
        count = "1 person" if row["members"] == 1 else f"{row['members']:,} people; {row['why']}"
        yield "group", row["kind"], row["name"] or row["key"].replace("|", ", "), count + top
    for name, value in page["traits"].items():
        if value is not None and value != []:
            yield "trait", "as of" if name == "day" else name, value, page["bands"].get(name, "")
    for name, row in page["predictions"].items():
        why = (row["band"], row["basis"], row["reasons"])
        yield "score", name, row["score"], "; ".join(part for part in why if part)
    for name, rows in page.get("items", {}).items():
        for row in rows:
            parts = [f"{row['score']:.3f}", row["band"], row["basis"], row["reasons"]]
            yield "score", f"{name} {row['rank']}", row["item"], "; ".join(filter(None, parts))
    for name in page["audiences"]:
        yield "audience", name, None, ""
