"""Audiences as Dagster sees them: how old they may become, what they look into, and checks that stop nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan

from cdp_pipeline.orchestration.audiences import asked_of, audience_assets, freshness_of, group_of
from cdp_pipeline.spec.audience import AudienceTests
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline_tests.audiences.company import audience, company_project, rule

SIMPLE = rule(trait="orders", op=">", value=0)


def cadenced(*documents: object, **cadences: str):
    whole = company_project(*documents)
    return replace(whole, settings=whole.settings.model_copy(update={"cadences": cadences}))


@pytest.mark.parametrize(
    ("cron", "given", "expected"),
    [
        ("5 * * * *", None, timedelta(hours=2)),
        ("30 4 * * *", None, timedelta(days=2)),
        ("0 6 * * 1-5", None, timedelta(days=6)),
        ("30 4 * * *", timedelta(hours=30), timedelta(hours=30)),
    ],
)
def test_an_audience_may_miss_one_tick_of_its_cadence_unless_it_says_otherwise(cron, given, expected) -> None:
    one = audience("a", SIMPLE, freshness=given)
    assert freshness_of(cadenced(one, daily=cron), one) == expected


def test_every_audience_has_a_freshness_policy_and_checks_none_of_which_stops_the_run() -> None:
    tests = AudienceTests(min_size=1, disjoint_from=["b"], share_with={"email": 0.5})
    whole = cadenced(audience("a", SIMPLE, tests=tests), audience("b", rule(audience="a")), daily="0 5 * * *")
    assets = audience_assets(whole, "daily")
    assert {key.to_user_string() for key in assets.keys} == {"audiences/a", "audiences/b"}
    for spec in assets.specs:
        assert spec.freshness_policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(days=2))
    checks = {(check.asset_key.path[-1], check.name): check for check in assets.check_specs}
    assert set(checks) == {
        *(("a", name) for name in ("size_as_expected", "disjoint_from_b", "share_with_email")),
        *((name, each) for name in ("a", "b") for each in ("usual_size", "sound_ground")),
    }
    assert not any(check.blocking for check in checks.values())
    assert all(check.description for check in checks.values())


def test_an_audience_depends_on_every_table_its_conditions_look_into_also_by_way_of_others() -> None:
    whole = company_project(
        audience("near", rule(attribute="town", op="=", value="Ely"), rule(reachable="email")),
        audience("far", rule(audience="near"), rule(band="recency", **{"is": "alarm"}), rule(event="visit")),
        audience("bound", rule(account={"group": "firm", "rules": [{"prediction": "churn", "op": ">", "value": 0.5}]})),
    )

    def tables(name: str) -> set[str]:
        return {".".join(key) for key in asked_of(whole, whole.audiences[name].rules)}

    near = {"traits.daily", "profile.customers", "identity.identifiers"}
    assert tables("near") == near
    assert tables("far") == near | {"traits.bands", "profile.timeline"}
    assert tables("bound") == {"traits.daily", "identity.group_members", "predictions.churn"}


def test_an_audience_has_an_edge_from_each_that_its_conditions_name_and_none_from_those_its_tests_do() -> None:
    whole = cadenced(
        audience("near", SIMPLE, tests=AudienceTests(disjoint_from=["far"])),
        audience("far", rule(any=[rule(audience="near"), SIMPLE]), tests=AudienceTests(disjoint_from=["near"])),
        daily="0 5 * * *",
    )
    specs = {spec.key.path[-1]: spec for spec in audience_assets(whole, "daily").specs}
    audiences = {name: {dep.asset_key.path[-1] for dep in spec.deps if dep.asset_key.path[0] == "audiences"}
                 for name, spec in specs.items()}  # fmt: skip
    assert audiences == {"near": set(), "far": {"near"}}


def test_audiences_of_two_cadences_may_build_on_each_other_in_turns() -> None:
    whole = cadenced(
        audience("bottom", SIMPLE, cadence="hourly"),
        audience("middle", rule(audience="bottom"), cadence="daily"),
        audience("top", rule(audience="middle"), cadence="hourly"),
        hourly="0 * * * *", daily="0 5 * * *",
    )  # fmt: skip
    resources = {name: dg.ResourceDefinition.none_resource() for name in ("lake", "clock")}
    defs = dg.Definitions([audience_assets(whole, each) for each in ("daily", "hourly")], resources=resources)
    plan = create_execution_plan(defs.resolve_implicit_global_asset_job_def())
    assert [step.removeprefix("audiences_") for step in plan.step_keys_to_execute] == ["hourly", "daily", "hourly_2"]


def placed(places: dict[str, str], *documents: Any) -> Any:
    return replace(
        cadenced(*documents, daily="0 5 * * *"), places={("audience", name): at for name, at in places.items()}
    )


@pytest.mark.parametrize(
    ("place", "group"),
    [
        ("audiences.yaml:3", "audiences"),
        ("audiences/churn.yaml:12", "audiences"),
        ("audiences/retention/churn.yaml:12", "audiences_retention"),
        ("uk & eire/audiences/spring sale/a.yaml:1", "audiences_uk_eire_spring_sale"),
        ("shipped/audiences.yaml:20", "audiences"),
    ],
)
def test_the_folder_of_an_audience_is_its_box_in_the_lineage(place, group) -> None:
    one = audience("a", SIMPLE)
    assert group_of(placed({"a": place}, one), one) == group


def test_an_audience_is_found_by_what_it_asks_and_what_acts_on_it_and_says_its_conditions_in_words() -> None:
    whole = placed(
        {"a": "shipped/audiences.yaml:20"},
        audience("a", rule(none=[rule(prediction="churn", op=">", value=0.5)]), rule(audience="b")),
        audience("b", SIMPLE),
    )
    sync = Sync(kind="sync", name="s", description="S.", audience="b", destination="d", mode="mirror", key="person_id",
                mapping={"person_id": "person_id"})  # fmt: skip
    specs = {spec.key.path[-1]: spec for spec in audience_assets(replace(whole, syncs={"s": sync}), "daily").specs}
    tags = {name: {tag for tag in spec.tags if not tag.startswith("dagster/")} for name, spec in specs.items()}
    assert tags == {
        "a": {"cadence", "asks/prediction", "asks/audience", "shipped"},
        "b": {"cadence", "asks/trait", "acts/sync"},
    }
    assert "- none of these holds (score of churn > 0.5)\n- is in the audience b" in specs["a"].description
