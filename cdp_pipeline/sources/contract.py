"""A source's contract as one SQL query: text columns in; typed, normalised, checked columns and each row's fault out.

Pure text building. Reading files, and what becomes of faulty rows, is elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import ibis

from cdp_pipeline.sources.normalise import (
    FALSE,
    LOOKED_UP,
    TRUE,
    amount_as_written,
    as_literal,
    in_sql,
    usual_null,
)
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.source import IBIS_TYPES, Check, Column, Source

Reason = Literal[
    "broken_row",
    "wrong_encoding",
    "wrong_type",
    "impossible_date",
    "unrecognised",
    "missing_key",
    "missing_required",
    "not_accepted",
    "out_of_range",
    "pattern_mismatch",
    "unknown_reference",
    "failed_expression",
]

REASONS: dict[Reason, str] = {
    "broken_row": "The row does not have the fields that the header promises, or is not JSON.",
    "wrong_encoding": "The row holds bytes that are not of the declared encoding; raw shows them as \\xNN.",
    "wrong_type": "The value is not of the declared type.",
    "impossible_date": "The value looks like a date but is not one between 1900 and 2199.",
    "unrecognised": "The value is not an e-mail address, phone number, country or currency that can be recognised.",
    "missing_key": "A column of the grain is empty, so the row cannot be told from others.",
    "missing_required": "A required column, or the time of an event, is empty.",
    "not_accepted": "The value is not among those accepted.",
    "out_of_range": "The value is below or above the range.",
    "pattern_mismatch": "The value does not match the pattern.",
    "unknown_reference": "The value is not in the column it refers to.",
    "failed_expression": "The expression over the row is not true.",
}

_DUCKDB = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "money": "DECIMAL(18, 4)",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}


@dataclass(frozen=True)
class Fault:
    """One way in which a row can break the contract, and whether that refuses the whole file."""

    column: str
    reason: Reason
    refuses: bool = False


@dataclass(frozen=True)
class Contract:
    """The query, and the faults its column `_fault` numbers.

    The query yields `_row`, `_place`, the declared columns, `_record_id`, `_occurred_at`, `_utc_offset`, `_day`,
    `_fault` (NULL when sound), `_omitted` and `_coerced` (numbers of values).
    """

    sql: str
    faults: tuple[Fault, ...]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _meant(column: Column) -> set[str]:
    return {str(value) for check in column.checks for value in check.accepted or []}


def cleaned(column: Column, given: str) -> str:
    """SQL for the text of a column without the spellings of 'no value'."""
    return f"CASE WHEN {usual_null(given, column.nulls, _meant(column))} THEN NULL ELSE {given} END"


# Normalisers that can fail to recognise a value.
_RECOGNISED = ("email", "phone", "country", "currency")
_LIKE_A_DATE = "regexp_matches({x}, '^\\s*\\d{{1,4}}[-/.]\\d{{1,2}}[-/.]\\d{{1,4}}')"


def _as_utc(naive: str, zone: str) -> str:
    """SQL for a clock's reading in UTC. In a gap or a fold of the year the winter offset counts, always."""
    if zone == "UTC":
        return naive
    # Going by microseconds, because AT TIME ZONE 'UTC' asks the time zone library once more.
    return f"make_timestamp(epoch_us({naive} AT TIME ZONE {as_literal(zone)}))"


def _local(utc: str, zone: str) -> str:
    return utc if zone == "UTC" else f"timezone({as_literal(zone)}, make_timestamptz(epoch_us({utc})))"


def _possible(value: str) -> str:
    """The date or timestamp, or NULL outside the years in which customers live."""
    return f"CASE WHEN {value} >= DATE '1900-01-01' AND {value} < DATE '2200-01-01' THEN {value} END"


# A time followed by Z, an offset or the name of a zone.
_ZONED = "regexp_matches({x}, ':\\d\\d.*([zZ]|[+-]\\d{{2}}(:?\\d{{2}})?|[A-Za-z]+(/[A-Za-z_/]+)?)$')"


