"""Which value wins, for every rule, against sorting a person's values in plain Python."""

from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import ibis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.profile.customers import (
    PROVENANCE,
    customers,
    customers_table,
    disagreements,
    over_bounds,
    provenance,
)
from cdp_pipeline.spec.attribute import Attribute
from cdp_pipeline_tests.identity.shop import NOW, Row, attribute, ibis_tables, persons, project, resolved

SOURCES = ["crm", "web", "till"]  # most trusted first
FRESH_DAYS = 57  # the rows are 59 to 56 days old at NOW
RULES = ["most_recent", "first", "source_priority", "most_frequent", "longest", "min", "max"]


def _from_all(column: str) -> list[dict[str, str]]:
    return [{"source": name, "column": column} for name in SOURCES]


ATTRIBUTES: dict[str, Attribute] = (
    {f"name_{rule}": attribute(f"name_{rule}", survivorship=rule, sources=_from_all("name")) for rule in RULES}
    | {f"points_{rule}": attribute(f"points_{rule}", survivorship=rule, sources=_from_all("points")) for rule in RULES}
    | {f"agrees_{rule}": attribute(f"agrees_{rule}", survivorship=rule, sources=_from_all("agrees"))
       for rule in ("any", "all", "most_restrictive")}
    | {"name_fresh": attribute("name_fresh", survivorship="most_trusted_and_fresh", fresh_for=f"{FRESH_DAYS} days",
                               sources=_from_all("name")),
       "paid_sum": attribute("paid_sum", survivorship="sum", sources=_from_all("paid")),
       "points_sum": attribute("points_sum", survivorship="sum", sources=_from_all("points")),
       "names": attribute("names", survivorship="union", sources=_from_all("name")),
       "last_seen": attribute("last_seen", survivorship="max", sources=_from_all("at"))}
)  # fmt: skip
COLUMN = {name: one.sources[0].column for name, one in ATTRIBUTES.items()}


@st.composite
def _rows(draw: st.DrawFn) -> list[Row]:
    found = draw(
        st.lists(
            st.builds(
                Row, source=st.sampled_from(SOURCES), record=st.just(0), day=st.integers(0, 3),
                customer=st.none() | st.integers(1, 8), cookie=st.none() | st.sampled_from(["k1", "anonymous"]),
                name=st.none() | st.sampled_from(["Ann", "ANN", "Bo", "Annie Lee"]),
                paid=st.none() | st.sampled_from([Decimal("0.1000"), Decimal("-2.5000"), Decimal("10.0000")]),
                points=st.none() | st.sampled_from([3, 20, 100]), agrees=st.none() | st.booleans(),
                until=st.none() | st.just(5),
            ),
            max_size=90,
        )
    )  # fmt: skip
    numbered = [dataclasses.replace(row, record=place) for place, row in enumerate(found)]
    return [row if row.source == "crm" else dataclasses.replace(row, until=None) for row in numbered]


def winner(found: list[Row], one: Attribute) -> tuple[Any, Row, int | None] | None:
    """The value that wins among one person's rows, the row it is taken from, and how many there were to choose from."""
    column, rule = one.sources[0].column, one.survivorship
    given_ = [row for row in found if getattr(row, column) is not None and (row.until is None or rule == "first")]
    if not given_:
        return None
    if rule == "most_restrictive":  # in a log, a later word takes an earlier one of the same identity back
        words: dict[Any, Row] = {}
        for row in sorted(given_, key=lambda row: (row.day, row.record_id)):
            whose = row.record_id if row.source == "crm" else (row.customer or row.cookie)
            words[row.source, whose] = row
        given_ = list(words.values())
    seen = len({str(getattr(row, column)).lower() for row in given_})
    values: list[Any] = [getattr(row, column) for row in given_]
    times = Counter(values)

    def latest(row: Row) -> tuple[Any, ...]:
        return row.day, -SOURCES.index(row.source), row.record_id

    def earliest(row: Row) -> tuple[Any, ...]:
        return row.day, SOURCES.index(row.source), row.record_id

    if rule in ("min", "max", "any", "all", "most_restrictive"):
        best = (max if rule in ("max", "any") else min)(values)
        given_ = [row for row in given_ if getattr(row, column) == best]
    before: dict[str, Any] = {
        "source_priority": lambda row: -SOURCES.index(row.source),
        "most_trusted_and_fresh": lambda row: (
            -SOURCES.index(row.source) if row.at >= NOW.replace(tzinfo=None) - timedelta(days=FRESH_DAYS) else -9
        ),
        "most_frequent": lambda row: times[getattr(row, column)],
        "longest": lambda row: len(str(getattr(row, column))),
    }
    if rule in ("first", "min", "all", "most_restrictive"):
        row = min(given_, key=earliest)
    else:
        row = max(given_, key=lambda row: (before.get(rule, lambda row: 0)(row), latest(row)))
    if rule == "sum":
        return sum(values), row, None
    if rule == "union":
        return sorted(set(values)), row, None
    return getattr(row, column), row, None if rule in ("min", "max") else seen


