"""Bring activation up to the newest computed day: fire every trigger and plan every sync. Nothing is sent here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from types import MappingProxyType

import ibis
import pyarrow as pa

from cdp_pipeline.activation.fire import known_people, merged_people, parts_known
from cdp_pipeline.activation.gates import ContactGates
from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.activation.plan import PLAN, SyncPlan, plan, plan_rows
from cdp_pipeline.activation.sync import epoch, held_fingerprints, holds_some, how_many_held, submit, waiting
from cdp_pipeline.activation.tables import OUTBOX
from cdp_pipeline.activation.unchanged import compare
from cdp_pipeline.audiences.members import HELD, MEMBERS, SIZES, held_now
from cdp_pipeline.lake.questions import Questions
from cdp_pipeline.lake.view import LakeView
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.sync import Sync

SIZES_COMPARED = 7


@dataclass(frozen=True)
class PlannedSync:
    """What a sync's plan would do, and what became of it: applied, held, ready, shown, unchanged, or it waits."""

    state: str
    reasons: list[str]
    plan: SyncPlan | None = None

    @property
    def because(self) -> str:
        """Why it is held; in a dry run, why it would be; nothing where it goes, or there is nothing to send."""
        said = "; ".join(self.reasons) if self.state not in ("unchanged", "ready", "applied") else ""
        return f"would be held: {said}" if said and self.state == "shown" else said


@dataclass(frozen=True)
class Planned:
    """The rows of PLAN, and each sync's plan by name."""

    rows: pa.Table
    syncs: dict[str, PlannedSync]

    def lines(self) -> list[dict[str, object]]:
        """One row per sync, for people to read: how many of each kind, and what became of the plan."""
        rows: list[dict[str, object]] = []
        for name, one in self.syncs.items():
            kinds = one.plan.counts if one.plan is not None else Counter[str]()
            row: dict[str, object] = {"sync": name, "state": one.state}
            row |= {"add": kinds["add"] + kinds["entered"], "update": kinds["update"]}
            row |= {"remove": kinds["remove"] + kinds["left"], "suppressed": kinds["suppressed"]}
            row |= {"unchanged": one.plan.unchanged if one.plan is not None else 0, "because": one.because}
            row |= {"suppressed_because": one.plan.suppressed_because if one.plan is not None else ""}
            rows.append({**row, "plan_id": one.plan.plan_id if one.plan is not None else ""})
        return rows


def members_now(lake: LakeView, audience: str) -> list[str]:
    """The audience's members on the newest day it was computed for."""
    newest = _newest_day(lake, audience)
    return [] if newest is None else _members(lake, audience, newest).person_id.to_pyarrow().to_pylist()


def plan_all(
    ledger: Ledger,
    lake: LakeView,
    project: Project,
    *,
    now: datetime,
    only: Collection[str] | None = None,
    only_hold: bool = False,
    upstream: Mapping[str, Sequence[str]] | None = None,
    gates: ContactGates | None = None,
) -> Planned:
    """Compare each synced audience with what its destination holds; enqueue the difference or hold it for approval.

    Whom the gates would refuse is not put anywhere, and taken out of where they are mirrored.

    A sync whose audience is held waits: nothing is planned for it until the audience passes its tests again.
    `upstream`: what is wrong with the tables each sync is made from. `only_hold`: enqueue nothing.
    """
    parts, syncs = [PLAN.schema.to_pyarrow().empty_table()], dict[str, PlannedSync]()
    sizes = lake.read(SIZES)
    held, aliases = held_now(sizes, lake.read(HELD)), merged_people(lake)
    held_because = {row["sync"]: row["reason"] for row in waiting(ledger)}
    for sync in project.syncs.values():
        if only is not None and sync.name not in only:
            continue
        if sync.audience in held:
            syncs[sync.name] = PlannedSync("waits: its audience is held", [])
            continue
        of_audience = sizes.filter(sizes.audience == sync.audience).order_by(ibis.desc("day")).limit(SIZES_COMPARED + 1)
        recent = of_audience.select("day", "people").to_pyarrow().to_pylist()
        if not recent:
            # Nothing is known of the audience, least of all that it is empty.
            syncs[sync.name] = PlannedSync("waits: its audience was not computed yet", [])
            continue
        wanted = members_known(lake, project, sync, recent[0]["day"])
        destination = project.destinations[sync.destination]
        barred = {} if gates is None else gates.barred(sync, wanted, destination, now)
        found = plan_sync(ledger, sync, wanted, aliases, barred)
        reasons = [*(upstream or {}).get(sync.name, ()), *_lost(lake, found, held_because.get(sync.name, ""))]
        dry_run = destination.dry_run
        submitted = submit(
            ledger, found, dry_run=dry_run, recent_sizes=[row["people"] for row in recent[1:]], upstream=reasons,
            now=now, only_hold=only_hold,
        )  # fmt: skip
        syncs[sync.name] = PlannedSync(submitted.state, submitted.reasons, found)
        parts.append(plan_rows(found, submitted.state, submitted.reasons))
    return Planned(pa.concat_tables(parts), syncs)


