"""Rows that are told as they come, against what a load keeps of the finished file or table."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_pipeline.lake import Lake
from cdp_pipeline.sources import tail as tailing
from cdp_pipeline.sources.reading import Scratch
from cdp_pipeline.sources.tail import LOOK_BACK, tail, why_not
from cdp_pipeline.spec.source import Source
from cdp_pipeline_tests.sources.projects import ORDERS, loaded, project, rows, source

HEADER = "order_id,ordered_at,email,amount\n"
AT = "2024-06-01T10:00:00Z"
NAMES = ("order_id", "email", "amount")


class Watcher:
    """Looks at one source again and again, and remembers the marks as the ledger would."""

    def __init__(self, lake: Lake, one: Source, now: datetime | None = None) -> None:
        self.lake, self.source, self.now = lake, one, now
        self.marks: dict[str, str] = {}

    def look(self) -> list[dict[str, Any]]:
        """The rows that came since the last look, oldest id first."""
        found: list[dict[str, Any]] = []
        more = True
        while more:
            now = self.now or datetime.now(UTC)
            with Scratch(self.lake.connection).until_done() as scratch:
                news = tail(self.lake, scratch, self.source, project(self.source), self.marks, now)
                if news.rows is not None:
                    found += self.lake.connection.execute(f"FROM {news.rows}").to_arrow_table().to_pylist()
            for place in news.gone:
                del self.marks[place]
            self.marks |= news.marks
            more = news.more
        return sorted(found, key=lambda row: row["_record_id"])

    def ids(self) -> list[str]:
        return sorted(row["order_id"] for row in self.look())


def line(id_: object, email: str = "ann@example.com", amount: object = 1) -> str:
    return f"{id_},{AT},{email},{amount}\n"


def add(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


texts = st.text(st.sampled_from('ab,"\n\r é'), max_size=8)
cells = st.one_of(texts, st.sampled_from(["12.50", "-", "x", "Ann@Example.com", ""]))
orders = st.lists(st.tuples(st.sampled_from("abcdef"), cells, cells), max_size=8)


def written(kind: str, drawn: list[tuple[str, str, str]]) -> bytes:
    if kind == "jsonl":
        records = [dict(zip(("order_id", "email", "amount"), row, strict=True)) | {"ordered_at": AT} for row in drawn]
        return b"".join(json.dumps(record).encode() + b"\n" for record in records)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["order_id", "ordered_at", "email", "amount"])
    writer.writerows([id_, AT, email, amount] for id_, email, amount in drawn)
    return out.getvalue().encode()


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.sampled_from(["csv", "jsonl"]), orders, st.lists(st.integers(0, 400), max_size=3), st.booleans())
def test_a_file_that_grows_by_pieces_tells_the_rows_that_a_load_keeps_of_it(
    lake: Lake,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    drawn: list[tuple[str, str, str]],
    cuts: list[int],
    zipped: bool,
) -> None:
    folder = tmp_path_factory.mktemp("grown")
    path = folder / f"orders.{kind}{'.gz' if zipped else ''}"
    columns = ORDERS | {"email": {"type": "string"}, "amount": {"type": "money", "invalid": "omit"}}
    one = source(f"orders_{folder.name.replace('-', '_')}", files=str(path), columns=columns)
    watcher, content = Watcher(lake, one), written(kind, drawn)
    assert watcher.look() == []
    told: dict[str, tuple[Any, ...]] = {}
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    for start, end in pairwise(edges):
        part = content[start:end]
        if part:
            add(path, gzip.compress(part) if zipped else part)
        told |= {row["_record_id"]: tuple(row[name] for name in NAMES) for row in watcher.look()}
    assert watcher.look() == []
    if content:
        loaded(lake, one)
        kept = {row[0]: row[1:] for row in rows(lake, one, "_record_id", *NAMES)}
        assert told == kept


def test_what_lay_there_at_the_first_look_is_no_news_but_what_it_grows_by_is(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    add(path, HEADER + line("old") + "half,2024")
    watcher = Watcher(lake, source(files=str(path)))
    assert watcher.ids() == []
    add(path, "-06-01T10:00:00Z,bob@example.com,2\n" + line("new"))
    assert watcher.ids() == ["half", "new"]
    assert watcher.ids() == []


def test_a_new_file_is_news_and_so_is_another_under_an_old_name(lake: Lake, tmp_path: Path) -> None:
    watcher = Watcher(lake, source(files=f"{tmp_path}/*.csv"))
    assert watcher.ids() == []
    add(tmp_path / "one.csv", HEADER + line("a"))
    assert watcher.ids() == ["a"]
    (tmp_path / "one.csv").write_text(HEADER + line("b") + line("c"))
    assert watcher.ids() == ["b", "c"]
    # As rsync does: another file with the same rows and one more.
    (tmp_path / "two").write_text(HEADER + line("b") + line("c") + line("d"))
    (tmp_path / "two").rename(tmp_path / "one.csv")
    assert watcher.ids() == ["d"]
    (tmp_path / "one.csv").unlink()
    assert watcher.ids() == [] and list(watcher.marks) == [""]


def test_a_quote_left_open_holds_up_no_more_than_a_load_lets_it(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    watcher = Watcher(lake, source(files=str(path)))
    watcher.look()
    add(path, HEADER + line("a") + line('"b'))
    assert watcher.ids() == ["a"]
    add(path, "".join(line(f"c{number}") for number in range(200)))
    found = watcher.ids()
    assert "c199" in found and '"b' not in found
    add(path, line("d"))
    assert watcher.ids() == ["d"]


@pytest.mark.parametrize("kind", ["parquet", "repeatable", "utf-16"])
def test_of_files_that_are_only_read_whole_the_rows_they_grew_by_are_news(
    lake: Lake, tmp_path: Path, kind: str
) -> None:
    words: dict[str, Any] = {"files": {"path": f"{tmp_path}/*", "format": "parquet" if kind == "parquet" else "csv"}}
    if kind == "utf-16":
        words["files"]["encoding"] = "utf-16"
    words["repeatable"] = kind == "repeatable"
    path = tmp_path / "orders"

    def write(*ids: str) -> None:
        if kind == "parquet":
            table = pa.table({"order_id": ids, "ordered_at": [AT] * len(ids), "email": ["a@b.cd"] * len(ids)})
            pq.write_table(table.append_column("amount", pa.array([1.0] * len(ids))), path)
        else:
            path.write_text(HEADER + "".join(map(line, ids)), "utf-16" if kind == "utf-16" else "utf-8")

    one = source(**words)
    watcher = Watcher(lake, one)
    write("a", "b")
    assert watcher.ids() == []
    write("a", "b", "b", "c")
    told = watcher.look()
    loaded(lake, one)
    kept = {row[0] for row in rows(lake, one, "_record_id")}
    assert {row["_record_id"] for row in told} <= kept
    # Without a key of its own the second b is another row; with one it is the same that came again.
    assert [row["order_id"] for row in sorted(told, key=lambda row: row["order_id"])] == ["b", "c"]
    write("z")
    assert watcher.ids() == ["z"]


def test_half_a_gzip_is_read_once_it_is_whole(lake: Lake, tmp_path: Path) -> None:
    path, whole = tmp_path / "orders.csv.gz", gzip.compress((HEADER + line("a")).encode())
    watcher = Watcher(lake, source(files=str(path)))
    watcher.look()
    add(path, whole[:40])
    assert watcher.ids() == []
    add(path, whole[40:])
    assert watcher.ids() == ["a"]


def test_old_files_are_left_to_the_load(lake: Lake, tmp_path: Path) -> None:
    watcher = Watcher(lake, source(files=f"{tmp_path}/{{day}}.csv"))
    watcher.look()
    now = datetime.now(UTC)
    for days in (0, 1, 3):
        (tmp_path / f"{now.date() - timedelta(days=days)}.csv").write_text(HEADER + line(f"day{days}"))
    untouched = tmp_path / f"{now.date()}.csv"
    assert watcher.ids() == ["day0", "day1"]
    past = (now - LOOK_BACK - timedelta(hours=1)).timestamp()
    os.utime(untouched, (past, past))
    watcher.look()
    assert str(untouched) not in watcher.marks


def test_much_is_read_in_parts(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "MOST", 200)
    path = tmp_path / "orders.csv"
    watcher = Watcher(lake, source(files=str(path)))
    watcher.look()
    add(path, HEADER + "".join(line(f"o{number:02}") for number in range(20)))
    assert watcher.ids() == [f"o{number:02}" for number in range(20)]
    add(path, "x" * 300)
    assert watcher.ids() == [], "a line that is longer than what is read at once is left to the load"


def test_a_file_without_a_needed_column_is_left_to_the_load_and_holds_up_no_other(lake: Lake, tmp_path: Path) -> None:
    watcher = Watcher(lake, source(files=f"{tmp_path}/*.csv"))
    watcher.look()
    (tmp_path / "a.csv").write_text("id,ordered_at\nx," + AT + "\n")
    (tmp_path / "b.csv").write_text(HEADER + line("b"))
    assert watcher.ids() == ["b"]
    assert watcher.ids() == []


class Shop:
    def __init__(self, url: str, moment: str) -> None:
        self.sql = {"url": url, "table": "orders", "cursor": "ordered_at"}
        self.ask(f"CREATE TABLE orders (order_id TEXT, ordered_at {moment}, email TEXT, amount NUMERIC(12, 2))")

    def ask(self, statement: str) -> None:
        engine = sa.create_engine(self.sql["url"])
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
        engine.dispose()

    def order(self, id_: str, at: str) -> None:
        self.ask(f"INSERT INTO orders VALUES ('{id_}', '2024-06-01 {at}', 'ann@example.com', 1)")


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    """An empty table of orders with a cursor, once in a file and once on a real Postgres."""
    if request.param == "sqlite":
        return Shop(f"sqlite:///{tmp_path / 'shop.sqlite'}", "TEXT")
    url = str(request.getfixturevalue("postgres_url"))
    return Shop(url.replace("postgresql://", "postgresql+psycopg://"), "TIMESTAMP")


@pytest.mark.parametrize("overlap", [None, "1 hour"])
def test_rows_behind_a_cursor_are_news_once_or_again_within_a_minute(
    lake: Lake, shop: Shop, overlap: str | None
) -> None:
    one = source(sql=shop.sql | ({"overlap": overlap} if overlap else {}))
    shop.order("old", "10:00:00")
    watcher = Watcher(lake, one)
    assert watcher.ids() == []
    shop.order("new", "10:05:00")
    told = Counter(watcher.ids())
    shop.order("same instant", "10:05:00")
    told += Counter(watcher.ids())
    shop.order("committed late", "10:04:30")
    told += Counter(watcher.ids())
    assert watcher.ids() == []
    late = {"committed late"} if overlap else set()
    assert {id_ for id_ in told if id_ != "old"} == {"new", "same instant"} | late
    loaded(lake, one)
    assert told.keys() <= {row[0] for row in rows(lake, one, "order_id")}


def test_an_empty_table_begins_with_its_first_row(lake: Lake, shop: Shop) -> None:
    watcher = Watcher(lake, source(sql=shop.sql))
    assert watcher.ids() == []
    shop.order("first", "10:00:00")
    assert watcher.ids() == ["first"]


def test_a_source_whose_rows_cannot_be_told_early_says_why() -> None:
    rejecting = ORDERS | {"amount": {"type": "money", "checks": [{"range": [0, None], "action": "reject"}]}}
    sql = {"url": "sqlite://", "table": "orders"}
    assert why_not(source(files="x.csv")) is None
    assert "amount" in str(why_not(source(files="x.csv", columns=rejecting)))
    assert "full copies" in str(why_not(source(files="x.csv", mode="snapshot")))
    assert "cursor" in str(why_not(source(sql=sql)))
    assert "collector" in str(why_not(source(collector={"write_key": "k"})))
