"""`kind: attribute`: one column of the profile and the rule by which sources that disagree are settled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cdp_pipeline.spec.base import Document, Duration, Name, Part, SqlFragment

Survivorship = Literal[
    "most_recent", "first", "source_priority", "most_frequent", "most_trusted_and_fresh", "longest", "min", "max",
    "sum", "union", "any", "all", "most_restrictive",
]  # fmt: skip
COMBINING = ("min", "max", "sum", "union")
"""Rules that make one value of many; under the others, one value wins and different ones contradict each other."""


class AttributeSource(Part):
    """Where values come from: a column of a source, or an expression over its columns."""

    source: Name
    column: SqlFragment


class Attribute(Document):
    """One attribute; `sources` are listed most trusted first. `most_restrictive` keeps False over True."""

    kind: Literal["attribute"]
    sources: Annotated[list[AttributeSource], Field(min_length=1)]
    survivorship: Survivorship = "most_recent"
    fresh_for: Duration | None = Field(
        default=None,
        description="Of `most_trusted_and_fresh`: a value older than this gives way to the next source's.",
    )
    at_most: Annotated[int, Field(gt=0)] | None = Field(
        default=None,
        description="How many different values one person's sources may give before strangers may have been merged.",
    )
    pii: bool = False

    @model_validator(mode="after")
    def _fits_its_rule(self) -> Attribute:
        if (self.fresh_for is not None) != (self.survivorship == "most_trusted_and_fresh"):
            raise ValueError("'fresh_for' and 'survivorship: most_trusted_and_fresh' go together")
        if self.at_most is not None and self.survivorship in COMBINING:
            raise ValueError(f"'at_most' counts contradicting values, and '{self.survivorship}' combines them")
        return self
