"""The few lines a run ends with: people found (against the truth where it is known), audiences, deliveries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cdp_pipeline.audiences.look import listed
from cdp_pipeline.identity.history import QUALITY
from cdp_pipeline.lake.errors import LakeMissingError
from cdp_pipeline.orchestration.installation import lake_of, ledger_of
from cdp_pipeline.spec.project import Project


def headline(project: Project) -> Iterator[str]:
    """One line each for people, audiences and deliveries, as the lake and the ledger have them now."""
    try:
        with lake_of(project, read_only=True) as lake:
            quality = lake.read(QUALITY)
            newest = quality.filter(quality.day == quality.day.max()).select("figure", "value")
            figures = {row["figure"]: row["value"] for row in newest.to_pyarrow().to_pylist()}
            audiences = listed(lake, project)
    except LakeMissingError:
        return
    if "people" in figures:
        line = f"People: {figures['people']:,.0f}, of whom {figures.get('people_known', 0):,.0f} known"
        if "precision" in figures:
            line += f"; against the truth: precision {figures['precision']:.4f}, recall {figures['recall']:.4f}"
        yield line
    computed = [f"{row['audience']} {row['people']:,}" for row in audiences if row["people"] is not None]
    if computed:
        days = sorted({str(row["day"]) for row in audiences if row["people"] is not None})
        yield f"Audiences at the end of {' to '.join(days[:: len(days) - 1 or 1])}: " + ", ".join(computed)
    with ledger_of(project) as ledger:
        states: Counter[str] = Counter()
        for (_, _, state), count in ledger.counts().items():
            states[state] += count
    if states:
        yield "Deliveries: " + ", ".join(
            f"{count:,} {'shown in dry run' if state == 'dry_run' else state}"
            for state, count in sorted(states.items())
        )
