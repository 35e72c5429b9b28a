"""Publishing against a dictionary that does the same: whatever the sequence, the table holds what the model holds."""

from __future__ import annotations

import tempfile
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_pipeline.lake import Column, Lake, Mirror, Note, Table, Upsert, open_lake
from cdp_pipeline.lake.errors import DuplicateKeyError, LakeMovedError, RowsError
from cdp_pipeline.spec.project import LakeLocation

ITEMS = Table(
    "shop.items",
    "Rows of every awkward type.",
    {
        "shelf": Column("int64"),
        "name": Column("string"),
        "day": Column("date"),
        "at": Column("timestamp(6)"),
        "price": Column("decimal(18, 4)"),
        "weight": Column("float64"),
        "label": Column("struct<text: string, size: int64, tags: array<string>>"),
        "fresh": Column("boolean"),
    },
    key=("shelf", "name"),
    month_of="day",
)
DAYS = [date(2026, 1, 30), date(2026, 1, 31), date(2026, 2, 1)]
Key = tuple[int | None, str | None]
Row = dict[str, Any]


def table(rows: dict[Key, Row]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"shelf": key[0], "name": key[1], **row} for key, row in rows.items()], schema=ITEMS.schema.to_pyarrow()
    )


def stored(lake: Lake) -> dict[Key, Row]:
    rows = lake.read(ITEMS).to_pyarrow().to_pylist()
    found = {(row.pop("shelf"), row.pop("name")): row for row in rows}
    assert len(found) == len(rows), "a key twice"
    return found


def changes(lake: Lake, since: int) -> tuple[dict[Key, Row], dict[Key, Row]]:
    found: dict[str, dict[Key, Row]] = {"insert": {}, "delete": {}}
    for row in lake.changes(ITEMS.name, since=since).to_pyarrow().to_pylist():
        found[row.pop("_change")][row.pop("shelf"), row.pop("name")] = row
    return found["insert"], found["delete"]


def null_or(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


texts = st.sampled_from(["", "a", "b", "ä'\"\\", "a|b"])
keys = st.tuples(null_or(st.integers(0, 2)), null_or(texts))
labels = st.fixed_dictionaries(
    {"text": null_or(texts), "size": null_or(st.integers(0, 2)), "tags": null_or(st.lists(null_or(texts), max_size=2))}
)


def rows_on(days: st.SearchStrategy) -> st.SearchStrategy[dict[Key, Row]]:
    row = st.fixed_dictionaries(
        {
            "day": days,
            "at": null_or(st.sampled_from([datetime(2026, 1, 1), datetime(1969, 12, 31, 23, 59, 59, 999999)])),
            "price": null_or(st.sampled_from([Decimal("0.0000"), Decimal("-0.0001"), Decimal("99999999999999.9999")])),
            "weight": null_or(st.sampled_from([0.0, 0.1, 1e300, float("inf"), float("-inf")])),
            "label": null_or(labels),
            "fresh": null_or(st.booleans()),
        }
    )
    return st.dictionaries(keys, row, max_size=8)


@st.composite
def writes(draw: st.DrawFn) -> tuple[str, dict[Key, Row], list[date]]:
    how = draw(st.sampled_from(["upsert", "mirror", "slice"]))
    if how == "slice":
        days = draw(st.lists(st.sampled_from(DAYS), unique=True, min_size=1, max_size=2))
        return how, draw(rows_on(st.sampled_from(days))), days
    return how, draw(rows_on(null_or(st.sampled_from(DAYS)))), []


def written(before: dict[Key, Row], how: str, rows: dict[Key, Row], days: list[date]) -> dict[Key, Row]:
    """The oracle."""
    if how == "upsert":
        return before | rows
    if how == "mirror":
        return rows
    return {key: row for key, row in before.items() if row["day"] not in days} | rows


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(writes(), min_size=1, max_size=4))
def test_any_sequence_of_writes_leaves_what_a_dictionary_would_hold(steps) -> None:
    with tempfile.TemporaryDirectory() as folder, open_lake(LakeLocation(path=folder)) as lake:
        model: dict[Key, Row] = {}
        for how, rows, days in steps:
            wanted = written(model, how, rows, days)
            write = Upsert(ITEMS, table(rows)) if how == "upsert" else Mirror(ITEMS, table(rows), {"day": days})
            if how == "mirror":
                write = Mirror(ITEMS, table(rows))
            since = lake.latest()
            published = lake.publish(write)
            counts = published.counts[ITEMS.name]
            assert stored(lake) == wanted
            assert counts.inserted == len(wanted.keys() - model.keys())
            assert counts.deleted == len(model.keys() - wanted.keys())
            assert counts.updated == sum(model[key] != wanted[key] for key in model.keys() & wanted.keys())
            assert counts.rows == len(rows)
            came, went = changes(lake, since)
            assert came == {key: row for key, row in wanted.items() if model.get(key) != row}
            assert went == {key: row for key, row in model.items() if wanted.get(key) != row}
            model = wanted
            again = lake.publish(write)
            assert again.snapshot == published.snapshot
            assert again.counts[ITEMS.name].changed == 0


