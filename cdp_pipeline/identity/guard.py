"""Whether what identity decided may be published: no crowd taken for one person, nobody lost, ids that stay.

Decided on the resolution in hand, before anything is written. It holds bounds and words; the figures are quality.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import ibis

from cdp_pipeline.identity.quality import accuracy, as_table, churn, sizes

if TYPE_CHECKING:
    import pyarrow as pa

ACCEPT = "CDP_ACCEPT_IDENTITY"
LARGEST_PERSON = 200
LARGEST_SHARE = 0.05
FEWER_PEOPLE = 0.10
LEAST_PRECISION = 0.50
GROWTH = 1.10  # what is published already may be this much worse before it is held back again
FEW_MOVES = 20  # what a verdict or two may move, also where there are hardly any people yet
FEW_IDENTIFIERS = 10_000  # below, ten people are a large share of everybody


@dataclass(frozen=True)
class Breach:
    """One bound that is broken: under which check it is shown, what was found, what is allowed, and that in words."""

    check: Literal["no_collapse", "ids_stable"]
    figure: str
    found: float
    allowed: float
    words: str


@dataclass(frozen=True)
class Verdict:
    """The figures of a resolution (sizes, churn, accuracy where truth is known) and the bounds they break."""

    figures: Mapping[str, Any]
    breaches: tuple[Breach, ...]

    def withheld(self, accepted: str | None, today: date) -> IdentityWithheldError | None:
        """The error that says why nothing may be published; none if all is well or was accepted for today."""
        if not self.breaches or (accepted or "").strip() == today.isoformat():
            return None
        return IdentityWithheldError(self.breaches, today)


class IdentityWithheldError(Exception):
    """Identity was decided but not published; the message says what was found and what to do."""

    def __init__(self, breaches: tuple[Breach, ...], today: date) -> None:
        found = "; ".join(breach.words for breach in breaches)
        super().__init__(
            f"not published, people stay as they were: {found}. To see what changes: cdp identity simulate. "
            "Then mend the identifier's limit or blocked values; or, if it is meant to be so, accept it for today: "
            f"{ACCEPT}={today} cdp run"
        )
        self.breaches = breaches


def guard(
    previous_identifiers: ibis.Table | pa.Table,
    previous_people: ibis.Table | pa.Table,
    identifiers: ibis.Table | pa.Table,
    people: ibis.Table | pa.Table,
    budget: float,
    truth: ibis.Table | pa.Table | None = None,
) -> Verdict:
    """Judge the next state of identity against the one that is published, which is empty on the first run.

    `identifiers` and `people` may be all of the next state or the rows of it that changed. `budget` is the share of
    identifiers whose person may change in one run; with `truth` precision is judged too. One engine reads all tables.
    """
    next_people = _in_place(people, previous_people, ["person_id"], ["kind", "identifiers", "merged_into"])
    figures = sizes(next_people) | churn(previous_identifiers, identifiers, previous_people, next_people)
    if truth is not None:
        figures |= accuracy(_in_place(identifiers, previous_identifiers, ["type", "value"], ["person_id"]), truth)
    return Verdict(figures, breaches(sizes(previous_people), figures, budget))


def _in_place(
    new: ibis.Table | pa.Table, old: ibis.Table | pa.Table, keys: list[str], columns: list[str]
) -> ibis.Table:
    """The old rows with the new ones in their place."""
    new, old = as_table(new).select(*keys, *columns), as_table(old).select(*keys, *columns)
    return ibis.union(new, old.anti_join(new, keys))


def breaches(before: Mapping[str, Any], after: Mapping[str, Any], budget: float) -> tuple[Breach, ...]:
    """The bounds that the figures `after` break. What is as bad in `before` is published already, so it passes.

    A share of few is mostly chance: five standard deviations of a Poisson count are always allowed.
    """
    found = []

    def at_most(check: Literal["no_collapse", "ids_stable"], figure: str, allowed: float, words: str) -> None:
        if after[figure] > allowed:
            found.append(Breach(check, figure, after[figure], allowed, words))

    largest = after["largest_person"]
    at_most(
        "no_collapse", "largest_person", max(LARGEST_PERSON, GROWTH * before.get("largest_person", 0)),
        f"one person has {largest:,} identifiers, more than {LARGEST_PERSON}: strangers were taken for one",
    )  # fmt: skip
    if after["identifiers_owned"] >= FEW_IDENTIFIERS:
        at_most(
            "no_collapse", "ten_largest_share", max(LARGEST_SHARE, GROWTH * before.get("ten_largest_share", 0.0)),
            f"the ten largest people have {after['ten_largest_share']:.1%} of all identifiers, more than "
            f"{LARGEST_SHARE:.0%}",
        )  # fmt: skip
    was = before.get("people", 0)
    least = was - _allowed(FEWER_PEOPLE, was)
    if after["people"] < least:
        words = f"{was:,} people became {after['people']:,}, more than {FEWER_PEOPLE:.0%} fewer"
        found.append(Breach("no_collapse", "people", after["people"], least, words))
    if after.get("precision", 1.0) < LEAST_PRECISION:
        words = f"against the truth, precision is {after['precision']:.2f}, less than {LEAST_PRECISION}"
        found.append(Breach("no_collapse", "precision", after["precision"], LEAST_PRECISION, words))
    at_most(
        "ids_stable", "identifiers_moved", max(_allowed(budget, after["identifiers_known"]), FEW_MOVES),
        f"{after['identifiers_moved']:,} of {after['identifiers_known']:,} identifiers ({after['churn']:.1%}) moved to "
        f"another person, more than the churn_budget of {budget:.1%}",
    )  # fmt: skip
    return tuple(found)


def _allowed(share: float, of: int) -> float:
    return share * of + 5 * (share * of) ** 0.5
