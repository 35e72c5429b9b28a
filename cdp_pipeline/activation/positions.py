"""How far the sources have been read as they come, and who reads them; kept in the ledger's database.

A position is kept after the operations of what was read: whoever is killed in between reads it again, and the ledger
knows those operations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from cdp_pipeline.activation.ledger import Ledger, utc
from cdp_pipeline.activation.schema import read_places, readers

_READING = "events"
LEASE = timedelta(seconds=15)


def positions(ledger: Ledger, source: str) -> dict[str, str]:
    """The mark of each place of a source; empty where it was never looked at."""
    with ledger.reading() as connection:
        rows = connection.execute(
            sa.select(read_places.c.place, read_places.c.mark).where(read_places.c.source == source)
        )
        return {row.place: row.mark for row in rows}


def keep(ledger: Ledger, source: str, marks: Mapping[str, str], gone: Collection[str], now: datetime) -> None:
    """Remember these marks of a source, forget those of places that are gone, in one commit."""
    places = [*marks, *gone]
    if not places:
        return
    with ledger.writing(f"positions:{source}") as connection:
        for place in places:
            connection.execute(read_places.delete().where(read_places.c.source == source, read_places.c.place == place))
        if marks:
            rows = [{"source": source, "place": place, "mark": mark, "at": utc(now)} for place, mark in marks.items()]
            connection.execute(read_places.insert(), rows)


def may_read(ledger: Ledger, reader: str, now: datetime, *, rather: bool = False) -> bool:
    """Whether this reader may read now, for LEASE; `rather` than anybody who does.

    Two who read at once do no harm, only the work twice.
    """
    with ledger.writing("readers") as connection:
        held = connection.execute(sa.select(readers).where(readers.c.what == _READING)).one_or_none()
        if held is not None and held.reader != reader and held.until > utc(now) and not rather:
            return False
        connection.execute(readers.delete().where(readers.c.what == _READING))
        row = {"what": _READING, "reader": reader, "until": utc(now) + LEASE}
        connection.execute(readers.insert(), row)
    return True


def last_reader(ledger: Ledger) -> tuple[str, datetime] | None:
    """Who reads, or was the last to, and until when it may (UTC)."""
    with ledger.reading() as connection:
        row = connection.execute(sa.select(readers.c.reader, readers.c.until)).one_or_none()
    return None if row is None else (row.reader, row.until.replace(tzinfo=UTC))


def stop_reading(ledger: Ledger, reader: str) -> None:
    """Let others read, if it is still this reader who does."""
    with ledger.writing("readers") as connection:
        connection.execute(readers.delete().where(readers.c.what == _READING, readers.c.reader == reader))
