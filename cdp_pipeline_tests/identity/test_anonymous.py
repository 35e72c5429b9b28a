"""Anonymous to known: history before the login is the person's, a device of several people keeps what nobody signed.

Every expectation is written by hand, as a reader of the rows would say it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

import ibis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.identity.rows import person_of_rows
from cdp_pipeline.profile.timeline import timeline
from cdp_pipeline.spec.identifier import Identifier
from cdp_pipeline.spec.project import IdentitySettings, Project
from cdp_pipeline.spec.source import EventMapping
from cdp_pipeline_tests.identity.shop import (
    CRM,
    TILL,
    WEB,
    Resolved,
    Row,
    ibis_tables,
    identifier,
    partition,
    persons,
    project,
    resolved,
)

DEVICE = "anonymous_id"


def shop(strategy: str = "conversion", **of_cookies: Any) -> Project:
    """A shop where a browser is one person's: two people on it make it a device of several."""
    types = {
        "customer_id": identifier("customer_id", priority=900, unique=True),
        "email": identifier("email", priority=500),
        DEVICE: identifier(
            DEVICE, **({"priority": 100, "known": False, "shared_above": 1, "people_by": ["email"]} | of_cookies)
        ),
    }
    events = [EventMapping(column="event", names=["looked", "signed"])]
    whole = project(types, sources={one.name: one.model_copy(update={"events": events}) for one in (WEB, TILL, CRM)})
    settings = whole.settings.model_copy(update={"identity": IdentitySettings.model_validate({"strategy": strategy})})
    return dataclasses.replace(whole, settings=settings)


def numbered(found: Iterable[Row]) -> list[Row]:
    return [dataclasses.replace(row, record=place, event="looked") for place, row in enumerate(found)]


def whose(found: list[Row], of: Project) -> tuple[list[str | None], Resolved]:
    """The person each row's event on the timeline belongs to, in the order of the rows; and who is who."""
    result = resolved(found, of=of)
    sources = {name: table for name, table in ibis_tables(found).items() if name in of.sources}
    told = timeline(sources, ibis.memtable(result.identifiers), of).to_pyarrow().to_pylist()
    person = {row["event_id"].partition(":")[0]: row["person_id"] for row in told}
    return [person[row.record_id] for row in found], result


def kinds(result: Resolved) -> dict[str, str]:
    return {row["person_id"]: row["kind"] for row in result.people.to_pylist()}


def status(result: Resolved, value: str) -> str:
    (found,) = [row["status"] for row in result.identifiers.to_pylist() if row["value"] == value]
    return found


def test_what_thirty_customers_left_on_a_tablet_is_theirs_only_where_they_signed_in() -> None:
    """Each looks around on the store's tablet, signs in, looks on; at home each has a browser of their own."""
    found = []
    for number in range(1, 31):
        found += [
            Row("web", 0, number, cookie="tablet"),
            Row("web", 0, number, cookie="tablet", customer=number),
            Row("web", 0, number, cookie=f"home{number}"),
            Row("web", 0, number, cookie=f"home{number}", customer=number),
        ]
    found = numbered(found)
    theirs, result = whose(found, shop())
    whose_is = persons(result)
    for row, person in zip(found, theirs, strict=True):
        if row.customer is None and row.cookie == "tablet":
            assert person == whose_is[DEVICE, "tablet"]
        else:
            signed = str(row.customer or (row.cookie or "").removeprefix("home"))
            assert person == whose_is["customer_id", signed]
    assert status(result, "tablet") == "shared"
    assert kinds(result)[str(whose_is[DEVICE, "tablet"])] == "anonymous"
    assert len({whose_is["customer_id", str(number)] for number in range(1, 31)}) == 30
    assert max(len(group) for group in partition(result)) == 2


def test_a_family_computer_keeps_what_nobody_signed_and_each_has_their_own() -> None:
    found = numbered([
        Row("web", 0, 1, cookie="family"),
        Row("web", 0, 2, cookie="family", customer=1, mail="ann@example.com"),
        Row("web", 0, 3, cookie="family"),
        Row("web", 0, 4, cookie="family", customer=2, mail="bob@example.com"),
        Row("web", 0, 5, cookie="family"),
    ])  # fmt: skip
    theirs, result = whose(found, shop())
    ann, bob, family = (
        persons(result)[one] for one in (("customer_id", "1"), ("customer_id", "2"), (DEVICE, "family"))
    )
    assert theirs == [family, ann, family, bob, family]
    assert len({ann, bob, family}) == 3 and status(result, "family") == "shared"


