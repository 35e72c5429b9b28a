"""The days of the demo company, one after the other: who does what today, then the files of the day, then the truth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from cdp_pipeline.sources.demo import crm, marketing, service, stores, truth, web
from cdp_pipeline.sources.demo.clock import Day
from cdp_pipeline.sources.demo.company import Catalogue, catalogue, demand, tablets
from cdp_pipeline.sources.demo.feeds import FEEDS
from cdp_pipeline.sources.demo.files import Files
from cdp_pipeline.sources.demo.people import NEVER, PROSPECT, STORE, People
from cdp_pipeline.sources.demo.text import hexadecimal, scramble
from cdp_pipeline.sources.demo.today import Agenda, Counters, Today

SUMMARY = "truth/summary.json"
LAST_DAY = date(2026, 10, 31)
Progress = Callable[[int, int, int], None]


class FolderHoldsOtherFiles(Exception):
    """The folder is neither empty nor generated demo data, so nothing in it is touched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"{folder}: holds files that are not generated demo data; give an empty or a new folder")


@dataclass(frozen=True)
class DemoSummary:
    """What was generated. `rows` counts the rows of every source, dirt included."""

    folder: Path
    customers: int
    people: int
    days: int
    seed: int
    first_day: date
    last_day: date
    rows: dict[str, int]
    files: int

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def generate(
    folder: Path,
    customers: int,
    days: int,
    seed: int,
    last_day: date = LAST_DAY,
    progress: Progress | None = None,
) -> DemoSummary:
    """Write the demo company's exports of `days` days up to `last_day`, and the truth about them, into a folder.

    The same arguments give the same bytes. Memory follows the customers, not the days. `progress` hears, after each
    day, how many days are done, how many there are, and how many rows were written so far.
    Raises FolderHoldsOtherFiles rather than mixing with files it did not write.
    """
    if customers < 1 or days < 1 or days >= NEVER:
        raise ValueError(f"customers and days should be at least 1, and days below {NEVER}")
    _clear(folder)
    (folder / SUMMARY).parent.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY).write_text(
        '{"unfinished": true}\n'
    )  # so that the next run may clear up after an interrupted one
    first = last_day - timedelta(days=days - 1)
    people = People(customers, days, seed)
    evidence, dirt = truth.Evidence(people.total), truth.DirtLedger()
    files = Files(folder, seed, days, evidence, dirt)
    goods = catalogue(seed)
    _products(files, goods, first)
    agenda, counters, devices = Agenda(), Counters(), service.Devices(people)
    tablet_ids = hexadecimal(scramble(np.arange(tablets(customers)), seed + 17)).to_pylist()
    for number in range(days):
        day = Day.of(first, number)
        files.start(day)
        for index, block in enumerate(people.blocks()):
            rng = np.random.Generator(np.random.SFC64([seed, 2, number, index]))
            _live(Today(day, rng, people, files, agenda, counters, goods, tablet_ids), block)
        rng = np.random.Generator(np.random.SFC64([seed, 4, number]))
        _follow_up(Today(day, rng, people, files, agenda, counters, goods, tablet_ids), devices)
        files.finish_day()
        agenda.forget(number)
        if progress is not None:
            progress(number + 1, days, sum(files.rows.values()))
    files.close()
    truth.write(folder / "truth", people, evidence, dirt, tablet_ids, first)
    rows = files.rows | {"products": len(goods.sku)}
    summary = DemoSummary(folder, customers, people.total, days, seed, first, last_day, rows, len(files.written) + 1)
    facts = asdict(summary) | {"first_day": first.isoformat(), "last_day": last_day.isoformat(), "total": summary.total}
    del facts["folder"]
    (folder / SUMMARY).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    return summary


def _live(today: Today, block: slice) -> None:
    """A day in the life of one block of people."""
    people, rng, day = today.people, today.rng, today.day.number
    people.drift(block, rng)
    who, rows = np.arange(block.start, block.stop), block.stop - block.start
    kind, joined = people.kind[block], people.joined[block]
    vitality = people.vitality(block, day)
    mood = vitality * np.exp(np.float32(0.55) * people.interest[block] - np.float32(0.15))
    season = demand(today.day.date)

    fresh = np.where(joined == day, 12.0, 1.0)
    coupon = 1 + people.discount_effect[block] * (people.coupon_until[block] >= day)
    may_buy = (joined <= day) & (kind != PROSPECT)
    buys = may_buy & (rng.random(rows, dtype=np.float32) < people.buying[block] * mood * season * fresh * coupon)
    in_store = buys & (rng.random(rows) < people.store_share[block])
    online = buys & ~in_store & (kind != STORE)
    looks = (people.first_seen[block] <= day) & (kind != STORE)
    eager = np.where(joined > day, 0.5, 1.0)
    browses = looks & ~online & (rng.random(rows, dtype=np.float32) < people.browsing[block] * mood * season * eager)
    at_tablet = (in_store & (rng.random(rows) < 0.25)) | (may_buy & (vitality > 0) & (rng.random(rows) < 0.01))

    web.visit_and_buy(today, who[browses], who[online], who[at_tablet])
    stores.sell(today, who[in_store], rng.poisson(rows * 0.0012 * season))
    strolls = (
        people.app[block]
        & (joined <= day)
        & (in_store & (rng.random(rows) < 0.7) | (rng.random(rows) < 0.006 * vitality))
    )
    stores.visits(today, who[strolls])
    fed_up = people.fading(who, day)
    complains = may_buy & (vitality > 0) & (rng.random(rows) < np.where(fed_up, 0.003, 0.0005))
    service.open_tickets(today, who[complains])
    crm.declare(today, block)
    marketing.send(today, block, vitality)
    marketing.refer(today, who[may_buy & (rng.random(rows) < 0.0004 * vitality)])
    if crm.exports_today(today):
        crm.contacts(today, block)


def _follow_up(today: Today, devices: service.Devices) -> None:
    """What earlier days led to, and what concerns nobody in particular."""
    web.returns(today)
    service.close_tickets(today)
    service.surveys(today)
    service.reviews(today)
    service.warranties(today, devices)
    service.device_reports(today, devices)
    marketing.advertise(today)
    if crm.exports_today(today):
        crm.accounts(today)
    service.price_notices(today, devices)


def _products(files: Files, goods: Catalogue, first: date) -> None:
    launched = [first - timedelta(days=30 + (index * 37) % 900) for index in range(len(goods.sku))]
    stocks = [(index * 29) % 83 if index % 19 else 0 for index in range(len(goods.sku))]
    files.products(
        [
            (sku, name, category, brand, f"{pence / 100:.2f}", int(smart), int(months), launch.isoformat(), stock)
            for sku, name, category, brand, pence, smart, months, launch, stock in zip(
                goods.sku, goods.name, goods.category, goods.brand, goods.pence, goods.smart, goods.warranty_months,
                launched, stocks, strict=True,
            )
        ]
    )  # fmt: skip


def _clear(folder: Path) -> None:
    """Remove what an earlier run wrote; anything else in the folder stops us."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / SUMMARY).is_file():
        raise FolderHoldsOtherFiles(folder)
    for feed in FEEDS.values():
        if feed.daily:
            shutil.rmtree(folder / feed.path.split("/")[0], ignore_errors=True)
        else:
            (folder / feed.path).unlink(missing_ok=True)
    shutil.rmtree(folder / "truth")
