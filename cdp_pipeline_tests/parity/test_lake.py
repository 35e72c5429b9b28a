"""A lake whose engine is Spark Connect reads and publishes what one computed by DuckDB does."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import ibis
import pyarrow as pa
import pytest

from cdp_pipeline.lake import Column, Lake, Mirror, Table, Upsert, open_lake
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.parity.conftest import EngineUnderTest, normalised

ORDERS = Table(
    "shop.orders",
    "Orders.",
    {
        "order_id": Column("string"),
        "day": Column("date"),
        "at": Column("timestamp(6)"),
        "amount": Column("decimal(18, 4)"),
        "properties": Column("struct<record_id: string, size: int64>"),
    },
    key=("order_id",),
    month_of="day",
)
TOTALS = Table(
    "shop.totals",
    "Money and orders per day.",
    {
        "day": Column("date"),
        "orders": Column("int64"),
        "amount": Column("decimal(18, 4)"),
        "mean": Column("float64"),
        "last": Column("struct<record_id: string, size: int64>"),
    },
    key=("day",),
)


def orders(first: int, last: int, extra: int = 0, schema: ibis.Schema = ORDERS.schema) -> pa.Table:
    rows = [
        {
            "order_id": f"o{i}",
            "day": date(2026, 1 + i % 2, 1 + i % 9) if i % 7 else None,
            "at": datetime(2026, 1, 1, 23, 59, 59, 123456) + timedelta(days=i),
            "amount": Decimal(i * 100 + extra) / 100 if i % 5 else None,
            "properties": {"record_id": f"r{i}'\"\\", "size": i, "note": "n"} if i % 3 else None,
        }
        for i in range(first, last)
    ]
    return pa.Table.from_pylist(rows, schema=schema.to_pyarrow())


def totals(orders: ibis.Table) -> ibis.Table:
    return orders.group_by("day").agg(
        orders=orders.count(),
        amount=orders.amount.sum(),
        mean=orders.amount.cast("float64").mean(),
        last=orders.properties.argmax(orders.at),
    )


def walked(lake: Lake) -> list[list[dict]]:
    """A table's life: loaded, changed, grown by a struct field, read at each step, a second table computed from it."""
    seen = []

    def see(expression: ibis.Table) -> None:
        seen.append(normalised(lake.engine.materialize(expression).to_pyarrow().to_pylist()))

    see(lake.read(ORDERS))
    lake.publish(Mirror(ORDERS, orders(0, 300)))
    see(lake.read(ORDERS))
    first = lake.latest()
    lake.publish(Upsert(ORDERS, orders(250, 350, extra=5)))
    see(lake.table(ORDERS.name))
    columns = {**ORDERS.columns, "properties": Column("struct<record_id: string, size: int64, note: string>")}
    grown = Table(ORDERS.name, "", columns, ORDERS.key, ORDERS.month_of)
    lake.publish(Upsert(grown, orders(340, 360, schema=grown.schema)))
    see(lake.read(grown))
    see(lake.read(ORDERS))
    see(lake.as_of(first).read(ORDERS))
    see(lake.changes(ORDERS.name, since=first))
    lake.publish(Mirror(TOTALS, totals(lake.read(ORDERS))))
    see(lake.read(TOTALS))
    assert lake.publish(Mirror(TOTALS, totals(lake.read(ORDERS)))).counts[TOTALS.name].changed == 0
    lake.maintain(datetime.now(UTC), keep=timedelta(days=1))
    see(lake.read(ORDERS))
    see(lake.as_of(first).read(ORDERS))
    return seen


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict]]:
    with open_lake(LakeLocation(path=str(tmp_path_factory.mktemp("expected")))) as lake:
        return walked(lake)


def test_a_lake_on_any_engine_reads_and_publishes_the_same(
    engine: EngineUnderTest, expected: list[list[dict]], tmp_path: Path
) -> None:
    with open_lake(LakeLocation(path=str(tmp_path / "lake")), engine=engine.url) as lake:
        for step, (found, wanted) in enumerate(zip(walked(lake), expected, strict=True)):
            assert found == wanted, f"step {step}"
    assert not list(tmp_path.glob("lake/tmp/*")), "files shared with the cluster are left behind"
