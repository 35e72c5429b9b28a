"""Salesforce: records kept by an external id, membership as a checkbox, and tasks for whoever is responsible.

Which record and which task is decided before; here they are written in collections, each record for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from cdp_pipeline.activation.protocol import Delivery, Outcome
from cdp_pipeline.destinations.api import (
    AccessToken,
    CrmConnection,
    Round,
    Said,
    fields,
    listed,
    parted,
    refused,
    strange,
    told,
)
from cdp_pipeline.destinations.http import Answer, code_word
from cdp_pipeline.spec.destination import Salesforce

WAIT_AFTER_LIMIT = timedelta(minutes=15)
PASSING = ("UNABLE_TO_LOCK_ROW", "REQUEST_RUNNING_TOO_LONG", "SERVER_UNAVAILABLE", "UNKNOWN_EXCEPTION")
# About what was asked for, not about whom: halves of the batch would be refused alike.
BLAMES_ALL = ("INVALID_FIELD", "INVALID_TYPE", "NOT_FOUND", "INVALID_QUERY_FILTER_OPERATOR", "MALFORMED_QUERY")


def connect(spec: Salesforce) -> SalesforceConnection:
    return SalesforceConnection(spec)


def soql_text(value: str) -> str:
    """A text in a SOQL query: in quotes, and nothing in it ends them."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def field_value(value: object) -> object:
    """A value as Salesforce's fields take it: lists are choices of a multi-select picklist."""
    return ";".join(str(each) for each in value) if isinstance(value, list | tuple) else value


