"""A bucket behind the S3 API (Amazon's or one that speaks it): one object for each batch."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from cdp_pipeline.activation.protocol import DestinationError
from cdp_pipeline.destinations.addresses import AddressRefusedError, allowed_address
from cdp_pipeline.destinations.drop import DropConnection, Parcel, Trouble
from cdp_pipeline.destinations.http import WAIT_AFTER_REFUSED_KEY, code_word, retry_after
from cdp_pipeline.spec.destination import S3

CONTENT_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
NEEDS_SOMEBODY = (301, 400, 401, 403, 404)


def connect(spec: S3) -> S3Connection:
    return S3Connection(spec)


class S3Connection(DropConnection):
    """PUTs objects; S3 shows an object whole or not at all."""

    def __init__(self, spec: S3) -> None:
        super().__init__(spec)
        try:
            import boto3  # noqa: F401
        except ImportError:
            raise DestinationError("S3 needs boto3: pip install 'cdp-pipeline[s3]'") from None
        self._spec = spec
        self._made: Any = None

    def _put(self, parcel: Parcel, timeout: timedelta, now: datetime) -> Trouble | None:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            self._check_address()
            self._client(timeout).put_object(
                Bucket=self._spec.bucket,
                Key=self._spec.prefix + parcel.name,
                Body=parcel.content,
                ContentType=CONTENT_TYPES[self._format],
            )
        except AddressRefusedError as refused:
            return Trouble(str(refused), state="failed")
        except ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
            headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            code = str(error.response.get("Error", {}).get("Code") or "")
            reason = f"HTTP {status}" + (f", S3 {code}" if code.isalpha() or code_word(code) else "")
            after = WAIT_AFTER_REFUSED_KEY if status in NEEDS_SOMEBODY else retry_after(headers.get("retry-after"), now)
            return Trouble(reason, after, refused_us=status in (401, 403))
        except NoCredentialsError:
            return Trouble("no credentials are found", WAIT_AFTER_REFUSED_KEY, refused_us=True)
        except (BotoCoreError, OSError) as error:
            return Trouble(f"no answer ({type(error).__name__})")
        return None

    def _check_address(self) -> None:
        """Of an address that was given: Amazon's own are looked up by boto3 and are public."""
        if self._spec.url is not None:
            target = urlsplit(self._spec.url)
            port = target.port or (443 if target.scheme == "https" else 80)
            allowed_address(target.hostname or "", port, allow_private=self._spec.allow_private)

    def _client(self, timeout: timedelta) -> Any:
        if self._made is None:
            import boto3
            from botocore.config import Config

            # It would log whole requests, and they are people's data.
            logging.getLogger("botocore").setLevel(logging.INFO)
            spec, seconds = self._spec, timeout.total_seconds()
            self._made = boto3.session.Session(
                aws_access_key_id=spec.key_id, aws_secret_access_key=spec.secret, region_name=spec.region
            ).client(
                "s3",
                endpoint_url=spec.url,
                config=Config(
                    retries={"total_max_attempts": 1},  # When to try again is the ledger's business.
                    connect_timeout=seconds,
                    read_timeout=seconds,
                    s3={"addressing_style": "path" if spec.url else "auto"},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        return self._made

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None
