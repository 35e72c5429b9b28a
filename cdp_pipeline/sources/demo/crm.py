"""The CRM's monthly copies of contacts and companies, and the permissions people give and take back."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from cdp_pipeline.sources.demo.company import CITIES, COLLEAGUES, FAMILY, INDUSTRIES
from cdp_pipeline.sources.demo.people import (
    ACCOUNT,
    CONTACT,
    CONTACT_AGAIN,
    CUSTOMER,
    EMAIL,
    EMAIL_TYPO,
    LOYALTY,
    PHONE,
    People,
    bits,
)  # fmt: skip
from cdp_pipeline.sources.demo.text import Numbers, constant, dates, digits, join, only, pick, scramble
from cdp_pipeline.sources.demo.today import Today

_NEW = 255
TYPO_SHARE, DOUBLE_SHARE, NICKNAME_SHARE = 0.02, 0.06, 0.1


def exports_today(today: Today) -> bool:
    """On the first generated day and on the first of every month."""
    return today.day.number == 0 or today.day.date.day == 1


def contacts(today: Today, block: slice) -> None:
    """Everybody in the CRM, some of them twice."""
    people, day = today.people, today.day.number
    who = np.arange(block.start, block.stop)
    who = who[people.in_crm(who, day)]
    entry = (_tier(people, who) + 4 * people.email_ok[who] + 8 * people.sms_ok[who]).astype(np.uint8)
    changed = (people.crm_entry[who] != entry) & (people.crm_entry[who] != _NEW)
    people.crm_changed[who[changed]], people.crm_entry[who] = day, entry
    doubles = who[people.has(who, 20, DOUBLE_SHARE)]
    _contacts(today, who, again=False)
    _contacts(today, doubles, again=True)
    path = f"crm_contacts/{today.day.date.isoformat()}.csv.gz"
    today.files.dirt.add("double_contact", "crm_contacts", path, DOUBLE_SHARE, len(doubles))


def _tier(people: People, who: Numbers) -> Numbers:
    return np.where(people.loyal[who], np.searchsorted([400, 1200], people.spent[who], side="right") + 1, 0)


def _contacts(today: Today, who: Numbers, again: bool) -> None:
    """`again` writes the second entry somebody else made for the same person: a nickname, fewer facts."""
    people, day, rows = today.people, today.day.number, len(who)
    typo = people.has(who, 21, TYPO_SHARE) & (not again)
    nickname = people.has(who, 22, 0.7 if again else NICKNAME_SHARE)
    has_email = people.knows_email(who) & people.has(who, 23 + again, 0.94)
    has_phone = people.has(who, 25 + again, 0.75)
    has_card = people.loyal[who] & people.has(who, 27, 0.9) & (not again)
    has_account = (people.kind[who] == ACCOUNT) & people.has(who, 28, 0.85) & (not again)
    slot = np.full(rows, CONTACT_AGAIN if again else CONTACT)
    email_slot = np.where(typo, EMAIL_TYPO, EMAIL)
    owner = people.phone_owner(who)
    mask = bits(slot)
    shown = [(has_email, bits(email_slot)), (has_phone, bits(PHONE, owner != who)), (has_card, bits(LOYALTY))]
    for present, bit in (*shown, (has_account, bits(CUSTOMER))):
        mask = mask | np.where(present, bit, 0).astype(np.uint32)
    created = people.joined[who] + today.day.since_1970 - day
    company = people.company[who]
    path = f"crm_contacts/{today.day.date.isoformat()}.csv.gz"
    ledger = today.files.dirt
    ledger.add("typo", "crm_contacts", path, TYPO_SHARE, int((typo & has_email).sum()))
    if not again:
        ledger.add("nickname", "crm_contacts", path, NICKNAME_SHARE, int(nickname.sum()))
    today.files.emit(
        "crm_contacts",
        {
            "contact_id": people.contact_id(who, slot),
            "customer_id": only(has_account, people.customer_id(who, np.full(rows, CUSTOMER))),
            "loyalty_number": only(has_card, people.loyalty_number(who)),
            "given_name": people.given_name(who, nickname),
            "family_name": people.family_name(who),
            "email": only(has_email, people.email(who, email_slot)),
            "phone": only(has_phone, people.phone_as_typed(owner, (scramble(who, 5) % np.uint64(2)).astype(int))),
            "birth_date": only(people.has(who, 29, 0.6), dates(people.born[who])),
            "gender": only(people.has(who, 30, 0.7), people.gender(who)),
            "language": pick(
                ["en", "EN", "cy"], np.select([people.has(who, 31, 0.9), people.has(who, 32, 0.7)], [0, 1], 2)
            ),
            "city": people.city_name(who),
            "postcode": people.postcode(who),
            "country": pick(
                ["GB", "United Kingdom", "IE"], np.where(people.irish(who), 2, people.has(who, 33, 0.2).astype(int))
            ),
            "account_id": only(company >= 0, join("A", digits(np.maximum(company, 0), 6))),
            "loyalty_tier": pick(["none", "bronze", "silver", "gold"], _tier(people, who)),
            "email_consent": pick(["false", "true"], people.email_ok[who].astype(int)),
            "sms_consent": pick(["no", "yes"], people.sms_ok[who].astype(int)),
            "looked_after_by": pick(COLLEAGUES, scramble(who, people.seed + 19) % np.uint64(len(COLLEAGUES))),
            "created_on": dates(created),
            "updated_at": today.day.start
            + (people.crm_changed[who].astype(np.int64) - day) * 86_400
            + 3600
            + who % 1800,
        },
        who,
        mask,
    )


def accounts(today: Today) -> None:
    """The companies some contacts buy for."""
    people = today.people
    number = np.arange(people.companies)
    draw = scramble(number, people.seed + 15)
    industry = pick(INDUSTRIES, draw % np.uint64(len(INDUSTRIES)))
    city = pick(CITIES, draw // np.uint64(7) % np.uint64(len(CITIES)))
    name = join(pick(FAMILY, draw // np.uint64(101) % np.uint64(len(FAMILY))), " & Co, ", industry)
    rows = len(number)
    today.files.emit(
        "crm_accounts",
        {
            "account_id": join("A", digits(number, 6)),
            "account_name": name,
            "industry": industry,
            "employees": digits(draw % np.uint64(240) + np.uint64(3)),
            "city": city,
            "country": pc.if_else(pc.equal(city, "Dublin"), "IE", "GB"),
            "payment_terms": digits(np.where(draw % np.uint64(3) == 0, 30, 14)),
        },
        np.full(rows, -1),
        np.zeros(rows, np.uint32),
    )


def declare(today: Today, block: slice) -> None:
    """New people say yes or no; now and then somebody changes their mind."""
    people, day, rng = today.people, today.day.number, today.rng
    who = np.arange(block.start, block.stop)
    reachable = people.knows_email(who)
    new = who[(people.joined[block] == day) & reachable]
    draw = rng.random(len(who))
    active = (people.joined[block] <= day) & reachable
    leaves = who[active & people.email_ok[block] & (draw < 0.0003)]
    returns = who[active & ~people.email_ok[block] & (draw > 0.9998)]
    people.email_ok[leaves], people.email_ok[returns] = False, True
    permit(today, np.concatenate([new, leaves, returns]), "email_marketing", people.email_ok)
    stops = who[active & people.sms_ok[block] & (draw > 0.9996)]
    people.sms_ok[stops] = False
    permit(today, np.concatenate([new, stops]), "sms_marketing", people.sms_ok)


def permit(today: Today, who: Numbers, subject: str, permissions: Numbers) -> None:
    """What these people now permit, as rows of the consent log."""
    rows, by_phone = len(who), subject == "sms_marketing"
    granted = permissions[who]
    given = np.ones(rows, bool)
    details, mask = today.contact_details(who, {"email": given} | ({"phone": given} if by_phone else {}))
    today.files.emit(
        "consents",
        {
            **details,
            "consent_id": today.numbered("D", rows),
            "event": pick(["consent_withdrawn", "consent_granted"], granted.astype(int)),
            "happened_at": today.moments(who),
            "subject": constant(subject, rows),
            "granted": pick(["false", "true"], granted.astype(int)),
            "wording": pick(["2024-05", "2026-01"], np.full(rows, int(today.day.date.year >= 2026))),
        },
        who,
        mask,
    )
