"""Triggers evaluated from a real lake: which moves count, for whom, and what stands against them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta

import pyarrow as pa
import pytest

from cdp_pipeline.activation.deliver import deliver
from cdp_pipeline.activation.fire import fire, known_people
from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.activation.tables import (
    CONTACTS,
    DELIVERIES,
    OUTBOX,
    contact_rows,
    delivery_rows,
    outbox_rows,
)
from cdp_pipeline.activation.triggers import horizon, occasions
from cdp_pipeline.audiences.members import CHANGES, HELD, SIZES
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.lake import Counts, Lake, Mirror, Note, Upsert
from cdp_pipeline.lake.questions import Questions
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.traits.bands import BANDS
from cdp_pipeline_tests.activation.projects import DAY, NOW, crossing, move, project, trigger, webhook
from cdp_pipeline_tests.destinations.servers import Receiver
from cdp_pipeline_tests.predictions.people import prediction as churn_prediction
from cdp_pipeline_tests.predictions.test_ranking import prediction as ranking_prediction

ONE = timedelta(days=1)
TEXT = Column("string")
CUSTOMERS = Table("profile.customers", "People.", {"person_id": TEXT, "email": TEXT}, key=("person_id",))
DAILY = Table("traits.daily", "Traits.", {"person_id": TEXT, "day": Column("date"), "recency": Column("int64")},
              key=("person_id", "day"))  # fmt: skip
PERSONS = Table("identity.people", "People.", {"person_id": TEXT, "merged_into": TEXT}, key=("person_id",))
NOTE = Note(run_id="test", asset="test", partition=None)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with open_ledger("sqlite://") as opened:
        yield opened


def rows(table: Table, *given: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(table.columns) | row for row in given], schema=table.schema.to_pyarrow())


def publish(lake: Lake, day: date, crossed: dict[str, int], entered: tuple[str, ...] = ()) -> None:
    """A day's traits, crossings into alarm (by recency), and entries into 'vip'."""
    at = datetime.combine(day + ONE, datetime.min.time())
    known = [{"person_id": p, "email": f"{p}@example.com"} for p in (*crossed, *entered)]
    lake.publish(
        Upsert(CUSTOMERS, rows(CUSTOMERS, *known)),
        Mirror(DAILY, rows(DAILY, *({"person_id": p, "day": day, "recency": value} for p, value in crossed.items()),
                           *({"person_id": p, "day": day, "recency": 1} for p in entered)), within={"day": [day]}),
        Mirror(BANDS, rows(BANDS, *(crossing(p, day) | {"at": at} for p in crossed)), within={"day": [day]}),
        Mirror(CHANGES, rows(CHANGES, *(move(p, day) for p in entered)), within={"day": [day]}),
        Upsert(SIZES, rows(SIZES, {"audience": "vip", "day": day, "people": len(entered)})),
        note=NOTE,
    )  # fmt: skip


def people(ledger: Ledger) -> list[tuple[object, object]]:
    return [(row["person_id"], row["state"]) for row in outbox_rows(ledger).to_pylist()]


def test_a_day_fires_once_and_neither_a_re_run_nor_a_backfill_of_past_days_fires_again(
    lake: Lake, ledger: Ledger
) -> None:
    whole = project(webhook("http://127.0.0.1:9/"), trigger(), trigger(name="welcome", on={"entered": "vip"}))
    publish(lake, DAY, {"p1": 130}, ("v1",))
    assert fire(ledger, lake, whole, now=NOW) == {"slipping": {"pending": 1}, "welcome": {"pending": 1}}
    assert fire(ledger, lake, whole, now=NOW) == {"slipping": {"known": 1}, "welcome": {"known": 1}}
    for back in (1, 4):
        publish(lake, DAY - back * ONE, {f"back{back}": 150}, (f"vback{back}",))
    assert fire(ledger, lake, whole, now=NOW) == {"slipping": {"known": 1}, "welcome": {"known": 1}}
    publish(lake, DAY, {"p1": 130, "late": 121}, ("v1",))
    assert fire(ledger, lake, whole, now=NOW)["slipping"] == {"known": 1, "pending": 1}
    publish(lake, DAY + ONE, {"p2": 130})
    assert fire(ledger, lake, whole, now=NOW + ONE)["slipping"] == {"known": 2, "pending": 1}
    assert people(ledger) == [("p1", "pending"), ("v1", "pending"), ("late", "pending"), ("p2", "pending")]


