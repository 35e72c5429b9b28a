"""One SQL expression in DuckDB's dialect, as YAML holds it: parsed, type-checked and compiled to Ibis.

`RULES` is the whole language: every operator and function with its argument types, its result type and its Ibis
expression, so that what is checked is what is compiled. Nothing here knows what a fragment is for.

Types are the words of a source's columns: string, integer, number, money, boolean, date, timestamp. An integer or
money is taken wherever a number is wanted, a date wherever a timestamp is. A literal with a point (0.5) is a number,
so `amount * 0.5` is a number (say `cast(amount * 0.5 as money)` to stay exact) while `amount * 2` stays money, and
`amount > 0.5` compares as numbers. What has no answer is null and fails no run: a division by zero, the logarithm of
nothing, a cast that does not fit; only arithmetic that leaves 64 bits stops the engine. Times are UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from math import isinf
from typing import Any, ClassVar, TypeAlias

import ibis
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError
from sqlglot.parsers.duckdb import DuckDBParser
from sqlglot.tokens import TokenType

from cdp_pipeline.spec.base import sound_pattern, unknown
from cdp_pipeline.spec.source import IBIS_TYPES

Scope: TypeAlias = ibis.Table | Mapping[str, ibis.Value]
Columns: TypeAlias = Mapping[str, Any]
"""Columns by name: Ibis types, their names, or values that have one. Only those that are read are looked at."""
MAX_LENGTH, MAX_DEPTH = 4_000, 150
CONSTANT = "constant"


class ExpressionError(ValueError):
    """A fragment that is not one sound SQL expression over the given columns."""


@dataclass(frozen=True)
class OneOf:
    """An argument of any of these types; all arguments of one rule that say the same OneOf are brought to one type."""

    words: str
    types: tuple[str, ...]


@dataclass(frozen=True)
class Constant:
    """An argument that must be written out, handed over as a Python value once `objection` finds nothing wrong."""

    type: str
    objection: Callable[[Any], str | None] = lambda value: None


NUMERIC = OneOf("numeric", ("integer", "money", "number"))
DIVISIBLE = OneOf("numeric but money", ("integer", "number"))
MOMENT = OneOf("date or timestamp", ("date", "timestamp"))
ANY = OneOf("any", tuple(IBIS_TYPES))
Argument = str | OneOf | Constant


@dataclass(frozen=True)
class Rule:
    """One way to call an operator or function; `repeats` lets the last argument come again and again."""

    arguments: tuple[Argument, ...]
    result: str | OneOf
    ibis: Callable[..., Any]
    repeats: bool = False


@ibis.udf.scalar.builtin
def split_part(text: str, separator: str, position: int) -> str:  # type: ignore[empty-body]
    """The engine's own function of this name."""


def _like_objection(pattern: str) -> str | None:
    return "should hold no backslash, which engines read differently" if "\\" in pattern else None


def _regex_objection(pattern: str) -> str | None:
    try:
        sound_pattern(pattern)
    except ValueError as error:
        return str(error)
    return None


POSITION = Constant("integer", lambda value: None if 1 <= value < 2**31 else "should be 1 or more")
COUNT = Constant("integer", lambda value: None if 0 <= value < 2**31 else "should be 0 or more")
DIGITS = Constant("integer", lambda value: None if 0 <= value <= 10 else "should be between 0 and 10")
DAY = Constant("string", lambda value: None if value == "day" else "should be 'day'")
LIKE = Constant("string", _like_objection)
REGEX = Constant("string", _regex_objection)


def _comparison(compare: Callable[[Any, Any], Any]) -> list[Rule]:
    return [Rule((ANY, ANY), "boolean", compare)]


def _part(take: Callable[[Any], Any]) -> list[Rule]:
    return [Rule((MOMENT,), "integer", take)]


def _text(change: Callable[..., Any], arguments: int = 1, result: str = "string") -> list[Rule]:
    return [Rule(("string",) * arguments, result, change)]


def _days(start: Any, end: Any) -> Any:
    return end.cast("date").delta(start.cast("date"), unit="day")


def _later(start: Any, days: Any) -> Any:
    return (start.cast("timestamp") + days.as_interval("D")).cast("date")


