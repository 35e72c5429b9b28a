"""Why two identifiers are (not) one person: every answer against a search over the edges table of its own."""

from __future__ import annotations

import dataclasses
import json
from itertools import combinations

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings

from cdp_pipeline.identity.explain import Explanation, Link, explain_link, waterfall_of
from cdp_pipeline.identity.matching.matches import MATCHES
from cdp_pipeline.identity.named import Identified, UnknownIdentifier, resolve_identifier
from cdp_pipeline.spec.verdict import Verdict
from cdp_pipeline_tests.identity.shop import START, Resolved, Row, moments, persons, project, resolved, rows


def ask(result: Resolved, a: str, b: str) -> Explanation:
    return explain_link(ibis.memtable(result.edges), ibis.memtable(result.identifiers), a, b, project())


def distance_by_hand(result: Resolved, start: tuple[str, str], goal: tuple[str, str]) -> int | None:
    """Rings around the start, over the links that hold, until the goal is in one."""
    near: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for edge in result.edges.to_pylist():
        if edge["status"] in ("accepted", "redundant"):
            a, b = (edge["type_a"], edge["value_a"]), (edge["type_b"], edge["value_b"])
            near.setdefault(a, set()).add(b)
            near.setdefault(b, set()).add(a)
    ring, reached, steps = {start}, {start}, 0
    while ring and goal not in ring:
        ring = {there for here in ring for there in near.get(here, set())} - reached
        reached |= ring
        steps += 1
    return steps if ring else None


@settings(max_examples=12)
@given(rows(most=10))
def test_one_person_is_explained_by_a_shortest_path_and_two_by_none(found: list[Row]) -> None:
    result = resolved(found)
    for a, b in list(combinations(sorted(moments(found)), 2))[:12]:
        answer, steps = ask(result, ":".join(a), ":".join(b)), distance_by_hand(result, a, b)
        assert answer.same_person == (steps is not None)
        assert len(answer.path) == (steps or 0)
        here = a
        for link in answer.path:
            assert here in link.ends and link.status in ("accepted", "redundant")
            here = link.ends[1] if here == link.ends[0] else link.ends[0]
        assert here == (b if steps is not None else a)
        assert all(link.status not in ("accepted", "redundant") for link in answer.against)


def test_two_people_on_one_refused_link_are_told_the_limit() -> None:
    found = [Row("web", 1, 1, customer=1, mail="ann@example.com"), Row("web", 2, 0, customer=2, mail="ann@example.com")]
    answer = ask(resolved(found), "customer_id:1", "customer_id:2")
    assert not answer.same_person
    assert [(link.status, link.why) for link in answer.against] == [
        ("refused_unique", "a person has at most 1 customer_id")
    ]
    assert "row web0002), 2026-01-01 to 2026-01-01" in str(answer)


def test_two_people_who_used_one_tablet_are_told_that_it_is_shared() -> None:
    found = [Row("web", number, 0, customer=number, cookie="tablet") for number in range(1, 5)]
    answer = ask(resolved(found), "customer_id:1", "customer_id:2")
    assert {link.why for link in answer.against} == {"the anonymous_id is shared"}
    assert len(answer.against) == 2
    tablet = str(ask(resolved(found), "customer_id:1", "anonymous_id:tablet"))
    assert "anonymous_id:tablet is shared: seen with 4 values of customer_id, more than 2" in tablet


def test_two_people_whom_nothing_connects_are_told_so() -> None:
    answer = ask(
        resolved([Row("web", 1, 0, customer=1), Row("web", 2, 0, customer=2)]), "customer_id:1", "customer_id:2"
    )
    assert str(answer).endswith("no row ever showed them, or what is theirs, together")
    same = ask(resolved([Row("web", 1, 0, customer=1)]), "customer_id:1", "customer_id:1")
    assert same.same_person and same.path == []


def test_identifiers_are_found_as_people_write_them_and_merged_ids_lead_to_the_living() -> None:
    ann = [Row("web", 1, 0, customer=1), Row("web", 2, 1, mail="ann@example.com")]
    apart = resolved(ann)
    merged = resolved([*ann, Row("web", 3, 2, customer=1, mail="ann@example.com")], apart)
    identifiers, people = ibis.memtable(merged.identifiers), ibis.memtable(merged.people)
    survivor, absorbed = persons(merged)["customer_id", "1"], persons(apart)["email", "ann@example.com"]
    for text in ("customer_id:1", "email: Ann@Example.COM ", str(survivor), str(absorbed)):
        assert resolve_identifier(text, identifiers, people, project()) == survivor


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("email:anne@example.com", "no identifier email:anne@example.com, nearest: email:ann@example.com"),
        ("email:somebody.else@far.away", "no identifier email:somebody.else@far.away"),
        ("mail:ann@example.com", "unknown identifier type 'mail', did you mean 'email'?"),
        ("p123", "no person 'p123': give a person id, or type:value with type one of anonymous_id, customer_id, email"),
        ("email:test@example.com", "email:test@example.com is nobody's: it is blocked: test entry"),
    ],
)
def test_who_is_not_found_is_told_the_nearest(text: str, message: str) -> None:
    result = resolved([Row("web", 1, 0, mail="ann@example.com"), Row("web", 2, 0, mail="test@example.com")])
    with pytest.raises(UnknownIdentifier) as caught:
        resolve_identifier(text, ibis.memtable(result.identifiers), ibis.memtable(result.people), project())
    assert str(caught.value) == message


