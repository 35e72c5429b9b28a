"""HubSpot: contacts kept by a unique property, membership as a yes/no property, and tasks for whoever is responsible.

Which contact and which task is decided before; here they are written in batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

from cdp_pipeline.activation.protocol import Delivery, Outcome
from cdp_pipeline.destinations.api import (
    CrmConnection,
    Round,
    Said,
    fields,
    listed,
    refused,
    strange,
    told,
    told_in,
)
from cdp_pipeline.destinations.http import Answer, code_word, retry_after
from cdp_pipeline.spec.destination import Hubspot

TASK_TO_CONTACT = 204
WAIT_PER_POLICY = {"TEN_SECONDLY_ROLLING": timedelta(seconds=10), "SECONDLY": timedelta(seconds=1),
                   "DAILY": timedelta(hours=1)}  # fmt: skip
WAIT_PER_CODE = {423: timedelta(seconds=2), 477: timedelta(hours=1)}
# About what was asked for, not about whom: halves of the batch would be refused alike.
BLAMES_ALL = (b"PROPERTY_DOESNT_EXIST", b"READ_ONLY_VALUE", b"MISSING_SCOPES")


def connect(spec: Hubspot) -> HubspotConnection:
    return HubspotConnection(spec, spec.token)


def property_value(value: object) -> object:
    """A value as HubSpot's properties take it: nothing clears, lists are choices, yes and no are words."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ";".join(str(each) for each in value)
    return value


def properties(data: Mapping[str, object]) -> dict[str, object]:
    return {name: property_value(value) for name, value in data.items()}