def _whole(value: Any, step: Callable[[Any], Any]) -> Any:
    """Ibis steps through int64, which a number can be too large for (and is then whole anyway)."""
    return ibis.ifelse(value.abs() < 2**53, step(value), value) if value.type().is_floating() else step(value)


def _power(base: Any, exponent: Any) -> Any:
    defined = (base > 0) | ((exponent % 1 == 0) & ((base != 0) | (exponent >= 0)))
    return ibis.ifelse(defined, base, ibis.null("float64")) ** exponent


def _number(compute: Callable[..., Any], sound: Callable[[Any], Any]) -> list[Rule]:
    return [Rule(("number",), "number", lambda x: compute(ibis.ifelse(sound(x), x, ibis.null("float64"))))]


RULES: dict[str, list[Rule]] = {
    "+": [
        Rule((NUMERIC, NUMERIC), NUMERIC, lambda a, b: a + b),
        Rule(("date", "integer"), "date", lambda a, b: _later(a, b)),
    ],
    "-": [
        Rule((NUMERIC, NUMERIC), NUMERIC, lambda a, b: a - b),
        Rule((NUMERIC,), NUMERIC, lambda a: -a),
        Rule(("date", "integer"), "date", lambda a, b: _later(a, -b)),
        Rule(("date", "date"), "integer", lambda a, b: _days(b, a)),
    ],
    "*": [
        Rule(("integer", "integer"), "integer", lambda a, b: a * b),
        Rule(("money", "integer"), "money", lambda a, b: a * b.cast("decimal(18, 0)")),
        Rule(("integer", "money"), "money", lambda a, b: a.cast("decimal(18, 0)") * b),
        Rule(("number", "number"), "number", lambda a, b: a * b),
    ],
    "/": [Rule(("number", "number"), "number", lambda a, b: a / b.nullif(0))],
    "%": [Rule((DIVISIBLE, DIVISIBLE), DIVISIBLE, lambda a, b: a % b.nullif(0))],
    "=": _comparison(lambda a, b: a == b),
    "<>": _comparison(lambda a, b: a != b),
    "<": _comparison(lambda a, b: a < b),
    "<=": _comparison(lambda a, b: a <= b),
    ">": _comparison(lambda a, b: a > b),
    ">=": _comparison(lambda a, b: a >= b),
    "between": [Rule((ANY, ANY, ANY), "boolean", lambda a, low, high: a.between(low, high))],
    "in": [Rule((ANY, ANY), "boolean", lambda a, *values: a.isin(values), repeats=True)],
    "is null": [Rule((ANY,), "boolean", lambda a: a.isnull())],
    "and": [Rule(("boolean", "boolean"), "boolean", lambda a, b: a & b)],
    "or": [Rule(("boolean", "boolean"), "boolean", lambda a, b: a | b)],
    "not": [Rule(("boolean",), "boolean", lambda a: ~a)],
    "like": [Rule(("string", LIKE), "boolean", lambda a, pattern: a.like(pattern))],
    "ilike": [Rule(("string", LIKE), "boolean", lambda a, pattern: a.ilike(pattern))],
    "||": _text(lambda a, b: a + b, 2),
    "if": [Rule(("boolean", ANY, ANY), ANY, ibis.ifelse)],
    "coalesce": [Rule((ANY,), ANY, ibis.coalesce, repeats=True)],
    "nullif": [Rule((ANY, ANY), ANY, lambda a, b: a.nullif(b))],
    "greatest": [Rule((ANY,), ANY, ibis.greatest, repeats=True)],
    "least": [Rule((ANY,), ANY, ibis.least, repeats=True)],
    "lower": _text(lambda a: a.lower()),
    "upper": _text(lambda a: a.upper()),
    "trim": _text(lambda a: a.strip()),
    "length": _text(lambda a: a.length(), result="integer"),
    "substr": [
        Rule(("string", POSITION), "string", lambda a, start: a.substr(start - 1)),
        Rule(("string", POSITION, COUNT), "string", lambda a, start, length: a.substr(start - 1, length)),
    ],
    "replace": _text(lambda a, old, new: a.replace(old, new), 3),
    "contains": _text(lambda a, part: a.contains(part), 2, "boolean"),
    "starts_with": _text(lambda a, start: a.startswith(start), 2, "boolean"),
    "split_part": [Rule(("string", "string", POSITION), "string", split_part)],
    "regexp_matches": [Rule(("string", REGEX), "boolean", lambda a, pattern: a.re_search(pattern))],
    "abs": [Rule((NUMERIC,), NUMERIC, lambda a: a.abs())],
    "round": [
        Rule((NUMERIC,), NUMERIC, lambda a: _whole(a, lambda x: x.round())),
        Rule((NUMERIC, DIGITS), NUMERIC, lambda a, digits: a.round(digits)),
    ],
    "floor": [Rule((NUMERIC,), NUMERIC, lambda a: _whole(a, lambda x: x.floor()))],
    "ceil": [Rule((NUMERIC,), NUMERIC, lambda a: _whole(a, lambda x: x.ceil()))],
    "ln": _number(lambda a: a.ln(), sound=lambda a: a > 0),
    "sqrt": _number(lambda a: a.sqrt(), sound=lambda a: a >= 0),
    "power": [Rule(("number", "number"), "number", _power)],
    "year": _part(lambda a: a.year()),
    "month": _part(lambda a: a.month()),
    "day": _part(lambda a: a.day()),
    "hour": [Rule(("timestamp",), "integer", lambda a: a.hour())],
    "dayofweek": _part(lambda a: (a.day_of_week.index() + 1) % 7),  # Sunday is 0, as in DuckDB
    "isodow": _part(lambda a: a.day_of_week.index() + 1),  # Monday is 1
    "date_diff": [Rule((DAY, MOMENT, MOMENT), "integer", lambda unit, start, end: _days(start, end))],
}

