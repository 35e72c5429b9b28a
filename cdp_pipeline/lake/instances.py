"""DuckDB instances of this process, ready to attach a lake. What is attached is catalog.py's."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from cdp_pipeline.lake import extensions

# Loading the extensions costs 0.4 CPU seconds (DuckDB checks their signatures), far more than all else about opening
# a lake, so an instance is lent again. A fork must not share its parent's, hence the process id.
_idle: dict[tuple[int, tuple[str, ...]], list[duckdb.DuckDBPyConnection]] = {}


@contextmanager
def borrowed(names: tuple[str, ...], spill: Path, threads: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with these extensions that nobody else uses, spilling into a folder of its own under `spill`.

    threads: how many it may use; None means as many as there are processors.
    """
    idle = _idle.setdefault((os.getpid(), names), [])
    # Two processes must not spill into one folder: DuckDB gives its files the same names everywhere.
    folder = spill / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    spill.mkdir(parents=True, exist_ok=True)
    instance = idle.pop() if idle else _started(names)
    connection = instance.cursor()
    try:
        connection.execute(f"SET temp_directory = '{str(folder).replace(chr(39), chr(39) * 2)}'")
        connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        if threads is not None:
            connection.execute(f"SET threads = {threads}")
        yield connection
    finally:
        connection.close()
        shutil.rmtree(folder, ignore_errors=True)
        if _as_new(instance):
            idle.append(instance)
        else:
            instance.close()


def _started(names: tuple[str, ...]) -> duckdb.DuckDBPyConnection:
    instance = duckdb.connect()
    for name in names:
        extensions.load(instance, name)
    # DuckDB takes 80 % of the machine; two runs side by side must fit, and what does not fit spills.
    [[limit]] = instance.execute("SELECT current_setting('memory_limit')").fetchall()
    number, unit = limit.split()
    instance.execute(f"SET memory_limit = '{float(number) * 0.6:.3f} {unit}'")
    return instance


def _as_new(instance: duckdb.DuckDBPyConnection) -> bool:
    """Detach the lake; an instance that has spilled cannot be given another folder and is not lent again."""
    try:
        instance.execute("DETACH DATABASE IF EXISTS lake")
        instance.execute("RESET temp_directory; RESET threads")
        # Drops the pages of files read so far, which an idle process would else keep in memory.
        instance.execute("SET enable_external_file_cache = false; SET enable_external_file_cache = true")
    except duckdb.Error:
        return False
    return True
