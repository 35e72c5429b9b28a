"""An open lake: its tables at one pinned snapshot, earlier ones, and the one way to write. Reading is view.py's."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import ibis

from cdp_pipeline.lake.catalog import ELSEWHERE, META, Catalog, locate
from cdp_pipeline.lake.engines import DuckDBEngine, Engine, SparkEngine
from cdp_pipeline.lake.erase import Predicate, erase, traces
from cdp_pipeline.lake.errors import LakeReadOnlyError, LakeVersionError
from cdp_pipeline.lake.instances import borrowed
from cdp_pipeline.lake.maintenance import Maintained, maintain
from cdp_pipeline.lake.publish import Mirror, Note, Published, Upsert, publish
from cdp_pipeline.lake.view import LakeView
from cdp_pipeline.spec.project import LakeLocation


class Lake(LakeView):
    """An open lake. Reads see the snapshot pinned at opening (or `refresh`) and this lake's own publishes."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, catalog: Catalog, engine: Engine, read_only: bool = False
    ) -> None:
        super().__init__(connection, engine, -1)
        self.catalog = catalog
        self._here = ExitStack()
        self.ibis = engine.local
        self.read_only = read_only
        self.refresh()

    def refresh(self) -> int:
        """Pin the latest snapshot, once whoever waits for the lake to be left has had it."""
        self.give_way()
        self._snapshot = self.latest()
        self._own.clear()
        return self._snapshot

    def give_way(self) -> None:
        """Let pass who waits for everybody to leave the lake: for those who stay long, now and then."""
        self._here.close()
        self._here = self.catalog.reading()

    def close(self) -> None:
        """Leave the lake; its connection is closed by whoever opened it."""
        self._here.close()

    @property
    def local(self) -> LakeView:
        """The same tables, read by DuckDB whatever the engine."""
        view = LakeView(self.connection, DuckDBEngine(self.connection), self._snapshot)
        view._own = self._own
        return view

    def as_of(self, when: datetime | int) -> LakeView:
        """The lake as it was at a snapshot, or at a moment (aware)."""
        if isinstance(when, datetime):
            query = f"SELECT max(snapshot_id) FROM {META}.ducklake_snapshot WHERE snapshot_time::TIMESTAMPTZ <= ?"
        else:
            query = f"SELECT max(snapshot_id) FROM {META}.ducklake_snapshot WHERE snapshot_id = ?"
        row = self.connection.execute(query, [when]).fetchone()
        if row is None or row[0] is None:
            first, last = self.connection.execute(
                f"SELECT min(snapshot_id), max(snapshot_id) FROM {META}.ducklake_snapshot"
            ).fetchall()[0]
            raise LakeVersionError(f"The lake has nothing as of {when}; it remembers snapshots {first} to {last}.")
        return LakeView(self.connection, self.engine, row[0])

    def publish(self, *writes: Mirror | Upsert, note: Note | None = None) -> Published:
        """Commit all writes in one transaction, or none; equal rows are not touched, equal tables make no snapshot."""
        self._writable()
        published = publish(self, self.catalog, writes, note or Note())
        self._own.update(dict.fromkeys(published.counts, published.snapshot))
        return published

    def held(self, rows: ibis.Table) -> ibis.Table:
        """The rows computed once, kept on this connection for DuckDB to read as often as need be."""
        return self.ibis.create_table(f"held_{uuid.uuid4().hex[:12]}", self.engine.materialize(rows), temp=True)

    def maintain(self, now: datetime, keep: timedelta) -> Maintained:
        """Tidy the files, forget snapshots older than `keep`, remove what nothing refers to."""
        self._writable()
        self._here.close()
        try:
            return maintain(self, self.catalog, now, keep)
        finally:
            self.refresh()

    def erase(self, what: Mapping[str, Predicate]) -> dict[str, int]:
        """Delete these rows physically and forget every snapshot before; returns the rows deleted per table."""
        self._writable()
        self._here.close()
        try:
            return erase(self, self.catalog, what)
        finally:
            self.refresh()

    def traces(self, text: str) -> list[str]:
        """Files and catalog tables in which a text is still found: the proof of an erasure is an empty list."""
        return traces(self, self.catalog, text)

    def _writable(self) -> None:
        if self.read_only:
            raise LakeReadOnlyError("This lake was opened read-only.")


@contextmanager
def open_lake(
    location: LakeLocation,
    base: Path | None = None,
    engine: str = "duckdb",
    read_only: bool = False,
    threads: int | None = None,
) -> Iterator[Lake]:
    """Open the lake a project names, making it if it is not there (never when read-only).

    With a Spark Connect URL for an engine, tables are Spark's, and what is published is computed there. Many small
    questions cost half as much on one thread as on all (`threads`).
    """
    catalog = locate(location, base or Path.cwd())
    # Reading writes nothing to the lake, and spills elsewhere.
    spill = ELSEWHERE if read_only else catalog.spill
    with borrowed(catalog.extensions, spill, threads) as connection, ExitStack() as stack:
        catalog.attach(connection, read_only)
        local = DuckDBEngine(connection)
        computing = local if engine == "duckdb" else stack.enter_context(SparkEngine(engine, local, catalog.shared))
        yield stack.enter_context(closing(Lake(connection, catalog, computing, read_only)))
