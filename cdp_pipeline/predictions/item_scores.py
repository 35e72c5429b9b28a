"""Scores of people × items: their table, people in chunks, and ranks within each person. Models are elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from cdp_pipeline.lake.table import Table
from cdp_pipeline.predictions.kind import Champion
from cdp_pipeline.predictions.scores import CHUNK, bands, chunks
from cdp_pipeline.predictions.windows import card_of
from cdp_pipeline.spec.prediction import Prediction

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def whole_people(rows: pa.Table | pa.RecordBatchReader, size: int = CHUNK) -> Iterator[pa.Table]:
    """The rows in chunks of about `size` that never part a person; a reader's rows must come person by person."""
    import pyarrow as pa

    if isinstance(rows, pa.Table):
        rows = rows.sort_by([("person_id", "ascending"), ("item", "ascending")])
    rest = None
    for chunk in chunks(rows, size):
        together = chunk if rest is None else pa.concat_tables([rest, chunk])
        people = together["person_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        last = int((people != people[-1]).sum())
        rest = together.slice(last)
        if last:
            yield together.slice(0, last)
    if rest is not None and rest.num_rows:
        yield rest


def ranked(parts: Sequence[pa.Table], table: Table, champion: Champion, prediction: Prediction, day: date) -> pa.Table:
    """The rows of `table` from (person_id, item, score, basis, reasons), best first within each person."""
    import numpy as np
    import pyarrow as pa

    schema = table.schema.to_pyarrow()
    if not parts:
        return schema.empty_table()
    rows = pa.concat_tables(parts)
    rows = rows.set_column(2, "score", pa.array(np.round(rows["score"].to_numpy(), 6)))
    rows = rows.sort_by([("person_id", "ascending"), ("score", "descending"), ("item", "ascending")])
    count = rows.num_rows
    columns = {
        "person_id": rows["person_id"],
        "day": pa.array(np.full(count, np.datetime64(day, "D"))),
        "item": rows["item"],
        "score": rows["score"],
        "rank": pa.array(_places(rows["person_id"])),
        "band": bands(rows["score"].to_numpy(), prediction),
        "basis": rows["basis"],
        "reasons": rows["reasons"],
        "model_version": pa.array([champion.version], pa.string()).take(pa.array(np.zeros(count, dtype=np.int8))),
    }
    return pa.table(columns).cast(schema)


def by_item_rates(rows: pa.Table) -> dict[str, float]:
    """How often it happens with each item, for people of whom nothing else can be said."""
    found = rows.group_by("item").aggregate([("label", "mean")]).sort_by("item")
    return {row["item"]: round(row["label_mean"], 6) for row in found.to_pylist()}


def rated(rows: pa.Table, champion: Champion) -> pa.Table:
    """(person_id, item, score, basis, reasons) where there is no model: everybody's rate of each item."""
    import pyarrow as pa

    rates = champion.prior.get("rate", {})
    usual = sum(rates.values()) / len(rates) if rates else 0.5
    return pa.table(
        {
            "person_id": rows["person_id"],
            "item": rows["item"],
            "score": pa.array([rates.get(item, usual) for item in rows["item"].to_pylist()], pa.float64()),
            "basis": pa.array(["prior"] * rows.num_rows, pa.string()),
            "reasons": pa.array([f"the rate of everybody: {champion.why_prior}"] * rows.num_rows, pa.string()),
        }
    )


def item_card(past: pa.Table, test: pa.Table, seed: int, recipe: str, features: Sequence[str]) -> dict[str, Any]:
    """What a card says of every model of people and items."""
    import pyarrow.compute as pc

    return card_of(past, test, seed, recipe, pc.sum(past["label"]).as_py() or 0, features)


def _places(people: pa.ChunkedArray) -> np.ndarray:
    """1, 2, 3, … within each run of one person."""
    import numpy as np

    codes = people.combine_chunks().dictionary_encode().indices.to_numpy()
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]) if len(codes) else np.array([], dtype=int)
    place = np.arange(len(codes))
    return place - np.repeat(starts, np.diff(np.r_[starts, len(codes)])) + 1
