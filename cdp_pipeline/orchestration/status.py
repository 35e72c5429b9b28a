"""`cdp status`: how fresh the data is, which checks fail, which sensors stopped, what waits, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster import AssetCheckKey

from cdp_pipeline.activation.live import followed
from cdp_pipeline.activation.pauses import paused
from cdp_pipeline.activation.positions import LEASE, last_reader
from cdp_pipeline.activation.sync import put_off, waiting
from cdp_pipeline.activation.words import in_words
from cdp_pipeline.audiences.members import HELD, SIZES, held_now
from cdp_pipeline.lake.errors import LakeMissingError
from cdp_pipeline.orchestration.audiences import freshness_of
from cdp_pipeline.orchestration.build import build_defs
from cdp_pipeline.orchestration.evaluations import last_evaluation
from cdp_pipeline.orchestration.installation import lake_of, ledger_of, prepare_dagster_home
from cdp_pipeline.orchestration.stale import last_made
from cdp_pipeline.sources.tables import LOADS, QUARANTINE
from cdp_pipeline.spec.base import counted
from cdp_pipeline.spec.project import Project

SILENT_AFTER = timedelta(minutes=5)
TOLD_AS_IT_IS = {"no_plan_is_held"}
"""Checks of what the ledger itself is asked here: a plan may have been released since the last run."""
SAID = {"retry": "to be tried again", "unknown": "may have arrived", "dry_run": "shown, in dry run"}


@dataclass(frozen=True)
class Finding:
    """One line of the status: what, in which state (ok, warn, fail), and what to do where it is not ok."""

    area: str
    name: str
    state: str
    said: str
    do: str = ""


def status(project: Project, now: datetime) -> list[Finding]:
    """Everything worth knowing about the installation, worst first within each area."""
    prepare_dagster_home(project)
    with dg.DagsterInstance.get() as instance:
        found = [
            *_sources(project, now),
            *_audiences(project, instance, now),
            *_checks(project, instance),
            *_runs(instance),
            *_ticks(project, instance, now),
            *_events(project, now),
            *_deliveries(project, now),
        ]
    order = {"fail": 0, "warn": 1, "ok": 2}
    return sorted(found, key=lambda finding: order[finding.state])


def _sources(project: Project, now: datetime) -> Iterator[Finding]:
    try:
        with lake_of(project, read_only=True) as lake:
            loads = lake.read(LOADS)
            newest = loads.filter(loads.status == "loaded").group_by("source").agg(at=loads.loaded_at.max())
            at: dict[str, Any] = {row["source"]: row["at"] for row in newest.to_pyarrow().to_pylist()}
            quarantine = lake.read(QUARANTINE)
            waiting = (
                quarantine.filter(quarantine.replayed_at.isnull()).group_by("source").agg(rows=lambda t: t.count())
            )
            aside = {row["source"]: row["rows"] for row in waiting.to_pyarrow().to_pylist()}
    except LakeMissingError as error:
        yield Finding("lake", "lake", "fail", str(error), "cdp run")
        return
    for name, source in project.sources.items():
        rows = f", {counted(aside[name], 'row')} set aside" if name in aside else ""
        if name not in at:
            yield Finding("source", name, "warn", "never loaded" + rows, f"cdp run sources/{name}")
            continue
        age = now - at[name].replace(tzinfo=UTC)
        late = source.freshness is not None and age > source.freshness.fail
        yield Finding(
            "source",
            name,
            "fail" if late else "ok",
            f"loaded {_words(age)} ago{rows}",
            f"cdp run sources/{name}" if late else "",
        )


def _audiences(project: Project, instance: dg.DagsterInstance, now: datetime) -> Iterator[Finding]:
    """Audiences that are held, and those older than they may be."""
    try:
        with lake_of(project, read_only=True) as lake:
            held = held_now(lake.read(SIZES), lake.read(HELD))
    except LakeMissingError:
        return
    made = last_made(project, instance)
    fresh = 0
    for name, audience in project.audiences.items():
        age = now - made[name].at if name in made else None
        if name in held:
            yield Finding("audience", name, "fail", f"held: {held[name]}", f"cdp audience waterfall {name}")
        elif age is None or age > freshness_of(project, audience):
            said = "never computed" if age is None else f"computed {_words(age)} ago"
            yield Finding("audience", name, "warn", said, f"cdp run audiences/{name}")
        else:
            fresh += 1
    if fresh:
        yield Finding("audience", "all others", "ok", f"{counted(fresh, 'audience')} fresh and fit for use")


def _checks(project: Project, instance: dg.DagsterInstance) -> Iterator[Finding]:
    graph = build_defs(project).resolve_asset_graph()
    keys: list[AssetCheckKey] = sorted(graph.asset_check_keys, key=str)
    passed = 0
    for key in keys:
        evaluation = last_evaluation(instance, key)
        if evaluation is None:
            continue
        passed += evaluation.passed
        if not evaluation.passed and key.name not in TOLD_AS_IT_IS:
            asset = key.asset_key.to_user_string()
            state = "fail" if evaluation.severity == dg.AssetCheckSeverity.ERROR else "warn"
            plain = {name: one.value for name, one in evaluation.metadata.items() if is_plain(one.value)}
            found = [
                f"{name}: {one:.4g}" if isinstance(one, float) else f"{name}: {one}" for name, one in plain.items()
            ]
            said = evaluation.description or "; ".join(found) or "failed"
            yield Finding("check", f"{asset}: {key.name}", state, said, f"cdp run {asset}")
    yield Finding("check", "all others", "ok", f"{passed} passed, {len(keys)} declared")


def is_plain(value: object) -> bool:
    """Whether a value of a check's metadata fits into a line."""
    return isinstance(value, str | int | float)


