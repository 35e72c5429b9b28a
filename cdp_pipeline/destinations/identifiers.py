"""Identifiers as the ad platforms compare them: normalised by each one's published rules, then hashed with SHA-256.

A value that is a SHA-256 in hex already is passed on: hashed twice, nobody would ever be found.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping

_HASH = re.compile(r"[0-9a-fA-F]{64}")


def hashed(value: object, normalise: Callable[[str], str]) -> str:
    """The SHA-256 of a normalised value in lower-case hex; empty where nothing is left of it."""
    text = "" if value is None else str(value).strip()
    if _HASH.fullmatch(text):
        return text.lower()
    text = normalise(text)
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _plain(text: str) -> str:
    """Lower case, without punctuation and symbols; letters of all scripts stay."""
    return "".join(letter for letter in text.lower() if unicodedata.category(letter)[0] not in "PSC").strip()


def trimmed(text: str) -> str:
    return text.strip().lower()


def meta_phone(text: str) -> str:
    """Digits with the country code, without plus and leading zeros: with a plus nobody is found."""
    return re.sub(r"\D", "", text).lstrip("0")


def meta_place(text: str) -> str:
    return re.sub(r"\s", "", _plain(text))


def meta_zip(text: str) -> str:
    """Of a US code (five digits, with or without four more) the first five."""
    code = re.sub(r"[\s-]", "", text.lower())
    return code[:5] if re.fullmatch(r"\d{5}-\d{4}", text.strip()) else code


def meta_row(data: Mapping[str, object]) -> dict[str, str]:
    """One person in the columns of a Custom Audience's schema; what is empty is left out.

    Rules: Meta, "Customer information parameters" and "Customer file custom audiences: hashing and normalization".
    """
    born = re.fullmatch(r"(\d{4})-?(\d\d)-?(\d\d)(?:T.*)?", str(data.get("date_of_birth") or "").strip())
    year, month, day = born.groups() if born else ("", "", "")
    row = {
        "EMAIL": hashed(data.get("email"), trimmed),
        "PHONE": hashed(data.get("phone"), meta_phone),
        "FN": hashed(data.get("first_name"), _plain),
        "LN": hashed(data.get("last_name"), _plain),
        "CT": hashed(data.get("city"), meta_place),
        "ST": hashed(data.get("state"), meta_place),
        "ZIP": hashed(data.get("postal_code"), meta_zip),
        "COUNTRY": hashed(data.get("country"), meta_place),
        "GEN": hashed(data.get("gender"), lambda text: text.lower()[:1] if text.lower()[:1] in "mf" else ""),
        "DOBY": hashed(year, str),
        "DOBM": hashed(month, str),
        "DOBD": hashed(day, str),
        # Not hashed: an id of the advertiser's own, and one of the device.
        "EXTERN_ID": str(data.get("external_id") or "").strip(),
        "MADID": str(data.get("mobile_id") or "").strip().lower(),
    }
    return {column: value for column, value in row.items() if value}


def google_email(text: str) -> str:
    """Without any white space; at gmail.com and googlemail.com without dots and what follows a plus before the @."""
    local, at, domain = re.sub(r"\s", "", text.lower()).rpartition("@")
    if domain in ("gmail.com", "googlemail.com"):
        local = local.partition("+")[0].replace(".", "")
    return f"{local}{at}{domain}" if local or not at else ""


def google_phone(text: str) -> str:
    """E.164 with the plus; a number without its country code is of no use."""
    digits = re.sub(r"\D", "", text)
    if text.strip().startswith("00"):
        digits = digits.removeprefix("00")
    elif not text.strip().startswith("+"):
        return ""
    return f"+{digits}" if digits else ""


def google_identifiers(data: Mapping[str, object]) -> list[dict[str, object]]:
    """One person as Google's UserIdentifiers; an address needs all of its four parts, its country in two letters.

    Rules: Google Data Manager API, "Format user data" and AddressInfo (names without punctuation: so there, while
    Google's own google-ads-datamanager-util 0.4 leaves it in).
    """
    found: list[dict[str, object]] = []
    if email := hashed(data.get("email"), google_email):
        found.append({"emailAddress": email})
    if phone := hashed(data.get("phone"), google_phone):
        found.append({"phoneNumber": phone})
    address = {
        "givenName": hashed(data.get("first_name"), _plain),
        "familyName": hashed(data.get("last_name"), _plain),
        "regionCode": str(data.get("country") or "").strip().upper(),
        "postalCode": str(data.get("postal_code") or "").strip(),
    }
    if all(address.values()) and re.fullmatch("[A-Z]{2}", address["regionCode"]):
        found.append({"address": address})
    return found
