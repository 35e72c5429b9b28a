"""What follows from what was said: may this be done with this person, and if not, why.

Pure: a consent document and what a person's identifiers say go in, a reason comes out, or none. A person is as
restrictive as the most restrictive of their identifiers; who said nothing is taken as their law takes silence.
"""

from __future__ import annotations

from collections.abc import Collection

from cdp_pipeline.consent.ledger import Decision, Heard
from cdp_pipeline.spec.consent import Consent, Default

Voices = Collection[tuple[bool, Heard]]
"""What each of a person's identifiers says, and whether it is an address in use: none known, every one may be."""


def agreed(voices: Voices, about: str) -> Decision | None:
    """One no outweighs every yes; None where nobody said anything."""
    said = {heard.decisions.get(about) for _, heard in voices}
    return "denied" if "denied" in said else "granted" if "granted" in said else None


def suppressed(voices: Voices, channel: str | None) -> str | None:
    """Erased, or put on the list by somebody: for the channel, or for everything."""
    why = {why for _, heard in voices for why, by in heard.suppressed if by in (None, channel)}
    return next((f"suppressed: {reason}" for reason in ("erasure", "manual") if reason in why), None) if why else None


def purpose_refused(consent: Consent, purpose: str | None, voices: Voices, place: str | None) -> str | None:
    """The purpose that data is used for needs a yes."""
    if purpose is None or purpose not in consent.purposes:
        return "consent: no purpose is declared for this"
    return _refused(f"purpose:{purpose}", f"consent: {purpose}", consent.purposes[purpose], voices, place)


def channel_refused(
    consent: Consent, channel: str | None, purpose: str | None, voices: Voices, place: str | None
) -> str | None:
    """A channel may need leave of the person, for some purposes or for all."""
    permission = consent.channels.get(channel) if channel is not None else None  # type: ignore[call-overload]
    if permission is None or (permission.purposes and purpose not in permission.purposes):
        return None
    return _refused(f"channel:{channel}", f"permission: {channel}", permission, voices, place)


def undeliverable(voices: Voices, channel: str | None) -> str | None:
    """The person complained about this channel (at whatever address), or the address in use does not exist."""
    if channel is None:
        return None
    found = {
        why
        for in_use, heard in voices
        for why, by in heard.suppressed
        if by in (None, channel) and (why != "bounce" or in_use)
    }
    return next((f"suppressed: {why}" for why in ("complaint", "bounce") if why in found), None) if found else None


def refusal(
    consent: Consent | None, purpose: str | None, channel: str | None, voices: Voices, place: str | None
) -> str | None:  # fmt: skip
    """The first of all these that speaks against it; without a consent document silence is no obstacle."""
    return (
        suppressed(voices, channel)
        or (consent and purpose_refused(consent, purpose, voices, place))
        or (consent and channel_refused(consent, channel, purpose, voices, place))
        or undeliverable(voices, channel)
    )


def _refused(about: str, words: str, default: Default, voices: Voices, place: str | None) -> str | None:
    said = agreed(voices, about)
    if said is not None:
        return None if said == "granted" else f"{words}: denied"
    silence = default.silence(place)
    return None if silence == "yes" else f"{words}: " + ("unknown" if silence == "unknown" else "not given")