OPERATORS: dict[type[exp.Expr], str] = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%", exp.Neg: "-", exp.DPipe: "||",
    exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
    exp.And: "and", exp.Or: "or", exp.Not: "not", exp.In: "in", exp.Between: "between",
    exp.Like: "like", exp.ILike: "ilike",
}  # fmt: skip
FUNCTIONS = sorted(name for name in RULES if name.replace("_", "").isalpha() and name not in OPERATORS.values())

CASTS = {
    "string": ("integer", "number", "money", "date", "timestamp"),
    "integer": ("string", "number", "money"),
    "number": ("integer", "money"),  # not string: engines write 1e7 differently
    "money": ("string", "integer", "number"),
    "boolean": ("string", "integer"),
    "date": ("string", "timestamp"),
    "timestamp": ("string", "date"),
}
CAST_NAMES = {
    "money": "money", "decimal(18, 4)": "money", "varchar": "string", "text": "string", "string": "string",
    "int": "integer", "integer": "integer", "bigint": "integer", "double": "number", "float": "number",
    "number": "number", "boolean": "boolean", "date": "date", "timestamp": "timestamp",
}  # fmt: skip

TIMES: dict[str, Callable[[str], Any]] = {"date": date.fromisoformat, "timestamp": datetime.fromisoformat}
EXAMPLES = {"date": "date '2026-01-31'", "timestamp": "timestamp '2026-01-31 18:30:00'"}
# SQLGlot stumbles over some garbage before it can name it.
PARSER_ERRORS = (SqlglotError, AttributeError, IndexError, KeyError, TypeError, ValueError)
COMPARISONS = ("=", "<>", "<", "<=", ">", ">=", "in", "between")
UNORDERED = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.In, exp.Between, exp.Like, exp.ILike, exp.Is)
CANNOT = {
    exp.Query: "one expression has no subquery",
    exp.Window: "one expression sees one row, not a window",
    exp.Interval: "there are no intervals: add whole days to a date, as in 'bought_on + 30'",
    exp.Is: "'is' goes with null only, and a boolean stands alone, as in 'returned' or 'not returned'",
    exp.Star: "name the columns",
    exp.IntDiv: "write floor(a / b)",
}


def check(fragment: str, columns: Mapping[str, str]) -> str:
    """The Ibis type of a fragment over columns given as name to Ibis type, or an ExpressionError that says why not."""
    return IBIS_TYPES[_typed(fragment, columns).type]


def compile(fragment: str, scope: Scope) -> ibis.Value:
    """The fragment over a table, or over values by name."""
    return _typed(fragment, scope.schema() if isinstance(scope, ibis.Table) else scope).build(scope)


