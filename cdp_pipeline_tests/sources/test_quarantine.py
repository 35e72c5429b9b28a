"""Rows set aside are listed, shown, mended and replayed, each once."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from cdp_pipeline.lake import Lake
from cdp_pipeline.sources.errors import SourceError
from cdp_pipeline.sources.quarantine import replay, show, waiting
from cdp_pipeline.spec.source import Source
from cdp_pipeline_tests.sources.projects import NOW, ORDERS, loaded, project, quarantine, rows, source

LATER = NOW + timedelta(days=1)
TEXT = """order_id,ordered_at,email,amount
1,2024-05-01 10:00:00,a@x.io,1
2,2024-05-01 10:00:00,b@x.io,"2,50"
3,2024-05-01 10:00:00,c@x.io,"3,50"
4,31.12.2023,d@x.io,4
5,2024-05-01 10:00:00,e@x.io
"""


@pytest.fixture
def orders(lake: Lake, tmp_path: Path) -> Source:
    (tmp_path / "orders.csv").write_text(TEXT)
    one = source(files=str(tmp_path / "orders.csv"))
    loaded(lake, one)
    return one


def again(lake: Lake, one: Source, **words: object) -> tuple[int, int, int, int]:
    report = replay(lake, one, project(one), LATER, **words)  # type: ignore[arg-type]
    return report.waiting, report.accepted, report.superseded, report.still_waiting


def test_what_waits_is_counted_and_shown_as_received(lake: Lake, orders: Source) -> None:
    assert [(row["source"], row["reason"], row["column"], row["rows"]) for row in waiting(lake)] == [
        ("orders", "wrong_type", "amount", 2),
        ("orders", "broken_row", None, 1),
        ("orders", "impossible_date", "ordered_at", 1),
    ]
    assert sorted(row["raw"] for row in show(lake, "orders")) == sorted(TEXT.splitlines()[2:])
    assert len(show(lake, "orders", limit=1)) == 1
    assert show(lake, "returns") == []


def test_replaying_under_the_same_contract_changes_nothing(lake: Lake, orders: Source) -> None:
    before = lake.latest()
    assert again(lake, orders) == (4, 0, 0, 4)
    assert lake.latest() == before


def test_a_contract_that_was_mended_lets_rows_in_with_the_ids_they_would_have_had(
    lake: Lake, orders: Source, tmp_path: Path
) -> None:
    mended = source(files=orders.files.path, columns=ORDERS | {"amount": {"type": "money", "invalid": "coerce"}})  # type: ignore[union-attr]
    expected = {row["record_id"] for row in quarantine(lake) if row["column"] == "amount"}
    assert again(lake, mended) == (4, 2, 0, 2)
    found = {row[0]: row[1:] for row in rows(lake, mended, "order_id", "amount", "_record_id", "_loaded_at")}
    assert found["2"][0] == Decimal("2.5000") and found["3"][0] == Decimal("3.5000")
    assert {found["2"][1], found["3"][1]} == expected
    assert found["2"][2] == datetime(2024, 6, 2, 12)
    assert again(lake, mended) == (2, 0, 0, 2), "what was replayed waits no more"
    (tmp_path / "orders.csv").write_text(TEXT + "6,2024-05-01 10:00:00,,6\n")
    report = loaded(lake, mended, now=LATER + timedelta(days=1))
    assert (report.inserted, report.updated) == (1, 0), "nothing doubles when the file is loaded again"


def test_a_patch_mends_columns_by_value_or_expression_and_single_rows(lake: Lake, orders: Source) -> None:
    [date_row] = [row["record_id"] for row in quarantine(lake) if row["reason"] == "impossible_date"]
    [broken] = [row["quarantine_id"] for row in quarantine(lake) if row["reason"] == "broken_row"]
    patch = {
        "amount": {"expression": "replace(amount, ',', '.')"},
        date_row: {"ordered_at": "2023-12-31"},
        broken: {"amount": "5", "email": None},
    }
    before = lake.latest()
    assert again(lake, orders, patch=patch, dry_run=True) == (4, 4, 0, 0)
    assert lake.latest() == before, "a dry run writes nothing"
    assert again(lake, orders, patch=patch) == (4, 4, 0, 0)
    assert rows(lake, orders, "order_id", "email", "amount") == [
        ("1", "a@x.io", Decimal("1.0000")),
        ("2", "b@x.io", Decimal("2.5000")),
        ("3", "c@x.io", Decimal("3.5000")),
        ("4", "d@x.io", Decimal("4.0000")),
        ("5", None, Decimal("5.0000")),
    ]
    assert {row["replayed_at"] for row in quarantine(lake)} == {datetime(2024, 6, 2, 12)}


def test_a_row_that_came_again_and_stands_is_not_overwritten(lake: Lake, orders: Source, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("order_id,ordered_at,amount\n2,2024-05-01 10:00:00,99\n")
    corrected = source(files=str(tmp_path / "new.csv"))
    loaded(lake, corrected, now=NOW + timedelta(hours=1))
    assert again(lake, orders, patch={"amount": "0"}) == (3, 1, 0, 2)
    assert ("2", Decimal("99.0000")) in rows(lake, orders, "order_id", "amount")


def test_of_two_waiting_rows_with_one_key_the_later_is_replayed(lake: Lake, tmp_path: Path) -> None:
    for day in (1, 2):
        (tmp_path / f"2024-05-0{day}.csv").write_text(
            f"order_id,ordered_at,email,amount\n1,2024-05-01 10:00:00,d{day}@x.io,x\n"
        )
        one = source(files=str(tmp_path / "{day}.csv"))
        loaded(lake, one, now=NOW + timedelta(minutes=day))
    assert again(lake, one, patch={"amount": "1"}) == (2, 1, 1, 0)
    assert rows(lake, one, "order_id", "email") == [("1", "d2@x.io")]


def test_rows_that_repeat_are_replayed_without_swallowing_each_other(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text(
        "order_id,ordered_at,amount\n" + "1,2024-05-01 10:00:00,x\n" * 3 + "1,2024-05-01 10:00:00,1\n"
    )
    one = source(files=str(tmp_path / "o.csv"), repeatable=True)
    loaded(lake, one)
    assert again(lake, one, patch={"amount": "2"}) == (3, 3, 0, 0)
    assert rows(lake, one, "amount") == [(Decimal("1.0000"),), *[(Decimal("2.0000"),)] * 3]


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"amont": "1"}, "the patch's 'amont' is no column and no row that waits, did you mean 'amount'"),
        ({"amount": {"value": "1"}}, "patch amount with a value or with {expression: …}"),
        ({"amount": {"expression": "replace(amout, ',', '.')"}}, "the patch of amount: .*did you mean 'amount'"),
    ],
)
def test_a_patch_that_makes_no_sense_is_refused(
    lake: Lake, orders: Source, patch: dict[str, object], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        again(lake, orders, patch=patch)
