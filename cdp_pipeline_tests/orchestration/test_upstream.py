"""A plan is looked at by somebody when the tables it is made from are stale, or a check of theirs failed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.utils import make_new_run_id

from cdp_pipeline.orchestration.upstream import wrong_upstream
from cdp_pipeline.spec.audience import Audience
from cdp_pipeline.spec.project import Project
from cdp_pipeline_tests.activation.projects import project, sync

KEYS = {
    name: dg.AssetCheckKey(dg.AssetKey(path), name)
    for name, path in {
        "grain": ["profile", "customers"], "size": ["audiences", "vip"], "other": ["audiences", "other"],
        "volume": ["sources", "orders"],
    }.items()
}  # fmt: skip


def declared() -> Project:
    rules = [{"trait": "orders", "op": ">", "value": 0}]
    audiences = {
        name: Audience.model_validate({"kind": "audience", "name": name, "description": name, "rules": rules})
        for name in ("vip", "other")
    }
    return replace(project(sync(mapping={"id": "person_id"}, key="id")), audiences=audiences)


def told(*failed: str, warns: str = "", later: timedelta = timedelta(0)) -> dict[str, list[str]]:
    severity = {False: dg.AssetCheckSeverity.ERROR, True: dg.AssetCheckSeverity.WARN}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(["audiences", "vip"]))
        for name, key in KEYS.items():
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    key.asset_key, name, name not in (*failed, warns), {}, severity=severity[name == warns]
                )
            )
        return wrong_upstream(declared(), datetime.now(UTC) + later, instance, KEYS.values())


def test_nothing_is_wrong_when_checks_pass_or_only_warn_or_are_of_no_concern() -> None:
    assert told() == {} and told(warns="grain") == {} and told("other") == {} and told("volume") == {}


def test_a_failed_check_of_people_or_of_the_audience_is_named() -> None:
    assert told("grain", "size") == {
        "vips": ["check 'size' of audiences/vip failed", "check 'grain' of profile/customers failed"]
    }


def test_a_check_that_another_run_has_only_begun_counts_as_it_was_before() -> None:
    key = KEYS["grain"]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetCheckEvaluation(key.asset_key, key.name, False, {}))
        planned = AssetCheckEvaluationPlanned(asset_key=key.asset_key, check_name=key.name)
        word = DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value
        instance.report_dagster_event(DagsterEvent(word, "job", event_specific_data=planned), make_new_run_id())
        found = wrong_upstream(declared(), datetime.now(UTC), instance, KEYS.values())
    assert found == {"vips": ["check 'grain' of profile/customers failed"]}


def test_an_audience_that_was_not_computed_in_time_is_named() -> None:
    [reason] = told(later=timedelta(days=40))["vips"]
    assert reason.startswith("audience 'vip' is older than")
