"""A signed webhook (Standard Webhooks): one POST per operation or per batch, the operation's id the idempotency key.

Which operations exist, and when one is tried again, is the ledger's business.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring_ascii as _quoted

from cdp_pipeline.activation.ledger import operation_id
from cdp_pipeline.activation.protocol import Closing, Delivery, DestinationError, Outcome, canonical_json
from cdp_pipeline.activation.receipts import Report, report_of
from cdp_pipeline.destinations.addresses import Resolve, resolve
from cdp_pipeline.destinations.callbacks import Callback
from cdp_pipeline.destinations.http import Answer, HttpClient, Request, judged, untried
from cdp_pipeline.spec.destination import Webhook

CLAIMED = 500
REQUESTS_CLAIMED = 40
SPLIT_CODES = {400, 413, 422}
TOLERANCE = timedelta(minutes=5)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def signing_key(secret: str) -> bytes:
    """The key of a Standard Webhooks secret: base64 after an optional 'whsec_'; other text is taken as it is."""
    encoded = secret.removeprefix("whsec_")
    if encoded != secret:
        # The libraries of Standard Webhooks take secrets without their padding, too.
        encoded = encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4)
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


def genuine(spec: Webhook, callback: Callback, now: datetime) -> bool:
    """Whether somebody who knows the secret sent it, within five minutes (Standard Webhooks)."""
    names = ("id", "timestamp", "signature")
    op_id, timestamp, signed = (callback.headers.get(f"webhook-{name}", "") for name in names)
    if not re.fullmatch(r"\d{1,11}", timestamp) or abs(now.timestamp() - int(timestamp)) > TOLERANCE.total_seconds():
        return False
    wanted = signature(signing_key(spec.secret), op_id, int(timestamp), callback.body).encode()
    return any(hmac.compare_digest(wanted, each.encode()) for each in signed.split(" "))


def told(spec: Webhook, callback: Callback) -> list[Report]:
    """One report or a list of them, as receipts.report_of wants them."""
    said = json.loads(callback.body)
    return [report_of(each) for each in (said if isinstance(said, list) else [said])]


def connect(spec: Webhook) -> WebhookConnection:
    return WebhookConnection(spec)


class WebhookConnection(Closing):
    """POSTs canonical JSON: the payload itself, or with `batch` many: `{"type": "batch", "items": [...]}`.

    An item is `{"id": ..., "kind": ..., "payload": ...}`, its id the idempotency key. To a batch the other side may
    answer in JSON which items it does not take: `{"results": [{"id": ..., "status": 422}]}`. A batch that is refused
    whole is halved until the items at fault are found.
    """

    # Possibly applied with the answer lost: repeating is safe, the receiver knows the ids.
    repeatable = True

    def __init__(self, spec: Webhook, *, resolve: Resolve = resolve) -> None:
        self._spec = spec
        self._key = signing_key(spec.secret)
        self._http = HttpClient(allow_private=spec.allow_private, resolve=resolve)
        self.batch_size = CLAIMED if spec.batch == 1 else REQUESTS_CLAIMED * spec.batch

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        started, size = time.monotonic(), self._spec.batch
        outcomes: dict[str, Outcome] = {}
        parcels = [batch[start : start + size] for start in range(0, len(batch), size)]
        while parcels:
            passed = timedelta(seconds=time.monotonic() - started)
            answers = self._http.post_each(
                self._spec.url, parcels, self._request, now=now + passed, within=within - passed,
                timeout=self._spec.timeout, reads=size > 1,
            )  # fmt: skip
            halves: list[Sequence[Delivery]] = []
            for parcel, answer in zip(parcels, answers, strict=False):
                if answer.code in SPLIT_CODES and len(parcel) > 1:
                    middle = len(parcel) // 2
                    halves += [parcel[:middle], parcel[middle:]]
                else:
                    outcomes |= {outcome.op_id: outcome for outcome in self._heard(parcel, answer)}
            resting = [answer for answer in answers if answer.rests]
            if resting or len(answers) < len(parcels):
                why = "the destination is not taking any" if resting else "no time left in this round"
                rest = [delivery for delivery in batch if delivery.op_id not in outcomes]
                outcomes |= {one.op_id: one for one in untried(rest, why, resting[0].after if resting else None)}
                break
            parcels = halves
        return [outcomes[delivery.op_id] for delivery in batch]

    def _request(self, parcel: Sequence[Delivery], now: datetime) -> Request:
        if self._spec.batch == 1:
            key, text = parcel[0].op_id, canonical_json(parcel[0].payload)
        else:
            key = operation_id("batch", *(delivery.op_id for delivery in parcel))
            items = (
                f'{{"id":{_quoted(each.op_id)},"kind":{_quoted(each.kind)},"payload":{canonical_json(each.payload)}}}'
                for each in parcel
            )
            text = f'{{"items":[{",".join(items)}],"type":"batch"}}'
        body, timestamp = text.encode(), int(now.timestamp())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": key,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._key, key, timestamp, body),
        }
        return Request(body, headers)

    def _heard(self, parcel: Sequence[Delivery], answer: Answer) -> list[Outcome]:
        """What became of each item; of a batch that was taken, those are as the answer says that it names."""
        named: dict[str, int] = {}
        if self._spec.batch > 1 and answer.state == "delivered":
            results = answer.json.get("results") if isinstance(answer.json, dict) else None
            for each in results if isinstance(results, list) else []:
                if isinstance(each, dict) and isinstance(each.get("status"), int):
                    named[str(each.get("id"))] = each["status"]
        return [
            (judged(named[each.op_id], None, EPOCH) if each.op_id in named else answer).outcome(each.op_id)
            for each in parcel
        ]

    def close(self) -> None:
        self._http.close()
