"""What activation hands to a destination and what it hears back: the port every connector in destinations/ implements.

It stands here, not beside the connectors, because a row walks from activation to destinations and imports do not
walk back. No connector and no ledger here.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta
from functools import cached_property
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self

from cdp_pipeline.spec.destination import Destination

AddressIs = Literal["dead", "unsubscribed"]
OutcomeState = Literal["delivered", "retry", "failed", "unknown", "untried", "suppressed", "waits", "accepted"]


class Delivery(NamedTuple):
    """One operation to carry out. `op_id` is the idempotency key: the same operation always has the same one.

    `reference`: what the other side called it when it accepted it earlier; then it is asked what became of it.
    """

    op_id: str
    kind: str
    payload: Mapping[str, object]
    reference: str = ""


class Outcome(NamedTuple):
    """What became of one delivery.

    delivered: the other side confirmed it. retry: not (surely) done, worth another try, not before `after`.
    failed: refused for good. unknown: may have arrived and must not be repeated. untried: not attempted at all.
    suppressed: a gate refused it for good. waits: a gate lets it through no earlier than `after` from now.
    accepted: taken, and processed later; asked again after `after`, by the `reference` the other side gave.
    `address`: what the other side says of the address, whatever is sent there: it will not work tomorrow either
    ('dead'), or its owner told them to hear no more ('unsubscribed').
    `refused_us`: not the operation was refused but our key or login, so that nothing more is worth trying.
    `reason` holds codes and our own words, never what the other side echoed: that may name people.
    """

    op_id: str
    state: OutcomeState
    reason: str = ""
    after: timedelta | None = None
    code: int | None = None
    reference: str = ""
    refused_us: bool = False
    address: AddressIs | None = None


class Closing(ABC):
    """A context that closes itself: the ledger, and every open line to a destination."""

    @abstractmethod
    def close(self) -> None:
        """Hang up; a second time is no mistake."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DestinationConnection(AbstractContextManager["DestinationConnection"], Protocol):
    """An open line to one destination."""

    batch_size: int

    @property
    def repeatable(self) -> bool | frozenset[str]:
        """True: sending the same op_id twice has one effect, so a doubtful delivery may be repeated.

        Or the kinds of operations for which that is so.
        """

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        """One outcome per delivery, in order, in about `within`; what there was no time for is 'untried'."""

    def close(self) -> None: ...


def may_repeat(repeatable: bool | frozenset[str], kind: str) -> bool:
    """Whether an operation of this kind whose fate nobody knows may be carried out again."""
    return repeatable if isinstance(repeatable, bool) else kind in repeatable


Connect = Callable[[Destination], DestinationConnection]


class DestinationError(Exception):
    """A destination cannot be used as it is declared."""


def _plain(value: object) -> object:
    """What JSON cannot say, said as text; a number that is none (NaN, infinity) is null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)


class Payload(Mapping[str, object]):
    """A payload out of its canonical JSON, which it keeps: what is sent is the very text that was decided."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def _read(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.text)
        return found

    def __getitem__(self, name: str) -> object:
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


def read_together(payloads: Iterable[Mapping[str, object]]) -> None:
    """Read many payloads that will be asked what they hold: at once it takes half as long as one by one."""
    unread = [one for one in payloads if isinstance(one, Payload)]
    for one, found in zip(unread, json.loads(f"[{','.join(one.text for one in unread)}]"), strict=True):
        one._read = found


def canonical_json(payload: Mapping[str, object]) -> str:
    """The one JSON text of a payload: what is hashed, kept, shown in a dry run and sent. Money stays exact, as text."""
    if isinstance(payload, Payload):
        return payload.text
    try:
        return _ENCODER.encode(payload)
    except (ValueError, TypeError):
        return _ENCODER.encode(_plain(payload))


# What it cannot say at all, such as a date, is said by _plain; at a number that is none, everything is.
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain
)  # fmt: skip
