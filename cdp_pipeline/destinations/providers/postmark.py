"""Postmark's webhooks: one event a call, with the name and password that were put into the address it calls.

Source: postmarkapp.com/developer/webhooks, a page for each kind of event, and "Bounce types".
"""

from __future__ import annotations

import base64
import hmac
import re

from cdp_pipeline.activation.receipts import Event, Report
from cdp_pipeline.destinations.callbacks import Callback
from cdp_pipeline.destinations.providers import NAME, instant, objects, part

EVENTS: dict[str, tuple[Event, str]] = {
    "Delivery": ("message_delivered", "DeliveredAt"), "Open": ("message_opened", "ReceivedAt"),
    "Click": ("message_clicked", "ReceivedAt"), "Bounce": ("message_bounced", "BouncedAt"),
    "SpamComplaint": ("message_complained", "BouncedAt"), "SubscriptionChange": ("message_unsubscribed", "ChangedAt"),
}  # fmt: skip
# Postmark calls a bounce whatever comes back, answers and delays among them.
NO_BOUNCE = {"Transient", "DnsError", "AutoResponder", "AddressChange", "Subscribe", "ChallengeVerification",
             "OpenRelayTest", "InboundError"}  # fmt: skip
OTHERWISE: dict[str, Event] = {
    "Unsubscribe": "message_unsubscribed", "SpamComplaint": "message_complained",
    "SpamNotification": "message_complained",
}  # fmt: skip
DEAD = ("HardBounce", "BadEmailAddress")
OPTED_OUT = ("ManualSuppression", "Unsubscribe")


def headers(op_id: str) -> dict[str, str]:
    return {f"X-PM-Metadata-{NAME}": op_id}


def genuine(key: str, callback: Callback) -> bool:
    """`key`: name:password. Postmark signs nothing."""
    wanted = "Basic " + base64.b64encode(key.encode()).decode()
    return hmac.compare_digest(wanted.encode(), callback.headers.get("authorization", "").encode())


def told(callback: Callback) -> list[Report]:
    [said] = objects(callback.body)
    op_id, kind = str(part(said, "Metadata").get(NAME) or ""), str(said.get("Type"))
    known = EVENTS.get(str(said.get("RecordType")))
    if not op_id or known is None:
        return []
    event, when = known
    if event == "message_unsubscribed":
        # It tells of suppressions for other reasons as well, which come as events of their own, and of their end.
        if said.get("SuppressSending") is not True or str(said.get("SuppressionReason")) not in OPTED_OUT:
            return []
    elif event == "message_bounced":
        if kind in NO_BOUNCE:
            return []
        event = OTHERWISE.get(kind, event)
    dead = event == "message_bounced" and kind in DEAD
    detail = f"Postmark {kind}" if event == "message_bounced" and re.fullmatch(r"[A-Za-z]+", kind) else None
    address, at = said.get("Email") or said.get("Recipient"), instant(said.get(when), callback.at)
    return [Report(op_id, event, at, str(address) if address else None, detail, dead)]
