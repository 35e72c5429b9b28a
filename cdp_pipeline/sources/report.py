"""What a load did: one entry per file or read of a database, and the whole. No rows and no values in here."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import ibis

from cdp_pipeline.sources.drift import Drift
from cdp_pipeline.sources.errors import ContractError, FileUnreadableError, SourceError

COUNTS = ("read", "accepted", "duplicates", "conflicts", "quarantined", "rejected", "omitted", "coerced")


@dataclass
class FileLoad:
    """One file, or one read of a database: what is known of it, and what became of its rows."""

    number: int
    place: str
    fingerprint: str = ""
    day: date | None = None
    size: int | None = None
    modified_ns: int | None = None
    cursor: str | None = None
    copied_at: datetime | None = None
    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: int = 0
    rejected: int = 0
    omitted: int = 0
    coerced: int = 0
    first_day: date | None = None
    last_day: date | None = None
    status: str = "loaded"
    message: str = ""
    error: SourceError | None = field(default=None, repr=False)

    def fail(self, error: SourceError) -> None:
        """Nothing of it was kept; the load goes on and raises at its end."""
        self.status, self.message, self.error = "failed", str(error), error
        for count in COUNTS:
            setattr(self, count, 0)

    def refuse(self, error: ContractError) -> None:
        """Its contract refuses the whole of it."""
        read = self.read
        self.fail(error)
        self.status, self.read, self.rejected = "rejected", read, read


@dataclass
class LoadReport:
    """What one load did; `loads` has an entry per file that was new, none where nothing was."""

    source: str
    loads: list[FileLoad] = field(default_factory=list)
    inserted: int = 0
    updated: int = 0
    snapshot: int | None = None
    drift: Drift = field(default_factory=Drift)
    late_days: list[date] = field(default_factory=list)
    missing_days: list[date] = field(default_factory=list)

    @property
    def first_late_day(self) -> date | None:
        """The oldest day that got rows although it was over; what depends on it and on later days is stale."""
        return self.late_days[0] if self.late_days else None

    def total(self, what: str) -> int:
        return sum(getattr(one, what) for one in self.loads)

    def metadata(self) -> dict[str, Any]:
        """Counts and days for people to look at; never a value of a row."""
        shown: dict[str, Any] = {"files": len(self.loads), "inserted": self.inserted, "updated": self.updated}
        shown |= {what: self.total(what) for what in COUNTS}
        if self.late_days:
            shown["first late day"] = str(self.first_late_day)
        if self.drift.unknown:
            shown["columns not declared"] = ", ".join(self.drift.unknown)
        if self.drift.missing:
            shown["columns missing"] = ", ".join(self.drift.missing)
        return shown

    def raise_problems(self) -> None:
        """Raise one error that names everything that went wrong; of the cause's class where there is one cause."""
        errors = [one.error for one in self.loads if one.error is not None]
        if not errors:
            return
        kinds = {type(error) for error in errors}
        kind = kinds.pop() if len(kinds) == 1 else ContractError if ContractError in kinds else FileUnreadableError
        raise kind(f"source {self.source}: " + "; ".join(map(str, errors)))


def conservation(loads: ibis.Table) -> ibis.Table:
    """The loads whose rows do not add up: read = accepted + duplicates + quarantined + rejected. Empty when all do."""
    return loads.filter(loads.read != loads.accepted + loads.duplicates + loads.quarantined + loads.rejected)
