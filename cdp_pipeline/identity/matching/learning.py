"""Learns what each level of agreement is worth, from the people alone: Splink's EM, then again with whole clusters.

Numbers only; which pairs there are is blocking.py, how a model is kept model.py.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cdp_pipeline.identity.matching.comparisons import Compared, splink_comparisons
from cdp_pipeline.identity.matching.evidence import FLOOR, Patterns, Worth, chance
from cdp_pipeline.identity.matching.linkage import cut, parts
from cdp_pipeline.identity.matching.scores import linker, pairs_inside, patterns, rare_columns

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

SEED = 1
RANDOM_PAIRS = 1_000_000
LEARNING_PAIRS = 1_000_000
ROUNDS = 2
"""How often what was learned is learned again from the clusters it makes."""


@dataclass(frozen=True)
class Learned:
    """Splink's settings as learned; the part of every row; the likely pairs: their weight, whether in one cluster."""

    settings: dict[str, Any]
    part: np.ndarray
    weight: np.ndarray
    together: np.ndarray


def splink_settings(found: list[Compared]) -> dict[str, Any]:
    return {
        "link_type": "dedupe_only",
        "comparisons": splink_comparisons(found),
        "blocking_rules_to_generate_predictions": [],
        "retain_matching_columns": True,
        "retain_intermediate_calculation_columns": True,
        "probability_two_random_records_match": 0.0001,
        "linker_uid": "match",
    }


def learned(connection: duckdb.DuckDBPyConnection, found: list[Compared], people: int) -> dict[str, Any] | None:
    """Splink's settings with m and u of every level; None where too few pairs agree on anything to learn from."""
    blocks = learning_blocks(connection, found, people)
    if len(blocks) < 2:
        return None
    made = linker(connection, splink_settings(found))
    made.training.estimate_u_using_random_sampling(
        max_pairs=RANDOM_PAIRS, seed=SEED, min_count_per_level=None, num_chunks=1
    )
    settings = made.misc.save_model_to_json(out_path=None)
    taught = [said for block in blocks if (said := _taught(connection, settings, block)) is not None]
    if not taught:
        return None
    for place, comparison in enumerate(settings["comparisons"]):
        told = [said[place] for said in taught if said[place]]
        for at, level in enumerate(comparison["comparison_levels"][1:]):
            # Seen in neither sample: rarer than either can tell. Never seen among matches speaks against a match.
            u = max(level.get("u_probability") or 0.0, 0.5 / RANDOM_PAIRS)
            # What no block teaches starts as mostly the same; it is counted later, over whole clusters.
            start = statistics.median(one.get(at, min(u, 1e-4)) for one in told) if told else 0.9 * (not at) + u / 10
            level["u_probability"], level["m_probability"] = u, max(start, FLOOR)
    return Worth.of(settings).into(settings)


def _taught(
    connection: duckdb.DuckDBPyConnection, settings: Mapping[str, Any], block: list[str]
) -> list[dict[int, float]] | None:
    """m by level, best first, of every comparison the block teaches (pairs that agree on it say nothing of it)."""
    from splink import block_on

    made = linker(connection, settings)
    try:
        made.training.estimate_parameters_using_expectation_maximisation(
            block_on(*block), max_pairs=LEARNING_PAIRS, record_sample_proportion=1.0
        )
    except ValueError:  # an m of zero: no pair that agrees on it is a match
        return None
    return [
        {
            at: level["m_probability"]
            for at, level in enumerate(comparison["comparison_levels"][1:])
            if level.get("m_probability") is not None
        }
        for comparison in made.misc.save_model_to_json(out_path=None)["comparisons"]
    ]


def learning_blocks(connection: duckdb.DuckDBPyConnection, found: list[Compared], people: int) -> list[list[str]]:
    """Per comparison the columns whose agreement makes pairs to learn the others from: neither too few nor a crowd."""
    blocks = []
    for one in found:
        known = " and ".join(f'"{column}" is not null' for column in one.agree)
        by = ", ".join(f'"{column}"' for column in one.agree)
        groups = f"select count(*) as n from people where {known} group by {by}"
        (pairs,) = connection.sql(f"select coalesce(sum(n * (n - 1) / 2), 0)::double from ({groups})").fetchall()[0]
        if 50 <= pairs <= 50 * people:
            blocks.append(one.agree)
    return blocks


