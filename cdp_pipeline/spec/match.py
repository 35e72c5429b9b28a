"""`kind: match`: how alike two people the identifiers leave apart must be, to be taken for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cdp_pipeline.spec.base import Document, Name, Part, unknown

Grade = Annotated[int, Field(ge=1, le=5)]
NAME, PLACE = "name", "place"
KINDS = (NAME, "date", "email", "phone", "postcode", PLACE, "lines", "text", "code", "exact")


class Comparison(Part):
    """One thing that is compared: exactly one of these, with the attributes it reads.

    Attributes that go together (a street, its postcode, its town) are one `place`: compared one by one, a family that
    lives together would count as agreeing three times.
    """

    name: Annotated[list[Name], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="Given and family name; they may be swapped."
    )
    date: Name | None = Field(default=None, description="A date, such as that of birth.")
    email: Name | None = Field(default=None, description="An e-mail address, in parts.")
    phone: Name | None = Field(default=None, description="A phone number; its end counts most.")
    postcode: Name | None = Field(default=None, description="A postcode, from the exact one to its area.")
    place: Annotated[list[Name], Field(min_length=2)] | None = Field(
        default=None, description="Where they live, the most exact attribute first (street, postcode, town)."
    )
    lines: Annotated[list[Name], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="Two lines of an address; they may be swapped."
    )
    text: Name | None = Field(default=None, description="Any text, spelling mistakes allowed.")
    code: Name | None = Field(default=None, description="A number or code; a digit may be wrong or swapped.")
    exact: Name | None = Field(default=None, description="Agrees or does not (gender, occupation).")

    @model_validator(mode="after")
    def _one_of_them(self) -> Comparison:
        if len([kind for kind in KINDS if getattr(self, kind) is not None]) != 1:
            raise ValueError(f"should say one of {', '.join(KINDS)}")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def attributes(self) -> list[str]:
        named = getattr(self, self.kind)
        return list(named) if isinstance(named, list) else [named]


class Match(Document):
    """Which attributes are compared, and how sure a match must be for each use: grade 5 is certain, 1 a guess.

    A match joins two people at grade `thresholds.join` (5 unless said otherwise: at most one in a thousand is wrong);
    any other use (an advertising audience) names the lowest grade it takes.
    """

    kind: Literal["match"]
    compare: Annotated[list[Comparison], Field(min_length=2)]
    blocking: Annotated[list[Annotated[list[Name], Field(min_length=1)]], Field(min_length=1)] | None = Field(
        default=None,
        description="Only people who agree on all attributes of one of these lists are compared; default: learned.",
    )
    thresholds: dict[Name, Grade] = Field(default={}, description="Use to lowest grade; `join` is 5 unless set here.")
    retrain_after: Annotated[float, Field(gt=0)] = Field(
        default=0.5, description="Learn anew when people became this share more or fewer; until then scores stay."
    )

    @property
    def attributes(self) -> list[str]:
        """Every attribute that is read, once, in the order of the comparisons."""
        return list(dict.fromkeys(name for comparison in self.compare for name in comparison.attributes))

    @property
    def joins_at(self) -> int:
        return self.thresholds.get("join", 5)

    def disagreements(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What in it contradicts the rest of it: path and message."""
        seen: dict[str, int] = {}
        kinds = [comparison.kind for comparison in self.compare]
        for i, comparison in enumerate(self.compare):
            for name in comparison.attributes:
                if name in seen:
                    yield (
                        ("compare", i, comparison.kind),
                        f"'{name}' is compared already, in compare[{seen[name]}]; what agrees counts once",
                    )
                seen.setdefault(name, i)
            if comparison.kind == "postcode" and PLACE in kinds:
                yield (
                    ("compare", i, "postcode"),
                    f"'{comparison.postcode}' goes with the place in compare[{kinds.index(PLACE)}]: list it there, or "
                    "neighbours count as agreeing twice",
                )
            if comparison.kind == PLACE and kinds.index(PLACE) != i:
                yield ("compare", i, PLACE), "there is one place in a match: list what belongs together in one"
        for i, names in enumerate(self.blocking or []):
            for j, name in enumerate(names):
                if name not in seen:
                    yield ("blocking", i, j), unknown("compared attribute", name, seen)
