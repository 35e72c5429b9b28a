"""Nothing leaves the house that nobody permits: each gate, with its reason, on a real ledger."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from cdp_pipeline.activation.ledger import Ledger
from cdp_pipeline.activation.protocol import Delivery
from cdp_pipeline.consent.ledger import Said, open_consents
from cdp_pipeline_tests.activation.projects import NOW
from cdp_pipeline_tests.consent import people
from cdp_pipeline_tests.consent.people import Town, World, consent, policy, shop

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ANN, BOB = ("email", "ann@example.com"), ("email", "bob@example.com")


@pytest.fixture
def world(ledger: Ledger) -> World:
    town = Town({"ann": {ANN, ("phone", "+441")}, "bob": {BOB}})
    return World(ledger, shop(consent()), town)


def permit(world: World, *names: str) -> None:
    for name in names:
        world.say(("email", f"{name}@example.com"), "purpose:marketing", "granted", NOW - DAY)
        world.say(("email", f"{name}@example.com"), "channel:email", "granted", NOW - DAY)


def test_silence_is_not_yes_for_marketing_but_a_letter_about_an_order_goes(world: World) -> None:
    offer, letter = world.decide("trigger:offer", "ann", NOW), world.decide("trigger:order_sent", "ann", NOW)
    said = world.post(NOW)
    assert said[offer] == "gate: consent: marketing: unknown"
    assert [op for _, op in world.sent] == [letter]


def test_a_purpose_permitted_is_not_a_channel_permitted(world: World) -> None:
    world.say(ANN, "purpose:marketing", "granted", NOW - DAY)
    offer = world.decide("trigger:offer", "ann", NOW)
    assert world.post(NOW)[offer] == "gate: permission: email: unknown"
    world.say(ANN, "channel:email", "granted", NOW)
    again = world.decide("trigger:offer", "ann", NOW + HOUR)
    world.post(NOW + HOUR)
    assert [op for _, op in world.sent] == [again]


def test_what_was_said_last_before_the_moment_of_sending_counts(world: World) -> None:
    permit(world, "ann")
    world.say(ANN, "purpose:marketing", "denied", NOW + 2 * HOUR)
    world.say(ANN, "purpose:marketing", "granted", NOW + 4 * HOUR)
    sent = []
    for hours in (1, 3, 5):
        op_id = world.decide("trigger:offer", "ann", NOW)
        world.post(NOW + hours * HOUR)
        sent.append(op_id in [op for _, op in world.sent])
    assert sent == [True, False, True]


def test_a_no_that_comes_between_two_claims_of_one_round_is_heard(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people._Post, "batch_size", 1)
    permit(world, "ann", "bob")
    first, second = world.decide("trigger:offer", "ann", NOW), world.decide("trigger:offer", "bob", NOW)

    def takes_it_back(_delivery: Delivery, now: datetime) -> str:
        open_consents(world.ledger).record([Said("elsewhere", BOB, "purpose:marketing", "denied", now, "web")], now)
        return "delivered"

    world.before_sending = takes_it_back
    assert world.post(NOW)[second] == "gate: consent: marketing: denied"
    assert [op for _, op in world.sent] == [first]


def test_a_no_at_any_identifier_of_a_merged_person_outweighs_every_yes(world: World) -> None:
    permit(world, "ann", "bob")
    world.say(("phone", "+441"), "purpose:marketing", "denied", NOW - 2 * DAY)
    refused, fine = world.decide("trigger:offer", "ann", NOW), world.decide("trigger:offer", "bob", NOW)
    assert world.post(NOW)[refused] == "gate: consent: marketing: denied"
    world.town.identifiers["bob"] |= world.town.identifiers.pop("ann")
    world.town.merged["ann"] = "bob"
    merged = world.decide("trigger:offer", "bob", NOW + HOUR)
    assert world.post(NOW + HOUR)[merged] == "gate: consent: marketing: denied"
    assert [op for _, op in world.sent] == [fine]


def test_the_address_in_the_letter_is_asked_even_when_it_is_somebody_elses_by_now(world: World) -> None:
    permit(world, "ann", "bob")
    offer = world.decide("trigger:offer", "bob", NOW, payload={"to": "carl@example.com"})
    world.say(("email", "carl@example.com"), "purpose:marketing", "denied", NOW - DAY)
    assert world.post(NOW)[offer] == "gate: consent: marketing: denied"


def test_who_was_erased_gets_nothing_and_taking_somebody_out_always_passes(world: World) -> None:
    world.suppress(ANN, "erasure", NOW - DAY)
    letter, task = world.decide("trigger:order_sent", "ann", NOW), world.decide("trigger:task", "ann", NOW, "tool")
    out = world.decide("sync:nobody_declares", "ann", NOW, "tool", kind="remove")
    said = world.post(NOW)
    assert said[letter] == said[task] == "gate: suppressed: erasure"
    assert [op for _, op in world.sent] == [out]


def test_a_bounced_address_is_spared_while_another_of_the_same_person_is_not(world: World) -> None:
    permit(world, "ann")
    world.town.identifiers["ann"].add(("email", "ann@work.example"))
    world.suppress(ANN, "bounce", NOW - DAY, "email")
    bounced = world.decide("trigger:offer", "ann", NOW)
    other = world.decide("trigger:offer", "ann", NOW, payload={"to": "ann@work.example"})
    assert world.post(NOW)[bounced] == "gate: suppressed: bounce"
    assert [op for _, op in world.sent] == [other]
    world.suppress(ANN, "complaint", NOW, "email")
    complained = world.decide("trigger:offer", "ann", NOW + HOUR, payload={"to": "ann@work.example"})
    assert world.post(NOW + HOUR)[complained] == "gate: suppressed: complaint"


def test_nobody_of_this_id_and_no_declared_trigger_are_refused(world: World) -> None:
    ghost, stray = world.decide("trigger:order_sent", "ghost", NOW), world.decide("trigger:forgotten", "ann", NOW)
    world.town.merged["ghost"] = "nowhere"
    said = world.post(NOW)
    assert said[ghost] == "gate: nobody has this id any more"
    assert said[stray] == "gate: consent: no purpose is declared for this"


def test_without_consent_and_policy_a_suppression_alone_holds(world: World) -> None:
    world.project = shop()
    world.suppress(ANN, "manual", NOW - DAY)
    refused, fine = world.decide("trigger:offer", "ann", NOW), world.decide("trigger:offer", "bob", NOW)
    assert world.post(NOW)[refused] == "gate: suppressed: manual"
    assert [op for _, op in world.sent] == [fine]


def test_a_control_group_gets_no_marketing_and_everything_else(world: World) -> None:
    everybody = {f"p{n}": {("email", f"p{n}@example.com")} for n in range(120)}
    world.town = Town(everybody)
    world.project = shop(policy(controls=[{"name": "year", "share": 0.25, "purposes": ["marketing"]}]))
    offers = {name: world.decide("trigger:offer", name, NOW) for name in everybody}
    letters = [world.decide("trigger:order_sent", name, NOW) for name in list(everybody)[:30]]
    said = world.post(NOW)
    left_out = {name for name, op in offers.items() if said[op] == "gate: control group: year"}
    assert 15 <= len(left_out) <= 45
    assert {op for _, op in world.sent} == {*letters, *(op for name, op in offers.items() if name not in left_out)}
    # Who is merged into somebody is what the elder is, whatever id the letter was decided under.
    elder = next(iter(left_out))
    other = next(name for name in everybody if name not in left_out)
    world.town.merged[other] = elder
    world.town.identifiers[elder] |= world.town.identifiers.pop(other)
    again = world.decide("trigger:offer", other, NOW + HOUR)
    assert world.post(NOW + HOUR)[again] == "gate: control group: year"
