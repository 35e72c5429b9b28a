"""The seven stories of the demo, from the row in a source to the message somebody receives.

All in one company on one Friday morning, 16 January 2026, at ten. Each begins with the rows that are given to a source,
goes on with what the company does (`acts`, `delivers`), and ends with what arrived: `tasks` in the CRM, `letters` in
the post. In between lies the platform: rows are loaded, people found in them, traits computed, gates passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.live import Follower
from cdp_pipeline.activation.refresh import plan_all
from cdp_pipeline.activation.sync import approve, waiting
from cdp_pipeline.activation.tables import prevented_rows
from cdp_pipeline.lake import open_lake
from cdp_pipeline.predictions.kind import Champion
from cdp_pipeline.sources.demo import generate
from cdp_pipeline.spec.load import DEMO, load_project
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.destinations.servers import SECRET, Mailbox, Receiver
from cdp_pipeline_tests.stories.company import Company

THURSDAY, FRIDAY = date(2026, 1, 15), date(2026, 1, 16)
TEN = datetime(2026, 1, 16, 10, tzinfo=UTC)
ONE_DAY = timedelta(days=1)
BEGINNING: list[tuple[str, str, dict[str, Any]]] = []
"""What lies in the sources on that morning, beside what the generated company exports."""


def given(source: str, day: str, **cells: Any) -> None:
    """A row lies in a source's export of a day when the company opens on that morning."""
    BEGINNING.append((source, day, cells))


def customer(name: str, number: str) -> str:
    """Somebody the CRM knows, who permits e-mail; their address."""
    email = f"{name.lower()}@{name.lower()}-family.co.uk"
    given(
        "crm_contacts", "2026-01-11", contact_id=f"K90000{number}", customer_id=f"C90000{number}", given_name=name,
        family_name=f"Story{number}", email=email, country="GB", loyalty_tier="silver", email_consent="true",
        phone=f"+44 7700 9001{number}", looked_after_by="eve.murray", created_on="2025-12-01",
        updated_at="2026-01-11T08:00:00Z",
    )  # fmt: skip
    return email


ANN, BEN, CHLOE, DAN, EMMA, FAY, FINN, GAIL = (
    customer(name, f"{number:02}")
    for number, name in enumerate(("Ann", "Ben", "Chloe", "Dan", "Emma", "Fay", "Finn", "Gail"), start=1)
)


@pytest.fixture(scope="module")
def crm() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def post() -> Iterator[Mailbox]:
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory, crm: Receiver, post: Mailbox) -> Iterator[Company]:
    """The demo, allowed to send: its webhooks and its mail server are ours."""
    place = tmp_path_factory.mktemp("stories")
    folder = generate(place / "data", 25, 5, seed=4, last_day=THURSDAY).folder
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "CDP_DATA": folder, "CDP_LAKE": place / "lake", "CDP_DRY_RUN": "false", "CDP_WEBHOOK_SECRET": SECRET,
            "CDP_WEBHOOK_ALLOW_PRIVATE": "true", "CDP_WEBHOOK_URL": crm.url, "CDP_CRM_URL": crm.url,
            "CDP_SMTP_PORT": post.port,
        }.items():  # fmt: skip
            environment.setenv(name, str(value))
        project = load_project(DEMO)
    with open_lake(LakeLocation(path=str(place / "lake"))) as lake:
        found = Company(project, folder, lake)
        for source, day, cells in BEGINNING:
            found.arrives(source, day, **cells)
        found.load(TEN)
        found.compute(THURSDAY)
        yield found


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as opened:
        yield opened


def tasks(crm: Receiver, kind: str, **what: Any) -> list[dict[str, Any]]:
    """The signed requests of a kind that the CRM received with these fields."""
    bodies = [request.json for request in crm.requests if request.is_signed_with(b"a key that only tests know")]
    return [
        body["data"] for body in bodies
        if body["type"] == kind and what.items() <= body["data"].items()
    ]  # fmt: skip


def letters(post: Mailbox, email: str) -> list[EmailMessage]:
    return [message for message in post.messages if message["To"] == email]


def words(message: EmailMessage) -> str:
    return " ".join(message.get_content().split())


def prevented(ledger: Ledger) -> list[tuple[object, ...]]:
    return [tuple(row.values())[:4] for row in prevented_rows(ledger).to_pylist()]


given(
    "surveys", "2026-01-15", survey_id="N1", survey="nps_answered", answered_at="2026-01-15T19:12:00Z", email=ANN,
    score="2", comment="Nobody ever answers.",
)  # fmt: skip