def test_two_people_without_a_customer_number_are_told_apart_by_their_addresses() -> None:
    """One orders as a guest, one has a card: no unique value tells them apart, two addresses do."""
    found = numbered([
        Row("web", 0, 1, cookie="family", mail="ann@example.com"),
        Row("web", 0, 2, cookie="family", mail="bob@example.com"),
        Row("till", 0, 3, mail="bob@example.com", customer=7),
    ])  # fmt: skip
    theirs, result = whose(found, shop())
    assert theirs[0] != theirs[1] == theirs[2] and status(result, "family") == "shared"
    reason = next(row["why"] for row in result.identifiers.to_pylist() if row["value"] == "family")
    assert reason == "seen with 2 people told apart by email, more than 1"


def test_two_addresses_that_one_customer_number_ties_are_one_person() -> None:
    found = numbered([
        Row("web", 0, 1, cookie="hers", mail="ann@example.com"),
        Row("web", 0, 2, cookie="hers", mail="ann@work.example.com"),
        Row("till", 0, 3, mail="ann@example.com", customer=7),
        Row("till", 0, 4, mail="ann@work.example.com", customer=7),
    ])  # fmt: skip
    theirs, result = whose(found, shop())
    assert len(set(theirs)) == 1 and status(result, "hers") == "ok"


def test_a_number_and_an_address_that_only_a_browser_ties_are_one_person() -> None:
    """Nothing says that they are two: who signs in with a number and types an address is taken to be one."""
    found = numbered([Row("web", 0, 1, cookie="k", customer=1), Row("web", 0, 2, cookie="k", mail="ann@example.com")])
    theirs, result = whose(found, shop())
    assert len(set(theirs)) == 1 and status(result, "k") == "ok"


def test_all_that_was_done_before_the_login_is_the_persons_however_long_ago() -> None:
    """Four hundred days of looking, several times a day, and then one login."""
    found = [Row("web", 0, day, cookie="k") for day in range(400) for _ in range(3)]
    found = numbered([*found, Row("web", 0, 400, cookie="k", customer=1)])
    theirs, result = whose(found, shop())
    assert Counter(theirs) == {persons(result)["customer_id", "1"]: 1_201}
    assert kinds(result)[str(theirs[0])] == "known"


def test_a_browser_that_forgot_its_cookie_is_anonymous_until_the_next_login() -> None:
    before = [Row("web", 0, 1, cookie="k1", customer=1), Row("web", 0, 2, cookie="k1"), Row("web", 0, 3, cookie="k2")]
    theirs, result = whose(numbered(before), shop())
    assert theirs[0] == theirs[1] != theirs[2] and kinds(result)[str(theirs[2])] == "anonymous"
    later, again = whose(numbered([*before, Row("web", 0, 4, cookie="k2", customer=1)]), shop())
    assert set(later) == {persons(again)["customer_id", "1"]}


def test_a_computer_sold_on_is_shared_until_the_sellers_link_expires() -> None:
    """NOW is day 59: with links that last 30 days, what the seller did lies outside and the computer is the buyer's."""
    found = numbered([
        Row("web", 0, 1, cookie="pc", customer=1),
        Row("web", 0, 2, cookie="pc"),
        Row("web", 0, 50, cookie="pc", customer=2),
        Row("web", 0, 51, cookie="pc"),
    ])  # fmt: skip
    theirs, result = whose(found, shop())
    seller, buyer, computer = (
        persons(result)[one] for one in (("customer_id", "1"), ("customer_id", "2"), (DEVICE, "pc"))
    )
    assert theirs == [seller, computer, buyer, computer] and len({seller, buyer, computer}) == 3
    theirs, result = whose(found, shop(expires="30 days"))
    assert [theirs[0], theirs[2], theirs[3]] == [
        persons(result)["customer_id", "1"],
        *[persons(result)["customer_id", "2"]] * 2,
    ]
    assert status(result, "pc") == "ok" and theirs[0] != theirs[2]


