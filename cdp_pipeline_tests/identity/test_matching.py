"""Fuzzy matching on made-up people with spelling mistakes: found, graded, the same in any order, never a chain."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.matching import linkage, model
from cdp_pipeline.identity.matching.comparisons import compared
from cdp_pipeline.identity.matching.evidence import Worth, grade
from cdp_pipeline.identity.matching.matches import Matched, fuzzy, in_order, waterfall_lines
from cdp_pipeline.identity.matching.model import MatchModelTamperedError, load, newest
from cdp_pipeline.identity.matching.scores import SplinkMissingError, engine, patterns, score
from cdp_pipeline.identity.matching.units import reads_only, units
from cdp_pipeline.identity.people import resolve
from cdp_pipeline.spec.match import Match
from cdp_pipeline_tests.identity.shop import IDENTIFIERS, NOW, START, Row, attribute, edges_table, project, seen_table

GIVEN = (
    "ann ben carla david emma frank grace henry irene jack karen louis maria noah olive peter rosa simon tess victor"
)
PEOPLE = 400


def match(**changes: Any) -> Match:
    base = {
        "kind": "match",
        "name": "same_person",
        "description": "Spelled differently, but one person.",
        "compare": [
            {"name": ["given_name", "family_name"]},
            {"date": "birth_date"},
            {"place": ["street", "postcode"]},
        ],
    }
    return Match.model_validate(base | changes)


def typo(text: str, dice: random.Random) -> str:
    at = dice.randrange(1, len(text))
    return text[:at] + dice.choice("aeiorstn") + text[at + dice.randrange(2) :]


def company(seed: int = 3, people: int = PEOPLE) -> list[dict[str, Any]]:
    """Rows of people, some twice or three times with mistakes; `truth` says who is who."""
    dice = random.Random(seed)
    syllables = [
        "bar",
        "den",
        "fol",
        "gri",
        "hal",
        "ket",
        "lom",
        "mar",
        "nor",
        "pel",
        "rud",
        "sto",
        "tam",
        "vin",
        "wes",
    ]
    families = ["".join(dice.sample(syllables, 3)) for _ in range(people)]
    rows = []
    for person in range(people):
        said = {
            "given_name": dice.choice(GIVEN.split()),
            "family_name": dice.choice(families),
            "birth_date": f"{dice.randrange(1940, 2005)}-{dice.randrange(1, 13):02}-{dice.randrange(1, 29):02}",
            "street": f"{dice.choice(syllables)}{dice.choice(syllables)} {dice.randrange(1, 90)}",
            "postcode": f"{dice.randrange(10000, 10300)}",
        }
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            row = dict(said)
            for name in dice.sample(list(row), dice.randrange(3)):
                row[name] = None if dice.random() < 0.3 else typo(row[name], dice)
            if dice.random() < 0.05:
                row["given_name"], row["family_name"] = row["family_name"], row["given_name"]
            rows.append(
                {"type": "customer_id", "value": f"{len(rows):05}", "first_seen": START, **row, "truth": person}
            )
    return rows


def table(rows: list[dict[str, Any]]) -> pa.Table:
    text = ["type", "value", "given_name", "family_name", "birth_date", "street", "postcode"]
    schema = pa.schema([(name, pa.string()) for name in text] + [("first_seen", pa.timestamp("us"))])
    return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)


ROWS = company()
TRUTH = {row["value"]: row["truth"] for row in ROWS}


def run(rows: list[dict[str, Any]], folder: Path, before: Matched | None = None, of: Match | None = None) -> Matched:
    last = (None, None) if before is None else (before.matches, before.compared)
    return fuzzy(of or match(), table(rows), *last, folder, NOW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def found(folder: Path) -> Matched:
    return run(ROWS, folder)


def test_people_spelled_differently_are_found_and_nobody_else(found: Matched) -> None:
    joined = found.edges.to_pylist()
    assert joined and all(TRUTH[row["value_a"]] == TRUTH[row["value_b"]] for row in joined)
    true = sum(TRUTH[a] == TRUTH[b] for a in TRUTH for b in TRUTH if a < b)
    together = found.matches.filter(pc.not_equal(found.matches["status"], "apart")).to_pylist()
    right = sum(TRUTH[row["value_a"]] == TRUTH[row["value_b"]] for row in together)
    assert right / true > 0.9 and right / len(together) > 0.97
    assert len(joined) / true > 0.3


def test_only_certain_matches_join_unless_the_project_says_otherwise(found: Matched, folder: Path) -> None:
    rows = found.matches.to_pylist()
    assert {row["grade"] for row in rows if row["status"] == "joined"} == {5}
    assert {row["grade"] for row in rows} > {5}
    bolder = run(ROWS, folder, found, match(thresholds={"join": 3, "ads": 1}))
    assert bolder.new == 0 and not bolder.learned
    by_hand = [
        row | {"status": "joined" if row["grade"] >= 3 and row["status"] != "apart" else row["status"]} for row in rows
    ]
    assert bolder.matches.to_pylist() == by_hand


def test_the_order_in_which_people_come_changes_nothing(found: Matched, tmp_path: Path) -> None:
    shuffled = run(random.Random(1).sample(ROWS, len(ROWS)), tmp_path)
    assert shuffled.model is not None and found.model is not None
    assert shuffled.learned and shuffled.model.version == found.model.version
    assert shuffled.matches == found.matches


def test_comparing_only_who_is_new_changed_or_gone_gives_what_comparing_everybody_gives(
    found: Matched, folder: Path
) -> None:
    state, dice = found, random.Random(5)
    rows = [dict(row) for row in ROWS]
    for step in range(3):
        rows = [row for row in rows if dice.random() > 0.03]
        for row in dice.sample(rows, 15):
            row["street"] = typo(row["street"] or "unknown", dice)
        rows += [
            {**row, "value": f"new{step}{row['value']}"}
            for row in company(seed=9 + step, people=8) + dice.sample(ROWS, 6)
        ]
        incremental, full = run(rows, folder, state), run(rows, folder)
        assert incremental.matches == full.matches and incremental.compared == full.compared
        assert 0 < incremental.new < 60 < full.new
        state = incremental


def test_scores_stay_until_people_became_many_more_or_another_thing_is_compared(found: Matched, folder: Path) -> None:
    assert not run(ROWS[:-50], folder, found).learned
    small = match(retrain_after=0.01)
    assert model.needs_learning(found.model, small, int(len(ROWS) * 1.2))
    assert not model.needs_learning(found.model, match(), int(len(ROWS) * 1.2))
    assert model.needs_learning(found.model, match(compare=[{"date": "birth_date"}, {"text": "street"}]), len(ROWS))


def test_a_saved_model_is_the_one_that_was_learned_or_none(found: Matched, folder: Path, tmp_path: Path) -> None:
    kept = newest(folder, match())
    assert kept is not None and found.model is not None
    assert kept.version == found.model.version and kept.frequencies == found.model.frequencies
    model.save(kept, tmp_path)
    path = tmp_path / "matches" / "same_person" / kept.version / "model.json"
    path.write_text(path.read_text().replace('"m_probability": 0.', '"m_probability": 0.1', 1))
    with pytest.raises(MatchModelTamperedError, match="not those that were learned"):
        newest(tmp_path, match())
    with pytest.raises(MatchModelTamperedError, match="gone"):
        load(tmp_path, "same_person", "0000")


def test_a_model_keeps_no_value_that_only_one_person_has(found: Matched) -> None:
    assert found.model is not None
    for column, value in zip(*(found.model.frequencies[name].to_pylist() for name in ("column", "value")), strict=True):
        if value is not None and column == "street__":
            assert sum(row["street"] is not None and row["street"].lower() == value for row in ROWS) > 1
    card = json.dumps(found.model.card)
    assert not any(row["street"] in card for row in ROWS if row["street"])


def test_too_few_people_teach_nothing_and_match_nobody(tmp_path: Path) -> None:
    few = run(ROWS[:60], tmp_path)
    assert few.model is None and few.matches.num_rows == few.edges.num_rows == few.compared.num_rows == 0
    assert few.edges.column_names == [name for name in EDGES.columns if name in few.edges.column_names]


def test_without_splink_a_match_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "splink", None)
    with pytest.raises(SplinkMissingError, match=r"match same_person: needs Splink.*pip install"):
        run(ROWS, tmp_path)


def test_things_that_go_together_are_named_when_they_are_compared_apart(found: Matched) -> None:
    assert found.model is not None and found.model.card["correlated"] == []
    streets: dict[str, str] = {}
    neighbours = [
        {**row, "street": streets.setdefault(row["postcode"], row["street"])} if row["postcode"] else row
        for row in ROWS
    ]
    apart = match(
        compare=[
            {"name": ["given_name", "family_name"]},
            {"date": "birth_date"},
            {"text": "street"},
            {"code": "postcode"},
        ]
    )
    learned = model.train(in_order(table(neighbours), apart), apart, NOW)
    assert learned is not None
    (words,) = learned.card["correlated"]
    assert words.startswith("street and postcode go together") and words.endswith("compare them as one place")


def test_a_model_that_takes_families_for_persons_is_not_believed_and_joins_nobody(tmp_path: Path) -> None:
    dice = random.Random(8)
    family = {"type": "customer_id", "first_seen": START}
    rows = []
    for home in company(seed=4, people=250):
        for _ in range(2):  # two people of one family name at one place, and nobody twice
            born = f"{dice.randrange(1940, 2005)}-{dice.randrange(1, 13):02}-{dice.randrange(1, 29):02}"
            given_name = dice.choice(GIVEN.split())
            rows.append({**home, **family, "value": f"{len(rows):05}", "birth_date": born, "given_name": given_name})
    found = run(rows, tmp_path)
    assert found.model is not None and not found.model.believed
    assert "agree on birth_date" in found.model.card["doubts"][0]
    assert found.edges.num_rows == 0


def test_an_address_made_of_a_name_does_not_count_twice() -> None:
    declared = match(compare=[{"name": ["given_name", "family_name"]}, {"email": "mail"}])
    rows = pa.Table.from_pylist([
        {"given_name": given, "family_name": "Müller", "mail": mail}
        for given, mail in (("Ann", "ann.muller@one.example"), ("Ann", "ann.muller@two.example"),
                            ("Ann", "ann.muller77@one.example"), ("Bo", "ann.muller+shop@one.example"))
    ])  # fmt: skip
    with engine(rows, compared(declared)) as connection:
        own = connection.sql('select "mail__local" from people order by unique_id').fetchall()
    assert own == [(None,), (None,), ("77",), ("ann",)]


def test_the_evidence_of_a_pair_is_what_splink_says(found: Matched) -> None:
    assert found.model is not None
    rows = in_order(table(ROWS), match())
    with engine(rows, compared(match())) as connection:
        connection.execute("create table pairs_of_rows as select l, l + d as r from range(500) t(l), range(1, 40) s(d)")
        ours = patterns(connection, found.model.settings, found.model.frequencies, "pairs_of_rows")
        theirs = score(connection, found.model.settings, found.model.frequencies, "pairs_of_rows").sort_by(
            [("l", "ascending"), ("r", "ascending")]
        )
    assert np.allclose(ours.weight(Worth.of(found.model.settings)), theirs["weight"].to_numpy(), atol=1e-4)


def test_the_reasons_of_a_match_add_up_to_its_weight(found: Matched) -> None:
    for row in found.matches.to_pylist():
        assert sum(bits for _, _, bits in json.loads(row["why"])) == pytest.approx(row["weight"], abs=0.05)
        lines = waterfall_lines(row)
        assert lines[0].startswith("same_person: ") and f"grade {row['grade']} of 5, {row['status']}" in lines[0]
        assert [line.split("  ")[1].strip() for line in lines[2:-1]] == [one.about for one in compared(match())]


def test_links_for_the_graph_look_like_all_others_and_are_the_weakest(found: Matched) -> None:
    evidence = [name for name in EDGES.columns if name not in ("status", "why", "id_a", "id_b")]
    assert set(evidence) <= set(found.edges.column_names)
    for row in found.edges.to_pylist():
        assert (row["type_a"], row["value_a"]) < (row["type_b"], row["value_b"])
        assert row["rule"] == row["source"] == "match:same_person" and 0.999 <= row["score"] <= 1


def test_a_person_is_compared_under_their_strongest_identifier_whatever_their_id() -> None:
    declared = match(compare=[{"text": "name"}, {"email": "mail"}])
    attributes = {
        name: attribute(name, sources=[{"source": "crm", "column": name}]) for name in ("name", "mail", "points")
    }
    shop = project(attributes=attributes)
    assert list(reads_only(declared, shop).attributes) == ["name", "mail"]
    day = timedelta(days=1)
    identifiers = [
        ("customer_id", "7", "pX", START + day, "ok"), ("email", "ann@example.com", "pX", START, "ok"),
        ("email", "bob@example.com", "pY", START + 2 * day, "ok"),
        ("email", "rob@example.com", "pY", START + day, "ok"),
        ("anonymous_id", "k1", "pZ", START, "shared"), ("email", "test@example.com", None, START, "blocked"),
    ]  # fmt: skip
    names = ["type", "value", "person_id", "first_seen", "status"]
    seen = ibis.memtable(pa.Table.from_pylist([dict(zip(names, one, strict=True)) for one in identifiers]))
    profiles = ibis.memtable(
        {
            "person_id": ["pX", "pY", "pZ"],
            "name": ["Ann", "Bob", "Zoe"],
            "mail": [None, "b@example.com", None],
            "points": [1, 2, 3],
        }
    )
    rows = units(seen, profiles, declared, shop).to_pyarrow().to_pylist()
    assert sorted((row["type"], row["value"], row["first_seen"], row["name"]) for row in rows) == [
        ("customer_id", "7", START, "Ann"),
        ("email", "rob@example.com", START + day, "Bob"),
    ]


def test_a_match_joins_two_people_but_never_beyond_a_limit() -> None:
    rows = [
        Row("web", 1, 0, customer=1, mail="ann@example.com"),
        Row("web", 2, 0, mail="ann.b@example.com", cookie="k1"),
        Row("web", 3, 0, customer=2, mail="cy@example.com"),
    ]
    names = ("type_a", "value_a", "type_b", "value_b")
    said = [("customer_id", "1", "email", "ann.b@example.com"), ("customer_id", "1", "customer_id", "2")]
    links = [
        dict(zip(names, pair, strict=True))
        | {
            "source": "match:m",
            "record_id": "v",
            "first_seen": START,
            "last_seen": START,
            "rule": "match:m",
            "score": 0.999,
        }
        for pair in said
    ]
    evidence = edges_table(rows)
    both = pa.concat_tables([evidence, pa.Table.from_pylist(links, schema=evidence.schema)])
    people = resolve(both, seen_table(rows), None, None, project(IDENTIFIERS), NOW)
    whose = {row["value"]: row["person_id"] for row in _rows(people.identifiers)}
    assert whose["1"] == whose["ann.b@example.com"] == whose["k1"] != whose["2"]
    refused = [
        row["why"] for row in _rows(people.edges) if row["rule"] == "match:m" and row["status"].startswith("refused")
    ]
    assert refused == ["a person has at most 1 customer_id"]


def _rows(rows: Any) -> list[dict[str, Any]]:
    return (rows.to_pyarrow() if isinstance(rows, ibis.Table) else rows).to_pylist()


def test_grades_are_cut_at_one_false_match_in_a_thousand_a_hundred_twenty_five_and_two() -> None:
    odds = np.array([-1.0, 0.0, 0.1, 1.9, 2.1, 4.2, 4.3, 6.6, 6.7, 9.9, 10.0, 40.0])
    assert grade(odds).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


# Few rows and few distinct weights, so that ties, unknowns and contradictions come up all the time.
_BITS = st.sampled_from([-20.0, -4.0, -1.0, 0.0, 2.0, 5.0, 20.0, float("nan")])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], list[list[float]]]:
    count = draw(st.integers(2, 6))
    every = [(a, b) for a in range(count) for b in range(a + 1, count)]
    return count, every, [draw(st.lists(_BITS, min_size=2, max_size=2)) for _ in every]


def linked_by_hand(count: int, every: list[tuple[int, int]], bits: list[list[float]], prior: float) -> list[int]:
    """Average linkage in plain loops: per comparison the mean over pairs that know it, then their sum."""
    clusters = [[row] for row in range(count)]
    said = {pair: [min(max(bit, -15.0), 15.0) for bit in row] for pair, row in zip(every, bits, strict=True)}

    def weight(one: list[int], other: list[int]) -> float:
        total = prior
        for place in range(2):
            known = [said[min(a, b), max(a, b)][place] for a in one for b in other]
            known = [bit for bit in known if bit == bit]
            total += sum(known) / len(known) if known else 0
        return round(total, 4)

    while True:
        likeliest = max(
            ((weight(one, other), -min(one), -min(other), one, other) for one in clusters for other in clusters
             if min(one) < min(other)),
            key=lambda found: found[:3], default=None,
        )  # fmt: skip
        if likeliest is None or likeliest[0] <= 0:
            return [next(min(one) for one in clusters if row in one) for row in range(count)]
        one, other = likeliest[3:]
        clusters = [each for each in clusters if each not in (one, other)] + [one + other]


@given(pairs())
@settings(max_examples=150)
def test_clusters_are_those_of_average_linkage_by_hand(
    found: tuple[int, list[tuple[int, int]], list[list[float]]],
) -> None:
    count, every, bits = found
    left, right = (np.array([pair[end] for pair in every]) for end in (0, 1))
    of = linkage.cut(left, right, np.array(bits), -1.5, np.zeros(count, np.int64))
    assert of.tolist() == linked_by_hand(count, every, bits, -1.5)


def test_a_chain_of_likenesses_joins_nobody_it_should_not() -> None:
    every = [(a, b) for a in range(6) for b in range(a + 1, 6)]
    bits = np.array([[6.0] if b == a + 1 else [-12.0] for a, b in every])
    left, right = np.array(every).T
    of = linkage.cut(left, right, bits, 0.0, np.zeros(6, np.int64))
    assert max(np.bincount(of)) == 2


@pytest.fixture
def at_most_ten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(linkage, "LARGEST", 10)
    yield


def test_a_huge_group_is_taken_apart_at_stronger_evidence_and_joins_nobody_where_that_does_not_help(
    at_most_ten: None,
) -> None:
    a, b = np.arange(29), np.arange(1, 30)
    weight = np.where(b % 10 == 0, 1.5, 5.0)
    assert np.bincount(linkage.parts(a, b, weight, 30)).max() == 10
    all_the_same = linkage.parts(a, b, np.full(29, 40.0), 30)
    assert all_the_same.tolist() == list(range(30))


def test_a_match_may_only_be_declared_once_per_thing() -> None:
    twice = match(compare=[{"place": ["street", "postcode"]}, {"postcode": "postcode"}, {"text": "given_name"}])
    assert [message for _, message in twice.disagreements()] == [
        "'postcode' is compared already, in compare[0]; what agrees counts once",
        "'postcode' goes with the place in compare[0]: list it there, or neighbours count as agreeing twice",
    ]
    assert match().joins_at == 5
