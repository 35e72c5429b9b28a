"""Segment's HTTP API, and RudderStack's, which is the same: identify calls for members, track calls for what happens.

Each message carries the operation's id as messageId, by which a repeated one is known.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from cdp_pipeline.activation.protocol import Delivery
from cdp_pipeline.destinations.api import ApiConnection, Call, Round, fields, refused, source
from cdp_pipeline.destinations.http import Answer, json_bytes
from cdp_pipeline.spec.destination import Segment

MOST_IN_A_MESSAGE, MOST_IN_A_CALL = 32_000, 480_000
KNOWN_FOR = timedelta(days=1)
"""How long Segment remembers a messageId."""


def connect(spec: Segment) -> SegmentConnection:
    return SegmentConnection(spec)


def message(delivery: Delivery) -> dict[str, object] | None:
    """The call a delivery makes; None where it names nobody.

    Who they are: `user_id` or `anonymous_id` of the mapping, else the sync's key, else the person's id.
    """
    data, name = fields(delivery), source(delivery)
    user, anonymous = data.pop("user_id", None), data.pop("anonymous_id", None)
    if not user and not anonymous:
        user = delivery.payload.get("key") or data.get("person_id")
    who = {"userId": str(user)} if user else {"anonymousId": str(anonymous)} if anonymous else None
    if who is None:
        return None
    said: dict[str, object] = {"messageId": delivery.op_id, **who}
    if delivery.kind in ("add", "update", "remove"):
        return {"type": "identify", **said, "traits": {**data, name: delivery.kind != "remove"}}
    if delivery.kind in ("entered", "left"):
        event = "Audience Entered" if delivery.kind == "entered" else "Audience Exited"
        return {"type": "track", **said, "event": event, "properties": {**data, "audience_key": name}}
    if at := delivery.payload.get("timestamp"):
        said["timestamp"] = str(at) if "T" in str(at) else f"{at}T00:00:00Z"
    return {"type": "track", **said, "event": name, "properties": data}


class SegmentConnection(ApiConnection[Segment]):
    """Calls of up to 100 messages and half a megabyte; an answer is for all of a call."""

    repeatable = True

    def __init__(self, spec: Segment) -> None:
        super().__init__(spec)
        self._key = base64.b64encode(f"{spec.write_key}:".encode()).decode()

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Basic {self._key}"}

    def calls(self, batch: Sequence[Delivery]) -> Iterable[tuple[Sequence[Delivery], Call]]:
        part, size = list[Delivery](), 0
        for delivery in batch:
            said = message(delivery)
            length = len(json_bytes(said)) if said is not None else 0
            if said is None:
                yield [delivery], lambda part, at: refused(part, "no user_id and no anonymous_id to name somebody by")
            elif length > MOST_IN_A_MESSAGE:
                # To a call with a message like this one the API says 400, whatever else is in it ("HTTP API: errors").
                yield [delivery], lambda part, at: refused(part, "longer than the 32 KB a message may have")
            else:
                if size + length > MOST_IN_A_CALL:
                    yield part, self._batch
                    part, size = [], 0
                part.append(delivery)
                size += length
        if part:
            yield part, self._batch

    def _batch(self, part: Sequence[Delivery], at: Round) -> Answer:
        return self.request("POST", "/v1/batch", {"batch": [message(each) for each in part]}, at)