class SalesforceConnection(CrmConnection[Salesforce]):
    """Upserts records; takes people out by changing records that exist, which makes nobody one; makes tasks."""

    # A collection takes 200; a look-up of 200 keys would not fit into an address.
    batch_size = 100
    owner_field = "OwnerId"
    no_owner = "the owner is no active user of Salesforce"

    def __init__(self, spec: Salesforce) -> None:
        super().__init__(spec, knows_operations=spec.operation_field is not None)
        self._path = f"/services/data/{spec.version}"
        form = {"grant_type": "client_credentials", "client_id": spec.client_id, "client_secret": spec.client_secret}
        self._token = AccessToken(self.http, f"{self._url}/services/oauth2/token", form)

    def _upsert(self, part: Sequence[Delivery], at: Round) -> Said:
        return self._write(part, [self._record(each, fields(each) | self._member(True)) for each in part], at)

    def _take_out(self, part: Sequence[Delivery], at: Round) -> Said:
        if self.spec.member_field is None:
            return refused(part, "nothing says who is a member: 'member_field' is missing")
        there = self._ids(self.spec.object, self.spec.key, {str(each.payload["key"]) for each in part}, at)
        if isinstance(there, Answer):
            return there
        known, absent = parted(part, lambda each: str(each.payload["key"]).lower() in there)
        gone = {each.op_id: Outcome(each.op_id, "delivered", "not there", code=200) for each in absent}
        if not known:
            return gone
        said = self._write(known, [self._record(each, self._member(False)) for each in known], at)
        return gone | said if isinstance(said, dict) else said

    def _member(self, member: bool) -> dict[str, object]:
        return {} if self.spec.member_field is None else {self.spec.member_field: member}

    def _record(self, delivery: Delivery, data: Mapping[str, object]) -> dict[str, object]:
        record = {name: field_value(value) for name, value in data.items()}
        return {"attributes": {"type": self.spec.object}, **record, self.spec.key: str(delivery.payload["key"])}

    def _write(self, part: Sequence[Delivery], records: Sequence[Mapping[str, object]], at: Round) -> Said:
        path = f"{self._path}/composite/sobjects/{self.spec.object}/{self.spec.key}"
        return self._judged(part, self._ask("PATCH", path, records, at))

    def _about(self, keys: set[str], at: Round) -> dict[str, str] | Answer:
        return self._ids(self.spec.object, self.spec.key, keys, at)

    def _owners(self, addresses: set[str], at: Round) -> dict[str, str] | Answer:
        return self._ids("User", "Email", addresses, at, "IsActive = true")

    def _make(
        self, part: Sequence[Delivery], tasks: Sequence[Mapping[str, object]], about: Mapping[str, str], at: Round
    ) -> Said:
        field, path = self.spec.operation_field, f"{self._path}/composite/sobjects"
        method, path = ("POST", path) if field is None else ("PATCH", f"{path}/Task/{field}")
        return self._judged(part, self._ask(method, path, tasks, at))

    def _task(
        self, delivery: Delivery, data: dict[str, object], about: str, owner: str, at: Round
    ) -> dict[str, object]:
        task: dict[str, object] = {
            "attributes": {"type": "Task"},
            "ActivityDate": at.now.date().isoformat(),
            **{name: field_value(value) for name, value in data.items() if value is not None},
            "Subject": delivery.payload.get("subject") or "",
            "Description": delivery.payload.get("body") or "",
            "WhoId" if self.spec.object in ("Contact", "Lead") else "WhatId": about,
        }
        if owner:
            task["OwnerId"] = owner
        if self.spec.operation_field is not None:
            task[self.spec.operation_field] = delivery.op_id
        return task

    def _ids(self, kind: str, field: str, values: Iterable[str], at: Round, also: str = "") -> dict[str, str] | Answer:
        """The ids of the records with one of some values, by the value in lower case: Salesforce compares so."""
        wanted = sorted(set(values))
        if not wanted:
            return {}
        condition = f"{field} IN ({', '.join(soql_text(value) for value in wanted)})" + (f" AND {also}" if also else "")
        query = quote(f"SELECT Id, {field} FROM {kind} WHERE {condition}", safe="")
        answer = self._ask("GET", f"{self._path}/query?q={query}", None, at)
        if answer.state != "delivered":
            # A question: whatever became of it, nothing was written.
            return replace(answer, sent=False)
        return {str(row.get(field)).lower(): str(row["Id"]) for row in listed(answer, "records")}

    def _ask(self, method: str, path: str, records: Sequence[Mapping[str, object]] | None, at: Round) -> Answer:
        """One request; with a new token where the old one has ended before its time."""
        value = None if records is None else {"allOrNone": False, "records": list(records)}
        for again in (False, True):
            token = self._token.get(at)
            if isinstance(token, Answer):
                return token
            self.bearer = token
            answer = self.request(method, path, value, at)
            if answer.code != 401 or again:
                break
            self._token.forget()
        code = next((code_word(each.get("errorCode")) for each in _errors(answer.json)), "")
        if code == "REQUEST_LIMIT_EXCEEDED":
            # Said as 403 and without Retry-After: the day's calls are used up.
            return Answer("retry", f"HTTP {answer.code}, {code}", answer.after or WAIT_AFTER_LIMIT, 429)
        return replace(answer, reason=f"{answer.reason}, {code}") if code else answer

    def _judged(self, part: Sequence[Delivery], answer: Answer) -> Said:
        if answer.state == "failed" and any(answer.reason.endswith(f", {code}") for code in BLAMES_ALL):
            return {each.op_id: answer.outcome(each.op_id) for each in part}
        if answer.state != "delivered":
            return answer
        results = answer.json if isinstance(answer.json, list) else []
        if len(results) != len(part):
            return strange(answer)
        outcomes = dict[str, Outcome]()
        for each, result in zip(part, results, strict=True):
            if result.get("success"):
                continue
            code = next((code_word(error.get("statusCode")) for error in _errors(result.get("errors"))), "")
            state = "retry" if code in PASSING else "failed"
            reason = f"HTTP {answer.code}, {code or 'refused'}"
            outcomes[each.op_id] = Outcome(each.op_id, state, reason, code=answer.code)  # type: ignore[arg-type]
        return told(part, outcomes, answer)


def _errors(said: Any) -> list[dict[str, Any]]:
    return [each for each in said if isinstance(each, dict)] if isinstance(said, list) else []
