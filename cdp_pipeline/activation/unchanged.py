"""Whom a plan need not look at: members of whom a destination is known to hold exactly what it should.

A million of them are compared by fingerprints, in DuckDB; plan.py then looks at the others one by one. A fingerprint
only ever spares work: where one is missing or differs, the payloads themselves are compared.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from cdp_pipeline.spec.sync import Sync

WIDTH = 32
"""Characters of a fingerprint."""


@dataclass(frozen=True)
class Compared:
    """`people`: those to look at, by id, with what is known of each. `unmatched`: fingerprints of nobody any more."""

    size: int
    unchanged: int
    people: dict[str, dict[str, Any]]
    fingerprints: dict[str, str]
    unmatched: list[str]


def compare(sync: Sync, people: pa.Table, held: str, refused: Collection[str] = ()) -> Compared:
    """Tell the members that are as the destination has them from the others.

    `people`: one row per member, `person_id` and what the mapping names. `held`: the fingerprints of all that the
    destination surely holds, one after the other. Members with one key, or none, and those `refused` are never
    unchanged.
    """
    import duckdb

    names = sorted({name for name in sync.mapping.values() if name in people.column_names} | {"person_id"})
    people = people.select(names)
    key = sync.mapping[sync.key]
    comparable = key in names and _says_itself(people.schema.field(key).type)
    raw = held.encode()
    known = pa.FixedSizeBinaryArray.from_buffers(pa.binary(WIDTH), len(raw) // WIDTH, [None, pa.py_buffer(raw)])
    with duckdb.connect() as connection:
        connection.register("people", people)
        connection.register("known", pa.table({"fingerprint": known.cast(pa.binary()).cast(pa.string())}))
        connection.register("refused", pa.table({"person_id": pa.array(list(refused), pa.string())}))
        # What is sent of somebody who moves is of no account once it is sent.
        said = ["person_id", key] if sync.mode in ("append", "event") and comparable else names
        row = ", ".join(f"""'{name}': "{name}\"""" for name in said)
        connection.execute(
            f"""CREATE TEMP TABLE marked AS SELECT person_id, {f'CAST("{key}" AS VARCHAR)' if comparable else "NULL"} AS
            key, md5($1 || CAST(to_json({{{row}}}) AS VARCHAR)) AS fingerprint FROM people""",
            [_meaning(sync, people.schema)],
        )
        connection.execute(
            """CREATE TEMP TABLE same AS SELECT person_id, fingerprint FROM marked
            SEMI JOIN known USING (fingerprint)
            ANTI JOIN refused USING (person_id)
            ANTI JOIN (SELECT key FROM marked GROUP BY key HAVING count(*) > 1) AS shared USING (key)
            WHERE key <> ''"""
        )
        unchanged = connection.sql("SELECT count(*) FROM same").fetchall()[0][0]
        rest = connection.sql("SELECT people.* FROM people ANTI JOIN same USING (person_id)").to_arrow_table()
        prints = connection.sql("SELECT person_id, fingerprint FROM marked ANTI JOIN same USING (person_id)").fetchall()
        gone = connection.sql("SELECT fingerprint FROM known ANTI JOIN same USING (fingerprint)").fetchall()
    return Compared(
        size=people.num_rows,
        unchanged=unchanged,
        people={str(row["person_id"]): row for row in rest.to_pylist()},
        fingerprints=dict(prints),
        unmatched=[one for (one,) in gone],
    )


def _says_itself(kind: pa.DataType) -> bool:
    """Whether a key of this type reads the same here and in Python."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)


def _meaning(sync: Sync, schema: pa.Schema) -> str:
    """What the values mean: the same values under another mapping or of another type are something else."""
    types = {name: str(schema.field(name).type) for name in schema.names}
    said = sync.model_dump(mode="json", include={"name", "mode", "key", "mapping", "nulls", "defaults"})
    return json.dumps([said, types], sort_keys=True)