def names(fragment: str) -> set[str]:
    """The columns a fragment reads."""
    return {_column_name(column) for column in _parse(fragment).find_all(exp.Column)}


@dataclass(frozen=True)
class _Typed:
    """A piece that passed its checks: its type ('null' for a bare null), how to build it, its value if written out."""

    type: str
    build: Callable[[Scope], Any]
    constant: Any = None


def _typed(fragment: str, columns: Columns) -> _Typed:
    piece = _read(_parse(fragment), columns)
    if piece.type == "null":
        raise ExpressionError("is nothing but null")
    return piece


class _Parser(DuckDBParser):
    """DuckDB's grammar, in which every function stays as it is spelled: which ones there are, RULES says.

    SQLGlot 30 lets % bind like +; in DuckDB it binds like *.
    """

    FUNCTIONS: ClassVar = {}
    FUNCTION_PARSERS = {name: DuckDBParser.FUNCTION_PARSERS[name] for name in ("CAST", "TRY_CAST")}
    FACTOR: ClassVar = {**DuckDBParser.FACTOR, TokenType.MOD: exp.Mod}
    TERM: ClassVar = {token: kind for token, kind in DuckDBParser.TERM.items() if token != TokenType.MOD}
    NO_PAREN_FUNCTIONS: ClassVar = {}
    NO_PAREN_FUNCTION_PARSERS = {"CASE": DuckDBParser.NO_PAREN_FUNCTION_PARSERS["CASE"]}


@lru_cache(maxsize=4096)
def _parse(fragment: str) -> exp.Expr:
    if len(fragment) > MAX_LENGTH:
        raise ExpressionError(f"is longer than {MAX_LENGTH} characters")
    dialect = DuckDB()
    try:
        trees = _Parser(dialect=dialect).parse_into(exp.Condition, dialect.tokenize(fragment), fragment)
    except RecursionError:
        raise ExpressionError("is nested too deeply") from None
    except PARSER_ERRORS as error:
        near = (getattr(error, "errors", None) or [{}])[0].get("highlight")
        raise ExpressionError("is not one SQL expression" + (f", look near '{near}'" if near else "")) from None
    if len(trees) != 1 or trees[0] is None:
        raise ExpressionError("is not one SQL expression")
    if _depth(trees[0]) > MAX_DEPTH:
        raise ExpressionError("is nested too deeply")
    return trees[0]


def _depth(tree: exp.Expr) -> int:
    depths: dict[int, int] = {}
    for node in tree.walk(bfs=True):
        depths[id(node)] = depths.get(id(node.parent), 0) + 1
    return max(depths.values())


def _read(node: exp.Expr, columns: Columns) -> _Typed:
    """Check a syntax tree from its leaves up, over columns by name."""
    if isinstance(node, UNORDERED) and any(isinstance(part, (*UNORDERED, exp.Not)) for part in node.iter_expressions()):
        raise ExpressionError(f"'{node.sql('duckdb')}' can be read in two ways: put one of its comparisons in ( )")
    match node:
        case exp.Paren():
            return _read(node.this, columns)
        case exp.Literal() | exp.Boolean() | exp.Null():
            return _literal(node)
        case exp.Column() if isinstance(node.this, exp.Identifier):
            return _column(_column_name(node), columns)
        case exp.Cast():
            return _cast(_read(node.this, columns), node.to)
        case exp.Is() if isinstance(node.expression, exp.Null):
            return _apply("is null", [_read(node.this, columns)])
        case exp.Case():
            return _case(node, columns)
        case exp.Anonymous():
            return _function(str(node.this).lower(), [_read(argument, columns) for argument in node.expressions])
    operator = OPERATORS.get(type(node))
    if operator is None or any(node.args.get(key) for key in ("query", "unnest", "field")):
        reason = next((words for kind, words in CANNOT.items() if node.find(kind)), "it is not part of the language")
        raise ExpressionError(f"'{node.sql('duckdb')}' is not allowed: {reason}")
    keys = ("this", "expression", "low", "high")
    operands = [node.args[key] for key in keys if node.args.get(key) is not None] + node.expressions
    applied = _apply(operator, [_read(operand, columns) for operand in operands])
    return _apply("not", [applied]) if node.args.get("negate") else applied


