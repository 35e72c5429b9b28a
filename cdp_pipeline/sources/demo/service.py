"""What happens after the sale: tickets with CSAT, surveys, reviews, warranties and what connected devices report."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cdp_pipeline.sources.demo.company import ALARMS, REVIEW_TEXTS, SURVEY_COMMENTS, TOPICS
from cdp_pipeline.sources.demo.people import ACCOUNT, People
from cdp_pipeline.sources.demo.text import Numbers, dates, digits, hexadecimal, join, money, only, pick, scramble
from cdp_pipeline.sources.demo.today import Today

LATE_REGISTRATION_PERCENT = 15
"""So many of the warranties are registered long after the purchase, with a few weeks left."""
PLAN_CYCLE = 180


class Devices:
    """Connected devices in people's homes, in the order in which they were paired."""

    def __init__(self, people: People) -> None:
        owners = [block.start + np.flatnonzero(self._early(people, block)) for block in people.blocks()]
        self.owner = np.concatenate(owners)

    @staticmethod
    def _early(people: People, block: slice) -> Numbers:
        who = np.arange(block.start, block.stop)
        return (people.kind[block] == ACCOUNT) & (people.joined[block] < 0) & people.has(who, 40, 0.06)

    def pair(self, owners: Numbers) -> Numbers:
        """Serial numbers of the devices these people just paired."""
        first = len(self.owner)
        self.owner = np.concatenate([self.owner, owners])
        return np.arange(first, len(self.owner))


def serial_number(device: Numbers) -> pa.Array:
    return join("SN", hexadecimal(scramble(device, 16)))


def open_tickets(today: Today, complainers: Numbers) -> None:
    """Tickets of people with a reason of their own, and those that orders and alarms led to."""
    people, rng = today.people, today.rng
    due = today.agenda.take("ticket", today.day.number)
    who = complainers if due is None else np.concatenate([complainers, due["who"]])
    rows = len(who)
    numbers = today.counters.next("T", rows)
    account = people.kind[who] == ACCOUNT
    draw = rng.random(rows)
    knows = people.knows_email(who)
    details, mask = today.contact_details(
        who,
        {
            "customer_id": account & (draw < 0.25),
            "email": knows & (draw > 0.2) & (draw < 0.7),
            "phone": (draw >= 0.55) | ~knows,
        },
    )
    topic = rng.choice(len(TOPICS), rows, p=[0.4, 0.2, 0.2, 0.1, 0.1])
    today.files.emit(
        "tickets",
        {
            **details,
            "ticket_id": join("T", digits(numbers, 9)),
            "event": pa.repeat(pa.scalar("ticket_opened"), rows),
            "happened_at": today.office_hours(rows, 8, 20),
            "contact_channel": pick(["email", "chat", "phone"], np.searchsorted([0.4, 0.6], draw)),
            "topic": pick(TOPICS, topic),
            "priority": pick(["normal", "high"], (rng.random(rows) < 0.15).astype(int)),
        },
        who,
        mask,
    )
    closes = rng.random(rows) < 0.97
    today.plan("ticket_close", closes, 1, 7, who=who, number=numbers, topic=topic)


def close_tickets(today: Today) -> None:
    due = today.agenda.take("ticket_close", today.day.number)
    if due is None:
        return
    who, rows, rng, people = due["who"], len(due["who"]), today.rng, today.people
    mood = 4.1 + 0.5 * people.satisfaction[who] - 1.3 * people.fading(who, today.day.number) + rng.normal(0, 0.7, rows)
    details, mask = today.contact_details(who, {"email": people.knows_email(who), "phone": ~people.knows_email(who)})
    today.files.emit(
        "tickets",
        {
            **details,
            "ticket_id": join("T", digits(due["number"], 9)),
            "event": pa.repeat(pa.scalar("ticket_closed"), rows),
            "happened_at": today.office_hours(rows, 8, 20),
            "topic": pick(TOPICS, due["topic"]),
            "csat": pa.array(np.clip(np.round(mood), 1, 5).astype(np.int64), mask=rng.random(rows) < 0.45),
            "agent_minutes": rng.integers(3, 90, rows),
        },
        who,
        mask,
    )
    today.plan("ces", people.knows_email(who) & (rng.random(rows) < 0.3), 1, 3, who=who)


def surveys(today: Today) -> None:
    """Answers to the survey on recommendation, weeks after an order, and to the one on effort, after a ticket."""
    rng, people = today.rng, today.people
    for survey, lowest, highest in (("nps", 0, 10), ("ces", 1, 7)):
        due = today.agenda.take(survey, today.day.number)
        if due is None:
            continue
        who, rows = due["who"], len(due["who"])
        mood = people.satisfaction[who] - 1.6 * people.fading(who, today.day.number) + rng.normal(0, 0.6, rows)
        score = np.clip(np.round((7.6, 5.2)[survey == "ces"] + (1.9, 1.1)[survey == "ces"] * mood), lowest, highest)
        details, mask = today.contact_details(who, {"email": np.ones(rows, bool)})
        today.files.emit(
            "surveys",
            {
                **details,
                "survey_id": today.numbered("N", rows),
                "survey": pa.repeat(pa.scalar(f"{survey}_answered"), rows),
                "answered_at": today.moments(who),
                "score": digits(score),
                "comment": pick(SURVEY_COMMENTS, rng.integers(0, len(SURVEY_COMMENTS), rows)),
            },
            who,
            mask,
        )


