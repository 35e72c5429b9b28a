"""The tests of audiences: what was found on each day, whether it passes, and what is held where it does not.

Pure: members, sizes and what is known of people go in. What is found are counts: never an identifier or a person.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.audiences.rules import audiences_in_order, named_audiences
from cdp_pipeline.spec.audience import Audience, Rule
from cdp_pipeline.spec.base import counted, unknown
from cdp_pipeline.spec.reach import CHANNELS

if TYPE_CHECKING:
    from cdp_pipeline.spec.project import Project

ACCEPT = "CDP_ACCEPT_CHANGE"
USUAL_DAYS, USUAL_AT_LEAST, USUAL_CHANGE = 28, 7, 0.3
SIZE, PEOPLE, USUAL, GROUND = "size_as_expected", "right_people", "usual_size", "sound_ground"


@dataclass(frozen=True)
class Expectation:
    """One test of an audience: its name, what it says, and whether the audience is held where it fails."""

    name: str
    says: str
    holds: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a test found on one day, in figures; `because` says in words why it failed.

    accepted: it failed, but somebody said that on this day it is meant to be so, and it holds nothing.
    """

    test: str
    passed: bool
    found: Mapping[str, Any] = field(default_factory=dict)
    because: str = ""
    accepted: bool = False


class AcceptanceError(ValueError):
    """What somebody accepts cannot be read, or is of no audience."""


def accepted_changes(text: str | None, project: Project) -> set[tuple[str, date]]:
    """The audiences and days whose change of size somebody accepts: `high_value@2026-03-01 winback@2026-03-01`."""
    found = set()
    for one in (text or "").replace(",", " ").split():
        name, _, day = one.partition("@")
        try:
            found.add((name, date.fromisoformat(day)))
        except ValueError:
            raise AcceptanceError(f"{ACCEPT}: should be audience@day, such as vip@2026-03-01, got '{one}'") from None
        if name not in project.audiences:
            raise AcceptanceError(f"{ACCEPT}: {unknown('audience', name, project.audiences)}")
    return found


def expectations(audience: Audience) -> list[Expectation]:
    """Every test of an audience: those it declares, and the two that each has."""
    tests = audience.tests
    size = [
        f"at least {counted(tests.min_size, 'member')}" if tests.min_size is not None else "",
        f"at most {counted(tests.max_size, 'member')}" if tests.max_size is not None else "",
        f"a size that changed by at most {tests.max_change:.0%} in a day" if tests.max_change is not None else "",
    ]
    found = []
    if any(size):
        found.append(Expectation(SIZE, f"The audience has {', '.join(filter(None, size))}."))
    if tests.must_include or tests.must_exclude:
        some = f"{len(tests.must_include)} known to belong in it are, {len(tests.must_exclude)} known not to are not"
        found.append(Expectation(PEOPLE, f"Of the people named in its tests, {some}."))
    found += [Expectation(f"disjoint_from_{name}", f"Nobody is in '{name}' as well.") for name in tests.disjoint_from]
    found += [Expectation(f"subset_of_{name}", f"Everybody is in '{name}' as well.") for name in tests.subset_of]
    found += [
        Expectation(f"share_with_{name}", f"Of its people, {_asked_share(name)} at least {share:.0%}.")
        for name, share in tests.share_with.items()
    ]
    usual = f"Its size is within {USUAL_CHANGE:.0%} of what is usual, the median of the {USUAL_DAYS} days before."
    ground = "What its conditions ask has been computed, and no audience it builds on is held."
    return [*found, Expectation(USUAL, usual, holds=False), Expectation(GROUND, ground)]


def _asked_share(name: str) -> str:
    return f"{name} reaches" if name in CHANNELS else f"{name} is true of"


@dataclass(frozen=True)
class Facts:
    """What tests look at, each by audience and day unless it says otherwise.

    sizes: how many people. shared: by audience, other audience and day, how many people are in both. shares: by
    audience, channel or attribute, and day, of how many people it holds. right: by audience and day, how many of the
    people in must_include, and in must_exclude, are in it. before: good sizes of earlier days, by audience.
    """

    sizes: Mapping[tuple[str, date], int]
    shared: Mapping[tuple[str, str, date], int]
    shares: Mapping[tuple[str, str, date], int]
    right: Mapping[tuple[str, date], tuple[int, int]]
    before: Mapping[str, Mapping[date, int]]


