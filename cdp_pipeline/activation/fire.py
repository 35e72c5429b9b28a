"""Evaluate every trigger for a day: read the lake, ask triggers.py, record in the ledger. Nothing is sent here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import ibis
import pyarrow as pa

from cdp_pipeline.activation.guards import guarded, guards_of
from cdp_pipeline.activation.happenings import low_watermark, occasions_of_events, since
from cdp_pipeline.activation.ledger import Ledger, all_ids, utc
from cdp_pipeline.activation.told import told_of
from cdp_pipeline.activation.triggers import CATCH_UP, Occasion, fired, guarded_state, horizon, occasions
from cdp_pipeline.audiences.members import HELD, SIZES, held_now
from cdp_pipeline.audiences.rules import every_rule, leaves
from cdp_pipeline.audiences.scope import persons
from cdp_pipeline.lake.errors import LakeVersionError
from cdp_pipeline.lake.questions import Asked, Questions
from cdp_pipeline.lake.view import LakeView
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.profile.watermarks import WATERMARKS
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.trigger import DateReached, Trigger

Rows = list[dict[str, object]]
TIMELINE = "profile.timeline"
ONE_DAY = timedelta(days=1)


def fire(ledger: Ledger, lake: LakeView, project: Project, *, now: datetime) -> dict[str, dict[str, int]]:
    """Record what each trigger calls for, by trigger and state; 'known' are operations that were recorded before.

    Each is evaluated for the newest day that what it watches was computed for; events and dates up to `now`. One that
    an audience guards waits while that audience is held: nobody knows whom it would keep safe.
    """
    aliases = merged_people(lake)
    asked = Questions().of(lake)
    counts = {}
    for trigger in not_waiting(lake, project):
        found = _evaluated(ledger, lake, project, trigger, now, aliases)
        if found is not None:
            counts[trigger.name] = record(ledger, asked, project, trigger, found, now=now, aliases=aliases)
    return counts


def not_waiting(lake: LakeView, project: Project) -> list[Trigger]:
    """The triggers whose guards can be asked: traits were computed, and no audience among them is held."""
    guards = {
        name: [rule for rules in guards_of(project, trigger).values() for rule in rules]
        for name, trigger in project.triggers.items()
    }
    audiences = {name: {one.audience for one in leaves(every_rule(project, asked))} for name, asked in guards.items()}
    asking = any(named - {None} for named in audiences.values())
    held = held_now(lake.read(SIZES), lake.read(HELD)).keys() if asking else set[str]()
    computed = lake.exists("traits.daily")
    return [
        trigger
        for name, trigger in project.triggers.items()
        if not guards[name] or (computed and not audiences[name] & held)
    ]


@dataclass(frozen=True)
class Evaluated:
    """What set a trigger off up to a day, and up to which state of the timeline that was looked for.

    early: events that the timeline does not have yet; the trigger is still to be evaluated.
    """

    happened: list[Occasion]
    day: date
    mark: int | None = None
    early: bool = False


def record(
    ledger: Ledger,
    asked: Asked,
    project: Project,
    trigger: Trigger,
    found: Evaluated,
    *,
    now: datetime,
    aliases: Mapping[str, str],
) -> dict[str, int]:
    """Put what a trigger calls for on these occasions into the ledger; count it by state.

    What waited for a guard that holds no more is 'released', to be sent as everything else is; what waits for an hour
    to come is kept back where a guard has come to hold. What is known of people is that of the newest day that traits
    were computed for, up to the day of the evaluation; guards are asked of today.
    """
    new = found.happened
    if trigger.on.event is not None:
        known = ledger.known_occasions(f"trigger:{trigger.name}", [occasion.text for occasion in new])
        new = [occasion for occasion in new if occasion.text not in known]
    ids = sorted({occasion.person_id for occasion in new})
    today = now.astimezone(project.zone).date()
    day = computed_day(asked, found.day) or found.day
    waiting = {one: aliases.get(one, one) for one in ledger.waiting_people(trigger.name, now)}
    about = {*ids, *waiting.values()}
    newest = day if found.day == today else None
    kept = kept_back(ledger, asked, project, trigger, about, today, aliases, newest)
    ops = fired(
        trigger, new, people=known_people(asked, project, ids, day), destinations=project.destinations, guarded=kept
    )
    counts = ledger.fire(
        trigger.name,
        ops,
        day=found.day,
        now=now,
        cool_down=trigger.cool_down,
        once=trigger.once,
        aliases=aliases,
        counts_dry_run=all(project.destinations[act.destination].dry_run for act in trigger.do),
        mark=found.mark,
        evaluated=not found.early,
    )
    stopped = free = 0
    late = {one: kept[person] for one, person in waiting.items() if person in kept}
    if waiting:
        stopped = ledger.keep(trigger.name, late, state=guarded_state(trigger), day=found.day, now=now)
        free = ledger.release(trigger.name, [one for one in waiting if one not in late], now)
    before = (len(found.happened) - len(new)) * len(trigger.do)
    if before:
        counts["known"] = counts.get("known", 0) + before
    return counts | {name: n for name, n in (("released", free), ("kept by a guard", stopped)) if n}


def kept_back(
    ledger: Ledger,
    asked: Asked,
    project: Project,
    trigger: Trigger,
    about: Collection[str],
    today: date,
    aliases: Mapping[str, str],
    newest: date | None = None,
) -> dict[str, list[str]]:
    """Those of these people whom a guard keeps from the trigger, by all that is known today, with the guards' names.

    `newest`: the newest day that traits were computed for, if it is known.
    """
    if not about or not guards_of(project, trigger):
        return {}
    told = told_of(ledger, about, aliases, timeline_table(project).schema.to_pyarrow())
    return guarded(asked, project, trigger, about, newest or computed_day(asked, today) or today, today, told)


def _evaluated(
    ledger: Ledger, lake: LakeView, project: Project, trigger: Trigger, now: datetime, aliases: Mapping[str, str]
) -> Evaluated | None:
    """What set the trigger off since it was last evaluated; nothing, where what it watches was never computed."""
    evaluated, today = ledger.evaluated_until(trigger.name), now.astimezone(project.zone).date()
    if trigger.on.event is not None:
        if not lake.exists(TIMELINE):
            return None
        happened = _events(ledger, lake, project, trigger, utc(now))
        return Evaluated(happened, today, lake.version(TIMELINE))
    if trigger.on.date is not None:
        if not lake.exists("profile.customers"):
            return None
        # What a day brought may be loaded on the next, which was begun by then: a date is one occasion, whenever seen.
        begun = ledger.begun(trigger.name)
        not_before = horizon(today, evaluated)
        if begun is not None:
            first = begun.replace(tzinfo=UTC).astimezone(project.zone).date()
            not_before = max(first, today - CATCH_UP)
        due = dates_reached(lake, project, trigger.on.date, not_before, today)
        return Evaluated(due, today, lake.version("profile.customers"))
    day = _newest_day(lake, trigger)
    if day is None:
        return None
    not_before = horizon(day, evaluated)
    first = not_before - CATCH_UP
    changes, crossings = _moves(lake, trigger, first, day)
    there = occasions(trigger, changes, crossings, not_before=first, until=day)
    return Evaluated(_not_restated(ledger, trigger, there, not_before, aliases), day)


def _not_restated(
    ledger: Ledger, trigger: Trigger, there: list[Occasion], not_before: date, aliases: Mapping[str, str]
) -> list[Occasion]:
    """The occasions from `not_before` on, without those that were acted on already, of another day.

    Rows that come late may show that somebody moved a day later, or earlier, than was found when it was acted on.
    """
    new = [occasion for occasion in there if occasion.day >= not_before]
    if not new:
        return []

    def whose(person_id: str) -> str:
        return aliases.get(person_id, person_id)

    ids = all_ids({whose(occasion.person_id) for occasion in new}, aliases)
    known = {(whose(person), text) for person, text in ledger.occasions_of(f"trigger:{trigger.name}", ids)}
    found = {(whose(occasion.person_id), occasion.text) for occasion in there}
    first, last = not_before - CATCH_UP, max(occasion.day for occasion in new)
    void = Counter[tuple[str, str]]()
    for person, text in known - found:
        what, _, day = text.rpartition(":")
        void[person, what] += first <= date.fromisoformat(day) <= last
    kept = []
    for occasion in new:
        about = whose(occasion.person_id), occasion.text.rpartition(":")[0]
        if (about[0], occasion.text) not in known and void[about]:
            void[about] -= 1
        else:
            kept.append(occasion)
    return kept


def _events(ledger: Ledger, lake: LakeView, project: Project, trigger: Trigger, now: datetime) -> list[Occasion]:
    """Events seen among the rows of the timeline that are new since the last evaluation, or missing from all of it."""
    timeline, after = lake.table(TIMELINE), since(now, ledger.begun(trigger.name))
    missing = trigger.on.missing
    if missing is not None:
        if not lake.exists(WATERMARKS.name):
            return []
        telling = [
            name
            for name, source in project.sources.items()
            if any(event in missing.event for mapping in source.events for event in mapping.event_names)
        ]
        return occasions_of_events(
            trigger.on, timeline, after=after, until=low_watermark(lake.table(WATERMARKS.name), telling, now)
        )
    new = _rows_since(lake, ledger.mark(trigger.name), after)
    if new is not None:
        # What came before it happened, by a clock that is ahead, was no occasion yet when its row was new.
        ahead = timeline.occurred_at > timeline._loaded_at
        timeline = timeline.filter(timeline.event_id.isin(ibis.memtable(new).event_id) | ahead)
    return occasions_of_events(trigger.on, timeline, after=after, until=now)


def _rows_since(lake: LakeView, mark: int | None, after: datetime) -> pa.Table | None:
    """The ids of rows of the timeline that came or changed since the mark; None where that cannot be told."""
    if mark is None or mark > lake.version(TIMELINE):  # A lake begun anew counts from the beginning.
        return None
    try:
        written, _ = lake.feed(TIMELINE, mark)
    except LakeVersionError:
        return None
    return written.filter(written.occurred_at > ibis.timestamp(after)).select("event_id").distinct().to_pyarrow()


def dates_reached(
    lake: LakeView, project: Project, reached: DateReached, not_before: date, until: date
) -> list[Occasion]:
    """The people whose date, moved by the declared days, lies within these days. A new date is a new occasion."""
    table = lake.table("profile.customers")
    if reached.of not in project.attributes:
        found, newest = _table(lake, "traits.daily"), computed_day(lake, until)
        if found is None or newest is None:
            return []
        table = found.filter(found.day == ibis.date(newest))
    if reached.of not in table.columns:
        return []
    named = table[reached.of]
    # A moment is a day of the project's zone, which is up to a day away from that of UTC.
    first, last = (day - reached.offset for day in (not_before - ONE_DAY, until + ONE_DAY))
    rows = _rows(
        table.filter(named.cast("date").between(ibis.date(first), ibis.date(last))).select("person_id", named=named)
    )
    happened = []
    for row in rows:
        value = row["named"]
        if isinstance(value, datetime):
            value = value.replace(tzinfo=UTC).astimezone(project.zone).date()
        assert isinstance(value, date)
        day = value + reached.offset
        if not_before <= day <= until:
            text = f"date:{reached.of}:{value.isoformat()}:{reached.offset.days:+d}"
            happened.append(Occasion(str(row["person_id"]), text, day))
    return sorted(happened, key=lambda occasion: (occasion.day, occasion.person_id))


def computed_day(lake: LakeView, until: date) -> date | None:
    """The newest day, up to one, that traits were computed for."""
    if not lake.exists("traits.daily"):
        return None
    # Written as SQL: this stands between an event and the answer to it.
    query = f"SELECT max(day) FROM {lake.at('traits.daily', lake.version('traits.daily'))} WHERE day <= ?"
    [[day]] = lake.connection.execute(query, [until]).fetchall()
    return day


def _newest_day(lake: LakeView, trigger: Trigger) -> date | None:
    crossed, audience = trigger.on.crossed, trigger.on.entered or trigger.on.left
    days = _table(lake, "traits.daily" if crossed is not None else "audiences.sizes")
    if days is None:
        return None
    if crossed is None:
        days = days.filter(days.audience == audience)
    return _rows(days.aggregate(day=days.day.max()))[0]["day"]  # type: ignore[return-value]


def known_people(
    asked: Asked, project: Project, person_ids: Collection[str], day: date, only: Collection[str] | None = None
) -> dict[str, dict[str, object]]:
    """What is known of some people by id: attributes, traits as of the day, and the newest score of each prediction.

    Of a prediction over items, it is the item that comes first for the person, of a ranking all items of their newest
    list in its order. `only`: no more than these names.
    """
    people: dict[str, dict[str, object]] = {person_id: {} for person_id in person_ids}
    if not people:
        return people
    theirs, names = persons(people), None if only is None else frozenset(only)

    for place in _places(asked, project, only):
        a_list, name = _is_list(project, place), place.partition(".")[2]

        def question(mine: ibis.Table, place: str = place, a_list: bool = a_list) -> ibis.Table:
            if a_list:
                return _newest_list(asked, place, mine, day)
            part = _part(asked, place, day)
            wanted = [each for each in part.columns if each != "person_id" and (names is None or each in names)]
            return part.select("person_id", *wanted).semi_join(mine, "person_id")

        for row in asked.answer(("known", place, names), question, theirs, when=day).to_pylist():
            known = people[row["person_id"]]
            if a_list:
                known[name] = [*known.get(name, []), str(row["item"])]  # type: ignore[misc]
            else:
                known.update(row)
    return people


def parts_known(lake: LakeView, project: Project, day: date, only: Collection[str] | None = None) -> list[ibis.Table]:
    """What is known of everybody as tables with one row per person, lists apart; a later one has the last word."""
    return [_part(lake, place, day) for place in _places(lake, project, only) if not _is_list(project, place)]


def _places(lake: LakeView, project: Project, only: Collection[str] | None) -> list[str]:
    """The tables that say something of people, as far as they exist."""
    predictions = [f"predictions.{name}" for name in project.predictions if only is None or name in only]
    return [name for name in ("profile.customers", "traits.daily", *predictions) if lake.exists(name)]


def _is_list(project: Project, place: str) -> bool:
    group, _, name = place.partition(".")
    return group == "predictions" and project.predictions[name].a_list


def _part(lake: LakeView, place: str, day: date) -> ibis.Table:
    """What a table says as of a day, one row per person."""
    rows = lake.table(place)
    if place == "profile.customers":
        return rows
    if place == "traits.daily":
        return rows.filter(rows.day == ibis.date(day))
    rows = rows.filter(rows.day <= ibis.date(day))
    of_items = "item" in rows.columns
    rows = rows.filter(rows["rank"] == 1) if of_items else rows
    value = rows.item if of_items else rows.score
    return rows.group_by("person_id").aggregate(value.argmax(rows.day).name(place.partition(".")[2]))


def _newest_list(lake: LakeView, place: str, people: ibis.Table, day: date) -> ibis.Table:
    """The items of each person's newest list, best first."""
    scores = lake.table(place)
    mine = scores.filter(scores.day <= ibis.date(day)).semi_join(people, "person_id")
    newest = mine.group_by("person_id").aggregate(day=mine.day.max())
    return mine.semi_join(newest, ["person_id", "day"]).order_by("person_id", "rank")


def merged_people(lake: LakeView) -> dict[str, str]:
    """Ids that were merged into another, and the living one they resolve to."""
    if not lake.exists("identity.people"):
        return {}
    people = lake.at("identity.people", lake.version("identity.people"))
    query = f"SELECT person_id, merged_into FROM {people} WHERE merged_into IS NOT NULL"
    return dict(lake.connection.execute(query).fetchall())


def _moves(lake: LakeView, trigger: Trigger, not_before: date, until: date) -> tuple[Rows, Rows]:
    crossed = trigger.on.crossed
    name = "audiences.changes" if crossed is None else "traits.bands"
    if not lake.exists(name):
        return [], []
    table = lake.table(name)
    table = table.filter(table.day.between(ibis.date(not_before), ibis.date(until)))
    if crossed is not None:
        return [], _rows(table.filter(table.trait == crossed.trait, table.to_band == crossed.to))
    return _rows(table.filter(table.audience == (trigger.on.entered or trigger.on.left))), []


def _table(lake: LakeView, name: str) -> ibis.Table | None:
    return lake.table(name) if lake.exists(name) else None


def _rows(table: ibis.Table) -> Rows:
    return table.to_pyarrow().to_pylist()
