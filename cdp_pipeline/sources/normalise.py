"""One written form per value: SQL for what SQL can say, and a looked-up form per distinct value for the rest.

Which columns are normalised, and what happens to values that are not recognised, is said by contract.py.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache

from cdp_pipeline.spec.source import Normaliser

# Written for "no value" by the usual exports, in the cases they use.
NULL_SPELLINGS = (
    *("", "null", "NULL", "Null", "(null)", "(NULL)", "none", "None", "NONE", "nan", "NaN", "NAN", "nat", "NaT"),
    *("n/a", "N/A", "#n/a", "#N/A", "<na>", "<NA>", "\\N"),
)


def trimmed(x: str) -> str:
    """SQL for the text without white space around; trimming is dear, so only texts that need it are trimmed."""
    return f"""CASE WHEN {x} < '!' OR ends_with({x}, ' ') OR ends_with({x}, '\t') OR ends_with({x}, '\r')
        OR ends_with({x}, '\n') THEN trim({x}, ' \t\r\n') ELSE {x} END"""


def usual_null(x: str, declared: list[str], meant: set[str]) -> str:
    """SQL that is true where a text only says that there is no value; values that are meant stay values."""
    spellings = [spelling for spelling in NULL_SPELLINGS if spelling not in meant]
    listed = "[" + ", ".join(map(as_literal, [*spellings, *declared])) + "]"
    longest = max(len(spelling.encode()) for spelling in [*spellings, *declared])
    # Not IN: DuckDB makes a join of it, which trims every value, also those that are never looked at.
    return f"""(strlen({x}) <= {longest} AND contains({listed}, {x})
        OR {x} < '!' AND contains({listed}, trim({x}, ' \t\r\n')))"""


def in_sql(normaliser: Normaliser, x: str) -> str:
    """SQL for the normal form of a text; what cannot be recognised becomes NULL."""
    bare = trimmed(x)
    if normaliser == "email":
        low = f"lower({bare})"
        return f"CASE WHEN regexp_full_match({low}, '{_EMAIL}') THEN {low} END"
    if normaliser == "postcode":
        return f"upper(regexp_replace({bare}, '\\s+', ' ', 'g'))"
    return {"trim": bare, "lower": f"lower({bare})", "upper": f"upper({bare})"}[normaliser]


_EMAIL = "[^@\\s<>,;]+@[^@\\s<>,;]+\\.[^@\\s<>,;.]+"

TRUE = ("true", "t", "yes", "y", "1", "on")
FALSE = ("false", "f", "no", "n", "0", "off")


def phone(text: str, region: str | None) -> str | None:
    """E.164, or None where it cannot be a number; without a leading + it is read as dialled in the region."""
    import phonenumbers

    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def name(text: str, region: str | None = None) -> str | None:
    """One space between words; capitals only where the whole was written in one case ('ANNE-MARIE', 'o'neil')."""
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    return plain.title() if plain == plain.upper() or plain == plain.lower() else plain


_COUNTRY_NICKNAMES = {"uk": "GB", "england": "GB", "scotland": "GB", "wales": "GB", "northern ireland": "GB"} | {
    "great britain": "GB", "eire": "IE", "rsa": "ZA", "uae": "AE", "holland": "NL", "deutschland": "DE",
    "channel islands": "GG", "turkey": "TR", "czech republic": "CZ", "russia": "RU", "south korea": "KR",
}  # fmt: skip


def country(text: str, region: str | None = None) -> str | None:
    """ISO 3166 alpha-2, from a code or a name."""
    import pycountry

    plain = " ".join(text.split())
    if plain.lower() in _COUNTRY_NICKNAMES:
        return _COUNTRY_NICKNAMES[plain.lower()]
    try:
        return pycountry.countries.lookup(plain).alpha_2
    except LookupError:
        return None


_CURRENCY_SIGNS = {"€": "EUR", "£": "GBP", "US$": "USD", "A$": "AUD", "C$": "CAD", "₹": "INR", "zł": "PLN"}


def currency(text: str, region: str | None = None) -> str | None:
    """ISO 4217, from a code, a name, or a sign that stands for one currency only ($ and ¥ do not)."""
    import pycountry

    plain = text.strip()
    if plain in _CURRENCY_SIGNS:
        return _CURRENCY_SIGNS[plain]
    try:
        return pycountry.currencies.lookup(plain).alpha_3
    except LookupError:
        return None


# Per distinct value, because these take Python.
LOOKED_UP: dict[Normaliser, Callable[[str, str | None], str | None]] = {
    "phone": phone,
    "name": name,
    "country": country,
    "currency": currency,
}


@lru_cache(maxsize=200_000)
def looked_up(normaliser: Normaliser, text: str, region: str | None) -> str | None:
    """The normal form of one value; remembered, because the same people come in every file."""
    return LOOKED_UP[normaliser](text, region)


# A decimal number as people write it: '€ 1.234,50', '1,234.50 GBP', '(12.00)', "1'234". {x} is the text.
_BARE = "regexp_replace({x}, '\\p{{Sc}}|\\b[A-Z]{{3}}\\b|[\\s''’\u00a0]', '', 'g')"
_SIGNED = f"regexp_replace(regexp_replace({_BARE}, '^\\((.*)\\)$', '-\\1'), '^([^-].*)-$', '-\\1')"


def amount_as_written(x: str) -> str:
    """SQL that turns such a text into one that casts; a single comma before three digits parts thousands."""
    bare = _SIGNED.format(x=x)
    return f"""CASE
        WHEN regexp_full_match({bare}, '[+-]?\\d{{1,3}}(,\\d{{3}})+(\\.\\d*)?') THEN replace({bare}, ',', '')
        WHEN regexp_full_match({bare}, '[+-]?\\d{{1,3}}(\\.\\d{{3}})+,\\d*|[+-]?\\d{{1,3}}(\\.\\d{{3}}){{2,}}')
          THEN replace(replace({bare}, '.', ''), ',', '.')
        WHEN regexp_full_match({bare}, '[+-]?\\d*,\\d+') THEN replace({bare}, ',', '.')
        ELSE {bare} END"""


def as_literal(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
