"""`cdp doctor`: is this installation healthy? Versions, project, lake, ledger, Dagster's home, disk."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from cdp_pipeline.lake.errors import LakeError, LakeMissingError
from cdp_pipeline.orchestration.installation import lake_of, ledger_of, local_folder, prepare_dagster_home
from cdp_pipeline.orchestration.status import Finding
from cdp_pipeline.spec.base import counted
from cdp_pipeline.spec.load import ProjectError, load_project

ONE_VERSION = (
    "duckdb",
    "duckdb-extension-ducklake",
    "duckdb-extension-sqlite-scanner",
    "duckdb-extension-postgres-scanner",
)
LEAST_FREE = 2 * 1024**3


def examine(folder: Path) -> Iterator[Finding]:
    """Each thing an installation needs, whether it is there, and what to do where it is not."""
    python = ".".join(map(str, sys.version_info[:3]))
    new = sys.version_info >= (3, 11)
    yield Finding("versions", "python", "ok" if new else "fail", python, "" if new else "install Python 3.11 or newer")
    versions = {name: _version(name) for name in ONE_VERSION}
    same = len(set(versions.values())) == 1
    yield Finding(
        "versions", "duckdb", "ok" if same else "fail",
        ", ".join(f"{name} {found}" for name, found in versions.items()) if not same else str(versions["duckdb"]),
        "" if same else "install the extension packages in DuckDB's own version",
    )  # fmt: skip
    dagster, webserver = _version("dagster"), _version("dagster-webserver")
    yield Finding("versions", "dagster", "ok" if dagster == webserver else "fail", f"{dagster}, webserver {webserver}")
    try:
        project = load_project(folder)
    except ProjectError as error:
        yield Finding("project", folder.name, "fail", counted(len(error.problems), "problem"), "cdp check")
        return
    yield Finding(
        "project",
        project.settings.name,
        "ok",
        f"{counted(len(project.sources), 'source')}, {counted(len(project.traits), 'trait')}",
    )
    try:
        with lake_of(project, read_only=True) as lake:
            yield Finding("lake", "catalog", "ok", f"snapshot {lake.snapshot}")
    except LakeMissingError as error:
        yield Finding("lake", "catalog", "warn", str(error), "cdp run")
    except LakeError as error:
        yield Finding("lake", "catalog", "fail", str(error))
    try:
        with ledger_of(project) as ledger:
            yield Finding("ledger", "ledger", "ok", counted(sum(ledger.counts().values()), "operation"))
    except SQLAlchemyError as error:
        yield Finding("ledger", "ledger", "fail", type(error).__name__, "is the ledger's database up?")
    home = prepare_dagster_home(project)
    with dg.DagsterInstance.get() as instance:
        yield Finding("dagster", "home", "ok", f"{counted(instance.get_runs_count(), 'run')} in {home}")
    place = local_folder(project)
    free = shutil.disk_usage(place if place.exists() else Path.cwd()).free
    enough = free >= LEAST_FREE
    yield Finding(
        "disk", "free", "ok" if enough else "warn", f"{free / 1024**3:.1f} GiB", "" if enough else "make room"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
