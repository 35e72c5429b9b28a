"""The demo company for the stories: its generated exports, some rows more, and a lake made of them as runs make it.

A step after the other by the functions behind the assets, without Dagster, and of traits and scores only what the
stories need: so that all of them together take half a minute.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cdp_pipeline.activation.deliver import DeliverySummary
from cdp_pipeline.activation.fire import fire
from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.audiences.look import scope_of
from cdp_pipeline.audiences.members import MEMBERS, SIZES, members, sizes
from cdp_pipeline.audiences.reach import reach
from cdp_pipeline.audiences.rules import Scope, matching
from cdp_pipeline.identity.edges import edges
from cdp_pipeline.identity.living import living
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE, resolve
from cdp_pipeline.identity.seen import identifiers_seen, seen
from cdp_pipeline.lake import Lake, Mirror, Note, Upsert
from cdp_pipeline.orchestration.deliveries import deliver_due
from cdp_pipeline.predictions.kind import Champion, Known
from cdp_pipeline.predictions.kinds import kind_of
from cdp_pipeline.profile.customers import PROVENANCE, customers, customers_table, provenance
from cdp_pipeline.profile.timeline import timeline, timeline_table
from cdp_pipeline.profile.watermarks import WATERMARKS, watermarks
from cdp_pipeline.sources.demo.feeds import FEEDS
from cdp_pipeline.sources.load import load
from cdp_pipeline.sources.tables import LOADS, source_table
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.daily import daily_table

NOTE = Note(run_id="stories", asset="stories", partition=None)
TRAITS = ("open_tickets", "nps_last", "revenue_365d", "orders_lifetime", "days_since_last_order")
SOURCES = (
    "crm_contacts", "consents", "messages", "shop_orders", "web_events", "surveys", "iot_events", "reviews", "tickets",
    "warranties", "price_notices",
)  # fmt: skip


def add_row(folder: Path, source: str, day: str, cells: dict[str, Any]) -> None:
    """One row more in a source's export of a day."""
    feed = FEEDS[source]
    path = folder / feed.path.format(day=day)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert set(cells) <= set(feed.columns), set(cells) - set(feed.columns)
    if path.suffix == ".sqlite":
        with sqlite3.connect(path) as database:
            columns = ", ".join(cells)
            database.execute(
                f"INSERT INTO {source} ({columns}) VALUES ({', '.join('?' * len(cells))})", [*cells.values()]
            )
        return
    if path.suffix == ".parquet":
        old = pq.read_table(path) if path.exists() else pq.read_table(next(path.parent.glob("*.parquet"))).slice(0, 0)
        row = {**dict.fromkeys(old.column_names), **cells, feed.time: datetime.fromisoformat(cells[feed.time])}
        pq.write_table(pa.concat_tables([old, pa.Table.from_pylist([row], schema=old.schema)]), path)
        return
    zipped = path.suffix == ".gz"
    if not feed.csv:
        line = json.dumps(cells) + "\n"
    else:
        before = (gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()) if path.exists() else b""
        header = before.split(b"\n")[0].decode().split(feed.delimiter) if before else list(feed.columns)
        text = io.StringIO()
        writer = csv.DictWriter(text, header, delimiter=feed.delimiter, lineterminator="\n")
        if not before:
            writer.writeheader()
        writer.writerow(cells)
        line = text.getvalue()
    with path.open("ab") as out:
        out.write(gzip.compress(line.encode()) if zipped else line.encode())


@dataclass
class Company:
    """The demo project over a lake; `told` is how far it is computed."""

    project: Project
    folder: Path
    lake: Lake

    def arrives(self, source: str, day: str, **cells: Any) -> None:
        """A row arrives in a source's export of a day; it is not loaded yet."""
        add_row(self.folder, source, day, cells)

    def load(self, now: datetime, sources: Sequence[str] = SOURCES) -> None:
        """Load what arrived, and tell the timeline of it, with people as they are known after that."""
        project, lake = self.project, self.lake
        for name in sources:
            load(lake, project.sources[name], project, None, now, "stories")
        tables = {name: lake.read(source_table(source)) for name, source in project.sources.items()}
        if sources is SOURCES:
            named = {name: table for name, table in tables.items() if project.sources[name].identifier_columns}
            evidence = edges(named, project).to_pyarrow()
            found = resolve(evidence, identifiers_seen(seen(named, project)), None, None, project, now)
            lake.publish(Mirror(IDENTIFIERS, found.identifiers), Mirror(PEOPLE, found.people), note=NOTE)
            won = provenance(tables, lake.read(IDENTIFIERS), project, now)
            values = lake.held(won)
            profiles = customers(values, lake.read(PEOPLE), project)
            lake.publish(Mirror(PROVENANCE, values), Mirror(customers_table(project), profiles), note=NOTE)
        rows = timeline(tables, lake.read(IDENTIFIERS), project)
        reached = watermarks(lake.read(LOADS), project)
        lake.publish(Mirror(timeline_table(project), rows), Mirror(WATERMARKS, reached), note=NOTE)

    def compute(self, day: date) -> None:
        """The traits of a day that the stories ask of."""
        people = living(self.lake.read(PEOPLE), self.project)
        rows = as_of(self.lake.read(timeline_table(self.project)), people, [day], self.project, TRAITS)
        table = daily_table(self.project, TRAITS)
        lacking = {name: None for name in table.columns if name not in rows.columns}
        self.lake.publish(Mirror(table, rows.mutate(**lacking), within={"day": [day]}), note=NOTE)

    def foresee(self, prediction: str, day: date, champion: Champion) -> None:
        """Everybody's score of a day."""
        project, lake = self.project, self.lake
        spec = project.predictions[prediction].model_copy(update={"features": list(TRAITS)})
        kind = kind_of(spec)

        def population(rows: Any, days: Sequence[date]) -> Any:
            return rows.semi_join(matching(project, spec.population, Scope(traits=rows), days), ["person_id", "day"])

        people = living(lake.read(PEOPLE), project)
        known = Known(as_of, lake.read(timeline_table(project)), people, population, {}, None, None)
        rows = kind.score(kind.inputs(known, spec, project, day).to_pyarrow(), champion, spec, project, day)
        lake.publish(Mirror(kind.scores_table(spec), rows, within={"day": [day]}), note=NOTE)

    def gather(self, audience: str, day: date) -> None:
        """The members of an audience on a day."""
        scope = scope_of(self.lake, self.project)
        inside = self.lake.held(members(self.project, [audience], scope, [day]))
        reached = reach(self.project, inside, scope.identifiers, scope.customers)
        self.lake.publish(Upsert(MEMBERS, inside), Upsert(SIZES, sizes(inside, reached, [audience], [day])), note=NOTE)

    def acts(self, ledger: Ledger, now: datetime, *triggers: str) -> DeliverySummary:
        """These triggers are evaluated, then what is due is delivered, past all gates."""
        chosen = {name: self.project.triggers[name] for name in triggers}
        fire(ledger, self.lake, replace(self.project, triggers=chosen), now=now)
        return self.delivers(ledger, now)

    def delivers(self, ledger: Ledger, now: datetime) -> DeliverySummary:
        return deliver_due(self.project, ledger, lambda: now, worker="story", lake=lambda: self.lake)
