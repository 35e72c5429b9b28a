"""identity.runs, and from it what the next run of identity has to look at: new rows only, or everything, and why.

How people are decided is people.py's and increment.py's; this reads what was written to the sources since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import ibis

from cdp_pipeline.identity.edges import EDGES, edges
from cdp_pipeline.identity.evidence import identified, identified_edges
from cdp_pipeline.identity.increment import State
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.identity.seen import identifiers_seen, seen
from cdp_pipeline.identity.verdicts import verdict_edges
from cdp_pipeline.lake.errors import LakeVersionError
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.sources.tables import source_table

if TYPE_CHECKING:
    import pyarrow as pa

    from cdp_pipeline.lake.lake import Lake
    from cdp_pipeline.spec.project import Project
    from cdp_pipeline.spec.source import Source

# To be raised when the same rules and rows are decided differently than before.
METHOD = 1
COMPARES = "people are compared with each other"

RUNS = Table(
    name="identity.runs",
    description="Each time it was decided who is who: whether everything was looked at or only what was new, and why.",
    columns={
        "at": Column("timestamp(6)", "When (UTC)."),
        "mode": Column("string", "everything, or what was new."),
        "why": Column("string", "Why everything had to be looked at."),
        "snapshot": Column("int64", "The state of the lake that was read."),
        "rules": Column("string", "A fingerprint of the rules; others mean that everything is looked at again."),
        "identifiers": Column("int64", "How many identifiers were written: all, or those of which something is new."),
        "created": Column("int64", "People who were new."),
        "merged": Column("int64", "People who were merged into others."),
        "split": Column("int64", "People who were split from others."),
    },
    key=("at",),
)


@dataclass(frozen=True)
class Task:
    """Evidence to decide on: identified edges and identifiers, of new rows beside the `last` state or, without, all."""

    edges: ibis.Table
    seen: ibis.Table
    last: State | None
    why: str | None
    snapshot: int
    rules: str


def task(lake: Lake, project: Project, now: datetime) -> Task:
    """What this run has to decide on."""
    rules, snapshot = rules_of(project), lake.snapshot
    new = _written_since_last(lake, project, rules, now)
    if isinstance(new, str):
        rows = {name: lake.read(source_table(source)) for name, source in project.sources.items()}
        return Task(*_evidence(lake, rows, project), None, new, snapshot, rules)
    last, rows = new
    return Task(*_evidence(lake, rows, project), last, None, snapshot, rules)


def run_row(task: Task, identifiers: int, changes: pa.Table, now: datetime) -> pa.Table:
    """The row of RUNS for a task that is done."""
    import pyarrow as pa

    counts = changes["change"].to_pylist()
    row = {
        "at": now.astimezone(UTC).replace(tzinfo=None),
        "mode": "everything" if task.last is None else "what was new",
        "why": task.why,
        "snapshot": task.snapshot,
        "rules": task.rules,
        "identifiers": identifiers,
        **{change: counts.count(change) for change in ("created", "merged", "split")},
    }
    return pa.Table.from_pylist([row], schema=RUNS.schema.to_pyarrow())


def rules_of(project: Project) -> str:
    """A fingerprint of all that decides who is who, beside the rows."""
    said = {
        "method": METHOD,
        "strategy": project.settings.identity.strategy,
        **{
            kind: {name: spec.model_dump(mode="json", exclude={"description", "owner"}) for name, spec in specs.items()}
            for kind, specs in (
                ("identifiers", project.identifiers), ("verdicts", project.verdicts), ("matches", project.matches),
            )
        },
        "sources": {
            name: [source.mode, source.occurred_at, source.region, sorted(source.identifier_columns.items()),
                   [source.columns[column].normalise for column in sorted(source.identifier_columns)]]
            for name, source in project.sources.items()
        },
    }  # fmt: skip
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _evidence(lake: Lake, rows: Mapping[str, ibis.Table], project: Project) -> tuple[ibis.Table, ibis.Table]:
    """Identified edges, those of verdicts among them, and identifiers, each computed once."""
    links = lake.engine.materialize(edges(rows, project))
    declared = verdict_edges(project)
    if declared.num_rows:
        links = ibis.union(links, ibis.memtable(declared).select(links.columns))
    nodes = lake.engine.materialize(identifiers_seen(seen(rows, project)))
    return lake.held(identified_edges(links)), lake.held(identified(nodes))


def _written_since_last(
    lake: Lake, project: Project, rules: str, now: datetime
) -> tuple[State, dict[str, ibis.Table]] | str:
    """The last state and the source rows written since; or why these are not enough."""
    last = lake.read(RUNS).order_by(ibis.desc("at")).limit(1).to_pyarrow().to_pylist()
    if not last:
        return "the first run"
    at = last[0]["at"].replace(tzinfo=UTC)
    if last[0]["rules"] != rules:
        return "the rules changed"
    if project.matches:
        return COMPARES
    if at > now:
        return "the clock went back"
    rows = {}
    for name, source in project.sources.items():
        if not source.identifier_columns or not lake.exists(source_table(source).name):
            continue
        try:
            written, removed = lake.feed(source_table(source).name, last[0]["snapshot"])
        except LakeVersionError:
            return "the lake no longer remembers the last run"
        rows[name] = lake.held(written.select(_telling(source)))
        if _lost(lake, source, removed):
            return f"rows of {name} were withdrawn or corrected"
    here = lake.local
    return State(here.read(EDGES), here.read(IDENTIFIERS), here.read(PEOPLE), at), rows


def _telling(source: Source) -> list[str]:
    return list(dict.fromkeys([*source.identifier_columns, "_record_id", "_occurred_at", "_loaded_at"]))


def _lost(lake: Lake, source: Source, removed: ibis.Table) -> bool:
    """Whether a removed row said something of identifiers that its successor does not."""
    gone = lake.held(removed.select([*source.identifier_columns, "_record_id", "_occurred_at"]).distinct())
    if not gone.count().to_pyarrow().as_py():
        return False
    now = lake.local.read(source_table(source)).semi_join(gone, "_record_id").select(gone.columns)
    return bool(gone.difference(now).count().to_pyarrow().as_py())
