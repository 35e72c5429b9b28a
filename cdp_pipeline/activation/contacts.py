"""Why somebody was, or was not, contacted: every operation about them with what became of it, and what stands now.

Reads the ledger, the receipts, the consents and what guards ask; decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cdp_pipeline.activation.fire import kept_back, merged_people, not_waiting
from cdp_pipeline.activation.gates import ContactGates
from cdp_pipeline.activation.ledger import Ledger, guarded_by
from cdp_pipeline.activation.receipts import of_operations
from cdp_pipeline.activation.words import in_words
from cdp_pipeline.consent.subjects import Subject
from cdp_pipeline.lake.questions import Questions
from cdp_pipeline.lake.view import LakeView
from cdp_pipeline.spec.base import counted
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trigger import Trigger

BECAME = {
    "delivered": "sent", "pending": "waits to be sent", "retry": "is tried again", "inflight": "is being sent",
    "failed": "failed", "unknown": "sent, perhaps", "doubtful": "sent, perhaps", "suppressed": "not sent",
    "held": "waits until no guard holds", "dry_run": "shown, not sent (dry run)",
}  # fmt: skip


@dataclass(frozen=True)
class Explained:
    """`contacts`: one per operation, oldest first. `standing`: per trigger that writes to people and its channel, what
    would keep it from them if it acted now (`refused`; None: nothing).
    """

    person_id: str
    contacts: list[dict[str, Any]]
    standing: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        return {"person_id": self.person_id, "contacts": self.contacts, "standing": self.standing}

    def __str__(self) -> str:
        decided = counted(len(self.contacts), "operation") if self.contacts else "nothing was ever decided about them"
        lines = [f"{self.person_id}: {decided}"]
        for one in self.contacts:
            when = one["at"].isoformat(" ", "seconds")
            tries = f", {one['tries']} tries" if one["tries"] > 1 else ""
            why = f": {in_words(one['reason'])}" if one["reason"] not in ("", "dry run") else ""
            lines.append(f"  {when}  {one['origin']} -> {one['destination']}: {one['became']}{why}{tries}")
            lines += [f"    {at.isoformat(' ', 'seconds')}  {event}" for event, at in one["receipts"]]
        lines.append("Now:" if self.standing else "Nothing that is declared would write to anybody.")
        for one in self.standing:
            verdict = "may be sent" if one["refused"] is None else f"would not be sent: {in_words(one['refused'])}"
            lines.append(f"  {one['origin']} by {one['channel']}: {verdict}")
        return "\n".join(lines)


def explain_contacts(
    ledger: Ledger, lake: LakeView, project: Project, subject: Subject, gates: ContactGates | None, now: datetime
) -> Explained:
    """Everything about one person, under all ids they ever had; without gates only guards speak against anything."""
    rows = ledger.about(sorted(subject.ids))
    told = of_operations(ledger, [str(row["op_id"]) for row in rows])
    contacts = []
    for row in rows:
        spec = project.destinations.get(str(row["destination"]))
        contacts.append(
            {
                "op_id": row["op_id"],
                "at": _utc(row["created_at"]),
                "origin": row["origin"],
                "occasion": row["occasion"],
                "destination": row["destination"],
                "channel": None if spec is None else spec.channel,
                "kind": row["kind"],
                "state": row["state"],
                "became": BECAME[str(row["state"])],
                "reason": row["reason"],
                "tries": row["attempt"],
                "since": _utc(row["updated_at"]),
                "receipts": [(event, _utc(at)) for event, at in told.get(str(row["op_id"]), ())],
            }
        )
    kept = _kept(ledger, lake, project, subject.person_id, now)
    standing = [
        {
            "origin": f"trigger:{trigger.name}",
            "channel": spec.channel,
            "purpose": trigger.purpose,
            "refused": kept.get(trigger.name) or _refused(gates, trigger, subject, spec, now),
        }
        for trigger in project.triggers.values()
        for spec in (project.destinations[name] for name in sorted({act.destination for act in trigger.do}))
        if spec.channel is not None
    ]
    return Explained(subject.person_id, contacts, standing)


def _kept(ledger: Ledger, lake: LakeView, project: Project, person_id: str, now: datetime) -> dict[str, str]:
    """By trigger the guards that keep it from somebody."""
    asked, aliases, today = Questions().of(lake), merged_people(lake), now.astimezone(project.zone).date()
    found = {
        trigger.name: kept_back(ledger, asked, project, trigger, [person_id], today, aliases).get(person_id)
        for trigger in not_waiting(lake, project)
    }
    return {name: guarded_by(guards) for name, guards in found.items() if guards}


def _refused(
    gates: ContactGates | None, trigger: Trigger, subject: Subject, destination: Destination, now: datetime
) -> str | None:
    return None if gates is None else gates.standing(trigger, subject.person_id, destination, now)


def _utc(moment: Any) -> datetime:
    naive: datetime = moment
    return naive.replace(tzinfo=UTC)
