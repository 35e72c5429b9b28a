"""`kind: consent`: for what purposes people's data is used, what silence means where they live, and who said what.

One document per project. What was actually said, and by whom, is the ledger of consent/.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cdp_pipeline.spec.base import Document, Name, Part, SqlFragment
from cdp_pipeline.spec.destination import Channel

Silence = Literal["yes", "no", "unknown"]
"""What somebody who said nothing is taken to have said; only `yes` lets anything through."""
Place = Annotated[str, Field(min_length=1)]
STRICTEST: tuple[Silence, ...] = ("no", "unknown", "yes")


class Default(Part):
    """What silence means: everywhere, and otherwise in some jurisdictions."""

    default: Silence = Field(
        default="unknown", description="What silence means: yes, no or unknown (which is not yes)."
    )
    where: dict[Place, Silence] = Field(default={}, description="Jurisdiction to what silence means there.")

    def silence(self, place: str | None) -> Silence:
        """Of somebody who lives nobody knows where, the strictest of all that may apply."""
        if place is None:
            return min([self.default, *self.where.values()], key=STRICTEST.index)
        return self.where.get(place, self.default)


class Purpose(Default):
    """Something people's data is used for; triggers and syncs name the one they serve."""

    description: str = ""
    shares: bool = Field(
        default=False,
        description="True: data is sold, shared or used for targeted advertising; Global Privacy Control opts out.",
    )


class Permission(Default):
    """A channel that may only be used with leave of the person, for the purposes given (none given: for all)."""

    purposes: list[Name] = []


class Statement(Part):
    """Rows of a source in which people say yes or no to a purpose, or to being contacted by a channel.

    It counts for every identifier in the columns of `of`, without it for all the row has. `signal: gpc`: where the
    decision is true, the browser asked not to sell or share, a no to all purposes that do.
    """

    source: Name
    when: SqlFragment | None = None
    purpose: Name | None = None
    channel: Channel | None = None
    signal: Literal["gpc"] | None = None
    decision: SqlFragment = Field(description="True: granted, false: denied, null: nothing was said.")
    of: list[Name] = Field(default=[], description="Columns whose identifiers it is said for; none: all of them.")
    proof: SqlFragment | None = Field(default=None, description="What they agreed to, such as the text's version.")

    @model_validator(mode="after")
    def _about_one_thing(self) -> Statement:
        if sum(one is not None for one in (self.purpose, self.channel, self.signal)) != 1:
            raise ValueError("needs exactly one of 'purpose', 'channel' and 'signal'")
        return self


class Exclusion(Part):
    """Rows of a source after which an address, or a person altogether, must not be contacted any more."""

    source: Name
    when: SqlFragment
    reason: Literal["bounce", "complaint", "erasure", "manual"]
    channel: Channel | None = Field(default=None, description="Only by this channel; none: by none at all.")
    of: list[Name] = Field(default=[], description="Columns whose identifiers it is about; none: all of them.")


class Consent(Document):
    """Purposes, permissions, and where people say so. Declared, every trigger and sync has to name its purpose."""

    kind: Literal["consent"]
    jurisdiction: Name | None = Field(
        default=None, description="The attribute that says which law applies to a person, such as country."
    )
    purposes: Annotated[dict[Name, Purpose], Field(min_length=1)]
    channels: dict[Channel, Permission] = Field(default={}, description="Channels that need permission.")
    said: list[Statement] = []
    suppressed: list[Exclusion] = []