def test_a_login_that_expired_leaves_what_was_signed_and_gives_the_device_back() -> None:
    found = numbered([
        Row("web", 0, 1, cookie="k"),
        Row("web", 0, 2, cookie="k", customer=1),
        Row("web", 0, 50, cookie="k"),
    ])  # fmt: skip
    theirs, result = whose(found, shop(expires="30 days"))
    assert theirs[0] == theirs[2] != theirs[1] == persons(result)["customer_id", "1"]
    assert kinds(result)[str(theirs[0])] == "anonymous"


_FAMILY_DAY = numbered([
    Row("web", 0, 1, cookie="family"),
    Row("web", 0, 2, cookie="family", customer=1),
    Row("web", 0, 3, cookie="family"),
    Row("web", 0, 4, cookie="family"),
    Row("web", 0, 5, cookie="family", customer=2),
    Row("web", 0, 6, cookie="family"),
])  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("conversion", ["device", 1, "device", "device", 2, "device"]),
        ("link", [1, 1, 2, 2, 2, "device"]),
        ("isolation", ["device", 1, "device", "device", 2, "device"]),
        ("strict", ["device", 1, "device", "device", 2, "device"]),
    ],
)
def test_each_strategy_says_whose_the_unsigned_rows_of_a_family_computer_are(
    strategy: str, expected: list[int | str]
) -> None:
    theirs, result = whose(_FAMILY_DAY, shop(strategy))
    named = {1: ("customer_id", "1"), 2: ("customer_id", "2"), "device": (DEVICE, "family")}
    assert theirs == [persons(result)[named[one]] for one in expected]


def test_linking_gives_nobody_a_row_without_a_device() -> None:
    found = numbered([Row("till", 0, 1), Row("till", 0, 2, customer=1), *_FAMILY_DAY])
    theirs, result = whose(found, shop("link"))
    assert theirs[:2] == [None, persons(result)["customer_id", "1"]]


def test_the_best_match_has_the_computer_and_what_nobody_signed_on_it() -> None:
    """Who was seen on it last is the better match of two alike."""
    theirs, result = whose(_FAMILY_DAY, shop("best_match"))
    ann, bob = persons(result)["customer_id", "1"], persons(result)["customer_id", "2"]
    assert theirs == [bob, ann, bob, bob, bob, bob] and ann != bob


@pytest.mark.parametrize(
    ("strategy", "before_login"), [("conversion", "person"), ("link", "person"), ("isolation", "device")]
)
def test_each_strategy_says_whose_the_history_of_ones_own_browser_is(strategy: str, before_login: str) -> None:
    found = numbered([
        Row("web", 0, 1, cookie="k"),
        Row("web", 0, 2, cookie="k", customer=1),
        Row("web", 0, 3, cookie="k"),
    ])  # fmt: skip
    theirs, result = whose(found, shop(strategy))
    assert theirs[1] == persons(result)["customer_id", "1"]
    assert (theirs[0] == theirs[1], theirs[2] == theirs[1]) == (before_login == "person",) * 2
    assert theirs[0] == theirs[2]


# Two devices, few people, and few rows that name two things at once: people meet on devices, seldom tied elsewhere.
_MAILS = ["ann@example.com", "bob@example.com", "cy@example.com", "test@example.com"]


@st.composite
def meetings(draw: st.DrawFn) -> list[Row]:
    browsing = st.builds(
        Row, source=st.sampled_from(["web", "web", "till"]), record=st.just(0), day=st.integers(0, 5),
        cookie=st.sampled_from(["k1", "k2"]), customer=st.sampled_from([None, None, None, 1, 2]),
        mail=st.sampled_from([None, *_MAILS]),
    )  # fmt: skip
    buying = st.builds(
        Row, source=st.just("till"), record=st.just(0), day=st.integers(0, 5), mail=st.sampled_from([None, *_MAILS]),
        customer=st.sampled_from([None, 1, 2, 3]), cookie=st.sampled_from([None, None, "anonymous"]),
    )  # fmt: skip
    found = draw(st.lists(browsing, min_size=3, max_size=9)) + draw(st.lists(buying, max_size=3))
    return numbered(found)


