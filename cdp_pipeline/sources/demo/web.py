"""Visits to the shop and the app, click by click, and the orders that come of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdp_pipeline.sources.demo.company import AD_CAMPAIGNS, DEVICES, PLATFORMS, RETURN_REASONS, SEARCHES
from cdp_pipeline.sources.demo.people import ACCOUNT, GUEST, bits
from cdp_pipeline.sources.demo.text import Numbers, constant, digits, join, money, only, pick, scramble
from cdp_pipeline.sources.demo.today import Today

STEPS = ["page_viewed", "signed_in", "product_searched", "product_viewed", "cart_added", "checkout_started"]
PAGE, SIGN_IN, SEARCH, VIEW, CART, CHECKOUT = range(6)
_TABLET = -1


class Baskets:
    """What was bought: one row per line, lines of one basket together; `first` is where each basket's lines begin."""

    def __init__(self, today: Today, who: Numbers, coupon: Numbers) -> None:
        rng, goods = today.rng, today.goods
        lines = 1 + rng.geometric(0.6, len(who)).clip(max=6) - (rng.random(len(who)) < 0.5)
        self.basket = np.repeat(np.arange(len(who)), lines)
        self.first = np.concatenate([[0], np.cumsum(lines)])[:-1]
        self.line = np.arange(len(self.basket)) - self.first[self.basket] + 1
        self.article = today.articles(who[self.basket])
        self.quantity = 1 + (rng.random(len(self.basket)) < 0.12) * rng.integers(1, 4, len(self.basket))
        self.pence = goods.pence[self.article]
        gross = self.pence * self.quantity
        self.discount = gross * coupon[self.basket] // 100
        self.total = gross - self.discount
        self.basket_total = np.bincount(self.basket, self.total, minlength=len(who)).astype(np.int64)


