"""A signed webhook (Standard Webhooks): one POST per operation, its id the idempotency key.

Which operations exist, and when one is tried again, is the ledger's business.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from cdp_pipeline.activation.protocol import Delivery, DestinationError, Outcome
from cdp_pipeline.destinations.addresses import Resolve, resolve
from cdp_pipeline.destinations.http import Answer, HttpClient, json_bytes, one_by_one
from cdp_pipeline.spec.destination import Webhook


def signing_key(secret: str) -> bytes:
    """The key of a Standard Webhooks secret: base64 after an optional 'whsec_'; other text is taken as it is."""
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        if secret.startswith("whsec_"):
            raise DestinationError("a webhook secret that starts with 'whsec_' goes on in base64") from None
        return secret.encode()
    return key or secret.encode()


def signature(key: bytes, op_id: str, timestamp: int, body: bytes) -> str:
    """The v1 signature over id.timestamp.body."""
    signed = f"{op_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def connect(spec: Webhook) -> WebhookConnection:
    return WebhookConnection(spec)


class WebhookConnection:
    """POSTs canonical JSON; only the status of the answer matters, its body is never read."""

    batch_size = 10
    # Possibly applied with the answer lost: repeating is safe, the receiver knows the webhook-id.
    repeatable = True

    def __init__(self, spec: Webhook, *, resolve: Resolve = resolve) -> None:
        self._spec = spec
        self._key = signing_key(spec.secret)
        self._http = HttpClient(allow_private=spec.allow_private, resolve=resolve)

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        return one_by_one(batch, self._post, now=now, within=within, timeout=self._spec.timeout)

    def _post(self, delivery: Delivery, now: datetime, timeout: timedelta) -> Answer:
        body = json_bytes(delivery.payload)
        timestamp = int(now.timestamp())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": delivery.op_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._key, delivery.op_id, timestamp, body),
        }
        return self._http.send("POST", self._spec.url, body, headers=headers, timeout=timeout, now=now)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
