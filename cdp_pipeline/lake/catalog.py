"""Where a lake's catalog and files are, and who may write when: SQLite in a folder, or Postgres. No tables here."""

from __future__ import annotations

import fcntl
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import duckdb

from cdp_pipeline.lake.errors import CatalogUnreachableError, LakeBusyError, LakeMissingError
from cdp_pipeline.spec.project import LakeLocation

if TYPE_CHECKING:
    import psycopg

# No inlining of small commits into the catalog: it keeps structs and lists as text and cannot read every text back
# (a field with a quote and a backslash makes the whole table unreadable), and is no quicker on SQLite.
_OPTIONS = "DATA_INLINING_ROW_LIMIT 0, OVERRIDE_DATA_PATH true"
# Measured: with them four writers never see "database is locked" under the lock below, and readers never at all.
_SETTINGS = {"ducklake_max_retry_count": 100, "ducklake_retry_wait_ms": 20}
PATIENCE = 600.0
ELSEWHERE = Path(tempfile.gettempdir()) / "cdp_lake"
_DOES = {"write.lock": "writing", "read.lock": "reading", "turn.lock": "tidying up"}
# Where DuckDB shows the catalog's own tables.
META = "__ducklake_metadata_lake"


class Catalog(Protocol):
    """Attaches the lake as `lake`, and lets one writer at a time touch a table."""

    @property
    def data(self) -> str: ...

    @property
    def spill(self) -> Path: ...

    @property
    def shared(self) -> str:
        """Where this process and a cluster hand each other files; nothing in it outlives a run."""
        ...

    @property
    def extensions(self) -> tuple[str, ...]: ...

    def attach(self, connection: duckdb.DuckDBPyConnection, read_only: bool) -> None: ...

    def writing(self, tables: Iterable[str]) -> ExitStack:
        """Held around a whole write transaction on these tables."""
        ...

    def alone(self) -> ExitStack:
        """Held while nobody else may write anything."""
        ...

    def reading(self) -> ExitStack:
        """Held while the lake is open."""
        ...

    def unread(self, patience: float) -> ExitStack:
        """Held while nobody has the lake open; LakeBusyError where that does not come about within `patience`."""
        ...

    def vacuum(self) -> None:
        """Leave no bytes of deleted catalog rows behind. Nobody may be in a transaction."""
        ...

    def traces(self, text: str) -> list[str]:
        """Where in the catalog's own storage a text is still found."""
        ...


