"""The types that the checks reason with are the types that the rooms compute and publish."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import ibis
import pytest

from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.profile.customers import customers, provenance
from cdp_pipeline.profile.timeline import event_scope, timeline, timeline_table
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.spec import types
from cdp_pipeline.spec.load import DEMO, load_project
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline_tests.identity.shop import NOW

SOUND = Path(__file__).parent / "golden" / "sound"
RETAIL = Path(__file__).parents[1] / "real" / "online_retail"


@pytest.mark.parametrize("folder", [DEMO, SOUND, RETAIL], ids=["demo", "sound", "online_retail"])
def test_events_traits_and_attributes_have_the_type_they_are_computed_with(folder):
    project = load_project(folder, {"HOOK_SECRET": "x"})
    rows = {name: ibis.memtable([], schema=source_table(source).schema) for name, source in project.sources.items()}
    identifiers, people = (ibis.memtable([], schema=table.schema) for table in (IDENTIFIERS, PEOPLE))

    events = timeline(rows, identifiers, project)
    assert events.schema() == timeline_table(project).schema
    columns = types.event_columns(project.sources.values())
    assert {name: value.type() for name, value in event_scope(events).items()} == _parsed(columns)

    traits = as_of(events, people.select("person_id"), [date(2026, 1, 1)], project).drop("person_id", "day")
    assert dict(traits.schema()) == _parsed(types.trait_types(project.traits, columns))

    profiles = customers(provenance(rows, identifiers, project, NOW), people, project).drop("person_id")
    declared = {name: types.attribute_type(one, project.sources) for name, one in project.attributes.items()}
    assert dict(profiles.schema()) == _parsed(declared)


def _parsed(columns):
    return {name: ibis.dtype(type_) for name, type_ in columns.items()}
