"""HubSpot's CRM v3: batches of 100, e-mails in lower case, refusals by trace id (207) or of the whole batch (400).

Its 429 names a policy instead of a Retry-After, and an upsert of a task takes no associations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cdp_pipeline.spec.destination import Hubspot
from cdp_pipeline_tests.destinations.fakes import shapes
from cdp_pipeline_tests.destinations.fakes.people import ALLOWED, DESCRIPTION, Fake, PeopleBench, treated
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port

TOKEN = "pat-eu1-that-only-tests-know"


def hubspot(url: str, **fields: Any) -> Hubspot:
    given = {"token": TOKEN, "member_property": "cdp_vip", "operation_property": "cdp_operation"}
    return Hubspot(kind="destination", type="hubspot", description=DESCRIPTION, url=url,
                   **{**ALLOWED, **given, **fields})  # fmt: skip


class FakeHubspot(Fake):
    """One invalid contact fails its whole batch with 400; `multi_status`: it is named in a 207 and the others are kept.

    "Partial upserts are not supported when using email as the idProperty for contacts", says HubSpot's guide, and it
    promises 207 with trace ids for batches that create.
    """

    def __init__(self, multi_status: bool = False) -> None:
        super().__init__()
        self.multi_status = multi_status
        self.contacts: dict[str, dict[str, Any]] = {}
        self.tasks: list[dict[str, Any]] = []
        self.links: set[tuple[str, str]] = set()
        self.owners = {"sam@shop.example": "77"}
        self.link_fails = False

    def answer(self, request: Received) -> Answer:
        path = urlsplit(request.path).path
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            return Answer(401, body={"status": "error", "category": "INVALID_AUTHENTICATION", "message": "Bad token"})
        if path == "/crm/v3/owners":
            owner = self.owners.get(parse_qs(urlsplit(request.path).query)["email"][0])
            return Answer(body={"results": [{"id": owner}] if owner else []})
        if shapes.unknown(request.json, shapes.HUBSPOT[path.rpartition("/")[2]]):
            return Answer(400, body=self._error("VALIDATION_ERROR", "Invalid input JSON"))
        inputs = request.json["inputs"]
        if len(inputs) > 100:
            return Answer(400, body={"status": "error", "category": "VALIDATION_ERROR", "message": "too many"})
        match path:
            case "/crm/v3/objects/contacts/batch/upsert":
                return self._upsert(inputs)
            case "/crm/v3/objects/contacts/batch/update":
                return self._update(inputs)
            case "/crm/v3/objects/contacts/batch/read":
                return self._multi([
                    {"id": contact["id"], "properties": {"email": email}}
                    for each in inputs if (contact := self.contacts.get(email := each["id"].lower()))
                ], [])  # fmt: skip
            case "/crm/v3/objects/tasks/batch/create":
                return self._create(inputs)
            case "/crm/v3/objects/tasks/batch/upsert":
                return self._upsert_tasks(inputs)
            case "/crm/v4/associations/tasks/contacts/batch/associate/default":
                if self.link_fails:
                    return Answer(502)
                self.links |= {(each["from"]["id"], each["to"]["id"]) for each in inputs}
                return Answer(body={"status": "COMPLETE", "results": []})
        return Answer(404)

    def _upsert(self, inputs: list[dict[str, Any]]) -> Answer:
        emails = [each["id"].lower() for each in inputs]
        labels = [email.partition("@")[0] for email in emails]
        if len(set(emails)) < len(emails):
            return Answer(400, body=self._error("VALIDATION_ERROR", f"Duplicate IDs found in batch input: {emails}"))
        if any(treated(label) == "wait" for label in labels):
            policy = {"policyName": "TEN_SECONDLY_ROLLING", "errorType": "RATE_LIMIT"}
            return Answer(
                429, body=self._error("RATE_LIMITS", "You have reached your ten_secondly_rolling limit.") | policy
            )
        bad = [each for each, label in zip(inputs, labels, strict=True) if treated(label) == "refuse"]
        if any("unknown_property" in each["properties"] for each in inputs):
            said = '[{"isValid":false,"error":"PROPERTY_DOESNT_EXIST","name":"unknown_property"}]'
            return Answer(400, body=self._error("VALIDATION_ERROR", f"Property values were not valid: {said}"))
        if bad and not self.multi_status:
            return Answer(400, body=self._error("VALIDATION_ERROR", f"Email {bad[0]['id']} is invalid"))
        before, results, errors = len(self.arrived), [], []
        for each, email, label in zip(inputs, emails, labels, strict=True):
            if each in bad:
                context = {"objectWriteTraceId": [each["objectWriteTraceId"]]}
                errors.append(self._error("VALIDATION_ERROR", f"Email {email} is invalid") | {"context": context})
                continue
            contact = self.contacts.setdefault(email, {"id": str(1000 + len(self.contacts)), "properties": {}})
            contact["properties"] |= {"email": email, **each["properties"]}
            if contact["properties"].get("cdp_vip", "true") == "true":
                self.take(label)
            results.append({"id": contact["id"], "properties": contact["properties"]})
        return Answer(hang_up=True) if self.silent(before) else self._multi(results, errors)

    def _update(self, inputs: list[dict[str, Any]]) -> Answer:
        results, lost = [], []
        for each in inputs:
            contact = self.contacts.get(email := each["id"].lower())
            if contact is None:
                lost.append(each["id"])
                continue
            contact["properties"] |= each["properties"]
            if each["properties"].get("cdp_vip") == "false":
                self.members.discard(email.partition("@")[0])
            results.append({"id": contact["id"]})
        context = {"context": {"ids": lost}}
        return self._multi(
            results, [self._error("OBJECT_NOT_FOUND", "Could not get some CONTACT objects") | context] if lost else []
        )

    def _create(self, inputs: list[dict[str, Any]]) -> Answer:
        for each in inputs:
            task = {"id": str(5000 + len(self.tasks)), "properties": each["properties"]}
            self.tasks.append(task)
            self.links |= {(task["id"], one["to"]["id"]) for one in each.get("associations", ())}
            self._acted(each, task)
        if any("silent" in str(each["properties"].get("hs_task_subject")) for each in inputs):
            return Answer(hang_up=True)
        return self._multi(self.tasks[-len(inputs) :], [])

    def _upsert_tasks(self, inputs: list[dict[str, Any]]) -> Answer:
        results = []
        for each in inputs:
            name = each["idProperty"]
            task = next((one for one in self.tasks if one["properties"].get(name) == each["id"]), None)
            if task is None:
                task = {"id": str(5000 + len(self.tasks)), "properties": {}}
                self.tasks.append(task)
                self._acted(each, task)
            task["properties"] |= {name: each["id"], **each["properties"]}
            results.append({**task, "objectWriteTraceId": each["objectWriteTraceId"]})
        return self._multi(results, [])

    def _acted(self, given: dict[str, Any], task: dict[str, Any]) -> None:
        self.acts.append(task)
        self.arrived.append(given["objectWriteTraceId"])

    def _error(self, category: str, message: str) -> dict[str, Any]:
        return {"status": "error", "category": category, "message": message, "correlationId": "aeb5f871"}

    def _multi(self, results: list[dict[str, Any]], errors: list[dict[str, Any]]) -> Answer:
        body: dict[str, Any] = {"status": "COMPLETE", "results": results}
        return Answer(207, body=body | {"numErrors": len(errors), "errors": errors}) if errors else Answer(body=body)


@contextmanager
def bench(folder: Path) -> Iterator[PeopleBench]:
    fake = FakeHubspot()
    # Somebody the trigger is about is in the CRM already.
    fake.contacts["ann-1@example.com"] = {"id": "1", "properties": {"email": "ann-1@example.com"}}
    with Receiver(fake) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        yield PeopleBench(
            hubspot(url),
            arrived=lambda: list(fake.arrived),
            absent=hubspot(f"http://127.0.0.1:{free_port()}"),
            locked=hubspot(url, token="pat-revoked"),
            held=fake.held,
            waits=timedelta(seconds=10),
        )
