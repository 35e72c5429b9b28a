"""Tables grow with their declaration; nothing stored is narrowed in silence."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from cdp_pipeline.lake import Column, Lake, Mirror, Table, Upsert
from cdp_pipeline.lake.errors import SchemaChangeError


def declared(derived: bool = False, **types: str) -> Table:
    columns = {"person": Column("int64"), **{name: Column(type) for name, type in types.items()}}
    return Table("traits.daily", "Traits.", columns, key=("person",), derived=derived)


def rows(table: Table, *given: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(given), schema=table.schema.to_pyarrow())


def stored(lake: Lake, table: Table) -> list[dict[str, Any]]:
    return lake.read(table).order_by("person").to_pyarrow().to_pylist()


def test_added_columns_and_struct_fields_are_null_in_older_rows(lake: Lake) -> None:
    before = declared(p="struct<x: int64, in: struct<a: string>>")
    lake.publish(Mirror(before, rows(before, {"person": 1, "p": {"x": 1, "in": {"a": "q"}}}, {"person": 2})))
    after = declared(p="struct<x: int64, in: struct<a: string, b: array<int64>>, y: string>", orders="int64")
    assert stored(lake, after) == [
        {"person": 1, "p": {"x": 1, "in": {"a": "q", "b": None}, "y": None}, "orders": None},
        {"person": 2, "p": None, "orders": None},
    ], "a declaration that ran ahead is readable before the next publish"
    new = {"person": 3, "p": {"x": 3, "in": {"a": "'\"\\", "b": [1]}, "y": "y"}, "orders": 7}
    lake.publish(Upsert(after, rows(after, new)))
    assert [row["person"] for row in stored(lake, after)] == [1, 2, 3]
    assert stored(lake, after)[2] == new
    assert stored(lake, after)[0]["p"] == {"x": 1, "in": {"a": "q", "b": None}, "y": None}


def test_a_grown_declaration_with_equal_rows_grows_the_table_and_changes_no_row(lake: Lake) -> None:
    before = declared(orders="int64")
    first = lake.publish(Mirror(before, rows(before, {"person": 1, "orders": 2}))).snapshot
    after = declared(orders="int64", visits="int64")
    same = rows(after, {"person": 1, "orders": 2})
    published = lake.publish(Mirror(after, same))
    assert published.counts["traits.daily"].changed == 0
    assert published.snapshot == first + 1
    assert lake.table("traits.daily").columns == ("person", "orders", "visits")
    assert lake.publish(Mirror(after, same)).snapshot == first + 1


def test_a_column_that_is_declared_no_more_stays_for_older_rows(lake: Lake) -> None:
    before = declared(orders="int64", visits="int64")
    lake.publish(Mirror(before, rows(before, {"person": 1, "orders": 2, "visits": 3})))
    after = declared(orders="int64")
    lake.publish(Upsert(after, rows(after, {"person": 2, "orders": 5})))
    assert lake.table("traits.daily").order_by("person").visits.to_pyarrow().to_pylist() == [3, None]
    assert lake.read(after).columns == ("person", "orders")


def test_integers_and_floats_widen(lake: Lake) -> None:
    before = declared(orders="int16", share="float32")
    lake.publish(Mirror(before, rows(before, {"person": 1, "orders": 2, "share": 0.5})))
    after = declared(orders="int64", share="float64")
    lake.publish(Upsert(after, rows(after, {"person": 2, "orders": 2**40, "share": 0.1})))
    assert stored(lake, after) == [
        {"person": 1, "orders": 2, "share": 0.5},
        {"person": 2, "orders": 2**40, "share": 0.1},
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [("int64", "int16"), ("string", "int64"), ("decimal(18, 4)", "float64"), ("struct<x: int64>", "struct<x: string>")],
)
def test_a_type_that_would_lose_values_is_refused_with_what_to_do(lake: Lake, old: str, new: str) -> None:
    before, after = declared(v=old), declared(v=new)
    lake.publish(Mirror(before, rows(before, {"person": 1})))
    with pytest.raises(SchemaChangeError, match=r"traits.daily.v\S*: stored as .* but now declared .* new column name"):
        lake.publish(Mirror(after, rows(after, {"person": 1})))
    with pytest.raises(SchemaChangeError):
        lake.read(after)


def test_a_derived_column_of_another_type_starts_anew_as_null(lake: Lake) -> None:
    before = declared(orders="int64", last="string", p="struct<x: int64, y: string>")
    old = {"orders": 2, "last": "not a number", "p": {"x": 1, "y": "kept"}}
    first = lake.publish(Mirror(before, rows(before, {"person": 1, **old}, {"person": 2, **old}))).snapshot
    after = declared(derived=True, orders="int64", last="int64", p="struct<x: string, y: string>")
    assert stored(lake, after)[0]["last"] is None, "readable before the next publish"
    new = {"person": 1, "orders": 2, "last": 9, "p": {"x": "1", "y": "kept"}}
    lake.publish(Upsert(after, rows(after, new)))
    assert stored(lake, after) == [
        new,
        {"person": 2, "orders": 2, "last": None, "p": {"x": None, "y": "kept"}},
    ]
    changes = lake.changes("traits.daily", since=first).to_pyarrow().to_pylist()
    assert {(row["person"], row["_change"]) for row in changes} >= {(1, "insert"), (1, "delete")}
    old_view = lake.as_of(first).read(before).order_by("person").to_pyarrow().to_pylist()
    assert old_view[0] == {"person": 1, **old}


def test_the_key_of_a_derived_table_keeps_its_type(lake: Lake) -> None:
    before = declared()
    lake.publish(Mirror(before, rows(before, {"person": 1})))
    after = Table("traits.daily", "", {"person": Column("string")}, key=("person",), derived=True)
    with pytest.raises(SchemaChangeError, match=r"traits.daily.person"):
        lake.publish(Mirror(after, rows(after, {"person": "1"})))
