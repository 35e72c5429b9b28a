"""What people say in files reaches the consent ledger: once, in order, and a stale copy takes back no withdrawal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.consent.ledger import ConsentLedger, open_consents
from cdp_pipeline.consent.statements import catch_up
from cdp_pipeline.lake import Lake
from cdp_pipeline.sources.load import load
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.spec.project import Project

PROJECT = """
kind: project
name: shop
description: A shop.
first_day: 2026-01-01
lake: {path: lake}
---
{kind: identifier, name: email, description: Address.}
---
{kind: identifier, name: phone, description: Number.}
---
kind: source
name: permits
description: What people say on the web.
files: DATA/permits_*.csv
grain: [id]
occurred_at: at
columns:
  id: {type: string}
  at: {type: timestamp}
  email: {type: string, identifier: email}
  granted: {type: boolean}
  wording: {type: string}
---
kind: source
name: contacts
description: The CRM, a copy a month.
files: DATA/contacts/{day}.csv
mode: snapshot
grain: [id]
columns:
  id: {type: string}
  email: {type: string, identifier: email}
  phone: {type: string, identifier: phone}
  city: {type: string}
  may: {type: boolean}
---
kind: source
name: visits
description: Visits and what became of letters.
files: DATA/visits.csv
grain: [id]
occurred_at: at
columns:
  id: {type: string}
  at: {type: timestamp}
  email: {type: string, identifier: email}
  phone: {type: string, identifier: phone}
  gpc: {type: boolean}
  event: {type: string}
---
kind: consent
name: consent
description: Who permits what.
purposes:
  marketing: {description: Offers.}
  ads: {description: Lists given to others., default: yes, shares: true}
channels: {email: {}}
said:
  - {source: permits, purpose: marketing, decision: granted, proof: wording}
  - {source: contacts, purpose: marketing, decision: may, of: [email]}
  - {source: visits, signal: gpc, decision: gpc}
suppressed:
  - {source: visits, when: event = 'bounced', reason: bounce, channel: email}
