"""Twilio: one text message (SMS) per operation.

Its API knows no idempotency key, so a message whose fate is unknown is never repeated. What becomes of a message after
Twilio has taken it comes back by status callbacks, signed with the account's token.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, urlencode

from cdp_pipeline.activation.protocol import AddressIs, Closing, Delivery, Outcome
from cdp_pipeline.activation.receipts import Event, Report
from cdp_pipeline.destinations.callbacks import Callback
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


DEAD_LATER = {21211, 21614, 30005}
STATUS: dict[str, Event] = {"delivered": "message_delivered", "read": "message_opened",
                            "undelivered": "message_bounced", "failed": "message_bounced"}  # fmt: skip


def genuine(spec: Twilio, callback: Callback, now: datetime) -> bool:
    """Whether Twilio signed it: HMAC-SHA1 over the address called and the form's fields by name ("Webhooks security").

    The address is the one that was given to Twilio, whatever proxies made of it.
    """
    if spec.callback_url is None:
        return False
    text = f"{spec.callback_url}?{callback.query}" if callback.query else spec.callback_url
    text += "".join(name + value for name, value in sorted(_form(callback)))
    token = spec.callback_token or spec.secret
    signed = base64.b64encode(hmac.digest(token.encode(), text.encode(), "sha1")).decode()
    return hmac.compare_digest(signed.encode(), callback.headers.get("x-twilio-signature", "").encode())


def told(spec: Twilio, callback: Callback) -> list[Report]:
    """What a status callback says; that a message is on its way is nothing to report."""
    form = dict(_form(callback))
    event = STATUS.get(form.get("MessageStatus", ""))
    op_id = dict(parse_qsl(callback.query)).get("op")
    if event is None or op_id is None:
        return []
    code = form.get("ErrorCode", "")
    number = int(code) if code.isdigit() else 0
    if ADDRESS.get(number) == "unsubscribed":
        event = "message_unsubscribed"
    detail = f"Twilio {number}" if number else None
    return [Report(op_id, event, callback.at, detail=detail, dead=number in DEAD_LATER)]


def _form(callback: Callback) -> list[tuple[str, str]]:
    return parse_qsl(callback.body.decode("utf-8", "replace"), keep_blank_values=True)


def connect(spec: Twilio) -> TwilioConnection:
    return TwilioConnection(spec)


class TwilioConnection(Closing):
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
        if spec.callback_url is not None:
            form["StatusCallback"] = f"{spec.callback_url}?{urlencode({'op': delivery.op_id})}"
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
