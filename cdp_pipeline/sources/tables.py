"""The tables a load writes: one per source, the rows set aside, and the ledger of loads. No I/O and no rows here."""

from __future__ import annotations

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.source import IBIS_TYPES, Source

_EVERY_ROW = {
    "_record_id": Column("string", "The row's stable id, made from the source and its grain."),
    "_occurred_at": Column("timestamp(6)", "When it happened, in UTC."),
    "_utc_offset": Column("int16", "Minutes by which the clock at the source was ahead of UTC."),
    "_loaded_at": Column("timestamp(6)", "When the row, as it is now, was loaded (UTC)."),
    "_day": Column("date", "The day it happened, in the project's time zone."),
}
_EVERY_VERSION = {
    "_valid_from": Column("timestamp(6)", "The moment of the first copy that showed the row like this (UTC)."),
    "_valid_to": Column("timestamp(6)", "The moment of the copy that no longer did; empty while current (UTC)."),
}


def source_table(source: Source) -> Table:
    """`sources.<source>`: the declared columns, then what the load adds to every row."""
    columns = {
        name: Column(IBIS_TYPES[column.type], column.description, pii=column.pii)
        for name, column in source.columns.items()
    }
    if source.mode == "snapshot":
        columns |= _EVERY_ROW | _EVERY_VERSION
        return Table(f"sources.{source.name}", source.description, columns, key=("_record_id", "_valid_from"))
    columns |= _EVERY_ROW
    return Table(f"sources.{source.name}", source.description, columns, key=("_record_id",), month_of="_day")


QUARANTINE = Table(
    "sources.quarantine",
    "Rows set aside because they broke their source's contract, with the reason; nothing is thrown away.",
    {
        "quarantine_id": Column("string", "The set-aside row's own id; loading the same row again does not double it."),
        "record_id": Column(
            "string", "The id the row has, or will have, in its source; empty if its key is unreadable."
        ),
        "source": Column("string", "The source it came from."),
        "column": Column("string", "The column that broke the contract; empty if the whole row is unreadable."),
        "reason": Column("string", "Why, from a closed list: see cdp_pipeline.sources.contract.REASONS."),
        "raw": Column("string", "The row as it was received.", pii=True),
        "fields": Column("string", "The row's columns as text (JSON); empty if it could not be split.", pii=True),
        "place": Column("string", "The file or query it was read from."),
        "copied_at": Column("timestamp(6)", "For full copies: the moment of the copy it was in (UTC)."),
        "loaded_at": Column("timestamp(6)", "When it was set aside (UTC)."),
        "run_id": Column("string", "The run that set it aside."),
        "replayed_at": Column("timestamp(6)", "When it was replayed and accepted; empty while it waits (UTC)."),
    },
    key=("quarantine_id",),
)

LOADS = Table(
    "sources.loads",
    "Every file or query loaded, with what became of its rows: read = accepted + duplicates + quarantined + rejected.",
    {
        "source": Column("string", "The source."),
        "place": Column("string", "The file, or the range of the cursor, that was read."),
        "fingerprint": Column("string", "A hash of the content: the same content is not loaded twice."),
        "day": Column("date", "The day in the file's path, if it has one."),
        "size": Column("int64", "Size of the file in bytes."),
        "modified_ns": Column("int64", "When the file was last modified, in nanoseconds."),
        "cursor": Column("string", "The highest cursor value read (JSON), for databases read in increments."),
        "copied_at": Column("timestamp(6)", "For full copies: the moment the copy stands for (UTC)."),
        "read": Column("int64", "Rows read."),
        "accepted": Column("int64", "Rows that stand in the source's table."),
        "duplicates": Column("int64", "Rows whose grain came more than once in the load."),
        "conflicts": Column("int64", "Those duplicates whose other columns differed."),
        "quarantined": Column("int64", "Rows set aside."),
        "rejected": Column("int64", "Rows of a file that was refused as a whole."),
        "omitted": Column("int64", "Values emptied because the contract says so."),
        "coerced": Column("int64", "Values mended because the contract says so."),
        "first_day": Column("date", "The oldest day among the accepted rows."),
        "last_day": Column("date", "The newest day among the accepted rows."),
        "loaded_at": Column("timestamp(6)", "When it was loaded, or a database read again in vain (UTC)."),
        "run_id": Column("string", "The run that loaded it."),
        "status": Column("string", "loaded, rejected (contract), failed (unreadable) or superseded (an older copy)."),
        "message": Column("string", "What went wrong, and what to do."),
    },
    key=("source", "place", "fingerprint"),
)
