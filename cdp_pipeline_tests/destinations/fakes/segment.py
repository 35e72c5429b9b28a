"""Segment's and RudderStack's /v1/batch: one answer for the whole call, messages known again by their messageId.

Like RudderStack it refuses a wrong write key (Segment says 200 to it). What is too long is 400, for all of a call.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from cdp_pipeline.spec.destination import Segment
from cdp_pipeline_tests.destinations.fakes import shapes
from cdp_pipeline_tests.destinations.fakes.people import ALLOWED, DESCRIPTION, Fake, PeopleBench, treated
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port

KEY = "a-write-key-that-only-tests-know"


def segment(url: str, **fields: Any) -> Segment:
    return Segment(kind="destination", type="segment", description=DESCRIPTION, url=url,
                   **{**ALLOWED, "write_key": KEY, **fields})  # fmt: skip


class FakeSegment(Fake):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.messages: list[dict[str, Any]] = []

    def answer(self, request: Received) -> Answer:
        if request.path != "/v1/batch":
            return Answer(404)
        wanted = base64.b64encode(f"{KEY}:".encode()).decode()
        if request.headers["authorization"] != f"Basic {wanted}":
            return Answer(401, body=b"Failed to read writeKey from header")
        if len(request.body) > 500 * 1024:
            return Answer(400, body={"success": False, "message": "malformed JSON"})
        too_long = any(len(json.dumps(each)) > 32 * 1024 for each in request.json["batch"])
        if too_long or shapes.unknown(request.json, shapes.SEGMENT):
            return Answer(400, body={"success": False, "message": "malformed JSON"})
        batch = request.json["batch"]
        labels = [str(each.get("userId")).partition("@")[0] for each in batch]
        if any(treated(label) == "wait" for label in labels):
            return Answer(429, {"Retry-After": "60"})
        before = len(self.arrived)
        for each, label in zip(batch, labels, strict=True):
            if each["messageId"] in self.seen:
                continue
            self.seen.add(each["messageId"])
            self.messages.append(each)
            if each["type"] == "identify" and each["traits"].get("vips") is False:
                self.members.discard(label)
            elif each["type"] == "identify":
                self.take(label)
            else:
                self.arrived.append(label)
        return Answer(hang_up=True) if self.silent(before) else Answer(body={"success": True})


@contextmanager
def bench(folder: Path) -> Iterator[PeopleBench]:
    fake = FakeSegment()
    with Receiver(fake) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        yield PeopleBench(
            segment(url),
            arrived=lambda: list(fake.arrived),
            absent=segment(f"http://127.0.0.1:{free_port()}"),
            locked=segment(url, write_key="revoked"),
            held=fake.held,
            waits=timedelta(seconds=60),
            lacks={"refuse": "answers for a whole call and drops single messages without a word"},
            data=lambda email: {"user_id": email},
            key="user_id",
        )