def _moment(column: Column, text: str) -> tuple[str, str]:
    """SQL for a timestamp as UTC where the text says its zone (else NULL), and as the clock showed it."""
    if column.format is not None:
        parsed = f"try_strptime({text}, {as_literal(column.format)})"
        if "%z" in column.format or "%Z" in column.format:
            return f"({parsed} AT TIME ZONE 'UTC')", "NULL::TIMESTAMP"
        return "NULL::TIMESTAMP", parsed
    zoned = _ZONED.format(x=text)
    utc = f"CASE WHEN {zoned} THEN make_timestamp(epoch_us(TRY_CAST({text} AS TIMESTAMPTZ))) END"
    return utc, f"TRY_CAST({_numeric(text)} AS TIMESTAMP)"


def _numeric(text: str) -> str:
    """Texts that begin with a digit (or a space): DuckDB would also read 'epoch' and 'infinity' as dates."""
    return f"CASE WHEN {text} < ':' THEN {text} END"


def _typed(column: Column, text: str) -> str:
    """SQL that casts a text to the column's type, NULL where it is not of that type (timestamps: see _moment)."""
    if column.type == "string":
        return text
    if column.type == "integer":
        # DuckDB would round '1.5' and read '0x1F' and '1_000'.
        return f"CASE WHEN regexp_full_match({text}, '\\s*[+-]?\\d+(\\.0*)?\\s*') THEN TRY_CAST({text} AS BIGINT) END"
    if column.type == "number":
        number = f"TRY_CAST({text} AS DOUBLE)"
        return f"CASE WHEN NOT contains({text}, '_') AND isfinite({number}) THEN {number} END"
    if column.type == "money":
        return f"CASE WHEN NOT contains({text}, '_') THEN TRY_CAST({text} AS DECIMAL(18, 4)) END"
    if column.type == "boolean":
        low = f"lower(trim({text}))"
        yes, no = (", ".join(map(as_literal, words)) for words in (TRUE, FALSE))
        return f"CASE WHEN {low} IN ({yes}) THEN true WHEN {low} IN ({no}) THEN false END"
    if column.format is not None:
        return _possible(f"TRY_CAST(try_strptime({text}, {as_literal(column.format)}) AS DATE)")
    return _possible(f"TRY_CAST({_numeric(text)} AS DATE)")


def _mended(column: Column, text: str, zone: str) -> str | None:
    """SQL for `coerce` on a text that is not of its type; None where nothing can be tried."""
    if column.type == "money":
        return f"TRY_CAST({amount_as_written(text)} AS DECIMAL(18, 4))"
    if column.type == "number":
        return f"TRY_CAST({amount_as_written(text)} AS DOUBLE)"
    if column.type == "integer":
        number = f"TRY_CAST({amount_as_written(text)} AS DECIMAL(38, 6))"
        return f"CASE WHEN {number} = trunc({number}) THEN TRY_CAST({number} AS BIGINT) END"
    if column.type in ("date", "timestamp"):
        tries = ", ".join(
            f"try_strptime({text}, {as_literal(form + time)})"
            for form in ("%d/%m/%Y", "%d.%m.%Y", "%Y%m%d", "%d-%m-%Y", "%d %B %Y", "%d %b %Y")
            for time in ("", " %H:%M", " %H:%M:%S")
        )
        epoch = f"""CASE WHEN regexp_full_match({text}, '\\d{{10}}') THEN make_timestamp(({text})::BIGINT * 1000000)
                         WHEN regexp_full_match({text}, '\\d{{13}}') THEN make_timestamp(({text})::BIGINT * 1000) END"""
        written = f"coalesce({tries})"
        moment = f"coalesce({_as_utc(written, zone) if column.type == 'timestamp' else written}, {epoch})"
        return _possible(f"CAST({moment} AS {_DUCKDB[column.type]})")
    return None