def _column_name(node: exp.Column) -> str:
    return ".".join(part.name if part.args.get("quoted") else part.name.lower() for part in node.parts)


def _column(name: str, columns: Columns) -> _Typed:
    if name not in columns:
        raise ExpressionError(unknown("column", name, columns))
    column = columns[name]
    word = _word(str(column.type() if isinstance(column, ibis.Value) else column))
    if word not in IBIS_TYPES:
        raise ExpressionError(f"column '{name}' is of type {word}, which expressions cannot read")
    return _Typed(word, lambda scope: _as(scope[name], word))


def _literal(node: exp.Expr) -> _Typed:
    if isinstance(node, exp.Null):
        return _Typed("null", lambda scope: ibis.null())
    if isinstance(node, exp.Boolean):
        return _constant("boolean", bool(node.this))
    if node.args["is_string"]:
        return _constant("string", str(node.this))
    try:
        number = int(node.this) if str(node.this).isdecimal() else float(node.this)
    except ValueError:
        raise ExpressionError(f"'{node.this}' is not a number") from None
    if number >= 2**63 if isinstance(number, int) else isinf(number):
        raise ExpressionError(f"{node.this} is too large")
    return _constant("integer" if isinstance(number, int) else "number", number)


def _constant(word: str, value: Any) -> _Typed:
    if word in ("integer", "number"):  # cast from text, because engines read 5 as 32 bits and 0.5 as a decimal
        return _Typed(word, lambda scope: ibis.literal(repr(value)).cast(IBIS_TYPES[word]), value)
    return _Typed(word, lambda scope: ibis.literal(value, type=IBIS_TYPES[word]), value)


def _cast(piece: _Typed, to: exp.DataType) -> _Typed:
    spelled = str(to.args.get("kind") or to.sql("duckdb")).lower()
    target = CAST_NAMES.get(spelled)
    if target is None:
        raise ExpressionError(unknown("type", spelled, IBIS_TYPES))
    if isinstance(piece.constant, str) and target in TIMES:
        return _moment(piece.constant, target)
    if piece.type in (target, "null"):
        return _Typed(target, lambda scope: _as(piece.build(scope), target))
    if target not in CASTS[piece.type]:
        raise ExpressionError(f"cannot cast {piece.type} to {target}, only to {' or '.join(CASTS[piece.type])}")
    prepare = _BEFORE_CAST.get((piece.type, target), lambda value: value)
    return _Typed(target, lambda scope: prepare(piece.build(scope)).try_cast(IBIS_TYPES[target]))


def _whole_text(text: Any) -> Any:
    return ibis.ifelse(text.strip().re_search(r"^-?\d+$"), text.strip(), ibis.null("string"))


# Engines disagree about what becomes of a fraction: in text it is null, in a value it is rounded, halves away from 0.
_BEFORE_CAST: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("string", "integer"): _whole_text,
    ("number", "integer"): lambda value: value.round(0),
    ("money", "integer"): lambda value: value.round(0),
}


def _moment(text: str, target: str) -> _Typed:
    try:
        moment = TIMES[target](text)
    except ValueError:
        raise ExpressionError(f"'{text}' is not a {target}, such as {EXAMPLES[target]}") from None
    if getattr(moment, "tzinfo", None) is not None:
        raise ExpressionError(f"'{text}' should name no time zone: times are UTC")
    return _constant(target, moment)


