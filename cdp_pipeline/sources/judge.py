"""Holds staged rows to the contract: looks up what SQL cannot normalise and what other sources hold, then runs it.

The contract itself is contract.py; setting rows aside is aside.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import pyarrow as pa

from cdp_pipeline.lake import Lake
from cdp_pipeline.sources.contract import Fault, contract
from cdp_pipeline.sources.drift import origin
from cdp_pipeline.sources.errors import ReferenceNotLoadedError, SourceError, did_you_mean
from cdp_pipeline.sources.normalise import LOOKED_UP, looked_up
from cdp_pipeline.sources.reading import Scratch, Staged
from cdp_pipeline.sources.stored import stored_sql
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source


class Judge:
    """The contract of one source, for one load."""

    def __init__(self, lake: Lake, source: Source, project: Project, scratch: Scratch) -> None:
        self.lake = lake
        self.source = source
        self.project = project
        self.scratch = scratch
        self.run = lake.connection.execute
        self.faults: tuple[Fault, ...] = ()
        self._references: dict[str, str] | None = None

    def judged(self, staged: Staged, rows: str | None = None, copied_at: datetime | None = None) -> str:
        """Add the staged rows that are not broken to the table `rows` (made if None): typed, each with its fault."""
        given = {
            name: staged.text[origin(self.source, name)]
            for name in self.source.columns
            if origin(self.source, name) in staged.text
        }
        held = contract(
            self.source,
            f"(SELECT rowid AS _row, * EXCLUDE (_raw, _broken) FROM {staged.table} WHERE _broken IS NULL)",
            given,
            self._lookups(staged.table, given),
            self._reference_tables(),
            self.project.settings.timezone,
            copied_at,
        )
        self.faults = held.faults
        if rows is not None:
            self.run(f"INSERT INTO {rows} {held.sql}")
            return rows
        rows = self.scratch.name("rows")
        self.run(f"CREATE TEMP TABLE {rows} AS {held.sql}")
        return rows

    def _lookups(self, relation: str, given: Mapping[str, str]) -> dict[str, str]:
        """For each column whose normal form takes Python: a table of its distinct texts and their form."""
        tables = {}
        for name, column in self.source.columns.items():
            if column.normalise not in LOOKED_UP or name not in given:
                continue
            text = given[name]
            found = self.run(f"SELECT DISTINCT {text} FROM {relation} WHERE {text} <> ''").fetchall()
            texts = [row[0] for row in found]
            forms = [looked_up(column.normalise, one, self.source.region) for one in texts]
            tables[name] = self.scratch.name("lookup")
            lookup = pa.table({"given": pa.array(texts, pa.string()), "normal": pa.array(forms, pa.string())})
            with self.scratch.arrow(lookup) as arrow:
                self.run(f"CREATE TEMP TABLE {tables[name]} AS FROM {arrow}")
        return tables

    def _reference_tables(self) -> dict[str, str]:
        """For each column that checks refer to: a table of the values it has in the lake."""
        if self._references is None:
            self._references = {
                check.references: self._reference_table(name, check.references)
                for name, column in self.source.columns.items()
                for check in column.checks
                if check.references is not None and check.action != "allow"
            }
        return self._references

    def _reference_table(self, name: str, reference: str) -> str:
        other, _, column = reference.partition(".")
        where = f"source {self.source.name}: column {name} refers to {reference}"
        target = self.project.sources.get(other)
        if target is None:
            raise SourceError(f"{where}, but there is no such source{did_you_mean(other, self.project.sources)}")
        if column not in target.columns:
            raise SourceError(f"{where}, but there is no such column{did_you_mean(column, target.columns)}")
        if self.lake.stored_now(f"sources.{other}") is None:
            raise ReferenceNotLoadedError(f"{where}, but {other} has not been loaded yet; load it first")
        stored = stored_sql(self.lake, source_table(target))
        table = self.scratch.name("reference")
        self.run(
            f'CREATE TEMP TABLE {table} AS SELECT DISTINCT "{column}"::VARCHAR AS v FROM ({stored}) WHERE v IS NOT NULL'
        )
        return table
