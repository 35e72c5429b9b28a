"""How people are written to: by channel, the identifiers that will do and the attributes that say they agreed.

The one list of channels: `reachable:` in rules, the sizes of audiences and what comes with the house all ask it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Way:
    """A way to write to people.

    identifiers: the first of them that a project has is the address. consents: of each inner list the first attribute
    a project has counts, they are one thing in different schools of naming; a yes to one of what counts is enough.
    """

    identifiers: tuple[str, ...]
    consents: tuple[tuple[str, ...], ...]


SMS = ("sms_consent", "sms_opt_in", "sms_marketing", "accepts_sms")
WAYS = {
    "email": Way(
        ("email",), (("email_consent", "email_opt_in", "email_marketing", "accepts_email", "newsletter_consent"),)
    ),
    "phone": Way(("phone", "mobile"), (("phone_consent",), SMS)),
    "sms": Way(("phone", "mobile"), (SMS,)),
    "push": Way(("push_token", "device_token"), (("push_consent", "push_opt_in"),)),
    "whatsapp": Way(("whatsapp", "phone", "mobile"), (("whatsapp_consent", "whatsapp_opt_in"),)),
}
"""Every channel. By phone is called or texted: who agreed to either."""
CHANNELS = ("email", "phone")
"""The channels whose reach is counted for every audience."""


def reached_by(channel: str, identifiers: Collection[str], yes_or_no: Collection[str]) -> list[dict[str, Any]] | None:
    """The rules that hold of whom a channel reaches in a project with these identifiers and yes-or-no attributes.

    None where it has no identifier to reach anybody by.
    """
    way = WAYS[channel]
    address = next((name for name in way.identifiers if name in identifiers), None)
    if address is None:
        return None
    counting = [next((name for name in names if name in yes_or_no), None) for names in way.consents]
    agreed = [{"attribute": name, "op": "=", "value": True} for name in counting if name is not None]
    return [{"identifier": address}, *(agreed if len(agreed) < 2 else [{"any": agreed}])]
