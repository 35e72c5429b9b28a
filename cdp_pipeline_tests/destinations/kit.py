"""What a connector brings to the conformance kit: a Bench, that is itself connected to a server that can misbehave.

A new type joins by a file `fakes/<type>.py` with one context manager `bench(folder)` that yields a Bench; the tests are
test_conformance.py's and run for every type of spec/destination.py. A type without that file fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from pathlib import Path

from cdp_pipeline.activation.protocol import Delivery, DestinationConnection
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.destination import DESTINATIONS, Destination

TYPES = sorted(str(each.model_fields["type"].annotation.__args__[0]) for each in DESTINATIONS)  # type: ignore[union-attr]
NAMES = ("ann", "refuse", "wait", "silent")


@dataclass
class Bench:
    """One destination and its server.

    The server does with a delivery what the name in it says: `ann` is taken, `refuse` is refused for good (that one
    alone), `wait` is answered by a request to come back later (whoever shares its call waits as well), `silent` takes
    effect but the answer is lost, the first time.

    `arrived`: the labels (`ann-1`) of what took effect at the server, in order, once per effect: a server that knows an
    operation again has one effect, one that does not has two. `held`: the labels that the destination holds now; None
    where it holds nothing (messages, events). `absent`: the same destination where nobody answers. `locked`: the same
    with a secret that the server refuses. `waits`: how long `wait` asks for, None where the server cannot say.
    `lacks`: what there cannot be at this destination ('refuse', 'wait', 'silent', 'absent', 'locked', 'act') and why.
    `personal`: what must never stand in a log, beside what `delivery` says about people.
    """

    spec: Destination
    arrived: Callable[[], list[str]]
    absent: Destination | None = None
    locked: Destination | None = None
    held: Callable[[], set[str]] | None = None
    waits: timedelta | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=lambda: {name: f"{name}@example.com" for name in NAMES})
    personal: tuple[str, ...] = ()

    def connect(self, spec: Destination | None = None) -> DestinationConnection:
        return destination_for(spec or self.spec)

    def delivery(self, name: str, number: int = 0) -> Delivery:
        """A message to `name`, or for a destination without words a member added by a sync; op_id is the label."""
        label = f"{name}-{number}"
        if self.spec.words:
            words = dict.fromkeys(self.spec.words, f"{name}: words for Zoë, number {number}")
            to = {"to": self.addresses[name]} if "to" in self.spec.needed else {}
            return Delivery(label, "act", {**to, **words})
        data = {"label": label, "email": self.addresses[name], "number": number, "given_name": "Zoë", "city": None}
        return Delivery(label, "add", {"type": "sync.vips", "key": label, "member": True, "data": data})

    def removal(self, name: str, number: int = 0) -> Delivery:
        label = f"{name}-{number}"
        return Delivery(f"remove-{label}", "remove", {"type": "sync.vips", "key": label, "member": False})

    def act(self, name: str, number: int = 0) -> Delivery:
        """A trigger's act; what `delivery` gives already where the destination has words."""
        if self.spec.words:
            return self.delivery(name, number)
        added = self.delivery(name, number)
        payload = {"type": "trigger.slipping", "timestamp": "2026-03-09", "occasion": "2026-03-09"}
        return Delivery(added.op_id, "act", {**payload, "data": added.payload["data"]})

    @property
    def canaries(self) -> list[str]:
        """What no log and no reason may hold: addresses, words, secrets."""
        dumped = self.spec.model_dump()
        fields = type(self.spec).model_fields.items()
        secrets = [
            str(dumped[name])
            for name, each in fields
            if isinstance(each.json_schema_extra, dict) and each.json_schema_extra.get("secret") and dumped[name]
        ]
        return [*self.addresses.values(), *self.personal, *secrets, "Zoë", json.dumps("Zoë").strip('"')]


def label_in(text: str) -> str:
    """The label of the delivery that a message with these words belongs to; empty where it is none of ours."""
    found = re.search(r"(\w+): words for Zoë, number (\d+)", text)
    return f"{found[1]}-{found[2]}" if found else ""


@contextmanager
def bench_of(kind: str, folder: Path) -> Iterator[Bench]:
    """The bench of a type; a type that brings none is an error."""
    with import_module(f"cdp_pipeline_tests.destinations.fakes.{kind}").bench(folder) as made:
        yield made
