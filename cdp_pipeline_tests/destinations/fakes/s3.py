"""What there is of S3 to be impolite with: PUT of an object. test_drops.py has moto's S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from cdp_pipeline.spec.destination import S3
from cdp_pipeline_tests.destinations.fakes.file import LACKS, operations
from cdp_pipeline_tests.destinations.kit import Bench
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver
from cdp_pipeline_tests.waiting import free_port

KEY_ID, SECRET = "AKIAONLYFORTESTS", "a secret that only tests know"


def s3(url: str | None, **fields: Any) -> S3:
    given = {"name": "drop", "dry_run": False, "rate": 100_000, "bucket": "drop", "prefix": "in/", "format": "jsonl",
             "region": "eu-central-1", "allow_private": True, "key_id": KEY_ID, "secret": SECRET}  # fmt: skip
    return S3(kind="destination", type="s3", description="A bucket.", url=url, **{**given, **fields})


def error(code: int, word: str, headers: dict[str, str] | None = None) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{word}</Code><Message>In words.</Message></Error>".encode()
    return Answer(code, {"Content-Type": "application/xml", **(headers or {})}, body=body)


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    objects: dict[str, str] = {}

    def answer(request: Received) -> Answer:
        if f"Credential={KEY_ID}/" not in request.headers["authorization"]:
            return error(403, "InvalidAccessKeyId")
        if b"wait-" in request.body:
            return error(503, "SlowDown", {"Retry-After": "20"})
        silent = b"silent-" in request.body and request.path not in objects
        objects[request.path] = request.body.decode()
        return Answer(hang_up=silent, headers={"ETag": '"e"'})

    with Receiver(answer) as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        yield Bench(
            s3(url),
            arrived=lambda: operations(objects.items()),
            absent=s3(f"http://127.0.0.1:{free_port()}"),
            locked=s3(url, key_id="AKIASOMEBODYELSE"),
            waits=timedelta(seconds=20),
            lacks=LACKS,
        )