def row(day: date = DAYS[0], price: str = "1") -> Row:
    return {"day": day, "at": None, "price": Decimal(price), "weight": None, "label": None, "fresh": None}


def test_the_last_digit_of_a_float_is_no_change_but_the_tenth_is(lake: Lake) -> None:
    def weighing(weight: float) -> pa.Table:
        return table({(1, "a"): {**row(), "weight": weight}})

    lake.publish(Mirror(ITEMS, weighing(0.3)))
    assert lake.publish(Mirror(ITEMS, weighing(0.1 + 0.2))).counts[ITEMS.name].changed == 0
    assert lake.publish(Mirror(ITEMS, weighing(0.3000000003))).counts[ITEMS.name].updated == 1


def test_two_rows_of_one_key_are_refused_by_name_and_hash_and_publish_nothing(lake: Lake) -> None:
    one = table({(1, "ann@example.com"): row(), (2, "b"): row()})
    with pytest.raises(DuplicateKeyError) as refused:
        lake.publish(Mirror(ITEMS, pa.concat_tables([one, one.slice(0, 1)])))
    message = str(refused.value)
    assert message.startswith("shop.items: 1 keys (shelf, name) occur on 2 rows")
    assert "ann@example.com" not in message
    assert not lake.exists(ITEMS.name)


def test_two_null_keys_are_one_key(lake: Lake) -> None:
    one = table({(None, None): row()})
    with pytest.raises(DuplicateKeyError):
        lake.publish(Upsert(ITEMS, pa.concat_tables([one, one])))


def test_a_row_outside_its_slice_is_refused(lake: Lake) -> None:
    with pytest.raises(RowsError, match="1 rows lie outside the slice of day"):
        lake.publish(Mirror(ITEMS, table({(1, "a"): row(DAYS[1])}), within={"day": [DAYS[0]]}))


def test_a_key_that_moves_into_the_slice_moves_rather_than_doubles(lake: Lake) -> None:
    lake.publish(Mirror(ITEMS, table({(1, "a"): row(DAYS[0]), (2, "b"): row(DAYS[0])})))
    counts = lake.publish(Mirror(ITEMS, table({(1, "a"): row(DAYS[1])}), within={"day": [DAYS[1]]})).counts
    assert (counts[ITEMS.name].updated, counts[ITEMS.name].inserted) == (1, 0)
    assert stored(lake) == {(1, "a"): row(DAYS[1]), (2, "b"): row(DAYS[0])}


def test_misspelt_and_missing_columns_are_named(lake: Lake) -> None:
    rows = table({}).rename_columns(["shelf", "name", "day", "at", "prise", "weight", "label", "fresh"])
    with pytest.raises(RowsError, match=r"lack the declared columns price and bring columns .* declared: prise"):
        lake.publish(Mirror(ITEMS, rows))


def test_rows_may_come_as_a_stream_of_batches_or_as_an_expression(lake: Lake) -> None:
    rows = table({(shelf, "a"): row() for shelf in range(5000)})
    lake.publish(Upsert(ITEMS, pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(max_chunksize=100))))
    shifted = lake.read(ITEMS).mutate(shelf=lake.read(ITEMS).shelf + 2500)
    counts = lake.publish(Upsert(ITEMS, shifted)).counts[ITEMS.name]
    assert (counts.rows, counts.inserted, counts.updated) == (5000, 2500, 0)


def test_a_snapshot_tells_its_run_asset_and_partition(lake: Lake) -> None:
    lake.publish(Mirror(ITEMS, table({(1, "a"): row()})), note=Note("run7", "shop.items", "2026-01-30"))
    *_, author, message, extra = lake.connection.execute("FROM lake.snapshots()").fetchall()[-1]
    assert (author, message) == ("cdp", "shop.items 2026-01-30")
    assert '"run_id": "run7"' in extra


