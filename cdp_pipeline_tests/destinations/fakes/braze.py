"""Braze's /users/track: at most 75 of a kind a call, refusals by place beside a success, and no memory of events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from cdp_pipeline.spec.destination import Braze
from cdp_pipeline_tests.activation.projects import NOW
from cdp_pipeline_tests.destinations.fakes.people import ALLOWED, DESCRIPTION, Fake, PeopleBench, treated
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port

KEY = "a-rest-key-that-only-tests-know"


def braze(url: str, **fields: Any) -> Braze:
    return Braze(kind="destination", type="braze", description=DESCRIPTION, url=url,
                 **{**ALLOWED, "api_key": KEY, **fields})  # fmt: skip


class FakeBraze(Fake):
    def __init__(self) -> None:
        super().__init__()
        self.users: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def answer(self, request: Received) -> Answer:
        if request.path != "/users/track":
            return Answer(404)
        if request.headers["authorization"] != f"Bearer {KEY}":
            return Answer(401, body={"message": "Invalid API key: revoked"})
        asked = request.json
        labels = [
            str(each["email"]).partition("@")[0] for each in [*asked.get("attributes", ()), *asked.get("events", ())]
        ]
        if max(len(asked.get("attributes", ())), len(asked.get("events", ()))) > 75:
            return Answer(400, body={"message": "too many"})
        if any(treated(label) == "wait" for label in labels):
            # To the nearest second, as Braze counts.
            return Answer(429, {"X-RateLimit-Reset": str(int(NOW.timestamp()) + 40)}, body={"message": "Rate limited"})
        before, errors = len(self.arrived), []
        for what in ("attributes", "events"):
            for i, each in enumerate(asked.get(what, ())):
                if treated(each["email"].partition("@")[0]) == "refuse":
                    said = f"'{each['email']}' is not a valid email"
                    errors.append({"type": said, "input_array": what, "index": i})
                elif what == "events":
                    self.events.append(each)
                    self.arrived.append(each["email"].partition("@")[0])
                else:
                    self._set(each)
        if self.silent(before):
            return Answer(hang_up=True)
        return Answer(
            201, body={"message": "success", "attributes_processed": 1} | ({"errors": errors} if errors else {})
        )

    def _set(self, each: dict[str, Any]) -> None:
        email = each["email"]
        if each["_update_existing_only"] and email not in self.users:
            return
        user = self.users.setdefault(email, {"cdp_audiences": set()})
        user["cdp_audiences"] |= set(each["cdp_audiences"].get("add", ()))
        user["cdp_audiences"] -= set(each["cdp_audiences"].get("remove", ()))
        user |= {name: value for name, value in each.items() if name not in ("cdp_audiences", "_update_existing_only")}
        if "vips" in user["cdp_audiences"]:
            self.take(email.partition("@")[0])
        else:
            self.members.discard(email.partition("@")[0])


@contextmanager
def bench(folder: Path) -> Iterator[PeopleBench]:
    fake = FakeBraze()
    with Receiver(fake) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        yield PeopleBench(
            braze(url),
            arrived=lambda: list(fake.arrived),
            absent=braze(f"http://127.0.0.1:{free_port()}"),
            locked=braze(url, api_key="revoked"),
            held=fake.held,
            waits=timedelta(seconds=40),
        )
