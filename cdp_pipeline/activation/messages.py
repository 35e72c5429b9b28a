"""What an act says to its destination: the fields of its mapping, or a message with its templates filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from cdp_pipeline.activation.ledger import DecidedState
from cdp_pipeline.activation.templates import render
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.template import TemplateError
from cdp_pipeline.spec.trigger import Act


@dataclass(frozen=True)
class Message:
    """The payload of an operation, or why there is none."""

    payload: dict[str, object]
    state: DecidedState = "pending"
    reason: str = ""


def message(
    trigger: str, act: Act, destination: Destination, person: Mapping[str, object], occasion: str, day: date
) -> Message:
    """What is to be sent: for a destination with fields `data` with the mapping, for one with words each of them."""
    mapped = {sent: person.get(name) for sent, name in act.mapping.items()}
    payload: dict[str, object] = {}
    if destination.fields or not destination.words:
        data = mapped or {"person_id": person["person_id"]}
        payload = {"type": f"trigger.{trigger}", "timestamp": day.isoformat(), "occasion": occasion, "data": data}
    if "to" in destination.needed:
        to = person.get(act.to or "email")
        if isinstance(to, list):
            to = next(iter(to), None)  # Of several addresses a union keeps, the first.
        if not to:
            return Message({}, "suppressed", f"no '{act.to or 'email'}' to write to")
        payload["to"] = to
    try:
        for name in destination.words:
            if (text := getattr(act, name)) is not None:
                payload[name] = render(text, mapped, person, html=name == "html")
    except TemplateError as error:
        return Message({}, "failed", str(error))
    return Message(payload)
