"""From a declared project to Dagster's definitions: the single entry of definitions.py, the commands and the tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from cdp_pipeline.activation.live import followed
from cdp_pipeline.orchestration.approval import approval_job
from cdp_pipeline.orchestration.assets import project_assets
from cdp_pipeline.orchestration.checks import freshness_check
from cdp_pipeline.orchestration.groups import group_assets
from cdp_pipeline.orchestration.installation import system_clock
from cdp_pipeline.orchestration.outcomes import outcome_assets
from cdp_pipeline.orchestration.resources import lake_resource, traits_once
from cdp_pipeline.orchestration.schedules import arrivals_job, cadence_schedule, housekeeping_schedule
from cdp_pipeline.orchestration.sensors import (
    arrivals_sensor,
    deliver_sensor,
    events_sensor,
    failed_checks_sensor,
    failed_runs_sensor,
    stale_audiences_sensor,
    triggers_sensor,
)
from cdp_pipeline.spec.project import Project


def build_defs(project: Project, *, overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Assets, checks, schedules, sensors of a project; `overrides` replaces resources (lake, clock) and loggers."""
    given = dict(overrides or {})
    loggers = given.pop("loggers", {})
    clock = given.get("clock", system_clock)
    arrivals = arrivals_job(project)
    sensors = [
        triggers_sensor(project, clock),
        deliver_sensor(project, clock),
        failed_checks_sensor(project, clock),
        failed_runs_sensor(project, clock),
        stale_audiences_sensor(project, clock),
    ]
    if followed(project):
        sensors.append(events_sensor(project, clock))
    if arrivals is not None:
        sensors.append(arrivals_sensor(project, arrivals))
    return dg.Definitions(
        assets=[*project_assets(project), *group_assets(project), *outcome_assets(project)],
        asset_checks=[freshness_check(source) for source in project.sources.values() if source.freshness is not None],
        jobs=[*([arrivals] if arrivals is not None else []), *([approval_job(project)] if project.syncs else [])],
        schedules=[
            *(cadence_schedule(project, cadence) for cadence in project.settings.cadences),
            housekeeping_schedule(project),
        ],
        sensors=sensors,
        resources={
            "lake": lake_resource(project),
            "clock": dg.ResourceDefinition.hardcoded_resource(clock),
            "traits": traits_once,
            **given,
        },
        loggers=loggers,
        # One process per step costs more than the steps do; and one lake connection serves the whole run.
        executor=dg.in_process_executor,
    )
