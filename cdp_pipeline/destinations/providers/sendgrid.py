"""SendGrid's Event Webhook: a list of events, signed by ECDSA over the time and the body as it came.

Sources: "Event Webhook Reference", "Event Webhook Security Features", and the vector of its client libraries.
"""

from __future__ import annotations

import base64
import binascii
import json
import re

from cdp_pipeline.activation.protocol import DestinationError
from cdp_pipeline.activation.receipts import Event, Report
from cdp_pipeline.destinations.callbacks import Callback
from cdp_pipeline.destinations.providers import NAME, instant, message_id, objects

EVENTS: dict[str, Event] = {
    "delivered": "message_delivered", "open": "message_opened", "click": "message_clicked",
    "bounce": "message_bounced", "dropped": "message_bounced", "spamreport": "message_complained",
    "unsubscribe": "message_unsubscribed", "group_unsubscribe": "message_unsubscribed",
}  # fmt: skip
# Not sent, because of what was heard of the address before.
DROPPED: dict[str, Event] = {
    "unsubscribed address": "message_unsubscribed", "spam reporting address": "message_complained",
}  # fmt: skip
DROPPED_DEAD = ("bounced address", "invalid")


def headers(op_id: str) -> dict[str, str]:
    """Unique arguments come back with every event; the Message-ID only with some."""
    return {"X-SMTPAPI": json.dumps({"unique_args": {NAME: op_id}})}


def genuine(key: str, callback: Callback) -> bool:
    """`key`: the verification key of the webhook's settings, base64 as it is shown there."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_der_public_key
    except ImportError:
        raise DestinationError("SendGrid's events need cryptography: pip install 'cdp-pipeline[events]'") from None
    try:
        public = load_der_public_key(base64.b64decode(key))
    except ValueError:
        public = None
    if not isinstance(public, EllipticCurvePublicKey):
        raise DestinationError("'provider_key' is not the verification key that SendGrid shows")
    name = "x-twilio-email-event-webhook-"
    at, signed = callback.headers.get(f"{name}timestamp", ""), callback.headers.get(f"{name}signature", "")
    try:
        public.verify(base64.b64decode(signed), at.encode() + callback.body, ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def told(callback: Callback) -> list[Report]:
    """A delivery that is put off is nothing to report, nor is a letter that a mail program opened by itself."""
    found = []
    for said in objects(callback.body):
        event = EVENTS.get(str(said.get("event")))
        op_id = str(said.get(NAME) or "") or message_id(said.get("smtp-id"))
        if event is None or not op_id or said.get("sg_machine_open") is True:
            continue
        reason, dead = str(said.get("reason", "")).lower(), False
        if said["event"] == "dropped":
            event, dead = DROPPED.get(reason, event), reason in DROPPED_DEAD
        elif event == "message_bounced":
            # 'blocked' is about this letter; a 'bounce' is on SendGrid's own list of addresses it writes to no more.
            dead = said.get("type") == "bounce"
        status = re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", str(said.get("status", "")))
        address, at = said.get("email"), instant(said.get("timestamp"), callback.at)
        found.append(Report(op_id, event, at, str(address) if address else None, status and status[0], dead))
    return found
