"""Slack's chat.postMessage: says 200 to nearly everything and tells in `ok` and `error` what it means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from cdp_pipeline.spec.destination import Slack
from cdp_pipeline_tests.destinations.kit import Bench, label_in
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port

TOKEN = "xoxb-a-bot-that-only-tests-know"


def slack(url: str, **fields: Any) -> Slack:
    given = {"name": "team", "dry_run": False, "rate": 1000, "allow_private": True, "to": "#service", "token": TOKEN}
    return Slack(kind="destination", type="slack", description="Our channel.", url=url, **{**given, **fields})


class FakeSlack:
    """Keeps the messages that were posted; `posted` in the order in which they came."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []

    def __call__(self, request: Received) -> Answer:
        if request.path != "/api/chat.postMessage":
            return Answer(404)
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            return Answer(body={"ok": False, "error": "invalid_auth"})
        message = request.json
        match label_in(message["text"]).partition("-")[0]:
            case "refuse":
                return Answer(body={"ok": False, "error": "msg_too_long"})
            case "wait":
                return Answer(429, {"Retry-After": "30"}, body={"ok": False, "error": "ratelimited"})
        self.posted.append(message)
        if label_in(message["text"]).startswith("silent"):
            return Answer(hang_up=True)
        return Answer(body={"ok": True, "ts": f"{len(self.posted)}.0", "message": message})


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    fake = FakeSlack()
    with Receiver(fake) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/api"
        yield Bench(
            slack(url),
            arrived=lambda: [label_in(message["text"]) for message in fake.posted],
            absent=slack(f"http://127.0.0.1:{free_port()}"),
            locked=slack(url, token="xoxb-revoked"),
            waits=timedelta(seconds=30),
        )
