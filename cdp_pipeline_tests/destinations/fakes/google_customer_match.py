"""Google's Data Manager API: a request with a bad member is refused whole, a good one is processed later.

`takes_until`: how many questions it answers with PROCESSING before a request is done.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from cdp_pipeline.spec.destination import GoogleCustomerMatch
from cdp_pipeline_tests.destinations.fakes import shapes
from cdp_pipeline_tests.destinations.fakes.people import ALLOWED, DESCRIPTION, Fake, PeopleBench, treated
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port

REFRESH = "1//a-refresh-token-that-only-tests-know"


def google(url: str, **fields: Any) -> GoogleCustomerMatch:
    given = {
        "token_url": f"{url}/token", "client_id": "tests.apps", "client_secret": "GOCSPX-tests", "list_id": "99",
        "refresh_token": REFRESH, "account_id": "1234567890", "ad_user_data": "granted", "rate": 20_000,
    }  # fmt: skip
    return GoogleCustomerMatch(kind="destination", type="google_customer_match", description=DESCRIPTION, url=url,
                               **{**ALLOWED, **given, **fields})  # fmt: skip


class FakeGoogle(Fake):
    def __init__(self, takes_until: int = 0, ends: str = "SUCCESS") -> None:
        super().__init__()
        self.takes_until, self.ends = takes_until, ends
        self.labels = {
            hashlib.sha256(f"{name}-{number}@example.com".encode()).hexdigest(): f"{name}-{number}"
            for name in ("ann", "refuse", "wait", "silent") for number in range(600)
        }  # fmt: skip
        self.questions: Counter[str] = Counter()
        self.asked_for: list[dict[str, Any]] = []
        self.tokens = 0
        self.valid: set[str] = set()

    def answer(self, request: Received) -> Answer:
        if request.path == "/token":
            if request.form.get("refresh_token") != REFRESH:
                return Answer(400, body={"error": "invalid_grant", "error_description": "Bad Request"})
            self.tokens += 1
            self.valid.add(f"ya29-{self.tokens}")
            return Answer(body={"access_token": f"ya29-{self.tokens}", "expires_in": 3599, "token_type": "Bearer"})
        if request.headers["authorization"].removeprefix("Bearer ") not in self.valid:
            return self._refused(401, "UNAUTHENTICATED", [])
        if request.method == "GET" and request.path.startswith("/v1/requestStatus:retrieve?requestId="):
            return self._status(request.path.partition("=")[2])
        if request.path not in ("/v1/audienceMembers:ingest", "/v1/audienceMembers:remove"):
            return Answer(404)
        asked = request.json
        shape = shapes.GOOGLE_INGEST if request.path.endswith("ingest") else shapes.GOOGLE_REMOVE
        if shapes.unknown(asked, shape) or len(asked["audienceMembers"]) > 10_000:
            return self._refused(400, "INVALID_ARGUMENT", [])
        if asked["destinations"][0]["productDestinationId"] != "99":
            listed = {"field": "destinations[0].product_destination_id", "reason": "INVALID_USER_LIST_ID"}
            return self._refused(400, "INVALID_ARGUMENT", [listed], "INVALID_USER_LIST_ID")
        labels = [
            self.labels.get(each["userData"]["userIdentifiers"][0].get("emailAddress", ""), "unknown")
            for each in asked["audienceMembers"]
        ]
        if any(treated(label) == "wait" for label in labels):
            answer = self._refused(429, "RESOURCE_EXHAUSTED", [])
            answer.headers["Retry-After"] = "90"
            return answer
        bad = [
            {
                "field": f"audience_members[{i}].user_data.user_identifiers[0].email_address",
                "description": f"{label} is malformed",
                "reason": "INVALID_SHA256_FORMAT",
            }
            for i, label in enumerate(labels)
            if treated(label) == "refuse" or any(not self._hashed(each) for each in
                                                 asked["audienceMembers"][i]["userData"]["userIdentifiers"])
        ]  # fmt: skip
        if bad:
            return self._refused(400, "INVALID_ARGUMENT", bad)
        self.asked_for.append(asked)
        before = len(self.arrived)
        for label in labels:
            if request.path.endswith("remove"):
                self.members.discard(label)
            else:
                self.take(label)
        if self.silent(before):
            return Answer(hang_up=True)
        return Answer(body={"requestId": f"126365e1-{len(self.asked_for)}"})

    def _status(self, number: str) -> Answer:
        self.questions[number] += 1
        done = self.questions[number] > self.takes_until
        status: dict[str, Any] = {"requestStatus": self.ends if done else "PROCESSING"}
        if done and self.ends != "SUCCESS":
            reason = "PROCESSING_ERROR_REASON_INVALID_CUSTOM_VARIABLE"
            status["errorInfo"] = {"errorCounts": [{"recordCount": "2", "reason": reason}]}
        return Answer(body={"requestStatusPerDestination": [status]})

    def _hashed(self, identifier: dict[str, Any]) -> bool:
        """In hex what has to be hashed, and a country in two letters: INVALID_COUNTRY_CODE otherwise."""
        address = identifier.get("address", {})
        hashes = [identifier.get("emailAddress"), identifier.get("phoneNumber"), address.get("givenName"),
                  address.get("familyName")]  # fmt: skip
        return all(re.fullmatch("[0-9a-f]{64}", each) for each in hashes if each is not None) and (
            not address or re.fullmatch("[A-Z]{2}", address["regionCode"]) is not None
        )

    def _refused(self, code: int, status: str, violations: list[dict[str, str]], why: str = "") -> Answer:
        details: list[dict[str, Any]] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": why or status}]
        if violations:
            details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations})
        return Answer(code, body={"error": {"code": code, "status": status, "message": "m", "details": details}})


@contextmanager
def bench(folder: Path) -> Iterator[PeopleBench]:
    fake = FakeGoogle()
    with Receiver(fake) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        yield PeopleBench(
            google(url),
            arrived=lambda: list(fake.arrived),
            absent=google(f"http://127.0.0.1:{free_port()}"),
            locked=google(url, refresh_token="1//revoked"),
            held=fake.held,
            waits=timedelta(seconds=90),
        )
