"""Columns of text, made from columns of numbers without a loop over rows.

Only spelling belongs here: what is spelled, and why, is decided by the callers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[Any]
Text = Any  # a pyarrow Array of strings; pyarrow comes without types

_HEX = np.array([f"{byte:02x}" for byte in range(256)], dtype="S2")


def join(*parts: Text | str) -> Text:
    """Glue columns and constants together; a row with a null part is null."""
    return pc.binary_join_element_wise(*parts, "")


def pick(words: list[str], index: Numbers) -> Text:
    return pa.array(words).take(pa.array(index))


def digits(numbers: Numbers, width: int = 0) -> Text:
    text = pa.array(np.asarray(numbers, dtype=np.int64)).cast(pa.string())
    return pc.utf8_lpad(text, width, "0") if width else text


def money(pence: Numbers) -> Text:
    whole, rest = np.divmod(np.asarray(pence, dtype=np.int64), 100)
    return join(digits(whole), ".", digits(rest, 2))


def only(where: Numbers, text: Text) -> Text:
    """The text where the condition holds, null elsewhere."""
    return pc.if_else(pa.array(where), text, pa.scalar(None, text.type))


def constant(word: str, rows: int) -> Text:
    return pa.repeat(pa.scalar(word), rows)


def timestamps(epoch: Numbers) -> Text:
    """ISO 8601 in UTC: 2026-10-31T09:30:00Z."""
    instants = pa.array(np.asarray(epoch, dtype=np.int64)).cast(pa.timestamp("s", "UTC"))
    return pc.replace_substring(instants.cast(pa.string()), " ", "T")


def dates(day_numbers: Numbers) -> Text:
    """Days since 1970 as 2026-10-31."""
    return pa.array(np.asarray(day_numbers, dtype=np.int32)).cast(pa.date32()).cast(pa.string())


def scramble(numbers: Numbers, seed: int) -> npt.NDArray[np.uint64]:
    """A number that looks random but only depends on the number and the seed (splitmix64)."""
    mixed = np.asarray(numbers, dtype=np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def hexadecimal(numbers: npt.NDArray[np.uint64]) -> Text:
    pairs = _HEX[numbers.astype(">u8").view(np.uint8).reshape(-1, 8)]
    return pa.array(np.ascontiguousarray(pairs).view("S16").ravel()).cast(pa.string())