def visit_and_buy(today: Today, browsers: Numbers, buyers: Numbers, at_tablet: Numbers) -> None:
    """A visit for everybody in the three lists; buyers end theirs with an order."""
    day, rng, people = today.day.number, today.rng, today.people
    coupon = _coupons(today, buyers)
    baskets = Baskets(today, buyers, coupon)
    who = np.concatenate([browsers, buyers, at_tablet])
    visits, bought = len(who), np.arange(len(who)) - len(browsers)
    buying = (bought >= 0) & (bought < len(buyers))
    tablet = bought >= len(buyers)
    if not visits:
        return
    start = np.where(tablet, today.office_hours(visits), today.moments(who))

    device = np.where(people.app[who] & (rng.random(visits) < 0.55), 2, (rng.random(visits) < 0.3).astype(np.int64))
    device = np.where(tablet, _TABLET, device)
    account = (people.kind[who] == ACCOUNT) & (people.joined[who] <= day)
    signs_in = account & (
        buying | (device == 2) | (rng.random(visits) < people.signs_in[who] * np.where(tablet, 1.2, 1))
    )

    counts = np.zeros((visits, len(STEPS)), np.int64)
    counts[:, PAGE] = 1
    counts[:, SIGN_IN] = signs_in & (device != 2) & (rng.random(visits) < 0.5)
    counts[:, SEARCH] = rng.random(visits) < 0.3
    counts[:, VIEW] = rng.geometric(0.42, visits).clip(max=14) - (rng.random(visits) < 0.3)
    counts[:, CART] = ~buying & (rng.random(visits) < 0.13)
    counts[:, CHECKOUT] = (counts[:, CART] > 0) & (rng.random(visits) < 0.3) & ~tablet
    counts[buying, CART] = np.bincount(baskets.basket, minlength=len(buyers))
    counts[buying, CHECKOUT] = 1

    upto = np.cumsum(counts, axis=1)
    visit = np.repeat(np.arange(visits), upto[:, -1])
    begins = np.concatenate([[0], np.cumsum(upto[:, -1])])[:-1]
    position = np.arange(len(visit)) - begins[visit]
    step = (position[:, None] >= upto[visit, :-1]).sum(axis=1)
    nth = position - np.where(step > 0, upto[visit, np.maximum(step - 1, 0)], 0)
    pauses = rng.exponential(35, len(visit)) + 1
    pauses[begins] = 0
    elapsed = np.cumsum(pauses)
    occurred = today.day.at(start[visit] - today.day.start + elapsed - elapsed[begins][visit])

    person = who[visit]
    article = today.articles(person)
    from_basket = buying[visit] & (step == CART)
    line = baskets.first[np.where(from_basket, bought[visit], 0)] + nth if len(buyers) else np.zeros_like(nth)
    article[from_basket] = baskets.article[line[from_basket]]
    quantity = np.ones(len(visit), np.int64)
    quantity[from_basket] = baskets.quantity[line[from_basket]]
    amount = today.goods.pence[article] * quantity
    about_article = (step == VIEW) | (step == CART)
    in_cart = step == CART

    first_known = np.where(counts[:, SIGN_IN] > 0, 1, np.where(buying & (rng.random(visits) < 0.3), upto[:, CART], 0))
    known = signs_in[visit] & (position >= first_known[visit])
    types_email = (step == CHECKOUT) & (account | (buying & (people.kind[who] == GUEST)))[visit]
    columns, mask = today.contact_details(person, {"customer_id": known, "email": types_email})

    owner, slot = people.cookie(who, np.maximum(device, 0), day)
    mask |= np.where(tablet, 0, bits(slot, owner != who)).astype(np.uint32)[visit]
    cookies = pc.if_else(
        pa.array(tablet),
        pick(today.tablets, scramble(people.quirks[who], day) % np.uint64(len(today.tablets))),
        people.anonymous_id(owner, slot),
    )
    from_ad = ~tablet & (device != 2) & (rng.random(visits) < np.where(day < people.joined[who], 0.5, 0.1))
    channel = np.select([tablet, device == 2], [2, 1], 0)
    sessions = today.numbered("S", visits)
    at_visit = pa.array(visit)
    landing = step == PAGE
    today.files.emit(
        "web_events",
        {
            **columns,
            "event": pick(STEPS, step),
            "event_id": today.numbered("w", len(visit)),
            "occurred_at": occurred,
            "anonymous_id": cookies.take(at_visit),
            "session_id": sessions.take(at_visit),
            "channel": pick(["web", "app", "tablet"], channel).take(at_visit),
            "device": pick([*DEVICES, "tablet"], np.where(tablet, 3, device)).take(at_visit),
            "page": only(landing, pick(["home", "sale", "new", "stores"], rng.integers(0, 4, len(visit)))),
            "search_term": only(step == SEARCH, pick(SEARCHES, rng.integers(0, len(SEARCHES), len(visit)))),
            "sku": only(about_article, today.sku(article)),
            "category": only(about_article, today.category(article)),
            **{name: only(about_article, text) for name, text in today.looks(article).items()},
            "size": only(in_cart, today.size(person, article)),
            "price": only(about_article, money(today.goods.pence[article])),
            "quantity": only(in_cart, digits(quantity)),
            "amount": only(in_cart, money(amount)),
            "utm_source": only(landing & from_ad[visit], pick(PLATFORMS, rng.integers(0, 3, len(visit)))),
            "utm_campaign": only(landing & from_ad[visit], pick(AD_CAMPAIGNS, rng.integers(0, 3, len(visit)))),
        },
        person,
        mask,
    )
    if len(buyers):
        ended = occurred[(begins + upto[:, -1] - 1)[buying]] + 60
        _order(
            today,
            buyers,
            baskets,
            np.minimum(ended, today.day.start + today.day.seconds - 1),
            coupon,
            device[buying] == 2,
        )


def _coupons(today: Today, buyers: Numbers) -> Numbers:
    """Per cent off: the campaign's coupon for those who got it, now and then the one for new customers."""
    people, day, rng = today.people, today.day.number, today.rng
    treated = people.coupon_until[buyers] >= day
    uses = treated & (rng.random(len(buyers)) < np.where(people.discount_effect[buyers] > 0, 0.9, 0.3))
    fresh = (people.joined[buyers] >= day - 3) & (rng.random(len(buyers)) < 0.25)
    return np.select([uses, fresh], [15, 10], 0)


