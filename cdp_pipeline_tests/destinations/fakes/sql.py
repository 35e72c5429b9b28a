"""A real SQLite database whose table refuses by a constraint; test_sql_on_postgres.py is the same on Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cdp_pipeline.spec.destination import Sql
from cdp_pipeline_tests.destinations.kit import Bench

LACKS = {
    "wait": "a database asks nobody to come back later",
    "silent": "a database cannot lose its answer on demand; an upsert may be repeated",
    "locked": "SQLite knows no secrets",
}


def sql(url: str, **fields: Any) -> Sql:
    given = {"name": "crm", "dry_run": False, "rate": 100_000, "table": "vips", "key": "label", **fields}
    return Sql(kind="destination", type="sql", description="The CRM's table.", url=url, **given)


def create(engine: sa.Engine) -> None:
    sa.Table(
        "vips", sa.MetaData(),
        sa.Column("seq", sa.Integer, primary_key=True), sa.Column("label", sa.Text, unique=True),
        sa.Column("email", sa.Text, sa.CheckConstraint("email NOT LIKE 'refuse%'")),
        sa.Column("number", sa.Numeric(12, 2)), sa.Column("given_name", sa.Text), sa.Column("city", sa.Text),
    ).create(engine)  # fmt: skip


def labels(engine: sa.Engine) -> list[str]:
    with engine.begin() as connection:
        return [row[0] for row in connection.exec_driver_sql("SELECT label FROM vips ORDER BY seq")]


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    url = f"sqlite:///{folder / 'crm.sqlite'}"
    engine = sa.create_engine(url)
    create(engine)
    yield Bench(
        sql(url),
        arrived=lambda: labels(engine),
        absent=sql(f"sqlite:///{folder / 'not mounted' / 'crm.sqlite'}"),
        held=lambda: set(labels(engine)),
        lacks=LACKS,
    )
    engine.dispose()