def test_a_move_that_late_rows_show_to_have_been_a_day_later_is_the_same_and_the_next_one_another(
    lake: Lake, ledger: Ledger
) -> None:
    whole = project(webhook("http://127.0.0.1:9/"), trigger(), trigger(name="welcome", on={"entered": "vip"}))
    publish(lake, DAY, {"p1": 130}, ("v1",))
    fire(ledger, lake, whole, now=NOW)
    merged = ({"person_id": "p0"}, {"person_id": "p1", "merged_into": "p0"})
    lake.publish(Mirror(PERSONS, rows(PERSONS, *merged)), note=NOTE)
    publish(lake, DAY, {}, ())
    publish(lake, DAY + ONE, {"p0": 130, "p2": 130}, ("v1",))
    for _ in range(2):
        assert fire(ledger, lake, whole, now=NOW + ONE) == {"slipping": {"pending": 1}, "welcome": {}} or _
    publish(lake, DAY + 2 * ONE, {"p0": 140}, ("v1",))
    fire(ledger, lake, whole, now=NOW + 2 * ONE)
    assert sorted(people(ledger)) == [(person, "pending") for person in ("p0", "p1", "p2", "v1", "v1")]


def test_an_unless_rule_suppresses_with_its_reason(lake: Lake, ledger: Ledger) -> None:
    from cdp_pipeline.spec.trait import Trait

    recency = Trait(kind="trait", name="recency", description="Days.", evaluation="days_since", event=["order"])
    guarded = trigger(unless=[{"trait": "recency", "op": ">", "value": 300}])
    whole = replace(project(webhook("http://127.0.0.1:9/"), guarded), traits={"recency": recency})
    publish(lake, DAY, {"p1": 130, "p2": 365})
    assert fire(ledger, lake, whole, now=NOW) == {"slipping": {"pending": 1, "suppressed": 1}}
    assert sorted(people(ledger)) == [("p1", "pending"), ("p2", "suppressed")]


def test_a_trigger_waits_while_an_audience_that_guards_it_is_held(lake: Lake, ledger: Ledger) -> None:
    from cdp_pipeline.spec.audience import Audience, Rule
    from cdp_pipeline.spec.trait import Trait

    recency = Trait(kind="trait", name="recency", description="Days.", evaluation="days_since", event=["order"])
    cross = Audience(kind="audience", name="cross", description="Cross with us.",
                     rules=[Rule(trait="recency", op=">", value=300)])  # fmt: skip
    documents = webhook("http://127.0.0.1:9/"), trigger(unless=[{"audience": "cross"}])
    whole = replace(project(*documents), traits={"recency": recency}, audiences={"cross": cross})
    publish(lake, DAY, {"p1": 130})
    held = rows(HELD, {"audience": "cross", "day": DAY, "people": 0, "because": "too few"})
    lake.publish(Mirror(HELD, held), note=NOTE)
    assert fire(ledger, lake, whole, now=NOW) == {}
    lake.publish(Mirror(HELD, held.slice(0, 0)), note=NOTE)
    assert fire(ledger, lake, whole, now=NOW) == {"slipping": {"pending": 1}}


def test_an_id_merged_since_is_the_same_person(lake: Lake, ledger: Ledger) -> None:
    whole = project(webhook("http://127.0.0.1:9/"), trigger())
    publish(lake, DAY, {"p1": 130})
    fire(ledger, lake, whole, now=NOW)
    merged = ({"person_id": "p0"}, {"person_id": "p1", "merged_into": "p0"})
    lake.publish(Mirror(PERSONS, rows(PERSONS, *merged)), note=NOTE)
    publish(lake, DAY, {"p0": 130})
    assert fire(ledger, lake, whole, now=NOW) == {"slipping": {"known": 1}}


def test_an_empty_lake_fires_nothing(lake: Lake, ledger: Ledger) -> None:
    assert fire(ledger, lake, project(webhook("http://127.0.0.1:9/"), trigger()), now=NOW) == {}


