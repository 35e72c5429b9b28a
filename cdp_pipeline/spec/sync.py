"""`kind: sync`: an audience kept in a destination."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cdp_pipeline.spec.base import Document, Name, Priority


class Sync(Document):
    """Members of an audience, sent as `mapping` says and found again under `key`.

    upsert adds and updates; mirror also removes those who left (only those we added); append sends each entry once;
    event sends entries and exits as events.
    """

    kind: Literal["sync"]
    audience: Name
    destination: Name
    purpose: Name | None = Field(default=None, description="What people's data is used for here.")
    priority: Priority = 100
    mode: Literal["upsert", "mirror", "append", "event"] = "upsert"
    key: str = Field(default="person_id", description="The mapped field the destination knows people by.")
    mapping: Annotated[dict[str, Name], Field(min_length=1)]
