"""The few sensors: arrivals, triggers, events, deliver, failed checks and runs, stale audiences. All thin shells.

What was loaded, decided or sent is known by the lake and the ledger, never by a cursor: a cursor survives a wiped data
folder, and a run key is forgotten with its run.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from cdp_pipeline.activation.fire import fire
from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.activation.live import LOOK_EVERY, Follower
from cdp_pipeline.activation.notices import Notice, notify
from cdp_pipeline.activation.positions import may_read
from cdp_pipeline.lake import Lake, open_lake
from cdp_pipeline.lake.errors import LakeMissingError
from cdp_pipeline.lake.questions import Questions
from cdp_pipeline.orchestration.deliveries import deliver_due
from cdp_pipeline.orchestration.installation import Clock, lake_of, ledger_of
from cdp_pipeline.orchestration.partitions import daily, is_filed_by_day, range_tags
from cdp_pipeline.orchestration.schedules import ARRIVALS_JOB
from cdp_pipeline.orchestration.stale import stale_audiences
from cdp_pipeline.sources.files import arrivals
from cdp_pipeline.sources.tables import LOADS
from cdp_pipeline.spec.base import counted
from cdp_pipeline.spec.project import Project

AT_ONCE = timedelta(seconds=3)
"""How long a tick that acts on events delivers; what is not sent by then is left to the next tick of `deliver`."""
WATCH = timedelta(seconds=3.5)
"""How long a tick looks out for events: most of the five seconds until the daemon begins the next one."""
TOLD_WITHIN = timedelta(seconds=20)
"""How long a tick delivers alerts; what is not told by then is left to the next tick of `deliver`."""
RUNNING = dg.DefaultSensorStatus.RUNNING
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING,
]  # fmt: skip


def arrivals_sensor(project: Project, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """Asks for a load of every source, and every day of it, for which files lie that the lake has not loaded."""
    of_files = [source for source in project.sources.values() if source.files is not None]
    partitioned = any(is_filed_by_day(source) for source in of_files)
    days = daily(project)

    @dg.sensor(
        name="arrivals",
        job=job,
        minimum_interval_seconds=30,
        default_status=RUNNING,
        description="Sees new and changed source files and has them loaded.",
    )
    def arrivals_seen(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        loading = context.instance.get_runs_count(dg.RunsFilter(job_name=ARRIVALS_JOB, statuses=UNFINISHED))
        if loading:
            return dg.SkipReason("A load is under way.")
        known = days.get_partition_keys()
        with lake_of(project) as lake:
            loads = lake.read(LOADS)
            waiting = [
                (
                    source,
                    [
                        file
                        for file in arrivals(source, project, loads)
                        if not is_filed_by_day(source) or str(file.day) in known
                    ],
                )
                for source in of_files
            ]
        if not any(files for _, files in waiting):
            return dg.SkipReason("No new files.")
        filed = [file.day for source, files in waiting if is_filed_by_day(source) for file in files if file.day]
        newest = date.fromisoformat(known[-1])
        return dg.RunRequest(
            asset_selection=[dg.AssetKey(["sources", source.name]) for source, files in waiting if files],
            tags=range_tags(min(filed, default=newest), max(filed, default=newest)) if partitioned else {},
        )

    return arrivals_seen


def triggers_sensor(project: Project, clock: Clock) -> dg.SensorDefinition:
    """Turns audience moves, band crossings, events and dates into operations of the outbox."""

    @dg.sensor(
        name="triggers",
        minimum_interval_seconds=10,
        default_status=RUNNING,
        description="Sees audience moves, band crossings, events and dates, and decides what is to be sent.",
    )
    def changes_seen(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            with lake_of(project, read_only=True) as lake, ledger_of(project) as ledger:
                now = clock()
                # The snapshot and the day only spare an idle tick the work: what was done is the ledger's to know.
                cursor = f"{lake.catalog}:{lake.snapshot}:{now.astimezone(project.zone).date()}"
                if context.cursor == cursor:
                    return dg.SkipReason("Nothing was published since the last tick.")
                fired = fire(ledger, lake, project, now=now)
        except LakeMissingError:
            return dg.SkipReason("Nothing has been computed yet.")
        said = {
            f"{name} {state}": n for name, states in fired.items() for state, n in states.items() if state != "known"
        }
        if not said:
            return dg.SensorResult(skip_reason="Nothing happened that triggers anything.", cursor=cursor)
        event = dg.AssetMaterialization(["activation", "outbox"], metadata=said)
        return dg.SensorResult(asset_events=[event], cursor=cursor)

    return changes_seen


def events_sensor(project: Project, clock: Clock, watch: timedelta = WATCH) -> dg.SensorDefinition:
    """Acts on events before they are loaded and delivers at once, in the tick, unless a worker does that."""
    questions = Questions()

    @dg.sensor(
        name="events",
        # The daemon looks every five seconds; any less than that makes sure that it does not pass over a turn.
        minimum_interval_seconds=1,
        default_status=RUNNING,
        description="Sees events in source files and databases before they are loaded, and acts on them at once.",
    )
    def events_seen(_context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        with ledger_of(project) as ledger:
            if not may_read(ledger, "events-sensor", clock()):
                return dg.SkipReason("`cdp worker` does this.")
            follower, recorded, said = Follower(ledger, project, questions), Counter[str](), Counter[str]()
            end = time.monotonic() + watch.total_seconds()
            try:
                with open_lake(project.settings.lake, base=Path.cwd(), read_only=True, threads=1) as lake:
                    while True:
                        if found := follower.look(lake, clock()):
                            recorded += found
                            said += _sent_at_once(ledger, lake, project, clock)
                        if time.monotonic() >= end:
                            break
                        time.sleep(LOOK_EVERY)
            except LakeMissingError:
                return dg.SkipReason("Nothing has been computed yet.")
        if not recorded:
            return dg.SkipReason("Nothing came that a trigger waits for.")
        return dg.SensorResult(asset_events=[*_told("outbox", recorded), *_told("deliveries", said)])

    return events_seen


def _sent_at_once(ledger: Ledger, lake: Lake, project: Project, clock: Clock) -> Counter[str]:
    return deliver_due(project, ledger, clock, worker="events-sensor", budget=AT_ONCE, lake=lambda: lake).said


def _told(asset: str, counts: Mapping[str, int]) -> Iterator[dg.AssetMaterialization]:
    """What a tick did to an asset, if anything."""
    if counts:
        yield dg.AssetMaterialization(["activation", asset], metadata=dict(counts))


def deliver_sensor(project: Project, clock: Clock) -> dg.SensorDefinition:
    """Sends what is due, within the tick: no run is started, so a delivery takes seconds."""

    @dg.sensor(
        name="deliver",
        minimum_interval_seconds=5,
        default_status=RUNNING,
        description="Delivers what the outbox holds. Destinations in dry run only show what would be sent.",
    )
    def due(_context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        with ledger_of(project) as ledger:
            summary = deliver_due(project, ledger, clock, worker="deliver-sensor")
        if not summary.totals:
            return dg.SkipReason("Nothing is due.")
        return dg.SensorResult(asset_events=[*_told("deliveries", summary.said)])

    return due


def failed_checks(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetCheckEvaluation]:
    """The failed check evaluations of a run, in the one form that SQLite and Postgres storage both answer."""
    logs = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    evaluations = [log.dagster_event.event_specific_data for log in logs if log.dagster_event is not None]
    return [found for found in evaluations if isinstance(found, dg.AssetCheckEvaluation) and not found.passed]


def tell(project: Project, clock: Clock, notices: Sequence[Notice]) -> None:
    """Send these to the project's alert destinations; what else is due there leaves with them."""
    if not notices:
        return
    with ledger_of(project) as ledger:
        names = {name for notice in notices for name in notify(ledger, project, notice, clock())}
        deliver_due(project, ledger, clock, worker="alert", budget=TOLD_WITHIN, only=names)


