"""The job that releases a held plan from Dagster: what `cdp sync approve` does, for whoever looks at it there."""

import dagster as dg
from pydantic import Field

from cdp_pipeline.activation.ledger import LedgerError
from cdp_pipeline.activation.sync import approve
from cdp_pipeline.orchestration.installation import Clock, ledger_of
from cdp_pipeline.spec.base import counted
from cdp_pipeline.spec.project import Project

APPROVAL_JOB = "approve_plan"


class Approval(dg.Config):
    """Which plan: the words that the launchpad shows."""

    plan_id: str = Field(description="The plan, as the check no_plan_is_held names it.")


def approval_job(project: Project) -> dg.JobDefinition:
    """Release one held plan. Raises dg.Failure, with what to do, where it must not be released any more."""

    @dg.op(description="Lets exactly the operations go that the held plan shows. They are sent within seconds.")
    def release(context: dg.OpExecutionContext, config: Approval, clock: dg.ResourceParam[Clock]) -> None:
        by = f"Dagster run {context.run_id.partition('-')[0]}"
        with ledger_of(project) as ledger:
            try:
                count = approve(ledger, config.plan_id, by=by, now=clock(), syncs=project.syncs)
            except LedgerError as problem:
                raise dg.Failure(str(problem), allow_retries=False) from problem
        context.add_output_metadata({"released": count})
        context.log.info(f"released: {counted(count, 'operation')}")

    @dg.job(
        name=APPROVAL_JOB,
        description="Releases a plan that waits for somebody to look at it: exactly what it shows is sent.",
    )
    def approval() -> None:
        release()

    return approval
