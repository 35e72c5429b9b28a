"""A row of the one table of predictions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measure of one window: ours, its rival's on the same people, and how sure the difference is."""

    what: str
    window: str
    measure: str
    ours: float
    rival: str | None = None
    theirs: float | None = None
    low: float | None = None
    high: float | None = None
    """Bounds (95 %) of ours minus theirs; without a rival, of ours."""
    demanded: str | None = None
    met: bool | None = None
