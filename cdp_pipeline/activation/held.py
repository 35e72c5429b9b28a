"""Plans that wait for somebody: kept operation by operation as they were shown, to be released exactly so, or refused.

Only the last plan of a sync can be released. Deciding that a plan waits is plan.py's, enqueuing it sync.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from json import dumps, loads
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cdp_pipeline.activation.ledger import LedgerError, Op, utc
from cdp_pipeline.activation.plan import SyncPlan
from cdp_pipeline.activation.protocol import Payload
from cdp_pipeline.activation.schema import held_ops, plans
from cdp_pipeline.spec.base import duration_text
from cdp_pipeline.spec.sync import Sync

RELEASABLE_FOR = timedelta(days=3)
"""How long after it was last planned a plan may be released: a weekend, and not what people were weeks ago."""

_KEPT = ("op_id", "person_id", "key", "kind", "fingerprint", "state", "reason", "after")


def keep(connection: Connection, plan: SyncPlan, at: datetime) -> None:
    """Keep what a plan would do, unless it is kept already, and note that it was planned now."""
    of_plan = held_ops.c.plan_id == plan.plan_id
    if plan.ops and connection.execute(sa.select(held_ops.c.place).where(of_plan).limit(1)).first() is None:
        connection.execute(
            held_ops.insert(),
            [
                {"plan_id": plan.plan_id, "place": place, "payload": op.payload_text}
                | {name: getattr(op, name) for name in _KEPT}
                for place, op in enumerate(plan.ops)
            ],
        )
    values = {"found_at": at, "declared": plan.sync.model_dump_json(), "forgotten": dumps(plan.forgotten)}
    connection.execute(plans.update().where(plans.c.plan_id == plan.plan_id).values(values))


def supersede(connection: Connection, sync: str, by: str) -> None:
    """Let no held plan of a sync be released any more except `by`, which was planned since."""
    others = sa.and_(plans.c.sync == sync, plans.c.state == "held", plans.c.plan_id != by)
    connection.execute(held_ops.delete().where(held_ops.c.plan_id.in_(sa.select(plans.c.plan_id).where(others))))
    connection.execute(plans.update().where(others).values(state="superseded"))


def forget(connection: Connection, plan_id: str) -> None:
    """What a plan would do need not be kept any more: it waits no longer."""
    connection.execute(held_ops.delete().where(held_ops.c.plan_id == plan_id))


def sync_of(connection: Connection, plan_id: str) -> str:
    """Whose plan it is; a LedgerError that names the plans that do wait where there is none."""
    found = connection.execute(sa.select(plans.c.sync).where(plans.c.plan_id == plan_id)).scalar()
    if found is None:
        waiting = connection.execute(sa.select(plans.c.plan_id, plans.c.sync).where(plans.c.state == "held")).all()
        held = ", ".join(f"{row.plan_id} (of '{row.sync}')" for row in waiting)
        raise LedgerError(f"no plan '{plan_id}' is held; held: {held or 'none'}")
    return str(found)


def kept(connection: Connection, plan_id: str, syncs: Mapping[str, Sync] | None, now: datetime) -> SyncPlan:
    """A held plan as it was shown; a LedgerError that says why where it must not be released any more.

    `syncs`: as they are declared now; None where that cannot have changed.
    """
    row = connection.execute(sa.select(plans).where(plans.c.plan_id == plan_id).with_for_update()).one()
    if (why := _not_releasable(connection, row, syncs, now)) is not None:
        raise LedgerError(why)
    sync = Sync.model_validate_json(row.declared)
    columns = [held_ops.c[name] for name in (*_KEPT, "payload")]
    query = sa.select(*columns).where(held_ops.c.plan_id == plan_id).order_by(held_ops.c.place)
    ops = [
        Op(
            op.op_id, f"sync:{sync.name}", sync.destination, op.person_id, op.kind, Payload(op.payload), key=op.key,
            state=op.state, reason=op.reason, fingerprint=op.fingerprint, after=op.after,
        )
        for op in connection.execute(query)
    ]  # fmt: skip
    return SyncPlan(sync, ops, row.size, 0, 0, forgotten=loads(row.forgotten))


def _not_releasable(connection: Connection, row: Any, syncs: Mapping[str, Sync] | None, now: datetime) -> str | None:
    plan, anew = f"plan '{row.plan_id}' of sync '{row.sync}'", f"Plan anew: cdp sync plan {row.sync}"
    if row.state == "applied" and row.approved_by is not None:
        return f"{plan} was released already, by {row.approved_by} at {row.approved_at:%Y-%m-%d %H:%M} UTC"
    if row.state in ("applied", "shown"):
        return f"{plan} is not held: it was {row.state} without asking"
    if row.state == "superseded":
        of_sync = sa.and_(plans.c.sync == row.sync, plans.c.state == "held")
        newer = connection.execute(sa.select(plans.c.plan_id).where(of_sync)).scalar()
        now_held = "nothing of it is held any more" if newer is None else f"now '{newer}' is held"
        return f"{plan} is superseded: planned again since, it came to something else, and {now_held}. {anew}"
    if row.declared is None or row.found_at is None:
        return f"{plan} was made by an earlier version, which did not keep what it would do. {anew}"
    if utc(now) - row.found_at > RELEASABLE_FOR:
        limit = duration_text(RELEASABLE_FOR)
        return f"{plan} was last planned at {row.found_at:%Y-%m-%d %H:%M} UTC, more than {limit} ago. {anew}"
    if syncs is not None and row.sync not in syncs:
        return f"{plan}: the sync is not declared any more"
    if syncs is not None and syncs[row.sync].model_dump_json() != row.declared:
        return f"{plan}: the sync has been declared differently since. {anew}"
    return None