class HubspotConnection(CrmConnection[Hubspot]):
    """Upserts contacts; takes people out by an update, which makes nobody a contact; makes tasks."""

    batch_size = 100
    owner_field = "hubspot_owner_id"
    no_owner = "the owner is no user of HubSpot"

    def __init__(self, spec: Hubspot, bearer: str) -> None:
        super().__init__(spec, bearer, knows_operations=spec.operation_property is not None)
        self._known_owners: dict[str, str] = {}

    def _upsert(self, part: Sequence[Delivery], at: Round) -> Said:
        inputs = [
            {
                "idProperty": self.spec.key,
                "id": str(each.payload["key"]),
                "objectWriteTraceId": each.op_id,
                "properties": properties(fields(each) | self._member(True)),
            }
            for each in part
        ]
        return self._judged(part, self._post("/crm/v3/objects/contacts/batch/upsert", inputs, at))

    def _take_out(self, part: Sequence[Delivery], at: Round) -> Said:
        if self.spec.member_property is None:
            return refused(part, "nothing says who is a member: 'member_property' is missing")
        inputs = [
            {
                "idProperty": self.spec.key,
                "id": str(each.payload["key"]),
                "objectWriteTraceId": each.op_id,
                "properties": properties(self._member(False)),
            }
            for each in part
        ]
        return self._judged(part, self._post("/crm/v3/objects/contacts/batch/update", inputs, at), gone="delivered")

    def _member(self, member: bool) -> dict[str, object]:
        return {} if self.spec.member_property is None else {self.spec.member_property: member}

    def _task(
        self, delivery: Delivery, data: dict[str, object], about: str, owner: str, at: Round
    ) -> dict[str, object]:
        payload = delivery.payload
        task: dict[str, object] = {
            "hs_timestamp": at.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "hs_task_status": "NOT_STARTED",
            "hs_task_type": "TODO",
            **properties({name: value for name, value in data.items() if value is not None}),
            "hs_task_subject": payload.get("subject") or "",
            "hs_task_body": payload.get("body") or "",
        }
        if owner:
            task["hubspot_owner_id"] = owner
        made: dict[str, object] = {"objectWriteTraceId": delivery.op_id, "properties": task}
        if self.spec.operation_property is not None:
            return {**made, "idProperty": self.spec.operation_property, "id": delivery.op_id}
        kind = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": TASK_TO_CONTACT}
        return {**made, "associations": [{"to": {"id": about}, "types": [kind]}]}

    def _make(
        self, part: Sequence[Delivery], tasks: Sequence[Mapping[str, object]], about: Mapping[str, str], at: Round
    ) -> Said:
        if self.spec.operation_property is None:
            return self._judged(part, self._post("/crm/v3/objects/tasks/batch/create", tasks, at))
        answer = self._post("/crm/v3/objects/tasks/batch/upsert", tasks, at)
        said = self._judged(part, answer)
        if isinstance(said, Answer):
            return said
        outcomes = said
        # An upsert takes no associations: they are made next, which may be done twice.
        named = self.spec.operation_property
        ids = {
            str(each.get("objectWriteTraceId") or each.get("properties", {}).get(named)): str(each.get("id"))
            for each in listed(answer, "results")
        }
        pairs = [
            {"from": {"id": ids[each.op_id]}, "to": {"id": about[str(fields(each)[self.spec.key]).lower()]}}
            for each in part
            if each.op_id in ids
        ]
        if pairs:
            linked = self._post("/crm/v4/associations/tasks/contacts/batch/associate/default", pairs, at)
            if linked.state != "delivered":
                # The tasks are there: the whole is done again, to the same effect.
                again = replace(linked, state="retry", reason=f"{linked.reason}: the task is not on its contact yet")
                return outcomes | {op_id: again.outcome(op_id) for op_id in ids if op_id in outcomes}
        return outcomes

    def _about(self, keys: set[str], at: Round) -> dict[str, str] | Answer:
        """Keys in lower case, as HubSpot compares e-mails."""
        if not keys:
            return {}
        asked = {
            "idProperty": self.spec.key,
            "properties": [self.spec.key],
            "inputs": [{"id": key} for key in sorted(keys)],
        }
        answer = self._asked("POST", "/crm/v3/objects/contacts/batch/read", asked, at)
        if answer.state != "delivered":
            return answer
        return {
            str(each.get("properties", {}).get(self.spec.key)).lower(): str(each["id"])
            for each in listed(answer, "results")
        }

    def _owners(self, addresses: set[str], at: Round) -> dict[str, str] | Answer:
        for address in sorted(addresses - self._known_owners.keys()):
            answer = self._asked("GET", f"/crm/v3/owners?email={quote(address, safe='')}&limit=1", None, at)
            if answer.state != "delivered":
                return answer
            for each in listed(answer, "results"):
                self._known_owners[address] = str(each["id"])
        return self._known_owners

    def _asked(self, method: str, path: str, value: Mapping[str, object] | None, at: Round) -> Answer:
        """A question: whatever becomes of it, nothing was written."""
        return replace(_waits(self.request(method, path, value, at), at), sent=False)

    def _post(self, path: str, inputs: Sequence[Mapping[str, object]], at: Round) -> Answer:
        return _waits(self.request("POST", path, {"inputs": list(inputs)}, at), at)

    def _judged(self, part: Sequence[Delivery], answer: Answer, gone: str = "failed") -> Said:
        """Of an answer that is partly good (207), who was refused, by the trace ids or the ids in its errors."""
        if answer.state == "failed" and any(mark in answer.body for mark in BLAMES_ALL):
            return {each.op_id: _named(answer).outcome(each.op_id) for each in part}
        if answer.state == "failed" and gone == "delivered" and answer.code == 404:
            return {each.op_id: Outcome(each.op_id, "delivered", "HTTP 404: not there", code=404) for each in part}
        if answer.state != "delivered":
            return _named(answer)
        if "results" not in told_in(answer):
            return strange(answer)
        by_key = {str(each.payload.get("key", "")).lower(): each.op_id for each in part}
        outcomes = dict[str, Outcome]()
        for error in listed(answer, "errors"):
            context = error.get("context") or {}
            named = [str(each) for each in context.get("objectWriteTraceId") or ()]
            named += [by_key[key] for each in context.get("ids") or () if (key := str(each).lower()) in by_key]
            category = code_word(error.get("category"))
            state = gone if category == "OBJECT_NOT_FOUND" else "failed"
            if category in ("RATE_LIMITS", "INTERNAL_ERROR"):
                state = "retry"
            for op_id in named:
                reason = f"HTTP {answer.code}, {category or 'refused'}"
                outcomes[op_id] = Outcome(op_id, state, reason, code=answer.code)  # type: ignore[arg-type]
            if not named:
                # Somebody was refused and nobody says who: done again, it has the same effect.
                return {each.op_id: Outcome(each.op_id, "retry", f"HTTP {answer.code}, {category}") for each in part}
        return told(part, outcomes, answer)


def _waits(answer: Answer, at: Round) -> Answer:
    """HubSpot's 429 often comes without Retry-After: its policy says how long.

    It locks for two seconds where much is written (423), and for up to a day while an account moves (477).
    """
    if answer.code in WAIT_PER_CODE:
        wait = retry_after(answer.headers.get("retry-after"), at.now) or WAIT_PER_CODE[answer.code]
        return replace(answer, state="retry", after=wait, code=429)
    if answer.code != 429 or answer.after is not None:
        return answer
    policy = str(told_in(answer).get("policyName") or "")
    return replace(answer, after=WAIT_PER_POLICY.get(policy, timedelta(seconds=10)))


def _named(answer: Answer) -> Answer:
    category = code_word(told_in(answer).get("category"))
    return replace(answer, reason=f"{answer.reason}, {category}") if category else answer