def _order(today: Today, buyers: Numbers, baskets: Baskets, placed: Numbers, coupon: Numbers, in_app: Numbers) -> None:
    day, rng, people = today.day.number, today.rng, today.people
    orders, basket = today.numbered("O", len(buyers)), baskets.basket
    who = buyers[basket]
    at_order = pa.array(basket)
    account = (people.kind[buyers] == ACCOUNT) & (people.joined[buyers] <= day)
    gives_phone = rng.random(len(buyers)) < 0.6
    details, mask = today.contact_details(
        buyers, {"customer_id": account, "email": np.ones(len(buyers), bool), "phone": gives_phone}
    )
    cancelled = rng.random(len(buyers)) < 0.02
    notes = pick(["", "Happy birthday", "With love", "Leave at the door"], rng.integers(0, 4, len(buyers)))
    codes = pick(["", "WELCOME10", "SAVE15"], np.select([coupon == 15, coupon == 10], [2, 1], 0))
    country = pick(
        ["GB", "United Kingdom", "IE"], np.where(people.irish(buyers), 2, (rng.random(len(buyers)) < 0.1).astype(int))
    )
    today.files.emit(
        "shop_orders",
        {
            **{name: values.take(at_order) for name, values in details.items()},
            "order_id": orders.take(at_order),
            "line": digits(baskets.line),
            "ordered_at": placed[basket],
            "given_name": people.given_name(who),
            "family_name": people.family_name(who),
            "city": people.city_name(who),
            "postcode": people.postcode(who),
            "country": country.take(at_order),
            "channel": pick(["web", "app"], in_app.astype(int)).take(at_order),
            "sku": today.sku(baskets.article),
            "category": today.category(baskets.article),
            **today.looks(baskets.article),
            "size": today.size(who, baskets.article),
            "quantity": digits(baskets.quantity),
            "unit_price": money(baskets.pence),
            "discount": money(baskets.discount),
            "total": money(baskets.total),
            "order_total": money(baskets.basket_total[basket]),
            "currency": constant("GBP", len(basket)),
            "coupon": codes.take(at_order),
            "status": pick(["completed", "cancelled"], cancelled.astype(int)).take(at_order),
            "gift_note": notes.take(at_order),
        },
        who,
        mask[basket],
    )
    people.spent[buyers] += np.where(cancelled, 0, baskets.basket_total / 100).astype(np.float32)
    kept = ~cancelled[basket]
    comes_back = kept & (rng.random(len(basket)) < people.returning[who])
    order = today.counters.last["O"] - len(buyers) + 1 + basket
    bought = {"who": who, "article": baskets.article, "quantity": baskets.quantity, "pence": baskets.total}
    today.plan("return", comes_back, 4, 25, **bought, order=order, line=baskets.line)
    registers = kept & (today.goods.warranty_months[baskets.article] > 0) & (rng.random(len(basket)) < 0.35)
    today.plan("warranty", registers, 2, 12, who=who, article=baskets.article)
    reviews = kept & account[basket] & (rng.random(len(basket)) < 0.05)
    today.plan("review", reviews, 8, 20, who=who, article=baskets.article)
    done = ~cancelled
    today.plan("nps", done & (rng.random(len(buyers)) < 0.08), 12, 18, who=buyers)
    today.plan("ticket", done & (rng.random(len(buyers)) < 0.05), 1, 8, who=buyers)


def returns(today: Today) -> None:
    """Parcels that come back today."""
    due = today.agenda.take("return", today.day.number)
    if due is None:
        return
    who, rows, rng = due["who"], len(due["who"]), today.rng
    account = today.people.kind[who] == ACCOUNT
    details, mask = today.contact_details(who, {"customer_id": account, "email": ~account | (rng.random(rows) < 0.3)})
    today.files.emit(
        "returns",
        {
            **details,
            "return_id": today.numbered("R", rows),
            "returned_at": today.office_hours(rows, 8, 17),
            "order_id": join("O", digits(due["order"], 9)),
            "line": digits(due["line"]),
            "sku": today.sku(due["article"]),
            "category": today.category(due["article"]),
            "quantity": digits(due["quantity"]),
            "refund": money(due["pence"]),
            "reason": pick(RETURN_REASONS, rng.integers(0, 4, rows)),
        },
        who,
        mask,
    )
    today.people.spent[who] -= (due["pence"] / 100).astype(np.float32)
