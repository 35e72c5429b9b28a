"""Who is who: against a plain union-find, and the promises that hold whatever the rows are."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_pipeline.identity.ids import mint
from cdp_pipeline.identity.people import resolve
from cdp_pipeline_tests.identity.shop import (
    IDENTIFIERS,
    NOW,
    UNPROTECTED,
    Resolved,
    Row,
    edges_table,
    identifier,
    moments,
    number,
    pairs,
    partition,
    persons,
    project,
    resolved,
    rows,
    seen_table,
)

LIMITS = {"customer_id": 1, "email": 2, "anonymous_id": 3}
BLOCKED = {("email", "test@example.com"), ("anonymous_id", "anonymous")}


def shared_by_hand(found: list[Row], above: int = 2) -> set[tuple[str, str]]:
    customers: dict[tuple[str, str], set[str]] = {}
    for pair in pairs(found):
        for one, other in ((pair[:2], pair[2:4]), (pair[2:4], pair[:2])):
            if other[0] == "customer_id" and one not in BLOCKED:
                customers.setdefault(one, set()).add(other[1])
    return {one for one, met in customers.items() if len(met) > above}


def components_by_hand(ones: set[Any], joins: list[tuple[Any, Any]]) -> set[frozenset[Any]]:
    group = {one: {one} for one in ones}
    for a, b in joins:
        if group[a] is not group[b]:
            group[a] |= group[b]
            for one in group[b]:
                group[one] = group[a]
    return {frozenset(members) for members in group.values()}


@given(rows())
@settings(max_examples=60)
def test_without_any_protection_people_are_the_connected_components(found: list[Row]) -> None:
    by_hand = components_by_hand(set(moments(found)), [(pair[:2], pair[2:4]) for pair in pairs(found)])
    assert partition(resolved(found, of=project(UNPROTECTED))) == by_hand


def strongest_first(edges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By definition: declared ones, then the weaker priority, the stronger, the latest seen, the ids, the source."""

    def order(edge: dict[str, Any]) -> tuple[Any, ...]:
        priorities = sorted(IDENTIFIERS[edge[end]].priority for end in ("type_a", "type_b"))
        ids = sorted(number(edge[f"type_{end}"], edge[f"value_{end}"]) for end in ("a", "b"))
        latest = -edge["last_seen"].timestamp()
        return (edge["rule"] != "verdict", *(-one for one in priorities), latest, *ids, edge["source"])

    return sorted(edges, key=order)


Ones = st.tuples(*[st.sampled_from(sorted({("email", "ann@example.com"), ("email", "bob@example.com"),
                   ("customer_id", "1"), ("customer_id", "2"), ("anonymous_id", "k1")}))] * 2)  # fmt: skip


@given(rows(most=30), st.lists(Ones, max_size=2), st.lists(Ones, max_size=2))
@settings(max_examples=60)
def test_the_strongest_links_join_and_those_that_break_a_limit_or_a_verdict_are_refused(
    found: list[Row], declared: list[Any], apart: list[Any]
) -> None:
    declared, apart = ([pair for pair in pairs_ if pair[0] != pair[1]] for pairs_ in (declared, apart))
    declared = sorted({tuple(sorted(pair)) for pair in declared})
    result = resolved(found, declared=declared, vetoed=[(*pair, "apart") for pair in apart])
    mute = BLOCKED | shared_by_hand(found)
    group = {one: {one} for one in moments(found)}
    for edge in strongest_first(result.edges.to_pylist()):
        a, b = (edge["type_a"], edge["value_a"]), (edge["type_b"], edge["value_b"])
        if a in mute or b in mute:
            assert edge["status"] == "inactive"
            continue
        together = Counter(type_ for type_, _ in group[a] | group[b])
        broken = [type_ for type_, bound in LIMITS.items() if together[type_] > bound]
        if group[a] is group[b]:
            assert edge["status"] == "accepted"
        elif any({one, other} <= group[a] | group[b] for one, other in apart):
            assert (edge["status"], edge["why"]) == ("refused_verdict", "verdict apart keeps them apart")
        elif broken:
            assert edge["status"] == ("refused_unique" if broken[0] == "customer_id" else "refused_limit")
            assert f"at most {LIMITS[broken[0]]} {broken[0]}" in edge["why"]
        else:
            assert edge["status"] == "accepted"
            group[a] |= group[b]
            for one in group[b]:
                group[one] = group[a]
    assert partition(result) == {frozenset(members) for one, members in group.items() if one not in BLOCKED}


