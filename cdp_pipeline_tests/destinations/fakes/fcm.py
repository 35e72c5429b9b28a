"""Firebase Cloud Messaging: a token endpoint that proves the signed claim, and messages:send."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from cdp_pipeline.spec.destination import Fcm
from cdp_pipeline_tests.destinations.fakes import shapes
from cdp_pipeline_tests.destinations.kit import NAMES, Bench
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port

DEVICES = {name: f"{name}:APA91b_the_token_of_a_device" for name in NAMES}


@lru_cache
def key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def credentials(url: str, **fields: str) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"type": "service_account", "project_id": "shop", "private_key_id": "k1", "private_key": pem,
               "client_email": "push@shop.example.com", "token_uri": f"{url}/token"}  # fmt: skip
    return json.dumps({**account, **fields})


def fcm(url: str, **fields: Any) -> Fcm:
    given = {"name": "push", "dry_run": False, "rate": 1000, "allow_private": True, "credentials": credentials(url)}
    return Fcm(kind="destination", type="fcm", description="Push.", url=url, **{**given, **fields})


def part(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


class FakeFcm:
    """Gives out tokens to whoever signs rightly, and keeps the messages it took with the tokens they came with."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self.valid: set[str] = set()

    def __call__(self, request: Received) -> Answer:
        if request.path == "/token":
            return self.token(request.form["assertion"])
        if request.path != "/v1/projects/shop/messages:send":
            return Answer(404)
        if request.headers["authorization"].removeprefix("Bearer ") not in self.valid:
            return error(401, "UNAUTHENTICATED")
        if shapes.unknown(request.json, shapes.FCM):
            return error(400, "INVALID_ARGUMENT")
        message = request.json["message"]
        match message["token"].partition(":")[0]:
            case "refuse":
                return error(404, "NOT_FOUND", "UNREGISTERED")
            case "wait":
                return error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", {"Retry-After": "60"})
        self.sent.append(message)
        if message["token"].startswith("silent"):
            return Answer(hang_up=True)
        return Answer(body={"name": f"projects/shop/messages/{len(self.sent)}"})

    def token(self, assertion: str) -> Answer:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        head, claims, signature = assertion.split(".")
        raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        try:
            key().public_key().verify(raw, f"{head}.{claims}".encode(), PKCS1v15(), SHA256())
        except InvalidSignature:
            return Answer(400, body={"error": "invalid_grant"})
        if part(claims)["iss"] != "push@shop.example.com" or part(head)["alg"] != "RS256":
            return Answer(400, body={"error": "invalid_grant"})
        self.tokens.append(f"ya29.token-{len(self.tokens) + 1}")
        self.valid.add(self.tokens[-1])
        return Answer(body={"access_token": self.tokens[-1], "expires_in": 3599, "token_type": "Bearer"})


def error(code: int, status: str, word: str = "", headers: dict[str, str] | None = None) -> Answer:
    kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
    details = [{"@type": kind, "errorCode": word}] if word else []
    body = {"error": {"code": code, "message": "In words.", "status": status, "details": details}}
    return Answer(code, headers or {}, body=body)


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    fake = FakeFcm()
    with Receiver(fake) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        yield Bench(
            fcm(url),
            arrived=lambda: [message["android"]["notification"]["tag"] for message in fake.sent],
            absent=fcm(f"http://127.0.0.1:{free_port()}"),
            locked=fcm(url, credentials=credentials(url, client_email="nobody@shop.example.com")),
            waits=timedelta(seconds=60),
            addresses=DEVICES,
            personal=("ya29.", "BEGIN PRIVATE KEY"),
        )
