"""traits.bands: who moved into which band or state of a trait, once per move however often a day is computed.

A band is entered where the value goes past its threshold and left where it comes back to its exit; in between, people
stay where they are, and so they do while the value is unknown. With `dwell` a move waits until the value has called
for it at the end of that many days in a row; with `cool_down` nobody moves again for so long after a move, and then
goes where the value is by then. States of a trait are followed as bands are. What is done about a move is not decided
here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trait import NO_STATE, Band, Trait
from cdp_pipeline.spec.window import midnight

if TYPE_CHECKING:
    import pyarrow as pa

BANDS = Table(
    name="traits.bands",
    description="Every move of a person from one band or state of an indicator into another.",
    columns={
        "person_id": Column("string", "The person."),
        "trait": Column("string", "The indicator."),
        "day": Column("date", "At the end of this day they were in the new band."),
        "at": Column("timestamp(6)", "The end of that day (UTC)."),
        "from_band": Column("string", "The band left; empty where bands were new to everybody and nothing moved."),
        "to_band": Column("string", "The band entered; of states, 'none' where none of them holds."),
        "value_before": Column("float64", "The value one day earlier, if it was computed."),
        "value_after": Column("float64", "The value that crossed; empty for states."),
    },
    key=("person_id", "trait", "day"),
    month_of="day",
    derived=True,
)
MOVES = ibis.schema({name: BANDS.schema[name] for name in ("person_id", "trait", "day", "from_band", "to_band")})
ONE_DAY = timedelta(days=1)


def state_before(bands: ibis.Table, day: date) -> ibis.Table:
    """Where everybody was when the day began (see band_state). Who is missing is in the first band."""
    return band_state(bands.filter(bands.day < ibis.date(day)))


def state_after(bands: ibis.Table, day: date) -> ibis.Table:
    """Where everybody was when the day ended (see band_state). Who is missing is in the first band."""
    return band_state(bands.filter(bands.day <= ibis.date(day)))


def band_state(bands: ibis.Table) -> ibis.Table:
    """The band each person came to last: person_id, trait, band, and the day they last `moved`, if they ever did."""
    return bands.group_by("person_id", "trait").aggregate(
        band=bands.to_band.argmax(bands.day), moved=bands.day.max(where=bands.from_band.notnull())
    )


def crossings(daily: ibis.Table, state: ibis.Table, project: Project, days: Sequence[date]) -> ibis.Table:
    """The rows of BANDS for these days.

    `daily` holds the traits of all these days and of the days before them that matter (one for `value_before`, a
    `dwell` less one), `state` is `state_before(bands, days[0])`. After a day is restated, pass every computed day from
    there on. A trait of which the state knows nobody is new: its first day sets the baseline, for everybody, with no
    band left. So it is for those whose band has another name now: renaming moves nobody. A day that was not computed
    breaks a dwell.
    """
    banded = [trait for name, trait in project.traits.items() if trait.band_names and name in daily.columns]
    if not banded:
        return daily.limit(0).select(**{name: ibis.null(column.type) for name, column in BANDS.columns.items()})
    days = sorted(set(days))
    known: dict[str, set[str]] = {trait.name: set() for trait in banded}
    for row in state.select("trait", "band").distinct().to_pyarrow().to_pylist():
        known.setdefault(row["trait"], set()).add(row["band"])
    moves = []
    for trait in banded:
        steps = _steps(trait, daily, state, days, known[trait.name])
        moves.append(ibis.memtable(_moves(trait, steps, days)))
        if _may_begin(trait, known[trait.name]):
            begun = steps.filter(steps.begins)
            to_band = ibis.array(list(trait.band_names))[begun.at]
            begun = begun.select("person_id", "day", trait=ibis.literal(trait.name), from_band=None, to_band=to_band)
            moves.append(begun.select(*MOVES).cast(MOVES))
    return _with_values(reduce(ibis.Table.union, moves), daily, banded, project, days)


def _may_begin(trait: Trait, known: set[str]) -> bool:
    """Is the trait new, or has one of its bands another name now?"""
    return not known or not known <= set(trait.band_names)


def _steps(trait: Trait, daily: ibis.Table, state: ibis.Table, days: list[date], known: set[str]) -> ibis.Table:
    """What each day says to each person: person_id, day, called, begins, at, moved.

    `called[n]` is the number of the band to which the day calls somebody in band n. `at` is where they were before the
    first day, and `moved` when they last moved; where a day `begins` their history, `at` is where it puts them.
    """
    dwell = trait.dwell or ONE_DAY
    values = daily.filter(daily.day.between(ibis.date(days[0] - dwell + ONE_DAY), ibis.date(days[-1])))
    values = values.select("person_id", "day", value=trait.name)
    recent = ibis.window(group_by="person_id", order_by="day", preceding=dwell.days - 1, following=0)

    def lasts(condition: Any) -> Any:
        unbroken = values.day.delta(values.day.min().over(recent), unit="day") == dwell.days - 1
        return unbroken & (condition.ifelse(1, 0).sum().over(recent) == dwell.days)

    at_once = _called(trait, values.value, lambda condition: condition)
    called = at_once if dwell == ONE_DAY else _called(trait, values.value, lasts)
    steps = values.select("person_id", "day", called=ibis.array(called), at_once=at_once[0])
    steps = steps.filter(steps.day.isin(days))
    was = state.filter(state.trait == trait.name)
    numbers = [(was.band == name, number) for number, name in enumerate(trait.band_names)]
    was = was.select("person_id", was=ibis.cases(*numbers).cast("int32"), moved=was.moved, known=True)
    steps = steps.left_join(was, "person_id").drop("person_id_right")
    at = steps.was.fill_null(ibis.literal(0, "int32"))
    if not _may_begin(trait, known):
        return steps.select("person_id", "day", "called", "moved", at=at, begins=False)
    by_day = ibis.window(group_by="person_id", order_by="day")
    renamed = steps.known.fill_null(False) & steps.was.isnull() & (ibis.row_number().over(by_day) == 0)
    steps = steps.mutate(at=at, begins=renamed if known else steps.day == ibis.date(days[0]))
    put = steps.begins.ifelse(steps.at_once, ibis.null("int32")).max().over(ibis.window(group_by="person_id"))
    return steps.select("person_id", "day", "called", "moved", "begins", at=put.fill_null(steps.at))


def _called(trait: Trait, value: Any, lasts: Callable[[Any], Any]) -> list[Any]:
    """For each band, the number of the one to which a value calls those who are in it; unknown values call nobody.

    A state calls everybody, from wherever they are.
    """
    if trait.states:
        named = value.fill_null(NO_STATE)
        states = [(lasts(named == name), number) for number, name in enumerate(trait.band_names)]
        return [ibis.cases(*states, else_=at).cast("int32") for at in range(len(states))]
    thresholds = [_thresholds(band, value) for band in trait.bands[1:]]
    enters, leaves = ([lasts(side.fill_null(False)) for side in sides] for sides in zip(*thresholds, strict=True))
    called = []
    for at in range(len(trait.bands)):
        climbs = [(enters[number - 1], number) for number in range(len(trait.bands) - 1, at, -1)]
        stays = [(~leaves[number - 1], number) for number in range(at, 0, -1)]
        called.append(ibis.cases(*climbs, *stays, else_=0).cast("int32"))
    return called


def _thresholds(band: Band, value: Any) -> tuple[Any, Any]:
    """Does the value enter the band, does it leave it?"""
    if band.above is not None:
        return value > band.above, value <= (band.above if band.exit is None else band.exit)
    assert band.below is not None
    return value < band.below, value >= (band.below if band.exit is None else band.exit)


def _moves(trait: Trait, steps: ibis.Table, days: list[date]) -> pa.Table:
    """The rows of MOVES. Only people who move at all are looked at, and only days that say something else to them."""
    import pyarrow as pa

    person, by_day = ibis.window(group_by="person_id"), ibis.window(group_by="person_id", order_by="day")
    calls = steps.called[steps.at] != steps.at
    if len(days) > 1:
        said_before = steps.called.lag().over(by_day)
        calls = calls.any().over(person) & (said_before.isnull() | (said_before != steps.called))
    steps = steps.select("person_id", "day", "called", "at", "moved", calls=calls)
    rows = (
        steps.filter(steps.calls).drop("calls").to_pyarrow().sort_by([("person_id", "ascending"), ("day", "ascending")])
    )
    columns = [column.to_pylist() for column in rows.columns]
    found = [
        dict(zip(MOVES, (person_id, trait.name, day, trait.band_names[at], trait.band_names[to]), strict=True))
        for person_id, theirs in groupby(zip(*columns, strict=True), key=itemgetter(0))
        for day, at, to in _walk(list(theirs), days, trait.cool_down or ONE_DAY)
    ]
    return pa.Table.from_pylist(found, schema=MOVES.to_pyarrow())


def _walk(
    rows: list[tuple[str, date, list[int], int, date | None]], days: list[date], rest: timedelta
) -> Iterator[tuple[date, int, int]]:
    """One person's moves: day, from, to. Between two rows, days say the same."""
    *_, at, moved = rows[0]
    for row, following in zip(rows, [*[row[1] for row in rows[1:]], date.max], strict=True):
        _, day, called, *_ = row
        free = bisect_left(days, max(day, moved + rest) if moved is not None else day)
        if called[at] != at and free < len(days) and days[free] < following:
            moved, was, at = days[free], at, called[at]
            yield moved, was, at


