"""Activation as Dagster assets: what is to be sent, what was decided, what was delivered and who was reached.

What may be sent and how stands in `activation/`; the sensors that do the same within seconds are in sensors.py.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from cdp_pipeline.activation.declared import (
    guards_in_words,
    policy_in_words,
    syncs_in_words,
    triggers_in_words,
)
from cdp_pipeline.activation.fire import fire, merged_people
from cdp_pipeline.activation.guards import guards_of
from cdp_pipeline.activation.plan import PLAN
from cdp_pipeline.activation.refresh import members_now, plan_all
from cdp_pipeline.activation.sync import conservation
from cdp_pipeline.activation.tables import (
    CONTACTS,
    DELIVERIES,
    OUTBOX,
    PREVENTED,
    contact_rows,
    delivery_rows,
    outbox_rows,
    prevented_rows,
)
from cdp_pipeline.lake import Lake, Mirror
from cdp_pipeline.orchestration import checks
from cdp_pipeline.orchestration.audiences import asked_of
from cdp_pipeline.orchestration.deliveries import deliver_due
from cdp_pipeline.orchestration.describe import asset_arguments, asset_spec, key_of, note, published
from cdp_pipeline.orchestration.installation import gates_of, ledger_of
from cdp_pipeline.orchestration.resources import RESOURCES
from cdp_pipeline.orchestration.upstream import wrong_upstream
from cdp_pipeline.profile.customers import (
    customers_table,
)
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trigger import Trigger
from cdp_pipeline.traits.bands import BANDS
from cdp_pipeline.traits.daily import daily_table


def watched_by(project: Project, trigger: Trigger) -> set[str]:
    """The tables that tell whether a trigger is set off, and whether a guard keeps it."""
    on = trigger.on
    found = {f"audiences.{name}" for name in (on.entered, on.left) if name is not None}
    if on.crossed is not None:
        found.add(BANDS.name)
    if on.event is not None:
        found.add(timeline_table(project).name)
    if on.date is not None:
        found.add((customers_table if on.date.of in project.attributes else daily_table)(project).name)
    asked = [rule for rules in guards_of(project, trigger).values() for rule in rules]
    return found.union(".".join(key) for key in asked_of(project, asked)) if asked else found


def activation_assets(project: Project, upstream: Sequence[dg.AssetCheckKey]) -> Iterator[dg.AssetsDefinition]:
    """What is to be sent, what was decided, what was delivered and who was reached."""
    owner = project.settings.owner
    synced = sorted({sync.audience for sync in project.syncs.values()})
    watched = sorted({table for trigger in project.triggers.values() for table in watched_by(project, trigger)})
    told_by = [key_of(table) for table in watched]

    @dg.asset(
        **asset_arguments(PLAN, owner, {"sqlalchemy"}, syncs_in_words(project)),
        deps=[
            *(["audiences", name] for name in synced),
            key_of(customers_table(project)),
            key_of(daily_table(project)),
        ],
        check_specs=[checks.plans_spec(key_of(PLAN))],
        required_resource_keys=RESOURCES,
    )
    def plan_syncs(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        lake: Lake = context.resources.lake
        clock = context.resources.clock
        with ledger_of(project) as ledger, gates_of(project, ledger, clock, lambda: lake) as gates:
            wrong = wrong_upstream(project, clock(), context.instance, upstream)
            planned = plan_all(ledger, lake, project, now=clock(), gates=gates, upstream=wrong)
        result = lake.publish(Mirror(PLAN, planned.rows), note=note(context))
        said: dict[str, Any] = {
            f"{sync} {kind}": n
            for sync, one in planned.syncs.items()
            if one.plan is not None
            for kind, n in one.plan.counts.items()
        }
        if lines := planned.lines():
            said["by sync"] = dg.MetadataValue.table(
                [dg.TableRecord({name: str(value) for name, value in line.items()}) for line in lines]
            )
        return dg.MaterializeResult(
            metadata=published(result.counts[PLAN.name], said),
            check_results=[checks.plans_result(key_of(PLAN), lines)],
        )

    yield plan_syncs

    @dg.multi_asset(
        name="triggers",
        specs=[
            asset_spec(OUTBOX, [key_of(PLAN), *told_by], owner, {"sqlalchemy"}, triggers_in_words(project)),
            asset_spec(PREVENTED, told_by, owner, {"sqlalchemy"}, guards_in_words(project)),
        ],
        required_resource_keys=RESOURCES,
    )
    def decide(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake: Lake = context.resources.lake
        with ledger_of(project) as ledger:
            fired = fire(ledger, lake, project, now=context.resources.clock())
            result = lake.publish(
                Mirror(OUTBOX, outbox_rows(ledger)), Mirror(PREVENTED, prevented_rows(ledger)), note=note(context)
            )
        said = {f"{trigger} {state}": n for trigger, states in fired.items() for state, n in states.items()}
        yield dg.MaterializeResult(asset_key=key_of(OUTBOX), metadata=published(result.counts[OUTBOX.name], said))
        yield dg.MaterializeResult(asset_key=key_of(PREVENTED), metadata=published(result.counts[PREVENTED.name]))

    yield decide

    @dg.multi_asset(
        name="deliveries",
        specs=[
            asset_spec(DELIVERIES, [key_of(OUTBOX)], owner, {"sqlalchemy"}),
            asset_spec(CONTACTS, [key_of(OUTBOX)], owner, {"sqlalchemy"}, policy_in_words(project)),
        ],
        check_specs=[checks.accounts_spec(key_of(DELIVERIES))],
        required_resource_keys=RESOURCES,
    )
    def deliver_all(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake: Lake = context.resources.lake
        clock = context.resources.clock
        with ledger_of(project) as ledger:
            summary = deliver_due(project, ledger, clock, worker="run")
            result = lake.publish(
                Mirror(OUTBOX, outbox_rows(ledger)),
                Mirror(DELIVERIES, delivery_rows(ledger)),
                Mirror(CONTACTS, contact_rows(ledger, project)),
                note=note(context),
            )
            accounts = {
                sync.name: conservation(ledger, sync, members_now(lake, sync.audience), merged_people(lake))
                for sync in project.syncs.values()
            }
        said = {f"{name} {state}": n for name, states in summary.by_destination.items() for state, n in states.items()}
        yield dg.MaterializeResult(
            asset_key=key_of(DELIVERIES),
            metadata=published(result.counts[DELIVERIES.name], said),
            check_results=[checks.accounts_result(key_of(DELIVERIES), accounts)],
        )
        yield dg.MaterializeResult(asset_key=key_of(CONTACTS), metadata=published(result.counts[CONTACTS.name]))

    yield deliver_all
