"""What a `kind: match` compares: columns to prepare, levels of agreement in plain words, keys to look pairs up by.

Declarations only: texts of DuckDB's SQL and words. What each level is worth is learned in learning.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdp_pipeline.spec.match import Comparison, Match

ALIKE = 0.92
"""Jaro-Winkler similarity of two spellings of one word: one or two letters differ, not the first ones."""
LIKE = 0.88
SIMILAR = 0.8


@dataclass(frozen=True)
class Level:
    """One degree of agreement; the first whose condition holds counts. `rare` names the column whose rarity counts."""

    words: str
    condition: str
    rare: str | None = None


@dataclass(frozen=True)
class Compared:
    """One comparison.

    columns: prepared columns, name → SQL over the attributes. levels: from best to worst; what is none of them is
    different. whole: columns of which one at least must be known of both, else nothing can be said (`unknown` says it
    otherwise, in SQL). keys: SQL over prepared columns by which pairs are looked up. agree: columns whose equality
    makes pairs from which the other comparisons are learned. close: how many levels, from the best, say that it is the
    same thing with mistakes. once: nobody has two of it.
    """

    about: str
    columns: dict[str, str]
    levels: list[Level]
    whole: list[str]
    keys: list[str]
    agree: list[str]
    close: int
    once: bool = False
    unknown: str = ""


def compared(match: Match) -> list[Compared]:
    """The comparisons of a match, in the order they are declared."""
    names = [name for comparison in match.compare if comparison.kind == "name" for name in comparison.attributes]
    return [
        _email(comparison, names) if comparison.kind == "email" else _BUILD[comparison.kind](comparison)
        for comparison in match.compare
    ]


def splink_comparisons(found: list[Compared]) -> list[dict[str, Any]]:
    """As Splink's settings want them: a level for what is not known, the declared ones, and one for the rest."""
    return [
        {
            "output_column_name": f"c{place}",
            "comparison_description": one.about,
            "comparison_levels": [
                {
                    "sql_condition": one.unknown
                    or " and ".join(f'("{c}_l" is null or "{c}_r" is null)' for c in one.whole),
                    "label_for_charts": "not known",
                    "is_null_level": True,
                },
                *(
                    {"sql_condition": level.condition, "label_for_charts": level.words}
                    | (
                        {
                            "tf_adjustment_column": level.rare,
                            "tf_adjustment_weight": 1.0,
                            "disable_tf_exact_match_detection": True,
                        }
                        if level.rare
                        else {}
                    )
                    for level in one.levels
                ),
                {"sql_condition": "ELSE", "label_for_charts": "different"},
            ],
        }
        for place, one in enumerate(found)
    ]


def _clean(attribute: str) -> str:
    """Letters and digits only, small, without accents."""
    bare = f"regexp_replace(lower(strip_accents(\"{attribute}\"::varchar)), '[^\\p{{L}}\\p{{N}}]+', ' ', 'g')"
    return f"nullif(trim({bare}), '')"


def _digits(attribute: str) -> str:
    return f"nullif(regexp_replace(\"{attribute}\"::varchar, '[^0-9]', '', 'g'), '')"


def _joined(attribute: str) -> str:
    return f"nullif(replace({_clean(attribute)}, ' ', ''), '')"


def _equal(column: str) -> str:
    return f'"{column}_l" = "{column}_r"'


def _jaro(column: str, least: float, other: str | None = None) -> str:
    # The third argument lets hopeless pairs off early: several times as fast.
    return f'jaro_winkler_similarity("{column}_l", "{other or column}_r", {least}) >= {least}'


def _edits(column: str, most: int) -> str:
    near = f'abs(length("{column}_l") - length("{column}_r")) <= {most}'
    # At most `most` edits and swaps are at most twice as many plain edits, which are told apart much faster.
    rough = f'levenshtein("{column}_l", "{column}_r") <= {2 * most}'
    return f'({near} and {rough} and damerau_levenshtein("{column}_l", "{column}_r") <= {most})'