def _runs(instance: dg.DagsterInstance) -> Iterator[Finding]:
    for run in instance.get_runs(limit=1):
        failed = run.status == dg.DagsterRunStatus.FAILURE
        job = "materialization" if run.job_name.startswith("__") else run.job_name
        said = f"{job}: {run.status.value.lower()}"
        yield Finding("run", run.run_id[:8], "fail" if failed else "ok", said, "cdp dev, then Runs" if failed else "")


def _ticks(project: Project, instance: dg.DagsterInstance, now: datetime) -> Iterator[Finding]:
    """Sensors that ran once and have not been heard of since; nothing where the daemon was never started."""
    for state in instance.all_instigator_state():
        if state.instigator_type.value != "SENSOR":
            continue
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        if not ticks:
            continue
        age = now - datetime.fromtimestamp(ticks[0].timestamp, UTC)
        if ticks[0].status.value == "FAILURE":
            yield Finding("sensor", state.name, "fail", "its last tick failed", "cdp dev, then Automation")
        elif age > SILENT_AFTER:
            yield Finding("sensor", state.name, "warn", f"last heard of {_words(age)} ago", "cdp dev")
        else:
            yield Finding("sensor", state.name, "ok", f"ticked {_words(age)} ago")


def _events(project: Project, now: datetime) -> Iterator[Finding]:
    """Who acts on events before they are loaded; nothing where no trigger waits for any."""
    if not followed(project):
        return
    with ledger_of(project) as ledger:
        found = last_reader(ledger)
    if found is None:
        yield Finding("events", "reader", "warn", "acted on only once they are loaded", "cdp worker, or cdp dev")
        return
    reader, until = found
    age = now - (until - LEASE)
    if age > SILENT_AFTER:
        yield Finding("events", "reader", "warn", f"{reader} last heard of {_words(age)} ago", "cdp worker, or cdp dev")
    else:
        yield Finding("events", "reader", "ok", f"read by {reader}, heard of {_words(age)} ago")


def _deliveries(project: Project, now: datetime) -> Iterator[Finding]:
    with ledger_of(project) as ledger:
        for pause in paused(ledger).values():
            yield Finding(
                "delivery", pause.subject, "fail", f"paused: {pause.reason}", f"cdp sync resume {pause.subject}"
            )
        for plan in waiting(ledger):
            if plan["state"] == "held":
                do = f"cdp sync plan, then cdp sync approve {plan['plan_id']}"
                yield Finding("sync", plan["sync"], "warn", f"held: {plan['reason']}", do)
        for late in put_off(ledger, now):
            said = f"{late['operations']:,} wait until {late['next_at']:%H:%M} UTC: {in_words(late['reason'])}"
            state = "warn" if late["state"] == "retry" else "ok"
            yield Finding("delivery", f"{late['origin']} → {late['destination']}", state, said)
        for (origin, destination, state), count in sorted(ledger.counts().items()):
            bad = state in ("failed", "unknown")
            said = f"{count:,} {SAID.get(state, state.replace('_', ' '))}"
            do = "cdp sync failed, then cdp sync retry, or cdp sync dismiss WHY" if bad else ""
            yield Finding("delivery", f"{origin} → {destination}", "warn" if bad else "ok", said, do)


def _words(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
