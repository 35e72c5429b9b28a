"""What would have to be sent so that a destination holds an audience, and whether somebody should look at it first.

Pure: members, people and what the destination is known to hold go in, a plan comes out. The ledger takes it from there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from types import MappingProxyType

import pyarrow as pa

from cdp_pipeline.activation.ledger import Op, operation_id
from cdp_pipeline.activation.schema import LEAVES
from cdp_pipeline.activation.words import in_words
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.sync import Sync

REMOVALS_SHARE, REMOVALS_AT_LEAST, SIZE_CHANGE = 0.05, 100, 0.30
EMPTIER_BY, FEW = 0.10, 20

PLAN = Table(
    "activation.plan",
    "What the next synchronisation of each audience would add, update and remove, and why it waits if it does.",
    {
        "sync": Column("string", "The synchronisation."),
        "key_hash": Column("string", "Fingerprint of the key the destination knows the person by."),
        "person_id": Column("string", "Whom it concerns."),
        "destination": Column("string", "Where it would go."),
        "action": Column("string", "add, update, remove, entered, left, or suppressed."),
        "reason": Column("string", "Why it is suppressed."),
        "plan_id": Column("string", "The plan: what `cdp sync approve` is given."),
        "plan_state": Column("string", "applied, held (it waits for approval) or shown (in a dry run)."),
        "held_because": Column("string", "The guard-rails that ask somebody to look first."),
    },
    key=("sync", "key_hash"),
    derived=True,
)


@dataclass(frozen=True)
class Held:
    """What a destination holds under one key, as far as we know.

    `op_id` is the last operation tried and `payload_hash` what it was to lead to (None: absence); `certain`: it was
    confirmed. `present`: something of ours is there, or may be.
    """

    person_id: str
    op_id: str
    payload_hash: str | None
    certain: bool
    present: bool


@dataclass(frozen=True)
class SyncPlan:
    """The operations that lead from what a destination holds to what it should, for one sync."""

    sync: Sync
    ops: list[Op]
    size: int
    unchanged: int
    present: int
    forgotten: list[str] = field(default_factory=list)
    proven: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Keys that hold what they should, though their fingerprints did not say so: whose, the one that does, and the
    operation it is by."""
    nulls: dict[str, float] = field(default_factory=dict)
    """By field, the share of members of whom nothing is known."""

    @cached_property
    def plan_id(self) -> str:
        """The same plan has the same id: an approval is for exactly what was looked at."""
        return operation_id("plan", self.sync.name, *sorted(op.op_id for op in self.ops), "-", *sorted(self.forgotten))

    @cached_property
    def counts(self) -> Counter[str]:
        """Operations by action; suppressed ones apart."""
        return Counter(op.kind if op.state == "pending" else op.state for op in self.ops)

    @property
    def suppressed_because(self) -> str:
        """Why members are not sent, the most frequent reason first, with how many each concerns."""
        found = Counter(op.reason for op in self.ops if op.state == "suppressed")
        return "; ".join(f"{count:,}: {in_words(reason)}" for reason, count in found.most_common())


def plan(
    sync: Sync,
    members: Iterable[str],
    people: Mapping[str, Mapping[str, object]],
    holds: Mapping[str, Held],
    barred: Mapping[str, str] = MappingProxyType({}),
    *,
    aliases: Mapping[str, str] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    epoch: str | None = None,
) -> SyncPlan:
    """Compare an audience with what the destination holds, by the key the destination knows people by.

    Only what this sync has put there is ever removed. Of two members with one key the first by id stands for both; a
    member without a key is suppressed, and so is one who is `barred` (by id, with the reason), who counts as gone. A
    key that has become another person's is sent again, unless the two are one (`aliases`: merged into).
    `epoch` tells the operations of one ledger's knowledge from those of another's.
    `append` and `event` send moves: what a member's fields say later is not sent, also not of a move that may have
    arrived.
    """
    ops: list[Op] = []
    seen: dict[str, str] = {}
    proven: dict[str, tuple[str, str, str]] = {}
    aliases, fingerprints = aliases or {}, fingerprints or {}
    unchanged, size = 0, 0
    for person_id in sorted(members):
        size += 1
        person = {**people.get(person_id, {}), "person_id": person_id}
        data = sync.fields(person)
        key = data.get(sync.key)
        reason = barred.get(person_id)
        if reason is None and key in (None, ""):
            reason = f"no '{sync.key}'"
        elif reason is None and str(key) in seen:
            reason = f"the same '{sync.key}' as another member"
        if reason is not None:
            ops.append(_op(sync, "add", f"person:{person_id}", person_id, {}, None, reason))
            continue
        key = str(key)
        seen[key] = person_id
        payload = {"type": f"sync.{sync.name}", "key": key, "member": True, "data": data}
        held = holds.get(key)
        known_by = fingerprints.get(person_id)
        theirs = held is not None and aliases.get(held.person_id, held.person_id) == person_id
        wanted = _op(
            sync, _name(sync, held), key, person_id, payload, held, theirs=theirs, fingerprint=known_by, epoch=epoch
        )
        if held is None or not (held.certain and held.present and theirs):
            ops.append(wanted)
        elif sync.moves or held.payload_hash == wanted.payload_hash:
            unchanged += 1
            if person_id in fingerprints:
                proven[key] = person_id, fingerprints[person_id], held.op_id
        else:
            ops.append(wanted)
    gone = [(key, held) for key, held in sorted(holds.items()) if key not in seen and held.present]
    if sync.mode in ("mirror", "event"):
        for key, held in gone:
            payload = {"type": f"sync.{sync.name}", "key": key, "member": False, "data": {sync.key: key}}
            ops.append(_op(sync, "remove" if sync.mode == "mirror" else "left", key, held.person_id, payload, held))
    return SyncPlan(
        sync=sync,
        ops=ops,
        size=size,
        unchanged=unchanged,
        present=sum(held.present for held in holds.values()),
        forgotten=[key for key, _ in gone] if sync.mode == "append" else [],
        proven=proven,
    )