"""


def at(month: int, day: int) -> datetime:
    return datetime(2026, month, day, 12, tzinfo=UTC)


class House:
    """A project, its files and its lake."""

    def __init__(self, folder: Path, lake: Lake) -> None:
        (folder / "project.yaml").write_text(PROJECT.replace("DATA", str(folder)))
        self.project: Project = load_project(folder, {})
        self.folder, self.lake = folder, lake

    def file(self, name: str, text: str, loaded: datetime) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace(" ", "").strip() + "\n")
        source = self.project.sources[name.split("/")[0].split("_")[0].removesuffix(".csv")]
        load(self.lake, source, self.project, None, loaded, "run")
        self.lake.refresh()


@pytest.fixture
def house(tmp_path: Path, lake: Lake) -> House:
    return House(tmp_path, lake)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with open_ledger("sqlite://") as opened:
        yield opened


@pytest.fixture
def consents(ledger: Ledger) -> ConsentLedger:
    return open_consents(ledger)


def decision(consents: ConsentLedger, value: str, now: datetime, about: str = "purpose:marketing") -> str | None:
    who = ("phone" if value.startswith("+") else "email", value)
    heard = consents.heard([who], [about], now)
    return heard[who].decisions.get(about) if who in heard else None


def test_each_word_is_written_down_once_and_counts_from_when_it_was_said(house: House, consents: ConsentLedger) -> None:
    house.file("permits_1.csv", """
        id,at,email,granted,wording
        1,2026-02-01T08:00:00,ann,true,v1
        2,2026-02-03T08:00:00,ann,false,v1
        3,2026-02-02T08:00:00,bob,true,v2""", at(3, 1))  # fmt: skip
    assert catch_up(consents, house.lake, house.project, at(3, 1)) == {"permits": 3}
    assert catch_up(consents, house.lake, house.project, at(3, 1)) == {}
    assert [decision(consents, "ann", at(2, day)) for day in (1, 2, 3)] == ["granted", "granted", "denied"]
    assert decision(consents, "bob", at(2, 1)) is None
    house.file("permits_2.csv", "id,at,email,granted,wording\n4,2026-03-02T08:00:00,ann,true,v3", at(3, 3))
    assert catch_up(consents, house.lake, house.project, at(3, 3)) == {"permits": 1}
    assert decision(consents, "ann", at(3, 3)) == "granted"
    told = [(row["decision"], row["proof"]) for row in consents.history([("email", "ann")])]
    assert told == [("granted", "v1"), ("denied", "v1"), ("granted", "v3")]


def test_a_copy_of_the_crm_says_something_only_where_it_changes(house: House, consents: ConsentLedger) -> None:
    house.file("permits_1.csv", "id,at,email,granted,wording\n1,2026-02-01T08:00:00,ann,false,v1", at(2, 2))
    head = "id,email,phone,city,may\n"
    # The yes in the first copy may be years old; a move to another town is no new yes; a withdrawal is one.
    for day, line in {
        "2026-03-01": "c1,ann,+441,York,true\nc2,bob,,York,true",
        "2026-04-01": "c1,ann,+441,Leeds,true\nc2,bob,,York,false",
        "2026-05-01": "c1,ann,+441,Leeds,true\nc2,bob,,Hull,false",
        "2026-06-01": "c1,ann,+441,Leeds,true\nc2,bob,,Hull,true",
    }.items():
        house.file(f"contacts/{day}.csv", head + line, datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(1))
        catch_up(consents, house.lake, house.project, at(6, 5))
    months = (3, 4, 5, 6)
    assert [decision(consents, "ann", at(month, 10)) for month in months] == ["denied"] * 4
    assert [decision(consents, "bob", at(month, 10)) for month in months] == ["granted", "denied", "denied", "granted"]
    assert decision(consents, "+441", at(6, 10)) is None  # said for the address alone


def test_a_browser_that_asks_not_to_sell_is_heard_for_every_identifier(house: House, consents: ConsentLedger) -> None:
    house.file("visits.csv", """
        id,at,email,phone,gpc,event
        1,2026-02-01T08:00:00,ann,+441,true,seen
        2,2026-02-01T08:00:00,bob,+442,false,seen""", at(3, 1))  # fmt: skip
    catch_up(consents, house.lake, house.project, at(3, 1))
    said = {who: decision(consents, who, at(3, 1), "purpose:ads") for who in ("ann", "+441", "bob")}
    assert said == {"ann": "denied", "+441": "denied", "bob": None}
    assert decision(consents, "ann", at(3, 1)) is None


def test_a_bounce_is_about_the_address_and_not_about_the_telephone(house: House, consents: ConsentLedger) -> None:
    house.file("visits.csv", "id,at,email,phone,gpc,event\n1,2026-02-01T08:00:00,ann,+441,,bounced", at(3, 1))
    catch_up(consents, house.lake, house.project, at(3, 1))
    found = consents.heard([("email", "ann"), ("phone", "+441")], [], at(3, 1))
    assert {who: list(heard.suppressed) for who, heard in found.items()} == {("email", "ann"): [("bounce", "email")]}
    assert consents.heard([("email", "ann")], [], at(1, 1)) == {}


def test_a_declaration_that_changes_is_read_again_from_the_start(house: House, consents: ConsentLedger) -> None:
    house.file("permits_1.csv", "id,at,email,granted,wording\n1,2026-02-01T08:00:00,ann,true,v1", at(3, 1))
    catch_up(consents, house.lake, house.project, at(3, 1))
    text = (house.folder / "project.yaml").read_text()
    (house.folder / "project.yaml").write_text(
        text.replace("permits, purpose: marketing", "permits, channel: email, when: wording = 'v1'")
    )
    changed = load_project(house.folder, {})
    assert catch_up(consents, house.lake, changed, at(3, 1)) == {"permits": 1}
    assert decision(consents, "ann", at(3, 1), "channel:email") == "granted"


@pytest.mark.parametrize(
    ("before", "after", "who"),
    [
        ("marketing: {description: Offers.}", "marketing: {description: Offers., shares: true}", "ann"),
        ("wording: {type: string}", "wording: {type: string, identifier: phone}", "+441"),
    ],
    ids=["a purpose shares data from now on", "a column is an identifier from now on"],
)
def test_what_was_said_long_ago_is_heard_by_what_is_declared_later(
    house: House, consents: ConsentLedger, before: str, after: str, who: str
) -> None:
    house.file("visits.csv", "id,at,email,phone,gpc,event\n1,2026-02-01T08:00:00,ann,,true,seen", at(3, 1))
    house.file("permits_1.csv", "id,at,email,granted,wording\n1,2026-02-01T08:00:00,bob,false,+441", at(3, 1))
    catch_up(consents, house.lake, house.project, at(3, 1))
    assert decision(consents, who, at(3, 1)) is None
    text = (house.folder / "project.yaml").read_text()
    (house.folder / "project.yaml").write_text(text.replace(before, after))
    catch_up(consents, house.lake, load_project(house.folder, {}), at(3, 1))
    assert decision(consents, who, at(3, 1)) == "denied"
