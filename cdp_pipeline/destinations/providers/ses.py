"""Amazon SES by way of SNS: one message a call, signed with RSA by a certificate that Amazon shows.

Sources: "Verifying the signatures of Amazon SNS messages", "Contents of event data that Amazon SES publishes to Amazon
SNS" and "Amazon SNS notification contents for Amazon SES".
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cdp_pipeline.activation.protocol import DestinationError
from cdp_pipeline.activation.receipts import Event, Report
from cdp_pipeline.destinations.callbacks import Callback
from cdp_pipeline.destinations.http import HttpClient
from cdp_pipeline.destinations.providers import NAME, instant, message_id, objects, part

EVENTS: dict[str, Event] = {
    "Delivery": "message_delivered", "Open": "message_opened", "Click": "message_clicked",
    "Bounce": "message_bounced", "Complaint": "message_complained", "Subscription": "message_unsubscribed",
}  # fmt: skip
SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_AMAZON = r"https://sns\.[a-z0-9-]{1,40}\.amazonaws\.com(\.cn)?"
_CERTIFICATE = re.compile(_AMAZON + r"/SimpleNotificationService-[0-9A-Za-z]{1,80}\.pem")
_CONFIRMATION = re.compile(_AMAZON + r"/\?[\x21-\x7e]+")
TIMEOUT = timedelta(seconds=10)


def headers(op_id: str) -> dict[str, str]:
    """Message tags come back with the events of a configuration set."""
    return {"X-SES-MESSAGE-TAGS": f"{NAME}={op_id}"}


def fetched(url: str) -> bytes:
    """What Amazon shows at an address of its own; DestinationError where it shows nothing."""
    client = HttpClient()
    try:
        answer = client.send("GET", url, headers={}, timeout=TIMEOUT, now=datetime.now(UTC), reads=True)
    finally:
        client.close()
    if answer.state != "delivered":
        raise DestinationError(f"Amazon SNS: {answer.reason}")
    return answer.body


@lru_cache(maxsize=8)
def certificate(url: str) -> bytes:
    """In PEM. Kept: Amazon signs with the same one for months."""
    return fetched(url)


def genuine(key: str, callback: Callback) -> bool:
    """`key`: the topic's ARN. Anybody's topic is signed by Amazon, so only this one is heard.

    The certificate is fetched from Amazon alone, whatever the message says of where it is.
    """
    try:
        [said] = objects(callback.body)
    except ValueError:
        return False
    names, where = SIGNED.get(str(said.get("Type"))), str(said.get("SigningCertURL"))
    if said.get("TopicArn") != key or names is None or not _CERTIFICATE.fullmatch(where):
        return False
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.hashes import SHA1, SHA256
        from cryptography.x509 import load_pem_x509_certificate
    except ImportError:
        raise DestinationError("Amazon's events need cryptography: pip install 'cdp-pipeline[events]'") from None
    kind = {"1": SHA1(), "2": SHA256()}.get(str(said.get("SignatureVersion")))
    text = "".join(f"{name}\n{said[name]}\n" for name in names if said.get(name) is not None)
    try:
        public = load_pem_x509_certificate(certificate(where)).public_key()
        if not isinstance(public, RSAPublicKey) or kind is None:
            return False
        signed = base64.b64decode(str(said.get("Signature")))
        public.verify(signed, text.encode(), PKCS1v15(), kind)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def confirmation(callback: Callback) -> str | None:
    """The address that Amazon wants to be visited at before it tells anything; of a genuine call only."""
    if callback.query:
        return None  # Somebody unsubscribes: what else it says is not proven.
    [said] = objects(callback.body)
    link = str(said.get("SubscribeURL"))
    return link if said.get("Type") == "SubscriptionConfirmation" and _CONFIRMATION.fullmatch(link) else None


def told(callback: Callback) -> list[Report]:
    """Events of a configuration set, or feedback notifications of an identity; a delay is nothing to report."""
    [envelope] = objects(callback.body)
    if envelope.get("Type") != "Notification" or not str(envelope.get("Message")).lstrip().startswith("{"):
        return []  # Amazon tells in prose that the topic works.
    [said] = objects(str(envelope["Message"]))
    kind = str(said.get("eventType") or said.get("notificationType"))
    event, mail, about = EVENTS.get(kind), part(said, "mail"), part(said, kind.lower())
    op_id = _op_id(mail)
    if event is None or not op_id:
        return []
    if event == "message_unsubscribed" and part(about, "newTopicPreferences").get("unsubscribeAll") is not True:
        return []
    if event == "message_complained" and about.get("complaintFeedbackType") == "not-spam":
        return []
    dead = event == "message_bounced" and about.get("bounceType") == "Permanent"
    detail = f"SES {about.get('bounceType')} {about.get('bounceSubType')}" if event == "message_bounced" else None
    if detail is not None and not re.fullmatch(r"[\w ]{1,80}", detail):
        detail = None
    named = about.get("bouncedRecipients") or about.get("complainedRecipients")
    addresses: list[Any] = [each.get("emailAddress") for each in (named if isinstance(named, list) else [])
                            if isinstance(each, dict)]  # fmt: skip
    # Our letters have one recipient each; complaints may name others that might have complained.
    address = str(addresses[0]) if len(addresses) == 1 else None
    at = instant(about.get("timestamp") or mail.get("timestamp"), callback.at)
    return [Report(op_id, event, at, address, detail, dead)]


def _op_id(mail: dict[str, Any]) -> str:
    """By its tag; else by the letter's own Message-ID, where the topic is told the headers."""
    tagged = part(mail, "tags").get(NAME)
    if isinstance(tagged, list) and tagged:
        return str(tagged[0])
    given = mail.get("headers")
    named = [each.get("value") for each in given if isinstance(each, dict) and str(each.get("name")).lower() ==
             "message-id"] if isinstance(given, list) else []  # fmt: skip
    return message_id(named[0] if named else part(mail, "commonHeaders").get("messageId"))
