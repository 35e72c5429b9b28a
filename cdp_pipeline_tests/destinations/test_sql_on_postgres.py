"""The conformance kit once more, for a table on a real Postgres with rights of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from cdp_pipeline_tests.destinations.fakes.sql import LACKS, create, labels, sql
from cdp_pipeline_tests.destinations.kit import Bench
from cdp_pipeline_tests.destinations.test_conformance import *  # noqa: F403
from cdp_pipeline_tests.waiting import free_port


@pytest.fixture
def bench(postgres_url: str) -> Iterator[Bench]:
    engine = sa.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    create(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN others THEN NULL; END $$")
        connection.exec_driver_sql("GRANT SELECT ON vips TO reader")
    host = postgres_url.rpartition("/")[0]
    yield Bench(
        sql(postgres_url, table="public.vips"),
        arrived=lambda: labels(engine),
        absent=sql(f"postgresql://postgres@127.0.0.1:{free_port()}/crm"),
        locked=sql(postgres_url.replace("postgres@", "reader@")),
        held=lambda: set(labels(engine)),
        lacks={name: why for name, why in LACKS.items() if name != "locked"},
        personal=(host,),
    )
    engine.dispose()