def known_next(found: list[Row], result: Resolved, place: int) -> str | None:
    """By hand: the row's own person; else, on a shared device, that of the next row on it with one; else the device."""
    states = {(row["type"], row["value"]): row for row in result.identifiers.to_pylist()}

    def own(row: Row) -> str | None:
        ones = [("customer_id", str(row.customer)), ("email", str(row.mail)), (DEVICE, str(row.cookie))]
        people = (states[one]["person_id"] for one in ones if one in states and states[one]["status"] == "ok")
        return next((person for person in people if person is not None), None)

    def moment(row: Row) -> tuple[int, str]:
        return row.day, row.record_id

    row = found[place]
    device = states.get((DEVICE, str(row.cookie)))
    if own(row) is not None or device is None:
        return own(row)
    beside = (other for other in found if (other.source, other.cookie) == (row.source, row.cookie))
    later = sorted((other for other in beside if moment(other) >= moment(row)), key=moment)
    theirs = next((own(other) for other in later if own(other) is not None), None)
    return theirs if theirs is not None and device["status"] == "shared" else device["person_id"]


@settings(max_examples=8)
@given(meetings())
def test_linking_gives_a_shared_devices_rows_to_whoever_is_known_there_next(found: list[Row]) -> None:
    of = shop("link")
    result = resolved(found, of=of)
    got: dict[str, str | None] = {}
    for name, table in ibis_tables(found).items():
        if name in of.sources:
            told = person_of_rows(table, of.sources[name], ibis.memtable(result.identifiers), of)
            got |= {row["_record_id"]: row["person_id"] for row in told.to_pyarrow().to_pylist()}
    assert [got[row.record_id] for row in found] == [known_next(found, result, place) for place in range(len(found))]


def _shared_by_hand(found: list[Row], types: dict[str, Identifier]) -> set[str]:
    """Cookies seen with two customer numbers, or with two addresses that no chain of stronger identifiers ties."""
    blocked = {row["value"] for row in resolved(found, of=shop()).identifiers.to_pylist() if row["status"] == "blocked"}
    groups: list[set[tuple[str, str]]] = []
    for row in found:
        strong = {one for one in row.identifiers if one[0] != DEVICE and one[1] not in blocked}
        touched = [group for group in groups if group & strong]
        groups = [group for group in groups if not group & strong] + ([set.union(strong, *touched)] if strong else [])
    shared = set()
    for cookie in {row.cookie for row in found if row.cookie} - blocked:
        met = {one for row in found if row.cookie == cookie for one in row.identifiers}
        numbers = {one for one in met if one[0] == "customer_id"}
        addressed = [group for group in groups if group & met and any(one[0] == "email" for one in group)]
        if len(numbers) > 1 or len(addressed) > 1:
            shared.add(cookie)
    return shared


@settings(max_examples=40)
@given(meetings())
def test_a_device_is_shared_exactly_when_it_met_two_people(found: list[Row]) -> None:
    result = resolved(found, of=shop())
    marked = {row["value"] for row in result.identifiers.to_pylist() if row["status"] == "shared"}
    assert marked == _shared_by_hand(found, shop().identifiers)
    for group in partition(result):
        assert len(group) == 1 or not any(value in marked for _, value in group)


@settings(max_examples=40)
@given(meetings())
def test_who_met_on_a_device_is_decided_together_though_it_joins_nobody(found: list[Row]) -> None:
    """What the incremental run relies on: should one thing tie those two, the device is one person's again."""
    result = resolved(found, of=shop())
    of = {(row["type"], row["value"]): row for row in result.identifiers.to_pylist()}
    for device in (one for one, row in of.items() if "told apart" in (row["why"] or "")):
        met = {one for row in found if device in row.identifiers for one in row.identifiers}
        assert {of[one]["component"] for one in met if of[one]["status"] == "ok"} == {of[device]["component"]}


def test_a_placeholder_or_a_tablet_is_nobody_met_on_a_device() -> None:
    found = numbered([
        Row("web", 0, 1, cookie="k", mail="ann@example.com"),
        Row("web", 0, 2, cookie="k", mail="test@example.com"),
        Row("till", 0, 3, mail="test@example.com", customer=2),
    ])  # fmt: skip
    assert status(resolved(found, of=shop()), "k") == "ok"
