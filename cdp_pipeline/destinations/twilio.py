"""Twilio: one text message (SMS) per operation.

Its API knows no idempotency key, so a message whose fate is unknown is never repeated. What becomes of a message after
Twilio has taken it comes back by a status callback, which is not read here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from urllib.parse import urlencode

from cdp_pipeline.activation.protocol import AddressIs, Delivery, Outcome
from cdp_pipeline.destinations.connection import Connection
from cdp_pipeline.destinations.http import Answer, HttpClient, one_by_one
from cdp_pipeline.spec.destination import Twilio

NUMBER = re.compile(r"\+[1-9]\d{6,14}")
WORDS = {
    21211: "no valid number",
    21408: "messages to this region are not allowed in the account",
    21610: "they asked for no more messages",
    21614: "not a mobile number",
    21617: "longer than 1,600 characters",
    30007: "filtered as unwanted",
}
ADDRESS: dict[int, AddressIs] = {21211: "dead", 21610: "unsubscribed", 21614: "dead"}


def connect(spec: Twilio) -> TwilioConnection:
    return TwilioConnection(spec)


class TwilioConnection(Connection):
    """POSTs messages one by one; Twilio's own error code says why one is refused."""

    batch_size = 10
    repeatable = False

    def __init__(self, spec: Twilio) -> None:
        self._spec = spec
        self._http = HttpClient(allow_private=spec.allow_private)

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        return one_by_one(batch, self._post, now=now, within=within, timeout=self._spec.timeout, repeatable=False)

    def _post(self, delivery: Delivery, now: datetime, timeout: timedelta) -> Answer:
        spec = self._spec
        number = re.sub(r"[\s().-]", "", str(delivery.payload.get("to") or ""))
        if not NUMBER.fullmatch(number):
            return Answer("failed", "the number does not start with + and its country", sent=False)
        sender = "MessagingServiceSid" if spec.sender.startswith("MG") else "From"
        form = {"To": number, sender: spec.sender, "Body": str(delivery.payload.get("body") or "")}
        login = base64.b64encode(f"{spec.key or spec.account}:{spec.secret}".encode()).decode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Basic {login}"}
        url = f"{spec.url.rstrip('/')}/2010-04-01/Accounts/{spec.account}/Messages.json"
        return _judged(
            self._http.send(
                "POST", url, urlencode(form).encode(), headers=headers, timeout=timeout, now=now, reads=True
            )
        )

    def close(self) -> None:
        self._http.close()


def _judged(answer: Answer) -> Answer:
    """The answer, with Twilio's error code; its prose may repeat the number."""
    code = answer.json.get("code") if answer.state != "delivered" and isinstance(answer.json, dict) else None
    if not isinstance(code, int):
        return answer
    words = f": {WORDS[code]}" if code in WORDS else ""
    return replace(answer, reason=f"{answer.reason}, Twilio {code}{words}", address=ADDRESS.get(code))
