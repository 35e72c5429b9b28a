"""Scores of a day: a probability, rank, band and reasons for everybody in the population, in chunks at flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.predictions.kind import Champion
from cdp_pipeline.predictions.level import Level, log_odds, sigmoid
from cdp_pipeline.predictions.training import words
from cdp_pipeline.spec.prediction import Binary, Prediction
from cdp_pipeline.spec.project import Project

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

CHUNK = 100_000
REASONS = 3


def scores_table(prediction: Binary) -> Table:
    """`predictions.<name>`: one score per person and day."""
    return Table(
        name=f"predictions.{prediction.name}",
        description=prediction.description,
        columns={
            "person_id": Column("string", "The person."),
            "day": Column("date", "As of the end of this day."),
            "score": Column("float64", f"Probability within the next {prediction.horizon.days} days, 0 to 1."),
            "rank": Column("int64", "1 is the highest score of the day."),
            "band": Column("string", "The named range the score falls into."),
            "basis": Column("string", "model: personal; prior: a known rate, where nothing personal can be said."),
            "reasons": Column("string", "What raises or lowers the score most, in words."),
            "model_version": Column("string", "The version in predictions.models that said so."),
        },
        key=("person_id", "day"),
        month_of="day",
    )


def score(
    features: pa.Table | pa.RecordBatchReader,
    champion: Champion,
    prediction: Binary,
    project: Project,
    day: date,
    chunk: int = CHUNK,
) -> pa.Table:
    """The rows of `scores_table` for one day, best first; equal scores are ranked by person id.

    Rows that have `_soon` are of people some days ago: they say how likely people are on the whole just now.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    said, table = words(prediction, project), scores_table(prediction)
    parts = [_scored(rows, champion, said) for rows in chunks(features, chunk)]
    if not parts:
        return table.schema.to_pyarrow().empty_table()
    found = pa.concat_tables(parts)
    before = found.filter(pc.is_valid(found["_soon"])).sort_by("person_id")
    rows = found.filter(pc.is_null(found["_soon"]))
    rows = rows.append_column("score", pa.array(_at_the_level_of_now(rows, before, champion)))
    return finished([rows], champion, prediction, table, day)


def finished(parts: list[pa.Table], champion: Champion, prediction: Prediction, table: Table, day: date) -> pa.Table:
    """The rows of a scores table from chunks that have person_id and score, and what else the table has."""
    import numpy as np
    import pyarrow as pa

    schema = table.schema.to_pyarrow()
    if not parts:
        return schema.empty_table()
    rows = pa.concat_tables(parts).sort_by([("score", "descending"), ("person_id", "ascending")])
    count = rows.num_rows
    columns = {name: rows[name] for name in rows.column_names} | {
        "day": pa.array(np.full(count, np.datetime64(day, "D"))),
        "rank": pa.array(np.arange(1, count + 1)),
        "band": bands(rows["score"].to_numpy(), prediction),
        "model_version": pa.array([champion.version], pa.string()).take(pa.array(np.zeros(count, dtype=np.int8))),
    }
    return pa.table({name: columns[name] for name in table.columns}).cast(schema)


def chunks(features: pa.Table | pa.RecordBatchReader, size: int = CHUNK) -> Iterator[pa.Table]:
    """The rows in tables of at most so many."""
    import pyarrow as pa

    if isinstance(features, pa.Table):
        yield from (features.slice(start, size) for start in range(0, features.num_rows, size))
        return
    for batch in features:
        table = pa.Table.from_batches([batch])
        yield from (table.slice(start, size) for start in range(0, table.num_rows, size))


def _scored(rows: pa.Table, champion: Champion, said: dict[str, str]) -> pa.Table:
    """Log-odds at the level of training, their basis and reasons: what takes a person's features to know."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if champion.scorer is None:
        odds = log_odds(np.full(rows.num_rows, champion.prior.get("rate", 0.5)))
        prior = pa.array(np.ones(rows.num_rows, dtype=bool))
        why = pa.array(np.full(rows.num_rows, f"the rate of everybody: {champion.why_prior}"), pa.string())
    else:
        odds, new, values, given = champion.scorer.explained(rows)
        prior = pa.array(new)
        told = "too new for a personal score: the rate of newcomers"
        names = [said.get(name, name) for name in champion.scorer.model.linear.features]
        why = pc.if_else(prior, told, reasons_of(given, names, values))
    columns = {name: rows[name] for name in ("person_id", "_soon", "_season")}
    return pa.table(columns | {"odds": odds, "basis": pc.if_else(prior, "prior", "model"), "reasons": why})


def _at_the_level_of_now(rows: pa.Table, before: pa.Table, champion: Champion) -> np.ndarray:
    """Probabilities, rounded, so that the last bit of a sum never reorders people."""
    import numpy as np

    odds = rows["odds"].to_numpy()
    if champion.scorer is None:
        return np.round(sigmoid(odds), 6)
    level: Level = champion.scorer.level
    moved = level.moved(before["odds"].to_numpy(), before["_soon"].to_numpy())
    return np.round(level.probability(odds, moved, rows["_season"].to_numpy()), 6)


def reasons_of(given: np.ndarray, said: list[str], values: np.ndarray) -> pa.Array:
    """The largest of the contributions `given` (rows × features), each in words, with its value and its direction."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    top = _largest(np.abs(given))
    named = pa.array(said)
    parts = []
    for place in range(top.shape[1]):
        which = top[:, place : place + 1]
        value = np.round(np.take_along_axis(values, which, axis=1)[:, 0], 2)
        raises = np.take_along_axis(given, which, axis=1)[:, 0] > 0
        parts.append(
            pc.binary_join_element_wise(
                named.take(pa.array(which[:, 0])),
                ": ",
                text(value),
                pa.array(np.where(raises, " (raises)", " (lowers)")),
                "",
            )
        )
    return pc.binary_join_element_wise(*parts, "; ")


def _largest(sizes: np.ndarray) -> np.ndarray:
    """The places of the REASONS largest of each row, largest first, of equal ones the first; `sizes` is used up."""
    import numpy as np

    rows, places = np.arange(len(sizes)), []
    for _ in range(min(REASONS, sizes.shape[1])):
        places.append(sizes.argmax(axis=1))
        sizes[rows, places[-1]] = -1
    return np.column_stack(places)


def text(value: np.ndarray) -> pa.Array:
    """Numbers as people write them: 6, 12.5, unknown."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    known = np.where(np.isnan(value), 0, value)
    whole = known == np.trunc(known)
    told = pc.if_else(
        pa.array(whole), pa.array(known.astype("int64")).cast(pa.string()), pa.array(known).cast(pa.string())
    )
    return pc.if_else(pa.array(np.isnan(value)), "unknown", told)


def bands(scores: np.ndarray, prediction: Prediction) -> pa.Array:
    """The last band whose threshold a score has reached; none below the first."""
    import numpy as np
    import pyarrow as pa

    ladder = sorted(prediction.bands, key=lambda band: band.above)
    reached = np.searchsorted(np.array([band.above for band in ladder]), scores, side="right")
    return pa.array([None, *(band.name for band in ladder)], pa.string()).take(pa.array(reached))
