"""Who is left out on purpose, and by which control group. Pure: it depends on the person and the group alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cdp_pipeline.spec.contact_policy import Control


def concerned(controls: Iterable[Control], origin: str, purpose: str | None) -> list[Control]:
    """The control groups that what calls for a contact is measured by."""
    sort, _, name = origin.partition(":")
    return [
        control
        for control in controls
        if not (control.triggers or control.syncs or control.purposes)
        or name in (control.triggers if sort == "trigger" else control.syncs if sort == "sync" else [])
        or purpose in control.purposes
    ]


def held_out(controls: Iterable[Control], person_id: str) -> str | None:
    """The first of these control groups that this person is in.

    `person_id` is that of the living person: the eldest of all that were merged, so nobody changes sides by a merge.
    """
    return next((control.name for control in controls if chance(control.name, person_id) < control.share), None)


def chance(control: str, person_id: str) -> float:
    """A person's number in [0, 1), even over people and the same for ever; a larger share keeps whom a smaller held."""
    return int.from_bytes(hashlib.sha256(f"{control}:{person_id}".encode()).digest()[:8]) / 2**64
