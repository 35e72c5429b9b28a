"""What the company says to people: newsletters, texts, push messages, a randomised coupon, advertising, referrals."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cdp_pipeline.sources.demo.company import AD_CAMPAIGNS, MAIL_DOMAINS, PLATFORMS, demand
from cdp_pipeline.sources.demo.crm import permit
from cdp_pipeline.sources.demo.people import ACCOUNT
from cdp_pipeline.sources.demo.text import Numbers, Text, constant, digits, join, money, pick, scramble
from cdp_pipeline.sources.demo.today import Today

COUPON_DAY, COUPON_DAYS = 12, 10
TEXT_DAY, PUSH_WEEKDAY = 5, 4
SENT, OPENED, CLICKED, BOUNCED, COMPLAINED, UNSUBSCRIBED, HELD_OUT = EVENTS = [
    "message_sent", "message_opened", "message_clicked", "message_bounced", "message_complained",
    "message_unsubscribed", "message_held_out",
]  # fmt: skip


def send(today: Today, block: slice, vitality: Numbers) -> None:
    """Today's share of the weekly newsletter, the monthly text, the weekly push, and the monthly coupon."""
    people, day = today.people, today.day
    who = np.arange(block.start, block.stop)
    customers = people.joined[block] <= day.number
    writable = customers & people.email_ok[block] & people.knows_email(who)
    week = f"{day.date.isocalendar().year}w{day.date.isocalendar().week:02d}"
    if day.date.weekday() < 4:
        newsletter = writable & (
            (people.quirks[block] >> np.uint64(20)) % np.uint64(4) == np.uint64(day.date.weekday())
        )
        _deliver(today, who[newsletter], vitality[newsletter], "email", f"newsletter_{week}")
    if day.date.weekday() == PUSH_WEEKDAY:
        app = customers & people.app[block]
        _deliver(today, who[app], vitality[app], "push", f"push_{week}")
    if day.date.day == TEXT_DAY:
        texted = customers & people.sms_ok[block] & people.in_crm(who, day.number) & people.has(who, 25, 0.75)
        _deliver(today, who[texted], vitality[texted], "sms", f"text_{day.date:%Y_%m}")
    if day.date.day == COUPON_DAY:
        _coupon(today, who[writable], vitality[writable])


def _coupon(today: Today, who: Numbers, vitality: Numbers) -> None:
    """A coin decides who gets the coupon, so that its effect can be told from people's habits."""
    campaign = f"coupon_{today.day.date:%Y_%m}"
    heads = scramble(who, today.people.seed * 1000 + today.day.number) % np.uint64(2) == 0
    today.people.coupon_until[who[heads]] = today.day.number + COUPON_DAYS - 1
    _deliver(today, who[heads], vitality[heads], "email", campaign, "treated")
    held = who[~heads]
    details, mask = today.contact_details(held, {"email": np.ones(len(held), bool)})
    _emit(
        today,
        held,
        today.numbered("M", len(held)),
        HELD_OUT,
        _posted(today, len(held)),
        "email",
        campaign,
        details,
        mask,
        "control",
    )


def _posted(today: Today, rows: int) -> Numbers:
    return today.day.at(today.rng.uniform(6 * 3600, 6.5 * 3600, rows))


def _deliver(today: Today, who: Numbers, vitality: Numbers, medium: str, campaign: str, arm: str | None = None) -> None:
    """Send, and what follows the same day: most opens come at the hour people prefer, in the channel they prefer."""
    people, rng, rows = today.people, today.rng, len(who)
    if not rows:
        return
    every = np.ones(rows, bool)
    given = {"email": {"email": every}, "sms": {"phone": every}, "push": {"customer_id": every}}[medium]
    details, mask = today.contact_details(who, given)
    numbers = today.numbered("M", rows)
    posted = _posted(today, rows)
    _emit(today, who, numbers, SENT, posted, medium, campaign, details, mask, arm)

    fit = np.where(people.channel[who] == ["email", "sms", "push"].index(medium), 0.5, 0.14)
    draw = rng.random(rows)
    bounced = draw > np.where(people.has(who, 50, 0.01), 0.1, 0.998)
    opened = ~bounced & (
        rng.random(rows) < 0.015 + fit * vitality * np.clip(0.85 + 0.3 * people.interest[who], 0.2, 1.6)
    )
    clicked = opened & (rng.random(rows) < (0.45 if medium == "sms" else 0.13))
    read = np.maximum(today.moments(who), posted + 300)
    outcomes = [(BOUNCED, bounced, posted + 20), (CLICKED, clicked, read + 40)]
    if medium != "sms":
        outcomes.append((OPENED, opened, read))
    if medium == "email":
        outcomes.append((COMPLAINED, opened & (draw < 0.0015), read + 90))
        leaves = opened & (draw > 0.990) & (draw < 0.997)
        outcomes.append((UNSUBSCRIBED, leaves, read + 120))
        people.email_ok[who[leaves]] = False
        permit(today, who[leaves], "email_marketing", people.email_ok)
    last = today.day.start + today.day.seconds - 1
    for event, chosen, at in outcomes:
        some = np.flatnonzero(chosen)
        if not len(some):
            continue
        pieces = {name: values.take(pa.array(some)) for name, values in details.items()}
        happened = np.minimum(at[some], last)
        _emit(
            today, who[some], numbers.take(pa.array(some)), event, happened, medium, campaign, pieces, mask[some], arm
        )


def _emit(
    today: Today, who: Numbers, numbers: Text, event: str, at: Numbers, medium: str, campaign: str,
    details: dict[str, Text], mask: Numbers, arm: str | None,
) -> None:  # fmt: skip
    rows = len(who)
    columns = details | {"message_id": numbers, "happened_at": at}
    words = {"event": event, "medium": medium, "campaign": campaign} | ({"arm": arm} if arm else {})
    today.files.emit("messages", columns | {name: constant(word, rows) for name, word in words.items()}, who, mask)


def advertise(today: Today) -> None:
    """What the day's advertising cost; nobody's name is on it."""
    rng = today.rng
    pairs = [(platform, campaign) for platform in PLATFORMS for campaign in AD_CAMPAIGNS]
    rows = len(pairs)
    shown = (rng.lognormal(8, 0.4, rows) * demand(today.day.date) * max(1, today.people.customers / 5000)).astype(
        np.int64
    )
    clicks = (shown * rng.uniform(0.005, 0.03, rows)).astype(np.int64)
    today.files.emit(
        "ad_spend",
        {
            "spent_on": constant(today.day.date.isoformat(), rows),
            "platform": pa.array([platform for platform, _ in pairs]),
            "campaign": pa.array([campaign for _, campaign in pairs]),
            "impressions": digits(shown),
            "clicks": digits(clicks),
            "cost": money(clicks * rng.integers(18, 60, rows)),
        },
        np.full(rows, -1),
        np.zeros(rows, np.uint32),
    )


def refer(today: Today, who: Numbers) -> None:
    """Account holders recommend the shop to a friend, whose address is on the row but is not theirs."""
    who = who[today.people.kind[who] == ACCOUNT]
    rows = len(who)
    details, mask = today.contact_details(who, {"customer_id": np.ones(rows, bool)})
    friend = join(
        "friend", digits(today.rng.integers(0, 10**6, rows)), "@", pick(MAIL_DOMAINS, today.rng.integers(0, 4, rows))
    )
    today.files.emit(
        "referrals",
        {
            **details,
            "referral_id": today.numbered("F", rows),
            "referred_at": today.moments(who),
            "friend_email": friend,
        },
        who,
        mask,
    )