def _name(sync: Sync, held: Held | None) -> str:
    if sync.mode == "event":
        return "entered"
    return "update" if held is not None and held.present else "add"


def _op(
    sync: Sync,
    kind: str,
    key: str,
    person_id: str,
    payload: dict[str, object],
    held: Held | None,
    suppressed: str | None = None,
    fingerprint: str | None = None,
    epoch: str | None = None,
    theirs: bool = True,
) -> Op:
    op = Op("", f"sync:{sync.name}", sync.destination, person_id, kind, payload, key=key)
    target = None if kind in LEAVES else op.payload_hash
    # The id of the operation before is part of the id: who left and came back is a new operation. One that was tried
    # without success stays itself as long as it is still what is wanted; a move that may have arrived, whatever else
    # would be said of it now.
    op_id = operation_id("sync", sync.name, sync.destination, key, person_id, target, held.op_id if held else epoch)
    if held is not None and theirs and not held.certain:
        moved = sync.moves and held.present and None not in (held.payload_hash, target)
        op_id = held.op_id if moved or held.payload_hash == target else op_id
    return Op(
        op_id, op.origin, op.destination, person_id, kind, payload, key=key,
        state="pending" if suppressed is None else "suppressed", reason=suppressed or "",
        after=held.op_id if held else None, fingerprint=fingerprint,
    )  # fmt: skip


def guards(
    plan: SyncPlan,
    *,
    first: bool,
    recent_sizes: Sequence[int] = (),
    nulls_before: Mapping[str, float] | None = None,
    upstream: Sequence[str] = (),
) -> list[str]:
    """Why somebody should look at this plan before it is carried out; empty: nothing speaks against it.

    `nulls_before`: the shares of unknown values when a plan was last applied. `upstream`: what is wrong with the tables
    it was made from.
    """
    reasons = list(upstream)
    removals = plan.counts["remove"] + plan.counts["left"]
    if first:
        reasons.append(f"it is the first synchronisation to '{plan.sync.destination}'")
    if plan.size == 0:
        reasons.append("the audience is empty")
    if removals > max(REMOVALS_SHARE * plan.present, REMOVALS_AT_LEAST):
        reasons.append(f"it would remove {removals:,} of the {plan.present:,} who are there")
    if recent_sizes:
        usual = median(recent_sizes)
        if abs(plan.size - usual) > SIZE_CHANGE * usual:
            reasons.append(f"the audience has {plan.size:,} people, usually {usual:,.0f}")
    for name, before in sorted((nulls_before or {}).items()):
        now = plan.nulls.get(name, before)
        if plan.size >= FEW and now > before + EMPTIER_BY:
            reasons.append(f"'{name}' is unknown of {now:.0%} of the audience, before of {before:.0%}")
    return reasons


def plan_rows(plan: SyncPlan, state: str, reasons: Sequence[str]) -> pa.Table:
    """PLAN for one sync: what it would do, without payloads."""
    columns = {
        "sync": [plan.sync.name] * len(plan.ops),
        "key_hash": [hashlib.sha256(op.key.encode()).hexdigest()[:32] for op in plan.ops],
        "person_id": [op.person_id for op in plan.ops],
        "destination": [op.destination for op in plan.ops],
        "action": [op.kind if op.state == "pending" else op.state for op in plan.ops],
        "reason": [op.reason for op in plan.ops],
        "plan_id": [plan.plan_id] * len(plan.ops),
        "plan_state": [state] * len(plan.ops),
        "held_because": ["; ".join(reasons)] * len(plan.ops),
    }
    return pa.table(columns, schema=PLAN.schema.to_pyarrow())
