"""Which files a source means, which of them are new, and a first pass over their bytes: hash, gzip check, line counts.

Nothing here understands rows; that is reading.py.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO, Literal, cast

import ibis

from cdp_pipeline.sources.errors import FileMissingError, FileUnreadableError, did_you_mean
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Files, Source

Format = Literal["csv", "jsonl", "parquet"]

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_CHUNK = 4 * 1024 * 1024


@dataclass(frozen=True)
class Arrival:
    """A file whose bytes have not been seen before, or not in this form, and its day if the path has one."""

    source: str
    place: str
    day: date | None
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Scan:
    """What one pass over a file's bytes found: enough to know it again and to hold the row count against."""

    fingerprint: str
    lines: int
    quotes: bool
    uniform_newlines: bool
    empty: bool


def file_format(files: Files, place: str) -> Format:
    """The declared format, else the one of the suffix (before any .gz)."""
    if files.format is not None:
        return files.format
    suffix = Path(place.removesuffix(".gz")).suffix.lower()
    if suffix not in _FORMATS:
        raise FileUnreadableError(
            f"{place}: cannot tell the format from '{suffix}', say `format: csv`, jsonl or parquet"
        )
    return _FORMATS[suffix]


def _path_pattern(path: str) -> re.Pattern[str]:
    parts, seen_day = [], False
    for part in re.split(r"(\{day\}|\*)", path):
        if part == "{day}":
            parts.append("(?P=day)" if seen_day else r"(?P<day>\d{4}-\d{2}-\d{2})")
            seen_day = True
        else:
            parts.append("[^/]*" if part == "*" else re.escape(part))
    return re.compile("".join(parts))


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def find_files(source: Source, days: Iterable[date] | None = None) -> list[Arrival]:
    """Every file the source's path matches, oldest day first; `days` keeps those days and files without one."""
    assert source.files is not None
    path = source.files.path
    pattern = _path_pattern(path)
    wanted = None if days is None else set(days)
    fixed = re.split(r"[^/]*(?:\{day\}|\*)", path, maxsplit=1)[0]
    if fixed == path:
        candidates = [Path(path)] if Path(path).is_file() else []
    else:
        folder = Path(fixed) if fixed else Path()
        candidates = [one for one in folder.glob(path[len(fixed) :].replace("{day}", "*")) if one.is_file()]
    found = []
    for candidate in candidates:
        match = pattern.fullmatch(str(candidate)) or pattern.fullmatch(f"./{candidate}")
        if match is None:
            continue
        day_text = match.groupdict().get("day")
        day = _day(day_text) if day_text else None
        if (day_text and day is None) or (wanted is not None and day is not None and day not in wanted):
            continue
        state = candidate.stat()
        found.append(Arrival(source.name, str(candidate), day, state.st_size, state.st_mtime_ns))
    return sorted(found, key=lambda file: (file.day or date.min, file.place))


def missing_file(source: Source) -> FileMissingError:
    """The error for a source whose path matches nothing, naming what is nearest to it."""
    assert source.files is not None
    path = Path(source.files.path)
    fixed = Path(re.split(r"[^/]*(?:\{day\}|\*)", source.files.path, maxsplit=1)[0] or ".")
    folder = fixed if fixed.is_dir() else fixed.parent
    if not folder.is_dir():
        return FileMissingError(f"source {source.name}: no file at '{path}': there is no folder '{folder}'")
    nearest = did_you_mean(path.name, sorted(one.name for one in folder.iterdir())[:1000])
    return FileMissingError(f"source {source.name}: no file at '{path}'{nearest}")


def arrivals(source: Source, project: Project, loads: ibis.Table) -> list[Arrival]:
    """Files that are new or whose size or time changed since they were last tried: a listing, no file is opened.

    A file that failed is not listed again until it changes; the next load tries it all the same.
    """
    if source.files is None:
        return []
    tried = loads.filter(loads.source == source.name).select("place", "size", "modified_ns").to_pyarrow()
    seen = set(zip(*(column.to_pylist() for column in tried.columns), strict=True))
    return [file for file in find_files(source) if (file.place, file.size, file.modified_ns) not in seen]


def open_plain(path: str) -> IO[bytes]:
    """The bytes of a file, unpacked where it ends in .gz."""
    return cast(IO[bytes], gzip.open(path)) if path.endswith(".gz") else Path(path).open("rb")


def scan(place: str) -> Scan:
    """Read a file's bytes once. A gzip cut short is an error here: DuckDB would read half of it in silence."""
    digest = hashlib.sha256()
    lines = returns = pairs = 0
    quotes, last = False, b""
    try:
        with open_plain(place) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                lines += chunk.count(b"\n")
                returns += chunk.count(b"\r")
                pairs += chunk.count(b"\r\n") + (last == b"\r" and chunk[:1] == b"\n")
                quotes = quotes or b'"' in chunk
                last = chunk[-1:]
    except (EOFError, gzip.BadGzipFile, zlib.error) as problem:
        raise FileUnreadableError(
            f"{place}: the gzip is damaged or cut short ({problem}); deliver it again"
        ) from problem
    except OSError as problem:
        raise FileUnreadableError(f"{place}: cannot be read: {problem.strerror or problem}") from problem
    uniform = returns == 0 or returns == pairs == lines
    return Scan(digest.hexdigest()[:32], lines + (last not in (b"\n", b"")), quotes, uniform, last == b"")
