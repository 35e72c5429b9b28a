"""The types that the checks reason with are the types that the rooms publish."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdp_pipeline.profile import customers, timeline
from cdp_pipeline.spec import types
from cdp_pipeline.spec.load import DEMO, load_project
from cdp_pipeline.traits import daily

SOUND = Path(__file__).parent / "golden" / "sound"
RETAIL = Path(__file__).parents[1] / "real" / "online_retail"


@pytest.mark.parametrize("folder", [DEMO, SOUND, RETAIL], ids=["demo", "sound", "online_retail"])
def test_events_traits_and_attributes_have_the_type_they_are_published_with(folder):
    project = load_project(folder, {"HOOK_SECRET": "x"})
    events = types.event_columns(project.sources.values())
    assert events == timeline.event_columns(project)
    assert types.trait_types(project.traits, events) == daily.trait_types(project)
    for attribute in project.attributes.values():
        assert types.attribute_type(attribute, project.sources) == customers.attribute_type(attribute, project)