@dataclass(frozen=True)
class FolderCatalog:
    """A folder with `catalog.sqlite` in WAL mode, `data/`, `tmp/` and three locks.

    `write.lock` is the writer's, `read.lock` is shared by all who have the lake open, and `turn.lock` is taken to get
    at `read.lock`, so that nobody begins to read while somebody waits for all others to end.
    """

    folder: Path
    patience: float = PATIENCE
    data: str = field(init=False)
    spill: Path = field(init=False)
    extensions: ClassVar[tuple[str, ...]] = ("sqlite_scanner", "ducklake")

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", str(self.folder / "data") + "/")
        object.__setattr__(self, "spill", self.folder / "tmp")

    @property
    def shared(self) -> str:
        return str(self.spill)

    @property
    def file(self) -> Path:
        return self.folder / "catalog.sqlite"

    def attach(self, connection: duckdb.DuckDBPyConnection, read_only: bool) -> None:
        if read_only and not self.file.exists():
            raise LakeMissingError(f"{self.folder}: there is no lake here yet; `cdp run` makes one.")
        if read_only:
            self._attach(connection, "READ_ONLY")
            return
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        # The first attach writes the catalog's tables, so it waits its turn like any other write.
        with ExitStack() if self._is_made() else self.writing(()):
            self._attach(connection, "META_JOURNAL_MODE 'WAL'")

    def _is_made(self) -> bool:
        """Whether the catalog's tables are there: the file alone is there as soon as somebody begins to write them."""
        if not self.file.exists():
            return False
        try:
            with closing(sqlite3.connect(f"{self.file.resolve().as_uri()}?mode=ro", uri=True, timeout=0)) as catalog:
                tables = "SELECT 1 FROM sqlite_master WHERE name = 'ducklake_snapshot'"
                return catalog.execute(tables).fetchone() is not None
        except sqlite3.DatabaseError:
            return False

    def _attach(self, connection: duckdb.DuckDBPyConnection, mode: str) -> None:
        options = f"DATA_PATH {literal(self.data)}, {_OPTIONS}, META_BUSY_TIMEOUT 20000, {mode}"
        try:
            _attach(connection, f"ducklake:sqlite:{self.file}", options)
        except duckdb.Error as error:
            raise CatalogUnreachableError(f"{self.file}: the catalog cannot be opened: {_first_line(error)}") from error

    def writing(self, tables: Iterable[str]) -> ExitStack:
        # SQLite has one writer for all tables, and refuses (without waiting) one that read before another committed.
        stack = ExitStack()
        stack.enter_context(locked(self.folder / "write.lock", self.patience))
        return stack

    def alone(self) -> ExitStack:
        return self.writing(())

    def reading(self) -> ExitStack:
        turn, read = self.folder / "turn.lock", self.folder / "read.lock"
        # Who may not write here has to do without a lock that is not there: then nobody has ever waited for it.
        if not turn.exists() and not os.access(self.folder, os.W_OK):
            return ExitStack()
        with locked(turn, self.patience, shared=True), ExitStack() as stack:
            stack.enter_context(locked(read, self.patience, shared=True))
            return stack.pop_all()

    def unread(self, patience: float) -> ExitStack:
        with ExitStack() as stack:
            stack.enter_context(locked(self.folder / "turn.lock", self.patience))
            stack.enter_context(locked(self.folder / "read.lock", patience))
            stack.enter_context(self.writing(()))
            return stack.pop_all()

    def vacuum(self) -> None:
        # In a process of its own: closing this process's second handle on the file would drop DuckDB's locks on it.
        program = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None); "
            "c.execute('VACUUM'); sys.exit(c.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()[0])"
        )
        done = subprocess.run([sys.executable, "-c", program, str(self.file)], capture_output=True, text=True)
        if done.returncode:
            raise LakeBusyError(
                f"{self.file}: readers kept the catalog's log from being cleared: run this again when they are done. "
                + (done.stderr.strip().splitlines() or [""])[-1]
            )

    def traces(self, text: str) -> list[str]:
        files = [self.file, *(self.file.with_name(self.file.name + end) for end in ("-wal", "-shm", "-journal"))]
        return [str(file) for file in files if file.exists() and text.encode() in file.read_bytes()]


