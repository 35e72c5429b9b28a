"""`kind: identifier`: one type of identifier, how strongly it links rows to a person and when it must not."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cdp_pipeline.spec.base import Document, Duration, Part, Pattern


class Blocked(Part):
    """Values that link nobody: exact ones, patterns, and the list that ships (on unless turned off)."""

    values: list[str] = []
    patterns: list[Pattern] = Field(default=[], description="Regular expressions that match the whole value.")
    shipped: bool = True


class Limit(Part):
    """How many values of a type one person may have: ever, or how many that were first seen `within` any such time."""

    count: Annotated[int, Field(gt=0)]
    within: Duration | None = None


def _counted(limit: object) -> object:
    return {"count": limit} if isinstance(limit, int) and not isinstance(limit, bool) else limit


_Count = Annotated[int, Field(gt=0)]
_Limit = Annotated[Limit, BeforeValidator(_counted, json_schema_input_type=_Count | Limit)]


class Identifier(Document):
    """One identifier type. A higher priority wins when links contradict each other."""

    kind: Literal["identifier"]
    priority: Annotated[int, Field(ge=0, le=1000)] = 100
    limit: _Limit | None = Field(
        default=None,
        description="How many of this type one person may have: a number, or {count: 5, within: 30 days}.",
    )
    unique: bool = Field(
        default=False, description="True when one value can only ever be one person's (a customer number)."
    )
    known: bool = Field(default=True, description="False for cookies and devices: such people stay anonymous.")
    shared_above: Annotated[int, Field(gt=0)] | None = Field(
        default=None,
        description="Seen with more values of a unique type than this, a value is shared (a tablet) and links nobody.",
    )
    people_by: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None,
        description="With shared_above: stronger types that tell people apart as unique ones do, such as email. Two "
        "values of one of them are two people where nothing stronger than the shared value ties them together.",
    )
    expires: Duration | None = Field(default=None, description="How long a link lasts after it was last seen.")
    blocked: Blocked = Blocked()
