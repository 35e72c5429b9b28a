"""A million people scored in chunks: time beside the bare estimators, and memory

The people are the shop's own, each many times over, read from a file in batches; a process of its own scores them, so
that its memory is that of scoring. Seconds are of the processor: a busy machine makes them longer, the ratio hardly.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdp_pipeline.predictions.kind import Champion
from cdp_pipeline.predictions.kinds import kind_of
from cdp_pipeline.spec.prediction import Prediction
from cdp_pipeline.spec.project import Project
from prediction_sets.row import Row
from prediction_sets.shops import online_retail
from prediction_sets.windows import PURCHASE_60D

if TYPE_CHECKING:
    import pyarrow as pa

PEOPLE = 1_000_000
BATCH = 100_000
TURNS = 3


def rows(data: Path) -> Iterator[Row]:
    import joblib

    shop = online_retail(data)
    prediction = shop.project.predictions["purchase_60d"]
    kind, day = kind_of(prediction), PURCHASE_60D[-1]
    trained = kind.train(shop.training_set(prediction, day - prediction.horizon), prediction)
    known = kind.inputs(shop.known(prediction), prediction, shop.project, day).order_by("person_id").to_pyarrow()
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump((trained.scorer, prediction, shop.project, day), Path(folder) / "champion.joblib")
        for people in (PEOPLE // 10, PEOPLE):
            _write_people(known, people, Path(folder) / f"{people}.parquet")
        few, many = (_measured(Path(folder), people) for people in (PEOPLE // 10, PEOPLE))
    what, window = "scoring a million people", str(day)
    ratio = many["ours"] / many["bare"]
    yield Row(
        what, window, "processor seconds", many["ours"], "logistic and trees alone", many["bare"],
        demanded="at most 1.2 times", met=ratio <= 1.2,
    )  # fmt: skip
    yield Row(what, window, "times the bare estimators", ratio, demanded="at most 1.2", met=ratio <= 1.2)
    yield Row(
        what, window, "most memory, MiB", many["mib"], "a hundred thousand people", few["mib"],
        demanded="at most 2048", met=many["mib"] <= 2048,
    )  # fmt: skip


def _write_people(known: pa.Table, people: int, path: Path) -> None:
    """The people of today over and over under names of their own; those some days ago are there once."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    before, today = known.filter(pc.is_valid(known["_soon"])), known.filter(pc.is_null(known["_soon"]))
    with pq.ParquetWriter(path, known.schema) as file:
        file.write_table(before)
        for copy, start in enumerate(range(0, people, today.num_rows)):
            part = today.slice(0, min(today.num_rows, people - start))
            ids = pc.binary_join_element_wise(part["person_id"], pa.scalar(f"{copy:06}"), "-")
            file.write_table(part.set_column(0, "person_id", ids))


def _measured(folder: Path, people: int) -> dict[str, float]:
    found = subprocess.run(
        [sys.executable, "-m", "prediction_sets.scale", str(folder), str(people)],
        cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(found.stdout)


def _measure(folder: Path, people: int) -> dict[str, float]:
    """The least of some turns each: seconds of ours and of the bare estimators, and the most memory of all of it."""
    import resource

    import joblib
    import pyarrow.parquet as pq

    scorer, prediction, project, day = joblib.load(folder / "champion.joblib")
    file = pq.ParquetFile(folder / f"{people}.parquet")
    ours, bare = [], []
    for _ in range(TURNS):
        ours.append(_ours(file, scorer, prediction, project, day, people))
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for _ in range(TURNS):
        bare.append(_bare(file, scorer))
    return {"ours": min(ours), "bare": min(bare), "mib": mib}


def _batches(file: Any) -> Iterator[pa.Table]:
    import pyarrow as pa

    for batch in file.iter_batches(BATCH):
        yield pa.Table.from_batches([batch])


def _ours(file: Any, scorer: Any, prediction: Prediction, project: Project, day: date, people: int) -> float:
    """From the first batch read to the last row ranked, in words."""
    import pyarrow as pa

    reader = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(BATCH))
    begun = time.process_time()
    scored = kind_of(prediction).score(reader, Champion("1", scorer), prediction, project, day)
    took = time.process_time() - begun
    assert scored.num_rows == people
    return took


def _bare(file: Any, scorer: Any) -> float:
    """Only what the two estimators take of values that are ready."""
    took = 0.0
    for rows in _batches(file):
        values = scorer.model.inputs(rows)
        begun = time.process_time()
        scorer.model.odds(values)
        took += time.process_time() - begun
    return took


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))
