"""`kind: sync`: an audience kept in a destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cdp_pipeline.spec.base import Document, Name, Priority

Nulls = Literal["clear", "skip"]


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
    nulls: Nulls | dict[str, Nulls] = Field(
        default="clear",
        description="Where nothing is known: clear empties the field over there, skip leaves it out. For all fields, "
        "or by field (the others: clear).",
    )
    defaults: dict[str, str | int | float | bool] = Field(
        default={}, description="Field sent: what it says where nothing is known."
    )

    @model_validator(mode="after")
    def _fields_are_mapped(self) -> Sync:
        named = {*self.defaults, *(self.nulls if isinstance(self.nulls, dict) else ())}
        if missing := sorted(named - set(self.mapping)):
            raise ValueError(f"'{missing[0]}' is not in the mapping: nothing is sent under that name")
        if self.key in self.defaults:
            raise ValueError(f"'{self.key}' is the key: whoever has none cannot be told apart, so it has no default")
        return self

    @property
    def moves(self) -> bool:
        """Whether it tells of moves, of which nothing more is said later, and not of what is known of people."""
        return self.mode in ("append", "event")

    def fields(self, person: Mapping[str, object]) -> dict[str, object]:
        """What is sent of a person, by field."""
        found: dict[str, object] = {}
        for sent, name in self.mapping.items():
            value = person.get(name)
            if value is None:
                value = self.defaults.get(sent)
            policy = self.nulls if isinstance(self.nulls, str) else self.nulls.get(sent, "clear")
            if value is not None or policy == "clear":
                found[sent] = value
        return found
