"""Why two identifiers are (not) one person: every answer against a search over the edges table of its own."""

from __future__ import annotations

from itertools import combinations

import ibis
import pytest
from hypothesis import given, settings

from cdp_pipeline.identity.explain import Explanation, UnknownIdentifier, explain_link, resolve_identifier
from cdp_pipeline.identity.people import Resolution
from cdp_pipeline_tests.identity.shop import Row, moments, persons, project, resolved, rows


def ask(result: Resolution, a: str, b: str) -> Explanation:
    return explain_link(ibis.memtable(result.edges), ibis.memtable(result.identifiers), a, b, project())


def distance_by_hand(result: Resolution, start: tuple[str, str], goal: tuple[str, str]) -> int | None:
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


@settings(max_examples=12, deadline=None)
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
