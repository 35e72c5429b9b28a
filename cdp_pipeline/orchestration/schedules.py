"""One job and one schedule per cadence the project names, one job for newly arrived files, one for housekeeping."""

import dagster as dg
from croniter import croniter
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from cdp_pipeline.orchestration.housekeeping import housekeeping_job
from cdp_pipeline.orchestration.partitions import daily, is_filed_by_day
from cdp_pipeline.spec.project import Project

ARRIVALS_JOB = "arrivals"


def runs_within_the_day(cron: str) -> bool:
    """Whether a cron fires more than once a day, so that it refreshes today rather than closing yesterday."""
    first, second = croniter(cron, ret_type=float), croniter(cron, ret_type=float)
    second.get_next()
    return second.get_next() - first.get_next() < 86_400


def cadence_selection(project: Project, cadence: str) -> dg.AssetSelection:
    """What a cadence makes: everything, but the audiences of other cadences; models are trained daily or slower."""
    others = [["audiences", name] for name, audience in project.audiences.items() if audience.cadence != cadence]
    selection: dg.AssetSelection = dg.AssetSelection.all()
    if others:
        selection = selection - dg.AssetSelection.assets(*others)
    if runs_within_the_day(project.settings.cadences[cadence]) and project.predictions:
        trained = [["predictions", f"{name}_{part}"] for name in project.predictions for part in ("training", "model")]
        selection = selection - dg.AssetSelection.assets(*trained)
    return selection


def cadence_schedule(project: Project, cadence: str) -> dg.ScheduleDefinition:
    """At each tick of the cadence, one run: for yesterday, or for today where the cadence ticks within the day."""
    cron = project.settings.cadences[cadence]
    within_day = runs_within_the_day(cron)
    days = daily(project)
    job = dg.define_asset_job(
        f"refresh_{cadence}",
        selection=cadence_selection(project, cadence),
        partitions_def=days,
        description=f"Brings everything up to date at the {cadence} cadence ({cron}).",
    )

    @dg.schedule(
        name=f"{cadence}",
        job=job,
        cron_schedule=cron,
        execution_timezone=project.settings.timezone,
        description=f"Refreshes {'today' if within_day else 'yesterday, now that it is over'} ({cron}).",
    )
    def refresh(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        keys = days.get_partition_keys(current_time=context.scheduled_execution_time)
        if len(keys) < 2:
            return dg.SkipReason("The project's first day is not over yet.")
        day = keys[-1] if within_day else keys[-2]
        return dg.RunRequest(partition_key=day, tags={"cadence": cadence})

    return refresh


def arrivals_job(project: Project) -> UnresolvedAssetJobDefinition | None:
    """Loads files that are new; None where no source reads files."""
    of_files = [source for source in project.sources.values() if source.files is not None]
    if not of_files:
        return None
    return dg.define_asset_job(
        ARRIVALS_JOB,
        selection=dg.AssetSelection.assets(*(["sources", source.name] for source in of_files)),
        partitions_def=daily(project) if any(is_filed_by_day(source) for source in of_files) else None,
        description="Loads files that have arrived since the last load.",
    )


def housekeeping_schedule(project: Project) -> dg.ScheduleDefinition:
    """Every Sunday at three in the morning: compacts the lake and forgets what has passed its retention."""
    return dg.ScheduleDefinition(
        name="housekeeping",
        job=housekeeping_job(project),
        cron_schedule="0 3 * * 0",
        execution_timezone=project.settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every Sunday night: makes the lake compact, and forgets what is older than `retention:` says.",
    )
