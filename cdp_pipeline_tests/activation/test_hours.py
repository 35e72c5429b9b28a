"""Valid hours and expiry: what comes at the wrong time waits, what waited too long is not sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.hours import until_open
from cdp_pipeline.activation.ledger import open_ledger
from cdp_pipeline.activation.tables import outbox_rows
from cdp_pipeline.activation.triggers import fired, occasions
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.spec.trigger import DAYS, ValidHours
from cdp_pipeline_tests.activation.projects import DAY, crossing, project, trigger, webhook
from cdp_pipeline_tests.destinations.servers import Receiver

LONDON = ZoneInfo("Europe/London")
HALF = timedelta(minutes=30)
times = st.integers(0, 47).map(lambda half: f"{half // 2:02}:{half % 2 * 30:02}")


def open_at(hours: ValidHours, now: datetime) -> bool:
    """By the wall clock alone."""
    here = now.astimezone(LONDON)
    weekday, clock = DAYS[here.weekday()], here.time()
    if hours.from_ < hours.to:
        return weekday in hours.days and hours.from_ <= clock < hours.to
    before = DAYS[here.weekday() - 1]
    return (weekday in hours.days and clock >= hours.from_) or (before in hours.days and clock < hours.to)


@settings(max_examples=150)
@given(times, times, st.sets(st.sampled_from(DAYS), min_size=1), st.integers(0, 14 * 48), st.sampled_from([3, 6, 10]))
def test_it_waits_for_the_next_half_hour_that_a_wall_clock_calls_open(
    begin: str, end: str, days: set[str], half: int, month: int
) -> None:
    if begin == end:
        return
    hours = ValidHours.model_validate({"from": begin, "to": end, "days": sorted(days)})
    now = datetime(2026, month, 20, tzinfo=UTC) + half * HALF
    wait = until_open(hours, now, LONDON)
    at = now
    while not open_at(hours, at):
        at += HALF
    # When clocks change, an hour of the wall is there twice or not at all: then half an hour's search is not exact.
    changes = {(now + n * timedelta(hours=12)).astimezone(LONDON).utcoffset() for n in range(-3, 18)}
    assert len(changes) > 1 or now + wait == at
    assert wait >= timedelta(0)


def test_an_act_at_night_waits_for_the_morning_and_one_that_waited_too_long_is_not_sent() -> None:
    call = trigger(
        name="call", valid_hours={"from": "09:00", "to": "17:00", "days": ["mon", "tue"]}, expires="12 hours"
    )
    night = datetime(2026, 3, 9, 22, tzinfo=UTC)  # a Monday
    with Receiver() as receiver, open_ledger("sqlite://") as ledger:
        whole = project(webhook(receiver.url), call)

        def act(person: str, now: datetime) -> None:
            happened = occasions(call, [], [crossing(person)], not_before=DAY, until=DAY)
            ledger.fire("call", fired(call, happened, people={}, destinations=whole.destinations), day=DAY, now=now)

        act("p1", night)
        assert deliver(ledger, whole, now=night, connect=destination_for).totals == {"pending": 1}
        assert not deliver(ledger, whole, now=night + timedelta(hours=10), connect=destination_for).totals
        act("p2", night - timedelta(hours=3))
        summary = deliver(ledger, whole, now=night + timedelta(hours=11), connect=destination_for)
        assert summary.totals == {"delivered": 1, "suppressed": 1}
        assert [request.json["data"] for request in receiver.requests] == [{"person_id": "p1"}]
        [p2] = [row for row in outbox_rows(ledger).to_pylist() if row["person_id"] == "p2"]
        assert p2["reason"] == "expired: it waited longer than 12 hours"
