"""Scores of a day: a probability, rank, band and reasons for everybody in the population, in chunks at flat memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import TYPE_CHECKING

from cdp_pipeline.lake.table import Table
from cdp_pipeline.predictions.kind import Champion
from cdp_pipeline.predictions.level import Level, log_odds
from cdp_pipeline.predictions.logistic import sigmoid
from cdp_pipeline.predictions.tables import scores_table_of
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
    return scores_table_of(prediction, f"Probability within the next {prediction.horizon.days} days, 0 to 1.")


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

    table, before, parts = scores_table(prediction), [], []
    for rows in chunks(features, chunk):
        asked = pc.is_null(rows["_soon"])
        if not pc.all(asked).as_py():
            before.append(rows.filter(pc.invert(asked)))
            rows = rows.filter(asked)
        parts.append(_foreseen(rows, champion))
    moved = 0.0
    if before and champion.scorer is not None:
        moved = champion.scorer.moved(pa.concat_tables(before).sort_by("person_id"))
    parts = [_at_the_level_of_now(rows, moved, champion) for rows in parts]
    said = words(prediction, project)
    return finished(parts, champion, prediction, table, day, lambda rows: _reasons(rows, champion, said))


def finished(
    parts: list[pa.Table],
    champion: Champion,
    prediction: Prediction,
    table: Table,
    day: date,
    reasons: Callable[[pa.Table], pa.Array] | None = None,
) -> pa.Table:
    """The rows of a scores table from chunks that have person_id and score, and what else the table has.

    `reasons` puts them in words where the chunks do not have them: once they are in order, some at a time.
    """
    import numpy as np
    import pyarrow as pa

    schema = table.schema.to_pyarrow()
    if not parts:
        return schema.empty_table()
    # Sorted in one piece: comparing across chunks takes twice as long.
    rows = pa.concat_tables(parts).combine_chunks().sort_by([("score", "descending"), ("person_id", "ascending")])
    count = rows.num_rows
    columns = {name: rows[name] for name in rows.column_names} | {
        "day": pa.array(np.full(count, np.datetime64(day, "D"))),
        "rank": pa.array(np.arange(1, count + 1)),
        "band": bands(rows["score"].to_numpy(), prediction),
        "model_version": pa.array([champion.version], pa.string()).take(pa.array(np.zeros(count, dtype=np.int8))),
    }
    if reasons is not None:
        columns["reasons"] = pa.chunked_array([reasons(part) for part in chunks(rows)], pa.string())
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


def _foreseen(rows: pa.Table, champion: Champion) -> pa.Table:
    """Log-odds at the level of training, their basis and what they rest on: all that takes a person's features."""
    import numpy as np
    import pyarrow as pa

    columns = {name: rows[name] for name in ("person_id", "_season")}
    if champion.scorer is None:
        odds = log_odds(np.full(rows.num_rows, champion.prior.get("rate", 0.5)))
        return pa.table(columns | {"odds": odds, "new": np.ones(rows.num_rows, dtype=bool)})
    odds, new, values, given = champion.scorer.explained(rows)
    return pa.table(columns | {"odds": odds, "new": new} | _largest_of(given, values))


def _at_the_level_of_now(rows: pa.Table, moved: float, champion: Champion) -> pa.Table:
    """The same with probabilities, rounded, so that the last bit of a sum never reorders people."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    odds = rows["odds"].to_numpy()
    level: Level | None = None if champion.scorer is None else champion.scorer.level
    chance = sigmoid(odds) if level is None else level.probability(odds, moved, rows["_season"].to_numpy())
    rows = rows.drop_columns(["odds", "_season"]).append_column("score", pa.array(np.round(chance, 6)))
    return rows.append_column("basis", pc.if_else(rows["new"], "prior", "model"))


def _reasons(rows: pa.Table, champion: Champion, said: dict[str, str]) -> pa.Array:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if champion.scorer is None:
        return pa.array(np.full(rows.num_rows, f"the rate of everybody: {champion.why_prior}"), pa.string())
    told = _told(rows, [said.get(name, name) for name in champion.scorer.model.linear.features])
    return pc.if_else(rows["new"], "too new for a personal score: the rate of newcomers", told).combine_chunks()


def reasons_of(given: np.ndarray, said: list[str], values: np.ndarray) -> pa.Array:
    """The largest of the contributions `given` (rows × features), each in words, with its value and its direction."""
    import pyarrow as pa

    return _told(pa.table(_largest_of(given, values)), said).combine_chunks()


def _largest_of(given: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    """Which feature each of the largest contributions is of, its value, and whether it raises."""
    import numpy as np

    columns = {}
    for place, which in enumerate(_largest(np.abs(given)).T):
        at = which[:, None]
        columns[f"which_{place}"] = which.astype("int16")
        columns[f"value_{place}"] = np.round(np.take_along_axis(values, at, axis=1)[:, 0], 2)
        columns[f"raises_{place}"] = np.take_along_axis(given, at, axis=1)[:, 0] > 0
    return columns


def _told(rows: pa.Table, said: list[str]) -> pa.ChunkedArray:
    """Those in words."""
    import pyarrow as pa
    import pyarrow.compute as pc

    named, parts = pa.array([f"{name}: " for name in said]), []
    for place in range(sum(name.startswith("which_") for name in rows.column_names)):
        raises = pc.if_else(rows[f"raises_{place}"], " (raises)", " (lowers)")
        parts += [named.take(rows[f"which_{place}"]), text(rows[f"value_{place}"].to_numpy()), raises, "; "]
    return pc.binary_join_element_wise(*parts[:-1], "")


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
