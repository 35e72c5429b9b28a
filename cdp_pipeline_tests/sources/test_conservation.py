"""Dirty files made up by Hypothesis, against a plain Python account of what must become of every row."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cdp_pipeline.lake import Lake, open_lake
from cdp_pipeline.sources.files import scan
from cdp_pipeline.sources.load import conservation
from cdp_pipeline.sources.reading import Readable, Scratch, read_header, stage
from cdp_pipeline.sources.tables import LOADS
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline.spec.source import Files
from cdp_pipeline_tests.sources.projects import loaded, quarantine, rows, source

numbers = itertools.count()
# Not shrunk: an example is one load, and small to begin with.
REAL_FILES: dict[str, Any] = {
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "phases": [Phase.explicit, Phase.reuse, Phase.generate],
}


@pytest.fixture(scope="module")
def shared_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with open_lake(LakeLocation(path=str(tmp_path_factory.mktemp("lake")))) as opened:
        yield opened


@dataclass(frozen=True)
class Line:
    """One row as written, and what a person would say of it: its key and payload, or why it is bad."""

    text: str
    key: str | None = None
    payload: tuple[str | None, Decimal | None] = (None, None)
    reason: str | None = None


notes = st.sampled_from(["", "plain", "a, b", 'say "hi"', "two\nlines", "ünï", "x" * 50])
amounts = st.sampled_from(["", "1", "2.50", "-3", "N/A"])
keys = st.integers(0, 12).map(str)


def written(*fields: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue().removesuffix("\n")


def payload(note: str, amount: str) -> tuple[str | None, Decimal | None]:
    return note or None, Decimal(amount) if amount not in ("", "N/A") else None


AT = "2024-05-01 10:00:00"
sound = st.builds(
    lambda key, note, amount: Line(written(key, AT, note, amount), key, payload(note, amount)), keys, notes, amounts
)
bad = st.one_of(
    st.builds(lambda note: Line(written("", AT, note, "1"), reason="missing_key"), notes),
    st.builds(lambda key: Line(written(key, AT, "x", "abc"), reason="wrong_type"), keys),
    st.builds(lambda key: Line(written(key, "2024-02-30", "x", "1"), reason="impossible_date"), keys),
    st.builds(lambda key: Line(written(key, AT, "x"), reason="broken_row"), keys),
    st.builds(lambda key: Line(written(key, AT, "x", "1", "2"), reason="broken_row"), keys),
    st.builds(lambda key: Line(f'{key},{AT},"open,1', reason="broken_row"), keys),
)


@dataclass
class Account:
    """What must have become of the rows of one file."""

    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: int = 0
    stands: dict[str, tuple[str | None, Decimal | None]] = field(default_factory=dict)
    aside: Counter[tuple[str, str]] = field(default_factory=Counter)


def account(lines: list[Line]) -> Account:
    made = Account(read=len(lines))
    for line in lines:
        if line.key is None:
            assert line.reason is not None
            made.quarantined += 1
            made.aside[line.text, line.reason] += 1
        else:
            made.stands[line.key] = line.payload
    for line in lines:
        if line.key is not None:
            made.duplicates += 1
            made.conflicts += line.payload != made.stands[line.key]
    made.accepted = len(made.stands)
    made.duplicates -= made.accepted
    return made


@settings(max_examples=8, **REAL_FILES)
@given(
    lines=st.lists(st.one_of(sound, sound, sound, bad), max_size=25),
    newline=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_every_row_of_a_dirty_file_is_accounted_for(
    shared_lake: Lake, tmp_path: Path, lines: list[Line], newline: str, last: bool
) -> None:
    columns = {
        "order_id": {"type": "string"},
        "ordered_at": {"type": "timestamp"},
        "note": {"type": "string"},
        "amount": {"type": "money"},
    }
    text = newline.join(["order_id,ordered_at,note,amount", *(line.text for line in lines)]) + newline * last
    name = f"orders_{next(numbers)}"
    (tmp_path / f"{name}.csv").write_bytes(text.encode())
    one = source(name, files=str(tmp_path / f"{name}.csv"), columns=columns)
    report = loaded(shared_lake, one)
    expected = account(lines)
    counted = {what: report.total(what) for what in ("read", "accepted", "duplicates", "conflicts", "quarantined")}
    assert counted == {what: getattr(expected, what) for what in counted}
    stands = rows(shared_lake, one, "order_id", "note", "amount")
    assert stands == sorted(((key, *values) for key, values in expected.stands.items()), key=repr)
    aside = Counter((row["raw"], row["reason"]) for row in quarantine(shared_lake) if row["source"] == name)
    assert aside == expected.aside
    assert conservation(shared_lake.read(LOADS)).count().to_pyarrow().as_py() == 0


fields = st.text(st.sampled_from(list('ab,;" \t\r\né')), max_size=6)


@settings(max_examples=60, **REAL_FILES)
@given(
    table=st.lists(st.tuples(fields, fields, fields), max_size=8),
    newline=st.sampled_from(["\n", "\r\n"]),
    quote=st.booleans(),
)
def test_what_pythons_csv_writes_is_read_back_field_by_field(
    tmp_path: Path, table: list[tuple[str, str, str]], newline: str, quote: bool
) -> None:
    import duckdb

    if not quote:  # Python leaves a lone carriage return unquoted then
        table = [(a.replace("\r", ""), b.replace("\r", ""), c.replace("\r", "")) for a, b, c in table]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL)
    writer.writerows([("k", "l", "m"), *table])
    path = tmp_path / "t.csv"
    path.write_bytes(text.getvalue().encode())
    connection = duckdb.connect()
    first_pass = scan(str(path))
    header = read_header(connection, Files(path=str(path)), "csv", str(path), first_pass)
    staged = stage(Scratch(connection), Files(path=str(path)), [Readable(0, str(path), first_pass, "csv", header)], [])
    found = connection.execute(f"SELECT c0, c1, c2, _broken FROM {staged.table} ORDER BY rowid").fetchall()
    assert [(a or "", b or "", c or "") for a, b, c, _ in found] == table
    assert all(broken is None for *_, broken in found)