def alert_about_checks(project: Project, clock: Clock, run: dg.DagsterRun, instance: dg.DagsterInstance) -> int:
    """Tell the project's alert destinations about each failed check of a run, once; the number of failed checks."""
    failures = {(found.asset_key, found.check_name): found for found in failed_checks(instance, run.run_id)}
    told = [
        Notice(
            key=f"check:{run.run_id}:{key.to_user_string()}:{name}",
            title=f"{found.severity.value}: check '{name}' of {key.to_user_string()} failed",
            text=found.description or "",
            link=f"/assets/{key.to_user_string()}?view=checks",
        )
        for (key, name), found in failures.items()
    ]
    tell(project, clock, told)
    return len(failures)


def failed_checks_sensor(project: Project, clock: Clock) -> dg.SensorDefinition:
    """A run with a failed non-blocking check ends in success, so look inside every successful run."""

    @dg.run_status_sensor(
        name="failed_checks",
        run_status=dg.DagsterRunStatus.SUCCESS,
        minimum_interval_seconds=10,
        default_status=RUNNING,
        description="Tells the alert destinations about checks that failed in runs that went through.",
    )
    def failed_checks_seen(context: dg.RunStatusSensorContext) -> None:
        alert_about_checks(project, clock, context.dagster_run, context.instance)

    return failed_checks_seen


def failed_runs_sensor(project: Project, clock: Clock) -> dg.SensorDefinition:
    """Tell about a failed run, and about the checks that failed in it, blocking ones first of all."""

    @dg.run_failure_sensor(
        name="failed_runs",
        minimum_interval_seconds=10,
        default_status=RUNNING,
        description="Tells the alert destinations about runs that failed, with the step and the kind of error.",
    )
    def failed_run_seen(context: dg.RunFailureSensorContext) -> None:
        run = context.dagster_run
        alert_about_checks(project, clock, run, context.instance)
        # Only the kind of error: a message may quote a row.
        steps = [
            f"{event.step_key}: {error.cls_name}"
            for event in context.get_step_failure_events()
            if (error := event.step_failure_data.error) is not None
        ]
        failed = Notice(
            key=f"run:{run.run_id}",
            title=f"Run of {run.job_name} failed",
            text="; ".join(steps) or "The run ended before any step failed.",
            link=f"/runs/{run.run_id}",
        )
        tell(project, clock, [failed])

    return failed_run_seen


def alert_about_age(project: Project, clock: Clock, instance: dg.DagsterInstance) -> int:
    """Tell the alert destinations about audiences that were not computed in time, once; how many those are."""
    stale = list(stale_audiences(project, instance, clock()))
    tell(
        project,
        clock,
        [Notice(found.occasion, found.title, found.text, f"/assets/audiences/{found.names[0]}") for found in stale],
    )
    return sum(len(found.names) for found in stale)


def stale_audiences_sensor(project: Project, clock: Clock) -> dg.SensorDefinition:
    """Nothing fails when nothing runs, so the age of audiences is looked at whether or not there are runs."""

    @dg.sensor(
        name="stale_audiences",
        minimum_interval_seconds=300,
        default_status=RUNNING,
        description="Tells the alert destinations about audiences that are older than they may be.",
    )
    def age_seen(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        found = alert_about_age(project, clock, context.instance)
        return dg.SkipReason(f"{counted(found, 'audience')} older than they may be.")

    return age_seen
