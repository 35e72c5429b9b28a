"""How what arrived differs from what is declared: columns nobody declared, declared ones that are not there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import duckdb

from cdp_pipeline.sources.errors import ColumnMissingError, did_you_mean
from cdp_pipeline.sources.reading import Staged
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source

# Tried in order on a sample; the first type that all values have is proposed.
_GUESSES = {"integer": "BIGINT", "number": "DOUBLE", "date": "DATE", "timestamp": "TIMESTAMP", "boolean": "BOOLEAN"}
_SAMPLE = 10_000


@dataclass
class Drift:
    """Columns not declared (with the type their values seem to have), and declared columns that were not there."""

    unknown: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.unknown or self.missing)

    def patch(self, taken: Iterable[str] = ()) -> str:
        """YAML to add under the source's `columns:` so that the unknown columns are kept."""
        lines, used = [], set(taken)
        for name, kind in self.unknown.items():
            plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name.lower()).strip(
                "_"
            )
            own = plain if plain[:1].isalpha() else f"column_{plain}".rstrip("_")
            while own in used:
                own += "_2"
            used.add(own)
            quoted = "'" + name.replace("'", "''") + "'"
            origin = "" if own == name else f", from: {quoted}"
            lines.append(f"  {own}: {{type: {kind}{origin}}}")
        return "\n".join(["columns:", *lines]) + "\n" if lines else ""


def origin(source: Source, name: str) -> str:
    """What the source itself calls a declared column."""
    return source.columns[name].source_name or name


def missing_columns(source: Source, place: str, header: Sequence[str]) -> list[str]:
    """Declared columns that are not in the header; an error where rows cannot do without one of them."""
    missing = [name for name in source.columns if origin(source, name) not in header]
    needed = {*source.grain, source.occurred_at if source.mode == "events" else None}
    undeclared = [one for one in header if one not in {origin(source, name) for name in source.columns}]
    for name in missing:
        if name in needed or source.columns[name].required:
            wanted = origin(source, name)
            near = did_you_mean(wanted, undeclared)
            hint = f"{near} Then declare `{name}: {{from: …}}`." if near else f"; it has {', '.join(header)}"
            raise ColumnMissingError(f"{place}: has no column '{wanted}', which rows cannot do without{hint}")
    return missing


def unknown_columns(
    connection: duckdb.DuckDBPyConnection, source: Source, staged: Staged, present: Iterable[str]
) -> dict[str, str]:
    """Columns that came but are not declared, with the type that a sample of their values has."""
    known = {origin(source, name) for name in source.columns}
    found = {}
    for name in present:
        if name in known or not name:
            continue
        text = staged.text.get(name) or f"""json_extract_string(_raw, '$."{name.replace("'", "''")}"')"""
        tests = ", ".join(
            f"count({text}) = count(TRY_CAST({text} AS {kind})) AND count({text}) > 0" for kind in _GUESSES.values()
        )
        sample = f"(SELECT * FROM {staged.table} WHERE _broken IS NULL LIMIT {_SAMPLE})"
        passed = connection.execute(f"SELECT {tests} FROM {sample}").fetchone() or ()
        found[name] = next((guess for guess, fits in zip(_GUESSES, passed, strict=True) if fits), "string")
    return found


def drift_of(source: Source, project: Project) -> list[dict[str, str]]:
    """How the newest file of a source that lies there differs from its declaration, and what to declare."""
    from cdp_pipeline.sources.files import file_format, find_files, scan
    from cdp_pipeline.sources.reading import Readable, Scratch, json_keys, read_header, stage

    newest = find_files(source)[-1:] if source.files is not None else []
    if source.files is None or not newest:
        return []
    place = newest[0].place
    connection = duckdb.connect()
    try:
        form, first_pass = file_format(source.files, place), scan(place)
        header = read_header(connection, source.files, form, place, first_pass)
        readable = Readable(0, place, first_pass, form, header)
        wanted = [origin(source, name) for name in source.columns]
        staged = stage(Scratch(connection), source.files, [readable], wanted)
        present = list(header) or json_keys(connection, staged)
        drift = Drift(unknown_columns(connection, source, staged, present))
    finally:
        connection.close()
    found = {"source": source.name, "file": place}
    lines = drift.patch(source.columns).splitlines()[1:]
    rows = [
        {**found, "column": name, "problem": "not declared", "declare": line.strip()}
        for name, line in zip(drift.unknown, lines, strict=True)
    ]
    absent = [name for name in source.columns if origin(source, name) not in present]
    return rows + [{**found, "column": name, "problem": "not in the file", "declare": ""} for name in absent]
