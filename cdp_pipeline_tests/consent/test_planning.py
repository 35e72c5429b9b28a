"""A sync puts nobody where they may not be, takes out who may not stay, and takes back who says yes again."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cdp_pipeline
from cdp_pipeline.activation.claims import Claimed
from cdp_pipeline.activation.gates import ContactGates
from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.plan import plan
from cdp_pipeline.activation.protocol import Delivery
from cdp_pipeline.activation.sync import approve, conservation, holds, submit
from cdp_pipeline_tests.activation.projects import NOW, sync
from cdp_pipeline_tests.consent.people import Town, World, consent, policy, shop

HOUR = timedelta(hours=1)
ADS = sync(name="ads", destination="tool", purpose="marketing", mapping={"person_id": "person_id", "email": "email"})
KNOWN: Mapping[str, Mapping[str, object]] = {
    name: {"person_id": name, "email": f"{name}@example.com"} for name in ("ann", "bob", "carl")
}


class Club(World):
    """Three members, and what the tool is told of them."""

    def __init__(self, ledger: Ledger) -> None:
        town = Town({name: {("email", str(known["email"]))} for name, known in KNOWN.items()})
        super().__init__(ledger, shop(consent(), ADS), town)

    def say_yes(self, name: str, at: datetime, yes: bool = True) -> None:
        self.say(("email", f"{name}@example.com"), "purpose:marketing", "granted" if yes else "denied", at)

    def round(self, at: datetime) -> tuple[dict[str, str], set[str]]:
        """Plan and send: why people were barred, and whom the tool holds then."""
        gates = ContactGates(self.ledger, self.project, self.consents, self.town)
        barred = gates.barred(ADS, pa.Table.from_pylist([*KNOWN.values()]), self.project.destinations["tool"], at)
        found = plan(ADS, KNOWN, KNOWN, holds(self.ledger, ADS), barred)
        if submit(self.ledger, found, dry_run=False, now=at).state == "held":
            approve(self.ledger, found.plan_id, by="tests", now=at)
            submit(self.ledger, found, dry_run=False, now=at)
        self.post(at)
        assert conservation(self.ledger, ADS, KNOWN).missing == 0
        return barred, {key for key, held in holds(self.ledger, ADS).items() if held.present}


def test_who_takes_back_their_yes_leaves_the_mirror_and_who_gives_it_again_returns(ledger: Ledger) -> None:
    club = Club(ledger)
    for name in ("ann", "bob"):
        club.say_yes(name, NOW)
    unknown, denied = "gate: consent: marketing: unknown", "gate: consent: marketing: denied"
    assert club.round(NOW) == ({"carl": unknown}, {"ann", "bob"})
    club.say_yes("ann", NOW + HOUR, False)
    assert club.round(NOW + 2 * HOUR) == ({"carl": unknown, "ann": denied}, {"bob"})
    for name in ("ann", "carl"):
        club.say_yes(name, NOW + 3 * HOUR)
    assert club.round(NOW + 4 * HOUR) == ({}, {"ann", "bob", "carl"})


def test_a_yes_taken_back_between_planning_and_sending_holds_and_is_no_dead_end(ledger: Ledger) -> None:
    club = Club(ledger)
    for name in KNOWN:
        club.say_yes(name, NOW)
    gates = ContactGates(ledger, club.project, club.consents, club.town)
    found = plan(
        ADS,
        KNOWN,
        KNOWN,
        {},
        gates.barred(ADS, pa.Table.from_pylist([*KNOWN.values()]), club.project.destinations["tool"], NOW),
    )
    submit(ledger, found, dry_run=False, now=NOW)
    approve(ledger, found.plan_id, by="tests", now=NOW)
    submit(ledger, found, dry_run=False, now=NOW)
    club.say_yes("ann", NOW + HOUR, False)
    club.post(NOW + HOUR)
    assert {key for key, held in holds(ledger, ADS).items() if held.present} == {"bob", "carl"}
    assert conservation(ledger, ADS, KNOWN).states["suppressed"] == 1
    club.say_yes("ann", NOW + 2 * HOUR)
    assert club.round(NOW + 3 * HOUR) == ({}, {"ann", "bob", "carl"})


def test_an_erased_member_is_taken_out_whatever_else_they_said(ledger: Ledger) -> None:
    club = Club(ledger)
    for name in KNOWN:
        club.say_yes(name, NOW)
    assert club.round(NOW)[1] == {"ann", "bob", "carl"}
    club.suppress(("email", "bob@example.com"), "erasure", NOW + HOUR)
    assert club.round(NOW + 2 * HOUR) == ({"bob": "gate: suppressed: erasure"}, {"ann", "carl"})


def test_nobody_in_the_house_delivers_past_the_gates() -> None:
    past = []
    for path in Path(cdp_pipeline.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in (
                "deliver", "plan_all", "alert",
            ):  # fmt: skip
                past += [] if any(word.arg == "gates" for word in node.keywords) else [f"{path.name}:{node.lineno}"]
    assert past == []


ADDRESSES = [("email", f"{name}@example.com") for name in KNOWN] + [("phone", f"+44{n}") for n in range(3)]
DENIED = {"purposes": {"marketing": {"where": {"US": "yes"}}}, "channels": {"email": {"where": {"GB": "yes"}}}}
words = st.tuples(
    st.sampled_from(ADDRESSES), st.sampled_from(["purpose:marketing", "channel:email"]),
    st.sampled_from(["granted", "denied"]), st.integers(-2, 2),
)  # fmt: skip
exclusions = st.tuples(
    st.sampled_from(ADDRESSES), st.sampled_from(["erasure", "manual", "bounce", "complaint"]),
    st.sampled_from([None, "email", "sms"]), st.integers(-2, 1),
)  # fmt: skip


BOUNCED: dict[str, Any] = {
    "owners": ["ann", "bob", "carl"] * 2, "merged": False, "said": [], "places": [None] * 3, "mails": True,
    "purpose": "marketing", "asks": False, "lifted": False,
}  # fmt: skip


@settings(max_examples=60)
@given(
    owners=st.lists(st.sampled_from([*KNOWN, "nobody"]), min_size=len(ADDRESSES), max_size=len(ADDRESSES)),
    merged=st.booleans(), said=st.lists(words, max_size=8), out=st.lists(exclusions, max_size=3),
    places=st.lists(st.sampled_from(["US", "GB", None]), min_size=3, max_size=3), mails=st.booleans(),
    purpose=st.sampled_from(["marketing", None, "forgotten"]), asks=st.booleans(), lifted=st.booleans(),
)  # fmt: skip
@example(**BOUNCED, out=[(("email", "carl@example.com"), "bounce", None, -1)])  # the address in use
@example(**BOUNCED, out=[(("email", "ann@example.com"), "bounce", None, -1)])  # another of the same person's
def test_a_whole_audience_is_judged_as_each_of_them_is_at_the_moment_of_sending(
    owners: list[str], merged: bool, said: list[Any], out: list[Any], places: list[str | None], mails: bool,
    purpose: str | None, asks: bool, lifted: bool,
) -> None:  # fmt: skip
    ads = ADS.model_copy(update={"purpose": purpose, "destination": "mail" if mails else "tool"})
    documents = [
        ads,
        policy(controls=[{"name": "year", "share": 0.3}, {"name": "ads", "share": 0.3, "syncs": ["ads"]}]),
    ]
    whole = shop(*documents, *([consent(jurisdiction="country", **DENIED)] if asks else []))
    with open_ledger("sqlite://") as ledger:
        town = Town(attributes={name: {"country": place} for name, place in zip(KNOWN, places, strict=True) if place})
        for address, owner in zip(ADDRESSES, owners, strict=True):
            town.identifiers.setdefault(owner, set()).add(address)
        if merged:
            town.merged["bob"] = "ann"
            town.identifiers.setdefault("ann", set()).update(town.identifiers.pop("bob", ()))
        world = World(ledger, whole, town)
        for who, about, decision, days in said:
            world.say(who, about, decision, NOW + 24 * days * HOUR)
        for who, reason, by, days in out:
            world.suppress(who, reason, NOW + 24 * days * HOUR, by)
        if lifted:
            world.consents.lift(ADDRESSES, "manual", NOW - HOUR)
        # One member's address is somebody else's by now, another's is empty.
        people = [
            {**one, "email": mail} for one, mail in zip(KNOWN.values(), ("carl@example.com", "", None), strict=True)
        ]
        destination = whole.destinations[ads.destination]
        texts = {name: pa.array([one[name] for one in people], pa.string()) for name in ("person_id", "email")}
        barred = ContactGates(ledger, whole, world.consents, town).barred(ads, pa.table(texts), destination, NOW)
        claimed = [
            Claimed(Delivery(name, "add", {"data": one}), 1, 1, 1, "sync:ads", ads.destination, name, name, NOW)
            for name, one in zip(KNOWN, people, strict=True)
        ]
        refused = ContactGates(ledger, whole, world.consents, town).refusals(claimed, destination, NOW)
        assert barred == {one.op_id: one.reason for one in refused.values()}
