"""Pinned snapshots, the past, and what changed between two of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from cdp_pipeline.lake import Column, Lake, LakeView, Mirror, Table, Upsert, open_lake
from cdp_pipeline.lake.errors import LakeReadOnlyError, LakeVersionError, TableMissingError
from cdp_pipeline.spec.project import LakeLocation

MEMBERS = Table(
    "audiences.members",
    "Who is in which audience.",
    {"audience": Column("string"), "person": Column("int64")},
    key=("audience", "person"),
)


def members(people: range) -> pa.Table:
    return pa.table({"audience": ["loyal"] * len(people), "person": list(people)})


def people(lake: LakeView) -> list[int]:
    return sorted(lake.read(MEMBERS).person.to_pyarrow().to_pylist())


def test_a_lake_reads_its_pinned_snapshot_until_it_is_refreshed(location: LakeLocation) -> None:
    with open_lake(location) as reader, open_lake(location) as writer:
        writer.publish(Mirror(MEMBERS, members(range(3))))
        assert not reader.exists(MEMBERS.name)
        assert people(reader) == []
        reader.refresh()
        before = reader.table(MEMBERS.name)
        writer.publish(Mirror(MEMBERS, members(range(5))))
        assert people(reader) == [0, 1, 2]
        assert reader.refresh() == writer.latest()
        assert people(reader) == [0, 1, 2, 3, 4]
        assert before.count().to_pyarrow().as_py() == 3, "an expression keeps the snapshot it was made at"


def test_a_lake_sees_its_own_publishes_but_not_those_of_others(location: LakeLocation) -> None:
    other = Table("audiences.sizes", "Sizes.", {"audience": Column("string")}, key=("audience",))
    with open_lake(location) as one, open_lake(location) as two:
        two.publish(Mirror(other, pa.table({"audience": ["loyal"]})))
        one.publish(Mirror(MEMBERS, members(range(2))))
        assert people(one) == [0, 1]
        assert not one.exists(other.name)


def test_the_past_is_read_by_snapshot_and_by_moment(lake: Lake) -> None:
    moments, snapshots = [], []
    for size in (1, 2, 3):
        snapshots.append(lake.publish(Mirror(MEMBERS, members(range(size)))).snapshot)
        moments.append(datetime.now(UTC))
    for size, moment, snapshot in zip((1, 2, 3), moments, snapshots, strict=True):
        assert people(lake.as_of(snapshot)) == people(lake.as_of(moment)) == list(range(size))
    assert not lake.as_of(0).exists(MEMBERS.name)
    assert people(lake.as_of(0)) == []


def test_a_past_that_never_was_is_refused(lake: Lake) -> None:
    with pytest.raises(LakeVersionError, match="nothing as of 99; it remembers snapshots 0 to 0"):
        lake.as_of(99)
    with pytest.raises(LakeVersionError):
        lake.as_of(datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(TableMissingError, match=r"audiences.members: not published yet"):
        lake.table(MEMBERS.name)


@pytest.mark.parametrize("merged", [False, True])
def test_changes_equal_the_difference_of_the_two_snapshots(lake: Lake, merged: bool) -> None:
    sizes = [range(5), range(3, 9), range(3, 4), range(6)]
    snapshots = [0]
    for size in sizes:
        snapshots.append(lake.publish(Mirror(MEMBERS, members(size))).snapshot)
    if merged:
        lake.maintain(datetime.now(UTC), keep=timedelta(days=1))
    held = [set(), *map(set, sizes)]
    for since in range(len(snapshots)):
        for until in range(max(since, 1), len(snapshots)):
            rows = lake.changes(MEMBERS.name, snapshots[since], snapshots[until]).to_pyarrow().to_pylist()
            came = [row["person"] for row in rows if row["_change"] == "insert"]
            went = [row["person"] for row in rows if row["_change"] == "delete"]
            assert sorted(came) == sorted(held[until] - held[since])
            assert sorted(went) == sorted(held[since] - held[until])


@pytest.mark.parametrize("merged", [False, True])
def test_the_feed_leaves_out_nothing_that_changed_also_when_files_were_merged(lake: Lake, merged: bool) -> None:
    sizes = [range(5), range(3, 9), range(3, 4), range(6), range(2, 8)]
    snapshots = []
    for size in sizes:
        snapshots.append(lake.publish(Mirror(MEMBERS, members(size))).snapshot)
    if merged:
        lake.maintain(datetime.now(UTC), keep=timedelta(days=1))
    newest = set(sizes[-1])
    for since, size in zip(snapshots, sizes, strict=True):
        written, removed = (set(rows.person.to_pyarrow().to_pylist()) for rows in lake.feed(MEMBERS.name, since))
        assert written >= newest - set(size)
        assert removed >= set(size) - newest
        assert written | removed <= set(range(9))
    nothing = [rows.count().to_pyarrow().as_py() for rows in lake.feed(MEMBERS.name, snapshots[-1])]
    assert merged or nothing == [0, 0], "rows that merging files rewrote may be in both"


def test_the_feed_of_a_table_made_since_is_all_of_it(lake: Lake) -> None:
    since = lake.latest()
    lake.publish(Mirror(MEMBERS, members(range(3))))
    written, removed = lake.feed(MEMBERS.name, since)
    assert sorted(written.person.to_pyarrow().to_pylist()) == [0, 1, 2]
    assert removed.count().to_pyarrow().as_py() == 0


def test_a_feed_since_a_forgotten_snapshot_is_refused(lake: Lake) -> None:
    first = lake.publish(Mirror(MEMBERS, members(range(3)))).snapshot
    lake.publish(Mirror(MEMBERS, members(range(5))))
    lake.maintain(datetime.now(UTC) + timedelta(days=2), keep=timedelta(days=1))
    with pytest.raises(LakeVersionError, match=rf"no snapshot {first} \(any more\)"):
        lake.feed(MEMBERS.name, since=first)


def test_changes_since_a_forgotten_snapshot_are_refused_rather_than_guessed(lake: Lake) -> None:
    first = lake.publish(Mirror(MEMBERS, members(range(3)))).snapshot
    lake.publish(Mirror(MEMBERS, members(range(5))))
    lake.maintain(datetime.now(UTC) + timedelta(days=2), keep=timedelta(days=1))
    with pytest.raises(LakeVersionError, match=rf"audiences.members: the lake has no snapshot {first} \(any more\)"):
        lake.changes(MEMBERS.name, since=first)


def test_a_table_forgets_nothing_that_retention_keeps(lake: Lake) -> None:
    first = lake.publish(Mirror(MEMBERS, members(range(3)))).snapshot
    lake.publish(Mirror(MEMBERS, members(range(5))))
    assert lake.maintain(datetime.now(UTC), keep=timedelta(days=1)).snapshots_forgotten == 0
    assert people(lake.as_of(first)) == [0, 1, 2]


def test_nothing_is_written_through_a_read_only_open(tmp_path: Path) -> None:
    location = LakeLocation(path=str(tmp_path / "lake"))
    with open_lake(location) as lake:
        lake.publish(Mirror(MEMBERS, members(range(2))))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with open_lake(location, read_only=True) as lake:
        assert people(lake) == [0, 1]
        for write in (
            lambda: lake.publish(Upsert(MEMBERS, members(range(1)))),
            lambda: lake.erase({MEMBERS.name: ("person", [1])}),
            lambda: lake.maintain(datetime.now(UTC), keep=timedelta(0)),
        ):
            with pytest.raises(LakeReadOnlyError):
                write()
    after = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    # SQLite keeps an index of its (empty) log beside the catalog while anybody reads.
    beside = {file for file in after if file.name.endswith(("-wal", "-shm"))}
    assert {file: content for file, content in after.items() if file not in beside} == before
