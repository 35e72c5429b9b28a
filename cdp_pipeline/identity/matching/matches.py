"""The fuzzy step as a whole: units, the last state, a model → matches with grades and reasons, and links for the graph.

Scores are stable between runs: only new and changed units are compared, by the model as it was learned.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.identity.matching.blocking import candidate_pairs
from cdp_pipeline.identity.matching.comparisons import Compared, compared
from cdp_pipeline.identity.matching.evidence import Patterns, Worth, chance, grade
from cdp_pipeline.identity.matching.linkage import components, cut, parts
from cdp_pipeline.identity.matching.model import Model, needs_learning, newest, save, train
from cdp_pipeline.identity.matching.scores import engine, need_splink, pairs_inside, patterns, score
from cdp_pipeline.lake.table import Column, Table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.spec.match import Match

MATCHES = Table(
    name="identity.matches",
    description="People who look like one although no identifier says so: how sure that is, why, and what was done.",
    columns={
        "match": Column("string", "The match rule."),
        "type_a": Column("string", "Type of the first person's strongest identifier."),
        "value_a": Column("string", "The first person's strongest identifier.", pii=True),
        "type_b": Column("string", "Type of the second person's strongest identifier."),
        "value_b": Column("string", "The second person's strongest identifier.", pii=True),
        "score": Column("float64", "The probability that they are one person."),
        "weight": Column("float64", "The same as weight of evidence in bits: 0 is even, 10 a thousand to one."),
        "grade": Column("int64", "5 certain (at most 1 in 1,000 is wrong), 4 (1 in 100), 3 (1 in 20), 2 (1 in 5), 1."),
        "status": Column(
            "string",
            "joined; offered (to uses that take its grade, and to review); apart (the others around them disagree).",
        ),
        "by_rule": Column(
            "boolean", "A rule led to this pair; otherwise both are like a third, so they were compared."
        ),
        "why": Column("string", "JSON: what was compared, how it agrees and how many bits that is worth."),
        "model_version": Column("string", "The model that scored it."),
        "first_seen": Column("timestamp(6)", "Since when both are known (UTC)."),
    },
    key=("match", "type_a", "value_a", "type_b", "value_b"),
)

COMPARED = Table(
    name="identity.compared",
    description="Which people were compared, and as what: so that the next run compares only who is new or changed.",
    columns={
        "match": Column("string", "The match rule."),
        "type": Column("string", "Type of the person's strongest identifier."),
        "value": Column("string", "The person's strongest identifier.", pii=True),
        "fingerprint": Column("string", "Hash of the values that were compared."),
        "model_version": Column("string", "The model that compared them."),
    },
    key=("match", "type", "value"),
)


@dataclass(frozen=True)
class Matched:
    """What a run of one match gives: `matches` and `compared` as declared above (this match's rows, all of them).

    edges: links for the graph, as edges.edges() gives them. model: None where there was too little to learn from; then
    nobody matches. learned: whether the model is new. new: how many units were compared anew.
    """

    matches: pa.Table
    compared: pa.Table
    edges: pa.Table
    model: Model | None
    learned: bool
    new: int


def fuzzy(
    match: Match,
    people: ibis.Table | pa.Table,
    previous_matches: ibis.Table | pa.Table | None,
    previous_compared: ibis.Table | pa.Table | None,
    folder: Path,
    now: datetime,
) -> Matched:
    """Find who else is one person. `people` is units.units(), the previous tables the last state, all matches of it.

    The model is read from `folder` (the lake's models); where there is none for this declaration, or people became many
    more or fewer, one is learned and saved. The result is that of comparing everybody with that model. Raises
    SplinkMissingError and MatchModelTamperedError.
    """
    need_splink(match.name)
    rows = in_order(people, match)
    model, learned = newest(folder, match), False
    if needs_learning(model, match, rows.num_rows):
        fresh = train(rows, match, now)
        if fresh is not None:
            model, learned = fresh, True
            save(fresh, folder)
    if model is None:
        return Matched(_none(MATCHES), _none(COMPARED), match_edges(_none(MATCHES)), None, learned=False, new=0)
    before = _before(match, model, rows, _arrow(previous_matches), _arrow(previous_compared))
    matches = _matches(match, model, rows, before)
    now_compared = _compared(match, model, rows)
    return Matched(matches, now_compared, match_edges(matches), model, learned, int(before.is_new.sum()))


def in_order(people: ibis.Table | pa.Table, match: Match) -> pa.Table:
    """Those of whom at least two things that are compared are known, in the order of their content, with fingerprints.

    Columns: type, value, first_seen, the attributes as texts, fingerprint.
    """
    import duckdb

    rows = _arrow(people)
    names = [f'"{name}"::varchar as "{name}"' for name in match.attributes]
    known = " + ".join(
        "(coalesce("
        + ", ".join(f"nullif(trim(\"{name}\"::varchar), '')" for name in one.attributes)
        + ") is not null)::int"
        for one in match.compare
    )
    values = ", ".join(f'"{name}"::varchar' for name in match.attributes)
    with duckdb.connect() as connection:
        connection.register("people", rows)
        return connection.sql(
            f"""select type, value, first_seen, {", ".join(names)}, md5(to_json([{values}])::varchar) as fingerprint
            from people where {known} >= 2 order by {values}, type, value"""
        ).to_arrow_table()


@dataclass(frozen=True)
class _Before:
    """The last state on this run's rows: who is new or changed, who lost a match, and what matched and still does."""

    is_new: np.ndarray
    bereaved: np.ndarray
    left: np.ndarray
    right: np.ndarray
    matches: pa.Table  # of left and right, in that order


def _before(match: Match, model: Model, rows: pa.Table, matches: pa.Table | None, compared: pa.Table | None) -> _Before:
    import numpy as np
    import pyarrow.compute as pc

    count, none = rows.num_rows, np.zeros(0, np.int64)
    if matches is None or compared is None:
        return _Before(np.ones(count, bool), np.zeros(count, bool), none, none, _none(MATCHES))
    matches, compared = (
        table.filter(pc.and_(pc.equal(table["match"], match.name), pc.equal(table["model_version"], model.version)))
        for table in (matches, compared)
    )
    place = {key: at for at, key in enumerate(_keys(rows, "type", "value"))}
    is_new, fingerprints = np.ones(count, bool), rows["fingerprint"].to_pylist()
    for key, fingerprint in zip(_keys(compared, "type", "value"), compared["fingerprint"].to_pylist(), strict=True):
        at = place.get(key)
        if at is not None and fingerprints[at] == fingerprint:
            is_new[at] = False
    a, b = (
        np.array([place.get(key, -1) for key in _keys(matches, f"type_{end}", f"value_{end}")], np.int64)
        for end in ("a", "b")
    )
    stays = np.r_[~is_new, False]  # the last place is for -1, who is gone
    bereaved = np.zeros(count, bool)
    bereaved[a[stays[a] & ~stays[b]]] = bereaved[b[stays[b] & ~stays[a]]] = True
    both = np.flatnonzero(stays[a] & stays[b])
    return _Before(is_new, bereaved, np.minimum(a, b)[both], np.maximum(a, b)[both], matches.take(both))


def _keys(rows: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(rows[name].to_pylist() for name in names), strict=True))


def _matches(match: Match, model: Model, rows: pa.Table, before: _Before) -> pa.Table:
    """All matches of now: those of groups that a new row touched are made again, the others are kept."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found, worth, count = compared(match), Worth.of(model.settings), rows.num_rows
    with engine(rows.append_column("is_new", pa.array(before.is_new)), found) as connection:
        candidate_pairs(connection, model.rules, "pairs", new=True)
        fresh = score(connection, model.settings, model.frequencies, "pairs", least=0.0)
        by_rule = before.matches["by_rule"].to_numpy(zero_copy_only=False)
        left = np.concatenate([before.left[by_rule], fresh["l"].to_numpy()]).astype(np.int64)
        right = np.concatenate([before.right[by_rule], fresh["r"].to_numpy()]).astype(np.int64)
        weight = np.concatenate([before.matches["weight"].to_numpy()[by_rule], fresh["weight"].to_numpy()])
        likely = weight > 0
        left, right, weight = left[likely], right[likely], weight[likely]
        group = components(left, right, count)
        touched = np.zeros(count, bool)
        touched[group[before.is_new | before.bereaved]] = True
        touched = touched[group]
        part = parts(left, right, weight, count)

        pairs_inside(connection, np.where(touched, part, np.arange(count)), "inside")
        across = touched[left] & (part[left] != part[right])
        found_by_rule = pa.table({"l": left.astype(np.int32), "r": right.astype(np.int32)})
        connection.register("by_rule", found_by_rule)
        connection.register("across", found_by_rule.filter(pa.array(across)))
        connection.execute("insert into inside select l, r from across")
        agree = patterns(connection, model.settings, model.frequencies, "inside")
        connection.unregister("across")
        connection.register(
            "agreeing", pa.table({"l": agree.left, "r": agree.right, "place": np.arange(len(agree.left))})
        )
        led = connection.sql("select place from agreeing semi join by_rule using (l, r)").to_arrow_table()["place"]
        connection.unregister("agreeing")
        connection.unregister("by_rule")
    evidence = agree.evidence(worth)
    within = part[agree.left] == part[agree.right]
    of = cut(agree.left[within], agree.right[within], evidence[within], worth.prior, part)
    ruled = np.zeros(len(agree.left), bool)
    ruled[led.to_numpy()] = True
    again = _rows(match, model, rows, found, agree, evidence, worth, of, ruled)
    kept = before.matches.filter(pa.array(~touched[before.left]))
    status = pc.if_else(
        pc.equal(kept["status"], "apart"), "apart",
        pc.if_else(pc.greater_equal(kept["grade"], _joins_at(match, model)), "joined", "offered"),
    )  # fmt: skip
    kept = kept.set_column(kept.column_names.index("status"), "status", status)
    schema = MATCHES.schema.to_pyarrow()
    both = pa.concat_tables([kept.select(schema.names).cast(schema), again.cast(schema)])
    return both.sort_by([(name, "ascending") for name in MATCHES.key])


def _joins_at(match: Match, model: Model) -> int:
    """The lowest grade that joins: none where the model is in doubt."""
    return match.joins_at if model.believed else 6


def _rows(
    match: Match, model: Model, rows: pa.Table, found: list[Compared], agree: Patterns, evidence: np.ndarray,
    worth: Worth, of: np.ndarray, ruled: np.ndarray,
) -> pa.Table:  # fmt: skip
    """The likely pairs as rows of MATCHES."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    weight = agree.weight(worth)
    likely = np.flatnonzero(weight > 0)
    left, right, bits = agree.left[likely], agree.right[likely], weight[likely]
    grades = grade(bits)
    together = of[left] == of[right]
    status = np.where(~together, "apart", np.where(grades >= _joins_at(match, model), "joined", "offered"))
    ends = [rows.select(["type", "value", "first_seen"]).take(pa.array(end)) for end in (left, right)]
    keys = [_keys(end, "type", "value") for end in ends]
    swap = pa.array([a > b for a, b in zip(*keys, strict=True)], pa.bool_())
    first, second = ends
    levels = np.column_stack([level[likely] for level in agree.level]).tolist()
    why = [
        _why(found, worth.prior, at, worths)
        for at, worths in zip(levels, evidence[likely].astype(float).tolist(), strict=True)
    ]
    return pa.table(
        {
            "match": pa.repeat(pa.scalar(match.name), len(likely)),
            "type_a": pc.if_else(swap, second["type"], first["type"]),
            "value_a": pc.if_else(swap, second["value"], first["value"]),
            "type_b": pc.if_else(swap, first["type"], second["type"]),
            "value_b": pc.if_else(swap, first["value"], second["value"]),
            "score": pa.array(chance(bits), pa.float64()),
            "weight": pa.array(bits, pa.float64()),
            "grade": pa.array(grades, pa.int64()),
            "status": pa.array(status.tolist(), pa.string()),
            "by_rule": pa.array(ruled[likely]),
            "why": pa.array(why, pa.string()),
            "model_version": pa.repeat(pa.scalar(model.version), len(likely)),
            "first_seen": pc.max_element_wise(first["first_seen"], second["first_seen"]),
        }
    )


def _why(found: list[Compared], prior: float, levels: list[int], bits: list[float]) -> str:
    steps: list[list[Any]] = [["two people at random", "", round(prior, 2)]]
    for one, level, worth in zip(found, levels, bits, strict=True):
        words = "not known" if level < 0 else "different" if level == 0 else one.levels[-level].words
        steps.append([one.about, words, 0.0 if level < 0 else round(worth, 2)])
    return json.dumps(steps, ensure_ascii=False)


def waterfall_lines(match_row: dict[str, Any]) -> list[str]:
    """A row of MATCHES in words: what was compared, how it agrees, and what that is worth in bits."""
    steps = json.loads(match_row["why"])
    wide = max(len(about) for about, _, _ in steps)
    lines = [
        f"{match_row['match']}: {match_row['score']:.1%} likely one person, grade {match_row['grade']} of 5, "
        f"{match_row['status']}"
    ]
    lines += [f"  {about:<{wide}}  {bits:+6.1f} bits  {words}".rstrip() for about, words, bits in steps]
    return [*lines, f"  {'together':<{wide}}  {match_row['weight']:+6.1f} bits"]


def match_edges(matches: ibis.Table | pa.Table) -> pa.Table:
    """The joined matches as links for the graph, the weakest of all: rule and source `match:<name>`, score, first_seen.

    record_id is the version of the model, under which the match stands in identity.matches.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = _arrow(matches)
    joined = rows.filter(pc.equal(rows["status"], "joined"))
    rule = pc.binary_join_element_wise(pa.scalar("match"), joined["match"], ":")
    return pa.table(
        {
            **{name: joined[name] for name in ("type_a", "value_a", "type_b", "value_b")},
            "source": rule,
            "record_id": joined["model_version"],
            "first_seen": joined["first_seen"],
            "last_seen": joined["first_seen"],
            "rule": rule,
            "score": joined["score"],
        }
    )


def _compared(match: Match, model: Model, rows: pa.Table) -> pa.Table:
    import pyarrow as pa

    count = rows.num_rows
    return pa.table(
        {
            "match": pa.repeat(pa.scalar(match.name), count),
            "type": rows["type"],
            "value": rows["value"],
            "fingerprint": rows["fingerprint"],
            "model_version": pa.repeat(pa.scalar(model.version), count),
        }
    )


def _none(table: Table) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([], schema=table.schema.to_pyarrow())


def _arrow(table: ibis.Table | pa.Table | None) -> Any:
    return table.to_pyarrow() if isinstance(table, ibis.Table) else table