def facts(
    project: Project,
    names: Sequence[str],
    days: Sequence[date],
    members: ibis.Table,
    sizes: ibis.Table,
    before: ibis.Table,
    reached: ibis.Table,
    customers: ibis.Table | None,
    known: Mapping[str, str],
) -> Facts:
    """Everything the tests of these audiences ask, in at most five queries, none for what no test asks.

    `members` holds these audiences and those their tests name, `sizes` the rows of SIZES of the days, `before` the
    good ones of earlier days, `reached` what reach.reach says of the members, `known` the person that each
    identifier in must_include and must_exclude leads to.
    """
    oldest = min(days) - timedelta(days=USUAL_DAYS)
    history: dict[str, dict[date, int]] = {}
    earlier = before.filter(before.audience.isin(list(names)) & (before.day >= ibis.date(oldest)))
    last = before.filter(before.audience.isin(list(names)) & (before.day < ibis.date(min(days))))
    last = last.group_by("audience").aggregate(people=last.people.argmax(last.day), day=last.day.max())
    for row in [*_rows(last.select("audience", "day", "people")), *_rows(earlier.select("audience", "day", "people"))]:
        history.setdefault(row["audience"], {})[row["day"]] = row["people"]
    tests = {name: project.audiences[name].tests for name in names}
    return Facts(
        {(row["audience"], row["day"]): row["people"] for row in _rows(sizes.select("audience", "day", "people"))},
        _shared([(name, other) for name, one in tests.items() for other in one.named_audiences], members),
        _shares({name: list(one.share_with) for name, one in tests.items()}, members, reached, customers),
        _right(project, names, days, members, known),
        history,
    )


def _shared(pairs: Sequence[tuple[str, str]], members: ibis.Table) -> dict[tuple[str, str, date], int]:
    if not pairs:
        return {}
    asked = ibis.memtable([{"audience": one, "other": other} for one, other in pairs])
    both = members.join(asked, "audience")
    other = members.rename(other="audience")
    rows = both.semi_join(other, ["other", "person_id", "day"]).group_by("audience", "other", "day")
    return {(row["audience"], row["other"], row["day"]): row["n"] for row in _rows(rows.aggregate(n=ibis._.count()))}


def _shares(
    asked: Mapping[str, Sequence[str]], members: ibis.Table, reached: ibis.Table, customers: ibis.Table | None
) -> dict[tuple[str, str, date], int]:
    names = sorted({name for some in asked.values() for name in some})
    if not names:
        return {}
    rows = members.filter(members.audience.isin([name for name, some in asked.items() if some]))
    rows = rows.left_join(reached, "person_id").drop("person_id_right")
    attributes = [name for name in names if name not in CHANNELS]
    if attributes:
        assert customers is not None, "attributes are asked of profile.customers"
        rows = rows.left_join(customers.select("person_id", *attributes), "person_id").drop("person_id_right")
    counts = {name: rows[name].fill_null(False).cast("int64").sum() for name in names}
    found = _rows(rows.group_by("audience", "day").aggregate(**counts))
    return {(row["audience"], name, row["day"]): row[name] for row in found for name in asked[row["audience"]]}


def _right(
    project: Project, names: Sequence[str], days: Sequence[date], members: ibis.Table, known: Mapping[str, str]
) -> dict[tuple[str, date], tuple[int, int]]:
    tests = {name: one for name in names if (one := project.audiences[name].tests).must_include or one.must_exclude}
    if not tests:
        return {}
    rows = members.filter(members.audience.isin(list(tests)) & members.person_id.isin(sorted(set(known.values()))))
    inside = {(row["audience"], row["person_id"], row["day"]) for row in _rows(rows)}

    def there(name: str, texts: Sequence[str], day: date) -> int:
        return sum((name, known.get(text, ""), day) in inside for text in texts)

    return {
        (name, day): (there(name, one.must_include, day), there(name, one.must_exclude, day))
        for name, one in tests.items()
        for day in days
    }


def _rows(table: ibis.Table) -> list[dict[str, Any]]:
    return table.to_pyarrow().to_pylist()


@dataclass(frozen=True)
class Verdicts:
    """The outcomes of every audience and day, and why those are held that may not be used."""

    outcomes: Mapping[tuple[str, date], Sequence[Outcome]]
    held: Mapping[tuple[str, date], str]