def plan_sync(
    ledger: Ledger,
    sync: Sync,
    wanted: pa.Table,
    aliases: Mapping[str, str] | None = None,
    barred: Mapping[str, str] = MappingProxyType({}),
) -> SyncPlan:
    """The plan of one sync for members (`person_id` and what the mapping names), looking only at who is not as held."""
    compared = compare(sync, wanted, held_fingerprints(ledger, sync), barred)
    keys = {str(key) for row in compared.people.values() if (key := row.get(sync.mapping[sync.key])) is not None}
    some = holds_some(ledger, sync, keys, compared.unmatched)
    found = plan(
        sync, compared.people, compared.people, some, barred, aliases=aliases, fingerprints=compared.fingerprints,
        epoch=epoch(ledger, sync),
    )  # fmt: skip
    shares = {
        sent: wanted[name].null_count / wanted.num_rows if name in wanted.column_names else 1.0
        for sent, name in sync.mapping.items()
        if wanted.num_rows
    }
    return replace(
        found,
        size=compared.size,
        unchanged=found.unchanged + compared.unchanged,
        present=how_many_held(ledger, sync),
        nulls=shares,
    )


def members_known(lake: LakeView, project: Project, sync: Sync, day: date) -> pa.Table:
    """The audience's members on a day, one row each: `person_id`, and those values the mapping names that are known.

    Attributes, traits as of the day, and the newest score or first item of each prediction.
    """
    members = _members(lake, sync.audience, day)
    names = set(sync.mapping.values()) - {"person_id"}
    if lists := sorted(name for name in names & project.predictions.keys() if project.predictions[name].a_list):
        ids = members.person_id.to_pyarrow().to_pylist()
        known = known_people(Questions().of(lake), project, ids, day, names)
        columns = {name: [known[person].get(name) for person in ids] for name in sorted(names - set(lists))}
        rows = {"person_id": ids, **columns, **{name: [known[person].get(name) for person in ids] for name in lists}}
        return pa.table(rows)
    for part in reversed(parts_known(lake, project, day, names)):
        here = [name for name in part.columns if name in names]
        names -= set(here)
        if here:
            members = members.left_join(part.select("person_id", *here), "person_id").drop("person_id_right")
    return members.to_pyarrow()


def _newest_day(lake: LakeView, audience: str) -> date | None:
    sizes = lake.read(SIZES)
    newest: date | None = sizes.filter(sizes.audience == audience).day.max().to_pyarrow().as_py()
    return newest


def _members(lake: LakeView, audience: str, day: date) -> ibis.Table:
    members = lake.read(MEMBERS)
    return members.filter((members.audience == audience) & (members.day == ibis.date(day))).select("person_id")


LOST = "the ledger has lost what "


def _lost(lake: LakeView, found: SyncPlan, held_because: str) -> list[str]:
    """Whether the lake tells of deliveries of which the ledger knows nothing any more.

    The lake's own record follows the ledger's at the next run: what was said of the plan that is held since stays said.
    """
    if found.present or found.sync.mode == "append" or not lake.exists(OUTBOX.name):
        return []
    told = lake.read(OUTBOX)
    here = (told.origin == f"sync:{found.sync.name}") & (told.destination == found.sync.destination)
    told = told.filter(here & (told.state == "delivered"))
    left = told.kind.isin(["remove", "left"]).ifelse(1, 0)
    people = told.group_by("person_id").aggregate(there=left.argmax(told.updated_at))
    there = people.filter(people.there == 0).count().to_pyarrow().as_py()
    if not there:
        return [reason for reason in held_because.split("; ") if reason.startswith(LOST)]
    return [f"{LOST}{there:,} deliveries left there: everybody is sent again, nobody is removed"]
