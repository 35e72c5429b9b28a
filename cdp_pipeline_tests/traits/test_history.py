"""Values that were once published stay addressable by the version of the definition that made them."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_pipeline.lake import Lake, Mirror
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.versions import trait_versions
from cdp_pipeline.traits.daily import daily_table
from cdp_pipeline.traits.history import DEFINITIONS, FORMER, RESTATED, values_under
from cdp_pipeline.traits.runs import RUNS, recorded_versions
from cdp_pipeline_tests.traits.shop import DAYS, project, trait
from cdp_pipeline_tests.traits.test_increment import EVERYBODY, Chain, history

SPENT = [
    trait("spent", "sum", value="amount", window="last 2 days"),
    trait("spent", "sum", value="amount", window="last 4 days"),
    trait("times", "count", window="last 2 days"),
]
TWICE = trait("twice", "expression", expression="spent * 2")


def texts(lake: Lake, whole: Project, name: str, day: date) -> dict[str, str | None]:
    """What traits.daily says of a trait on a day, as text."""
    rows = lake.read(daily_table(whole))
    rows = rows.filter(rows.day == day).select("person_id", value=rows[name].cast("string"))
    return {row["person_id"]: row["value"] for row in rows.to_pyarrow().to_pylist()}


def under(lake: Lake, name: str, version: str) -> dict[date, dict[str, str | None]]:
    found: dict[date, dict[str, str | None]] = {}
    for row in values_under(lake, recorded_versions(lake), name, version).to_pyarrow().to_pylist():
        found.setdefault(row["day"], {})[row["person_id"]] = row["value"]
    return found


@pytest.fixture
def chain(lake: Lake) -> Chain:
    chain = Chain(lake, project(SPENT[0], TWICE))
    chain.told(history(), EVERYBODY[:10])
    return chain


def test_a_definition_that_changes_restates_days_and_the_old_values_stay(chain: Chain) -> None:
    lake, first = chain.lake, chain.project
    chain.run(*DAYS[4:7])
    was = {day: texts(lake, first, "spent", day) for day in DAYS[4:7]}
    chain.project = second = project(SPENT[1], TWICE)
    chain.run(*DAYS[5:8])
    old, new = (trait_versions(one)["spent"] for one in (first, second))
    assert under(lake, "spent", old) == was
    assert under(lake, "spent", new) == {day: texts(lake, second, "spent", day) for day in DAYS[5:8]}
    twice = [trait_versions(one)["twice"] for one in (first, second)]
    assert twice[0] != twice[1], "what is made of another definition has another version"
    told = lake.read(RESTATED).to_pyarrow().to_pylist()
    assert {(row["trait"], row["day"], row["version"], row["replaced_by"]) for row in told} == {
        (name, day, *pair) for name, pair in (("spent", (old, new)), ("twice", tuple(twice))) for day in DAYS[5:7]
    }
    now = {day: texts(lake, second, "spent", day) for day in DAYS[5:7]}
    unlike = {(day, person) for day in now for person in now[day] if now[day][person] != was[day][person]}
    former = [row for row in lake.read(FORMER).to_pyarrow().to_pylist() if row["trait"] == "spent"]
    assert {(row["day"], row["person_id"]) for row in former} == unlike, "equal values are not kept twice"
    assert {row["day"]: row["people"] for row in told if row["trait"] == "spent"} == {
        day: sum(one == day for one, _ in unlike) for day in DAYS[5:7]
    }
    definitions = [row for row in lake.read(DEFINITIONS).to_pyarrow().to_pylist() if row["trait"] == "spent"]
    assert {row["version"] for row in definitions} == {old, new}
    assert any('"last 4 days"' in row["definition"] for row in definitions)


STEPS = st.lists(st.tuples(st.integers(0, 2), st.sets(st.sampled_from(DAYS[4:7]), min_size=1)), min_size=2, max_size=4)


@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_whatever_is_restated_in_whatever_order_every_version_says_what_it_said(chain: Chain, runs: Any) -> None:
    for table in (daily_table(chain.project), RUNS, DEFINITIONS, RESTATED, FORMER):
        if chain.lake.exists(table.name):
            chain.lake.publish(Mirror(table, chain.lake.read(table).limit(0)))
    said: dict[str, dict[date, dict[str, str | None]]] = {}
    for number, days in runs:
        chain.project = project(SPENT[number])
        [name] = chain.project.traits
        chain.run(*sorted(days))
        version = trait_versions(chain.project)[name]
        for day in days:
            said.setdefault(f"{name} {version}", {})[day] = texts(chain.lake, chain.project, name, day)
    for asked, expected in said.items():
        assert under(chain.lake, *asked.split()) == expected


def test_days_computed_again_under_the_same_definition_leave_no_trace(chain: Chain) -> None:
    chain.run(*DAYS[4:6])
    chain.told(history()[1:], EVERYBODY[:10])
    chain.run(*DAYS[4:6])
    assert chain.lake.read(RESTATED).count().to_pyarrow().as_py() == 0
    assert chain.lake.read(FORMER).count().to_pyarrow().as_py() == 0
