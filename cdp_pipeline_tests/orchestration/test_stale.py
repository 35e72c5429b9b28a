"""Nobody computes an audience in time: people are told, once, whatever else runs or does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from cdp_pipeline.orchestration.build import build_defs
from cdp_pipeline.orchestration.sensors import stale_audiences_sensor
from cdp_pipeline.orchestration.stale import stale_audiences
from cdp_pipeline.spec.project import LakeLocation, Project
from cdp_pipeline_tests.activation.projects import webhook
from cdp_pipeline_tests.audiences.company import audience, company_project, rule
from cdp_pipeline_tests.destinations.servers import Receiver

SIMPLE = rule(trait="orders", op=">", value=0)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def shop(*names: str, **settings: object) -> Project:
    """Daily audiences, which may be two days old, and one that may be ten."""
    whole = company_project(
        *(audience(name, SIMPLE) for name in names), audience("slow", SIMPLE, freshness=timedelta(10))
    )
    settings = {"cadences": {"daily": "0 5 * * *"}, **settings}
    return replace(whole, settings=whole.settings.model_copy(update=settings))


def compute(instance: dg.DagsterInstance, *names: str) -> None:
    """A run that makes these audiences."""

    @dg.multi_asset(specs=[dg.AssetSpec(["audiences", name]) for name in names])
    def made() -> Iterator[dg.MaterializeResult]:
        for name in names:
            yield dg.MaterializeResult(asset_key=["audiences", name])

    dg.materialize([made], instance=instance)


def later(**span: int) -> datetime:
    return datetime.now(UTC) + timedelta(**span)


def test_audiences_are_stale_together_when_the_run_that_made_them_is_too_long_ago(instance) -> None:
    whole = shop("a", "b", "c", "never")
    compute(instance, "a", "b", "slow")
    compute(instance, "c")

    def found(**span: int) -> set[tuple[str, ...]]:
        return {one.names for one in stale_audiences(whole, instance, later(**span))}

    assert found(hours=47) == set()
    assert found(hours=49) == {("a", "b"), ("c",)}
    assert found(days=11) == {("a", "b"), ("c",), ("slow",)}
    compute(instance, "a")
    assert found(hours=49) == {("a",), ("b",), ("c",)}, "made by another run than b now"


def test_people_are_told_once_of_many_stale_audiences_and_again_when_they_are_stale_again(
    instance, tmp_path: Path
) -> None:
    names = [f"audience_{number:02}" for number in range(25)]
    with Receiver() as receiver:
        whole = shop(*names, lake=LakeLocation(path=str(tmp_path)), alerts=["hook"])
        whole = replace(whole, destinations={"hook": webhook(receiver.url)})

        def ticks(**span: int) -> list[str]:
            """What two ticks in a row told the hook."""
            before = len(receiver.requests)
            sensor = stale_audiences_sensor(whole, lambda: later(**span))
            for _ in range(2):
                sensor(dg.build_sensor_context(instance=instance))
            return [request.json["data"]["title"] for request in receiver.requests[before:]]

        compute(instance, *names)
        assert ticks(hours=1) == []
        assert ticks(hours=49) == ["25 audiences are older than 2 days"]
        text = receiver.requests[0].json["data"]["text"]
        assert "audience_00, audience_01" in text and "audience_19 and 5 more" in text and "cdp status" in text
        compute(instance, *names[:1])
        compute(instance, *names[1:])
        assert sorted(ticks(hours=49)) == [
            "24 audiences are older than 2 days",
            "audience 'audience_00' is older than 2 days",
        ]


def test_every_project_has_the_sensor_and_it_runs_unless_somebody_stops_it() -> None:
    sensors = {sensor.name: sensor for sensor in build_defs(shop("a")).sensors or ()}
    assert sensors["stale_audiences"].default_status == dg.DefaultSensorStatus.RUNNING
