"""What the fakes of CRMs, ad platforms and marketing tools share: people by their e-mail, and how each is treated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cdp_pipeline.activation.protocol import Delivery, Outcome
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline_tests.activation.projects import NOW
from cdp_pipeline_tests.destinations.kit import Bench
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver

DESCRIPTION = "A service of another house."
ALLOWED: dict[str, Any] = {"name": "there", "dry_run": False, "rate": 1000, "allow_private": True}


def treated(label: str) -> str:
    """What is to happen to a label: `wait-3` waits."""
    return label.partition("-")[0]


@dataclass
class PeopleBench(Bench):
    """A bench whose people are known by an e-mail of their own, `ann-1@example.com`."""

    data: Callable[[str], dict[str, object]] = field(default=lambda email: {"email": email})
    key: str = "email"

    def delivery(self, name: str, number: int = 0) -> Delivery:
        label = f"{name}-{number}"
        data = {**self.data(f"{label}@example.com"), "given_name": "Zoë", "nothing": None}
        payload = {"type": "sync.vips", "key": data[self.key], "member": True, "data": data}
        return Delivery(label, "add", payload)

    def removal(self, name: str, number: int = 0) -> Delivery:
        label = f"{name}-{number}"
        known = {self.key: self.data(f"{label}@example.com")[self.key]}
        payload = {"type": "sync.vips", "key": known[self.key], "member": False, "data": known}
        return Delivery(f"remove-{label}", "remove", payload)

    def act(self, name: str, number: int = 0) -> Delivery:
        added = self.delivery(name, number)
        words = {word: f"Words for Zoë about {word}" for word in self.spec.words}
        payload = {"type": "trigger.slipping", "timestamp": "2026-03-09", "occasion": "2026-03-09", **words}
        return Delivery(added.op_id, "act", {**payload, "data": added.payload["data"]})


class Fake:
    """An API that keeps what took effect: labels as they `arrived`, the `members` it holds now, and `acts`."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.members: set[str] = set()
        self.acts: list[Any] = []
        self.requests: list[Received] = []

    def __call__(self, request: Received) -> Answer:
        self.requests.append(request)
        return self.answer(request)

    def answer(self, request: Received) -> Answer:
        raise NotImplementedError

    def take(self, label: str) -> None:
        """Somebody is there: an effect, unless they were before."""
        if label not in self.members:
            self.members.add(label)
            self.arrived.append(label)

    def silent(self, before: int) -> bool:
        """Whether the answer to what has just taken effect, after the first `before`, is lost."""
        return any(treated(label) == "silent" for label in self.arrived[before:])

    def held(self) -> set[str]:
        return set(self.members)

    def asked(self, method: str, path: str) -> int:
        """How many requests of this kind were made."""
        return sum(each.method == method and path in each.path for each in self.requests)


def member(label: str, kind: str = "add", sync: str = "vips", **data: object) -> Delivery:
    """What a sync sends about somebody, keyed by `label@example.com` unless the data says otherwise."""
    data = data or {"email": f"{label}@example.com"}
    payload = {"type": f"sync.{sync}", "key": next(iter(data.values())), "member": kind != "remove", "data": data}
    return Delivery(f"{sync}-{kind}-{label}", kind, payload)


def act(label: str, trigger: str = "low_nps", words: dict[str, str] | None = None, **data: object) -> Delivery:
    """What a trigger sends about somebody."""
    payload = {"type": f"trigger.{trigger}", "timestamp": "2026-03-09", "occasion": "crossed:nps", **(words or {})}
    return Delivery(f"{trigger}-{label}", "act", {**payload, "data": data or {"email": f"{label}@example.com"}})


@contextmanager
def sent(
    fake: Callable[[Received], Answer], spec: Callable[..., Destination], **fields: Any
) -> Iterator[Callable[..., dict[str, Outcome]]]:
    """Deliver to a fake over one connection; outcomes by op_id."""
    with Receiver(fake) as receiver, destination_for(spec(f"http://127.0.0.1:{receiver.port}", **fields)) as there:

        def send(*batch: Delivery, now: datetime = NOW, within: timedelta = timedelta(minutes=1)) -> dict[str, Outcome]:
            return {outcome.op_id: outcome for outcome in there.deliver(batch, now=now, within=within)}

        yield send


def states(outcomes: dict[str, Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes.values()]
