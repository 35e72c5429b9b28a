"""Salesforce's REST API: OAuth client credentials, collections by external id with a result for each record, SOQL.

Its sessions end before their time, its limits come as 403, and a contact without a last name is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cdp_pipeline.spec.destination import Salesforce
from cdp_pipeline_tests.destinations.fakes.people import ALLOWED, DESCRIPTION, Fake, PeopleBench, treated
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port

LONGEST_ADDRESS = (
    16_384  # help.salesforce.com, article 000386264: 414 beyond, and 431 where the headers make it longer.
)
SECRET = "a-client-secret-that-only-tests-know"


def salesforce(url: str, **fields: Any) -> Salesforce:
    given = {
        "client_id": "3MVG9.tests", "client_secret": SECRET, "key": "Cdp_Email__c", "member_field": "Cdp_Vip__c",
        "operation_field": "Cdp_Operation__c",
    }  # fmt: skip
    return Salesforce(kind="destination", type="salesforce", description=DESCRIPTION, url=url,
                      **{**ALLOWED, **given, **fields})  # fmt: skip


class FakeSalesforce(Fake):
    def __init__(self) -> None:
        super().__init__()
        self.sessions = 0
        self.valid: set[str] = set()
        self.records: dict[str, dict[str, dict[str, Any]]] = {"Contact": {}, "Task": {}}
        self.users = {"sam@shop.example": ("005000000000SAM", True), "old@shop.example": ("005000000000OLD", False)}
        self.locked: set[str] = set()
        self.limit_reached = False

    def end_sessions(self) -> None:
        self.valid.clear()

    def answer(self, request: Received) -> Answer:
        path = urlsplit(request.path).path
        if path == "/services/oauth2/token":
            if request.form.get("client_secret") != SECRET:
                return Answer(400, body={"error": "invalid_client", "error_description": "invalid client credentials"})
            self.sessions += 1
            self.valid.add(f"00D-session-{self.sessions}")
            return Answer(body={"access_token": f"00D-session-{self.sessions}", "token_type": "Bearer"})
        if request.headers["authorization"].removeprefix("Bearer ") not in self.valid:
            return self._refused(401, "INVALID_SESSION_ID", "Session expired or invalid")
        if self.limit_reached:
            return self._refused(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        if len(request.path) > LONGEST_ADDRESS:
            return self._refused(414, "URI_TOO_LONG", "URI Too Long")
        if path.endswith("/query"):
            return self._query(parse_qs(urlsplit(request.path).query)["q"][0])
        found = re.fullmatch(r"/services/data/v\d+\.0/composite/sobjects(?:/(\w+)/(\w+))?", path)
        if found is None or request.json["allOrNone"] is not False or len(request.json["records"]) > 200:
            return Answer(404)
        kind, key = found.groups()
        if (kind is None) != (request.method == "POST"):
            return Answer(405)
        records = request.json["records"]
        labels = [str(each.get("Cdp_Email__c")).partition("@")[0] for each in records]
        if any(treated(label) == "wait" for label in labels):
            answer = self._refused(503, "SERVER_UNAVAILABLE", "come back")
            answer.headers["Retry-After"] = "45"
            return answer
        if any("No_Such__c" in each for each in records):
            return self._refused(400, "INVALID_FIELD", "No such column 'No_Such__c' on sobject of type Contact")
        before = len(self.arrived)
        results = [self._write(each, kind or each["attributes"]["type"], key, label)
                   for each, label in zip(records, labels, strict=True)]  # fmt: skip
        return Answer(hang_up=True) if self.silent(before) else Answer(body=results)

    def _write(self, record: dict[str, Any], kind: str, key: str | None, label: str) -> dict[str, Any]:
        values = {name: value for name, value in record.items() if name != "attributes"}
        known = values[key] if key else f"new-{len(self.records[kind])}"
        old = self.records[kind].get(known.lower())
        if treated(label) == "refuse":
            error = {"statusCode": "INVALID_EMAIL_ADDRESS", "message": f"{known}: invalid", "fields": ["Email"]}
            return {"success": False, "errors": [error]}
        if known in self.locked:
            return {"success": False, "errors": [{"statusCode": "UNABLE_TO_LOCK_ROW", "message": "row", "fields": []}]}
        if kind == "Contact" and old is None and not values.get("LastName"):
            error = {"statusCode": "REQUIRED_FIELD_MISSING", "message": "missing: [LastName]", "fields": ["LastName"]}
            return {"success": False, "errors": [error]}
        number = f"{'003' if kind == 'Contact' else '00T'}{len(self.records[kind]):015}"
        stored = self.records[kind].setdefault(known.lower(), {"Id": number})
        stored |= values
        if kind == "Task" and old is None:
            self.acts.append(stored)
            self.arrived.append(str(stored.get("Cdp_Operation__c", "")))
        elif kind == "Contact" and stored.get("Cdp_Vip__c", True):
            self.take(label)
        elif kind == "Contact":
            self.members.discard(label)
        return {"id": stored["Id"], "success": True, "errors": [], "created": old is None}

    def _query(self, query: str) -> Answer:
        found = re.fullmatch(r"SELECT Id, (\w+) FROM (\w+) WHERE \1 IN \((.*)\)( AND IsActive = true)?", query)
        if found is None:
            return self._refused(400, "MALFORMED_QUERY", query)
        field, kind, listed, active = found.groups()
        wanted = [re.sub(r"\\(.)", r"\1", text) for text in re.findall(r"'((?:[^'\\]|\\.)*)'", unquote(listed))]
        if kind == "User":
            rows = [{"Id": self.users[email][0], field: email} for email in wanted
                    if email in self.users and (self.users[email][1] or not active)]  # fmt: skip
        else:
            rows = [{"Id": record["Id"], field: record[field]} for text in wanted
                    if (record := self.records[kind].get(text.lower()))]  # fmt: skip
        return Answer(body={"totalSize": len(rows), "done": True, "records": rows})

    def _refused(self, code: int, error: str, message: str) -> Answer:
        return Answer(code, body=[{"errorCode": error, "message": message}])


@contextmanager
def bench(folder: Path) -> Iterator[PeopleBench]:
    fake = FakeSalesforce()
    fake.records["Contact"]["ann-1@example.com"] = {"Id": "003A", "LastName": "A", "Cdp_Email__c": "ann-1@example.com"}
    with Receiver(fake) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        yield PeopleBench(
            salesforce(url),
            arrived=lambda: list(fake.arrived),
            absent=salesforce(f"http://127.0.0.1:{free_port()}"),
            locked=salesforce(url, client_secret="revoked"),
            held=fake.held,
            waits=timedelta(seconds=45),
            data=lambda email: {"Cdp_Email__c": email, "LastName": "Zoë"},
            key="Cdp_Email__c",
        )