@settings(max_examples=4)  # few but large: an example is a hundred plans to compile
@given(_rows())
def test_every_rule_picks_the_value_and_the_row_that_plain_python_picks(found: list[Row]) -> None:
    of = project(attributes=ATTRIBUTES)
    result = resolved(found, of=of)
    whose = persons(result)
    theirs: dict[str | None, list[Row]] = {row["person_id"]: [] for row in result.people.to_pylist()}
    for row in found:
        ones = [("customer_id", str(row.customer)), ("anonymous_id", str(row.cookie))]
        owner = next((whose[one] for one in ones if whose.get(one) is not None), None)
        if owner is not None:
            theirs[owner].append(row)

    values = provenance(ibis_tables(found), ibis.memtable(result.identifiers), of, NOW)
    wide = customers(values, ibis.memtable(result.people), of).cast(customers_table(of).schema)
    profiles = {row["person_id"]: row for row in wide.to_pyarrow().to_pylist()}
    proofs = {(row["person_id"], row["attribute"]): row for row in values.to_pyarrow().to_pylist()}
    assert set(profiles) == set(theirs)
    wins = 0
    for person, rows in theirs.items():
        for name, one in ATTRIBUTES.items():
            expected = winner(rows, one)
            assert profiles[person][name] == (None if expected is None else expected[0]), (name, rows)
            if expected is not None:
                wins += 1
                proof, row = proofs[person, name], expected[1]
                assert (proof["source"], proof["record_id"], proof["at"]) == (row.source, row.record_id, row.at), name
                assert proof["rule"] == one.survivorship
                assert proof["values_seen"] == expected[2], (name, rows)
    assert len(proofs) == wins


def test_a_person_of_whom_nothing_is_known_has_a_profile_all_the_same() -> None:
    of = project(attributes=ATTRIBUTES)
    found = [Row("web", 1, 0, cookie="k1")]
    result = resolved(found, of=of)
    values = provenance(ibis_tables(found), ibis.memtable(result.identifiers), of, NOW)
    (profile,) = customers(values, ibis.memtable(result.people), of).to_pyarrow().to_pylist()
    assert profile["person_id"] == persons(result)["anonymous_id", "k1"]
    assert {name for name, value in profile.items() if value is not None} == {"person_id", "last_seen"}
    bare = project()
    nothing = provenance(ibis_tables(found), ibis.memtable(result.identifiers), bare, NOW)
    assert nothing.schema() == PROVENANCE.schema
    assert customers(nothing, ibis.memtable(result.people), bare).to_pyarrow().num_rows == 1


def test_people_who_are_no_more_have_no_profile() -> None:
    before = resolved([Row("web", 1, 0, customer=1), Row("web", 2, 1, mail="ann@example.com")])
    found = [Row("web", 1, 0, customer=1), Row("web", 3, 1, customer=1, mail="ann@example.com")]
    result = resolved(found, before)
    values = provenance(ibis_tables(found), ibis.memtable(result.identifiers), project(), NOW)
    assert result.people.num_rows == 2
    assert customers(values, ibis.memtable(result.people), project()).to_pyarrow().num_rows == 1


@pytest.mark.parametrize(
    ("columns", "rule", "type_"),
    [
        (["name"], "most_recent", "string"),
        (["paid"], "sum", "decimal(18, 4)"),
        (["points", "points"], "sum", "int64"),
        (["points", "paid"], "max", "decimal(18, 4)"),
        (["points * 0.5", "paid"], "max", "float64"),
        (["agrees"], "any", "boolean"),
        (["at"], "min", "timestamp(6)"),
        (["cast(at as date)", "at"], "min", "timestamp(6)"),
        (["points"], "union", "array<string>"),
        (["case when event = 'x' then points > 3 end"], "all", "boolean"),
    ],
)
def test_a_column_has_the_type_of_what_its_sources_give(columns: list[str], rule: str, type_: str) -> None:
    sources = [{"source": name, "column": column} for name, column in zip(("web", "till"), columns, strict=False)]
    one = attribute("one", survivorship=rule, sources=sources)
    of = project(attributes={"one": one})
    assert customers_table(of).schema["one"] == ibis.dtype(type_)
    found = [Row("web", 1, 0, customer=1, name="x", paid=Decimal(1), points=2, agrees=True, event="x")]
    result = resolved(found, of=of)
    values = provenance(ibis_tables(found), ibis.memtable(result.identifiers), of, NOW)
    table = customers(values, ibis.memtable(result.people), of)
    assert table["one"].type() == ibis.dtype(type_)
    assert table.to_pyarrow()["one"].null_count == 0


