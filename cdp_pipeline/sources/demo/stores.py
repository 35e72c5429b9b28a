"""The three stores: receipts of the tills, and visits the app notices."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cdp_pipeline.sources.demo.company import CASHIERS, STORES
from cdp_pipeline.sources.demo.people import COOKIE_APP, bits
from cdp_pipeline.sources.demo.text import Numbers, digits, money, pick
from cdp_pipeline.sources.demo.today import Today
from cdp_pipeline.sources.demo.web import Baskets

NOBODY = -1


def home_store(today: Today, who: Numbers) -> Numbers:
    return (today.people.quirks[who] >> np.uint64(8)) % np.uint64(len(STORES))


def sell(today: Today, buyers: Numbers, walk_ins: int) -> None:
    """Receipts of known people, and of `walk_ins` people nobody knows."""
    rng, people = today.rng, today.people
    unknown = rng.integers(0, people.total, walk_ins)  # whose taste they have; the receipt does not say who they are
    who, named = np.concatenate([buyers, unknown]), np.arange(len(buyers) + walk_ins) < len(buyers)
    rows = len(who)
    if not rows:
        return
    card = named & people.loyal[who] & (rng.random(rows) < 0.8)
    e_receipt = named & people.knows_email(who) & (rng.random(rows) < 0.12)
    details, mask = today.contact_details(who, {"loyalty_number": card, "email": e_receipt})
    baskets = Baskets(today, who, np.where(card & (rng.random(rows) < 0.1), 10, 0))
    basket = baskets.basket
    at_receipt = pa.array(basket)
    store, sold = home_store(today, who), today.office_hours(rows, 9, 20)
    receipts = today.numbered("P", rows)
    today.files.emit(
        "pos_receipts",
        {
            **{name: values.take(at_receipt) for name, values in details.items()},
            "receipt_id": receipts.take(at_receipt),
            "line": digits(baskets.line),
            "sold_at": sold[basket],
            "store": pick(STORES, store).take(at_receipt),
            "till": digits(rng.integers(1, 4, rows)).take(at_receipt),
            "cashier": pick(CASHIERS, rng.integers(0, len(CASHIERS), rows)).take(at_receipt),
            "sku": today.sku(baskets.article),
            "category": today.category(baskets.article),
            **today.looks(baskets.article),
            "size": today.size(who[basket], baskets.article),
            "quantity": digits(baskets.quantity),
            "unit_price": money(baskets.pence),
            "discount": money(baskets.discount),
            "total": money(baskets.total),
            "receipt_total": money(baskets.basket_total[basket]),
            "payment": pick(["card", "cash"], (rng.random(rows) < 0.2).astype(int)).take(at_receipt),
        },
        np.where(named, who, NOBODY)[basket],
        np.where(named, mask, 0)[basket].astype(np.uint32),
    )
    people.spent[buyers] += (baskets.basket_total[: len(buyers)] / 100).astype(np.float32)


def visits(today: Today, visitors: Numbers) -> None:
    """The app notices that its owner is in the store."""
    rows = len(visitors)
    slots = np.full(rows, COOKIE_APP)
    today.files.emit(
        "store_visits",
        {
            "visit_id": today.numbered("V", rows),
            "entered_at": today.office_hours(rows, 9, 19),
            "store": pick(STORES, home_store(today, visitors)),
            "anonymous_id": today.people.anonymous_id(visitors, slots),
            "minutes": today.rng.integers(2, 60, rows),
        },
        visitors,
        bits(slots),
    )
