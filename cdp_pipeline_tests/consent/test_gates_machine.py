"""Any order of yes and no, merges, splits, messages, waiting and a change of clocks: nothing leaves unpermitted.

The model keeps its own record of everything that was said and sent, and shares no code with the gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.protocol import Delivery
from cdp_pipeline_tests.consent.people import Town, World, consent, policy, shop

PEOPLE = ["ann", "bob", "carl"]
ADDRESSES = [("email", f"{name}@example.com") for name in PEOPLE] + [("phone", f"+44{n}") for n in (1, 2, 3)]
ZONES = {"GB": "Europe/London", "US": "America/New_York"}
EVENING = datetime(2026, 3, 27, 17, 0, tzinfo=UTC)  # London's clocks go forward on the 29th, New York's have
PURPOSES = {"offer": "marketing", "reminder": "marketing", "order_sent": "service"}
ABOUT = ["purpose:marketing", "purpose:service", "channel:email", "channel:sms"]
WEEK, DAY = timedelta(days=7), timedelta(days=1)


@dataclass
class Sent:
    """A message that arrived, or may have."""

    at: datetime
    person_id: str
    purpose: str
    channel: str


class GatesMachine(RuleBasedStateMachine):
    """Three people, six identifiers, letters and texts."""

    ledger: Ledger

    @initialize(agreed=st.sampled_from([True, True, False]))
    def start(self, agreed: bool) -> None:
        whole = shop(
            consent(
                jurisdiction="country",
                purposes={"marketing": {"where": {"US": "yes"}}, "service": {"default": "yes"}},
                channels={"email": {"purposes": ["marketing"], "where": {"US": "yes"}}, "sms": {}},
            ),
            policy(
                caps=[{"purposes": ["marketing"], "most": 2, "within": "7 days"}, {"most": 3, "within": "1 day"}],
                quiet_hours=[{"from": "21:00", "to": "08:00", "zone": "country", "zones": ZONES}],
                budgets=[{"channel": "sms", "most": 1, "within": "7 days"}],
            ),
            timezone="Asia/Tokyo",
        )
        self.ledger, self.now = open_ledger("sqlite://"), EVENING
        town = Town(
            {name: {ADDRESSES[n], ADDRESSES[n + 3]} for n, name in enumerate(PEOPLE)},
            attributes={"ann": {"country": "GB"}, "bob": {"country": "US"}, "carl": {}},
        )
        self.world = World(self.ledger, whole, town)
        self.world.before_sending = self.leaves
        self.said: list[tuple[datetime, int, tuple[str, str], str, bool]] = []
        self.out: list[tuple[datetime, tuple[str, str], str, str | None]] = []
        self.cause: dict[str, tuple[str, str, str, str]] = {}
        self.sent: dict[str, Sent] = {}
        self.fates: list[str] = []
        self.newcomers = 0
        for name in PEOPLE if agreed else ():
            self.agree_to_everything(name)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()

    # What may happen

    @rule(who=st.sampled_from(ADDRESSES), about=st.sampled_from(ABOUT), yes=st.booleans())
    def say(self, who: tuple[str, str], about: str, yes: bool) -> None:
        self.said.append((self.now, len(self.said), who, about, yes))
        self.world.say(who, about, "granted" if yes else "denied", self.now)

    @rule(name=st.sampled_from(PEOPLE))
    def agree_to_everything(self, name: str) -> None:
        for who in self.world.town.identifiers.get(self.world.town.living(name), ()):
            for about in ("purpose:marketing", "channel:email", "channel:sms"):
                self.say(who, about, True)

    @rule(who=st.sampled_from(ADDRESSES), reason=st.sampled_from(["bounce", "complaint", "manual"]),
          channel=st.sampled_from(["email", "sms", None]))  # fmt: skip
    def suppress(self, who: tuple[str, str], reason: str, channel: str | None) -> None:
        if sum(one[1] == who for one in self.out) == 0 and len(self.out) < 2:
            self.out.append((self.now, who, reason, channel))
            self.world.suppress(who, reason, self.now, channel)  # type: ignore[arg-type]

    @rule(one=st.sampled_from(PEOPLE), other=st.sampled_from(PEOPLE))
    def merge(self, one: str, other: str) -> None:
        town = self.world.town
        elder, younger = sorted((town.living(one), town.living(other)))
        if elder != younger:
            town.merged[younger] = elder
            town.identifiers[elder] |= town.identifiers.pop(younger)

    @rule(who=st.sampled_from(ADDRESSES))
    def split(self, who: tuple[str, str]) -> None:
        town = self.world.town
        owner = next(person for person, theirs in town.identifiers.items() if who in theirs)
        if len(town.identifiers[owner]) > 1:
            self.newcomers += 1
            town.identifiers[owner].remove(who)
            town.identifiers[f"new{self.newcomers}"] = {who}

    @rule(name=st.sampled_from(PEOPLE), what=st.sampled_from(list(PURPOSES)), by=st.sampled_from(["mail", "texts"]),
          at_once=st.booleans())  # fmt: skip
    def decide(self, name: str, what: str, by: str, at_once: bool) -> None:
        to = f"{name}@example.com" if by == "mail" else ADDRESSES[3 + PEOPLE.index(name)][1]
        op_id = self.world.decide(f"trigger:{what}", name, self.now, by, payload={"to": to})
        self.cause[op_id] = (name, what, by, to)
        if at_once:
            self.deliver([])

    @rule(hours=st.sampled_from([0.01, 0.5, 3, 11, 15, 26, 80]))
    def wait(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    @rule(fates=st.lists(st.sampled_from(["delivered", "delivered", "delivered", "retry", "unknown"]), max_size=4))
    def deliver(self, fates: list[str]) -> None:
        self.fates = fates
        outcomes = self.world.post(self.now)
        self.now += timedelta(seconds=1)
        for op_id, reason in outcomes.items():
            self.refused_rightly(op_id, reason)

    # What has to hold

    def leaves(self, delivery: Delivery, now: datetime) -> str:
        """Asked at the very moment something leaves the house."""
        name, what, by, to = self.cause[delivery.op_id]
        channel, purpose = ("email" if by == "mail" else "sms"), PURPOSES[what]
        person = self.world.town.living(name)
        assert self.objection(person, purpose, channel, to, now) is None
        self.keeps_to_the_policy(person, purpose, channel, now)
        fate = self.fates.pop() if self.fates else "delivered"
        if fate != "retry":
            self.sent[delivery.op_id] = Sent(now, name, purpose, channel)
        return fate

    def objection(self, person: str, purpose: str, channel: str, to: str, now: datetime) -> str | None:
        """Whether anything that was ever said or done speaks against it, straight from the record."""
        voices = self.world.town.identifiers[person] | {("email" if channel == "email" else "phone", to)}
        for at, who, reason, by in self.out:
            if at > now or who not in voices or by not in (None, channel):
                continue
            if reason != "bounce" or who[1] == to:
                return reason
        country = self.world.town.attributes.get(person, {}).get("country")
        silent = {"purpose:service": True, "purpose:marketing": country == "US"}
        silent |= {"channel:email": country == "US", "channel:sms": False}
        asked = [f"purpose:{purpose}"]
        if channel == "sms" or purpose == "marketing":
            asked.append(f"channel:{channel}")
        for about in asked:
            last = {}
            for at, _, who, what, yes in sorted(self.said, key=lambda one: (one[0], not one[4], one[1])):
                if at <= now and who in voices and what == about:
                    last[who] = yes
            if not (all(last.values()) if last else silent[about]):
                return about
        return None

    def keeps_to_the_policy(self, person: str, purpose: str, channel: str, now: datetime) -> None:
        theirs = [one for one in self.sent.values() if self.world.town.living(one.person_id) == person]
        offers = [one for one in theirs if one.purpose == "marketing" and one.at > now - WEEK]
        assert purpose != "marketing" or len(offers) < 2
        assert len([one for one in theirs if one.at > now - DAY]) < 3
        texts = [one for one in self.sent.values() if one.channel == "sms" and one.at > now - WEEK]
        assert channel != "sms" or not texts
        country = self.world.town.attributes.get(person, {}).get("country")
        shows = now.astimezone(ZoneInfo(ZONES.get(str(country), "Asia/Tokyo"))).time()
        assert time(8) <= shows < time(21)

    def refused_rightly(self, op_id: str, reason: str) -> None:
        """What was refused now for what somebody said was indeed objectionable: the gates are no wall."""
        name, what, by, to = self.cause[op_id]
        refused_before = getattr(self, "settled", set())
        if reason.startswith(("gate: consent", "gate: permission", "gate: suppressed")) and op_id not in refused_before:
            channel = "email" if by == "mail" else "sms"
            assert self.objection(self.world.town.living(name), PURPOSES[what], channel, to, self.now) is not None
            self.settled = refused_before | {op_id}

    @invariant()
    def who_is_suppressed_was_never_delivered_to(self) -> None:
        if hasattr(self, "ledger"):
            rows = self.ledger.about([*PEOPLE])
            assert all(row["op_id"] not in self.sent for row in rows if row["state"] == "suppressed")
            assert {str(row["op_id"]) for row in rows if row["state"] == "delivered"} <= self.sent.keys()


TestGatesMachine = GatesMachine.TestCase
TestGatesMachine.settings = settings(max_examples=40, stateful_step_count=30)