def reviews(today: Today) -> None:
    due = today.agenda.take("review", today.day.number)
    if due is None:
        return
    who, rows, rng = due["who"], len(due["who"]), today.rng
    stars = np.clip(np.round(4 + 0.6 * today.people.satisfaction[who] + rng.normal(0, 0.8, rows)), 1, 5)
    details, mask = today.contact_details(who, {"customer_id": np.ones(rows, bool)})
    today.files.emit(
        "reviews",
        {
            **details,
            "review_id": today.numbered("B", rows),
            "written_at": today.moments(who),
            "sku": today.sku(due["article"]),
            "category": today.category(due["article"]),
            "stars": digits(stars),
            "text": pick(REVIEW_TEXTS, rng.integers(0, len(REVIEW_TEXTS), rows)),
        },
        who,
        mask,
    )


def warranties(today: Today, devices: Devices) -> None:
    """Buyers register what they bought; what is smart gets paired and reports from then on."""
    due = today.agenda.take("warranty", today.day.number)
    if due is None:
        return
    who, rows, rng = due["who"], len(due["who"]), today.rng
    device = np.arange(rows) + 10_000_000_000 + today.day.number * 1_000_000
    smart = today.goods.smart[due["article"]]
    device[smart] = devices.pair(who[smart])
    details, mask = today.contact_details(who, {"email": np.ones(rows, bool), "phone": rng.random(rows) < 0.5})
    months = today.goods.warranty_months[due["article"]]
    left = (months * 30.44).astype(np.int64)
    chance = scramble(device, today.people.seed + 21)
    late = chance % np.uint64(100) < np.uint64(LATE_REGISTRATION_PERCENT)
    left = np.where(late, np.minimum(left, 7 + (chance // np.uint64(100) % np.uint64(113)).astype(np.int64)), left)
    today.files.emit(
        "warranties",
        {
            **details,
            "warranty_id": today.numbered("G", rows),
            "registered_at": today.moments(who),
            "serial_number": serial_number(device),
            "sku": today.sku(due["article"]),
            "category": today.category(due["article"]),
            "ends_on": dates(today.day.since_1970 + left),
        },
        who,
        mask,
    )


def price_notices(today: Today, devices: Devices) -> None:
    """Every half year the care plan of a device becomes dearer, and its owner is to be told a month before."""
    index = np.arange(len(devices.owner))
    when = (scramble(index, today.people.seed + 22) % np.uint64(PLAN_CYCLE)).astype(np.int64)
    device = index[when == today.day.number % PLAN_CYCLE]
    owner, rows = devices.owner[device], len(device)
    account = today.people.kind[owner] == ACCOUNT
    details, mask = today.contact_details(owner, {"customer_id": account, "email": ~account})
    pence = 399 + 100 * (device % 4) + 30 * (today.day.number // PLAN_CYCLE)
    today.files.emit_clean(
        "price_notices",
        {
            **details,
            "notice_id": today.numbered("P", rows),
            "announced_at": today.day.at(np.full(rows, 9 * 3600)),
            "plan": pick(["care", "care plus"], device % 2),
            "old_price": money(pence),
            "new_price": money(pence + 30),
            "valid_from": dates(np.full(rows, today.day.since_1970 + 30)),
        },
        owner,
        mask,
    )


def device_reports(today: Today, devices: Devices) -> None:
    """Every device reports once a week, and raises an alarm now and then, which may end in a ticket."""
    rng, people = today.rng, today.people
    index = np.arange(len(devices.owner))
    alarms = rng.random(len(index)) < 0.004
    device = np.concatenate([index[index % 7 == today.day.number % 7], index[alarms]])
    rows, owner = len(device), devices.owner[device]
    alarm = np.arange(rows) >= rows - int(alarms.sum())
    account = people.kind[owner] == ACCOUNT
    details, mask = today.contact_details(owner, {"customer_id": account, "email": ~account})
    today.files.emit(
        "iot_events",
        {
            **details,
            "event": pick(["device_reported", "device_alarm"], alarm.astype(int)),
            "event_id": today.numbered("i", rows),
            "reported_at": today.day.at(rng.uniform(0, 86_400, rows)),
            "serial_number": serial_number(device),
            "alarm": only(alarm, pick(ALARMS, rng.integers(0, len(ALARMS), rows))),
            "battery": digits(rng.integers(5, 101, rows)),
        },
        owner,
        mask,
    )
    today.plan("ticket", alarm & (rng.random(rows) < 0.3), 1, 2, who=owner)
