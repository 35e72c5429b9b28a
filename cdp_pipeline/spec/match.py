"""`kind: match`: one fuzzy match rule between people the identifiers leave apart."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cdp_pipeline.spec.base import Document, Name


class Match(Document):
    """Which attributes are compared, which pairs are compared at all, and what score each use asks for."""

    kind: Literal["match"]
    compare: Annotated[list[Name], Field(min_length=1)]
    blocking: Annotated[list[list[Name]], Field(min_length=1)]
    thresholds: dict[Name, Annotated[float, Field(gt=0, lt=1)]]
