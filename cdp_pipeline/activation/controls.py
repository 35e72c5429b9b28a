"""Who is left out on purpose, and by which control group. Pure: it depends on the person and the group alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cdp_pipeline.spec.contact_policy import Control


def held_out(controls: Iterable[Control], origin: str, purpose: str | None, person_id: str) -> str | None:
    """The first control group this person is in, of those that what calls for the contact is measured by.

    `person_id` is that of the living person: the eldest of all that were merged, so nobody changes sides by a merge.
    """
    sort, _, name = origin.partition(":")
    for control in controls:
        asked = control.triggers if sort == "trigger" else control.syncs if sort == "sync" else []
        of_all = not (control.triggers or control.syncs or control.purposes)
        if (of_all or name in asked or purpose in control.purposes) and chance(control.name, person_id) < control.share:
            return control.name
    return None


def chance(control: str, person_id: str) -> float:
    """A person's number in [0, 1), even over people and the same for ever; a larger share keeps whom a smaller held."""
    return int.from_bytes(hashlib.sha256(f"{control}:{person_id}".encode()).digest()[:8]) / 2**64