@given(rows(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_of_rows_changes_nothing_not_even_ids(found: list[Row], chance: random.Random) -> None:
    shuffled = found.copy()
    chance.shuffle(shuffled)
    assert resolved(found) == resolved(shuffled)


@given(rows(), rows())
@settings(max_examples=60)
def test_a_second_run_on_the_same_rows_changes_nothing(early: list[Row], late: list[Row]) -> None:
    before = resolved(early)
    once = resolved([*early, *late], before)
    again = resolved([*early, *late], once, now=NOW + timedelta(hours=1))
    assert again.changes.num_rows == 0
    assert (again.edges, again.identifiers, again.people) == (once.edges, once.identifiers, once.people)


@given(rows(most=40))
@settings(max_examples=60)
def test_no_person_exceeds_a_limit_and_no_blocked_or_shared_value_links(found: list[Row]) -> None:
    result = resolved(found)
    for group in partition(result):
        held = Counter(type_ for type_, _ in group)
        assert all(held[type_] <= bound for type_, bound in LIMITS.items())
    status = {(row["type"], row["value"]): row["status"] for row in result.identifiers.to_pylist()}
    assert {one for one, word in status.items() if word == "blocked"} == BLOCKED & set(status)
    assert {one for one, word in status.items() if word == "shared"} == shared_by_hand(found)
    for one, person in persons(result).items():
        assert (person is None) == (status[one] == "blocked")
        if status[one] == "shared":
            assert frozenset({one}) in partition(result)


def check_history(before: Resolved | None, after: Resolved) -> None:
    """What holds between any two runs: ids are never lost, aliases lead to their end, changes tell the difference."""
    people = {row["person_id"]: row for row in after.people.to_pylist()}
    living = {id_ for id_, row in people.items() if row["identifiers"] > 0}
    assert living == {person for person in persons(after).values() if person is not None}
    assert len(people) == after.people.num_rows
    for id_, row in people.items():
        assert (row["merged_into"] is None) == (row["absorbed_by"] is None)
        if id_ in living:
            assert row["merged_into"] is None
        step, visited = id_, set()
        while people[step]["absorbed_by"] is not None:
            assert step not in visited, "an alias leads in a circle"
            visited.add(step)
            step = people[step]["absorbed_by"]
        assert row["merged_into"] in (None, step)
    known = {} if before is None else {row["person_id"]: row for row in before.people.to_pylist()}
    assert set(known) <= set(people)
    lived = {id_ for id_, row in known.items() if row["identifiers"] > 0}
    changes = after.changes.to_pylist()
    assert len({(row["at"], row["change"], row["person_id"]) for row in changes}) == len(changes)
    came = {row["person_id"] for row in changes if row["change"] in ("created", "split")}
    went = {row["person_id"] for row in changes if row["change"] == "merged"}
    assert came == living - lived
    led_on = {id_ for id_, row in known.items() if row["merged_into"] is not None}
    assert went == {id_ for id_ in set(known) - led_on if people[id_]["merged_into"] is not None}
    for row in changes:
        assert (row["other_person_id"] is None) == (row["change"] == "created")
        assert row["cause"]


_RULES = [
    IDENTIFIERS,
    UNPROTECTED,
    {**IDENTIFIERS, "email": identifier("email", priority=500, blocked={"values": ["ann@example.com"]})},
]


@given(st.lists(st.tuples(rows(most=8), st.sampled_from(_RULES)), min_size=2, max_size=5))
@settings(max_examples=60)
def test_ids_survive_whatever_comes_goes_or_changes_its_rules(runs: list[tuple[list[Row], Any]]) -> None:
    before = None
    kept: list[Row] = []
    for batch, rules in runs:
        kept = [*kept[-6:], *batch]  # older rows are withdrawn, so links and identifiers vanish as well as appear
        after = resolved(kept, before, of=project(rules))
        check_history(before, after)
        before = after


@given(rows(), rows(most=5))
@settings(max_examples=60)
def test_growth_keeps_the_id_of_the_heaviest_part(early: list[Row], late: list[Row]) -> None:
    before = resolved(early, of=project(UNPROTECTED))
    after = resolved([*early, *late], before, of=project(UNPROTECTED))
    assert all(row["change"] != "split" for row in after.changes.to_pylist())
    had, created_at = persons(before), {r["person_id"]: r["created_at"] for r in before.people.to_pylist()}
    for group in partition(after):
        weight: Counter[str] = Counter()
        for one in group:
            if had.get(one):
                weight[str(had[one])] += UNPROTECTED[one[0]].priority
        if weight:
            heaviest = min(weight, key=lambda id_: (-weight[id_], created_at[id_], id_))
            assert {persons(after)[one] for one in group} == {heaviest}


ANN = [Row("web", 1, 0, customer=1, mail="ann@example.com"), Row("web", 2, 0, customer=1, cookie="k1")]
BOB = [Row("web", 3, 1, mail="bob@example.com", cookie="k2")]
MEETING = [Row("till", 4, 2, customer=1, mail="bob@example.com")]


def test_a_merge_that_is_undone_gives_both_their_old_ids_back() -> None:
    apart = resolved([*ANN, *BOB])
    ann, bob = persons(apart)["customer_id", "1"], persons(apart)["email", "bob@example.com"]
    merged = resolved([*ANN, *BOB, *MEETING], apart)
    assert set(persons(merged).values()) == {ann}
    (change,) = merged.changes.to_pylist()
    assert (change["change"], change["person_id"], change["other_person_id"]) == ("merged", bob, ann)
    assert change["cause"] == "customer_id and email on one row of till"

    split = resolved([*ANN, *BOB], merged)
    assert persons(split) == persons(apart)
    (change,) = split.changes.to_pylist()
    assert (change["change"], change["person_id"], change["other_person_id"]) == ("split", bob, ann)
    assert change["cause"] == "the link is no longer in the data"
    assert split.people == apart.people


def test_an_id_that_revives_takes_its_own_aliases_along() -> None:
    late = [Row("web", 5, 3, cookie="k3")]
    met = [Row("web", 6, 3, mail="bob@example.com", cookie="k3")]
    apart = resolved([*ANN, *BOB, *late])
    ann, bob, visitor = (
        persons(apart)[one] for one in (("customer_id", "1"), ("email", "bob@example.com"), ("anonymous_id", "k3"))
    )
    bobs = resolved([*ANN, *BOB, *late, *met], apart)
    everyones = resolved([*ANN, *BOB, *late, *met, *MEETING], bobs)
    aliases = {row["person_id"]: row["merged_into"] for row in everyones.people.to_pylist()}
    assert aliases == {ann: None, bob: ann, visitor: ann}
    again = resolved([*ANN, *BOB, *late, *met], everyones)
    assert {row["person_id"]: row["merged_into"] for row in again.people.to_pylist()} == {
        ann: None,
        bob: None,
        visitor: bob,
    }


_TOGETHER = [Row("web", 1, 0, mail="ann@example.com", cookie="k1"), Row("web", 2, 1, cookie="k1")]
_ANN_BLOCKED = project(
    {**IDENTIFIERS, "email": identifier("email", priority=500, blocked={"values": ["ann@example.com"]})}
)
_COOKIES_FADE = project({**IDENTIFIERS, "anonymous_id": identifier("anonymous_id", priority=100, expires="1 day")})


def test_someone_split_off_and_wrongly_merged_since_gets_back_the_id_they_had_after_the_split() -> None:
    apart = resolved([*_TOGETHER, *BOB], resolved([*_TOGETHER, *BOB]), of=_COOKIES_FADE)
    split_off = persons(apart)["anonymous_id", "k1"]
    assert split_off != persons(apart)["email", "ann@example.com"]
    stranger = Row("till", 4, 2, customer=1, cookie="k1")
    merged = resolved([*_TOGETHER, *BOB, stranger], apart)
    veto = (("anonymous_id", "k1"), ("customer_id", "1"), "apart")
    again = resolved([*_TOGETHER, *BOB, stranger], merged, of=_COOKIES_FADE, vetoed=[veto])
    assert persons(again)["anonymous_id", "k1"] == split_off


def test_a_person_whose_values_were_blocked_leads_to_who_has_them_when_they_name_somebody_again() -> None:
    first = resolved(_TOGETHER)
    apart = resolved(_TOGETHER, first, of=_COOKIES_FADE)
    ann, visitor = (persons(apart)[one] for one in (("email", "ann@example.com"), ("anonymous_id", "k1")))
    blocked = resolved(_TOGETHER, apart, of=_ANN_BLOCKED)
    assert persons(blocked) == {("email", "ann@example.com"): None, ("anonymous_id", "k1"): visitor}
    back = resolved(_TOGETHER, blocked)
    (living,) = set(persons(back).values())
    (gone,) = {ann, visitor} - {living}
    assert {row["person_id"]: row["merged_into"] for row in back.people.to_pylist()} == {living: None, gone: living}


def test_a_split_names_the_rule_that_caused_it() -> None:
    merged = resolved([*ANN, *BOB, *MEETING])
    rules = {**IDENTIFIERS, "email": identifier("email", priority=500, limit=1)}
    split = resolved([*ANN, *BOB, *MEETING], merged, of=project(rules))
    causes = {row["change"]: row["cause"] for row in split.changes.to_pylist()}
    assert causes == {"split": "a person has at most 1 email"}


_PER_WEEK = {**IDENTIFIERS, "email": identifier("email", priority=500, limit={"count": 1, "within": "2 days"})}


@given(rows(most=30))
@settings(max_examples=60)
def test_a_limit_within_a_time_counts_what_was_first_seen_within_any_such_time(found: list[Row]) -> None:
    result = resolved(found, of=project(_PER_WEEK))
    first = {one: seen[0] for one, seen in moments(found).items()}
    for group in partition(result):
        days = sorted(first[one] for one in group if one[0] == "email")
        assert all(later - sooner >= timedelta(days=2) for sooner, later in itertools.pairwise(days))
    for edge in result.edges.to_pylist():
        if edge["status"] == "refused_limit" and "email" in edge["why"]:
            assert edge["why"] == "a person has at most 1 email new within 2 days"


def test_two_addresses_in_a_week_are_two_people_and_two_in_a_year_are_one() -> None:
    for day, people in ((1, 2), (2, 1)):
        both = [Row("web", 1, 0, customer=1, mail="ann@shop.test"), Row("web", 2, day, customer=1, mail="a@shop.test")]
        assert len(partition(resolved(both, of=project(_PER_WEEK)))) == people


def test_a_tablet_shared_by_many_keeps_to_itself_and_frees_them_again_when_they_are_few() -> None:
    visitors = [Row("web", number, 0, customer=number, cookie="tablet") for number in range(1, 6)]
    result = resolved(visitors)
    assert len(partition(result)) == 6
    (tablet,) = [row for row in result.identifiers.to_pylist() if row["value"] == "tablet"]
    assert (tablet["status"], tablet["why"]) == ("shared", "seen with 5 values of customer_id, more than 2")
    kinds = {row["person_id"]: row["kind"] for row in result.people.to_pylist()}
    assert kinds[tablet["person_id"]] == "anonymous"
    few = resolved(visitors[:1], result)
    assert partition(few) == {frozenset({("customer_id", "1"), ("anonymous_id", "tablet")})}


def test_a_link_expires_unless_a_snapshot_still_states_it() -> None:
    rules = {**IDENTIFIERS, "anonymous_id": identifier("anonymous_id", priority=100, expires="10 days", known=False)}
    for source, groups, why in (("web", 2, "not seen for longer than 10 days"), ("crm", 1, None)):
        result = resolved([Row(source, 1, 0, customer=1, cookie="k1")], of=project(rules))
        assert len(partition(result)) == groups
        assert result.edges["why"].to_pylist() == [why]
    fresh = resolved([Row("web", 1, 0, customer=1, cookie="k1")], of=project(rules), now=NOW - timedelta(days=55))
    assert len(partition(fresh)) == 1


def test_people_known_by_cookies_only_are_anonymous_until_they_say_who_they_are() -> None:
    visit = [Row("web", 1, 0, cookie="k1")]
    before = resolved(visit)
    assert before.people["kind"].to_pylist() == ["anonymous"]
    after = resolved([*visit, Row("web", 2, 1, cookie="k1", customer=1)], before)
    assert after.people["kind"].to_pylist() == ["known"]
    assert after.people["person_id"] == before.people["person_id"]


def test_a_blocked_person_is_gone_but_their_id_is_never_reused_and_comes_back() -> None:
    found = [Row("web", 1, 0, mail="ann@example.com")]
    before = resolved(found)
    rules = {**IDENTIFIERS, "email": identifier("email", blocked={"values": ["Ann@Example.com"]})}
    gone = resolved(found, before, of=project(rules))
    assert gone.people["identifiers"].to_pylist() == [0]
    back = resolved(found, gone)
    assert back.people == before.people
    assert back.changes["cause"].to_pylist() == ["seen again"]


def test_ids_are_sortable_by_time_and_a_taken_one_is_made_anew() -> None:
    import numpy as np

    times = np.array([0, 10**15, 2 * 10**15, 2 * 10**15], np.int64)
    hashes = np.array([2**63 - 1, 5, 7, 7], np.int64)
    ids = mint(times, hashes, lambda _: ())
    assert len(set(ids)) == 4 and all(len(id_) == 24 for id_ in ids)
    assert ids[0] < ids[1] < min(ids[2:])
    taken = {ids[0]}.intersection
    other = mint(times[:1], hashes[:1], taken)
    assert other != ids[:1] and other == mint(times[:1], hashes[:1], taken)


def test_nothing_seen_is_nobody() -> None:
    result = resolved([])
    assert result.people.num_rows == result.changes.num_rows == result.edges.num_rows == 0


@given(rows(), rows())
@settings(max_examples=8)
def test_the_engine_reads_and_writes_the_same_as_plain_python(early: list[Row], late: list[Row]) -> None:
    before = resolve(edges_table(early), seen_table(early), None, None, project(), NOW)
    both = [*early, *late]
    after = resolve(edges_table(both), seen_table(both), before.identifiers.to_pyarrow(), before.people, project(), NOW)
    by_hand = resolved(both, resolved(early))
    assert after.edges.order_by("id_a", "id_b", "source").to_pyarrow() == by_hand.edges
    assert after.identifiers.order_by("id").to_pyarrow() == by_hand.identifiers
    assert (after.people, after.changes) == (by_hand.people, by_hand.changes)


def test_the_declared_columns_are_the_columns() -> None:
    from cdp_pipeline.identity.edges import EDGES
    from cdp_pipeline.identity.people import CHANGES, IDENTIFIERS, PEOPLE

    result = resolved([*ANN, *BOB])
    engine = resolve(edges_table(ANN), seen_table(ANN), None, None, project(), NOW)
    assert engine.edges.schema() == EDGES.schema and engine.identifiers.schema() == IDENTIFIERS.schema
    found = (result.edges, result.identifiers, result.people, result.changes)
    for declared, table in zip((EDGES, IDENTIFIERS, PEOPLE, CHANGES), found, strict=True):
        assert table.schema.equals(declared.schema.to_pyarrow(), check_metadata=False), declared.name


def test_all_evidence_is_kept_whatever_becomes_of_it() -> None:
    found = [*ANN, *BOB, *MEETING, Row("web", 9, 0, mail="test@example.com", customer=1)]
    key = ("type_a", "value_a", "type_b", "value_b", "source")
    kept = {tuple(row[name] for name in key) for row in resolved(found).edges.to_pylist()}
    assert kept == set(pairs(found))
