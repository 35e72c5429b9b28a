"""A small world for the tests of consent: people with identifiers, letters that are sent, and what leaves the house."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

import duckdb
import pyarrow as pa

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.gates import ContactGates
from cdp_pipeline.activation.ledger import Ledger, Op, operation_id
from cdp_pipeline.activation.protocol import Delivery, Outcome
from cdp_pipeline.consent.ledger import Decision, Identifier, Reason, Said, Suppression, open_consents
from cdp_pipeline.consent.subjects import Everybody, Subject
from cdp_pipeline.spec.consent import Consent
from cdp_pipeline.spec.contact_policy import ContactPolicy
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.identifier import Identifier as IdentifierType
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.activation.projects import mail, project, trigger, webhook

EMAIL, PHONE = (
    IdentifierType(kind="identifier", name=name, description="An address.", priority=500) for name in ("email", "phone")
)


def consent(**fields: Any) -> Consent:
    given = {
        "name": "consent",
        "description": "Who permits what.",
        "purposes": {"marketing": {"default": "unknown"}, "service": {"default": "yes"}},
        "channels": {"email": {"purposes": ["marketing"]}},
    }
    return Consent.model_validate({"kind": "consent", **given, **fields})


def policy(**fields: Any) -> ContactPolicy:
    given = {"kind": "contact_policy", "name": "contacts", "description": "How often, and when."}
    return ContactPolicy.model_validate({**given, **fields})


def shop(*documents: Any, **settings: Any) -> Project:
    """A project with letters, texts and a tool of its own, an offer, a reminder and a letter about an order."""
    acts = {
        "offer": {"purpose": "marketing", "do": [{"destination": "mail"}]},
        "reminder": {"purpose": "marketing", "priority": 500, "do": [{"destination": "mail"}]},
        "order_sent": {"purpose": "service", "do": [{"destination": "mail"}]},
        "task": {"purpose": "service", "do": [{"destination": "tool"}]},
    }
    triggers = [trigger(name=name, **fields) for name, fields in acts.items()]
    tools = (
        mail(1),
        webhook("http://127.0.0.1:1/", name="texts", channel="sms"),
        webhook("http://127.0.0.1:1/", name="tool"),
    )
    return project(*tools, *triggers, EMAIL, PHONE, *documents, **settings)


@dataclass
class Town:
    """Who is who, by living person; `merged` are ids that lead to another."""

    identifiers: dict[str, set[Identifier]] = field(default_factory=dict)
    merged: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, dict[str, object]] = field(default_factory=dict)

    def living(self, person_id: str) -> str:
        while person_id in self.merged:
            person_id = self.merged[person_id]
        return person_id

    def of(self, person_ids: Collection[str]) -> Mapping[str, Subject]:
        return {
            asked: Subject(
                person_id,
                (person_id, *(alias for alias in self.merged if self.living(alias) == person_id)),
                tuple(theirs),
                self.attributes.get(person_id, {}),
            )
            for asked in person_ids
            if (theirs := self.identifiers.get(person_id := self.living(asked), set()))
        }

    def everybody(self) -> Everybody:
        """The same as tables in a DuckDB of its own."""
        names = sorted({name for known in self.attributes.values() for name in known})
        ids = [*self.identifiers, *self.merged]
        owned = [(person_id, *one) for person_id, theirs in self.identifiers.items() for one in sorted(theirs)]
        known = [(one, *map(theirs.get, names)) for one, theirs in self.attributes.items()]
        tables = {
            "people": (("person_id", "merged_into"), [
                (one, self.living(one) if one in self.merged else None) for one in ids
            ]),
            "identifiers": (("person_id", "type", "value"), owned),
            "attributes": (("person_id", *names), known),
        }  # fmt: skip
        connection = duckdb.connect()
        for name, (columns, rows) in tables.items():
            texts = [pa.array([row[n] for row in rows], pa.string()) for n in range(len(columns))]
            connection.register(name, pa.table(texts, names=columns))
        return Everybody(connection, *tables, tuple(names))


class World:
    """A ledger, a town and a post office that remembers everything it was given."""

    def __init__(self, ledger: Ledger, whole: Project, town: Town) -> None:
        self.ledger, self.project, self.town = ledger, whole, town
        self.consents = open_consents(ledger)
        self.sent: list[tuple[datetime, str]] = []
        self.before_sending: Callable[[Delivery, datetime], str] = lambda _delivery, _now: "delivered"
        self._number = 0

    def say(self, identifier: Identifier, about: str, decision: Decision, at: datetime) -> None:
        self._number += 1
        self.consents.record([Said(f"said-{self._number}", identifier, about, decision, at, "tests")], at)

    def suppress(self, identifier: Identifier, reason: Reason, at: datetime, channel: str | None = None) -> None:
        self._number += 1
        self.consents.suppress([Suppression(f"out-{self._number}", identifier, reason, at, "tests", channel)])

    def decide(
        self, origin: str, person_id: str, at: datetime, destination: str = "mail", kind: str = "act",
        payload: dict[str, object] | None = None,
    ) -> str:  # fmt: skip
        self._number += 1
        op_id = operation_id(self._number)
        said = payload if payload is not None else {"to": f"{person_id}@example.com"}
        op = Op(op_id, origin, destination, person_id, kind, said, str(self._number), str(self._number))
        self.ledger.send_once([op], at)
        return op_id

    def post(self, now: datetime) -> dict[str, str]:
        """Deliver what is due; by op_id the state everything decided so far is in, with the reason if there is one."""

        def connect(_spec: Destination) -> _Post:
            return _Post(self)

        gates = ContactGates(self.ledger, self.project, self.consents, self.town)
        deliver(self.ledger, self.project, now=now, connect=connect, gates=gates)
        everyone = [*self.town.identifiers, *self.town.merged, ""]
        return {
            str(row["op_id"]): str(row["reason"] if row["reason"] else row["state"])
            for row in self.ledger.about(everyone)
        }


class _Post:
    batch_size, repeatable = 100, True

    def __init__(self, world: World) -> None:
        self._world = world

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        outcomes = []
        for delivery in batch:
            state = self._world.before_sending(delivery, now)
            if state == "delivered":
                self._world.sent.append((now, delivery.op_id))
            outcomes.append(Outcome(delivery.op_id, state))  # type: ignore[arg-type]
        return outcomes
