"""Files of every kind, sound and damaged: what is loaded, what is set aside, and what the messages say."""

from __future__ import annotations

import gzip
import os
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdp_pipeline.lake import Lake
from cdp_pipeline.sources.drift import drift_of
from cdp_pipeline.sources.errors import (
    ColumnMissingError,
    ContractError,
    FileMissingError,
    FileUnreadableError,
    ReferenceNotLoadedError,
)
from cdp_pipeline.sources.load import arrivals, conservation
from cdp_pipeline.sources.tables import LOADS
from cdp_pipeline_tests.sources.projects import NOW, ORDERS, ledger, loaded, project, quarantine, rows, source

HEADER = "order_id,ordered_at,email,amount\n"
SOUND = HEADER + "1,2024-05-01 10:00:00, Ann@Example.com ,12.50\n2,2024-05-01 11:30:00,bob@example.com,7\n"
EXPECTED = [("1", "ann@example.com", Decimal("12.5000")), ("2", "bob@example.com", Decimal("7.0000"))]


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> str:
    data = content if isinstance(content, bytes) else content.encode(encoding)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.mark.parametrize("name", ["orders.csv", "orders.csv.gz", "orders.jsonl", "orders.jsonl.gz", "orders.parquet"])
def test_every_format_gives_the_same_rows(lake: Lake, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if "csv" in name:
        write(path, SOUND)
    elif "jsonl" in name:
        write(
            path,
            '{"order_id": "1", "ordered_at": "2024-05-01T10:00:00", "email": " Ann@Example.com ", "amount": 12.5}\n'
            '{"order_id": 2, "ordered_at": "2024-05-01T11:30:00", "email": "bob@example.com", "amount": "7"}\n',
        )
    else:
        moments = [datetime(2024, 5, 1, 10), datetime(2024, 5, 1, 11, 30)]
        emails = [" Ann@Example.com ", "bob@example.com"]
        columns = {"order_id": [1.0, 2.0], "ordered_at": moments, "email": emails, "amount": [12.5, 7.0]}
        pq.write_table(pa.table(columns), path)
    one = source(files=str(path))
    report = loaded(lake, one)
    assert rows(lake, one, "order_id", "email", "amount") == EXPECTED
    assert rows(lake, one, "_occurred_at", "_day", "_utc_offset") == [
        (datetime(2024, 5, 1, 10), date(2024, 5, 1), 0),
        (datetime(2024, 5, 1, 11, 30), date(2024, 5, 1), 0),
    ]
    assert (report.total("read"), report.total("accepted"), report.inserted) == (2, 2, 2)


def test_record_ids_are_the_same_whatever_the_format_or_order(lake: Lake, tmp_path: Path) -> None:
    turned = HEADER + "".join(reversed(SOUND.splitlines(keepends=True)[1:]))
    one, other = (source(files=write(tmp_path / name, text)) for name, text in [("a.csv", SOUND), ("b.csv", turned)])
    loaded(lake, one)
    before = rows(lake, one, "order_id", "_record_id")
    report = loaded(lake, other)
    assert (report.inserted, report.updated) == (0, 0)
    assert rows(lake, other, "order_id", "_record_id") == before


def test_loading_twice_changes_nothing(lake: Lake, tmp_path: Path) -> None:
    one = source(files=write(tmp_path / "orders.csv", SOUND + "3,not a time,,\n"))
    loaded(lake, one, run_id="first")
    snapshot, kept = lake.latest(), (ledger(lake), quarantine(lake), rows(lake, one, "_record_id", "_loaded_at"))
    report = loaded(lake, one, now=NOW + timedelta(days=1), run_id="second")
    assert report.loads == []
    assert lake.latest() == snapshot
    assert kept == (ledger(lake), quarantine(lake), rows(lake, one, "_record_id", "_loaded_at"))


def test_a_file_that_was_only_touched_is_known_by_its_content(lake: Lake, tmp_path: Path) -> None:
    one = source(files=write(tmp_path / "orders.csv", SOUND))
    loaded(lake, one)
    kept = rows(lake, one, "_record_id", "_loaded_at")
    os.utime(tmp_path / "orders.csv", (1, 1))
    assert len(arrivals(one, project(one), lake.read(LOADS))) == 1
    assert loaded(lake, one, now=NOW + timedelta(days=1), run_id="second").loads == []
    assert arrivals(one, project(one), lake.read(LOADS)) == [], "or the sensor would ask for it for ever"
    assert [row["run_id"] for row in ledger(lake)] == ["run"]
    assert rows(lake, one, "_record_id", "_loaded_at") == kept


def test_a_changed_file_is_loaded_again_and_only_its_changes_are_written(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    one = source(files=write(path, SOUND + "9,nonsense,,\n"))
    loaded(lake, one)
    write(path, SOUND.replace(",7\n", ",8\n") + "9,nonsense,,\n3,2024-05-02 10:00:00,,1\n")
    later = NOW + timedelta(hours=1)
    report = loaded(lake, one, now=later, run_id="second")
    assert (report.inserted, report.updated, report.total("read"), report.total("accepted")) == (1, 1, 4, 3)
    first, second = datetime(2024, 6, 1, 12), datetime(2024, 6, 1, 13)
    assert rows(lake, one, "order_id", "_loaded_at") == [("1", first), ("2", second), ("3", second)]
    assert [row["run_id"] for row in quarantine(lake)] == ["run"], "a row set aside before is not set aside twice"
    write(path, SOUND)
    assert loaded(lake, one, now=later + timedelta(hours=1)).updated == 1, "an earlier content that comes back counts"


def test_days_in_the_path_choose_what_is_loaded(lake: Lake, tmp_path: Path) -> None:
    for day in (1, 2, 3):
        write(tmp_path / f"2024-05-0{day}" / "part-1.csv", HEADER + f"{day},2024-05-0{day} 10:00:00,,1\n")
    write(tmp_path / "2024-13-40" / "part-1.csv", "no day")
    one = source(files=str(tmp_path / "{day}" / "part-*.csv"))
    declared = project(one)
    assert [arrival.day for arrival in arrivals(one, declared, lake.read(LOADS))] == [
        date(2024, 5, d) for d in (1, 2, 3)
    ]
    report = loaded(lake, one, days=[date(2024, 5, 2), date(2024, 5, 9)])
    assert rows(lake, one, "order_id") == [("2",)]
    assert report.missing_days == [date(2024, 5, 9)]
    assert [arrival.day for arrival in arrivals(one, declared, lake.read(LOADS))] == [date(2024, 5, d) for d in (1, 3)]
    loaded(lake, one)
    assert rows(lake, one, "order_id") == [("1",), ("2",), ("3",)]
    assert arrivals(one, declared, lake.read(LOADS)) == []


def test_a_missing_file_is_an_error_that_names_the_nearest(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "order.csv", SOUND)
    with pytest.raises(FileMissingError, match=r"no file at '.*orders.csv', did you mean 'order.csv'"):
        loaded(lake, source(files=str(tmp_path / "orders.csv")))
    with pytest.raises(FileMissingError, match="there is no folder"):
        loaded(lake, source(files=str(tmp_path / "nowhere" / "orders.csv")))


def test_a_file_moved_away_after_its_load_is_no_error(lake: Lake, tmp_path: Path) -> None:
    one = source(files=write(tmp_path / "orders.csv", SOUND))
    loaded(lake, one)
    (tmp_path / "orders.csv").unlink()
    assert loaded(lake, one).loads == []


def test_an_empty_file_is_an_error_and_a_header_alone_is_not(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(FileUnreadableError, match="is empty, without even a header"):
        loaded(lake, source(files=write(tmp_path / "empty.csv", "")))
    assert loaded(lake, source(files=write(tmp_path / "header.csv", HEADER))).total("read") == 0


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_gzip_cut_short_loads_nothing_of_it_and_all_of_the_others(lake: Lake, tmp_path: Path, kept: float) -> None:
    lines = "".join(f"x{n},2024-05-01 10:00:00,,{n}\n" for n in range(20_000))
    packed = gzip.compress((HEADER + lines).encode())
    (tmp_path / "2024-05-01.csv.gz").write_bytes(packed[: int(len(packed) * kept)])
    write(tmp_path / "2024-05-02.csv.gz", SOUND)
    one = source(files=str(tmp_path / "{day}.csv.gz"))
    with pytest.raises(FileUnreadableError, match=r"2024-05-01.csv.gz: the gzip is damaged or cut short"):
        loaded(lake, one)
    assert rows(lake, one, "order_id", "email", "amount") == EXPECTED
    assert [(row["status"], row["read"]) for row in ledger(lake)] == [("failed", 0), ("loaded", 2)]
    (tmp_path / "2024-05-01.csv.gz").write_bytes(packed)
    assert loaded(lake, one).inserted == 20_000


def test_a_broken_row_is_set_aside_as_received_and_the_rest_is_loaded(lake: Lake, tmp_path: Path) -> None:
    broken = ['3,2024-05-01 12:00:00,"c@x.io"', "4,2024-05-01 12:00:00,d@x.io,1,2", '5,"2024-05-01,e@x.io,1']
    one = source(files=write(tmp_path / "orders.csv", SOUND + "\n".join(broken) + "\n6,2024-05-01 12:00:00,,2\n"))
    report = loaded(lake, one)
    assert rows(lake, one, "order_id") == [("1",), ("2",), ("6",)]
    assert [(row["reason"], row["raw"]) for row in quarantine(lake)] == [("broken_row", text) for text in broken]
    assert (report.total("read"), report.total("accepted"), report.total("quarantined")) == (6, 3, 3)


def test_quoted_fields_may_hold_delimiters_quotes_and_newlines(lake: Lake, tmp_path: Path) -> None:
    columns = ORDERS | {"note": {"type": "string"}}
    text = 'note,order_id,ordered_at\n"a, ""b""\nc",1,2024-05-01 10:00:00\n"x\ny",,2024-05-01 10:00:00\n'
    one = source(files=write(tmp_path / "orders.csv", text), columns=columns)
    report = loaded(lake, one)
    assert rows(lake, one, "order_id", "note") == [("1", 'a, "b"\nc')]
    assert [(row["reason"], row["raw"]) for row in quarantine(lake)] == [("missing_key", '"x\ny",,2024-05-01 10:00:00')]
    assert report.drift.missing == ["amount", "email"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_line_ends_of_any_system_are_read(lake: Lake, tmp_path: Path, newline: str, end: str) -> None:
    one = source(files=write(tmp_path / "orders.csv", (SOUND.rstrip() + end).replace("\n", newline)))
    loaded(lake, one)
    assert rows(lake, one, "order_id", "email", "amount") == EXPECTED


def test_mixed_line_ends_lose_no_row(lake: Lake, tmp_path: Path) -> None:
    """DuckDB 1.5.5 reads such a file as empty, without a word."""
    one = source(files=write(tmp_path / "orders.csv", SOUND.replace("\n", "\r\n", 2)))
    assert loaded(lake, one).total("accepted") == 2


def test_bytes_that_are_not_of_the_encoding_are_set_aside_row_by_row(lake: Lake, tmp_path: Path) -> None:
    content = SOUND.encode() + "3,2024-05-01 12:00:00,jürgen@x.de,1\n".encode("latin-1")
    one = source(files=write(tmp_path / "orders.csv", content))
    loaded(lake, one)
    assert rows(lake, one, "order_id", "email", "amount") == EXPECTED
    [row] = quarantine(lake)
    assert (row["reason"], row["raw"]) == ("wrong_encoding", "3,2024-05-01 12:00:00,j\\xfcrgen@x.de,1")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8"])
def test_a_declared_encoding_is_read(lake: Lake, tmp_path: Path, encoding: str) -> None:
    text = HEADER + "1,2024-05-01 10:00:00,jürgen@x.de,1\n"
    path = write(tmp_path / "orders.csv", text, "utf-8-sig" if encoding == "utf-8" else encoding)
    one = source(files={"path": path, "encoding": encoding})
    loaded(lake, one)
    assert rows(lake, one, "order_id", "email") == [("1", "jürgen@x.de")]


def test_a_renamed_column_is_an_error_that_says_how_to_declare_it(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "2024-05-01.csv", SOUND)
    write(tmp_path / "2024-05-02.csv", SOUND.replace("order_id", "orderid"))
    one = source(files=str(tmp_path / "{day}.csv"))
    with pytest.raises(ColumnMissingError, match=r"no column 'order_id', .* did you mean 'orderid'"):
        loaded(lake, one)
    assert rows(lake, one, "order_id", "email", "amount") == EXPECTED


def test_columns_nobody_declared_are_reported_with_yaml_that_declares_them(lake: Lake, tmp_path: Path) -> None:
    text = "order_id,ordered_at,Loyalty Tier,pieces\n1,2024-05-01 10:00:00,gold,3\n"
    one = source(files=write(tmp_path / "orders.csv", text))
    report = loaded(lake, one)
    assert report.drift.unknown == {"Loyalty Tier": "string", "pieces": "integer"}
    assert report.drift.patch(one.columns) == (
        "columns:\n  loyalty_tier: {type: string, from: 'Loyalty Tier'}\n  pieces: {type: integer}\n"
    )
    lines = source(files=write(tmp_path / "o.jsonl", '{"order_id":1,"ordered_at":"2024-05-01 10:00","tier":true}\n'))
    assert loaded(lake, lines).drift.unknown == {"tier": "boolean"}


def test_json_lines_that_are_no_objects_are_set_aside(lake: Lake, tmp_path: Path) -> None:
    broken = ['{"order_id": "3"', "[1, 2]", "nonsense"]
    good = '{"order_id": "1", "ordered_at": "2024-05-01 10:00:00", "email": null, "amount": {"net": 1}}'
    one = source(files=write(tmp_path / "orders.jsonl", "\n".join([*broken, "", good, ""])))
    report = loaded(lake, one)
    assert report.total("read") == 4
    reasons = sorted((row["raw"], row["column"], row["reason"]) for row in quarantine(lake))
    assert reasons == sorted([*((raw, None, "broken_row") for raw in broken), (good, "amount", "wrong_type")])


def test_a_damaged_parquet_file_fails_alone(lake: Lake, tmp_path: Path) -> None:
    sound = tmp_path / "2024-05-01.parquet"
    pq.write_table(pa.table({"order_id": ["1"], "ordered_at": ["2024-05-01 10:00:00"]}), sound)
    for day, size in ((2, 100), (3, 0)):
        (tmp_path / f"2024-05-0{day}.parquet").write_bytes(sound.read_bytes()[:size])
    one = source(files=str(tmp_path / "{day}.parquet"))
    with pytest.raises(FileUnreadableError, match=r"05-02.parquet: is not sound Parquet.*05-03.parquet"):
        loaded(lake, one)
    assert rows(lake, one, "order_id") == [("1",)]


def test_of_two_rows_with_one_grain_the_later_stands_and_both_are_counted(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "2024-05-01.csv", HEADER + "1,2024-05-01 10:00:00,,1\n1,2024-05-01 10:00:00,,1\n")
    write(tmp_path / "2024-05-02.csv", HEADER + "1,2024-05-01 09:00:00,,2\n")
    one = source(files=str(tmp_path / "{day}.csv"))
    report = loaded(lake, one)
    assert rows(lake, one, "order_id", "amount") == [("1", Decimal("2.0000"))]
    assert [(load.read, load.accepted, load.duplicates, load.conflicts) for load in report.loads] == [
        (2, 0, 2, 2),
        (1, 1, 0, 0),
    ]


def test_the_latest_to_happen_stands_where_that_is_declared(lake: Lake, tmp_path: Path) -> None:
    one = source(files=str(tmp_path / "{day}.csv"), on_conflict="latest_occurred")
    write(tmp_path / "2024-05-01.csv", HEADER + "1,2024-05-01 10:00:00,,1\n1,2024-05-01 09:00:00,,2\n")
    loaded(lake, one)
    assert rows(lake, one, "amount") == [(Decimal("1.0000"),)]
    write(tmp_path / "2024-05-02.csv", HEADER + "1,2024-05-01 08:00:00,,3\n")
    report = loaded(lake, one)
    assert rows(lake, one, "amount") == [(Decimal("1.0000"),)]
    assert (report.total("accepted"), report.total("duplicates"), report.total("conflicts")) == (0, 1, 1)
    write(tmp_path / "2024-05-03.csv", HEADER + "1,2024-05-01 11:00:00,,4\n")
    loaded(lake, one)
    assert rows(lake, one, "amount") == [(Decimal("4.0000"),)]


def test_rows_that_repeat_are_all_kept_where_the_source_says_so(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    one = source(
        files=write(path, HEADER + "1,2024-05-01 10:00:00,,1\n" * 3 + ",2024-05-01 10:00:00,,1\n" * 2), repeatable=True
    )
    report = loaded(lake, one)
    assert (report.total("accepted"), report.total("quarantined")) == (3, 2), "order_id is declared as required"
    loose = source(
        "lines",
        files=str(path),
        repeatable=True,
        columns=ORDERS | {"order_id": {"type": "string"}},
        grain=["order_id", "amount"],
    )
    assert loaded(lake, loose).total("accepted") == 5
    write(path, path.read_text() + "1,2024-05-01 10:00:00,,1\n")
    assert loaded(lake, loose).inserted == 1


def test_late_rows_say_which_days_became_stale(lake: Lake, tmp_path: Path) -> None:
    one = source(files=str(tmp_path / "{day}.csv"))
    write(tmp_path / "2024-05-03.csv", HEADER + "1,2024-05-03 10:00:00,,1\n")
    assert loaded(lake, one).first_late_day is None
    write(
        tmp_path / "2024-05-04.csv",
        HEADER + "2,2024-05-04 10:00:00,,1\n3,2024-05-01 23:00:00,,1\n4,2024-05-02 10:00:00,,1\n",
    )
    report = loaded(lake, one)
    assert report.late_days == [date(2024, 5, 1), date(2024, 5, 2)]
    assert report.first_late_day == date(2024, 5, 1)
    whole = source("whole", files=write(tmp_path / "whole.csv", SOUND))
    assert loaded(lake, whole).late_days == [], "the first load of a file without a day makes nothing stale"
    write(tmp_path / "whole.csv", SOUND + "8,2024-04-30 10:00:00,,1\n")
    assert loaded(lake, whole).late_days == [date(2024, 4, 30)]


def test_a_check_that_rejects_refuses_its_file_and_no_other(lake: Lake, tmp_path: Path) -> None:
    columns = ORDERS | {"amount": {"type": "money", "checks": [{"range": [0, None], "action": "reject"}]}}
    one = source(files=str(tmp_path / "{day}.csv"), columns=columns)
    write(tmp_path / "2024-05-01.csv", SOUND)
    write(tmp_path / "2024-05-02.csv", HEADER + "3,2024-05-02 10:00:00,,-1\n4,nonsense,,1\n5,2024-05-02 10:00:00,,1\n")
    with pytest.raises(
        ContractError, match=r"05-02.csv: refused as a whole, 1 rows break its contract \(amount: out_of_range\)"
    ):
        loaded(lake, one)
    assert rows(lake, one, "order_id") == [("1",), ("2",)]
    assert quarantine(lake) == []
    assert [(row["status"], row["read"], row["rejected"]) for row in ledger(lake)] == [
        ("loaded", 2, 0),
        ("rejected", 3, 3),
    ]
    relaxed = source(files=str(tmp_path / "{day}.csv"))
    loaded(lake, relaxed, now=NOW + timedelta(hours=1))
    assert rows(lake, one, "order_id") == [("1",), ("2",), ("3",), ("5",)], "tried again under the new contract"
    assert conservation(lake.read(LOADS)).count().to_pyarrow().as_py() == 0


def test_a_reference_is_looked_up_in_the_other_source(lake: Lake, tmp_path: Path) -> None:
    products = source(
        "products", files=write(tmp_path / "p.csv", "sku\nA\nB\n"), mode="snapshot", grain=["sku"], occurred_at=None,
        columns={"sku": {"type": "string"}},
    )  # fmt: skip
    columns = ORDERS | {"sku": {"type": "string", "checks": [{"references": "products.sku"}]}}
    text = "order_id,ordered_at,sku\n1,2024-05-01 10:00:00,A\n2,2024-05-01 10:00:00,C\n3,2024-05-01 10:00:00,\n"
    one = source(files=write(tmp_path / "o.csv", text), columns=columns)
    with pytest.raises(ReferenceNotLoadedError, match="products has not been loaded yet"):
        loaded(lake, one, products)
    loaded(lake, products)
    loaded(lake, one, products)
    assert rows(lake, one, "order_id") == [("1",), ("3",)]
    assert [(row["column"], row["reason"]) for row in quarantine(lake)] == [("sku", "unknown_reference")]


def test_a_row_that_comes_sound_after_all_settles_the_one_set_aside(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    one = source(files=write(path, HEADER + "1,nonsense,,1\n"))
    loaded(lake, one)
    write(path, HEADER + "1,2024-05-01 10:00:00,,1\n")
    loaded(lake, one, now=datetime(2024, 6, 2, tzinfo=UTC))
    assert [row["replayed_at"] for row in quarantine(lake)] == [datetime(2024, 6, 2)]


def test_a_check_of_drift_reads_the_newest_file_and_loads_nothing(lake: Lake, tmp_path: Path) -> None:
    one = source(files=str(tmp_path / "{day}.csv"))
    assert drift_of(one, project(one)) == []
    write(tmp_path / "2024-05-01.csv", SOUND)
    write(tmp_path / "2024-05-02.csv", "order_id,ordered_at,amount,gift\n1,2024-05-02 10:00:00,1,true\n")
    found = [(row["column"], row["problem"], row["declare"]) for row in drift_of(one, project(one))]
    assert found == [("gift", "not declared", "gift: {type: boolean}"), ("email", "not in the file", "")]


def test_a_stray_quote_breaks_its_own_line_and_a_short_record_is_one_row(lake: Lake, tmp_path: Path) -> None:
    stray, short = '3,2024-05-01 10:00:00,"open,1', '4,2024-05-01 10:00:00,"two\nlines"'
    one = source(
        files=write(tmp_path / "orders.csv", SOUND + f"{stray}\n{short}\n" + "5,2024-05-01 10:00:00,,1\n" * 300)
    )
    report = loaded(lake, one)
    assert [row["raw"] for row in quarantine(lake)] == [stray, short]
    assert (report.total("read"), report.total("accepted"), report.total("duplicates")) == (304, 3, 299)