def _name(comparison: Comparison) -> Compared:
    given, family = comparison.attributes
    g, f, full = f"{given}__", f"{family}__", f"{given}__{family}"
    # One is short for the other: an initial, or the first letters.
    short = f'starts_with("{g}_l", "{g}_r") or starts_with("{g}_r", "{g}_l")'
    return Compared(
        about=f"{given} and {family}",
        columns={g: _clean(given), f: _clean(family), full: f"{_clean(given)} || ' ' || {_clean(family)}"},
        levels=[
            Level("both the same", _equal(full), rare=full),
            Level(f"{given} and {family} swapped", f'"{g}_l" = "{f}_r" and "{f}_l" = "{g}_r"'),
            Level(
                f"{family} the same, {given} spelled alike or shortened",
                f"{_equal(f)} and ({_jaro(g, ALIKE)} or {short})",
                rare=f,
            ),
            Level(f"{given} the same, {family} spelled alike", f"{_equal(g)} and {_jaro(f, ALIKE)}", rare=g),
            Level(
                "both spelled alike, or swapped and spelled alike",
                f"({_jaro(g, LIKE)} and {_jaro(f, LIKE)}) or ({_jaro(g, LIKE, f)} and {_jaro(f, LIKE, g)})",
            ),
            Level(f"{family} the same, {given} different", _equal(f), rare=f),
            Level(f"{given} the same, {family} different", _equal(g), rare=g),
            Level("one of them spelled alike", f"{_jaro(f, LIKE)} or {_jaro(g, LIKE)}"),
        ],
        whole=[g, f],
        agree=[g, f],
        close=5,
        keys=[
            f'"{g}"', f'"{f}"', f'least("{g}", "{f}") || \' \' || greatest("{g}", "{f}")', f'left("{g}", 3)',
            f'left("{f}", 4)', _skeleton(f),
        ],
    )  # fmt: skip


def _skeleton(column: str) -> str:
    """The first letter and the next three consonants: what most spelling mistakes leave alone."""
    return f"left(\"{column}\", 1) || left(regexp_replace(substr(\"{column}\", 2), '[aeiouyhw ]', '', 'g'), 3)"


def _date(comparison: Comparison) -> Compared:
    (date,) = comparison.attributes
    d = f"{date}__"
    parts = {"year": (1, 4), "month": (5, 2), "day": (7, 2)}
    same = {
        name: f'substr("{d}_l", {start}, {length}) = substr("{d}_r", {start}, {length})'
        for name, (start, length) in parts.items()
    }
    swapped = f'substr("{d}_l", 5, 2) = substr("{d}_r", 7, 2) and substr("{d}_l", 7, 2) = substr("{d}_r", 5, 2)'
    two = " or ".join(f"({same[a]} and {same[b]})" for a, b in (("year", "month"), ("year", "day"), ("month", "day")))
    return Compared(
        about=date,
        columns={d: _digits(date)},
        levels=[
            Level("the same", _equal(d), rare=d),
            Level("a digit differs, or day and month are swapped", f"{_edits(d, 1)} or ({same['year']} and {swapped})"),
            Level("two of day, month and year the same", two),
            Level("the same year", same["year"]),
        ],
        whole=[d],
        agree=[d],
        close=2,
        once=True,
        keys=[f'"{d}"', f'left("{d}", 4)', f'substr("{d}", 5, 4)'],
    )


def _text(comparison: Comparison) -> Compared:
    (text,) = comparison.attributes
    t = f"{text}__"
    return Compared(
        about=text,
        columns={t: _clean(text)},
        levels=[
            Level("the same", _equal(t), rare=t),
            Level("spelled alike", _jaro(t, ALIKE)),
            Level("similar", _jaro(t, SIMILAR)),
        ],
        whole=[t],
        agree=[t],
        close=2,
        keys=[f'"{t}"', f'left("{t}", 4)'],
    )


def _code(comparison: Comparison) -> Compared:
    (code,) = comparison.attributes
    c = f"{code}__"
    return Compared(
        about=code,
        columns={c: _joined(code)},
        levels=[
            Level("the same", _equal(c), rare=c),
            Level("one character differs", _edits(c, 1)),
            Level("two characters differ", _edits(c, 2)),
        ],
        whole=[c],
        agree=[c],
        close=2,
        keys=[f'"{c}"'],
    )


def _exact(comparison: Comparison) -> Compared:
    (attribute,) = comparison.attributes
    e = f"{attribute}__"
    return Compared(
        about=attribute,
        columns={e: _clean(attribute)},
        levels=[Level("the same", _equal(e), rare=e)],
        whole=[e],
        agree=[e],
        close=1,
        keys=[f'"{e}"'],
    )


def _email(comparison: Comparison, names: list[str]) -> Compared:
    (email,) = comparison.attributes
    e, local = f"{email}__", f"{email}__local"
    address = f"nullif(lower(trim(\"{email}\"::varchar)), '')"
    # What follows a plus sign is a note to oneself; dots and dashes are typed or not. Addresses are made of names,
    # which are compared already: two namesakes would agree twice. What is left is the address's own.
    own = f"regexp_replace(strip_accents(split_part({address}, '@', 1)), '\\+.*', '')"
    own = f"regexp_replace({own}, '[^\\p{{L}}\\p{{N}}]', '', 'g')"
    for name in names:
        own = f"replace({own}, coalesce({_joined(name)}, ' '), '')"
    return Compared(
        about=email,
        columns={e: address, local: f"nullif({own}, '')"},
        levels=[
            Level("the same", _equal(e), rare=e),
            Level("the same before the @, names aside", _equal(local), rare=local),
            Level(
                "spelled alike before the @, names aside",
                f'{_jaro(local, ALIKE)} and least(length("{local}_l"), length("{local}_r")) >= 5',
            ),
        ],
        whole=[e],
        keys=[f'"{e}"', f'"{local}"'],
        agree=[local],
        unknown=f'"{e}_l" is null or "{e}_r" is null or (("{local}_l" is null or "{local}_r" is null) and '
        f'"{e}_l" <> "{e}_r")',
        close=2,
    )


