"""The people of the demo company: what never changes about them, how they drift, and how their identifiers are spelled.

One small array per fact, so that ten million people fit into memory; text is only made for the rows that need it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cdp_pipeline.sources.demo.company import (
    CATEGORIES,
    CITIES,
    FAMILY,
    GIVEN,
    IRISH_CITY,
    MAIL_DOMAINS,
    MEN,
    NICKNAMES,
    POSTCODES,
    mailable,
)
from cdp_pipeline.sources.demo.text import Numbers, Text, digits, hexadecimal, join, pick, scramble

BLOCK = 200_000
NEVER = 30_000
FADING_DAYS = 40
PROSPECTS_PER_CUSTOMER = 0.4
SECOND_HAND_SHARE = 0.02

# What a row may say about who it is. A row's evidence is a set of these, one bit each: in the lower half of a mask
# what is the person's own, in the upper half what they use of the one before them: their household's, or second-hand.
(
    CUSTOMER, EMAIL, PHONE, LOYALTY, CONTACT, CONTACT_AGAIN, CUSTOMER_AGAIN, EMAIL_AGAIN, EMAIL_TYPO,
    COOKIE, COOKIE_2, COOKIE_APP, COOKIE_RESET, COOKIE_2_RESET,
) = range(14)  # fmt: skip
SLOTS = 14
COOKIES = (COOKIE, COOKIE_2, COOKIE_APP, COOKIE_RESET, COOKIE_2_RESET)
EMAILS = (EMAIL, EMAIL_AGAIN, EMAIL_TYPO)
TYPES = {
    CUSTOMER: "customer_id", EMAIL: "email", PHONE: "phone", LOYALTY: "loyalty_number", CONTACT: "crm_contact_id",
    CONTACT_AGAIN: "crm_contact_id", CUSTOMER_AGAIN: "customer_id", EMAIL_AGAIN: "email", EMAIL_TYPO: "email",
} | dict.fromkeys(COOKIES, "anonymous_id")  # fmt: skip

ACCOUNT, GUEST, STORE, PROSPECT = range(4)
KINDS = ["account", "guest", "store", "prospect"]
CHANNELS = ["email", "sms", "push"]

_GIVEN_PLAIN = [mailable(name) for name in GIVEN]
_FAMILY_PLAIN = [mailable(name) for name in FAMILY]
_NICKNAMES = [NICKNAMES.get(name, name) for name in GIVEN]


def bits(slots: Numbers | int, borrowed: Numbers | bool = False) -> npt.NDArray[np.uint32]:
    return np.left_shift(np.uint32(1), np.asarray(slots, np.uint32) + np.uint32(16) * np.asarray(borrowed, np.uint32))


class People:
    """Customers first, then prospects who only ever look. Neighbours 2k and 2k+1 may be one household."""

    def __init__(self, customers: int, days: int, seed: int) -> None:
        self.customers = customers
        self.total = customers + int(customers * PROSPECTS_PER_CUSTOMER)
        self.seed = seed
        self.companies = max(2, customers // 250)
        n = self.total
        small, day, share = np.uint8, np.int16, np.float32
        self.kind = np.empty(n, small)
        self.given = np.empty(n, small)
        self.family = np.empty(n, small)
        self.city = np.empty(n, small)
        self.domain = np.empty(n, small)
        self.born = np.empty(n, np.int32)
        self.company = np.empty(n, np.int32)
        self.quirks = np.empty(n, np.uint64)
        self.loyal = np.empty(n, bool)
        self.app = np.empty(n, bool)
        self.household = np.empty(n, bool)
        self.first_seen = np.empty(n, day)
        self.joined = np.empty(n, day)
        self.churn = np.empty(n, day)
        self.won_back = np.empty(n, day)
        self.cookie_reset = np.empty(n, day)
        self.second_account = np.empty(n, day)
        self.buying = np.empty(n, share)
        self.browsing = np.empty(n, share)
        self.store_share = np.empty(n, share)
        self.signs_in = np.empty(n, share)
        self.returning = np.empty(n, share)
        self.satisfaction = np.empty(n, share)
        self.discount_effect = np.empty(n, share)
        self.hour = np.empty(n, small)
        self.channel = np.empty(n, small)
        self.likes = np.empty(n, small)
        self.likes_too = np.empty(n, small)
        # What changes as days go by.
        self.interest = np.zeros(n, share)
        self.email_ok = np.empty(n, bool)
        self.sms_ok = np.empty(n, bool)
        self.coupon_until = np.full(n, -1, day)
        self.spent = np.zeros(n, share)
        self.crm_entry = np.full(n, 255, small)
        self.crm_changed = np.empty(n, day)
        for number, block in enumerate(self.blocks()):
            self._create(block, days, np.random.default_rng([seed, 1, number]))

    def blocks(self) -> Iterator[slice]:
        for start in range(0, self.total, BLOCK):
            yield slice(start, min(start + BLOCK, self.total))

    def _create(self, who: slice, days: int, rng: np.random.Generator) -> None:
        index = np.arange(who.start, who.stop)
        n = len(index)
        kind = np.searchsorted([0.60, 0.77, 1.0], rng.random(n), side="right").astype(np.uint8)
        kind[index >= self.customers] = PROSPECT
        self.kind[who] = kind
        known = kind != PROSPECT
        self.quirks[who] = scramble(index, self.seed + 11)

        mates = index ^ 1
        household = (scramble(index // 2, self.seed + 12) % 100 < 30) & known & (mates < self.customers)
        self.household[who] = household
        family = rng.integers(0, len(FAMILY), n)
        city = rng.integers(0, len(CITIES), n)
        follows = np.flatnonzero(household & (index % 2 == 1))
        family[follows], city[follows] = family[follows - 1], city[follows - 1]
        self.family[who], self.city[who] = family, city
        self.given[who] = rng.integers(0, len(GIVEN), n)
        self.domain[who] = rng.integers(0, len(MAIL_DOMAINS), n)
        self.born[who] = rng.integers(-10_950, 13_500, n)
        buys_for_company = (kind == ACCOUNT) & (rng.random(n) < 0.05)
        self.company[who] = np.where(buys_for_company, rng.integers(0, self.companies, n), -1)
        self.loyal[who] = np.where(kind == STORE, rng.random(n) < 0.85, (kind == ACCOUNT) & (rng.random(n) < 0.4))
        self.app[who] = (kind == ACCOUNT) & (rng.random(n) < 0.35)

        joined = rng.integers(-900, days, n)
        joined = np.where(known, joined, rng.integers(-60, max(days, 1), n))
        mean_life = np.clip(rng.gamma(1.5, 330, n), 40, 4000)
        churn = joined + 15 + rng.exponential(mean_life)
        churn = np.where(known, churn, joined + rng.integers(1, 20, n)).clip(-900, NEVER).astype(np.int16)
        back = churn + rng.integers(70, 180, n)
        returns = known & (churn > -60) & (back < days) & (rng.random(n) < 0.3)
        self.joined[who], self.churn[who] = joined, churn
        self.won_back[who] = np.where(returns, back, NEVER)
        self.crm_changed[who] = joined
        self.first_seen[who] = joined - np.where(kind == PROSPECT, 0, rng.integers(0, 25, n))
        self.cookie_reset[who] = np.where(rng.random(n) < 0.35, rng.integers(-30, days + 1, n), NEVER)
        doubled = (kind == ACCOUNT) & (rng.random(n) < 0.015)
        self.second_account[who] = np.where(doubled, joined + rng.integers(20, 300, n), NEVER)

        buying = rng.gamma(0.5, 0.036, n).clip(0.0005, 0.25)
        self.buying[who] = np.where(known, buying, 0)
        self.browsing[who] = np.where(known, 0.08 + 9.0 * buying * rng.gamma(3, 1 / 3, n), 0.3)
        self.store_share[who] = np.select(
            [kind == STORE, kind == GUEST], [np.ones(n), np.zeros(n)], rng.beta(0.7, 1.6, n)
        )
        self.signs_in[who] = np.where(kind == ACCOUNT, rng.beta(1.2, 1.8, n), 0)
        self.returning[who] = rng.gamma(1.0, 0.09, n).clip(0, 0.6)
        self.satisfaction[who] = rng.normal(0, 1, n)
        effect = np.select([rng.random(n) < 0.4, rng.random(n) < 0.1], [rng.uniform(1, 4, n), -0.3], 0.0)
        self.discount_effect[who] = np.where(known, effect, 0)
        peaks = np.array([8, 12, 17, 20, 21])[rng.choice(5, n, p=[0.2, 0.2, 0.15, 0.25, 0.2])]
        self.hour[who] = np.clip(peaks + rng.integers(-1, 2, n), 7, 22)
        by_app, by_sms = self.app[who] & (rng.random(n) < 0.4), rng.random(n) < 0.25
        self.channel[who] = np.select([by_app, by_sms], [2, 1], 0)
        self.likes[who] = rng.integers(0, len(CATEGORIES), n)
        self.likes_too[who] = rng.integers(0, len(CATEGORIES), n)
        self.email_ok[who] = known & (rng.random(n) < 0.68)
        self.sms_ok[who] = known & (rng.random(n) < 0.35)
        self.interest[who] = rng.normal(0, 1, n)
        tenure = np.clip(np.minimum(churn, 0) - joined, 0, None)
        self.spent[who] = np.where(joined < 0, tenure * buying * 60, 0)

    # How they drift.

    def vitality(self, who: slice, day: int) -> Numbers:
        """How much of their usual self people are today: 1, fading before they churn, 0 after, 0.8 when won back."""
        left = (self.churn[who] - day).astype(np.float32)
        fading = np.where(left > 0, np.clip(left / FADING_DAYS, 0.25, 1), 0)
        back = day >= self.won_back[who]
        return np.where(back, np.float32(0.8), fading).astype(np.float32)

    def fading(self, who: Numbers, day: int) -> Numbers:
        """Whether they are about to churn."""
        left = self.churn[who] - day
        return (left > 0) & (left < FADING_DAYS + 20)

    def drift(self, who: slice, rng: np.random.Generator) -> None:
        """Interest comes and goes over weeks: today's is most of yesterday's."""
        noise = rng.standard_normal(who.stop - who.start, dtype=np.float32)
        self.interest[who] = 0.97 * self.interest[who] + np.float32(0.243) * noise

    def has(self, who: Numbers, number: int, share: float) -> Numbers:
        """A lasting yes or no about each person, yes for this share of them; `number` tells the questions apart."""
        return scramble(self.quirks[who], number) % np.uint64(10_000) < np.uint64(round(share * 10_000))

    # Who they are on a row.

    def in_crm(self, who: Numbers, day: int) -> Numbers:
        listed = (self.kind[who] == ACCOUNT) | self.loyal[who]
        return listed & (self.joined[who] <= day) & self.has(who, 1, 0.92)

    def knows_email(self, who: Numbers) -> Numbers:
        """Whether the company has an address to write to at all."""
        kind = self.kind[who]
        return (kind == ACCOUNT) | (kind == GUEST) | ((kind == STORE) & self.loyal[who] & self.has(who, 2, 0.8))

    def phone_owner(self, who: Numbers) -> Numbers:
        """In some households two people give the same phone number: the first one's."""
        return np.where(self.household[who] & (who % 2 == 1) & self.has(who, 3, 0.15), who - 1, who)

    def second_hand(self, who: Numbers) -> Numbers:
        """Whether they took over the computer of the one before them, who is no relation, once that one had left."""
        return ~self.household[who] & (who % 2 == 1) & self.has(who, 6, SECOND_HAND_SHARE)

    def cookie(self, who: Numbers, device: Numbers, day: int) -> tuple[Numbers, Numbers]:
        """(whose, which cookie) a visit with this device (0, 1, or 2 for the app) leaves."""
        family_device = self.household[who] & (who % 2 == 1) & (device == 0) & self.has(who, 4, 0.4)
        second_hand = self.second_hand(who) & (device == 0) & (self.churn[who - 1] <= day)
        owner = np.where(family_device | second_hand, who - 1, who)
        reset = (day >= self.cookie_reset[owner]) & (device < 2)
        return owner, COOKIE + device + np.where(reset, 3, 0)

    def account_slots(self, who: Numbers, day: int) -> tuple[Numbers, Numbers]:
        """Which of their customer numbers and addresses people use today."""
        second = day >= self.second_account[who]
        return np.where(second, CUSTOMER_AGAIN, CUSTOMER), np.where(second, EMAIL_AGAIN, EMAIL)

    # How identifiers are spelled, normalised.

    def customer_id(self, who: Numbers, slot: Numbers) -> Text:
        number = who.astype(np.uint64) * np.uint64(2) + (slot == CUSTOMER_AGAIN)
        return join("C", digits((number + np.uint64(1)) * np.uint64(48_271) % np.uint64(2_147_483_647), 10))

    def contact_id(self, who: Numbers, slot: Numbers) -> Text:
        number = who.astype(np.uint64) * np.uint64(2) + (slot == CONTACT_AGAIN)
        return join("K", digits((number + np.uint64(1)) * np.uint64(40_692) % np.uint64(2_147_483_399), 10))

    def loyalty_number(self, who: Numbers) -> Text:
        return join(
            "LC", digits((who.astype(np.uint64) + np.uint64(1)) * np.uint64(69_621) % np.uint64(2_147_483_647), 10)
        )

    def phone(self, who: Numbers) -> Text:
        return join("+44", digits(self._phone_digits(who)))

    def phone_as_typed(self, who: Numbers, style: Numbers) -> Text:
        national = digits(self._phone_digits(who))
        spaced = join("0", pc.utf8_slice_codeunits(national, 0, 4), " ", pc.utf8_slice_codeunits(national, 4, 10))
        return pc.if_else(pa.array(style % 2 == 0), spaced, join("+44 ", national))

    def _phone_digits(self, who: Numbers) -> Numbers:
        return 7_400_000_000 + (who.astype(np.int64) + 1) * 7_919 % 19_999_999

    def email(self, who: Numbers, slot: Numbers) -> Text:
        family = pick(_FAMILY_PLAIN, self.family[who])
        mistyped = join(pc.utf8_slice_codeunits(family, 0, 1), family)
        family = pc.if_else(pa.array(slot == EMAIL_TYPO), mistyped, family)
        local = join(pick(_GIVEN_PLAIN, self.given[who]), ".", family, digits(who))
        local = pc.if_else(pa.array(slot == EMAIL_AGAIN), join(local, ".new"), local)
        company = self.company[who]
        private = pick(MAIL_DOMAINS, self.domain[who])
        work = join("office", digits(np.maximum(company, 0)), ".example.com")
        return join(local, "@", pc.if_else(pa.array((company >= 0) & (slot != EMAIL_AGAIN)), work, private))

    def anonymous_id(self, owner: Numbers, slot: Numbers) -> Text:
        return hexadecimal(scramble(owner.astype(np.uint64) * np.uint64(16) + slot.astype(np.uint64), self.seed + 13))

    def identifier(self, slot: int, who: Numbers) -> Text:
        """The value of any slot, as the pipeline should normalise it."""
        slots = np.full(len(who), slot)
        if slot in (CUSTOMER, CUSTOMER_AGAIN):
            return self.customer_id(who, slots)
        if slot in EMAILS:
            return self.email(who, slots)
        if slot == PHONE:
            return self.phone(who)
        if slot == LOYALTY:
            return self.loyalty_number(who)
        if slot in (CONTACT, CONTACT_AGAIN):
            return self.contact_id(who, slots)
        return self.anonymous_id(who, slots)

    # Names and places, as text.

    def given_name(self, who: Numbers, nickname: Numbers | bool = False) -> Text:
        formal = pick(GIVEN, self.given[who])
        return pc.if_else(pa.array(np.broadcast_to(nickname, len(who))), pick(_NICKNAMES, self.given[who]), formal)

    def family_name(self, who: Numbers) -> Text:
        return pick(FAMILY, self.family[who])

    def gender(self, who: Numbers) -> Text:
        male = self.given[who] >= len(GIVEN) - len(MEN)
        return pc.if_else(pa.array(male), "male", "female")

    def city_name(self, who: Numbers) -> Text:
        return pick(CITIES, self.city[who])

    def postcode(self, who: Numbers) -> Text:
        home = np.where(self.household[who], who // 2 * 2, who)
        code = scramble(home, self.seed + 14)
        letters = "ABDEFGHJLNPQRSTUWXYZ"
        return join(
            pick(POSTCODES, self.city[who]), digits(code % np.uint64(28) + np.uint64(1)), " ",
            digits(code // np.uint64(64) % np.uint64(9) + np.uint64(1)),
            pick(list(letters), code // np.uint64(1024) % np.uint64(20)),
            pick(list(letters), code // np.uint64(32768) % np.uint64(20)),
        )  # fmt: skip

    def irish(self, who: Numbers) -> Numbers:
        return self.city[who] == IRISH_CITY