def frequencies(connection: duckdb.DuckDBPyConnection, found: list[Compared]) -> pa.Table:
    """How common each value of a column is (column, value, share); what only one row has is kept as value null.

    So what a model keeps of people is only what several share.
    """
    shares = [
        f"""select '{column}' as "column", value, n / sum_n as share from (
            select value, n, sum(n) over () as sum_n from (
                select "{column}"::varchar as value, count(*)::double as n from people where "{column}" is not null
                group by 1)) where n > 1
        union all select '{column}', null, 1.0 / greatest(count("{column}"), 1) from people"""
        for column in rare_columns(found)
    ]
    return connection.sql(f"select * from ({' union all '.join(shares)}) order by all").to_arrow_table()


def refined(
    connection: duckdb.DuckDBPyConnection, settings: Mapping[str, Any], known: pa.Table, people: int
) -> Learned:
    """The share of matches, u without the matches among random pairs, and m of whole clusters.

    Splink learns m from pairs that agree on something, so two rows of one person that agree on nothing, but both with a
    third, are not heard. Here the clusters are made and m is counted anew over all pairs inside them and, by their
    probability, the candidates outside; ROUNDS times.
    """
    import numpy as np

    random = Worth.of(settings).u
    candidates = patterns(connection, settings, known, "pairs", least=-15.0)
    worth = _settled(candidates, Worth.of(settings), random, people)
    for left in reversed(range(ROUNDS + 1)):
        weight = candidates.weight(worth)
        part = parts(candidates.left, candidates.right, weight, people)
        pairs_inside(connection, part, "inside")
        inside = patterns(connection, settings, known, "inside")
        of = cut(inside.left, inside.right, inside.evidence(worth), worth.prior, part)
        together = of[inside.left] == of[inside.right]
        if left:
            outside = np.where(weight < 0, chance(weight), 0.0)
            worth = replace(worth, m=_counted(worth, (inside, together.astype(float)), (candidates, outside)))
            worth = _settled(candidates, worth, random, people)
    weight = inside.weight(worth)
    return Learned(worth.into(settings), part, weight[weight > 0], together[weight > 0])


def _counted(worth: Worth, *samples: tuple[Patterns, np.ndarray]) -> list[np.ndarray]:
    """m from pairs and how sure it is that each is a match."""
    import numpy as np

    ms = []
    for place, before in enumerate(worth.m):
        counts = np.full(len(before), 0.5)  # what was never seen may still be (Jeffreys)
        for some, sure in samples:
            seen = some.level[place] >= 0
            counts += np.bincount(some.level[place][seen], sure[seen], minlength=len(before))
        ms.append(counts / counts.sum())
    return ms


def _settled(candidates: Patterns, worth: Worth, random: Sequence[np.ndarray], people: int) -> Worth:
    """The share of matches that makes the candidates likeliest, and u freed of the matches that random pairs hold.

    Where rows have many duplicates, what agrees in random pairs is mostly them: u = (agreeing − share·m) / (1 − share).
    """
    import numpy as np

    for _ in range(5):
        share = _share(candidates.weight(worth), worth.share, people)
        u = [
            np.maximum.reduce(
                [(agreeing - share * m) / (1 - share), agreeing / 100, np.full(len(m), 0.5 / RANDOM_PAIRS)]
            )
            for agreeing, m in zip(random, worth.m, strict=True)
        ]
        worth = Worth(worth.m, u, share)
    return worth.ordered()


def _share(weight: np.ndarray, start: float, people: int) -> float:
    """The share of matches among all pairs, by expectation maximisation; pairs not compared count as none."""
    import numpy as np

    evidence = weight - math.log2(start / (1 - start))
    share, total = start, people * (people - 1) / 2
    for _ in range(100):
        after = float(chance(evidence + math.log2(share / (1 - share))).sum()) / total
        after = min(max(after, 0.1 / total), 0.5)
        if abs(np.log(after / share)) < 1e-6:
            break
        share = after
    return share
