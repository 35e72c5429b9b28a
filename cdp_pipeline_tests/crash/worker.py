"""What the crash and concurrency tests run in processes of their own: writers and readers of two tied tables."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from cdp_pipeline.lake import Column, Lake, Mirror, Note, Table, Upsert, open_lake
from cdp_pipeline.spec.project import LakeLocation

STATE = Table(
    "shop.state",
    "Rows that all bear the stamp of the publish that wrote them last.",
    {"item": Column("int64"), "stamp": Column("int64"), "filling": Column("string")},
    key=("item",),
)
LOG = Table("shop.log", "One row per publish.", {"stamp": Column("int64")}, key=("stamp",))
EVENTS = Table(
    "shop.events",
    "Rows appended by several writers.",
    {"writer": Column("int64"), "batch": Column("int64"), "item": Column("int64")},
    key=("writer", "batch", "item"),
)
BATCHES = Table(
    "shop.batches",
    "One row per batch of events, published with it.",
    {"writer": Column("int64"), "batch": Column("int64"), "events": Column("int64")},
    key=("writer", "batch"),
)
ITEMS = 3000
BATCH = 50


def stamped(stamp: int) -> pa.Table:
    return pa.table({"item": range(ITEMS), "stamp": [stamp] * ITEMS, "filling": [f"{stamp * 7919 % 9973}"] * ITEMS})


def last_stamp(lake: Lake) -> int:
    """The stamp that every row bears and the log ends with; anything else is a torn or lost publish."""
    if not lake.exists(LOG.name):
        assert not lake.exists(STATE.name), "one table of two was published"
        return 0
    state, log = lake.read(STATE), lake.read(LOG)
    rows, first, last = (
        state.agg(n=state.count(), a=state.stamp.min(), b=state.stamp.max()).to_pyarrow().to_pylist()[0].values()
    )
    stamps = sorted(log.stamp.to_pyarrow().to_pylist())
    assert rows == ITEMS, "rows lost or doubled"
    assert first == last, "torn: rows of two publishes"
    assert stamps == list(range(1, last + 1)), "the tables do not fit each other"
    return last


def publish_for_ever(location: LakeLocation, acknowledged: Path) -> None:
    """Publish stamp after stamp, tidying up now and then, until killed."""
    with open_lake(location) as lake, acknowledged.open("a") as out:
        stamp = last_stamp(lake)
        while True:
            stamp += 1
            lake.publish(Mirror(STATE, stamped(stamp)), Upsert(LOG, pa.table({"stamp": [stamp]})))
            out.write(f"{stamp}\n")
            out.flush()
            if stamp % 4 == 0:
                lake.maintain(datetime.now(UTC), keep=timedelta(0))


def die_before_commit(location: LakeLocation) -> None:
    """Write everything of a publish but its commit, and be killed."""
    from cdp_pipeline.lake import publish as module

    apply = module._apply

    def apply_and_die(lake: Lake, change: module._Change) -> None:
        apply(lake, change)
        if change.write.table is LOG:
            os.kill(os.getpid(), signal.SIGKILL)

    module._apply = apply_and_die
    with open_lake(location) as lake:
        lake.publish(Mirror(STATE, stamped(99)), Upsert(LOG, pa.table({"stamp": [99]})))


def append(location: LakeLocation, writer: int, batches: int) -> None:
    """Append batches, now and then rewrite the shared state, and (the first writer) tidy up."""
    with open_lake(location) as lake:
        for batch in range(1, batches + 1):
            lake.give_way()
            events = pa.table({"writer": [writer] * BATCH, "batch": [batch] * BATCH, "item": range(BATCH)})
            noted = pa.table({"writer": [writer], "batch": [batch], "events": [BATCH]})
            writes = [Upsert(EVENTS, events), Upsert(BATCHES, noted)]
            if batch % 3 == writer % 3:
                writes.append(Mirror(STATE, stamped(writer * 1000 + batch)))
            lake.publish(*writes, note=Note(run_id=str(os.getpid())))
            if writer == 0 and batch % 3 == 0:
                lake.maintain(datetime.now(UTC), keep=timedelta(days=1))


def look(location: LakeLocation, looked: Path, enough: Path) -> None:
    """Look at the newest snapshot over and over until there is a file `enough`; every look must see whole publishes."""
    with open_lake(location, read_only=True) as lake:
        while not enough.exists():
            lake.refresh()
            events, noted, state = (lake.read(table) for table in (EVENTS, BATCHES, STATE))
            seen = int(events.count().to_pyarrow().as_py())
            assert seen == (noted.events.sum().to_pyarrow().as_py() or 0), "a publish was seen in part"
            assert state.stamp.nunique().to_pyarrow().as_py() <= 1, "torn state"
            looked.touch()