def _phone(comparison: Comparison) -> Compared:
    (phone,) = comparison.attributes
    p, end = f"{phone}__", f"{phone}__end"
    return Compared(
        about=phone,
        columns={p: _digits(phone), end: f"right({_digits(phone)}, 7)"},
        levels=[
            Level("the same", _equal(p), rare=p),
            Level("the last seven digits the same", _equal(end), rare=end),
            Level("one digit differs", _edits(end, 1)),
        ],
        whole=[p],
        agree=[p],
        close=2,
        keys=[f'"{end}"'],
    )


def _postcode(comparison: Comparison) -> Compared:
    (postcode,) = comparison.attributes
    p, area = f"{postcode}__", f"{postcode}__area"
    code = _joined(postcode)
    # Without its last three characters (`SW1A 1AA` → `sw1a`), or two where it is short.
    half = f"left({code}, greatest(length({code}) - if(length({code}) > 5, 3, 2), 1))"
    return Compared(
        about=postcode,
        columns={p: _joined(postcode), area: half},
        levels=[
            Level("the same", _equal(p), rare=p),
            Level("one character differs", _edits(p, 1)),
            Level("the same area", _equal(area), rare=area),
        ],
        whole=[p],
        agree=[p],
        close=2,
        keys=[f'"{p}"', f'"{area}"'],
    )


def _place(comparison: Comparison) -> Compared:
    names = comparison.attributes
    first, others = f"{names[0]}__", [f"{name}__" for name in names[1:]]
    alike = {column: _jaro(column, LIKE) for column in (first, *others)}
    another = " or ".join(alike[column] for column in others)
    levels = [
        Level(f"{names[0]} and {' or '.join(names[1:])} the same", f"{_equal(first)} and ({another})", rare=first),
        Level(f"{names[0]} the same", _equal(first), rare=first),
        Level(f"{names[0]} spelled alike, {' or '.join(names[1:])} too", f"{alike[first]} and ({another})"),
    ]
    if len(others) > 1:
        together = " + ".join(f"coalesce({alike[column]}, false)::int" for column in others)
        levels.append(Level(f"two of {', '.join(names[1:])} the same or spelled alike", f"{together} >= 2"))
    levels += [
        Level(f"only {name} the same", _equal(column), rare=column)
        for name, column in zip(names[1:], others, strict=True)
    ]
    levels.append(Level("one of them spelled alike", " or ".join(alike.values())))
    return Compared(
        about=" and ".join(names),
        columns={f"{name}__": _clean(name) for name in names},
        levels=levels,
        whole=[first, *others],
        agree=[first],
        close=3,
        keys=[*(f'"{column}"' for column in (first, *others)), f'left("{first}", 4)'],
    )


def _lines(comparison: Comparison) -> Compared:
    first, second = comparison.attributes
    a, b = f"{first}__", f"{second}__"
    straight, crossed = f"{_jaro(a, LIKE)} and {_jaro(b, LIKE)}", f"{_jaro(a, LIKE, b)} and {_jaro(b, LIKE, a)}"
    one = " or ".join((_jaro(a, LIKE), _jaro(b, LIKE), _jaro(a, LIKE, b), _jaro(b, LIKE, a)))
    return Compared(
        about=f"{first} and {second}",
        columns={a: _clean(first), b: _clean(second)},
        levels=[
            Level("both the same", f"{_equal(a)} and {_equal(b)}", rare=a),
            Level("both spelled alike, in either order", f"({straight}) or ({crossed})"),
            Level(f"{first} the same", _equal(a), rare=a),
            Level(f"{second} the same", _equal(b), rare=b),
            Level("one line the same as the other's other line", f'"{a}_l" = "{b}_r" or "{b}_l" = "{a}_r"'),
            Level("one line spelled alike, in either order", one),
        ],
        whole=[a, b],
        keys=[f'"{a}"', f'"{b}"', f'coalesce(least("{a}", "{b}"), \'\') || greatest("{a}", "{b}")'],
        agree=[a],
        close=2,
    )


_BUILD = {
    "name": _name,
    "lines": _lines,
    "date": _date,
    "phone": _phone,
    "postcode": _postcode,
    "place": _place,
    "text": _text,
    "code": _code,
    "exact": _exact,
}
