"""What computes over published tables: the port, DuckDB in this process, and Spark (or Sail) over Spark Connect."""

from __future__ import annotations

import shutil
import socket
import uuid
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import duckdb
import ibis
import pyarrow as pa
from ibis.backends.duckdb import Backend as DuckDBBackend

from cdp_pipeline.lake.catalog import META, identifier, literal
from cdp_pipeline.lake.errors import EngineError

if TYPE_CHECKING:
    from ibis.backends.pyspark import Backend as SparkBackend


class Engine(Protocol):
    """Reads tables where it computes, and brings what it computed to where the lake is written."""

    local: DuckDBBackend

    def read(self, name: str, version: int) -> ibis.Table:
        """A published table at a snapshot."""
        ...

    def table(self, rows: pa.Table) -> ibis.Table:
        """Rows of this process."""
        ...

    def materialize(self, rows: ibis.Table) -> ibis.Table:
        """The rows of an expression, for DuckDB to read."""
        ...

    def kept(self, rows: ibis.Table) -> ibis.Table:
        """The rows computed once, to be read where they were computed as often as need be."""
        ...


class DuckDBEngine:
    """Everything in this process."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.local = ibis.duckdb.from_connection(connection)

    def read(self, name: str, version: int) -> ibis.Table:
        view = f"{name}@{version}"
        relation = identifier("lake", *name.split("."))
        self.connection.execute(
            f"CREATE TEMP VIEW IF NOT EXISTS {identifier(view)} AS FROM {relation} AT (VERSION => {version})"
        )
        return self.local.table(view, database=("temp", "main"))

    def table(self, rows: pa.Table) -> ibis.Table:
        return ibis.memtable(rows)

    def materialize(self, rows: ibis.Table) -> ibis.Table:
        return rows

    def kept(self, rows: ibis.Table) -> ibis.Table:
        return self.local.create_table(f"kept_{uuid.uuid4().hex[:12]}", rows, temp=True)


class SparkEngine:
    """A cluster behind a Spark Connect URL, which sees the lake's files under the same names as this process.

    It reads the files of a snapshot as they are. Rows of files it would misread (with deleted rows, from before a
    column came, or with rows of later snapshots) are first copied by DuckDB. What it computes comes back as Parquet,
    which publish() compares and loads like any other rows: files are not registered as they are, because only
    DuckDB's comparison keeps keys single and equal rows untouched.
    """

    def __init__(self, url: str, local: DuckDBEngine, shared: str) -> None:
        self.url, self.duckdb, self.local = url, local, local.local
        self.folder = f"{shared}/spark-{uuid.uuid4().hex[:12]}"
        self._spark: SparkBackend | None = None
        self._read: dict[tuple[str, int], ibis.Table] = {}

    def __enter__(self) -> SparkEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spark is not None:
            self._spark._session.stop()
        if "://" not in self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def spark(self) -> SparkBackend:
        if self._spark is None:
            self._spark = connected(self.url)
        return self._spark

    def read(self, name: str, version: int) -> ibis.Table:
        if (name, version) not in self._read:
            self._read[name, version] = self._shown(name, version)
        return self._read[name, version]

    def _shown(self, name: str, version: int) -> ibis.Table:
        relation = f"{identifier('lake', *name.split('.'))} AT (VERSION => {version})"
        plain = self._plain_files(name, version)
        rest = f"FROM {relation}" + (f" WHERE filename NOT IN ({_list(plain)})" if plain else "")
        copy = self._copied(f"SELECT * {rest}")
        columns = [row[0] for row in self.duckdb.connection.execute(f"DESCRIBE FROM {relation}").fetchall()]
        session = self.spark._session
        frame = session.read.parquet(copy).select(*columns)
        if plain:
            frame = frame.union(session.read.parquet(*plain).select(*columns))
        return self._viewed(frame, f"{name}@{version}")

    def table(self, rows: pa.Table) -> ibis.Table:
        given = f"given_{uuid.uuid4().hex[:12]}"
        self.duckdb.connection.register(given, rows)
        try:
            return self._viewed(self.spark._session.read.parquet(self._copied(f"FROM {given}")), given)
        finally:
            self.duckdb.connection.unregister(given)

    def materialize(self, rows: ibis.Table) -> ibis.Table:
        backends, _ = rows._find_backends()
        if self._spark is None or self._spark not in backends:
            return rows
        files = self._written(rows)
        if files is None:
            return self.duckdb.table(rows.schema().to_pyarrow().empty_table())
        return self.local.read_parquet(files)

    def kept(self, rows: ibis.Table) -> ibis.Table:
        files = self._written(rows)
        if files is None:
            return self.table(rows.schema().to_pyarrow().empty_table())
        return self._viewed(self.spark._session.read.parquet(files), "kept")

    def _written(self, rows: ibis.Table) -> str | None:
        """The Parquet files Spark wrote of its rows; none where there are no rows, of which Sail writes no file."""
        folder = f"{self.folder}/{uuid.uuid4().hex[:12]}"
        self.spark.to_parquet_dir(rows, folder)
        files = f"{folder}/*.parquet"
        return None if self.duckdb.connection.execute(f"FROM glob({literal(files)})").fetchone() is None else files

    def _plain_files(self, name: str, version: int) -> list[str]:
        """Files of the snapshot in which every row and column is what the table says."""
        schema, table = name.split(".")
        files = self.duckdb.connection.execute(
            f"""SELECT data_file FROM ducklake_list_files('lake', {literal(table)}, schema => {literal(schema)},
                                                          snapshot_version => {version})
                WHERE delete_file IS NULL"""
        ).fetchall()
        known = self.duckdb.connection.execute(
            f"""SELECT f.path FROM {META}.ducklake_data_file f
                WHERE coalesce(f.partial_max, 0) <= {version}
                  AND f.begin_snapshot >= (SELECT max(c.begin_snapshot) FROM {META}.ducklake_column c
                                           WHERE c.table_id = f.table_id AND c.begin_snapshot <= {version})"""
        ).fetchall()
        names = {PurePosixPath(row[0]).name for row in known}
        return [row[0] for row in files if PurePosixPath(row[0]).name in names]

    def _copied(self, query: str) -> str:
        if "://" not in self.folder:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
        file = f"{self.folder}/{uuid.uuid4().hex[:12]}.parquet"
        self.duckdb.connection.execute(f"COPY ({query}) TO {literal(file)}")
        return file

    def _viewed(self, frame: object, name: str) -> ibis.Table:
        view = f"{name}_{uuid.uuid4().hex[:8]}".replace(".", "_").replace("@", "_")
        frame.createTempView(view)  # type: ignore[attr-defined]
        return self.spark.table(view)


def connected(url: str) -> SparkBackend:
    """An Ibis backend with a Spark session of its own at a Spark Connect URL."""
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise EngineError(f"engine {url} needs the extra: pip install 'cdp-pipeline[spark]'") from error
    place = urlsplit(url.split(";")[0])
    try:
        # Spark's client would try for ten minutes before it says that nobody is there.
        socket.create_connection((place.hostname or "localhost", place.port or 15002), timeout=10).close()
    except OSError as error:
        raise EngineError(f"engine {place.scheme}://{place.netloc}: Spark Connect does not answer: {error}") from error
    try:
        session = SparkSession.builder.remote(url).create()
        session.conf.set("spark.sql.session.timeZone", "UTC")
        return ibis.pyspark.from_connection(session)
    except PySparkException as error:
        raise EngineError(f"engine {place.netloc}: Spark Connect refused: {str(error).splitlines()[0]}") from error


def _list(values: list[str]) -> str:
    return ", ".join(literal(value) for value in values)
