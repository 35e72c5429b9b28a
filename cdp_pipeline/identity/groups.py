"""Which people belong together: households and accounts as graphs over people, the most trusted ways first.

Pure and in memory on integer codes: (claims, directories, people, the last state) → the next state. What speaks for a
group is belonging.py, trees of accounts are hierarchy.py. People are never changed here, and no rule about whom to
write to belongs here: audiences ask identity.group_members (a person's groups) and traits.<group> (a group's figures).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.identity.domains import above
from cdp_pipeline.identity.hierarchy import hierarchy
from cdp_pipeline.identity.ids import claim, heaviest, mint
from cdp_pipeline.identity.ties import (
    ACCEPTED,
    LIMIT,
    NEVER,
    NUMBER,
    STATUS,
    Clusters,
    Graph,
    codes,
    join,
    keyed,
    microseconds,
    read_graph,
    read_people,
    whole,
)
from cdp_pipeline.lake.table import Column, Table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.spec.group import Group

GROUPS = Table(
    name="identity.groups",
    description="Every household and account there is or was, what it is known by, and which is above which.",
    columns={
        "kind": Column("string", "Which groups: the name they are declared under, such as household or account."),
        "group_id": Column("string", "The group's stable id; it is never reused."),
        "name": Column("string", "What it is called: its name in the directory, or its domain. Households have none."),
        "rule": Column("string", "The way its key belongs to."),
        "key": Column("string", "What it is known by, or was: an address, a number, a domain.", pii=True),
        "members": Column("int64", "How many people are in it."),
        "parent_group_id": Column("string", "The group right above it."),
        "root_group_id": Column("string", "The group at the top of its tree; its own id where nothing is above it."),
        "level": Column("int64", "How many groups are above it."),
        "status": Column("string", "ok, too_large (shared by so many that it joins nobody) or gone."),
        "why": Column("string", "Why it is too large, or why a parent that is named was not taken."),
        "created_at": Column("timestamp(6)", "When the first of it was heard of (UTC)."),
        "merged_into": Column("string", "The group that has most of what was a group that is gone."),
        "first_rule": Column("string", "The way its first key belongs to."),
        "first_key": Column("string", "What it was known by at first, by which it revives when groups part.", pii=True),
    },
    key=("group_id",),
)

MEMBERS = Table(
    name="identity.group_members",
    description="Who is in which household and account: everybody in at most one of each kind.",
    columns={
        "kind": Column("string", "Which groups."),
        "group_id": Column("string", "The group."),
        "person_id": Column("string", "The person."),
        "rule": Column("string", "The most trusted way by which they are in it."),
        "why": Column("string", "The same in words."),
    },
    key=("kind", "person_id"),
)

LINKS = Table(
    name="identity.group_links",
    description="Everything that speaks for somebody being in a household or an account, believed or not, and why.",
    columns={
        "kind": Column("string", "Which groups."),
        "person_id": Column("string", "The person."),
        "rule": Column("string", "The way."),
        "key": Column("string", "The address, number or domain that speaks for it.", pii=True),
        "group_id": Column("string", "The group known by it, whether or not the person is in that one."),
        "status": Column("string", "accepted, refused_limit, refused_number or too_large."),
        "why": Column("string", "Why it is not believed."),
        "last_seen": Column("timestamp(6)", "When it was last said (UTC); empty for what the profile says."),
    },
    key=("kind", "person_id", "rule", "key"),
)

OK, TOO_LARGE, GONE = "ok", "too_large", "gone"
_NOT_LISTED = "the parent it names is not known"
_CIRCULAR = "the parents it names go round in a circle"


@dataclass(frozen=True)
class Grouping:
    """The next state, each table as its declaration says; `figures` are counts per kind, of no person."""

    groups: pa.Table
    members: pa.Table
    links: pa.Table
    figures: dict[str, dict[str, int]]


def regroup(
    declared: Mapping[str, Group],
    claims: Mapping[str, pa.Table | ibis.Table],
    listed: Mapping[str, pa.Table | ibis.Table],
    people: pa.Table | ibis.Table,
    previous_groups: pa.Table | ibis.Table | None,
    previous_members: pa.Table | ibis.Table | None,
    previous_links: pa.Table | ibis.Table | None,
) -> Grouping:
    """Put people into the declared groups; claims and listed are belonging.claims() and listed(), by group.

    Within a kind people are joined way by way as declared; within a way a group takes first what more of its people
    say, then what was said last. A join that would give a group more than `max_members` people, or an account two
    numbers of one way, is refused. A value shared by more people than that is a group that is too large and joins
    nobody. Groups keep their ids: most overlap wins (in an account its numbers and domains, in a household its
    people), the elder on a tie. The result depends on content only, never on the order of rows.
    """
    import pyarrow as pa

    living, alias = read_people(_arrow(people))
    before = [_arrow(table) for table in (previous_groups, previous_members, previous_links)]
    taken = set(before[0]["group_id"].to_pylist()) if before[0] is not None else set()
    parts: dict[str, list[pa.Table]] = {"groups": [], "members": [], "links": []}
    figures = {}
    for kind, group in declared.items():
        graph = read_graph(group, _arrow(claims[kind]), _arrow(listed[kind]), living)
        clusters = join(graph, group)
        last = _before(kind, before, graph, alias)
        ids = _ids(graph, clusters, last, group, taken)
        taken.update(ids.text)
        tables, figures[kind] = _tables(group, graph, clusters, last, ids)
        for name, table in tables.items():
            parts[name].append(table)
    empty = {"groups": GROUPS, "members": MEMBERS, "links": LINKS}
    every = {
        name: pa.concat_tables([table.schema.to_pyarrow().empty_table(), *parts[name]]) for name, table in empty.items()
    }
    return Grouping(**every, figures=figures)


def _arrow(table: pa.Table | ibis.Table | None) -> Any:
    return table.to_pyarrow() if isinstance(table, ibis.Table) else table


@dataclass(frozen=True)
class _Before:
    """The last state of one kind. An id's code is its place in `ids`, which is sorted."""

    rows: pa.Table  # the groups, by code
    ids: list[str]
    created_at: np.ndarray
    elder: np.ndarray
    alive: np.ndarray
    person: np.ndarray  # votes of people: person code and id code
    person_id: np.ndarray
    key: np.ndarray  # votes of values: key code, id code, and whether the group began with it
    key_id: np.ndarray
    first: np.ndarray


