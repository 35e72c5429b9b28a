"""Why random pairs of the demo company's identifiers are (not) one person, against a search over the edges table.

The search is written out in plain Python, from the definition. More pairs, or another company: CDP_EXPLAIN_PAIRS, and
CDP_EXPLAIN_LAKE with the folder of a lake in which the demo project has identified its people.
"""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import ibis
import pytest

from cdp_pipeline.identity.edges import EDGES
from cdp_pipeline.identity.explain import explain_link
from cdp_pipeline.identity.people import IDENTIFIERS
from cdp_pipeline.lake import open_lake
from cdp_pipeline.sources.demo import generate
from cdp_pipeline.spec.load import DEMO, load_project
from cdp_pipeline.spec.project import LakeLocation, Project
from cdp_pipeline_tests.demo.company import resolved

PAIRS = int(os.environ.get("CDP_EXPLAIN_PAIRS", "100"))
End = tuple[str, str]


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ibis.Table, ibis.Table, Project]]:
    """Edges and identifiers of the demo company, and the project."""
    there = os.environ.get("CDP_EXPLAIN_LAKE")
    if there is not None:
        with open_lake(LakeLocation(path=there), read_only=True) as lake:
            yield lake.read(EDGES), lake.read(IDENTIFIERS), load_project(DEMO)
        return
    data = tmp_path_factory.mktemp("data")
    generate(data, 300, 10, seed=11, last_day=date(2026, 1, 15))
    with resolved(data, tmp_path_factory.mktemp("lake")) as shop:
        yield shop.lake.held(shop.found.edges), shop.lake.held(shop.found.identifiers), shop.project


class Search:
    """The edges table as a person with pencil and paper would use it."""

    def __init__(self, edge_rows: list[dict[str, Any]], identifier_rows: list[dict[str, Any]]) -> None:
        self.person = {(row["type"], row["value"]): row["person_id"] for row in identifier_rows}
        self.component = {(row["type"], row["value"]): row["component"] for row in identifier_rows}
        self.members: dict[str, set[End]] = defaultdict(set)
        for end, person in self.person.items():
            if person is not None:
                self.members[person].add(end)
        self.links: dict[End, list[tuple[End, bool]]] = defaultdict(list)
        for row in edge_rows:
            a, b = (row["type_a"], row["value_a"]), (row["type_b"], row["value_b"])
            self.links[a].append((b, row["status"] == "accepted"))
            self.links[b].append((a, row["status"] == "accepted"))

    def distance(self, start: End, goal: End) -> int | None:
        """How many links that hold lead from one to the other."""
        steps, queue = {start: 0}, deque([start])
        while queue:
            here = queue.popleft()
            for there, holds in self.links[here]:
                if holds and there not in steps:
                    steps[there] = steps[here] + 1
                    queue.append(there)
        return steps.get(goal)

    def failing(self, start: End, goal: End) -> int | None:
        """How many links that do not hold one must at least pass, within what links could have brought together."""
        passed, queue = {start: 0}, deque([start])
        while queue:
            here = queue.popleft()
            for there, holds in self.links[here]:
                if self.component[there] != self.component[start] or self.component[start] is None:
                    continue
                if (so_far := passed[here] + (not holds)) < passed.get(there, 1_000_000):
                    passed[there] = so_far
                    (queue.appendleft if holds else queue.append)(there)
        return passed.get(goal)

    def theirs(self, end: End) -> set[End]:
        person = self.person[end]
        return {end} if person is None else self.members[person]

    def against(self, a: End, b: End) -> int:
        """How many links that do not hold tie the two people, directly or over one value both were seen with."""
        ours, others = self.theirs(a), self.theirs(b)
        refused = [(x, y) for side in (ours, others) for x in side for y, holds in self.links[x] if not holds]
        beside = [{y for x, y in refused if x in side} for side in (ours, others)]
        direct = Counter((x, y) for x, y in refused if x in ours and y in others)
        common = (beside[0] & beside[1]) - ours - others
        # A link to something in common is told once, whichever end it was found by.
        over = Counter((x, y) for x, y in refused if y in common)
        return sum(direct.values()) + sum(over.values())


def pairs(search: Search) -> list[tuple[End, End]]:
    """Random pairs: of all, of one person, and of different people whom links could have brought together."""
    pick, ends = random.Random(3), sorted(search.person)
    crowds = sorted((sorted(them) for them in search.members.values() if len(them) > 1), key=str)
    met: dict[int, list[End]] = defaultdict(list)
    for end in ends:
        if search.person[end] is not None and search.component[end] is not None:
            met[search.component[end]].append(end)
    split = [them for _, them in sorted(met.items()) if len({search.person[end] for end in them}) > 1]
    found: list[tuple[End, End]] = []
    while len(found) < PAIRS:
        from_one = pick.random()
        a, b = pick.sample(pick.choice(crowds) if from_one < 0.4 else pick.choice(split) if from_one < 0.7 else ends, 2)
        found.append((a, b))
    return found


def test_every_answer_is_what_the_edges_say(company: tuple[ibis.Table, ibis.Table, Project]) -> None:
    edge_table, identifier_table, project = company
    search = Search(edge_table.to_pyarrow().to_pylist(), identifier_table.to_pyarrow().to_pylist())
    kinds: Counter[str] = Counter()
    for a, b in pairs(search):
        answer = explain_link(edge_table, identifier_table, ":".join(a), ":".join(b), project)
        steps = search.distance(a, b)
        assert answer.same_person == (steps is not None) == (search.person[a] is not None and
                                                            search.person[a] == search.person[b])  # fmt: skip
        assert len(answer.path) == (steps or 0) and all(link.status == "accepted" for link in answer.path)
        assert leads(answer.path, a) == (b if steps else a)
        if steps is not None:
            kinds["one person"] += 1
            continue
        assert len(answer.against) == min(search.against(a, b), 20)
        assert all(link.status != "accepted" for link in answer.against)
        if answer.against:
            kinds["told what stood against it"] += 1
            continue
        failing = search.failing(a, b)
        assert sum(link.status != "accepted" for link in answer.chain) == (failing or 0)
        assert leads(answer.chain, a) == (a if failing is None else b)
        kinds["nothing ties them" if failing is None else "told the nearest way"] += 1
    assert set(kinds) >= {"one person", "told what stood against it", "nothing ties them"}, kinds
    Path(os.environ.get("CDP_EXPLAIN_REPORT", os.devnull)).write_text(f"{dict(kinds)}\n")


def leads(links: list[Any], here: End) -> End:
    for link in links:
        assert here in link.ends
        here = link.ends[1] if here == link.ends[0] else link.ends[0]
    return here
