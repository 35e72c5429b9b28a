"""Households and accounts: who is put together and who is not, against plain Python, and under which ids."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cdp_pipeline.identity.domains import free_mail, is_nobodys
from cdp_pipeline.identity.groups import Grouping
from cdp_pipeline.spec.group import Group
from cdp_pipeline_tests.identity.households import (
    ACCOUNT,
    ADDRESS,
    DOMAIN,
    FIRMS,
    HOMES,
    HOUSEHOLD,
    NUMBER,
    PHONE,
    Claim,
    Listed,
    bound,
    by_hand,
    group,
    grouped,
    known_by,
    living,
    rows,
    together,
    whose,
)

KINDS = st.one_of(st.tuples(st.just(HOUSEHOLD), HOMES), st.tuples(st.just(ACCOUNT), FIRMS))


def same(one: Grouping, other: Grouping) -> bool:
    tables = ("groups", ("group_id",)), ("members", ("person_id",)), ("links", ("person_id", "rule", "key"))
    return all(rows(getattr(one, name), *by) == rows(getattr(other, name), *by) for name, by in tables)


@given(KINDS)
@settings(max_examples=40)
def test_people_are_together_as_by_hand_and_every_refusal_is_kept(asked: tuple[Group, list[Claim]]) -> None:
    of, claims = asked
    kept = [one for one in claims if one.rule != DOMAIN or not one.key.endswith("gmail.com")]
    result, (expected, status) = grouped(of, claims), by_hand(of, kept)
    assert together(result) == expected
    found = {(row["rule"], row["person_id"], row["key"]): row for row in result.links.to_pylist()}
    assert {what: row["status"] for what, row in found.items()} == status
    assert all((row["why"] is None) == (row["status"] == "accepted") for row in found.values())


@given(KINDS)
@settings(max_examples=40)
def test_nobody_is_in_two_groups_and_no_limit_is_exceeded(asked: tuple[Group, list[Claim]]) -> None:
    of, claims = asked
    result = grouped(of, claims)
    people = [row["person_id"] for row in result.members.to_pylist()]
    assert len(people) == len(set(people))
    groups = living(result)
    sizes = {id_: sum(other == id_ for other in whose(result).values()) for id_ in groups}
    assert {id_: row["members"] for id_, row in groups.items()} == sizes
    assert max(sizes.values(), default=0) <= (of.most or 99)
    assert all((row["status"] == "too_large") == (row["why"] is not None) for row in groups.values())
    numbers = {row["key"]: row["group_id"] for row in result.links.to_pylist() if row["rule"] == NUMBER}
    assert len(set(numbers.values())) == len(numbers), "two account numbers are two accounts"


@given(KINDS, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_rows_changes_nothing_not_even_ids(
    asked: tuple[Group, list[Claim]], chance: random.Random
) -> None:
    of, claims = asked
    shuffled = chance.sample(claims, len(claims))
    assert same(grouped(of, claims), grouped(of, shuffled))


@given(KINDS)
@settings(max_examples=40)
def test_a_second_run_on_the_same_people_changes_nothing(asked: tuple[Group, list[Claim]]) -> None:
    of, claims = asked
    once = grouped(of, claims)
    again = grouped(of, claims, once)
    assert same(once, again)
    assert again.figures[of.name]["new"] == again.figures[of.name]["gone"] == 0


@given(KINDS.flatmap(lambda asked: st.tuples(st.just(asked), HOMES if asked[0] is HOUSEHOLD else FIRMS)))
@settings(max_examples=40)
def test_ids_outlive_everything_and_are_never_reused(asked: tuple[tuple[Group, list[Claim]], list[Claim]]) -> None:
    (of, early), late = asked
    one = grouped(of, early)
    two = grouped(of, [*early, *late], one)
    three = grouped(of, late, two)
    for before, after in ((one, two), (two, three)):
        was, now = ({row["group_id"]: row for row in state.groups.to_pylist()} for state in (before, after))
        assert set(was) <= set(now), "a group is never forgotten"
        assert all(now[id_]["created_at"] == row["created_at"] for id_, row in was.items())
        for row in now.values():
            assert row["merged_into"] is None or (row["status"] == "gone" and row["merged_into"] in living(after))
        # Who stays together with nobody added or gone stays under their id.
        for members in together(before) & together(after):
            ids = {frozenset(whose(state)[person] for person in members) for state in (before, after)}
            held = {whose(before)[person] for person in members}
            alone = [other for other in together(after) if held & {whose(before).get(p) for p in other}] == [members]
            assert len(ids) == 1 or not alone or of is ACCOUNT


@given(KINDS.flatmap(lambda asked: st.tuples(st.just(asked), HOMES if asked[0] is HOUSEHOLD else FIRMS)))
@settings(max_examples=40)
def test_what_was_joined_and_is_parted_again_has_its_old_ids(
    asked: tuple[tuple[Group, list[Claim]], list[Claim]],
) -> None:
    (of, early), late = asked
    before = grouped(of, early)
    joined = grouped(of, [*early, *late], before)
    # Where late claims also drew people, or the values they were known by, apart, most overlap decides, and an id may
    # have moved on with it.
    assume(all(any(one <= other for other in bound(joined)) for one in bound(before)))
    after = grouped(of, early, joined)
    assert whose(after) == whose(before)
    assert {id_: row["key"] for id_, row in living(after).items()} == {
        id_: row["key"] for id_, row in living(before).items()
    }


@pytest.mark.parametrize("domain", ["gmail.com", "web.de", "gmx.net", "t-online.de", "yahoo.co.uk", "icloud.com"])
def test_two_who_only_share_a_mail_provider_are_no_account(domain: str) -> None:
    result = grouped(ACCOUNT, [Claim(DOMAIN, "ann", domain), Claim(DOMAIN, "bob", domain)])
    assert result.groups.num_rows == result.members.num_rows == result.links.num_rows == 0


def test_no_shipped_free_mail_domain_nor_one_below_it_ever_makes_an_account() -> None:
    assert len(free_mail()) > 1000
    domains = [*free_mail(), *(f"post.{domain}" for domain in free_mail())]
    claims = [Claim(DOMAIN, f"p{place}", domain) for place, domain in enumerate(domains)]
    assert grouped(ACCOUNT, claims).groups.num_rows == 0


def test_a_project_names_its_own_domains_that_are_no_company_or_turns_the_shipped_list_off() -> None:
    assert is_nobodys("example.com", ["example.com"], True)
    assert not is_nobodys("office.example.com", ["example.com"], True), "an excluded name means itself only"
    assert is_nobodys("office.example.com", ["*.example.com"], True)
    assert not is_nobodys("example.com", ["*.example.com"], True)
    assert not is_nobodys("gmail.com", [], False)
    assert is_nobodys("localhost", [], False)


def test_an_address_of_three_hundred_people_is_kept_and_makes_no_household() -> None:
    tower = [Claim(ADDRESS, f"p{number:03d}", "hill|ely 1") for number in range(300)]
    home = [Claim(ADDRESS, name, "hill|ely 2") for name in ("ann", "bob")]
    result = grouped(HOUSEHOLD, [*tower, *home])
    assert together(result) == {frozenset({"ann", "bob"})}
    institution = known_by(result, "hill|ely 1")
    assert (institution["status"], institution["members"]) == ("too_large", 0)
    assert institution["why"] == "300 people share it, more than 4"
    assert {row["status"] for row in result.links.to_pylist() if row["key"] == "hill|ely 1"} == {"too_large"}


def test_the_less_trusted_way_gives_way_where_both_would_make_a_household_too_large() -> None:
    hills = [Claim(ADDRESS, name, "hill|ely 1") for name in ("ann", "bob", "cy")]
    ashes = [Claim(ADDRESS, name, "ash|ely 1") for name in ("dot", "eve")]
    calls = [Claim(PHONE, name, "+1", day=3) for name in ("ann", "bob", "dot")]
    result = grouped(HOUSEHOLD, [*hills, *ashes, *calls])
    assert together(result) == {frozenset({"ann", "bob", "cy"}), frozenset({"dot", "eve"})}
    (refused,) = [row for row in result.links.to_pylist() if row["status"] == "refused_limit"]
    assert (refused["person_id"], refused["rule"], refused["why"]) == (
        "dot", PHONE, "a household has at most 4 people",
    )  # fmt: skip


def test_a_stray_does_not_carry_a_companys_domain_to_another_account() -> None:
    staff = [Claim(NUMBER, f"b{number}", "B", day=1) for number in range(4)]
    stray = [Claim(NUMBER, "a0", "A", day=1)]
    mails = [Claim(DOMAIN, one.person, "b.example") for one in [*staff, *stray]]
    lead = [Claim(DOMAIN, "lead", "b.example")]
    result = grouped(ACCOUNT, [*staff, *stray, *mails, *lead])
    assert together(result) == {frozenset({"b0", "b1", "b2", "b3", "lead"}), frozenset({"a0"})}
    (member,) = [row for row in result.members.to_pylist() if row["person_id"] == "lead"]
    assert (member["rule"], member["why"]) == (DOMAIN, "e-mail address at the same domain")


def test_of_two_account_numbers_the_one_said_last_counts() -> None:
    result = grouped(ACCOUNT, [Claim(NUMBER, "ann", "A", day=1), Claim(NUMBER, "ann", "B", day=2)])
    assert whose(result)["ann"] == known_by(result, "B")["group_id"]
    (refused,) = [row for row in result.links.to_pylist() if row["key"] == "A"]
    assert (refused["status"], refused["why"]) == ("refused_number", "two values of crm.number are two groups")


def test_a_household_keeps_its_id_when_it_grows_moves_house_or_two_of_its_people_turn_out_to_be_one() -> None:
    home = [Claim(ADDRESS, name, "hill|ely 1") for name in ("ann", "bob")]
    first = grouped(HOUSEHOLD, home)
    (id_,) = living(first)
    grown = grouped(HOUSEHOLD, [*home, Claim(ADDRESS, "cy", "hill|ely 1")], first)
    moved = grouped(HOUSEHOLD, [Claim(ADDRESS, name, "hill|york 9") for name in ("ann", "bob", "cy")], grown)
    one = [Claim(ADDRESS, "dan", "hill|york 9")]
    merged = grouped(HOUSEHOLD, one, moved, merged={"ann": "dan", "bob": "dan", "cy": "dan"})
    for state, people in ((grown, 3), (moved, 3), (merged, 1)):
        assert {group_id: row["members"] for group_id, row in living(state).items()} == {id_: people}


def test_an_account_keeps_its_id_when_everybody_in_it_has_changed() -> None:
    before = grouped(ACCOUNT, [Claim(NUMBER, "ann", "A"), Claim(NUMBER, "bob", "B")])
    swapped = [Claim(NUMBER, "ann", "B"), Claim(NUMBER, "bob", "A"), Claim(NUMBER, "cy", "A")]
    after = grouped(ACCOUNT, swapped, before)
    for key in ("A", "B"):
        assert known_by(after, key)["group_id"] == known_by(before, key)["group_id"]


def test_households_that_become_one_live_on_as_the_larger_and_the_other_leads_there() -> None:
    homes = [Claim(ADDRESS, name, "hill|ely 1") for name in ("ann", "bob")] + [Claim(ADDRESS, "cy", "ash|ely 1")]
    before = grouped(HOUSEHOLD, homes)
    calls = [Claim(PHONE, name, "+1") for name in ("ann", "cy")]
    after = grouped(HOUSEHOLD, [*homes, *calls], before)
    assert set(whose(after).values()) == {whose(before)["ann"]}
    (gone,) = [row for row in after.groups.to_pylist() if row["status"] == "gone"]
    assert (gone["group_id"], gone["merged_into"]) == (whose(before)["cy"], whose(before)["ann"])
    parted = grouped(HOUSEHOLD, homes, after)
    assert whose(parted) == whose(before)


def test_somebody_who_is_no_more_is_in_no_household() -> None:
    home = [Claim(ADDRESS, name, "hill|ely 1") for name in ("ann", "bob")]
    result = grouped(HOUSEHOLD, home, merged={"bob": "ann"})
    assert together(result) == {frozenset({"ann"})}


def listed_tree(*listed: Listed, claims: tuple[Claim, ...] = ()) -> dict[str, Any]:
    result = grouped(WITH_DIRECTORY, claims, listed=listed)
    return {row["key"]: row for row in living(result).values()}


WITH_DIRECTORY = group(
    "account",
    {"source": "crm", "column": "number", "directory": {"source": "crm", "key": "number", "parent": "parent"}},
    {"email_domain": "email"},
)


def test_accounts_are_listed_without_people_and_stand_below_their_parents() -> None:
    tree = listed_tree(
        Listed("A", "Alpha Group"), Listed("B", "Alpha Ltd", "A"), Listed("C", "Alpha North", "B"), Listed("D"),
        claims=(Claim(NUMBER, "ann", "C"),),
    )  # fmt: skip
    ids = {key: row["group_id"] for key, row in tree.items()}
    assert [tree[key]["level"] for key in "ABCD"] == [0, 1, 2, 0]
    assert [tree[key]["parent_group_id"] for key in "ABCD"] == [None, ids["A"], ids["B"], None]
    assert [tree[key]["root_group_id"] for key in "ABCD"] == [ids["A"], ids["A"], ids["A"], ids["D"]]
    assert [tree[key]["members"] for key in "ABCD"] == [0, 0, 1, 0]
    assert [tree[key]["name"] for key in "ABCD"] == ["Alpha Group", "Alpha Ltd", "Alpha North", None]


def test_parents_in_a_circle_are_reported_and_believed_by_nobody() -> None:
    tree = listed_tree(
        Listed("A", parent="C"), Listed("B", parent="A"), Listed("C", parent="B"), Listed("D", None, "A")
    )
    for key in "ABC":
        assert (tree[key]["parent_group_id"], tree[key]["level"]) == (None, 0)
        assert tree[key]["why"] == "the parents it names go round in a circle"
    assert tree["D"]["parent_group_id"] == tree["A"]["group_id"]
    assert listed_tree(Listed("A", parent="A"))["A"]["why"] is None, "to be one's own parent is to be at the top"
    assert listed_tree(Listed("A", parent="Z"))["A"]["why"] == "the parent it names is not known"


def test_a_domain_stands_below_the_nearest_domain_above_it_unless_the_directory_knows_better() -> None:
    claims = [
        Claim(DOMAIN, person, domain)
        for person, domain in zip(
            ["ann", "bob", "cy", "dot"], ["b.example", "x.b.example", "z.y.x.b.example", "c.example"], strict=True
        )
    ]
    tree = listed_tree(Listed("T"), claims=(*claims, Claim(DOMAIN, "eve", "t.b.example"), Claim(NUMBER, "eve", "T")))
    ids = {key: row["group_id"] for key, row in tree.items()}
    assert tree["x.b.example"]["parent_group_id"] == ids["b.example"]
    assert tree["z.y.x.b.example"]["parent_group_id"] == ids["x.b.example"]
    assert tree["b.example"]["parent_group_id"] is tree["c.example"]["parent_group_id"] is None
    assert tree["b.example"]["name"] == "b.example"
    assert tree["T"]["parent_group_id"] is None, "the directory says it is at the top"


@given(st.lists(st.sampled_from(["", *"abcdefgh"]), min_size=8, max_size=8))
@settings(max_examples=40)
def test_levels_and_roots_are_those_one_finds_by_climbing(parents: list[str]) -> None:
    named = {key: parent or None for key, parent in zip("abcdefgh", parents, strict=True)}
    tree = listed_tree(*(Listed(key, None, parent) for key, parent in named.items()))

    def climb(key: str) -> list[str]:
        path = [key]
        while named[path[-1]] not in (None, path[-1]) and len(path) < 20:
            path.append(str(named[path[-1]]))
        return path

    circular = {key for key in named if key in climb(key)[1:]}
    for key in named:
        path = climb(key)
        end = next((place for place, one in enumerate(path) if one in circular), len(path) - 1)
        assert tree[key]["level"] == end
        assert tree[key]["root_group_id"] == tree[path[end]]["group_id"]
        assert (tree[key]["why"] is not None) == (key in circular)
