"""`kind: project` and the whole a project folder declares.

Reading the folder and naming its problems belongs to load.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline.spec.audience import Audience
from cdp_pipeline.spec.base import Day, Document, Duration, Name, Part, SqlFragment, TimeZone
from cdp_pipeline.spec.consent import Consent
from cdp_pipeline.spec.contact_policy import ContactPolicy
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline.spec.group import Group
from cdp_pipeline.spec.guard import Guard
from cdp_pipeline.spec.identifier import Identifier
from cdp_pipeline.spec.match import Match
from cdp_pipeline.spec.prediction import Prediction
from cdp_pipeline.spec.source import Source
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline.spec.trait import Trait
from cdp_pipeline.spec.trigger import Trigger
from cdp_pipeline.spec.verdict import Verdict


class LakeLocation(Part):
    """Where tables live: a folder (embedded), or a Postgres catalog and a data folder or bucket (teams)."""

    path: str | None = None
    catalog: str | None = Field(default=None, description="postgresql://… URL of the catalog.")
    data: str | None = Field(default=None, description="Folder or bucket URL of the files, beside a catalog.")

    @model_validator(mode="after")
    def _folder_or_catalog(self) -> LakeLocation:
        if (self.path is None) == (self.catalog is None) or (self.catalog is None) != (self.data is None):
            raise ValueError("needs either 'path', or 'catalog' together with 'data'")
        return self


_CRON = [(0, 59, ""), (0, 23, ""), (1, 31, ""), (1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
         (0, 7, "sun mon tue wed thu fri sat")]  # fmt: skip


def _sound_cron(text: str) -> str:
    fields = text.split()
    if len(fields) != 5 or not all(_fits_cron(field, *bounds) for field, bounds in zip(fields, _CRON, strict=True)):
        raise ValueError("should be five cron fields (minute hour day month weekday), such as '30 4 * * *'")
    return text


def _fits_cron(field: str, lowest: int, highest: int, words: str) -> bool:
    numbers = {word: str(number) for number, word in enumerate(words.split(), start=lowest)}
    for part in field.lower().split(","):
        found = re.fullmatch(r"(?:\*|(\w{1,3})(?:-(\w{1,3}))?)(?:/([1-9]\d?))?", part)
        if found is None:
            return False
        ends = [numbers.get(end, end) for end in found.groups()[:2] if end is not None]
        if not all(end.isdecimal() and lowest <= int(end) <= highest for end in ends):
            return False
        if [int(end) for end in ends] != sorted(int(end) for end in ends):
            return False
    return True


Cron = Annotated[str, AfterValidator(_sound_cron)]


class Retention(Part):
    """How long what is no longer current is kept."""

    snapshots: Duration = timedelta(days=30)
    runs: Duration = timedelta(days=90)


class IdentitySettings(Part):
    """How identifiers become people, for all types at once; each type's own rules are in its `identifier` document.

    `conversion`: what an anonymous visitor did before saying who they are is the person's. `link`: the same, and
    what happens on a device of several people goes to whoever says next who they are. `isolation`: anonymous and known
    are never joined. `best_match`: a value of several people goes to the one with the strongest evidence. `strict`:
    only identifiers of unique types join people, the others hang on the strongest of those.
    """

    strategy: Literal["conversion", "link", "isolation", "best_match", "strict"] = "conversion"
    churn_budget: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.02, description="The share of identifiers that may change person in one run before it is stopped."
    )


class ShippedSettings(Part):
    """What a project takes of the traits and audiences that come with the house (cdp_pipeline/shipped).

    A document of the project with the name of a shipped one takes its place; `drop` leaves one out.
    """

    traits: bool = True
    audiences: bool = True
    roles: dict[Name, list[Name]] = Field(
        default={}, description="Which events play a role, such as purchase: [bought]; none with an empty list."
    )
    fields: dict[Name, SqlFragment] = Field(
        default={}, description="How an event tells a field, such as coupon: voucher_number."
    )
    drop: list[Name] = Field(default=[], description="Shipped traits and audiences this project does without.")


class ProjectSettings(Document):
    """The whole: its place and clock, how often it refreshes, and who is told when something fails."""

    kind: Literal["project"]
    timezone: TimeZone = "UTC"
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "EUR"
    first_day: Day
    lake: LakeLocation
    engine: Annotated[str, Field(pattern=r"^(duckdb|sc://.+)$")] = "duckdb"
    ledger: str | None = Field(
        default=None, description="SQLAlchemy URL of the delivery ledger; default: SQLite in the lake."
    )
    cadences: dict[Name, Cron] = Field(default={"daily": "0 5 * * *"}, description="Cadence name to cron expression.")
    alerts: list[Name] = Field(default=[], description="Destinations that are told about failed checks and runs.")
    truth: str | None = Field(
        default=None, description="Folder with the ground truth of generated data, if there is one."
    )
    retention: Retention = Retention()
    identity: IdentitySettings = IdentitySettings()
    shipped: ShippedSettings = ShippedSettings()


@dataclass(frozen=True)
class Project:
    """Everything a folder declares, by kind and name, checked as a whole."""

    folder: Path
    settings: ProjectSettings
    sources: dict[str, Source]
    identifiers: dict[str, Identifier]
    matches: dict[str, Match]
    attributes: dict[str, Attribute]
    traits: dict[str, Trait]
    predictions: dict[str, Prediction]
    audiences: dict[str, Audience]
    triggers: dict[str, Trigger]
    destinations: dict[str, Destination]
    syncs: dict[str, Sync]
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    guards: dict[str, Guard] = field(default_factory=dict)
    consents: dict[str, Consent] = field(default_factory=dict)
    contact_policies: dict[str, ContactPolicy] = field(default_factory=dict)
    places: dict[tuple[str, str], str] = field(default_factory=dict)
    """Where each document stands, by kind and name: file:line, that of a shipped one beginning with shipped/."""

    @property
    def consent(self) -> Consent | None:
        """The one consent document, if there is one."""
        return next(iter(self.consents.values()), None)

    @property
    def contact_policy(self) -> ContactPolicy | None:
        """The one contact policy, if there is one."""
        return next(iter(self.contact_policies.values()), None)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.settings.timezone)
