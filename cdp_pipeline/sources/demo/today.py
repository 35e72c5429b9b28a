"""What every behaviour is handed: the day, the people it is about, the files to write to, and what falls due later."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cdp_pipeline.sources.demo.clock import Day
from cdp_pipeline.sources.demo.company import (
    ARTICLES_PER_CATEGORY,
    CATEGORIES,
    SIZED,
    SIZES,
    Catalogue,
    category_shares,
)
from cdp_pipeline.sources.demo.files import Files
from cdp_pipeline.sources.demo.people import LOYALTY, PHONE, People, bits
from cdp_pipeline.sources.demo.text import Numbers, Text, digits, join, only, pick, scramble


@dataclass
class Agenda:
    """What today causes on a later day: a return, a survey, a closed ticket. Nothing lies further ahead than weeks."""

    due: dict[int, dict[str, list[dict[str, Numbers]]]] = field(default_factory=dict)

    def add(self, what: str, days: Numbers, **facts: Numbers) -> None:
        for day in np.unique(days):
            chosen = days == day
            entries = self.due.setdefault(int(day), {}).setdefault(what, [])
            entries.append({name: values[chosen] for name, values in facts.items()})

    def take(self, what: str, day: int) -> dict[str, Numbers] | None:
        entries = self.due.get(day, {}).pop(what, [])
        return {name: np.concatenate([entry[name] for entry in entries]) for name in entries[0]} if entries else None

    def forget(self, day: int) -> None:
        self.due.pop(day, None)


@dataclass
class Counters:
    """Running numbers, so that an order number is never given twice."""

    last: dict[str, int] = field(default_factory=dict)

    def next(self, what: str, count: int) -> Numbers:
        start = self.last.get(what, 0)
        self.last[what] = start + count
        return np.arange(start + 1, start + count + 1)


@dataclass
class Today:
    day: Day
    rng: np.random.Generator
    people: People
    files: Files
    agenda: Agenda
    counters: Counters
    goods: Catalogue
    tablets: list[str]

    def later(self, low: int, high: int, rows: int) -> Numbers:
        """A day between `low` and `high` days from now, for each row."""
        return self.day.number + self.rng.integers(low, high + 1, rows)

    def plan(self, what: str, chosen: Numbers, low: int, high: int, **facts: Numbers) -> None:
        """Put the chosen rows on the agenda, each between `low` and `high` days from now."""
        some = np.flatnonzero(chosen)
        if len(some):
            self.agenda.add(
                what, self.later(low, high, len(some)), **{name: values[some] for name, values in facts.items()}
            )

    def moments(self, who: Numbers) -> Numbers:
        """Instants of today, mostly around the hour each person prefers."""
        usual = self.rng.random(len(who)) < 0.7
        hour = np.where(
            usual, self.people.hour[who] + self.rng.normal(0, 1.2, len(who)), self.rng.uniform(7, 23, len(who))
        )
        return self.day.at(np.clip(hour, 0.5, 23.3) * 3600 + self.rng.integers(0, 60, len(who)))

    def office_hours(self, rows: int, opens: int = 9, closes: int = 19) -> Numbers:
        return self.day.at(self.rng.uniform(opens * 3600, closes * 3600, rows))

    def articles(self, who: Numbers) -> Numbers:
        """An article each person might want today: of a category they like, or of one that is in season."""
        rows, rng = len(who), self.rng
        draw = rng.random(rows)
        seasonal = np.searchsorted(np.cumsum(category_shares(self.day.date)), rng.random(rows)).clip(
            max=len(CATEGORIES) - 1
        )
        category = np.select([draw < 0.45, draw < 0.6], [self.people.likes[who], self.people.likes_too[who]], seasonal)
        popular = (rng.random(rows) ** 2 * ARTICLES_PER_CATEGORY).astype(np.int64)
        return category.astype(np.int64) * ARTICLES_PER_CATEGORY + popular

    def sku(self, article: Numbers) -> Text:
        return pick(self.goods.sku, article)

    def category(self, article: Numbers) -> Text:
        return pick(self.goods.category, article)

    def looks(self, article: Numbers) -> dict[str, Text]:
        """Brand and colour of the articles."""
        return {"brand": pick(self.goods.brand, article), "colour": pick(self.goods.colour, article)}

    def size(self, who: Numbers, article: Numbers) -> Text:
        """The size people choose where an article comes in sizes: mostly their own."""
        sized = self.goods.category_of(article) == [category.name for category in CATEGORIES].index(SIZED)
        own = scramble(who, 90) % np.uint64(len(SIZES))
        gift = scramble(who * 1_000 + article, 91) % np.uint64(8) == 0
        return only(sized, pick(SIZES, (own + gift) % np.uint64(len(SIZES))))

    def numbered(self, prefix: str, count: int) -> Text:
        return join(prefix, digits(self.counters.next(prefix, count), 9))

    def contact_details(self, who: Numbers, wants: dict[str, Numbers]) -> tuple[dict[str, Text], Numbers]:
        """Columns with the identifiers people give, where they do, and the evidence those amount to.

        `wants` says for customer_id, email, phone and loyalty_number on which rows it is given.
        """
        people, number = self.people, self.day.number
        customer_slot, email_slot = people.account_slots(who, number)
        columns: dict[str, Text] = {}
        mask = np.zeros(len(who), np.uint32)
        for name, given in wants.items():
            if name == "customer_id":
                columns[name] = only(given, people.customer_id(who, customer_slot))
                mask |= np.where(given, bits(customer_slot), 0).astype(np.uint32)
            elif name == "email":
                columns[name] = only(given, people.email(who, email_slot))
                mask |= np.where(given, bits(email_slot), 0).astype(np.uint32)
            elif name == "loyalty_number":
                columns[name] = only(given, people.loyalty_number(who))
                mask |= np.where(given, bits(LOYALTY), 0).astype(np.uint32)
            elif name == "phone":
                owner = people.phone_owner(who)
                columns[name] = only(given, people.phone_as_typed(owner, self.rng.integers(0, 2, len(who))))
                mask |= np.where(given, bits(PHONE, owner != who), 0).astype(np.uint32)
        return columns, mask
