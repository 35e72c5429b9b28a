"""Firebase Cloud Messaging (HTTP v1): one push notification per operation to one device.

FCM knows no idempotency key, so a message whose fate is unknown is never repeated; its tag is made of the operation's
id, so that a device that does get it twice shows it once.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from cdp_pipeline.activation.protocol import AddressIs, Closing, Delivery, DestinationError, Outcome
from cdp_pipeline.destinations.http import (
    WAIT_AFTER_REFUSED_KEY,
    Answer,
    HttpClient,
    code_word,
    json_bytes,
    one_by_one,
)
from cdp_pipeline.spec.destination import Fcm

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
TOKEN_LIFE = timedelta(hours=1)
RENEWED_BEFORE = timedelta(minutes=5)
DEVICE_REFUSED = ("UNREGISTERED", "SENDER_ID_MISMATCH", "INVALID_ARGUMENT")
GONE = "UNREGISTERED"
"""Of these the only one that is about the device for sure: another may be about our project, or the words."""


def connect(spec: Fcm) -> FcmConnection:
    return FcmConnection(spec)


def assertion(account: Mapping[str, str], key: Any, now: datetime) -> str:
    """The signed claim (RFC 7523, RS256) with which a service account asks for an access token."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    issued = int(now.timestamp())
    head = {"alg": "RS256", "typ": "JWT", "kid": account.get("private_key_id", "")}
    claims = {
        "iss": account["client_email"],
        "scope": SCOPE,
        "aud": account["token_uri"],
        "iat": issued,
        "exp": issued + int(TOKEN_LIFE.total_seconds()),
    }
    signed = ".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
    return f"{signed}.{_base64url(key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def _signing_key(pem: str) -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise DestinationError("push by FCM needs cryptography: pip install 'cdp-pipeline[fcm]'") from None
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise DestinationError("the service account's private_key is no RSA key in PEM")
    return key


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class FcmConnection(Closing):
    """POSTs notifications one by one with an access token that is renewed before it ends."""

    batch_size = 10
    repeatable = False

    def __init__(self, spec: Fcm) -> None:
        self._spec = spec
        self._account = _account(spec.credentials)
        self._key = _signing_key(self._account["private_key"])
        self._http = HttpClient(allow_private=spec.allow_private)
        self._token = ""
        self._token_ends: datetime | None = None

    def deliver(self, batch: Sequence[Delivery], *, now: datetime, within: timedelta) -> list[Outcome]:
        return one_by_one(batch, self._post, now=now, within=within, timeout=self._spec.timeout, repeatable=False)

    def _post(self, delivery: Delivery, now: datetime, timeout: timedelta) -> Answer:
        had_one = self._token_ends is not None
        answer = self._renew_token(now, timeout) or self._send(delivery, now, timeout)
        if answer.code == 401 and had_one:
            # Tokens are withdrawn before their time as well; with a new one it is the account that is refused.
            self._token_ends = None
            answer = self._renew_token(now, timeout) or self._send(delivery, now, timeout)
        return answer

    def _send(self, delivery: Delivery, now: datetime, timeout: timedelta) -> Answer:
        tag = delivery.op_id[:64]
        message = {
            "token": str(delivery.payload.get("to") or ""),
            "notification": {word: str(delivery.payload.get(word) or "") for word in ("title", "body")},
            "android": {"notification": {"tag": tag}},
            "apns": {"headers": {"apns-collapse-id": tag}},
            "webpush": {"notification": {"tag": tag}},
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        url = f"{self._spec.url.rstrip('/')}/v1/projects/{self._account['project_id']}/messages:send"
        content = json_bytes({"message": message})
        return _judged(self._http.send("POST", url, content, headers=headers, timeout=timeout, now=now, reads=True))

    def _renew_token(self, now: datetime, timeout: timedelta) -> Answer | None:
        """None where there is a token to go with; else why there is none."""
        if self._token_ends is not None and now < self._token_ends - RENEWED_BEFORE:
            return None
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": assertion(self._account, self._key, now),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        content = urlencode(form).encode()
        answer = self._http.send(
            "POST", self._account["token_uri"], content, headers=headers, timeout=timeout, now=now, reads=True
        )
        said = answer.json if isinstance(answer.json, dict) else {}
        if answer.state == "delivered" and isinstance(said.get("access_token"), str):
            self._token = said["access_token"]
            seconds = said.get("expires_in")
            self._token_ends = now + (timedelta(seconds=seconds) if isinstance(seconds, int) else TOKEN_LIFE)
            return None
        # Nothing was sent to anybody. A refused claim (400 invalid_grant) is the account's fault, not the device's.
        if answer.state == "failed" and answer.code is None:
            return answer
        after = answer.after or (None if answer.code is None else WAIT_AFTER_REFUSED_KEY)
        code = 401 if answer.state == "failed" else answer.code
        return replace(
            answer, state="retry", reason=f"no access token: {answer.reason}", after=after, code=code, sent=False
        )

    def close(self) -> None:
        self._http.close()


def _account(credentials: str) -> dict[str, str]:
    try:
        account: Any = json.loads(credentials)
    except ValueError:
        account = None
    needed = ("project_id", "client_email", "private_key", "token_uri")
    missing = [name for name in needed if not isinstance(account, dict) or not isinstance(account.get(name), str)]
    if missing:
        raise DestinationError(f"'credentials' is not a service account's JSON: no {', '.join(missing)} in it")
    return account  # type: ignore[no-any-return]


def _judged(answer: Answer) -> Answer:
    """The answer, with FCM's own error code; a refusal of this device must not rest the others."""
    if answer.state == "delivered" or not isinstance(answer.json, dict):
        return answer
    error = answer.json.get("error")
    if not isinstance(error, dict):
        return answer
    details = [each for each in error.get("details") or [] if isinstance(each, dict)]
    code = next(
        (code_word(each["errorCode"]) for each in details if "errorCode" in each), code_word(error.get("status"))
    )
    reason = f"HTTP {answer.code}, FCM {code}" if code else answer.reason
    if answer.code == 404 and code != GONE:
        # Only UNREGISTERED is about the device; else it is the project that is not there.
        return replace(answer, state="retry", reason=reason, after=WAIT_AFTER_REFUSED_KEY, code=403)
    if code in DEVICE_REFUSED:
        address: AddressIs | None = "dead" if code == GONE else None
        return replace(answer, state="failed", reason=reason, after=None, address=address)
    return replace(answer, reason=reason)
