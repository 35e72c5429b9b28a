"""Maintenance makes a lake small without changing what it says; erasure leaves no byte behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import ibis
import pyarrow as pa
import pytest

from cdp_pipeline.lake import Column, Lake, Mirror, Table, Upsert, maintenance, open_lake
from cdp_pipeline.lake.errors import LakeVersionError
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.waiting import PATIENCE

CUSTOMERS = Table(
    "profile.customers",
    "People.",
    {
        "person": Column("int64"),
        "email": Column("string"),
        "day": Column("date"),
        "more": Column("struct<note: string>"),
    },
    key=("person",),
    month_of="day",
)
ANN = "aaa_ann_erase_me"  # sorts first, so that she is the smallest value of every statistic


def customers(first: int, last: int) -> pa.Table:
    people = range(first, last)
    return pa.table(
        {
            "person": people,
            "email": [ANN if i == 1 else f"p{i}@example.com" for i in people],
            "day": [date(2026, 1 + i % 2, 1) for i in people],
            "more": [{"note": ANN if i == 1 else f"note {i}"} for i in people],
        }
    )


def files(lake: Lake) -> list[str]:
    return lake.connection.execute(f"SELECT file FROM glob('{lake.catalog.data}**')").fetchall()


def test_maintenance_merges_small_files_and_forgets_old_snapshots(location: LakeLocation) -> None:
    with open_lake(location) as lake:
        for batch in range(6):
            lake.publish(Upsert(CUSTOMERS, customers(batch * 5, batch * 5 + 5)))
        lake.publish(Mirror(CUSTOMERS, customers(0, 25)))
        before = lake.read(CUSTOMERS).order_by("person").to_pyarrow()
        last, many = lake.latest(), len(files(lake))
        done = lake.maintain(datetime.now(UTC) + timedelta(days=9), keep=timedelta(days=1))
        assert done.snapshots_forgotten >= last
        assert done.files_merged
        assert done.files_removed >= 6
        assert len(files(lake)) < many / 2
        assert lake.read(CUSTOMERS).order_by("person").to_pyarrow().equals(before)
        assert lake.publish(Mirror(CUSTOMERS, customers(0, 25))).counts[CUSTOMERS.name].changed == 0
        with pytest.raises(LakeVersionError):
            lake.as_of(1)
        assert lake.maintain(datetime.now(UTC) + timedelta(days=9), keep=timedelta(days=1)).files_rewritten == 0


def test_files_that_were_replaced_stay_for_queries_that_had_listed_them(lake: Lake) -> None:
    for batch in range(4):
        lake.publish(Upsert(CUSTOMERS, customers(batch * 5, batch * 5 + 5)))
    before = set(files(lake))
    done = lake.maintain(datetime.now(UTC), keep=timedelta(0))
    assert done.files_merged
    assert done.files_removed == 0
    assert before < set(files(lake))


def test_files_are_merged_only_when_nobody_else_has_the_lake_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = LakeLocation(path=str(tmp_path / "lake"))
    with open_lake(location) as lake:
        for batch in range(4):
            lake.publish(Upsert(CUSTOMERS, customers(batch * 5, batch * 5 + 5)))
        with open_lake(location, read_only=True) as reader:
            monkeypatch.setattr(maintenance, "TURNS", 1)
            monkeypatch.setattr(maintenance, "TURN", 0.1)
            assert lake.maintain(datetime.now(UTC), keep=timedelta(days=1)).files_merged is None
            monkeypatch.setattr(maintenance, "TURN", PATIENCE)
            with ThreadPoolExecutor(1) as other:
                tidied = other.submit(lake.maintain, datetime.now(UTC), timedelta(days=1))
                while not tidied.done():
                    assert reader.read(CUSTOMERS).count().to_pyarrow().as_py() == 20
                    reader.give_way()
            assert tidied.result().files_merged


def test_spill_of_the_dead_is_removed_and_of_the_living_is_not(lake: Lake, tmp_path: Path) -> None:
    dead, living = tmp_path / "lake" / "tmp" / "999999999-aa", tmp_path / "lake" / "tmp" / "1-bb"
    for folder in (dead, living):
        folder.mkdir(parents=True)
        (folder / "spill").write_bytes(b"x")
    lake.maintain(datetime.now(UTC), keep=timedelta(days=1))
    assert not dead.exists()
    assert living.exists()


def test_erasure_leaves_no_byte_in_files_catalog_or_history(location: LakeLocation, tmp_path: Path) -> None:
    with open_lake(location) as lake:
        # Uncompressed, so that searching for the bytes proves something.
        lake.connection.execute("CALL lake.set_option('parquet_compression', 'uncompressed')")
        lake.publish(Mirror(CUSTOMERS, customers(0, 2000)))
        lake.publish(Upsert(CUSTOMERS, customers(1, 2).set_column(2, "day", pa.array([date(2026, 3, 1)]))))
        lake.publish(Mirror(CUSTOMERS, customers(0, 2001)))
        traces = lake.traces(ANN)
        assert any(trace.endswith(".parquet") for trace in traces)
        assert any("catalog.sqlite" in trace or trace.startswith("ducklake") for trace in traces)
        erased = lake.erase({CUSTOMERS.name: ibis._.email == ANN, "profile.nothing": ("email", [ANN])})
        assert erased == {CUSTOMERS.name: 1, "profile.nothing": 0}
        assert lake.traces(ANN) == []
        left = [file for file in tmp_path.rglob("*") if file.is_file() and ANN.encode() in file.read_bytes()]
        assert left == []
        assert lake.read(CUSTOMERS).count().to_pyarrow().as_py() == 2000
        with pytest.raises(LakeVersionError):
            lake.as_of(1)
        lake.publish(Upsert(CUSTOMERS, customers(3000, 3001)))
        assert lake.read(CUSTOMERS).count().to_pyarrow().as_py() == 2001


def test_erasure_takes_a_column_with_values_or_a_function_too(lake: Lake) -> None:
    lake.publish(Mirror(CUSTOMERS, customers(0, 10)))
    assert lake.erase({CUSTOMERS.name: ("person", [1, 2, 77])}) == {CUSTOMERS.name: 2}
    assert lake.erase({CUSTOMERS.name: lambda t: t.more.note == "note 3"}) == {CUSTOMERS.name: 1}
    assert sorted(lake.read(CUSTOMERS).person.to_pyarrow().to_pylist()) == [0, 4, 5, 6, 7, 8, 9]
    assert lake.traces("note 3") == []


def test_traces_are_found_in_compressed_files_too(lake: Lake) -> None:
    lake.publish(Mirror(CUSTOMERS, customers(0, 2000)))
    assert any(trace.endswith(".parquet") for trace in lake.traces("note 1999"))
    assert lake.traces("note 2001") == []