def _before(kind: str, tables: list[Any], graph: Graph, alias: pa.Table) -> _Before:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    empty = [table.schema.to_pyarrow().empty_table() for table in (GROUPS, MEMBERS, LINKS)]
    groups, members, links = (
        blank if table is None else table.filter(pc.equal(table["kind"], kind)).select(blank.column_names)
        for table, blank in zip(tables, empty, strict=True)
    )
    groups = groups.sort_by("group_id")
    ids = whole(groups["group_id"])
    created_at = microseconds(groups["created_at"])
    elder = np.empty(len(ids), np.int64)
    elder[np.lexsort((np.arange(len(ids)), created_at))] = np.arange(len(ids))

    was = codes(members["person_id"], whole(alias["person_id"]))
    now = alias["now"].take(pa.array(np.where(was < 0, 0, was))) if alias.num_rows else members["person_id"]
    person = np.where(was < 0, -1, codes(now, graph.living.ids))
    person_id = codes(members["group_id"], ids)
    rules = pa.array([graph.ways[place].rule for place in graph.way.tolist()], pa.string())
    keys = keyed(rules, graph.keys)
    said = [
        (codes(keyed(table[rule], table[key]), keys), codes(table["group_id"], ids), first)
        for table, rule, key, first in (
            (groups, "rule", "key", False), (links, "rule", "key", False), (groups, "first_rule", "first_key", True),
        )
    ]  # fmt: skip
    votes = np.concatenate([np.stack([key, id_, np.full(len(key), first)], axis=1) for key, id_, first in said])
    votes = np.unique(votes[(votes >= 0).all(axis=1)], axis=0)
    held = (person >= 0) & (person_id >= 0)
    return _Before(
        rows=groups, ids=ids.to_pylist(), created_at=created_at, elder=elder,
        alive=pc.not_equal(groups["status"], GONE).to_numpy(),
        person=person[held], person_id=person_id[held], key=votes[:, 0], key_id=votes[:, 1], first=votes[:, 2] > 0,
    )  # fmt: skip


