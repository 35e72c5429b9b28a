"""Audiences as Dagster sees them: how old they may become, what they look into, and checks that stop nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest

from cdp_pipeline.orchestration.audiences import asked_of, audience_assets, freshness_of
from cdp_pipeline.spec.audience import AudienceTests
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