@dataclass(frozen=True)
class PostgresCatalog:
    """A Postgres database for the catalog; files in a shared folder or bucket."""

    url: str
    data: str
    spill: Path
    patience: float = PATIENCE

    @property
    def extensions(self) -> tuple[str, ...]:
        return "postgres_scanner", "ducklake", *(["httpfs"] if "://" in self.data else [])

    @property
    def shared(self) -> str:
        return self.data.rstrip("/") + "_shared"

    def attach(self, connection: duckdb.DuckDBPyConnection, read_only: bool) -> None:
        from psycopg.conninfo import conninfo_to_dict

        names = {"host": "HOST", "port": "PORT", "dbname": "DATABASE", "user": "USER", "password": "PASSWORD"}
        given = {key: str(value) for key, value in conninfo_to_dict(self.url).items()}
        # A secret, because an attached path is readable in duckdb_databases().
        parts = ", ".join(f"{names[key]} {literal(value)}" for key, value in given.items() if key in names)
        rest = " ".join(f"{key}={value}" for key, value in given.items() if key not in names)
        connection.execute(f"CREATE OR REPLACE SECRET cdp_lake_catalog (TYPE postgres, {parts})")
        options = f"DATA_PATH {literal(self.data)}, {_OPTIONS}, META_SECRET 'cdp_lake_catalog'"
        try:
            # Two first opens at once would both write the catalog's tables.
            with ExitStack() if read_only else self.alone():
                _attach(connection, f"ducklake:postgres:{rest}", options + (", READ_ONLY" if read_only else ""))
        except duckdb.Error as error:
            raise self._unreachable(_first_line(error)) from error

    def writing(self, tables: Iterable[str]) -> ExitStack:
        return self._locks([("shared", ""), *(("exclusive", table) for table in sorted(tables))])

    def alone(self) -> ExitStack:
        return self._locks([("exclusive", "")])

    def reading(self) -> ExitStack:
        # Postgres shows all of a query the catalog as it was when it began.
        return ExitStack()

    def unread(self, patience: float) -> ExitStack:
        return self.alone()

    def vacuum(self) -> None:
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.url, autocommit=True) as session:
            for table in self._tables(session):
                session.execute(sql.SQL("VACUUM FULL {}").format(sql.Identifier(table)))

    def traces(self, text: str) -> list[str]:
        import psycopg
        from psycopg import sql

        query = "SELECT count(*) FROM {} t WHERE position(%s IN t::text) > 0"
        with psycopg.connect(self.url, autocommit=True) as session:
            counts = {
                table: session.execute(sql.SQL(query).format(sql.Identifier(table)), (text,)).fetchone()
                for table in self._tables(session)
            }
        return [table for table, row in counts.items() if row is not None and row[0]]

    def _tables(self, session: psycopg.Connection) -> list[str]:
        found = session.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE 'ducklake%'"
        )
        return [row[0] for row in found.fetchall()]

    def _locks(self, wanted: list[tuple[str, str]]) -> ExitStack:
        import psycopg

        stack = ExitStack()
        try:
            session = stack.enter_context(psycopg.connect(self.url, autocommit=True, connect_timeout=10))
            session.execute("SELECT set_config('lock_timeout', %s, false)", (f"{int(self.patience * 1000)}ms",))
            for how, table in wanted:
                function = "pg_advisory_lock_shared" if how == "shared" else "pg_advisory_lock"
                session.execute(f"SELECT {function}(hashtextextended(%s, 0))", (f"cdp lake {table}",))
        except psycopg.errors.LockNotAvailable as error:
            stack.close()
            raise LakeBusyError(
                f"Another process kept writing for {self.patience:.0f} s; nothing was written."
            ) from error
        except psycopg.OperationalError as error:
            stack.close()
            raise self._unreachable("connection failed") from error
        return stack

    def _unreachable(self, why: str) -> CatalogUnreachableError:
        from psycopg.conninfo import conninfo_to_dict

        given = conninfo_to_dict(self.url)
        return CatalogUnreachableError(
            f"The lake's catalog on Postgres {given.get('host', 'localhost')}:{given.get('port', 5432)}, database "
            f"{given.get('dbname')!r}, does not answer ({why}). Is the server up, and is CATALOG's URL right?"
        )


def locate(location: LakeLocation, base: Path) -> FolderCatalog | PostgresCatalog:
    """Resolve what a project says about its lake; relative folders are relative to `base`."""
    if location.path is not None:
        return FolderCatalog((base / location.path).resolve())
    assert location.catalog is not None and location.data is not None
    data = location.data if "://" in location.data else str((base / location.data).resolve())
    url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", location.catalog)
    return PostgresCatalog(url, data.rstrip("/") + "/", ELSEWHERE)


@contextmanager
def locked(file: Path, patience: float, shared: bool = False) -> Iterator[None]:
    """An advisory lock that the operating system drops when its holder dies, however it dies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    # Created by whoever may, and read by whoever may not: a lock needs no more.
    created = os.O_CREAT if os.access(file.parent, os.W_OK) else 0
    with os.fdopen(os.open(file, os.O_RDONLY | created, 0o666)) as handle:
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise LakeBusyError(
                        f"{file.parent}: another process kept {_DOES[file.name]} for {patience:.0f} s; nothing was "
                        "written."
                    ) from error
                time.sleep(random.uniform(0.002, 0.02))
        try:
            yield
        finally:
            # Not only by closing: a child forked meanwhile has the file open too.
            fcntl.flock(handle, fcntl.LOCK_UN)


def literal(value: str) -> str:
    """A DuckDB string literal."""
    return "'" + value.replace("'", "''") + "'"


def identifier(*parts: str) -> str:
    """A quoted, dotted DuckDB name."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def _attach(connection: duckdb.DuckDBPyConnection, path: str, options: str) -> None:
    for name, value in _SETTINGS.items():
        connection.execute(f"SET {name} = {value}")
    connection.execute(f"ATTACH {literal(path)} AS lake ({options})")


def _first_line(error: duckdb.Error) -> str:
    return str(error).splitlines()[0]
