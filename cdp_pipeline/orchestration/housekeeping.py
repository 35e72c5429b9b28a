"""The job that keeps the installation small: the lake compacted, old snapshots and Dagster runs forgotten."""

from dataclasses import asdict
from datetime import datetime

import dagster as dg

from cdp_pipeline.lake import Lake
from cdp_pipeline.orchestration.installation import Clock
from cdp_pipeline.spec.project import Project

FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
BATCH = 200


def prunable_runs(instance: dg.DagsterInstance, before: datetime) -> list[str]:
    """Ids of finished runs from before a moment that are not the newest materialization of any asset.

    Deleting a run deletes its materializations: without the second condition the UI would show as missing
    what is still the current version of a table.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=FINISHED, created_before=before), limit=BATCH)
    ids = [record.dagster_run.run_id for record in records]
    current = {
        record.asset_entry.last_run_id for record in instance.get_asset_records() if record.asset_entry.last_run_id
    }
    return [run_id for run_id in ids if run_id not in current]


def housekeeping_job(project: Project) -> dg.JobDefinition:
    """Compact the lake, then prune finished Dagster runs older than the project's retention."""

    @dg.op(description="Merges small files, expires old snapshots and removes files nothing refers to.")
    def compact_lake(
        context: dg.OpExecutionContext, lake: dg.ResourceParam[Lake], clock: dg.ResourceParam[Clock]
    ) -> None:
        done = lake.maintain(clock(), keep=project.settings.retention.snapshots)
        context.add_output_metadata(asdict(done))
        if done.files_merged is None:
            context.log.warning("Small files were not merged: somebody had the lake open all the time. The next time.")

    @dg.op(description="Deletes finished runs older than the project's retention.", ins={"after": dg.In(dg.Nothing)})
    def prune_runs(context: dg.OpExecutionContext, clock: dg.ResourceParam[Clock]) -> None:
        pruned = prunable_runs(context.instance, clock() - project.settings.retention.runs)
        for run_id in pruned:
            context.instance.delete_run(run_id)
        context.log.info(f"{len(pruned)} runs pruned")

    @dg.job(name="housekeeping", description="Keeps the installation small: lake, snapshots, Dagster runs.")
    def housekeeping() -> None:
        prune_runs(compact_lake())

    return housekeeping