def test_low_points_become_a_task_for_the_colleague_who_looks_after_the_customer(
    company: Company, ledger: Ledger, crm: Receiver
) -> None:
    """On Thursday evening Ann gives us two points of ten. Eve Murray, who looks after her, is to call: once."""
    company.acts(ledger, TEN, "unhappy_customer")
    [task] = tasks(crm, "trigger.unhappy_customer", given_name="Ann")
    assert (task["owner"], task["points"], task["tier"]) == ("eve.murray", 2, "silver")
    company.acts(ledger, TEN + timedelta(hours=1), "unhappy_customer")  # An hour later it is no news any more.
    assert len(tasks(crm, "trigger.unhappy_customer", given_name="Ann")) == 1


given(
    "iot_events", "2026-01-16", event="device_alarm", event_id="i900", reported_at="2026-01-16T09:41:00Z",
    serial_number="SN77", customer_id="C9000002", alarm="leak", battery=61,
)  # fmt: skip
given(
    "iot_events", "2026-01-16", event="device_alarm", event_id="i901", reported_at="2026-01-16T09:43:00Z",
    serial_number="SN78", customer_id="C9000004", alarm="smoke", battery=50,
)  # fmt: skip


def test_an_alarm_of_a_device_becomes_a_task_before_its_owner_opens_a_ticket(
    company: Company, ledger: Ledger, crm: Receiver
) -> None:
    """A sensor under Ben's sink reports a leak, one at Dan's smoke. Ben has not called us about it yet; Dan has."""
    company.acts(ledger, TEN, "device_in_trouble")
    [task] = tasks(crm, "trigger.device_in_trouble", given_name="Ben")
    assert (task["alarm"], task["device"], task["owner"]) == ("leak", "SN77", "eve.murray")
    # Dan opened a ticket on Thursday, of which below: we are talking to him already.
    assert tasks(crm, "trigger.device_in_trouble", given_name="Dan") == []
    assert ("unless", "device_in_trouble", FRIDAY, 1) in prevented(ledger)


given(
    "reviews", "", review_id="B900", written_at="2026-01-15T22:05:00Z", customer_id="C9000003", sku="S1",
    category="garden", stars=1, text="It fell apart.",
)  # fmt: skip


def test_a_bad_review_is_answered_by_a_letter_in_office_hours(company: Company, ledger: Ledger, post: Mailbox) -> None:
    """Late on Thursday Chloe gives one star. We write to her, though not at seven in the morning."""
    seven = TEN - timedelta(hours=3)
    company.acts(ledger, seven, "bad_review")
    assert letters(post, CHLOE) == []
    company.delivers(ledger, TEN)
    [letter] = letters(post, CHLOE)
    assert letter["Subject"] == "What went wrong, Chloe?"
    assert 'what you bought in "garden" is not what you hoped for' in words(letter)


given(
    "web_events", "2026-01-16", event="cart_added", event_id="w900", occurred_at="2026-01-16T06:40:00Z",
    anonymous_id="a-emma", customer_id="C9000005", channel="web", category="kitchen", quantity=1, amount=39.9,
)  # fmt: skip
given(
    "web_events", "2026-01-16", event="cart_added", event_id="w901", occurred_at="2026-01-16T07:10:00Z",
    anonymous_id="a-fay", customer_id="C9000006", channel="web", category="kitchen", quantity=1, amount=12,
)  # fmt: skip
given(
    "shop_orders", "2026-01-16", order_id="O900", line="1", ordered_at="2026-01-16T09:05:00Z", customer_id="C9000006",
    email=FAY, channel="web", sku="S2", category="kitchen", quantity="1", unit_price="12.00", discount="0.00",
    total="12.00", order_total="12.00", currency="GBP", status="completed",
)  # fmt: skip


def test_who_leaves_a_cart_and_orders_nothing_for_two_hours_is_reminded(
    company: Company, ledger: Ledger, post: Mailbox, crm: Receiver
) -> None:
    """Before breakfast Emma and Fay put something into their carts. Fay orders it; Emma has not, two hours later."""
    company.acts(ledger, TEN, "cart_reminder")
    [letter] = letters(post, EMMA)
    assert letter["Subject"] == "Is this still yours, Emma?" and 'something in "kitchen"' in words(letter)
    assert letters(post, FAY) == [], "she ordered five minutes before the two hours were over"
    assert len(tasks(crm, "trigger.cart_reminder", value="39.9000")) == 1, "and the shop's own people know of it"


given(
    "warranties", "", warranty_id="G900", registered_at="2026-01-12T10:00:00Z", serial_number="SN99", email=FINN,
    sku="S3", category="kitchen", ends_on="2026-02-15",
)  # fmt: skip


def test_thirty_days_before_a_warranty_ends_its_owner_is_offered_to_extend_it(
    company: Company, ledger: Ledger, post: Mailbox
) -> None:
    """Finn's warranty ends on 15 February. That is 31 days away on Thursday, and 30 on Friday."""
    company.acts(ledger, TEN - ONE_DAY, "warranty_ending")
    assert letters(post, FINN) == []
    company.acts(ledger, TEN, "warranty_ending")
    [letter] = letters(post, FINN)
    assert letter["Subject"] == "Your warranty ends on 2026-02-15"


