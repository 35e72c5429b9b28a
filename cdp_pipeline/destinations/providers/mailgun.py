"""Mailgun's webhooks: one event a call, signed by HMAC-SHA256 over a time and a token in its body.

Sources: "Securing webhooks" and "Event structure" of Mailgun's documentation.
"""

from __future__ import annotations

import hmac
import json

from cdp_pipeline.activation.receipts import Event, Report
from cdp_pipeline.destinations.callbacks import Callback
from cdp_pipeline.destinations.providers import NAME, instant, message_id, objects, part

EVENTS: dict[str, Event] = {
    "delivered": "message_delivered", "opened": "message_opened", "clicked": "message_clicked",
    "failed": "message_bounced", "complained": "message_complained", "unsubscribed": "message_unsubscribed",
}  # fmt: skip
# Not sent, because of what was heard of the address before.
SUPPRESSED: dict[str, Event] = {
    "suppress-unsubscribe": "message_unsubscribed", "suppress-complaint": "message_complained",
}  # fmt: skip
DEAD = ("bounce", "suppress-bounce")


def headers(op_id: str) -> dict[str, str]:
    return {"X-Mailgun-Variables": json.dumps({NAME: op_id})}


def genuine(key: str, callback: Callback) -> bool:
    """`key`: the HTTP webhook signing key. The signature is over time and token alone: TLS keeps the rest as it was."""
    try:
        [said] = objects(callback.body)
    except ValueError:
        return False
    signed = part(said, "signature")
    wanted = hmac.digest(key.encode(), f"{signed.get('timestamp')}{signed.get('token')}".encode(), "sha256").hex()
    return hmac.compare_digest(wanted.encode(), str(signed.get("signature")).encode())


def told(callback: Callback) -> list[Report]:
    """Nothing of what a machine opened or clicked, nor of failures that are temporary: Mailgun tries those again."""
    [whole] = objects(callback.body)
    said = part(whole, "event-data")
    event = EVENTS.get(str(said.get("event")))
    letter = part(part(said, "message"), "headers")
    op_id = str(part(said, "user-variables").get(NAME) or "") or message_id(letter.get("message-id"))
    by_machine = bool(part(said, "client-info").get("bot"))
    if event is None or not op_id or said.get("severity") == "temporary" or by_machine:
        return []
    reason, code = str(said.get("reason")), part(said, "delivery-status").get("code")
    dead = event == "message_bounced" and reason in DEAD
    detail = f"Mailgun {code}" if isinstance(code, int) else None
    address, at = said.get("recipient"), instant(said.get("timestamp"), callback.at)
    event = SUPPRESSED.get(reason, event) if event == "message_bounced" else event
    return [Report(op_id, event, at, str(address) if address else None, detail, dead)]
