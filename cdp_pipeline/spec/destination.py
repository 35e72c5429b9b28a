"""`kind: destination`: a place to deliver to, how fast, and whether for real (dry run is the default)."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cdp_pipeline.spec.base import Document, Duration


def _flag(value: object) -> object:
    """Environment variables are text: 'false', '0' and 'no' mean False."""
    if isinstance(value, str) and value.strip().lower() in ("true", "1", "yes", "on"):
        return True
    if isinstance(value, str) and value.strip().lower() in ("false", "0", "no", "off"):
        return False
    return value


Flag = Annotated[bool, BeforeValidator(_flag, json_schema_input_type=bool)]


class _Destination(Document):
    kind: Literal["destination"]
    dry_run: Flag = Field(default=True, description="True: show what would be sent, send nothing.")
    rate: Annotated[float, Field(gt=0)] = Field(default=20, description="Deliveries a second at most.")
    timeout: Duration = timedelta(minutes=1)
    max_attempts: Annotated[int, Field(gt=0, le=20)] = 5


class Webhook(_Destination):
    """An HTTP endpoint that receives signed JSON (Standard Webhooks)."""

    type: Literal["webhook"]
    url: Annotated[str, Field(pattern="^https?://")]
    secret: Annotated[str, Field(min_length=1, json_schema_extra={"secret": True})]
    allow_private: Flag = Field(default=False, description="True: addresses inside the own network are allowed.")


class Smtp(_Destination):
    """A mail server."""

    type: Literal["smtp"]
    host: str
    port: Annotated[int, Field(gt=0, lt=65536)] = 587
    sender: str
    username: str | None = None
    password: str | None = Field(default=None, json_schema_extra={"secret": True})
    security: Literal["starttls", "tls", "none"] = "starttls"


Destination = Webhook | Smtp
