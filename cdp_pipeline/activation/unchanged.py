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
import pyarrow.compute as pc

if TYPE_CHECKING:
    from cdp_pipeline.spec.sync import Sync

WIDTH = 16
"""Characters of a fingerprint: 64 bits, of which a changed row has one chance in 10^13 to meet one of a million."""


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
    import numpy as np

    names = sorted({name for name in sync.mapping.values() if name in people.column_names} | {"person_id"})
    people = people.select(names)
    key = sync.mapping[sync.key]
    comparable = key in names and _says_itself(people.schema.field(key).type)
    # What is sent of somebody who moves is of no account once it is sent.
    said = ["person_id", key] if sync.moves and comparable else names
    with duckdb.connect() as connection:
        connection.register("people", people)
        each, other = ", ".join(f'"{name}"' for name in said), key if comparable else "person_id"
        query = f'SELECT hash($1, {each}) AS prints, hash("{other}") AS keys FROM people'
        found = connection.execute(query, [_meaning(sync, people.schema, duckdb.__version__)]).fetchnumpy()
    prints, known = found["prints"], np.frombuffer(bytes.fromhex(held), ">u8").astype("u8")
    # Whom only one side has, by sorting both: they are few, and looking a million up in a million takes far longer.
    either = np.sort(np.concatenate([prints, known]))
    twice = either[1:] == either[:-1]
    alone = either[~(np.append(twice, False) | np.append(False, twice))[: len(either)]]  # There may be nobody at all.
    same = ~_among(prints, alone) if comparable else np.zeros(len(prints), bool)
    if comparable:
        keys = np.sort(found["keys"])
        same &= ~_among(found["keys"], keys[1:][keys[1:] == keys[:-1]])
        same &= pc.fill_null(pc.not_equal(pc.cast(people[key], pa.string()), ""), False).to_numpy()
    if refused:
        same &= ~pc.is_in(people["person_id"], pa.array(list(refused), pa.string())).to_numpy()
    rest = people.filter(pa.array(~same)).to_pylist()
    return Compared(
        size=people.num_rows,
        unchanged=int(same.sum()),
        people={str(row["person_id"]): row for row in rest},
        fingerprints={str(row["person_id"]): f"{one:016x}" for row, one in zip(rest, prints[~same], strict=True)},
        unmatched=[f"{one:016x}" for one in known[_among(known, alone) | _among(known, prints[~same])]],
    )


def _among(values: Any, few: Any) -> Any:
    return pc.is_in(pa.array(values), pa.array(few, pa.uint64())).to_numpy(zero_copy_only=False)


def _says_itself(kind: pa.DataType) -> bool:
    """Whether a key of this type reads the same here and in Python."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)


def _meaning(sync: Sync, schema: pa.Schema, version: str) -> str:
    """What the values mean: under another mapping, of another type, by another DuckDB they are something else."""
    types = {name: str(schema.field(name).type) for name in schema.names}
    said = sync.model_dump(mode="json", include={"name", "mode", "key", "mapping", "nulls", "defaults"})
    return json.dumps([said, types, version], sort_keys=True)