def test_times_in_provenance_are_read_back_as_they_were() -> None:
    of = project(attributes={"last_seen": ATTRIBUTES["last_seen"]})
    result = resolved([Row("web", 1, 3, customer=1)], of=of)
    values = provenance(ibis_tables([Row("web", 1, 3, customer=1)]), ibis.memtable(result.identifiers), of, NOW)
    (profile,) = customers(values, ibis.memtable(result.people), of).to_pyarrow().to_pylist()
    assert profile["last_seen"] == datetime(2026, 1, 4)


CONSENT = {"consent": attribute("consent", survivorship="most_restrictive", sources=_from_all("agrees"))}


def _consents(found: list[Row], before: Any = None) -> tuple[Any, dict[str, bool | None]]:
    of = project(attributes=CONSENT)
    result = resolved(found, before, of)
    values = provenance(ibis_tables(found), ibis.memtable(result.identifiers), of, NOW)
    profiles = customers(values, ibis.memtable(result.people), of).to_pyarrow().to_pylist()
    return result, {row["person_id"]: row["consent"] for row in profiles}


def test_when_two_people_turn_out_to_be_one_a_withdrawn_consent_stays_withdrawn() -> None:
    ann = Row("web", 1, 0, customer=1, agrees=False)
    bob = Row("web", 2, 3, mail="ann@example.com", agrees=True)  # agreed later, elsewhere
    before, apart = _consents([ann, bob])
    assert sorted(apart.values()) == [False, True]
    joined = Row("till", 3, 4, customer=1, mail="ann@example.com")
    after, together = _consents([ann, bob, joined], before)
    assert after.changes.to_pylist()[0]["change"] == "merged"
    assert list(together.values()) == [False]


def test_who_never_answered_has_not_agreed_and_takes_nothing_from_who_has() -> None:
    silent, agreed = Row("web", 1, 0, customer=1), Row("web", 2, 3, mail="ann@example.com", agrees=True)
    _, apart = _consents([silent, agreed])
    assert set(apart.values()) == {None, True}
    joined = Row("till", 3, 4, customer=1, mail="ann@example.com")
    _, together = _consents([silent, agreed, joined])
    assert list(together.values()) == [True]


def test_who_withdrew_may_agree_again_but_only_as_themselves() -> None:
    withdrew, again = Row("web", 1, 0, customer=1, agrees=False), Row("web", 2, 1, customer=1, agrees=True)
    assert list(_consents([withdrew, again])[1].values()) == [True]
    other_log, other_identity = Row("till", 2, 1, customer=1, agrees=True), Row("web", 2, 1, cookie="k1", agrees=True)
    joined = Row("till", 3, 0, customer=1, cookie="k1")
    for later in (other_log, other_identity):
        assert list(_consents([withdrew, later, joined])[1].values()) == [False]


def test_it_is_counted_of_how_many_people_sources_disagree() -> None:
    of = project(
        attributes={
            "name": attribute("name", sources=_from_all("name"), at_most=2),
            "points": attribute("points", survivorship="max", sources=_from_all("points")),
        }
    )
    names = {1: ["Ann", "ann", "ANN"], 2: ["Bo", "Bob"], 3: ["Cy", "Di", "Ed"]}
    said = [(customer, name) for customer, names_ in names.items() for name in names_]
    found = [Row("web", place, 0, customer=who, name=name, points=place) for place, (who, name) in enumerate(said)]
    result = resolved(found, of=of)
    values = provenance(ibis_tables(found), ibis.memtable(result.identifiers), of, NOW)
    assert disagreements(values).to_pyarrow().to_pylist() == [{"attribute": "name", "people": 3, "disagree": 2}]
    assert over_bounds(values, of) == {"name": (3, 1)}
    assert over_bounds(values, project()) == {}
