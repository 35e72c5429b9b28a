"""How often, when and how much: caps with priority, quiet hours on the person's clock, budgets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.quiet import quiet_until
from cdp_pipeline.spec.contact_policy import ContactPolicy, QuietHours
from cdp_pipeline_tests.activation.projects import NOW
from cdp_pipeline_tests.consent.people import Town, World, policy, shop

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PEOPLE = {name: {("email", f"{name}@example.com")} for name in ("ann", "bob", "carl")}
TWO_A_WEEK = {"channel": "email", "purposes": ["marketing"], "most": 2, "within": "7 days"}


def world(ledger: Ledger, declared: ContactPolicy) -> World:
    return World(ledger, shop(declared), Town({name: set(theirs) for name, theirs in PEOPLE.items()}))


def test_a_third_offer_within_the_week_is_refused_and_one_after_it_is_not(ledger: Ledger) -> None:
    here = world(ledger, policy(caps=[TWO_A_WEEK]))
    fates = []
    for day in (0, 1, 2, 6.9, 7.5, 8.5):
        op_id = here.decide("trigger:offer", "ann", NOW + day * DAY)
        fates.append(here.post(NOW + day * DAY)[op_id])
    refused = "gate: frequency cap: 2 in 7 days"
    assert fates == ["delivered", "delivered", refused, refused, "delivered", "delivered"]
    letter = here.decide("trigger:order_sent", "ann", NOW + 9 * DAY)
    assert here.post(NOW + 9 * DAY)[letter] == "delivered"


def test_a_dry_run_is_judged_as_if_what_it_shows_had_arrived_and_takes_nothing_from_what_is_sent(
    ledger: Ledger,
) -> None:
    here = world(ledger, policy(caps=[TWO_A_WEEK], quiet_hours=[{"from": "21:00", "to": "07:00", "channel": "email"}]))
    live = here.project
    trial = live.destinations["mail"].model_copy(update={"dry_run": True})
    here.project = replace(live, destinations=live.destinations | {"mail": trial})
    here.suppress(("email", "carl@example.com"), "manual", NOW)
    fates = []
    for name, at in (
        ("ann", NOW), ("ann", NOW + DAY), ("ann", NOW + 2 * DAY), ("bob", NOW + 14 * HOUR), ("carl", NOW),
    ):  # fmt: skip
        op_id = here.decide("trigger:offer", name, at)
        fates.append(here.post(at)[op_id])
    assert fates == [
        "dry run", "dry run", "gate: frequency cap: 2 in 7 days", "dry run; it would wait: gate: quiet hours",
        "gate: suppressed: manual",
    ]  # fmt: skip
    assert here.sent == []
    here.project = live
    first = here.decide("trigger:offer", "ann", NOW + 3 * DAY)
    assert here.post(NOW + 3 * DAY)[first] == "delivered"


def test_what_was_sent_under_the_other_id_counts_after_a_merge(ledger: Ledger) -> None:
    here = world(ledger, policy(caps=[TWO_A_WEEK]))
    for name in ("ann", "bob"):
        here.decide("trigger:offer", name, NOW)
    here.post(NOW)
    here.town.merged["bob"] = "ann"
    here.town.identifiers["ann"] |= here.town.identifiers.pop("bob")
    third = here.decide("trigger:offer", "ann", NOW + HOUR)
    assert here.post(NOW + HOUR)[third] == "gate: frequency cap: 2 in 7 days"


@pytest.mark.parametrize(
    "declared", [{"caps": [TWO_A_WEEK]}, {"budgets": [{"channel": "email", "most": 2, "within": "7 days"}]}]
)
@pytest.mark.parametrize("dismissed", [None, "asked nobody", "not arrived"])
def test_a_letter_of_which_nobody_knows_whether_it_arrived_counts_as_one_that_did(
    ledger: Ledger, declared: dict[str, Any], dismissed: str | None
) -> None:
    """Also when nobody wants to be asked about it any more, unless somebody found out that it did not."""
    here = world(ledger, policy(**declared))
    fates = []
    for number, becomes in enumerate(["unknown", "delivered", "delivered"]):
        here.before_sending = lambda _delivery, _now, becomes=becomes: becomes
        op_id = here.decide("trigger:offer", "ann", NOW + number * DAY)
        fates.append(here.post(NOW + number * DAY)[op_id])
        if dismissed:
            ledger.dismiss(NOW, "so be it", not_arrived=dismissed == "not arrived")
    assert fates[:2] == ["unknown", "delivered"]
    if dismissed == "not arrived":
        assert fates[2] == "delivered"
        return
    assert fates[2].startswith(("gate: frequency cap", "gate: budget"))
    late = here.decide("trigger:offer", "ann", NOW + 8 * DAY)
    assert here.post(NOW + 8 * DAY)[late] == "delivered"


def test_the_more_important_takes_the_last_place_also_by_another_channel(ledger: Ledger) -> None:
    here = world(ledger, policy(caps=[{"most": 1, "within": "7 days"}]))
    offer = here.decide("trigger:offer", "ann", NOW)
    reminder = here.decide("trigger:reminder", "ann", NOW, "texts")
    said = here.post(NOW)
    assert said[reminder] == "delivered"
    assert said[offer] == "gate: frequency cap: 1 in 7 days, something else goes first"
    assert here.post(NOW + HOUR)[offer] == "gate: frequency cap: 1 in 7 days"
    assert len(here.sent) == 1


def test_two_workers_together_keep_to_a_cap(ledger_address: str) -> None:
    with open_ledger(ledger_address) as ledger:
        first = world(ledger, policy(caps=[{"most": 1, "within": "7 days"}]))
        for name in PEOPLE:
            for destination in ("mail", "texts"):
                first.decide("trigger:offer", name, NOW, destination)

        def work(_: int) -> list[str]:
            with open_ledger(ledger_address) as own:
                worker = World(own, first.project, first.town)
                worker.post(NOW)
                return [op_id for _, op_id in worker.sent]

        with ThreadPoolExecutor(2) as both:
            sent = [op_id for each in both.map(work, range(2)) for op_id in each]
        assert len(sent) == len(PEOPLE)
        first.post(NOW + HOUR)
        assert first.sent == []


def test_a_budget_is_not_overdrawn_and_is_full_again_after_its_time(ledger: Ledger) -> None:
    allowance = {"channel": "sms", "most": "0.10", "each": 0.04, "currency": "GBP", "within": "1 day"}
    here = world(ledger, policy(budgets=[allowance]))
    texts = [here.decide("trigger:offer", name, NOW, "texts") for name in PEOPLE]
    letter = here.decide("trigger:offer", "ann", NOW)
    said = here.post(NOW)
    assert sorted(said[op] for op in texts) == ["delivered", "delivered", "gate: budget: 0.10 GBP in 1 days"]
    assert said[letter] == "delivered"
    later = here.decide("trigger:offer", "bob", NOW + DAY + HOUR, "texts")
    assert here.post(NOW + DAY + HOUR)[later] == "delivered"


NIGHT = {"from": "21:00", "to": "08:00", "zone": "country", "zones": {"GB": "Europe/London", "US": "America/New_York"}}


def test_a_letter_in_the_night_waits_for_the_persons_own_morning(ledger: Ledger) -> None:
    here = world(ledger, policy(quiet_hours=[NIGHT]))
    here.town.attributes = {"ann": {"country": "GB"}, "bob": {"country": "US"}}
    night = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)  # the clocks in London go forward this night
    ann, bob = here.decide("trigger:offer", "ann", night), here.decide("trigger:offer", "bob", night)
    for minutes in range(0, 12 * 60, 15):
        here.post(night + timedelta(minutes=minutes))
    when = {op_id: at for at, op_id in here.sent}
    assert when[bob] - night < timedelta(minutes=1)  # half past seven in the evening over there
    assert when[ann].astimezone(ZoneInfo("Europe/London")).strftime("%d %H") == "29 08"


ZONES = [ZoneInfo(name) for name in ("Europe/London", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")]


@settings(max_examples=300)
@given(
    zone=st.sampled_from(ZONES),
    now=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)).map(lambda at: at.replace(tzinfo=UTC)),
    clock=st.tuples(st.times(), st.times()).filter(lambda pair: pair[0] != pair[1]),
)
def test_quiet_hours_are_over_when_the_clock_on_the_wall_says_so(zone, now, clock):
    since, until = (at.replace(second=0, microsecond=0, tzinfo=None) for at in clock)
    if since == until:
        return
    hours = QuietHours(from_=since, to=until)

    def quiet(at: datetime) -> bool:
        shows = at.astimezone(zone).time()
        return since <= shows < until if since < until else not until <= shows < since

    end = quiet_until(hours, zone, now)
    assert (end is not None) == quiet(now)
    if end is not None:
        assert now < end <= now + timedelta(hours=25)
        steps = int((end - now) / timedelta(minutes=10))
        awake = [
            now + timedelta(minutes=10 * step) for step in range(steps) if not quiet(now + timedelta(minutes=10 * step))
        ]
        # Only where clocks jump may it wait although the wall says it could go, and then no more than an hour.
        assert len(awake) <= 6


@pytest.mark.parametrize("said", ["Mars/Olympus", "", None, "../etc/passwd"])
def test_a_zone_nobody_knows_is_the_projects(said: object) -> None:
    from cdp_pipeline.activation.quiet import zone_of

    hours = QuietHours.model_validate({"from": "21:00", "to": "08:00", "zone": "timezone"})
    assert zone_of(hours, {"timezone": said}, ZONES[0]) == ZONES[0]
