"""Every engine behind one fixture, so that a domain function is held to equal results on all of them.

How to write a parity test: put `cdp_pipeline_tests/parity/test_<area>.py` and take the fixture `engine`:

    def test_traits_are_equal_on_every_engine(engine):
        timeline = engine.table(pa.table({...}))          # an ibis.Table where this engine computes
        found = engine.rows(daily(timeline, traits, day))  # a list of dicts, sorted and normalised
        assert found == EXPECTED                           # or == the rows of an oracle in plain Python

`engine.rows` sorts rows by all their values and evens out what engines may differ in without harm: floats to nine
digits, decimals without trailing zeros, NaN as None. Each test runs once per engine: `duckdb`; `sail` (the Spark
Connect server of pysail, in this process); `spark` (Apache Spark, local[2]; skipped where Java or pyspark is
absent). `-k "not spark"` leaves the slow one out. Expect a second per query on Spark: few, wide tests.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa
import pytest

from cdp_pipeline.lake.engines import DuckDBEngine, SparkEngine
from cdp_pipeline_tests.waiting import eventually, free_port


@dataclass(frozen=True)
class EngineUnderTest:
    """One engine: rows in, rows out."""

    name: str
    url: str
    port: DuckDBEngine | SparkEngine

    def table(self, rows: pa.Table) -> ibis.Table:
        return self.port.table(rows)

    def rows(self, expression: ibis.Table) -> list[dict[str, Any]]:
        return normalised(self.port.materialize(expression).to_pyarrow().to_pylist())


def normalised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows sorted, and evened out where engines may differ."""
    return sorted((_even(row) for row in rows), key=repr)


def _even(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _even(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_even(inner) for inner in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.9g}")
    if isinstance(value, Decimal):
        return value.normalize() + 0
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.replace(tzinfo=None)
    return value


@pytest.fixture(scope="session")
def sail_url() -> Iterator[str]:
    """A Sail server of this session."""
    pytest.importorskip("pyspark", reason="no pyspark: pip install 'cdp-pipeline[spark]'")
    server_module = pytest.importorskip("pysail.spark", reason="no pysail: pip install 'cdp-pipeline[spark]'")
    server = server_module.SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    host, port = server.listening_address
    yield f"sc://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def spark_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Apache Spark's own Spark Connect server, local[2]."""
    pytest.importorskip("pyspark", reason="no pyspark: pip install 'cdp-pipeline[spark]'")
    if shutil.which("java") is None:
        pytest.skip("no Java for Apache Spark")
    import pyspark

    folder = tmp_path_factory.mktemp("spark")
    port = free_port()
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": port,
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": 4,
        "spark.sql.warehouse.dir": folder / "warehouse",
        # A handful of rows: to compile each query would take longer than to answer it.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }
    command = [Path(pyspark.__file__).parent / "bin" / "spark-submit", "--master", "local[2]"]
    command += [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    log = folder / "log"
    with log.open("w") as out:
        server = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
        )
    try:

        def answers() -> bool:
            if server.poll() is not None:
                pytest.skip(f"Apache Spark does not start here: {log.read_text()[-300:]}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        eventually(answers, every=0.2)
        yield f"sc://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:  # Java is not always done tidying up; nothing of it is looked at
            server.kill()
            server.wait(30)


@pytest.fixture(
    scope="session",
    params=[
        "duckdb",
        pytest.param("sail", marks=pytest.mark.engine),
        pytest.param("spark", marks=[pytest.mark.engine, pytest.mark.slow]),
    ],
)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineUnderTest]:
    """Each engine in turn; see this file's head for how to use it."""
    local = DuckDBEngine(duckdb.connect())
    if request.param == "duckdb":
        yield EngineUnderTest("duckdb", "duckdb", local)
        return
    url = request.getfixturevalue(f"{request.param}_url")
    with SparkEngine(url, local, str(tmp_path_factory.mktemp("shared"))) as port:
        yield EngineUnderTest(request.param, url, port)
