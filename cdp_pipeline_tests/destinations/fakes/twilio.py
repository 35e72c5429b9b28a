"""Twilio's Messages resource: a form in, JSON with Twilio's own error code out."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from cdp_pipeline.spec.destination import Twilio
from cdp_pipeline_tests.destinations.kit import Bench, label_in
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port

ACCOUNT, SECRET = "AC0123456789", "a token that only tests know"
NUMBERS = {
    "ann": "+4915112345601",
    "refuse": "+4915112345602",
    "wait": "+4915112345603",
    "silent": "+4915112345604",
}


def twilio(url: str, **fields: Any) -> Twilio:
    given = {"name": "sms", "dry_run": False, "rate": 1000, "allow_private": True, "account": ACCOUNT,
             "secret": SECRET, "sender": "+4915100000000"}  # fmt: skip
    return Twilio(kind="destination", type="twilio", description="Texts.", url=url, **{**given, **fields})


class FakeTwilio:
    """Keeps the forms of the messages it took, in order."""

    def __init__(self) -> None:
        self.sent: list[dict[str, str]] = []

    def __call__(self, request: Received) -> Answer:
        if request.path != f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json":
            return Answer(404, body={"code": 20404, "status": 404, "message": "not found"})
        login = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
        if login != f"{ACCOUNT}:{SECRET}":
            return Answer(401, body={"code": 20003, "status": 401, "message": "Authenticate"})
        form = request.form
        match form["To"]:
            case number if number == NUMBERS["refuse"]:
                said = f"Attempt to send to unsubscribed recipient {number}"
                return Answer(400, body={"code": 21610, "status": 400, "message": said})
            case number if number == NUMBERS["wait"]:
                return Answer(429, {"Retry-After": "60"}, body={"code": 20429, "status": 429, "message": "Too many"})
        self.sent.append(form)
        if form["To"] == NUMBERS["silent"]:
            return Answer(hang_up=True)
        return Answer(201, body={"sid": f"SM{len(self.sent)}", "status": "queued", "to": form["To"]})


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    fake = FakeTwilio()
    with Receiver(fake) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        yield Bench(
            twilio(url),
            arrived=lambda: [label_in(form["Body"]) for form in fake.sent],
            absent=twilio(f"http://127.0.0.1:{free_port()}"),
            locked=twilio(url, secret="another token"),
            waits=timedelta(seconds=60),
            addresses=NUMBERS,
        )
