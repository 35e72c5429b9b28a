"""A receiver of signed webhooks that knows an operation again by its webhook-id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from cdp_pipeline_tests.activation.projects import webhook
from cdp_pipeline_tests.destinations.kit import Bench
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port


def _answer(request: Received) -> Answer:
    match request.headers["webhook-id"].partition("-")[0]:
        case "refuse":
            return Answer(422, applied=False)
        case "wait":
            return Answer(429, {"Retry-After": "120"}, applied=False)
        case "silent":
            return Answer(hang_up=True)
    return Answer()


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    def answer(request: Received) -> Answer:
        if "locked" in request.path:
            return Answer(401, applied=False)
        return _answer(request)

    with Receiver(answer) as receiver:
        yield Bench(
            webhook(receiver.url),
            arrived=lambda: list(receiver.order),
            absent=webhook(f"http://127.0.0.1:{free_port()}/"),
            locked=webhook(receiver.url + "/locked"),
            waits=timedelta(seconds=120),
        )