given(
    "shop_orders", "2026-01-14", order_id="O901", line="1", ordered_at="2026-01-14T12:00:00Z", customer_id="C9000008",
    email=GAIL, channel="web", sku="S4", category="garden", quantity="2", unit_price="450.00", discount="0.00",
    total="900.00", order_total="900.00", currency="GBP", status="completed",
)  # fmt: skip


def test_who_spent_much_and_is_likely_to_leave_is_on_the_call_list_once_somebody_approved_it(
    company: Company, ledger: Ledger, crm: Receiver
) -> None:
    """Gail spent £900 with us and is likely to leave: somebody is to call her, once Eve Murray has seen the list."""
    # The company is too young for a model of its own: what is known is that nine in ten leave.
    company.foresee("churn", THURSDAY, Champion(None, None, "too few customers", {"rate": 0.9}))
    company.gather("worth_a_call", THURSDAY)
    project = replace(company.project, syncs={"call_list": company.project.syncs["call_list"]})
    plan_all(ledger, company.lake, project, now=TEN)
    company.delivers(ledger, TEN)
    assert tasks(crm, "sync.call_list", given_name="Gail") == [], "the first list for a tool waits for approval"
    [held] = waiting(ledger)
    approve(ledger, held["plan_id"], by="eve.murray", now=TEN)
    plan_all(ledger, company.lake, project, now=TEN)
    company.delivers(ledger, TEN)
    [entry] = tasks(crm, "sync.call_list")
    assert (entry["given_name"], entry["owner"], entry["revenue"]) == ("Gail", "eve.murray", "900.0000")
    assert entry["risk"] == 0.9 and entry["phone"] == "+447700900108"


given(
    "tickets", "2026-01-15", ticket_id="T900", event="ticket_opened", happened_at="2026-01-15T11:00:00+00:00",
    customer_id="C9000004", contact_channel="phone", topic="invoice", priority="normal",
)  # fmt: skip
given(
    "price_notices", "", notice_id="P900", announced_at="2026-01-16T09:00:00Z", customer_id="C9000004", plan="care",
    old_price=3.99, new_price=4.29, valid_from="2026-02-15",
)  # fmt: skip


def test_news_of_a_price_rise_waits_until_the_ticket_is_closed(company: Company, ledger: Ledger, post: Mailbox) -> None:
    """Dan's care plan gets dearer, and he waits for an answer about an invoice. That comes first, then the news."""
    company.acts(ledger, TEN, "price_rise")
    assert letters(post, DAN) == []
    assert ("open_ticket", "price_rise", FRIDAY, 1) in prevented(ledger)
    company.arrives(
        "tickets", "2026-01-16", ticket_id="T900", event="ticket_closed", happened_at="2026-01-16T15:00:00+00:00",
        customer_id="C9000004", topic="invoice", csat=4, agent_minutes=12,
    )  # fmt: skip
    company.load(TEN + ONE_DAY, ["tickets"])
    company.compute(FRIDAY)
    company.acts(ledger, TEN + ONE_DAY, "price_rise")
    [letter] = letters(post, DAN)
    assert letter["Subject"] == "Your care plan from 2026-02-15"
    assert "costs £4.29 a month instead of £3.99" in words(letter)


def test_a_ticket_opened_minutes_ago_holds_the_news_back_although_nothing_was_loaded_since(
    company: Company, ledger: Ledger, post: Mailbox
) -> None:
    """Ben opens a ticket at ten to ten, hears of no price rise at ten, and gets the letter once he has his answer."""

    def look(minutes: int) -> None:
        Follower(ledger, company.project).look(company.lake, TEN + timedelta(minutes=minutes))
        company.delivers(ledger, TEN + timedelta(minutes=minutes))

    ticket = {"ticket_id": "T901", "customer_id": "C9000002", "topic": "delivery"}
    look(-15)
    company.arrives(
        "tickets", "2026-01-17", **ticket, event="ticket_opened", happened_at="2026-01-16T09:50:00+00:00",
        contact_channel="phone", priority="normal",
    )  # fmt: skip
    look(-9)
    company.arrives(
        "price_notices", "", notice_id="P901", announced_at="2026-01-16T10:00:00Z", customer_id="C9000002", plan="care",
        old_price=3.99, new_price=4.29, valid_from="2026-02-15",
    )  # fmt: skip
    look(1)
    assert letters(post, BEN) == [] and ("open_ticket", "price_rise", FRIDAY, 1) in prevented(ledger)
    company.arrives(
        "tickets", "2026-01-18", **ticket, event="ticket_closed", happened_at="2026-01-16T10:20:00+00:00", csat=5,
    )  # fmt: skip
    look(21)
    [letter] = letters(post, BEN)
    assert letter["Subject"] == "Your care plan from 2026-02-15"
