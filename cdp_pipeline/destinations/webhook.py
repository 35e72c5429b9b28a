"""A signed webhook (Standard Webhooks): one POST per operation, its id the idempotency key.

Which operations exist, and when one is tried again, is the ledger's business.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import httpx

from cdp_pipeline.activation.protocol import Delivery, DestinationError, Outcome, canonical_json
from cdp_pipeline.destinations.addresses import AddressRefusedError, Resolve, allowed_address, resolve
from cdp_pipeline.spec.destination import Webhook

WAIT_AFTER_REFUSED_KEY = timedelta(minutes=15)
LONGEST_WAIT = timedelta(days=1)
SHORTEST_TRY = timedelta(seconds=1)
_WAIT_CODES = {401, 403, 429, 503}
_RETRY_CODES = {408, 425, 429}


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


def retry_after(header: str | None, now: datetime) -> timedelta | None:
    """How long a Retry-After header (seconds or a date) asks to wait; None where it says nothing usable."""
    if not header:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", header):
        wait = timedelta(seconds=int(header))
    else:
        try:
            at = parsedate_to_datetime(header)
        except (ValueError, TypeError):
            return None
        wait = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return min(max(wait, timedelta(0)), LONGEST_WAIT)


def connect(spec: Webhook) -> WebhookConnection:
    return WebhookConnection(spec)


class WebhookConnection:
    """POSTs canonical JSON; 2xx is delivered, other 4xx and redirects are refused for good, the rest is retried."""

    batch_size = 10
    repeatable = True

    def __init__(self, spec: Webhook, *, resolve: Resolve = resolve) -> None:
        self._spec = spec
        self._key = signing_key(spec.secret)
        self._resolve = resolve
        # No proxies and settings from the environment: they would dial another address than the one checked.
        self._client = httpx.Client(follow_redirects=False, trust_env=False)

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        started = time.monotonic()
        outcomes: list[Outcome] = []
        for position, delivery in enumerate(batch):
            passed = timedelta(seconds=time.monotonic() - started)
            left = within - passed
            if left < SHORTEST_TRY:
                return outcomes + _untried(batch[position:], "no time left in this round", None)
            outcome = self._post(delivery, now + passed, min(self._spec.timeout, left))
            outcomes.append(outcome)
            # A destination that asks to wait, or does not answer, would answer the next one alike.
            if outcome.state == "retry" and (outcome.code is None or outcome.code in _WAIT_CODES):
                return outcomes + _untried(batch[position + 1 :], "the destination is not taking any", outcome.after)
        return outcomes

    def _post(self, delivery: Delivery, now: datetime, timeout: timedelta) -> Outcome:
        url = httpx.URL(self._spec.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        body = canonical_json(delivery.payload).encode()
        timestamp = int(now.timestamp())
        try:
            address = allowed_address(
                url.host, port, allow_private=self._spec.allow_private, resolve=self._resolve
            )  # fmt: skip
        except AddressRefusedError as refused:
            return Outcome(delivery.op_id, "failed", str(refused))
        except OSError:
            return Outcome(delivery.op_id, "retry", "the host name cannot be resolved")
        headers = {
            "Host": url.netloc.decode(),
            "Content-Type": "application/json",
            "User-Agent": "cdp-pipeline",
            "webhook-id": delivery.op_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._key, delivery.op_id, timestamp, body),
        }
        try:
            # The checked address is dialled, so a second, different answer of the name server changes nothing; TLS
            # still proves the host name. Only the status matters: the answer's body is never read.
            with self._client.stream(
                "POST",
                url.copy_with(host=address),
                content=body,
                headers=headers,
                timeout=timeout.total_seconds(),
                extensions={"sni_hostname": url.host},
            ) as response:
                return _judge(delivery.op_id, response.status_code, response.headers.get("retry-after"), now)
        except httpx.HTTPError as error:
            # Possibly applied with the answer lost: repeating is safe, the receiver knows the webhook-id.
            return Outcome(delivery.op_id, "retry", f"no answer ({type(error).__name__})")

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _judge(op_id: str, code: int, wait: str | None, now: datetime) -> Outcome:
    reason = f"HTTP {code}"
    if 200 <= code < 300:
        return Outcome(op_id, "delivered", reason, code=code)
    if code in (401, 403):
        return Outcome(op_id, "retry", f"{reason}: the secret is refused", WAIT_AFTER_REFUSED_KEY, code)
    if code in _RETRY_CODES or code >= 500:
        return Outcome(op_id, "retry", reason, retry_after(wait, now), code)
    return Outcome(op_id, "failed", reason + (": redirects are not followed" if code < 400 else ""), code=code)


def _untried(rest: Sequence[Delivery], reason: str, after: timedelta | None) -> list[Outcome]:
    return [Outcome(delivery.op_id, "untried", reason, after) for delivery in rest]
