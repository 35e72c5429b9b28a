"""`cdp run`: the project's assets materialized through Dagster in this process, what arrived first, then the rest."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import dagster as dg

from cdp_pipeline.orchestration.build import build_defs
from cdp_pipeline.orchestration.installation import Clock, lake_of, prepare_dagster_home, system_clock
from cdp_pipeline.orchestration.partitions import is_filed_by_day, range_tags, yesterday
from cdp_pipeline.orchestration.upstream import wrong_upstream
from cdp_pipeline.sources.days import newest_complete_day
from cdp_pipeline.sources.files import arrivals
from cdp_pipeline.sources.tables import LOADS
from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.project import Project

Progress = Callable[[str, str], None]


class SelectionError(ValueError):
    """A selection that names no asset, or cannot be read, or days that are not the project's."""


@dataclass
class RunReport:
    """What a run made: rows by asset, every check, and the steps that failed with their kind of error.

    A run in which an audience was held went through, and yet is no success: somebody should look.
    """

    day: date | None = None
    runs: list[str] = field(default_factory=list)
    assets: dict[str, int | None] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def held(self) -> dict[str, str]:
        """The audiences that failed a test that holds them, and why."""
        found: dict[str, list[str]] = {}
        for check in self.checks:
            if check["asset"].startswith("audiences/") and not check["passed"] and check["severity"] == "ERROR":
                found.setdefault(check["asset"].partition("/")[2], []).append(str(check["metadata"].get("because", "")))
        return {name: "; ".join(why) for name, why in found.items()}

    @property
    def success(self) -> bool:
        return not self.failures and not self.held


def run_project(
    project: Project,
    selection: str | None = None,
    first: date | None = None,
    last: date | None = None,
    *,
    clock: Clock = system_clock,
    progress: Progress = lambda step, state: None,
) -> RunReport:
    """Materialize the selection (Dagster's syntax; default all).

    Without days, sources load every day that has files not loaded yet, and the rest is computed for the newest day
    that is over and has data. With days, everything is computed for each of them.
    """
    today = clock().astimezone(project.zone).date()
    if first is not None and not project.settings.first_day <= first <= (last or first) <= today:
        asked = str(first) if last in (None, first) else f"{first} to {last}"
        raise SelectionError(f"{asked}: days go from the project's first_day, {project.settings.first_day}, to today")
    prepare_dagster_home(project)
    defs = build_defs(project, overrides={"clock": clock, "loggers": {"console": _progress_logger(progress)}})
    wanted = _selected(defs, selection)
    sources = {dg.AssetKey(["sources", name]) for name in project.sources} & wanted
    report = RunReport()
    with dg.DagsterInstance.get() as instance:
        # Apart, because Dagster notes every day of a run for every asset in it, also for those that have no days.
        filed = {key for key in sources if is_filed_by_day(project.sources[key.path[-1]])}
        if sources - filed:
            today = clock().astimezone(project.zone).date()
            _execute(defs, instance, sources - filed, (today, today), report)
        if filed and report.success:
            span = (first, last or first) if first else _days_to_load(project, filed, clock())
            _execute(defs, instance, filed, span, report)
        rest = wanted - sources
        if rest and report.success:
            day = last or first or _newest_day(project, clock())
            report.day = day
            _execute(defs, instance, rest, (first or day, day), report)
    return report


def _selected(defs: dg.Definitions, selection: str | None) -> set[dg.AssetKey]:
    graph = defs.resolve_asset_graph()
    if selection is None:
        return set(graph.materializable_asset_keys)
    try:
        wanted = dg.AssetSelection.from_string(selection).resolve(graph)
    except dg.DagsterInvalidSubsetError as error:
        known = {key.to_user_string() for key in graph.materializable_asset_keys}
        raise SelectionError(f"{unknown('asset', selection, known)}; a group is chosen by 'group:traits'") from error
    except dg.DagsterError as error:
        said = "is not in Dagster's selection syntax, such as 'group:traits' or '+traits/daily'"
        raise SelectionError(f"selection {selection!r} {said}") from error
    wanted = set(wanted) & set(graph.materializable_asset_keys)
    if not wanted:
        raise SelectionError(f"selection {selection!r} names no asset; `cdp run 'group:traits'` would be one")
    # Tables that one step publishes together are made together.
    for asset in defs.assets or ():
        if isinstance(asset, dg.AssetsDefinition) and not asset.can_subset and wanted & set(asset.keys):
            wanted |= set(asset.keys)
    return wanted


def _days_to_load(project: Project, filed: Iterable[dg.AssetKey], now: datetime) -> tuple[date, date]:
    first, last = project.settings.first_day, now.astimezone(project.zone).date()
    with lake_of(project) as lake:
        loads = lake.read(LOADS)
        found = [file.day for key in filed for file in arrivals(project.sources[key.path[-1]], project, loads)]
    days = [day for day in found if day is not None and first <= day <= last]
    return (min(days), max(days)) if days else (yesterday(project, now),) * 2


def _newest_day(project: Project, now: datetime) -> date:
    with lake_of(project) as lake:
        return newest_complete_day(lake.read(LOADS), project, now)


def _execute(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: set[dg.AssetKey],
    span: tuple[date, date],
    report: RunReport,
) -> None:
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance,
        asset_selection=sorted(keys),
        tags={"cdp/command": "run", **range_tags(*span)},
        run_config={"loggers": {"console": {}}},
        raise_on_error=False,
    )
    report.runs.append(result.run_id)
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            materialization = event.step_materialization_data.materialization
            rows = materialization.metadata.get("dagster/row_count")
            report.assets[materialization.asset_key.to_user_string()] = rows.value if rows is not None else None  # type: ignore[assignment]
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            cause = error.cause if error is not None and error.cause is not None else error
            report.failures[event.step_key or ""] = _plain_cause(cause.message) if cause is not None else "unknown"
    report.checks += [
        {
            "asset": check.asset_key.to_user_string(),
            "check": check.check_name,
            "passed": check.passed,
            "severity": check.severity.value,
            "says": check.description or "",
            "metadata": _plain(check.metadata),
        }
        for check in result.get_asset_check_evaluations()
    ]


def _plain(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, Any]:
    return {
        # The rows of a table are Dagster's own records, which no JSON can say.
        name: [record.data for record in value.records] if isinstance(value, dg.TableMetadataValue) else value.value
        for name, value in metadata.items()
    }


def _plain_cause(message: str) -> str:
    """What went wrong; the names of this project's own errors say nothing that their messages do not."""
    kind, _, text = message.strip().partition(": ")
    return text if kind.startswith("cdp_pipeline.") else message.strip()


class _Steps(logging.Handler):
    """Hears Dagster's events and tells of steps that start, end and fail."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if event is not None and event.event_type_value.startswith("STEP_") and event.step_key:
            self.progress(event.step_key, event.event_type_value.removeprefix("STEP_").lower())


def _progress_logger(progress: Progress) -> dg.LoggerDefinition:
    @dg.logger
    def steps(_context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("cdp.run")
        logger.addHandler(_Steps(progress))
        return logger

    return steps


def upstream_now(project: Project, now: datetime) -> dict[str, list[str]]:
    """By sync, what is wrong with the tables its plan would be made from."""
    prepare_dagster_home(project)
    checks = build_defs(project).resolve_asset_graph().asset_check_keys
    with dg.DagsterInstance.get() as instance:
        return wrong_upstream(project, now, instance, checks)
