"""The small installation of `wire/`: people who are known, and rows that arrive while a test looks on.

Who is who is written down by hand: what is looked at here is what becomes of events, not how people are found.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from cdp_pipeline.activation.ledger import Ledger, ledger_url, open_ledger
from cdp_pipeline.identity.people import IDENTIFIERS
from cdp_pipeline.lake import Mirror, open_lake
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.profile.timeline import timeline, timeline_table
from cdp_pipeline.profile.watermarks import WATERMARKS, watermarks
from cdp_pipeline.sources.load import load
from cdp_pipeline.sources.tables import LOADS, source_table
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.destinations.servers import SECRET

WIRE = Path(__file__).parent / "wire"
CUSTOMERS = Table(
    "profile.customers", "People.", {"person_id": Column("string"), "email": Column("string")}, key=("person_id",)
)
PEOPLE = {
    # account: e-mail, device
    "A1": ("ann@example.com", "d-ann"),
    "B2": ("bob@example.com", "d-bob"),
    "C3": ("", "d-cat"),
}
LOBBY, TABLET, OFFICE = "d-lobby", "d-tablet", "info@example.com"
"""A device of somebody who does nothing else, one that many share, and an address that names nobody."""
KNOWN = [
    *(("account", account, account, "ok") for account in PEOPLE),
    *(("email", email, account, "ok") for account, (email, _) in PEOPLE.items() if email),
    *(("device", device, account, "ok") for account, (_, device) in PEOPLE.items()),
    ("device", LOBBY, "D4", "ok"),
    ("device", TABLET, "E5", "shared"),
    ("email", OFFICE, None, "blocked"),
]


@dataclass(frozen=True)
class Wired:
    """One installation and where its data come in."""

    project: Project
    folder: Path
    now: datetime

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def at(self, hours_ago: float) -> str:
        return (self.now - timedelta(hours=hours_ago)).replace(tzinfo=None).isoformat(" ", "microseconds")

    def click(self, id_: str, event: str, hours_ago: float = 0.1, **said: Any) -> None:
        moment = self.now - timedelta(hours=hours_ago)
        row = {"id": id_, "at": moment.isoformat(), "event": event} | said
        self.write(f"clicks/{moment.date()}.jsonl", json.dumps(row) + "\n")

    def complaint(self, file: str, ticket: str, email: str, words: str, hours_ago: float = 0.1) -> None:
        path = self.data / "complaints" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not path.exists()
        with path.open("a", newline="") as out:
            writer = csv.writer(out)
            if fresh:
                writer.writerow(["ticket", "at", "email", "words"])
            writer.writerow([ticket, self.at(hours_ago), email, words])

    def order(self, number: int, account: str, total: float, hours_ago: float = 0.1) -> None:
        row = {"number": number, "at": self.at(hours_ago), "account": account or None, "total": total}
        self.ask_shop("INSERT INTO orders VALUES (:number, :at, :account, :total)", row)

    def ask_shop(self, statement: str, row: Mapping[str, object] = MappingProxyType({})) -> None:
        sql = self.project.sources["orders"].sql
        assert sql is not None
        engine = sa.create_engine(sql.url)
        with engine.begin() as connection:
            connection.execute(sa.text(statement), dict(row))
        engine.dispose()

    def write(self, name: str, text: str) -> None:
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as out:
            out.write(text)

    def know(self, *more: tuple[str, str, str, str]) -> None:
        """Publish whose each identifier is: type, value, person and status; those of KNOWN, and more."""
        at = (self.now - timedelta(days=30)).replace(tzinfo=None)
        rows = [
            dict.fromkeys(IDENTIFIERS.columns)
            | {"type": type_, "value": value, "person_id": person, "status": status, "id": number, "component": number}
            | {"first_seen": at, "last_seen": at}
            for number, (type_, value, person, status) in enumerate([*KNOWN, *more])
        ]
        mail = [{"person_id": person, "email": email} for person, (email, _) in PEOPLE.items()]
        with open_lake(self.project.settings.lake) as lake:
            lake.publish(
                Mirror(IDENTIFIERS, pa.Table.from_pylist(rows, schema=IDENTIFIERS.schema.to_pyarrow())),
                Mirror(CUSTOMERS, pa.Table.from_pylist(mail, schema=CUSTOMERS.schema.to_pyarrow())),
            )

    def compute(self) -> None:
        """Load what has come and tell the timeline anew, as a scheduled run does."""
        with open_lake(self.project.settings.lake) as lake:
            for source in self.project.sources.values():
                load(lake, source, self.project, None, datetime.now(UTC), "run")
            lake.refresh()
            tables = {name: lake.read(source_table(source)) for name, source in self.project.sources.items()}
            rows = timeline(tables, lake.read(IDENTIFIERS), self.project)
            reached = watermarks(lake.read(LOADS), self.project)
            lake.publish(Mirror(timeline_table(self.project), rows), Mirror(WATERMARKS, reached))

    def ledger(self) -> Ledger:
        return open_ledger(ledger_url(self.project, Path.cwd()))


def environment(folder: Path, hook: str, database: str | None = None) -> dict[str, str]:
    """What the project reads from its environment; the ledger and the shop in one database, or in a file each."""
    return {
        "CDP_PROJECT": str(WIRE),
        "CDP_DATA": str(folder / "data"),
        "CDP_LAKE": str(folder / "lake"),
        "DAGSTER_HOME": str(folder / "dagster"),
        "WIRE_FIRST_DAY": str(datetime.now(UTC).date() - timedelta(days=60)),
        "WIRE_LEDGER": database or f"sqlite:///{folder / 'ledger.sqlite'}",
        "WIRE_SHOP": database or f"sqlite:///{folder / 'data' / 'shop.sqlite'}",
        "WIRE_HOOK": hook,
        "WIRE_SECRET": SECRET,
    }


def opened(folder: Path, given: Mapping[str, str]) -> Wired:
    return Wired(load_project(WIRE, {**os.environ, **given}), folder, datetime.now(UTC))


def wired(folder: Path, hook: str = "http://127.0.0.1:9/", database: str | None = None) -> Wired:
    """The installation with its people known, before anything has happened lately."""
    made = opened(folder, environment(folder, hook, database))
    made.know()
    # A source has to have come once before it can be computed.
    made.click("first", "page_viewed", 24 * 20, account="A1")
    made.complaint("first.csv", "T0", "ann@example.com", "old", 24 * 20)
    made.ask_shop("CREATE TABLE orders (number INTEGER, at TIMESTAMP, account TEXT, total REAL)")
    made.order(1, "A1", 500, 24 * 20)
    return made
