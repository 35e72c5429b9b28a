"""An audience kept in each CRM, ad platform and marketing tool, while a quarter of all calls goes wrong.

Half of those are refused before they have an effect, half take effect with the answer lost; jobs end later. In the end
the other side holds exactly the audience, whoever left and came back in between.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.plan import plan
from cdp_pipeline.activation.sync import approve, holds, submit
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.sync import Sync
from cdp_pipeline_tests.activation.projects import NOW, project, sync
from cdp_pipeline_tests.destinations.fakes.braze import FakeBraze, braze
from cdp_pipeline_tests.destinations.fakes.google_customer_match import FakeGoogle, google
from cdp_pipeline_tests.destinations.fakes.hubspot import FakeHubspot, hubspot
from cdp_pipeline_tests.destinations.fakes.klaviyo import FakeKlaviyo, klaviyo
from cdp_pipeline_tests.destinations.fakes.meta_audience import FakeMeta, meta
from cdp_pipeline_tests.destinations.fakes.people import Fake, member, sent, states
from cdp_pipeline_tests.destinations.fakes.salesforce import FakeSalesforce, salesforce
from cdp_pipeline_tests.destinations.fakes.segment import FakeSegment, segment
from cdp_pipeline_tests.destinations.servers import Answer, Received, Receiver

EMAIL = {"email": "email"}
PEOPLE = [f"ann-{i}" for i in range(60)]


def planned(ledger: Ledger, vips: Sync, members: set[str], now: datetime) -> None:
    people = {label: {"email": f"{label}@example.com", "name": label} for label in members}
    found = plan(vips, members, people, holds(ledger, vips))
    if submit(ledger, found, dry_run=False, now=now).state == "held":
        approve(ledger, found.plan_id, by="test", now=now)
        submit(ledger, found, dry_run=False, now=now)


@pytest.mark.parametrize(
    ("fake", "spec", "mapping"),
    [
        (FakeBraze(), braze, EMAIL),
        (FakeGoogle(takes_until=1), google, EMAIL),
        (FakeHubspot(), hubspot, EMAIL),
        (FakeKlaviyo(takes_until=1), klaviyo, EMAIL),
        (FakeMeta(), meta, EMAIL),
        (FakeSalesforce(), salesforce, {"Cdp_Email__c": "email", "LastName": "name"}),
        (FakeSegment(), segment, {"user_id": "email"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Fake) else "",
)
def test_the_other_side_holds_exactly_the_audience_in_the_end(
    fake: Fake, spec: Callable[..., Any], mapping: dict[str, str]
) -> None:
    chance, faults = random.Random(17), True

    def unsteady(request: Received) -> Answer:
        luck = chance.random() if faults else 1.0
        if luck < 0.125:
            return Answer(500, applied=False)
        answer = fake(request)
        return Answer(hang_up=True) if luck < 0.25 else answer

    vips = sync(mode="mirror", destination="there", key=next(iter(mapping)), mapping=mapping)
    members, now = set(PEOPLE[:30]), NOW
    with Receiver(unsteady) as receiver, open_ledger("sqlite://") as ledger:
        whole = project(spec(f"http://127.0.0.1:{receiver.port}"))
        for step in range(30):
            if step < 15:
                members ^= set(chance.sample(PEOPLE, 6))
            faults = step < 25
            ledger.retry(now)
            planned(ledger, vips, members, now)
            deliver(ledger, whole, now=now, connect=destination_for)
            now += timedelta(hours=12)
        certain = {key for key, held in holds(ledger, vips).items() if held.certain and held.present}
    assert fake.held() == members
    assert certain == {f"{label}@example.com" for label in members}


@pytest.mark.parametrize(
    ("fake", "spec"),
    [(FakeBraze(), braze), (FakeGoogle(), google), (FakeHubspot(), hubspot), (FakeKlaviyo(), klaviyo),
     (FakeMeta(), meta), (FakeSalesforce(), salesforce)],
    ids=lambda value: type(value).__name__ if isinstance(value, Fake) else "",
)  # fmt: skip
def test_a_page_in_front_of_the_service_is_not_its_word(fake: Fake, spec: Callable[..., Any]) -> None:
    """A proxy that answers 200 with a page of its own has delivered nothing."""

    def in_front(request: Received) -> Answer:
        return fake(request) if "token" in request.path else Answer(200, body=b"<html>Please log in</html>")

    with sent(in_front, spec) as send:
        assert states(send(member("ann-1", email="ann-1@example.com", Cdp_Email__c="ann-1@example.com"))) == ["retry"]
