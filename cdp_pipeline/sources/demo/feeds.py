"""The tables the demo company exports: format, columns and declared dirt of each. No rows are made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cdp_pipeline.sources.demo.text import Numbers

_FILE_DIRT = {"broken_row": 0.0005, "impossible_time": 0.0003, "missing_key": 0.0003, "duplicate": 0.002, "late": 0.003}


@dataclass(frozen=True)
class Feed:
    """One exported table. Text columns are spelled by the caller; `time` holds seconds since 1970 until written.

    `bare` columns are numbers in JSON, `quoted` ones may hold a delimiter, `extra` is a column that comes later, and
    `lasting` dirt stays where it is from copy to copy.
    """

    name: str
    path: str
    key: str
    time: str
    columns: tuple[str, ...]
    dirt: Mapping[str, float] = field(default_factory=dict)
    bare: frozenset[str] = frozenset()
    quoted: frozenset[str] = frozenset()
    delimiter: str = ","
    store_clock: bool = False
    lasting: bool = False
    extra: str | None = None

    @property
    def daily(self) -> bool:
        return "{day}" in self.path

    @property
    def csv(self) -> bool:
        return ".csv" in self.path

    @property
    def text(self) -> bool:
        """Whether it is written line by line, so that a line can be broken."""
        return self.csv or ".jsonl" in self.path


def _columns(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FEEDS = {
    feed.name: feed
    for feed in (
        Feed(
            "web_events", "web_events/{day}.jsonl.gz", "event_id", "occurred_at",
            _columns(
                "event event_id occurred_at anonymous_id customer_id email session_id channel device page "
                "search_term sku category brand colour size price quantity amount utm_source utm_campaign"
            ),
            dirt={
                **_FILE_DIRT, "placeholder_email": 0.005, "email_variant": 0.03, "hard_coded_id": 0.002,
                "zero_cookie": 0.001,
            },
            bare=frozenset({"price", "quantity", "amount"}),
        ),
        Feed(
            "shop_orders", "shop_orders/{day}.csv.gz", "order_id", "ordered_at",
            _columns(
                "order_id line ordered_at customer_id email phone given_name family_name city postcode country "
                "channel sku category brand colour size quantity unit_price discount total order_total currency coupon "
                "status"
            ),
            dirt={
                **_FILE_DIRT, "wrong_encoding": 0.0005, "placeholder_email": 0.004, "placeholder_phone": 0.004,
                "email_variant": 0.03, "role_email": 0.003,
            },
            extra="gift_note",
        ),
        Feed(
            "returns", "returns/{day}.csv", "return_id", "returned_at",
            _columns(
                "return_id returned_at order_id line customer_id email sku category quantity refund reason"
            ),
            dirt={"broken_row": 0.002, "duplicate": 0.004, "late": 0.01},
        ),
        Feed(
            "pos_receipts", "pos_receipts/{day}.csv.gz", "receipt_id", "sold_at",
            _columns(
                "receipt_id line sold_at store till cashier loyalty_number email sku category brand colour size "
                "quantity unit_price discount total receipt_total payment"
            ),
            dirt={
                **_FILE_DIRT, "wrong_encoding": 0.001, "placeholder_email": 0.02, "email_variant": 0.05,
                "role_email": 0.03,
            },
            delimiter=";", store_clock=True,
        ),
        Feed(
            "crm_contacts", "crm_contacts/{day}.csv.gz", "contact_id", "updated_at",
            _columns(
                "contact_id customer_id loyalty_number given_name family_name email phone birth_date gender "
                "language city postcode country account_id loyalty_tier email_consent sms_consent "
                "looked_after_by created_on updated_at"
            ),
            dirt={
                "broken_row": 0.0003, "wrong_encoding": 0.0005, "duplicate": 0.001, "impossible_birth_date": 0.003,
                "placeholder_email": 0.01, "placeholder_phone": 0.01, "email_variant": 0.08, "role_email": 0.004,
                "call_centre_phone": 0.004,
            },
            lasting=True,
        ),
        Feed(
            "crm_accounts", "crm_accounts/{day}.csv", "account_id", "",
            _columns("account_id account_name industry employees city country payment_terms"),
            quoted=frozenset({"account_name"}),
        ),
        Feed(
            "warranties", "shop.sqlite", "warranty_id", "registered_at",
            _columns("warranty_id registered_at serial_number email phone sku category ends_on"),
            dirt={"placeholder_phone": 0.02, "email_variant": 0.05},
        ),
        Feed(
            "price_notices", "shop.sqlite", "notice_id", "announced_at",
            _columns("notice_id announced_at customer_id email plan old_price new_price valid_from"),
        ),
        Feed(
            "tickets", "tickets/{day}.parquet", "ticket_id", "happened_at",
            _columns(
                "ticket_id event happened_at customer_id email phone contact_channel topic priority csat agent_minutes"
            ),
            dirt={
                "missing_key": 0.001, "duplicate": 0.003, "late": 0.005, "placeholder_phone": 0.03,
                "email_variant": 0.05, "call_centre_phone": 0.03,
            },
        ),
        Feed(
            "surveys", "surveys/{day}.csv", "survey_id", "answered_at",
            _columns("survey_id survey answered_at email score comment"),
            dirt={"broken_row": 0.003, "duplicate": 0.005}, quoted=frozenset({"comment"}),
        ),
        Feed(
            "reviews", "reviews.jsonl.gz", "review_id", "written_at",
            _columns("review_id written_at customer_id sku category stars text"),
            dirt={"duplicate": 0.005}, bare=frozenset({"stars"}),
        ),
        Feed(
            "iot_events", "iot_events/{day}.jsonl.gz", "event_id", "reported_at",
            _columns("event event_id reported_at serial_number customer_id email alarm battery"),
            dirt={"broken_row": 0.001, "missing_key": 0.001, "duplicate": 0.01, "late": 0.02},
            bare=frozenset({"battery"}),
        ),
        Feed(
            "messages", "messages/{day}.parquet", "message_id", "happened_at",
            _columns("message_id event happened_at medium campaign customer_id email phone arm"),
            dirt={"duplicate": 0.001, "late": 0.002},
        ),
        Feed(
            "consents", "consents/{day}.csv", "consent_id", "happened_at",
            _columns("consent_id event happened_at email phone subject granted wording"),
            dirt={"duplicate": 0.004, "email_variant": 0.05},
        ),
        Feed(
            "ad_spend", "ad_spend.csv", "campaign", "",
            _columns("spent_on platform campaign impressions clicks cost"),
        ),
        Feed(
            "referrals", "referrals.csv", "referral_id", "referred_at",
            _columns("referral_id referred_at customer_id friend_email"),
        ),
        Feed(
            "store_visits", "store_visits/{day}.parquet", "visit_id", "entered_at",
            _columns("visit_id entered_at store anonymous_id minutes"), dirt={"duplicate": 0.003},
        ),
    )
}  # fmt: skip


@dataclass
class Rows:
    """Rows of one feed. `person` and `mask` say which person's identifiers a row really shows (mask 0: nobody's)."""

    columns: dict[str, Any]
    person: Numbers
    mask: Numbers

    def __len__(self) -> int:
        return len(self.person)

    def take(self, index: Numbers) -> Rows:
        at = pa.array(index)
        columns = {
            name: values[index] if isinstance(values, np.ndarray) else values.take(at)
            for name, values in self.columns.items()
        }
        return Rows(columns, self.person[index], self.mask[index])
