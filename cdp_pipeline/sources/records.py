"""Text files split into records one by one, each as it was received: slow, exact, never stopped by a bad row.

The fast way through a clean file is DuckDB's reader (reading.py); this one reads the files it refuses, and finds the
original text of rows that broke their contract.
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from cdp_pipeline.sources.files import open_plain

# A quote left open swallows everything after it; past this many lines its first line is taken for broken instead.
_LONGEST_RECORD = 200


@dataclass(frozen=True)
class Record:
    """One record: its text as received, its fields, and why it is broken, if it is."""

    raw: str
    fields: list[str]
    broken: str | None = None


class _OpenQuoteError(Exception):
    pass


def _text_lines(path: str, encoding: str) -> Iterator[str]:
    """Lines with their ends; bytes that are not of the encoding become \\xNN and the line is reported as broken."""
    name = "utf-8-sig" if encoding == "utf-8" else encoding
    with open_plain(path) as stream, io.TextIOWrapper(stream, name, errors="surrogateescape", newline="") as text:
        # newline="" also splits at a lone carriage return, as csv and DuckDB do.
        yield from text


def visible(text: str) -> str:
    """Text whose undecodable bytes are written as \\xNN, so that it can be stored and read."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _undecodable(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def line_records(path: str, encoding: str) -> Iterator[Record]:
    """One record per line that is not blank."""
    for line in _text_lines(path, encoding):
        raw = line.rstrip("\r\n")
        if raw.strip():
            broken = "wrong_encoding" if _undecodable(raw) else None
            yield Record(visible(raw), [visible(raw)], broken)


def csv_records(path: str, encoding: str, delimiter: str) -> Iterator[Record]:
    """The records of a CSV, the header first. A stray quote breaks its own line, not the rest of the file."""
    lines = _text_lines(path, encoding)
    waiting: deque[str] = deque()
    taken: list[str] = []

    def feed() -> Iterator[str]:
        while True:
            if len(taken) >= _LONGEST_RECORD:
                raise _OpenQuoteError
            line = waiting.popleft() if waiting else next(lines, None)
            if line is None:
                return
            taken.append(line)
            yield line

    width: int | None = None
    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        taken.clear()
        broken = None
        line = waiting.popleft() if waiting else next(lines, None)
        if line is None:
            return
        try:
            if '"' in line:
                waiting.appendleft(line)
                fields = next(reader)
            else:  # what csv would make of it, at a fifth of the price
                taken.append(line)
                text = line.rstrip("\r\n")
                fields = text.split(delimiter) if text else []
        except (csv.Error, _OpenQuoteError):
            # The first line is broken; those that its quote swallowed are read again.
            waiting.extendleft(reversed(taken[1:]))
            del taken[1:]
            fields, broken = taken[0].rstrip("\r\n").split(delimiter), "broken_row"
            reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        if not fields:
            continue
        if width is not None and len(fields) != width:
            broken = "broken_row"
        raw = "".join(taken).rstrip("\r\n")
        if _undecodable(raw):
            broken = "wrong_encoding"
        width = len(fields) if width is None else width
        yield Record(visible(raw), [visible(field) for field in fields], broken)
