"""Meta's custom audience users: says HTTP 400 to nearly everything, and counts invalid entries without naming them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from cdp_pipeline.spec.destination import MetaAudience
from cdp_pipeline_tests.destinations.fakes import shapes
from cdp_pipeline_tests.destinations.fakes.people import ALLOWED, DESCRIPTION, Fake, PeopleBench, treated
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port

TOKEN = "EAAthatonlytestsknow"
# "Customer information parameters", and the option of "Data Processing Options for US Users".
COLUMNS = {"EMAIL", "PHONE", "GEN", "DOBY", "DOBM", "DOBD", "LN", "FN", "ST", "CT", "ZIP", "COUNTRY", "MADID",
           "EXTERN_ID", "DATA_PROCESSING_OPTIONS"}  # fmt: skip


def meta(url: str, **fields: Any) -> MetaAudience:
    return MetaAudience(kind="destination", type="meta_audience", description=DESCRIPTION, url=url,
                        **{**ALLOWED, "token": TOKEN, "audience_id": "23850000", "rate": 20_000, **fields})  # fmt: skip


class FakeMeta(Fake):
    """Knows the hashes of some labels, so that a test can say who was meant."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = {
            hashlib.sha256(f"{name}-{number}@example.com".encode()).hexdigest(): f"{name}-{number}"
            for name in ("ann", "refuse", "wait", "silent") for number in range(600)
        }  # fmt: skip
        self.rows: dict[str, list[str]] = {}

    def answer(self, request: Received) -> Answer:
        if not re.fullmatch(r"/v\d+\.0/23850000/users", request.path) or request.method not in ("POST", "DELETE"):
            return self._refused(100, 33, "Unsupported post request. Object does not exist")
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            return self._refused(190, 463, "Error validating access token: Session has expired")
        payload = request.json["payload"]
        if shapes.unknown(request.json, shapes.META) or not set(payload["schema"]) <= COLUMNS:
            return self._refused(100, None, "Invalid parameter")
        if len(payload["data"]) > 10_000:
            return self._refused(100, 1, "too many")
        place = payload["schema"].index("EMAIL")
        labels = [self.labels.get(row[place], row[place]) for row in payload["data"]]
        if any(treated(label) == "wait" for label in labels):
            usage = {"1234": [{"type": "custom_audience", "call_count": 100, "estimated_time_to_regain_access": 7}]}
            answer = self._refused(80003, None, "There have been too many calls to this ad-account.")
            answer.headers["X-Business-Use-Case-Usage"] = json.dumps(usage)
            return answer
        before = len(self.arrived)
        good = [label for label in labels if treated(label) != "refuse"]
        for row, label in zip(payload["data"], labels, strict=True):
            self.rows[label] = row
        if request.method == "DELETE":
            self.members -= set(good)
        else:
            for label in good:
                self.take(label)
        if self.silent(before):
            return Answer(hang_up=True)
        said = {"audience_id": "23850000", "session_id": "77", "num_received": len(labels),
                "num_invalid_entries": len(labels) - len(good), "invalid_entry_samples": {}}  # fmt: skip
        return Answer(body=said)

    def _refused(self, code: int, subcode: int | None, message: str) -> Answer:
        error = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "A1"}
        return Answer(400, body={"error": error | ({"error_subcode": subcode} if subcode else {})})


@contextmanager
def bench(folder: Path) -> Iterator[PeopleBench]:
    fake = FakeMeta()
    with Receiver(fake) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        yield PeopleBench(
            meta(url),
            arrived=lambda: list(fake.arrived),
            absent=meta(f"http://127.0.0.1:{free_port()}"),
            locked=meta(url, token="EAArevoked"),
            held=fake.held,
            waits=timedelta(minutes=7),
        )
