"""What can go wrong in the lake, one class per cause. Messages never hold rows, values or passwords."""

from __future__ import annotations


class LakeError(Exception):
    """Anything the lake refuses or cannot do."""


class LakeBusyError(LakeError):
    """Other processes wrote, or had the lake open, for longer than was to be waited."""


class LakeFullError(LakeError):
    """The disk ran out of room; nothing of the write was kept."""


class LakeMissingError(LakeError):
    """A read-only open of a lake that was never written."""


class LakeMovedError(LakeError):
    """A write decided on what a table said, and somebody else wrote the table first."""


class LakeReadOnlyError(LakeError):
    """A write through a view of the past or a read-only open."""


class LakeVersionError(LakeError):
    """A snapshot or moment that the lake does not (or no longer) remember."""


class CatalogUnreachableError(LakeError):
    """The catalog (SQLite file or Postgres server) does not answer."""


class ExtensionError(LakeError):
    """A DuckDB extension could not be loaded in any way."""


class EngineError(LakeError):
    """The engine a project names is not installed or does not answer."""


class TableMissingError(LakeError):
    """A table that has not been published."""


class SchemaChangeError(LakeError):
    """A declared column changed in a way that would lose stored values."""


class RowsError(LakeError):
    """Rows that do not fit the table they are published to."""


class DuplicateKeyError(RowsError):
    """Two of the published rows have one key."""

    def __init__(self, table: str, key: tuple[str, ...], keys: int, rows: int, example: str) -> None:
        super().__init__(
            f"{table}: {keys} keys ({', '.join(key)}) occur on {rows} rows; every row needs a key of its own. "
            f"Example: the key whose hash is {example}. Nothing was published."
        )
        self.table, self.key, self.keys, self.rows, self.example = table, key, keys, rows, example