def test_people_kept_apart_by_a_verdict_are_told_whose_and_why() -> None:
    verdict = {"kind": "verdict", "name": "two_anns", "description": "x", "by": "bob", "on": "2026-02-01",
               "unlink": ["email: ANN@example.com", "email:bob@example.com"], "why": "They called."}  # fmt: skip
    shop = project(verdicts={"two_anns": Verdict.model_validate(verdict)})
    found = [Row("web", 1, 0, customer=1, mail="ann@example.com"), Row("web", 2, 1, customer=1, mail="bob@example.com")]
    pair = (("email", "ann@example.com"), ("email", "bob@example.com"), "two_anns")
    result = resolved(found, vetoed=[pair])
    tables = ibis.memtable(result.edges), ibis.memtable(result.identifiers)
    answer = explain_link(*tables, "email:ann@example.com", "customer_id:1", shop)
    assert answer.verdicts == [
        "verdict two_anns keeps email:ann@example.com and email:bob@example.com apart (bob, 2026-02-01): They called."
    ]
    assert [link.status for link in answer.against] == ["refused_verdict"]
    assert [(held.type, held.count, held.broken) for held in answer.limits] == [
        ("customer_id", 1, False), ("email", 2, False),
    ]  # fmt: skip


def test_people_far_apart_are_told_the_nearest_way_and_the_limit_they_would_break() -> None:
    """1 and 2 met in one address, 2 and 3 in one cookie: nothing of 1 was ever seen with anything of 3."""
    found = [
        Row("web", 1, 3, customer=1, mail="ann@example.com"), Row("web", 2, 2, customer=2, mail="ann@example.com"),
        Row("web", 3, 3, customer=2, cookie="k1"), Row("web", 4, 2, customer=3, cookie="k1"),
    ]  # fmt: skip
    answer = ask(resolved(found), "customer_id:1", "customer_id:3")
    assert not answer.against
    assert sorted(link.holds for link in answer.chain) == [False, False, True, True]
    said = str(answer)
    assert "the nearest way from one to the other, 2 of 4 links do not hold:" in said
    assert "together they would have 2 customer_id, a person has at most 1" in said


def test_ids_of_people_are_explained_also_after_they_were_merged() -> None:
    ann = [Row("web", 1, 0, customer=1), Row("web", 2, 1, mail="ann@example.com")]
    apart = resolved(ann)
    merged = resolved([*ann, Row("web", 3, 2, customer=1, mail="ann@example.com")], apart)
    ids = [str(persons(apart)[end]) for end in (("customer_id", "1"), ("email", "ann@example.com"))]
    tables = ibis.memtable(merged.edges), ibis.memtable(merged.identifiers)
    answer = explain_link(*tables, ids[0], ids[1], project(), ibis.memtable(merged.people))
    assert answer.same_person and [link.record_id for link in answer.path] == ["web0003"]
    assert answer.notes == [
        f"of {ids[0]}, customer_id:1 is meant",
        f"{ids[1]} was merged into {ids[0]}",
        f"of {ids[1]}, email:ann@example.com is meant",
    ]
    with pytest.raises(UnknownIdentifier, match="no person 'p0'"):
        explain_link(*tables, "p0", ids[0], project(), ibis.memtable(merged.people))


def test_a_fuzzy_link_shows_how_its_score_came_about() -> None:
    """The row of identity.matches is in words beside the link."""
    ends = ("customer_id", "1", "customer_id", "2")
    row = {
        **dict(zip(("type_a", "value_a", "type_b", "value_b"), ends, strict=True)),
        "match": "same_name", "score": 0.999, "weight": 9.9, "grade": 5, "status": "joined", "by_rule": True,
        "why": json.dumps([["two people at random", "", -10.0], ["name", "equal", 19.9]]), "model_version": "v1",
        "first_seen": START,
    }  # fmt: skip
    matches = ibis.memtable(pa.Table.from_pylist([row], schema=MATCHES.schema.to_pyarrow()))
    link = Link(*ends, "match:same_name", "v1", START, START, "match:same_name", 0.999, "accepted", None)
    lines = waterfall_of(matches)(link)
    one = Identified("customer_id", "1", "p1", "ok", None)
    said = str(Explanation(one, dataclasses.replace(one, value="2"), [link], [], waterfalls={link: lines}))
    assert "same_name: 99.9% likely one person, grade 5 of 5, joined" in said
    assert "+19.9 bits  equal" in said
    assert waterfall_of(matches)(dataclasses.replace(link, value_b="3")) == []