def _with_values(
    moves: ibis.Table, daily: ibis.Table, traits: Sequence[Trait], project: Project, days: list[date]
) -> ibis.Table:
    """The rows of BANDS: moves with the values of their day and of the day before, and when the day ended."""
    numbers = [trait.name for trait in traits if trait.bands]
    daily = daily.filter(daily.day.between(ibis.date(days[0] - ONE_DAY), ibis.date(days[-1])))
    after = daily.select("person_id", "day", **{f"after_{name}": daily[name].cast("float64") for name in numbers})
    before = daily.select(
        "person_id", day=(daily.day.cast("timestamp") + ibis.interval(days=1)).cast("date"),
        **{f"before_{name}": daily[name].cast("float64") for name in numbers},
    )  # fmt: skip
    rows = moves.inner_join(after, ["person_id", "day"]).left_join(before, ["person_id", "day"])

    def value(side: str) -> Any:
        of_trait = [(rows.trait == name, rows[f"{side}_{name}"]) for name in numbers]
        return ibis.cases(*of_trait) if of_trait else ibis.null("float64")

    return rows.select(
        "person_id", "trait", "day", "from_band", "to_band",
        at=_ends(rows.day, days, project), value_before=value("before"), value_after=value("after"),
    ).select(*BANDS.columns).cast(BANDS.schema)  # fmt: skip


def _ends(day: Any, days: list[date], project: Project) -> Any:
    """When each day ended, in UTC: days have 23 or 25 hours when the clocks change."""
    return ibis.cases(*[(day == ibis.date(d), ibis.timestamp(midnight(d + ONE_DAY, project.zone))) for d in days])
