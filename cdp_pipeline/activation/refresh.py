"""Bring activation up to the newest computed day: fire every trigger and plan every sync. Nothing is sent here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import ibis
import pyarrow as pa

from cdp_pipeline.activation.fire import known_people
from cdp_pipeline.activation.gates import ContactGates
from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.activation.plan import PLAN, plan, plan_rows
from cdp_pipeline.activation.sync import holds, submit
from cdp_pipeline.audiences.members import HELD, MEMBERS, SIZES, held_now
from cdp_pipeline.lake.lake import LakeView
from cdp_pipeline.spec.project import Project

SIZES_COMPARED = 7


@dataclass(frozen=True)
class Planned:
    """The rows of PLAN, and by sync how many operations of each kind, with the state of its plan."""

    rows: pa.Table
    counts: dict[str, Counter[str]]


def members_now(lake: LakeView, audience: str) -> list[str]:
    """The audience's members on the newest day it was computed for."""
    sizes, members = lake.read(SIZES), lake.read(MEMBERS)
    newest = sizes.filter(sizes.audience == audience).day.max().to_pyarrow().as_py()
    if newest is None:
        return []
    rows = members.filter((members.audience == audience) & (members.day == ibis.date(newest)))
    return rows.person_id.to_pyarrow().to_pylist()


def plan_all(
    ledger: Ledger, lake: LakeView, project: Project, *, now: datetime, gates: ContactGates | None = None
) -> Planned:
    """Compare each synced audience with what its destination holds; enqueue the difference or hold it for approval.

    Whom the gates would refuse is not put anywhere, and taken out of where they are mirrored.

    A sync whose audience is held waits: nothing is planned for it until the audience passes its tests again.
    """
    parts, counts = [PLAN.schema.to_pyarrow().empty_table()], {}
    sizes = lake.read(SIZES)
    held = held_now(sizes, lake.read(HELD))
    for sync in project.syncs.values():
        if sync.audience in held:
            counts[sync.name] = Counter({"waits: its audience is held": 1})
            continue
        of_audience = sizes.filter(sizes.audience == sync.audience).order_by(ibis.desc("day")).limit(SIZES_COMPARED + 1)
        recent = of_audience.select("day", "people").to_pyarrow().to_pylist()
        if not recent:
            continue  # Not computed yet: nothing is known of the audience, least of all that it is empty.
        members = members_now(lake, sync.audience)
        people = known_people(lake, project, members, recent[0]["day"])
        barred = {} if gates is None else gates.barred(sync, people, project.destinations[sync.destination], now)
        found = plan(sync, members, people, holds(ledger, sync.name), barred)
        submitted = submit(
            ledger,
            found,
            dry_run=project.destinations[sync.destination].dry_run,
            recent_sizes=[row["people"] for row in recent[1:]],
            now=now,
        )
        counts[sync.name] = found.counts + Counter({submitted.state: 1})
        parts.append(plan_rows(found, submitted.state, submitted.reasons))
    return Planned(pa.concat_tables(parts), counts)
