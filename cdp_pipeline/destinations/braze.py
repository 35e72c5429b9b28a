"""Braze: attributes of users, membership as an array of audience names, and custom events.

Braze knows no event again: one whose fate is unknown is never repeated. Attributes may be set twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cdp_pipeline.activation.protocol import Delivery, Outcome
from cdp_pipeline.destinations.api import (
    STATE_KINDS,
    ApiConnection,
    Call,
    Round,
    Said,
    fields,
    groups,
    listed,
    parted,
    refused,
    source,
    strange,
    told,
    told_in,
)
from cdp_pipeline.destinations.http import Answer
from cdp_pipeline.spec.destination import Braze

FOUND_BY = ("external_id", "braze_id", "email", "phone")
AUDIENCES = "cdp_audiences"
LONGEST_WAIT = timedelta(hours=1)


def connect(spec: Braze) -> BrazeConnection:
    return BrazeConnection(spec, spec.api_key)


def named(data: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Whom Braze finds by the first of these that is there, and what else is said about them."""
    which = next((name for name in FOUND_BY if data.get(name)), None)
    if which is None:
        return {}, dict(data)
    return {which: str(data[which])}, {name: value for name, value in data.items() if name != which}


class BrazeConnection(ApiConnection[Braze]):
    """Tracks up to 75 attributes or 75 events a call; an answer names the refused ones by their place."""

    batch_size = 75
    repeatable = STATE_KINDS

    def calls(self, batch: Sequence[Delivery]) -> Iterable[tuple[Sequence[Delivery], Call]]:
        known, nobody = parted(batch, lambda each: named(fields(each))[0])
        if nobody:
            yield nobody, lambda part, at: refused(part, f"none of {', '.join(FOUND_BY)} in its mapping")
        for part in groups(known):
            if states := [each for each in part if each.kind in STATE_KINDS]:
                yield states, self._attributes
            if events := [each for each in part if each.kind not in STATE_KINDS]:
                yield events, self._events

    def _attributes(self, part: Sequence[Delivery], at: Round) -> Said:
        return self._track("attributes", part, [self._attribute(each) for each in part], at)

    def _attribute(self, delivery: Delivery) -> dict[str, object]:
        who, rest = named(fields(delivery))
        if delivery.kind == "remove":
            # Nobody is made a user by being taken out.
            return {**who, "_update_existing_only": True, AUDIENCES: {"remove": [source(delivery)]}}
        return {**who, "_update_existing_only": False, **rest, AUDIENCES: {"add": [source(delivery)]}}

    def _events(self, part: Sequence[Delivery], at: Round) -> Said:
        return self._track("events", part, [self._event(each, at) for each in part], at)

    def _event(self, delivery: Delivery, at: Round) -> dict[str, object]:
        who, rest = named(fields(delivery))
        name = source(delivery)
        name = f"{delivery.kind} {name}" if delivery.kind in ("entered", "left") else name
        return {**who, "name": name, "time": at.now.strftime("%Y-%m-%dT%H:%M:%SZ"), "properties": rest}

    def _track(self, what: str, part: Sequence[Delivery], objects: Sequence[Mapping[str, object]], at: Round) -> Said:
        answer = _waits(self.request("POST", "/users/track", {what: list(objects)}, at), at.now)
        if answer.state != "delivered":
            return answer
        if told_in(answer).get("message") != "success":
            return strange(answer)
        outcomes = dict[str, Outcome]()
        for error in listed(answer, "errors"):
            place = error.get("index")
            if error.get("input_array") == what and isinstance(place, int) and 0 <= place < len(part):
                # What kind of error it is, Braze says in prose only.
                reason = f"HTTP {answer.code}: refused by Braze"
                op_id = part[place].op_id
                outcomes[op_id] = Outcome(op_id, "failed", reason, code=answer.code)
        return told(part, outcomes, answer)


def _waits(answer: Answer, now: datetime) -> Answer:
    """A 429 says in X-RateLimit-Reset, in seconds since 1970, when calls are let through again."""
    reset = answer.headers.get("x-ratelimit-reset", "")
    if answer.code != 429 or answer.after is not None or not reset.isdigit() or len(reset) > 11:
        return answer
    wait = timedelta(seconds=math.ceil((datetime.fromtimestamp(int(reset), UTC) - now).total_seconds()))
    return replace(answer, after=min(max(wait, timedelta(0)), LONGEST_WAIT))
