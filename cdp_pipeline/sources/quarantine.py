"""Rows set aside: what waits and why, and replaying it under the contract as it is now, mended by a patch if need be.

A patch is a mapping, as YAML would say it:

    amount: "0"                                          every row set aside because of its amount gets this value
    amount: {expression: "replace(amount, ',', '.')"}    … or what this makes of the row's texts
    3f9c0a1be2d47788aa001122: {amount: "12.50"}          one row, by its quarantine id or record id

Replayed rows have the record ids that they would have had, so that nothing doubles; a row that has come again since,
and stands, is not overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import ibis

from cdp_pipeline.lake import Lake, LakeView, Note, Upsert
from cdp_pipeline.lake.table import Table
from cdp_pipeline.sources.drift import origin
from cdp_pipeline.sources.errors import SourceError, did_you_mean
from cdp_pipeline.sources.history import History, moment_literal
from cdp_pipeline.sources.judge import Judge
from cdp_pipeline.sources.normalise import as_literal
from cdp_pipeline.sources.reading import Scratch, Staged
from cdp_pipeline.sources.stored import stored_sql
from cdp_pipeline.sources.tables import LOADS, QUARANTINE, source_table
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source

_UNSPLIT = ("broken_row", "wrong_encoding")


@dataclass(frozen=True)
class ReplayReport:
    """What a replay did, or would do: of `waiting` rows so many were accepted, were not needed, wait on (and why)."""

    source: str
    waiting: int
    accepted: int = 0
    superseded: int = 0
    still_waiting: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    first_day: date | None = None
    dry_run: bool = False


def waiting(lake: LakeView) -> list[dict[str, Any]]:
    """How many rows wait, by source, reason and column."""
    rows = lake.read(QUARANTINE)
    rows = rows.filter(rows.replayed_at.isnull())
    counted = rows.group_by("source", "reason", "column").agg(
        rows=ibis._.count(), first=ibis._.loaded_at.min(), last=ibis._.loaded_at.max()
    )
    return counted.order_by("source", ibis.desc("rows"), "reason", "column").to_pyarrow().to_pylist()


def show(lake: LakeView, source: str, limit: int = 20) -> list[dict[str, Any]]:
    """The rows that wait, as they were received, newest first."""
    rows = lake.read(QUARANTINE)
    rows = rows.filter((rows.source == source) & rows.replayed_at.isnull())
    shown = rows.select("quarantine_id", "record_id", "column", "reason", "raw", "place", "loaded_at")
    return shown.order_by(ibis.desc("loaded_at"), "place", "quarantine_id").limit(limit).to_pyarrow().to_pylist()


def replay(
    lake: Lake,
    source: Source,
    project: Project,
    now: datetime,
    patch: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> ReplayReport:
    """Hold the rows that wait to the contract once more; accept those that pass (not when `dry_run`)."""
    with Scratch(lake.connection).until_done() as scratch:
        return _Replay(lake, source, project, now, scratch).run(patch or {}, dry_run)


class _Replay:
    def __init__(self, lake: Lake, source: Source, project: Project, now: datetime, scratch: Scratch) -> None:
        self.lake, self.source, self.scratch = lake, source, scratch
        self.at = now.astimezone(UTC).replace(tzinfo=None)
        self.table = source_table(source)
        self.judge = Judge(lake, source, project, scratch)
        self.waiting = scratch.name("waiting")
        self.sql(
            f"""CREATE TEMP TABLE {self.waiting} AS SELECT * FROM ({stored_sql(lake, QUARANTINE)})
                WHERE source = {as_literal(source.name)} AND replayed_at IS NULL ORDER BY loaded_at, quarantine_id"""
        )
        self.newest_copy = self._newest_copy() if source.mode == "snapshot" else None

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        return self.lake.connection.execute(query).fetchall()

    def run(self, patch: Mapping[str, Any], dry_run: bool) -> ReplayReport:
        [[count]] = self.sql(f"SELECT count(*) FROM {self.waiting}")
        if not count:
            return ReplayReport(self.source.name, 0, dry_run=dry_run)
        rows = self.judge.judged(self._stage(patch), None, self.newest_copy)
        sound, settled = self._sort_out(rows)
        [[accepted, first_day]] = self.sql(f"SELECT count(*), min(_day) FROM {sound}")
        [[settled_rows]] = self.sql(f"SELECT count(*) FROM {settled}")
        reasons = ", ".join(as_literal(fault.reason) for fault in self.judge.faults)
        still = self.sql(
            f"""SELECT coalesce([{reasons}][_fault + 1], w.reason), count(*) FROM {self.waiting} w
                LEFT JOIN {rows} r ON r._row = w.rowid WHERE w.quarantine_id NOT IN (FROM {settled})
                GROUP BY 1 ORDER BY 2 DESC, 1"""
        )
        if not dry_run and settled_rows:
            self._publish(sound, settled)
        return ReplayReport(
            self.source.name,
            waiting=count,
            accepted=accepted,
            superseded=settled_rows - accepted,
            still_waiting=count - settled_rows,
            reasons=dict(still),
            first_day=first_day,
            dry_run=dry_run,
        )

    def _stage(self, patch: Mapping[str, Any]) -> Staged:
        """The waiting rows' texts, patched, in the order of `waiting`, so that `_row` is its rowid."""
        origins = {name: origin(self.source, name) for name in self.source.columns}
        columns = {name: f"c{number}" for number, name in enumerate(origins.values())}
        texts = ", ".join(
            f"""json_extract_string(fields, {as_literal('$."' + name + '"')}) AS {column}"""
            for name, column in columns.items()
        )
        table = self.scratch.name("staged")
        self.sql(
            f"""CREATE TEMP TABLE {table} AS SELECT 0 AS _place,
                  CASE WHEN reason IN {_UNSPLIT} OR fields IS NULL THEN reason END AS _broken,
                  raw AS _raw, quarantine_id AS _quarantine_id, record_id AS _former_id, "column" AS _column, {texts}
                FROM {self.waiting} ORDER BY rowid"""
        )
        for condition, name, value in self._patches(patch, origins, columns):
            self.sql(f"UPDATE {table} SET {columns[origins[name]]} = {value}, _broken = NULL WHERE {condition}")
        return Staged(table, columns, columns)

    def _patches(
        self, patch: Mapping[str, Any], origins: Mapping[str, str], columns: Mapping[str, str]
    ) -> Iterator[tuple[str, str, str]]:
        """(SQL condition, column, SQL value) of each thing a patch says."""
        where = f"source {self.source.name}"
        [ids] = self.sql(f"SELECT list(quarantine_id) || list(record_id) FROM {self.waiting}")
        known = {one for one in ids[0] if one is not None}
        texts = {name: columns[origin] for name, origin in origins.items()}
        for key, said in patch.items():
            if key in origins:
                yield f"_column = {as_literal(key)}", key, self._patched_value(key, said, texts)
                continue
            if key not in known or not isinstance(said, Mapping):
                near = did_you_mean(str(key), [*origins, *known])
                raise SourceError(f"{where}: the patch's '{key}' is no column and no row that waits{near}")
            for name, value in said.items():
                if name not in origins:
                    raise SourceError(f"{where}: there is no column '{name}'{did_you_mean(name, origins)}")
                condition = f"{as_literal(str(key))} IN (_quarantine_id, _former_id)"
                yield condition, name, self._patched_value(name, value, texts)

    def _patched_value(self, name: str, said: Any, texts: Mapping[str, str]) -> str:
        if not isinstance(said, Mapping):
            return "NULL" if said is None else as_literal(str(said))
        if set(said) != {"expression"}:
            raise SourceError(f"source {self.source.name}: patch {name} with a value or with {{expression: …}}")
        row = ibis.table(dict.fromkeys(texts.values(), "string"), name="_texts")
        try:
            value = expressions.compile(said["expression"], {key: row[column] for key, column in texts.items()})
        except expressions.ExpressionError as problem:
            raise SourceError(f"source {self.source.name}: the patch of {name}: {problem}") from problem
        compiled = ibis.to_sql(row.select(v=value.cast("string")), dialect="duckdb")
        # The expression alone: UPDATE … SET has the row's own columns in scope.
        return compiled.partition("SELECT")[2].partition(' AS "v"')[0].replace('"t0".', "")

    def _sort_out(self, rows: str) -> tuple[str, str]:
        """The rows to publish, and the quarantine ids that are settled: by these, or by rows that stand already."""
        passed = self.scratch.name("passed")
        staged_id = "w.quarantine_id AS _quarantine_id, w.loaded_at AS _set_aside_at, w.copied_at AS _copied_at"
        record_id = "r._record_id"
        if self.source.repeatable:
            # Told apart by their order in the file, which is not known any more: its own id is as good and as stable.
            record_id = f"coalesce(w.record_id, left(md5({as_literal(self.source.name)} || w.quarantine_id), 24))"
        self.sql(
            f"""CREATE TEMP TABLE {passed} AS
                SELECT r.* REPLACE ({record_id} AS _record_id), {staged_id}, false AS _superseded
                FROM {rows} r JOIN {self.waiting} w ON w.rowid = r._row WHERE r._fault IS NULL"""
        )
        self.sql(
            f"""UPDATE {passed} p SET _superseded = true FROM (
                  SELECT _quarantine_id, row_number() OVER (PARTITION BY _record_id
                         ORDER BY _copied_at DESC, _set_aside_at DESC, _row DESC) AS n FROM {passed}) o
                WHERE p._quarantine_id = o._quarantine_id AND o.n > 1"""
        )
        if self.source.mode == "snapshot":
            newest = moment_literal(self.newest_copy) if self.newest_copy else "NULL"
            self.sql(f"UPDATE {passed} SET _superseded = true WHERE _copied_at IS DISTINCT FROM {newest}")
        else:
            stored = stored_sql(self.lake, self.table)
            self.sql(
                f"""UPDATE {passed} p SET _superseded = true FROM ({stored}) s
                    WHERE s._record_id = p._record_id AND s._loaded_at >= p._set_aside_at"""
            )
        sound, settled = self.scratch.name("sound", "VIEW"), self.scratch.name("settled", "VIEW")
        self.sql(
            f"""CREATE TEMP VIEW {sound} AS SELECT *, {moment_literal(self.at)} AS _loaded_at
                FROM {passed} WHERE NOT _superseded"""
        )
        self.sql(f"CREATE TEMP VIEW {settled} AS SELECT _quarantine_id FROM {passed}")
        return sound, settled

    def _newest_copy(self) -> datetime | None:
        name = as_literal(self.source.name)
        [[newest]] = self.sql(
            f"SELECT max(copied_at) FROM ({stored_sql(self.lake, LOADS)}) WHERE source = {name} AND status = 'loaded'"
        )
        return newest

    def _publish(self, sound: str, settled: str) -> None:
        done = self.scratch.name("done", "VIEW")
        self.sql(
            f"""CREATE TEMP VIEW {done} AS SELECT * REPLACE ({moment_literal(self.at)} AS replayed_at)
                FROM {self.waiting} WHERE quarantine_id IN (FROM {settled})"""
        )
        ready = sound
        if self.source.mode == "snapshot":
            history = History(self.lake, self.scratch, self.table, self.newest_copy)
            if self.newest_copy is not None:
                history.apply(sound, self.newest_copy, self.at, kept=None, whole=False)
            ready = history.changed()
        writes = [Upsert(QUARANTINE, self._rows(done, QUARANTINE)), Upsert(self.table, self._rows(ready, self.table))]
        self.lake.publish(*writes, note=Note(asset=self.table.name))

    def _rows(self, view: str, table: Table) -> ibis.Table:
        return self.lake.ibis.table(view, database=("temp", "main")).select(*table.columns)