@dataclass(frozen=True)
class _Ids:
    """This run's groups: the text of every id (the old ones, then the minted), and the code of every cluster."""

    text: list[str]
    created_at: np.ndarray
    of: np.ndarray  # id code of each cluster that is a group, -1 for others
    best_key: np.ndarray  # key code by id code, -1 where there is none any more
    minted: int


def _ids(graph: Graph, clusters: Clusters, last: _Before, group: Group, taken: set[str]) -> _Ids:
    """Give every group its id: the old one it overlaps most, else one that is gone and was known by its key, else new.

    Of an account its numbers and domains decide, the more trusted way more; of a household its people.
    """
    import numpy as np
    from pandas.util import hash_array

    people = len(graph.living.ids)
    of_person, of_key = clusters.of[:people], clusters.of[people:]
    peopled = np.unique(of_person[graph.person[clusters.status == ACCEPTED]])
    is_group = np.zeros(len(clusters.of), bool)
    is_group[peopled] = True
    is_group[of_key[graph.listed | graph.large]] = True

    # A person weighs 4, a key 2, and on a tie speaks what a group began with.
    key_weight = np.full(len(graph.ways), 2, np.int64)
    if group.type == "account":
        key_weight = (len(graph.ways) - np.arange(len(graph.ways))) * np.int64(4 * people + 2)
    id_of = np.full(len(clusters.of), -1, np.int64)
    cluster = np.concatenate([of_person[last.person], of_key[last.key]])
    vote = np.concatenate([last.person_id, last.key_id])
    of_keys = np.where(last.first, 1, key_weight[graph.way[last.key]])
    weight = np.concatenate([np.full(len(last.person), 4, np.int64), of_keys])
    for alive in (True, False):
        free = np.ones(len(last.ids) + 1, bool)
        free[id_of[id_of >= 0]] = False
        votes = np.flatnonzero(is_group[cluster] & (id_of[cluster] < 0) & free[vote] & (last.alive[vote] == alive))
        winners, won = claim(cluster[votes], vote[votes], weight[votes], last.elder)
        id_of[winners] = won

    # What a group is known by: its most trusted key, of those the one with most people.
    best_first = np.lexsort((np.arange(len(graph.way)), -graph.size, graph.way, of_key))
    groups, first = np.unique(of_key[best_first], return_index=True)
    best = np.full(len(clusters.of), -1, np.int64)
    best[groups] = best_first[first]
    new = np.flatnonzero(is_group & (id_of < 0))
    created = _first_heard(graph, clusters)[new]
    known_by = zip(graph.way[best[new]].tolist(), graph.keys.take(best[new]).to_pylist(), strict=True)
    names = np.array([f"{group.name}\x1f{graph.ways[way].rule}\x1f{key}" for way, key in known_by], object)
    hashes = hash_array(names, categorize=False)
    # ids.py speaks of people, p…; a group is g….
    minted = mint(created, hashes, lambda some: [id_ for id_ in some if f"g{id_[1:]}" in taken])
    minted = [f"g{id_[1:]}" for id_ in minted]
    id_of[new] = len(last.ids) + np.arange(len(new))
    best_key = np.full(len(last.ids) + len(minted), -1, np.int64)
    used = np.flatnonzero(id_of >= 0)
    best_key[id_of[used]] = best[used]
    return _Ids([*last.ids, *minted], np.concatenate([last.created_at, created]), id_of, best_key, len(minted))


def _first_heard(graph: Graph, clusters: Clusters) -> np.ndarray:
    """By cluster: when the first of its people was seen, or when a directory first listed it."""
    import numpy as np

    people = len(graph.living.ids)
    latest = np.iinfo(np.int64).max
    first = np.full(len(clusters.of), latest, np.int64)
    claiming = np.unique(graph.person)
    np.minimum.at(first, clusters.of[claiming], graph.living.created_at[claiming])
    large = graph.large[graph.key]
    np.minimum.at(first, clusters.of[people + graph.key[large]], graph.living.created_at[graph.person[large]])
    np.minimum.at(first, clusters.of[people:][graph.listed], graph.heard[graph.listed])
    return np.where(first == latest, 0, first)


