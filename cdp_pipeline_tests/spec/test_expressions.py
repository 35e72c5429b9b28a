"""SQL fragments: DuckDB running the same text is the oracle for values; Sail must agree with DuckDB."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.expressions import ExpressionError

COLUMNS = {
    "id": "int64", "amount": "decimal(18, 4)", "n": "int64", "x": "float64", "s": "string", "b": "boolean",
    "d": "date", "ts": "timestamp(6)",
}  # fmt: skip
FRAGMENTS = """
amount * 2 | 2 * amount | amount * 0.5 | amount * n | x * amount | n * n | amount + n | amount - 1 | n + x | n - 3
-n | -amount | amount / 4 | n / 2 | n % 3 | x % 3 | amount * 2 + n * 3 - 1 > 10 or s like '%@%' and not b
amount > 0.5 | amount = 12.5 | amount = -0.1 | amount < n | amount <= 12.5 | n >= 7 | n = 7 | s = 'a-b-c' | s <> ''
s < 'b' | b = true | not b | b and n > 0 | b or n > 0 | n between -7 and 10 | amount between -0.1 and 12.5
n in (7, 0) | n not in (7, 0) | s in ('', 'a-b-c') | amount in (12.5, 0) | s like 'a%' | s not like '%b%'
s ilike 'A_b%' | s is null | s is not null | not (n > 3 or s is null)
case when n > 0 then 'pos' when n < 0 then 'neg' else 'zero' end | case when b then n end
case n when 7 then 1.5 when 0 then 2 end | case when b then amount else 0 end
cast(n as varchar) | cast(amount as varchar) | cast(b as varchar) | cast(b as integer) | cast(d as varchar)
cast(ts as varchar) | cast(d as timestamp) | cast(ts as date) | ts::date | try_cast(s as double) | try_cast(s as date)
try_cast(cast(n as varchar) as bigint) | try_cast('2024-01-05' || '' as date) | '12.345678'::decimal(18, 4)
cast(amount as double) | cast(n as double) | cast(n as decimal(18, 4)) | cast(n * 0.5 as decimal(18, 4))
s || '!' | s || cast(n as varchar) | coalesce(s, 'none') | coalesce(amount, n, 0) | coalesce(x, n) | coalesce(null, n)
nullif(n, 0) | nullif(s, '') | nullif(amount, 0) | lower(s) | upper(s) | trim(s) | length(s) | substr(s, 2)
substr(s, 1, 3) | substr(s, 3, 0) | replace(s, '-', '+') | starts_with(s, 'a') | contains(s, 'b') | contains(s, '.')
abs(n) | abs(amount) | abs(x) | round(x) | round(amount) | round(amount, 1) | round(n) | floor(x) | ceil(x)
floor(amount) | ceil(amount) | floor(n) | ln(abs(x) + 1) | sqrt(abs(x)) | power(n, 2) | power(abs(x) + 1, 0.5)
greatest(n, 3) | least(amount, 5) | greatest(n, x, amount) | greatest(d, date '2024-03-01') | least(s, 'b')
if(b, n, 0) | if(b, amount, n) | year(d) | month(d) | day(ts) | hour(ts) | hour(d)
dayofweek(d) | dayofweek(ts) | isodow(d) | isodow(ts) | date_diff('day', d, ts) | date_diff('day', ts, d)
d - date '2024-01-01' | d + 30 | d - 5 | d + 1 > d | d = ts | d >= date '2024-02-29'
ts >= timestamp '2024-02-29 23:59:59' | ts > date '2024-02-29' | regexp_matches(s, '^a.b')
regexp_matches(s, '[0-9]+') | split_part(s, '-', 2) | split_part(s, '.', 1) | split_part(s, '-', 9)
'x' | 2.5 | true | 5 | n * 1000000 | length(s) * 100000 | amount | n | x | s | b | d | ts
"""
FRAGMENT_LIST = [part.strip() for line in FRAGMENTS.strip().split("\n") for part in line.split(" | ")]
ROWS = [
    (1, Decimal("12.5"), 7, 2.5, "ann@Example.com", True, date(2024, 2, 29), datetime(2024, 2, 29, 23, 59, 59, 123456)),
    (2, Decimal("-0.1"), -7, -2.5, "  -12 ", False, date(1999, 12, 31), datetime(2025, 1, 1)),
    (3, Decimal(0), 0, 0.0, "", None, date(2024, 3, 31), datetime(1970, 1, 1)),
    (4, None, None, None, None, True, None, None),
    (5, Decimal("99999.9999"), 123456, 1e18, "a-b-c", False, date(2026, 11, 22), datetime(2026, 11, 21, 12, 30)),
]


def arrow(rows: list[tuple[Any, ...]]) -> pa.Table:
    schema = ibis.schema(COLUMNS).to_pyarrow()
    return pa.table([[row[i] for row in rows] for i in range(len(COLUMNS))], schema=schema)


def compiled(table: ibis.Table) -> ibis.Table:
    """One query with every fragment as a column."""
    values = {f"c{i}": expressions.compile(fragment, table) for i, fragment in enumerate(FRAGMENT_LIST)}
    return table.select("id", **values).order_by("id")


def comparable(value: Any) -> Any:
    """Numbers to 12 digits, decimals (how DuckDB sees 0.5) beside floats."""
    if isinstance(value, float | Decimal):
        return float(f"{value:.12g}")
    return value


def differences(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[str]:
    return [
        f"{fragment}: {row[f'c{i}']!r} but {other[f'c{i}']!r} in {other['id']}"
        for row, other in zip(ours, theirs, strict=True)
        for i, fragment in enumerate(FRAGMENT_LIST)
        if comparable(row[f"c{i}"]) != comparable(other[f"c{i}"])
    ]


def by_oracle(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    texts = ", ".join(f"({fragment}) AS c{i}" for i, fragment in enumerate(FRAGMENT_LIST))
    return connection.sql(f"SELECT id, {texts} FROM t ORDER BY id").to_arrow_table().to_pylist()


@pytest.fixture(scope="module")
def duck() -> ibis.BaseBackend:
    backend = ibis.duckdb.connect()
    backend.create_table("binding", arrow(ROWS))
    return backend


def test_every_operator_and_function_of_the_language_is_among_the_fragments():
    used = set()
    for fragment in FRAGMENT_LIST:
        for node in expressions._parse(fragment).walk():
            used |= {expressions.OPERATORS.get(type(node)), "is null" if isinstance(node, exp.Is) else None}
            used |= {str(node.this).lower()} if isinstance(node, exp.Anonymous) else set()
    assert set(expressions.RULES) - used == set()


def test_the_checked_type_is_the_compiled_type_and_the_type_duckdb_returns(duck):
    table = duck.create_table("typed", arrow(ROWS), overwrite=True)
    result = compiled(table)
    physical = duck.con.execute(ibis.to_sql(result)).to_arrow_table().schema
    for i, fragment in enumerate(FRAGMENT_LIST):
        checked = ibis.dtype(expressions.check(fragment, COLUMNS))
        assert result[f"c{i}"].type().copy(nullable=True) == checked, fragment
        assert physical.field(f"c{i}").type == checked.to_pyarrow(), fragment


def test_known_rows_give_what_duckdb_gives_for_the_same_text(duck):
    table = duck.create_table("t", arrow(ROWS), overwrite=True)
    assert differences(duck.to_pyarrow(compiled(table)).to_pylist(), by_oracle(duck.con)) == []


words = st.text(st.sampled_from("abAB.-_% 017@é"), max_size=8)
row = st.tuples(
    st.none() | st.decimals(-99999, 99999, places=4),
    st.none() | st.integers(-100000, 100000),
    st.none() | st.integers(-4_000_000, 4_000_000).map(lambda quarters: quarters / 4),
    st.none() | words,
    st.none() | st.booleans(),
    st.none() | st.dates(date(1990, 1, 1), date(2030, 12, 31)),
    st.none() | st.datetimes(datetime(1990, 1, 1), datetime(2030, 12, 31)),
)


@settings(max_examples=15)
@given(st.lists(row, min_size=1, max_size=8))
def test_any_rows_give_what_duckdb_gives_for_the_same_text(duck, rows):
    table = duck.create_table("t", arrow([(i, *values) for i, values in enumerate(rows)]), overwrite=True)
    assert differences(duck.to_pyarrow(compiled(table)).to_pylist(), by_oracle(duck.con)) == []


@pytest.mark.engine
def test_spark_gives_what_duckdb_gives(duck, tmp_path):
    spark_server = pytest.importorskip("pysail.spark")
    pyspark_sql = pytest.importorskip("pyspark.sql")
    server = spark_server.SparkConnectServer()
    server.start()
    try:
        host, port = server.listening_address
        session = pyspark_sql.SparkSession.builder.remote(f"sc://{host}:{port}").create()
        session.conf.set("spark.sql.session.timeZone", "UTC")
        spark = ibis.pyspark.connect(session)
        pq.write_table(arrow(ROWS), tmp_path / "rows.parquet")
        on_spark = spark.to_pyarrow(compiled(spark.read_parquet(tmp_path / "rows.parquet"))).to_pylist()
        on_duckdb = duck.to_pyarrow(compiled(duck.create_table("t", arrow(ROWS), overwrite=True))).to_pylist()
        session.stop()
    finally:
        server.stop()
    assert differences(on_spark, on_duckdb) == []


@pytest.mark.parametrize(
    "fragment",
    ["n / 0", "x % 0", "ln(0)", "ln(-1)", "sqrt(-1)", "power(0, -1)", "power(-8, 0.5)", "'abc'::integer", "'1.5'::int"],
)
def test_what_has_no_answer_is_null(duck, fragment):
    table = duck.create_table("t", arrow(ROWS[:1]), overwrite=True)
    assert duck.to_pyarrow(table.select(v=expressions.compile(fragment, table)))["v"].to_pylist() == [None]


def test_fragments_compile_over_values_by_name_too(duck):
    table = duck.create_table("t", arrow(ROWS), overwrite=True)
    value = expressions.compile("renamed > 0", {"renamed": table.n})
    assert duck.to_pyarrow(table.filter(value))["id"].to_pylist() == [1, 5]


def test_the_columns_a_fragment_reads_are_known():
    assert expressions.names("coalesce(Amount, n) > 0 and \"s\" = 'b'") == {"amount", "n", "s"}


@pytest.mark.parametrize(
    ("fragment", "message"),
    [
        ("amont > 1", "unknown column 'amont', did you mean 'amount'?"),
        ("t.amount", "unknown column 't.amount', did you mean 'amount'?"),
        ("lenght(s)", "unknown function 'lenght', did you mean 'length'?"),
        ("n = 'x'", "'=' takes (any, any) of one type, got (integer, string)"),
        ("d > '2024-01-01'", "'>' takes (any, any) of one type, got (date, string), write date '2026-01-31'"),
        ("contains(n, 'a')", "'contains' takes (string, string), got (integer, string)"),
        ("lower(s, s)", "'lower' takes (string), got (string, string)"),
        ("d > date '2024-13-01'", "'2024-13-01' is not a date, such as date '2026-01-31'"),
        ("s = null", "'=' is never true of null: write 'is null' or 'is not null'"),
        ("regexp_matches(s, '(')", "'(' in 'regexp_matches' is not a regular expression"),
        ("regexp_matches(s, s)", "'regexp_matches' takes (string, constant string), got (string, string)"),
        ("regexp_matches(s, '(?=a)')", "is not a regular expression (RE2): invalid perl operator: (?="),
        ("substr(s, 0)", "0 in 'substr' should be 1 or more"),
        ("round(x, -1)", "-1 in 'round' should be between 0 and 10"),
        ("date_diff('week', d, ts)", "'week' in 'date_diff' should be 'day'"),
        ("s like 'a\\_b'", "should hold no backslash"),
        ("n in (select 1)", "one expression has no subquery"),
        ("(select max(n) from t)", "one expression has no subquery"),
        ("lower(s) over (partition by n)", "one row, not a window"),
        ("sum(n)", "unknown function 'sum', there are abs, ceil, coalesce"),
        ("ts > current_date", "unknown column 'current_date'"),
        ("ts + interval 1 day", "there are no intervals"),
        ("b is true", "'is' goes with null only"),
        ("cast(x as varchar)", "cannot cast number to string, only to integer or money"),
        ("x::uuid", "unknown type 'uuid'"),
        ("null", "is nothing but null"),
        ("n >", "is not one SQL expression, look near '>'"),
        ("n n", "is not one SQL expression, look near 'n'"),
        ("n; n", "is not one SQL expression"),
        ("", "is not one SQL expression"),
        ("99999999999999999999", "is too large"),
        ("(" * 500 + "n" + ")" * 500, "is nested too deeply"),
        ("n" + " + n" * 900, "is nested too deeply"),
        ("'" + "a" * 5000 + "'", "is longer than 4000 characters"),
    ],
)
def test_what_is_wrong_with_a_fragment_is_said(fragment, message):
    with pytest.raises(ExpressionError) as raised:
        expressions.check(fragment, COLUMNS)
    assert message in str(raised.value)


operations = st.sampled_from(["+", "-", "*", "%", "=", "<>", "<", ">=", "and", "or", "and not", "or not"])
operands = st.sampled_from(["n", "-n", "7", "2", "-3", "n is null", "n between 1 and 9", "n in (2, 3)", "b"])


def found(duck, query):
    try:
        return duck.con.sql(query).fetchall()
    except duckdb.OutOfRangeException:
        return "too large"


@settings(max_examples=100)
@given(st.lists(operands, min_size=2, max_size=6), st.data())
def test_operators_bind_as_they_do_in_duckdb(duck, parts, data):
    table = duck.table("binding")
    fragment = parts[0] + "".join(f" {data.draw(operations)} {part}" for part in parts[1:])
    try:
        value = expressions.compile(fragment, table)
    except ExpressionError:
        return
    ours = ibis.to_sql(table.order_by("id").select(v=value))
    assert found(duck, ours) == found(duck, f"SELECT ({fragment}) FROM binding ORDER BY id")


TOKENS = """
amount n s b d ts ( ) , + - * / % = <> < and or not in is null like case when then else end cast as integer date ::
between 'x' '2024-01-01' 1 0.5 lower if coalesce date_diff select from over . [ ] { } : ; @ $ ? -> => " ' -- /*
interval array struct map lambda distinct * exists any all try_cast timestamp at time zone collate
"""
tokens = st.sampled_from(sorted(TOKENS.split()))


@settings(max_examples=400)
@given(st.text(max_size=40) | st.lists(tokens, max_size=12).map(" ".join))
def test_no_text_makes_the_checker_raise_anything_but_its_own_error(fragment):
    try:
        expressions.check(fragment, COLUMNS)
    except ExpressionError as error:
        assert str(error)