def judge(
    project: Project,
    names: Sequence[str],
    days: Sequence[date],
    found: Facts,
    *,
    unasked: Mapping[str, str],
    held_before: Mapping[tuple[str, date], str],
    accepted: Collection[tuple[str, date]] = (),
) -> Verdicts:
    """Test each audience on each day, those that others build on first: they are held with it.

    `unasked` says of audiences that could not be computed what is missing; `held_before` why audiences that are not
    computed now are held on which of the days. A day is compared with the good days before it, so what was held is not
    forgotten the next day. `accepted`: of which audiences and days a change beyond max_change is meant to be.
    """
    order = [name for batch in audiences_in_order(project, [Rule(audience=name) for name in names]) for name in batch]
    outcomes: dict[tuple[str, date], list[Outcome]] = {}
    held: dict[tuple[str, date], str] = {}
    good = {name: dict(found.before.get(name, {})) for name in names}
    for day in sorted(days):
        for name in order:
            audience = project.audiences[name]
            ground = _ground(
                name, [other for other in named_audiences(audience.rules) if (other, day) in held], unasked
            )
            if name not in names:  # Not computed now; but what builds on it may build on something held below it.
                if (name, day) in held_before or not ground.passed:
                    held[name, day] = held_before.get((name, day), ground.because)
                continue
            size = found.sizes.get((name, day), 0)
            results = (
                []
                if name in unasked
                else list(_outcomes(audience, day, found, size, good[name], (name, day) in accepted))
            )
            outcomes[name, day] = [*results, ground]
            failed = [one for one in outcomes[name, day] if not one.passed and one.test != USUAL]
            if broken := [one.because for one in failed if not one.accepted]:
                held[name, day] = "; ".join(broken)
            else:
                good[name][day] = size
    return Verdicts(outcomes, {pair: why for pair, why in held.items() if pair[0] in names})


def _ground(name: str, lacking: Collection[str], unasked: Mapping[str, str]) -> Outcome:
    if name in unasked:
        return Outcome(GROUND, False, {"missing": unasked[name]}, unasked[name])
    because = " and ".join(f"it builds on '{other}', which is held" for other in sorted(lacking))
    return Outcome(GROUND, not lacking, {"held": ", ".join(sorted(lacking)) or "none"}, because)


def _outcomes(
    audience: Audience, day: date, found: Facts, size: int, good: Mapping[date, int], accepted: bool
) -> Iterator[Outcome]:
    name, tests = audience.name, audience.tests
    earlier = {past: people for past, people in good.items() if past < day}
    before = earlier[max(earlier)] if earlier else None
    if tests.min_size is not None or tests.max_size is not None or tests.max_change is not None:
        yield _size(audience, day, size, before, accepted)
    if tests.must_include or tests.must_exclude:
        inside, outside = found.right.get((name, day), (0, 0))
        missing = len(tests.must_include) - inside
        because = [
            f"{missing} of {len(tests.must_include)} people who must be in it are not" if missing else "",
            f"{outside} of {len(tests.must_exclude)} people who must not be in it are" if outside else "",
        ]
        figures = {"missing": missing, "not wanted": outside}
        yield Outcome(PEOPLE, not missing and not outside, figures, " and ".join(filter(None, because)))
    for other in tests.disjoint_from:
        both = found.shared.get((name, other, day), 0)
        yield Outcome(f"disjoint_from_{other}", both == 0, {"in both": both}, f"{both:,} are in '{other}' as well")
    for other in tests.subset_of:
        outside = size - found.shared.get((name, other, day), 0)
        yield Outcome(f"subset_of_{other}", outside == 0, {"outside": outside}, f"{outside:,} are not in '{other}'")
    for what, least in tests.share_with.items():
        there = found.shares.get((name, what, day), 0)
        share = there / size if size else 1.0
        words = f"{_asked_share(what)} {share:.1%}, not {least:.0%}"
        yield Outcome(f"share_with_{what}", share >= least, {"people": there, "share": share}, words)
    yield usual_size(size, [people for past, people in sorted(earlier.items())][-USUAL_DAYS:])


def _size(audience: Audience, day: date, size: int, before: int | None, accepted: bool) -> Outcome:
    tests, name = audience.tests, audience.name
    change = abs(size - before) / before if before else 0.0
    figures: dict[str, Any] = {"people": size, "before": before or 0, "change": change}
    because = []
    if tests.min_size is not None and size < tests.min_size:
        because.append(f"{size:,} people, fewer than {tests.min_size:,}")
    if tests.max_size is not None and size > tests.max_size:
        because.append(f"{size:,} people, more than {tests.max_size:,}")
    bounds = not because
    if tests.max_change is not None and change > tests.max_change:
        because.append(f"{size:,} people, {before:,} the good day before")
        if bounds and not accepted:
            figures["if it is meant to be so"] = f"{ACCEPT}={name}@{day} cdp run audiences/{name} --day {day}"
    return Outcome(SIZE, not because, figures, "; ".join(because), accepted=bool(because) and bounds and accepted)


def usual_size(size: int, before: Sequence[int]) -> Outcome:
    """Whether a size has drifted away from the median of the days before; a week of them is needed to tell.

    Small counts vary by chance: five standard deviations of a Poisson count are always allowed.
    """
    if len(before) < USUAL_AT_LEAST:
        return Outcome(USUAL, True, {"people": size, "days of history": len(before)})
    usual = float(median(before))
    slack = max(USUAL_CHANGE * usual, 5 * max(usual, 1) ** 0.5)
    figures = {"people": size, "usual": usual, "allowed difference": round(slack, 1)}
    return Outcome(USUAL, abs(size - usual) <= slack, figures, f"{size:,} people, usually {usual:g}")