def _tables(
    group: Group, graph: Graph, clusters: Clusters, last: _Before, ids: _Ids
) -> tuple[dict[str, pa.Table], dict[str, int]]:
    import numpy as np
    import pyarrow as pa

    people, count = len(graph.living.ids), len(ids.text)
    text = pa.array(ids.text, pa.string())
    accepted = clusters.status == ACCEPTED
    of_claim = ids.of[clusters.of[people + graph.key]]
    # The most trusted way of each member: claims by person, then way.
    inside = np.flatnonzero(accepted)
    inside = inside[np.lexsort((graph.way[graph.key[inside]], graph.person[inside]))]
    member, first = np.unique(graph.person[inside], return_index=True)
    by = graph.way[graph.key[inside[first]]]
    member_of = ids.of[clusters.of[member]]
    members = np.bincount(member_of, minlength=count)

    known = ids.best_key >= 0
    best = np.where(known, ids.best_key, 0)
    large = known & graph.large[best] if len(graph.way) else known
    tree, unknown = _trees(graph, clusters, ids)
    status = np.select([~known, large], [GONE, TOO_LARGE], OK)
    why: list[str | None] = [None] * count
    for code in np.flatnonzero(unknown).tolist():
        why[code] = _NOT_LISTED
    for code in np.flatnonzero(tree.circular).tolist():
        why[code] = _CIRCULAR
    for code in np.flatnonzero(large).tolist():
        why[code] = f"{graph.size[best[code]]} people share it, more than {group.most}"

    rules = pa.array([way.rule for way in group.by], pa.string())
    found = np.flatnonzero(known)
    rule, key = (last.rows[column].to_pylist() + [None] * ids.minted for column in ("rule", "key"))
    name: list[str | None] = [None] * count
    shown = graph.keys.take(pa.array(best[found])).to_pylist()
    for code, place, text_of_key in zip(found.tolist(), best[found].tolist(), shown, strict=True):
        way = group.by[graph.way[place]]
        rule[code], key[code] = way.rule, text_of_key
        name[code] = graph.names[place] or (text_of_key if way.email_domain is not None else None)
    first_rule, first_key = (
        last.rows[f"first_{column}"].to_pylist() + now[len(last.ids) :]
        for column, now in (("rule", rule), ("key", key))
    )
    groups = pa.table(
        [
            pa.array([group.name] * count, pa.string()), text, pa.array(name, pa.string()),
            pa.array(rule, pa.string()), pa.array(key, pa.string()), pa.array(members),
            _at(text, tree.parent), _at(text, np.where(known, tree.root, -1)), pa.array(tree.level),
            pa.array(status.tolist(), pa.string()), pa.array(why, pa.string()), _moments(ids.created_at),
            _at(text, _heirs(graph, clusters, last, ids)),
            pa.array(first_rule, pa.string()), pa.array(first_key, pa.string()),
        ],
        schema=GROUPS.schema.to_pyarrow(),
    )  # fmt: skip
    member_rows = pa.table(
        [
            pa.array([group.name] * len(member), pa.string()), _at(text, member_of),
            graph.living.ids.take(pa.array(member)), _at(rules, by),
            _at(pa.array([way.words for way in group.by], pa.string()), by),
        ],
        schema=MEMBERS.schema.to_pyarrow(),
    )  # fmt: skip
    reasons = _reasons(group)
    reason = clusters.status.astype(np.int64) * len(group.by) + graph.way[graph.key]
    links = pa.table(
        [
            pa.array([group.name] * len(graph.key), pa.string()), graph.living.ids.take(pa.array(graph.person)),
            _at(rules, graph.way[graph.key]), graph.keys.take(pa.array(graph.key)), _at(text, of_claim),
            _at(pa.array(STATUS, pa.string()), clusters.status), _at(pa.array(reasons, pa.string()), reason),
            _moments(graph.at),
        ],
        schema=LINKS.schema.to_pyarrow(),
    )  # fmt: skip
    figures = {
        "groups": int((known & ~large).sum()),
        "people in one": len(member),
        "with two people or more": int((members > 1).sum()),
        "largest": int(members.max(initial=0)),
        "too large": int(large.sum()),
        "new": ids.minted,
        "gone": int((~known[: len(last.ids)] & last.alive).sum()),
        "claims refused": int(np.isin(clusters.status, [LIMIT, NUMBER]).sum()),
        "in a circle": int(tree.circular.sum()),
        "parent not known": int(unknown.sum()),
        "levels": int(tree.level.max(initial=0)) + 1,
    }
    return {"groups": groups, "members": member_rows, "links": links}, figures


