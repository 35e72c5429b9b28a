"""`kind: verdict`: what a person decided about two identifiers: they are one person's, or they never are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from cdp_pipeline.spec.base import Day, Document


def _typed(text: str) -> str:
    type_, _, value = text.partition(":")
    if not type_.strip() or not value.strip():
        raise ValueError("should be an identifier such as email:ann@example.com")
    return text


Typed = Annotated[
    str, AfterValidator(_typed), Field(json_schema_extra={"examples": ["email:ann@example.com", "customer_id:17"]})
]
Pair = Annotated[list[Typed], Field(min_length=2, max_length=2)]


class Verdict(Document):
    """Two identifiers, linked or kept apart by decision: who, when and why. Keeping apart wins over everything."""

    kind: Literal["verdict"]
    link: Pair | None = Field(default=None, description="These two are one person's.")
    unlink: Pair | None = Field(default=None, description="These two are never one person's.")
    by: Annotated[str, Field(min_length=1, description="Who decided.")]
    on: Day = Field(description="The day it was decided.")
    why: Annotated[str, Field(min_length=1, description="What it was decided on.")]

    @model_validator(mode="after")
    def _one_of_link_and_unlink(self) -> Verdict:
        if (self.link is None) == (self.unlink is None):
            raise ValueError("needs exactly one of 'link' and 'unlink'")
        return self

    @property
    def ends(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """The two identifiers as (type, value), as they are written."""
        one, other = self.link or self.unlink or ["", ""]
        return _parted(one), _parted(other)


def _parted(text: str) -> tuple[str, str]:
    type_, _, value = text.partition(":")
    return type_.strip(), value.strip()