def test_baselines_merges_other_bands_and_other_days_are_no_occasions() -> None:
    slipping, welcome = trigger(), trigger(on={"entered": "vip"})
    falling = trigger(on={"crossed": {"trait": "recency", "to": "alarm", "from": "ok"}})
    crossed = [crossing("yes"), crossing("new", before=None), crossing("calm", to="ok"), crossing("early", DAY - ONE),
               crossing("late", DAY + ONE), crossing("from_ok", before="ok")]  # fmt: skip
    moves = [move("yes"), move("new", cause="baseline"), move("merged", cause="merged"), move("left", change="left"),
             move("other", audience="other")]  # fmt: skip

    def who(each: object) -> list[str]:
        found = occasions(each, moves, crossed, not_before=DAY, until=DAY)  # type: ignore[arg-type]
        return [occasion.person_id for occasion in found]

    assert who(slipping) == ["from_ok", "yes"] and who(welcome) == ["yes"] and who(falling) == ["from_ok"]
    assert who(trigger(on={"left": "vip"})) == ["left"]


def test_a_trigger_looks_back_to_its_last_evaluation_and_two_days_at_most() -> None:
    assert horizon(DAY, None) == DAY
    assert horizon(DAY, DAY) == DAY
    assert horizon(DAY, DAY - ONE) == DAY - ONE
    assert horizon(DAY, DAY - 30 * ONE) == DAY - 2 * ONE
    assert horizon(DAY, DAY + ONE) == DAY + ONE


def test_the_ledger_s_tables_are_published_without_payloads(lake: Lake, ledger: Ledger) -> None:
    letter = {"email": "email", "id": "person_id"}
    with Receiver() as receiver:
        whole = project(webhook(receiver.url), trigger(do=[{"destination": "hook", "mapping": letter}]))
        publish(lake, DAY, {"p1": 130})
        fire(ledger, lake, whole, now=NOW)
        deliver(ledger, whole, now=NOW, connect=destination_for)
        assert receiver.requests[0].json["data"] == {"email": "p1@example.com", "id": "p1"}
    written = (
        Mirror(OUTBOX, outbox_rows(ledger)),
        Mirror(DELIVERIES, delivery_rows(ledger)),
        Mirror(CONTACTS, contact_rows(ledger, whole)),
    )
    lake.publish(*written, note=NOTE)
    found = {table.name: lake.read(table).to_pyarrow().to_pylist() for table in (OUTBOX, DELIVERIES, CONTACTS)}
    [op], [attempt], [contact] = found.values()
    assert (op["state"], attempt["outcome"], attempt["code"], contact["channel"]) == (
        "delivered",
        "delivered",
        200,
        "webhook",
    )
    assert "@example.com" not in str(found)
    assert set(lake.publish(*written, note=NOTE).counts.values()) == {Counts(1, 0, 0, 0)}


def test_a_prediction_is_known_by_its_newest_score_up_to_the_day(lake: Lake) -> None:
    columns = {"person_id": TEXT, "day": Column("date"), "score": Column("float64")}
    churn = Table("predictions.churn", "Scores.", columns, key=("person_id", "day"))
    scores = [
        {"person_id": "p1", "day": DAY + days * ONE, "score": score} for days, score in ((-7, 0.1), (0, 0.7), (1, 0.9))
    ]
    lake.publish(Upsert(churn, rows(churn, *scores)), note=NOTE)
    whole = replace(project(), predictions={"churn": churn_prediction()})
    assert known_people(Questions().of(lake), whole, ["p1", "p2"], DAY) == {
        "p1": {"person_id": "p1", "churn": 0.7},
        "p2": {},
    }


def test_a_ranking_is_known_as_the_whole_newest_list_in_its_order(lake: Lake) -> None:
    columns = {"person_id": TEXT, "day": Column("date"), "item": TEXT, "rank": Column("int64")}
    discover = Table("predictions.discover", "Lists.", columns, key=("person_id", "day", "item"))
    lists = {("p1", -1): "xy", ("p1", 0): "cab", ("p1", 1): "z", ("p2", -3): "b"}
    scores = [
        {"person_id": person, "day": DAY + days * ONE, "item": item, "rank": rank}
        for (person, days), items in lists.items()
        for rank, item in reversed(list(enumerate(items, 1)))
    ]
    lake.publish(Upsert(discover, rows(discover, *scores)), note=NOTE)
    whole = replace(project(), predictions={"discover": ranking_prediction(name="discover")})
    assert known_people(Questions().of(lake), whole, ["p1", "p2", "p3"], DAY) == {
        "p1": {"discover": ["c", "a", "b"]}, "p2": {"discover": ["b"]}, "p3": {}
    }  # fmt: skip