def _breaks(check: Check, x: str, column: Column, references: str | None, expression: str | None) -> tuple[str, Reason]:
    """SQL that is true where a value (not NULL) breaks a check, and the reason to give."""
    if check.accepted is not None:
        kind = _DUCKDB[column.type]
        accepted = ", ".join(f"CAST({as_literal(_text_of(value))} AS {kind})" for value in check.accepted)
        return f"{x} NOT IN ({accepted})", "not_accepted"
    if check.range is not None:
        low, high = check.range
        sides = [f"{x} < {low!r}"] * (low is not None) + [f"{x} > {high!r}"] * (high is not None)
        return f"({' OR '.join(sides) or 'false'})", "out_of_range"
    if check.pattern is not None:
        return f"NOT regexp_full_match({x}::VARCHAR, {as_literal(check.pattern)})", "pattern_mismatch"
    if check.references is not None:
        return f"{x}::VARCHAR NOT IN (SELECT v FROM {references})", "unknown_reference"
    return f"NOT coalesce({expression}, false)", "failed_expression"


def _text_of(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _within(check: Check, x: str, column: Column) -> str:
    """SQL for `coerce` on a check: the nearest end of the range, or the accepted value that differs in case only."""
    kind = _DUCKDB[column.type]
    if check.range is not None:
        low, high = check.range
        clamped = x if low is None else f"greatest({x}, CAST({low!r} AS {kind}))"
        return clamped if high is None else f"least({clamped}, CAST({high!r} AS {kind}))"
    if check.accepted is not None and column.type == "string":
        same = " ".join(
            f"WHEN {as_literal(str(value).strip().lower())} THEN {as_literal(str(value))}" for value in check.accepted
        )
        return f"CASE lower(trim({x})) {same} ELSE {x} END"
    return x


def contract(
    source: Source,
    relation: str,
    given: Mapping[str, str],
    lookups: Mapping[str, str],
    references: Mapping[str, str],
    project_zone: str,
    copied_at: datetime | None = None,
) -> Contract:
    """The query over `relation` (with `_row`, `_place`).

    given: declared column → SQL of its text (missing columns: absent). lookups: column → table(given, normal) of a
    looked-up normaliser. references: 'source.column' → table(v) of the texts that exist. copied_at: the moment (UTC)
    that a full copy stands for.
    """
    zone = source.timezone or project_zone
    columns = source.columns
    layer = _typed_layer(source, relation, given, lookups, zone)
    layer, coerced = _mended_layer(columns, layer, zone)
    layer = _expression_layer(columns, layer)

    # Faults in order: what refuses the file first, then the columns as declared.
    faults: list[tuple[str, Fault]] = []
    omitted: list[str] = []
    final = []
    for name, column in columns.items():
        x = _quoted(name)
        refuses = column.invalid == "reject"
        still_wrong = f"(_b_{name} AND _w_{name} IS NULL)"
        if column.type == "string" and column.normalise not in _RECOGNISED:
            pass
        elif column.invalid in ("allow", "omit"):
            omitted.append(still_wrong)
        else:
            if column.type in ("date", "timestamp"):
                dated = f"({still_wrong} AND {_LIKE_A_DATE.format(x=f'_t_{name}')})"
                faults.append((dated, Fault(name, "impossible_date", refuses)))
            wrong: Reason = "unrecognised" if column.type == "string" else "wrong_type"
            faults.append((still_wrong, Fault(name, wrong, refuses)))
        emptied = []
        for number, check in enumerate(column.checks):
            if check.action == "allow":
                continue
            breaks, reason = _breaks(check, x, column, references.get(check.references or ""), f"_e_{name}_{number}")
            broken = f"({x} IS NOT NULL AND {breaks})"
            if check.action == "omit":
                emptied.append(broken)
            else:
                faults.append((broken, Fault(name, reason, check.action == "reject")))
        omitted += emptied
        empty = f"({' OR '.join([f'{x} IS NULL', *emptied])})"
        if name in source.grain and not source.repeatable:
            faults.append((empty, Fault(name, "missing_key")))
        elif column.required or (name == source.occurred_at and source.mode == "events"):
            faults.append((empty, Fault(name, "missing_required")))
        final.append(f"CASE WHEN {' OR '.join(emptied)} THEN NULL ELSE {x} END AS {x}" if emptied else x)
    faults.sort(key=lambda fault: not fault[1].refuses)
    cases = " ".join(f"WHEN {condition} THEN {number}" for number, (condition, _) in enumerate(faults))
    checked = f"""SELECT _row, _place, {", ".join(final)}, {_clock(source)} AS _clock,
        CAST({f"CASE {cases} END" if cases else "NULL"} AS SMALLINT) AS _fault,
        {_count(omitted)} AS _omitted, {_count(coerced)} AS _coerced FROM ({layer})"""

    # What every row of every source has.
    copied = f"TIMESTAMP '{copied_at:%Y-%m-%d %H:%M:%S.%f}'" if copied_at else None
    placed = f"SELECT *, {_occurred(source, zone, copied)} AS _occurred_at FROM ({checked})"
    local = _local("_occurred_at", zone)
    day = f"CAST({_local(copied or '_occurred_at', project_zone)} AS DATE)"
    sql = f"""SELECT _row, _place, {", ".join(map(_quoted, columns))}, {_record_id(source)} AS _record_id, _occurred_at,
        CAST(date_diff('minute', _occurred_at, coalesce(_clock, {local})) AS SMALLINT) AS _utc_offset,
        {day} AS _day, _fault, _omitted, _coerced FROM ({placed})"""
    return Contract(sql, tuple(fault for _, fault in faults))


def _typed_layer(source: Source, relation: str, given: Mapping[str, str], lookups: Mapping[str, str], zone: str) -> str:
    """Per column: the text as given without spellings of 'no value' (_t_), and its typed normal form (_v_)."""
    texts, normal, joins, typed = [], [], [], []
    for name, column in source.columns.items():
        text = f"_t_{name}"
        texts.append(f"{cleaned(column, given[name]) if name in given else 'NULL::VARCHAR'} AS {text}")
        if column.normalise in LOOKED_UP and name in lookups:
            joins.append(f"LEFT JOIN {lookups[name]} _l_{name} ON _l_{name}.given = {text}")
            normal.append(f"_l_{name}.normal AS _n_{name}")
        elif column.normalise is not None and column.normalise not in LOOKED_UP:
            normal.append(f"{in_sql(column.normalise, text)} AS _n_{name}")
        else:
            normal.append(f"{text} AS _n_{name}")
        if column.type == "timestamp":
            utc, clock = _moment(column, f"_n_{name}")
            typed += [f"{utc} AS _z_{name}", f"{clock} AS _c_{name}"]
        else:
            typed.append(f"{_typed(column, f'_n_{name}')} AS _v_{name}")
    layer = f"SELECT _row, _place, {', '.join(texts)} FROM {relation}"
    layer = f"SELECT x.*, {', '.join(normal)} FROM ({layer}) x {' '.join(joins)}"
    layer = f"SELECT *, {', '.join(typed)} FROM ({layer})"
    moments = [name for name, column in source.columns.items() if column.type == "timestamp"]
    if moments:
        utc = ", ".join(
            f"coalesce(_z_{name}, {_as_utc(_possible(f'_c_{name}'), zone)}) AS _u_{name}" for name in moments
        )
        bounded = ", ".join(f"{_possible(f'_u_{name}')} AS _v_{name}" for name in moments)
        layer = f"SELECT *, {bounded} FROM (SELECT *, {utc} FROM ({layer}))"
    return layer


def _mended_layer(columns: Mapping[str, Column], layer: str, zone: str) -> tuple[str, list[str]]:
    """Per column: whether the text is not of its type (_b_), the value mended (_w_), and that after coercing checks."""
    fitted, own, coerced = [], [], []
    for name, column in columns.items():
        wrong = f"(_t_{name} IS NOT NULL AND _v_{name} IS NULL)"
        value = f"_v_{name}"
        if column.invalid == "coerce" and (mended := _mended(column, f"_t_{name}", zone)) is not None:
            value = f"CASE WHEN {wrong} THEN {mended} ELSE _v_{name} END"
        elif column.invalid == "allow" and column.type == "string":
            value = f"coalesce(_v_{name}, _t_{name})"
        fitted += [f"{value} AS _w_{name}", f"{wrong} AS _b_{name}"]
        value = f"_w_{name}"
        for check in column.checks:
            if check.action == "coerce":
                value = _within(check, value, column)
        own.append(f"{value} AS {_quoted(name)}")
        if column.invalid == "coerce" or value != f"_w_{name}":
            coerced.append(f"(_b_{name} AND _w_{name} IS NOT NULL OR {_quoted(name)} IS DISTINCT FROM _w_{name})")
    return f"SELECT *, {', '.join(own)} FROM (SELECT *, {', '.join(fitted)} FROM ({layer}))", coerced


def _expression_layer(columns: Mapping[str, Column], layer: str) -> str:
    """The checks that are expressions (_e_), compiled by the one compiler that all fragments share."""
    fragments = {
        f"_e_{name}_{number}": check.expression
        for name, column in columns.items()
        for number, check in enumerate(column.checks)
        if check.expression is not None and check.action != "allow"
    }
    if not fragments:
        return layer
    schema = {"_row": "int64", "_place": "int64"}
    for name, column in columns.items():
        kind = IBIS_TYPES[column.type]
        schema |= {name: kind, f"_w_{name}": kind, f"_b_{name}": "boolean", f"_t_{name}": "string"}
        if column.type == "timestamp":
            schema[f"_c_{name}"] = kind
    row = ibis.table(schema, name="_checked_row")
    scope = {name: row[name] for name in columns}
    query = row.mutate(**{alias: expressions.compile(text, scope) for alias, text in fragments.items()})
    return f"WITH _checked_row AS ({layer}) {ibis.to_sql(query, dialect='duckdb')}"


def _clock(source: Source) -> str:
    """What the clock at the source showed when the row happened, where the text says so."""
    if source.occurred_at is None:
        return "NULL::TIMESTAMP"
    kind = source.columns[source.occurred_at].type
    return f"_c_{source.occurred_at}" if kind == "timestamp" else f"CAST({_quoted(source.occurred_at)} AS TIMESTAMP)"


def _occurred(source: Source, zone: str, copied_at: str | None) -> str:
    if source.occurred_at is None:
        return copied_at or "NULL::TIMESTAMP"
    x = _quoted(source.occurred_at)
    moment = x if source.columns[source.occurred_at].type == "timestamp" else _as_utc(f"CAST({x} AS TIMESTAMP)", zone)
    return f"coalesce({moment}, {copied_at})" if copied_at else moment


def _record_id(source: Source) -> str:
    """24 hex digits of the source and its grain; NULL where a key is, except for rows that are told apart by order."""
    values = [f"{_quoted(name)}::VARCHAR" for name in source.grain]
    if source.repeatable:
        grain = ", ".join(map(_quoted, source.grain))
        values = [f"coalesce({value}, chr(30))" for value in values]
        values.append(f"(row_number() OVER (PARTITION BY _place, {grain} ORDER BY _row))::VARCHAR")
    return f"left(md5({' || chr(31) || '.join([as_literal(source.name), *values])}), 24)"


def _count(conditions: list[str]) -> str:
    return " + ".join(f"coalesce({condition}, false)::INTEGER" for condition in conditions) or "0"
