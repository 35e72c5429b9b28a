"""`kind: attribute`: one column of the profile and the rule by which sources that disagree are settled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cdp_pipeline.spec.base import Document, Name, Part, SqlFragment

Survivorship = Literal[
    "most_recent", "first", "source_priority", "most_frequent", "longest", "min", "max", "sum", "union", "any", "all",
    "most_restrictive",
]  # fmt: skip


class AttributeSource(Part):
    """Where values come from: a column of a source, or an expression over its columns."""

    source: Name
    column: SqlFragment


class Attribute(Document):
    """One attribute; `sources` are listed most trusted first. `most_restrictive` keeps False over True."""

    kind: Literal["attribute"]
    sources: Annotated[list[AttributeSource], Field(min_length=1)]
    survivorship: Survivorship = "most_recent"
    pii: bool = False