def _heirs(graph: Graph, clusters: Clusters, last: _Before, ids: _Ids) -> np.ndarray:
    """By id code: of a group that is no more, the one that has most of what it was; -1 where there is none."""
    import numpy as np

    people, known = len(graph.living.ids), ids.best_key >= 0
    now = ids.of[clusters.of[np.concatenate([last.person, last.key + people])]]
    was = np.concatenate([last.person_id, last.key_id])
    weight = np.concatenate([np.full(len(last.person), 4), np.where(last.first, 1, 2)])
    heir = np.append(codes(last.rows["merged_into"], whole(last.rows["group_id"])), np.full(ids.minted, -1))
    left = np.flatnonzero((now >= 0) & ~known[was] & last.alive[was])
    absorbed, into = heaviest(was[left], now[left], weight[left])
    heir[absorbed] = into
    # An heir may have gone since: then its own heir it is.
    end = hierarchy(np.where(known, -1, heir)).root
    return np.where(~known & known[end], end, -1)


def _reasons(group: Group) -> list[str | None]:
    """Why a claim of a status by a way is not believed; by status, then way."""
    limit = f"a {group.name.replace('_', ' ')} has at most {group.most} people"
    number = [f"two values of {way.rule.partition(':')[2]} are two groups" for way in group.by]
    if not any(group.names_it(way) for way in group.by):
        number = [""] * len(group.by)
    apart = next((words for way, words in zip(group.by, number, strict=True) if group.names_it(way)), "")
    ways = len(group.by)
    return [*[None] * ways, *[limit] * ways, *[apart] * ways, *[f"more than {group.most} people share it"] * ways]


def _trees(graph: Graph, clusters: Clusters, ids: _Ids) -> tuple[Any, np.ndarray]:
    """Parents by id code: what a directory names, and where none speaks the domain above; and whose is not known."""
    import numpy as np

    count, people = len(ids.text), len(graph.living.ids)
    of_key = ids.of[clusters.of[people:]] if len(graph.way) else np.zeros(0, np.int64)
    parent, unknown, settled = np.full(count, -1, np.int64), np.zeros(count, bool), np.zeros(count, bool)
    for key in np.flatnonzero(graph.listed)[np.argsort(graph.way[graph.listed], kind="stable")].tolist():
        code, named = int(of_key[key]), int(graph.parent[key])
        directory = graph.ways[graph.way[key]].directory
        if settled[code] or directory is None or directory.parent is None:
            continue
        settled[code] = True
        unknown[code] = named == -2 or (named >= 0 and of_key[named] < 0)
        parent[code] = of_key[named] if named >= 0 else -1
    domains: dict[tuple[int, str], int] = {}
    is_domain = np.array([way.email_domain is not None for way in graph.ways], bool)
    some = np.flatnonzero(is_domain[graph.way]) if len(graph.way) else np.zeros(0, np.int64)
    texts = dict(zip(some.tolist(), graph.keys.take(some).to_pylist(), strict=True))
    for key, domain in texts.items():
        domains[int(graph.way[key]), domain] = int(of_key[key])
    for key in some[np.lexsort((some, -graph.size[some], graph.way[some]))].tolist():
        code = int(of_key[key])
        if code < 0 or settled[code]:
            continue
        higher = (domains.get((int(graph.way[key]), name), -1) for name in above(texts[key]))
        found = next((other for other in higher if other >= 0 and other != code), -1)
        if found >= 0:
            parent[code], settled[code] = found, True
    return hierarchy(parent), unknown


def _moments(microseconds: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(microseconds, pa.int64(), mask=microseconds == NEVER).cast(pa.timestamp("us"))


def _at(words: pa.Array, places: np.ndarray) -> pa.Array:
    """The word at each place, null for -1."""
    import pyarrow as pa

    return words.take(pa.array(places, pa.int64(), mask=places < 0))
