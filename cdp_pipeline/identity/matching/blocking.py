"""Which pairs of people are compared at all: those that agree on a key, or on two keys of different things.

Pairs only, by the number of a row; what a pair is worth is for scores.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from cdp_pipeline.identity.matching.comparisons import Compared
    from cdp_pipeline.spec.match import Match

PAIRS_EACH = 40
"""Candidate pairs per person that may be compared, in the mean: what keeps a run's cost in line with its people."""
PAIRS_LEAST = 1_000_000
"""Candidate pairs that may always be compared, however few people there are: seconds."""
SAMPLE = 20_000
"""People whose pairs are counted to tell how many pairs all would make."""
Rule = tuple[str, ...]
"""SQL over prepared columns; a pair is compared when all of them agree."""


def declared_rules(match: Match) -> list[Rule] | None:
    return None if match.blocking is None else [tuple(f'"{name}__"' for name in names) for names in match.blocking]


def chosen_rules(connection: duckdb.DuckDBPyConnection, found: Sequence[Compared]) -> list[Rule]:
    """The rules that give the most different reasons to compare two people without comparing everybody.

    Candidates are every key alone and every two keys; the most telling (those with the fewest pairs) come first, as
    long as the different pairs of all stay within the budget, which is judged on a sample of people. A rule that a
    wider one contains is left out. No labels are needed: what is counted is how many pairs a rule would bring.
    """
    keys = [key for one in found for key in one.keys]
    rules: list[Rule] = [(key,) for key in keys] + list(combinations(keys, 2))
    people = _count(connection, "people")
    budget = max(PAIRS_LEAST, PAIRS_EACH * people)
    costs = {rule: _cost(connection, rule) for rule in rules}
    every = max(1, people // SAMPLE)
    _keyed(connection, keys)
    connection.execute("create or replace temp table met (l integer, r integer)")
    chosen: list[Rule] = []
    total = 0
    for rule in sorted(rules, key=lambda rule: (costs[rule], rule)):
        if not 0 < costs[rule] <= budget:
            continue
        connection.execute(
            f"create or replace temp table more as select l, r from ({_pairs(rule, keys, f'l.id % {every} = 0')}) "
            "anti join met using (l, r)"
        )
        more = _count(connection, "more") * every
        if total + more <= budget:
            connection.execute("insert into met from more")
            total += more
            chosen.append(rule)
    connection.execute("drop table met; drop table more; drop table keyed")
    return [rule for rule in chosen if not any(set(other) < set(rule) for other in chosen)]


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return connection.sql(f"select count(*) from {table}").fetchall()[0][0]


def _keyed(connection: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> None:
    """The table `keyed`: a row's number and a hash of each key, null where the key is not known."""
    columns = ", ".join(f"if(({key}) is null, null, hash({key})) as k{place}" for place, key in enumerate(keys))
    connection.execute(f"create or replace temp table keyed as select unique_id as id, is_new, {columns} from people")


def _pairs(rule: Rule, keys: Sequence[str], only: str) -> str:
    on = " and ".join(f"l.k{keys.index(key)} = r.k{keys.index(key)}" for key in rule)
    return f"select l.id as l, r.id as r from keyed l join keyed r on {on} and l.id < r.id where {only}"


def _cost(connection: duckdb.DuckDBPyConnection, rule: Rule) -> int:
    known = " and ".join(f"({key}) is not null" for key in rule)
    groups = f"select count(*) as n from people where {known} group by {', '.join(rule)}"
    return int(connection.sql(f"select coalesce(sum(n * (n - 1) / 2), 0)::hugeint from ({groups})").fetchall()[0][0])


def candidate_pairs(connection: duckdb.DuckDBPyConnection, rules: Sequence[Rule], into: str, new: bool = False) -> int:
    """Fill the table `into` (l < r, row numbers, each pair once) from `people`; `new`: pairs with a new row only."""
    keys = sorted({key for rule in rules for key in rule})
    _keyed(connection, keys)
    only = "l.is_new or r.is_new" if new else "true"
    union = " union all ".join(_pairs(rule, keys, only) for rule in rules)
    connection.execute(f"create or replace temp table {into} as select distinct l, r from ({union})")
    connection.execute("drop table keyed")
    return _count(connection, into)