def _case(node: exp.Case, columns: Columns) -> _Typed:
    pieces: list[_Typed] = []
    for branch in node.args["ifs"]:
        condition = _read(branch.this, columns)
        if node.this is not None:
            condition = _apply("=", [_read(node.this, columns), condition])
        pieces += [condition, _read(branch.args["true"], columns)]
    pieces.append(_read(node.args.get("default") or exp.Null(), columns))

    def cases(*values: Any) -> Any:
        return ibis.cases(*zip(values[:-1:2], values[1:-1:2], strict=True), else_=values[-1])

    return _apply("case", pieces, [Rule(("boolean", ANY) * (len(pieces) // 2) + (ANY,), ANY, cases)])


def _function(name: str, pieces: list[_Typed]) -> _Typed:
    if name not in FUNCTIONS:
        hint = unknown("function", name, FUNCTIONS)
        raise ExpressionError(hint if "did you mean" in hint else f"{hint}, there are {', '.join(FUNCTIONS)}")
    return _apply(name, pieces)


def _apply(name: str, pieces: list[_Typed], rules: Sequence[Rule] | None = None) -> _Typed:
    """Use the first rule of a name that fits the pieces' types."""
    if name in COMPARISONS and any(piece.type == "null" for piece in pieces):
        raise ExpressionError(f"'{name}' is never true of null: write 'is null' or 'is not null'")
    for rule in rules or RULES[name]:
        wanted = _fit(rule, pieces)
        if wanted is not None:
            return _applied(name, rule, pieces, wanted)
    choices = " or ".join(_words(rule) for rule in rules or RULES[name])
    got = [piece.type for piece in pieces]
    text_for_time = [word for word in TIMES if word in got and any(isinstance(p.constant, str) for p in pieces)]
    hint = f", write {EXAMPLES[text_for_time[0]]}" if text_for_time else ""
    raise ExpressionError(f"'{name}' takes {choices}, got ({', '.join(got)}){hint}")


def _applied(name: str, rule: Rule, pieces: list[_Typed], wanted: list[str]) -> _Typed:
    for argument, piece in zip(rule.arguments, pieces, strict=False):
        objection = argument.objection(piece.constant) if isinstance(argument, Constant) else None
        if objection:
            raise ExpressionError(f"{piece.constant!r} in '{name}' {objection}")
    result = rule.result if isinstance(rule.result, str) else wanted[rule.arguments.index(rule.result)]

    def build(scope: Scope) -> Any:
        values = [
            piece.constant if word == CONSTANT else _as(piece.build(scope), word)
            for piece, word in zip(pieces, wanted, strict=True)
        ]
        return _as(rule.ibis(*values), result)

    negative = name == "-" and len(pieces) == 1 and pieces[0].constant is not None
    return _Typed(result, build, -pieces[0].constant if negative else None)


def _fit(rule: Rule, pieces: Sequence[_Typed]) -> list[str] | None:
    """The type each piece is brought to when the rule fits."""
    more = len(pieces) - len(rule.arguments)
    if more and not (rule.repeats and more > 0):
        return None
    arguments = [*rule.arguments, *rule.arguments[-1:] * more]
    wanted = []
    for argument, piece in zip(arguments, pieces, strict=True):
        if isinstance(argument, Constant):
            word = CONSTANT if piece.type == argument.type and piece.constant is not None else None
        elif isinstance(argument, OneOf):
            word = _common({other.type for same, other in zip(arguments, pieces, strict=True) if same == argument})
            word = word if word in argument.types else None
        else:
            word = argument if _common({argument, piece.type}) == argument else None
        if word is None:
            return None
        wanted.append(word)
    return wanted


def _common(words: set[str]) -> str | None:
    """The one type all of these can be brought to."""
    words = words - {"null"}
    if len(words) == 1:
        return words.pop()
    if words and words <= set(NUMERIC.types):
        return "number" if "number" in words else "money"
    return "timestamp" if words == {"date", "timestamp"} else None


def _as(value: Any, word: str) -> Any:
    wanted = ibis.dtype(IBIS_TYPES[word])
    return value if value.type().copy(nullable=True) == wanted else value.cast(wanted)


def _words(rule: Rule) -> str:
    arguments = [
        argument if isinstance(argument, str) else f"constant {argument.type}" if isinstance(argument, Constant)
        else argument.words for argument in rule.arguments
    ]  # fmt: skip
    same = " of one type" if len(arguments) > 1 and rule.arguments.count(ANY) > 1 else ""
    return f"({', '.join(arguments)}{', …' if rule.repeats else ''}){same}"


@lru_cache(maxsize=256)
def _word(dtype: str) -> str:
    """The type word of an Ibis type; a type without a word keeps its own name."""
    kind = ibis.dtype(dtype)
    if kind.is_timestamp() and kind.timezone is not None:
        return dtype
    kinds = {
        "string": kind.is_string(), "integer": kind.is_integer(), "number": kind.is_floating(),
        "money": kind.is_decimal(), "boolean": kind.is_boolean(), "date": kind.is_date(),
        "timestamp": kind.is_timestamp(),
    }  # fmt: skip
    return next((word for word, is_kind in kinds.items() if is_kind), dtype)