def test_cheap_rows_go_into_an_empty_day_as_others_do_and_are_compared_where_there_are_some(lake: Lake) -> None:
    sales = Table("shop.sales", "Sales.", {"day": Column("date"), "item": Column("string"), "sold": Column("int64")},
                  key=("day", "item"), month_of="day")  # fmt: skip
    given = lake.ibis.sql("SELECT DATE '2026-01-31' AS day, * FROM (VALUES ('a', 1.0), ('b', 2.0)) t(item, sold)")
    within = {"day": [date(2026, 1, 31)]}
    first = lake.publish(Mirror(sales, given, within, cheap=True)).counts[sales.name]
    again = lake.publish(Mirror(sales, given, within, cheap=True)).counts[sales.name]
    fewer = lake.publish(Mirror(sales, given.filter(given.item == "a"), within, cheap=True)).counts[sales.name]
    assert (first.inserted, again.changed, fewer.deleted) == (2, 0, 1)
    with pytest.raises(RowsError, match="outside the slice"):
        lake.publish(Mirror(sales, given, {"day": [date(2026, 2, 1)]}, cheap=True))
    twice = given.union(given).mutate(day=date(2026, 2, 2))
    with pytest.raises(DuplicateKeyError):
        lake.publish(Mirror(sales, twice, {"day": [date(2026, 2, 2)]}, cheap=True))
    assert lake.read(sales).to_pyarrow().to_pylist() == [{"day": date(2026, 1, 31), "item": "a", "sold": 1}]


def test_an_empty_publish_still_makes_the_table(lake: Lake) -> None:
    lake.publish(Mirror(ITEMS, table({})))
    assert lake.exists(ITEMS.name)
    assert lake.publish(Mirror(ITEMS, table({}))).snapshot == lake.latest()
    assert stored(lake) == {}


def test_an_emptying_mirror_deletes_everything(lake: Lake) -> None:
    lake.publish(Mirror(ITEMS, table({(shelf, "a"): row() for shelf in range(3000)})))
    assert lake.publish(Mirror(ITEMS, table({}))).counts[ITEMS.name].deleted == 3000
    assert stored(lake) == {}
    # An emptied table takes the short way of a first load again.
    lake.publish(Mirror(ITEMS, table({(1, "a"): row()})))
    assert stored(lake) == {(1, "a"): row()}


TAGS = Table("shop.tags", "Another table.", {"tag": Column("string")}, key=("tag",))


def test_tables_of_one_publish_commit_together_or_not_at_all(lake: Lake) -> None:
    items = table({(1, "a"): row()})
    tag = pa.table({"tag": ["x"]})
    with pytest.raises(DuplicateKeyError):
        lake.publish(Mirror(ITEMS, items), Mirror(TAGS, pa.concat_tables([tag, tag])))
    assert not lake.exists(ITEMS.name)
    before = lake.latest()
    published = lake.publish(Mirror(ITEMS, items), Mirror(TAGS, tag))
    assert published.snapshot == lake.latest() == before + 1
    assert {name: counts.inserted for name, counts in published.counts.items()} == {"shop.items": 1, "shop.tags": 1}
    # One table unchanged, the other not: still one snapshot, which touches only the changed one.
    lake.publish(Mirror(ITEMS, items), Mirror(TAGS, pa.table({"tag": ["y"]})))
    assert lake.latest() == before + 2
    assert lake.changes(ITEMS.name, since=before + 1).count().execute() == 0


def test_rows_decided_on_what_a_table_said_are_refused_once_somebody_else_has_written_it(lake: Lake) -> None:
    lake.publish(Upsert(ITEMS, table({(1, "a"): {"weight": 1.0}})))
    seen = lake.latest()
    lake.publish(Upsert(ITEMS, table({(2, "b"): {"weight": 2.0}})))
    with pytest.raises(LakeMovedError, match=r"shop.items: somebody else wrote it first; nothing was written"):
        lake.publish(Upsert(ITEMS, table({(1, "a"): {"weight": 3.0}}), since=seen))
    assert {key: row["weight"] for key, row in stored(lake).items()} == {(1, "a"): 1.0, (2, "b"): 2.0}
    lake.publish(Upsert(ITEMS, table({(1, "a"): {"weight": 3.0}}), since=lake.latest()))
    assert stored(lake)[1, "a"]["weight"] == 3.0


def test_a_failure_inside_the_transaction_leaves_the_lake_as_it_was(lake: Lake, monkeypatch) -> None:
    from cdp_pipeline.lake import publish as module

    lake.publish(Mirror(ITEMS, table({(1, "a"): row()})))
    apply, calls = module._apply, []

    def failing(lake: Lake, change: Any) -> None:
        apply(lake, change)
        calls.append(change)
        if len(calls) == 2:
            raise OSError("the plug was pulled")

    monkeypatch.setattr(module, "_apply", failing)
    before = lake.latest()
    with pytest.raises(OSError, match="plug"):
        lake.publish(Mirror(ITEMS, table({(2, "b"): row()})), Mirror(TAGS, pa.table({"tag": ["x"]})))
    monkeypatch.undo()
    assert lake.latest() == before
    assert stored(lake) == {(1, "a"): row()}
    lake.publish(Mirror(ITEMS, table({(2, "b"): row()})), Mirror(TAGS, pa.table({"tag": ["x"]})))
    assert stored(lake) == {(2, "b"): row()}
