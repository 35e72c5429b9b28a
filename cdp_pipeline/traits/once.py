"""Traits as of days for several who ask of the same people: computed once for all of them.

What a trait is as of a day is as_of.py; who asks, and where rows are kept meanwhile, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import ibis

from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of


@dataclass(frozen=True)
class Once:
    """Keeps what was computed of the same events and people with `keep`, for as long as what that returns can be read.

    The lake's snapshot is part of its tables, so that what is kept is never of another one.
    """

    keep: Callable[[ibis.Table], ibis.Table]
    _kept: dict[Any, ibis.Table] = field(default_factory=dict)

    def as_of(
        self,
        timeline: ibis.Table,
        people: ibis.Table,
        days: Sequence[date],
        project: Project,
        names: Sequence[str],
        others: Iterable[date],
        all_names: Iterable[str],
    ) -> ibis.Table:
        """What as_of(timeline, people, days, project, names) says, computed together with all names and other days."""
        wanted = [name for name in project.traits if name in {*names, *all_names}]
        together = tuple(sorted({*days, *others}))
        made_of = (timeline.op(), people.op(), together, tuple(wanted))
        if made_of not in self._kept:
            self._kept[made_of] = self.keep(as_of(timeline, people, together, project, wanted))
        rows = self._kept[made_of]
        return rows.filter(rows.day.isin(list(days))).select("person_id", "day", *names)
