"""The packaged demo project is sound, speaks of what the demo company exports, and sends nothing by default."""

from __future__ import annotations

import sqlite3
from datetime import date
from pathlib import Path

import pytest

import cdp_pipeline
from cdp_pipeline.sources.demo import generate
from cdp_pipeline.sources.demo.feeds import FEEDS
from cdp_pipeline.sources.demo.people import TYPES
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.sources_demo.exports import Company

DEMO = Path(cdp_pipeline.__file__).parent / "demo"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return Company(generate(tmp_path_factory.mktemp("data"), 600, 40, seed=2, last_day=date(2026, 1, 15)))


@pytest.fixture(scope="module")
def project(data: Company) -> Project:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CDP_DATA", str(data.folder))
        return load_project(DEMO)


def test_the_demo_is_yaml_only_and_loads_without_a_problem(project: Project) -> None:
    assert {path.suffix for path in DEMO.rglob("*") if path.is_file()} == {".yaml"}
    assert len(project.traits) >= 120 and len(project.audiences) >= 15 and len(project.triggers) >= 2


def test_every_source_finds_its_files_and_every_export_is_declared(project: Project, data: Company) -> None:
    assert set(project.sources) == {*FEEDS, "products", "receipts"}
    for name, source in project.sources.items():
        if source.files is not None:
            pattern = Path(source.files.path).relative_to(data.folder).as_posix()
            # A sparse source reads its daily files by any name, so that it has no days of its own in Dagster.
            assert pattern.replace("{day}", "*") == FEEDS[name].path.replace("{day}", "*")
            assert list(data.folder.glob(pattern.replace("{day}", "*")))
        else:
            assert source.sql is not None
            file = "ledger.sqlite" if name == "receipts" else "shop.sqlite"
            assert Path(source.sql.url).name == file


def test_declared_columns_are_those_that_are_exported(project: Project, data: Company) -> None:
    for name, feed in FEEDS.items():
        assert set(project.sources[name].columns) == set(feed.columns), name
    with sqlite3.connect(data.folder / "shop.sqlite") as database:
        columns = {row[1] for row in database.execute("PRAGMA table_info(products)")}
    assert set(project.sources["products"].columns) == columns


def test_identifier_types_are_those_of_the_truth(project: Project) -> None:
    assert set(project.identifiers) == set(TYPES.values())


def test_every_event_a_trait_speaks_of_happens_in_the_data(project: Project, data: Company) -> None:
    happened = {
        value
        for source, column in (("web_events", "event"), ("tickets", "event"), ("iot_events", "event"),
                               ("messages", "event"), ("consents", "event"), ("surveys", "survey"))
        for value in {row.cells[column] for row in data.of(source)}
    }  # fmt: skip
    for name, source in project.sources.items():
        if FEEDS.get(name) and data.of(name):
            happened |= {mapping.event for mapping in source.events if mapping.event}
    wanted = {event for trait in project.traits.values() for event in trait.event}
    assert wanted - happened <= {"message_complained", "message_unsubscribed"}  # too rare for a company of this size


def test_nothing_is_sent_unless_somebody_says_so(project: Project) -> None:
    assert all(destination.dry_run for destination in project.destinations.values())
    assert project.settings.alerts == ["ops_webhook"]


def test_marketers_are_told_what_everything_is(project: Project) -> None:
    kinds = (project.sources, project.identifiers, project.attributes, project.traits, project.predictions,
             project.audiences, project.triggers, project.destinations, project.syncs)  # fmt: skip
    for kind in kinds:
        for name, document in kind.items():
            assert len(document.description) > 10 and document.description.rstrip().endswith((".", "?")), name
            assert document.owner, name
    for name, source in project.sources.items():
        assert all(column.description for column in source.columns.values()), name
