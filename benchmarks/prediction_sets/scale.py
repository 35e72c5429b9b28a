"""A million people scored in chunks: time beside the bare estimators, and memory

The people are the shop's own, each many times over, read from a file in batches; a process of its own scores them, so
that its memory is that of scoring. Seconds are of the processor: a busy machine makes them longer, the ratio hardly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
    import pyarrow.compute as pc
    from sklearn.ensemble import HistGradientBoostingClassifier

    shop = online_retail(data)
    prediction = shop.project.predictions["purchase_60d"]
    kind, day = kind_of(prediction), PURCHASE_60D[-1]
    past = shop.training_set(prediction, day - prediction.horizon)
    trained = kind.train(past, prediction)
    learned = past.filter(pc.equal(past["split"], "train"))
    values, label = trained.scorer.model.inputs(learned), learned["label"].to_numpy()
    large = HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=15, random_state=0).fit(values, label)
    known = kind.inputs(shop.known(prediction), prediction, shop.project, day).order_by("person_id").to_pyarrow()
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump((trained.scorer, large, prediction, shop.project, day), Path(folder) / "champion.joblib")
        for people in (PEOPLE // 10, PEOPLE):
            _write_people(known, people, Path(folder) / f"{people}.parquet")
        few, many = (_measured(Path(folder), people) for people in (PEOPLE // 10, PEOPLE))
    what, window = "scoring a million people", str(day)
    for rival, said in (("bare", "its estimators alone, called one by one"), ("large", "100 trees of 15 leaves alone")):
        yield Row(
            what, window, "processor seconds", many["ours"], said, many[rival],
            demanded="at most 1.2 times", met=many["ours"] <= 1.2 * many[rival],
        )  # fmt: skip
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
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # waiting threads would count as work
    )  # fmt: skip
    return json.loads(found.stdout)


def _measure(folder: Path, people: int) -> dict[str, float]:
    """The least of some turns each: seconds of ours and of the bare estimators, and the most memory of all of it."""
    import joblib

    scorer, large, prediction, project, day = joblib.load(folder / "champion.joblib")
    path = folder / f"{people}.parquet"
    ours = [_ours(path, scorer, prediction, project, day, people) for _ in range(TURNS)]
    mib = _most_memory()
    bare = {
        "bare": lambda rows: _alone(scorer, rows),
        "large": lambda rows: large.predict_proba(scorer.model.inputs(rows)),
    }
    least = {name: min(_bare(path, says) for _ in range(TURNS)) for name, says in bare.items()}
    return {"ours": min(ours), "mib": mib, **least}


def _most_memory() -> float:
    """MiB of this process at most. Not `ru_maxrss`: that starts with what the parent had, and the parent trained."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


class _Reader:
    """Batches of a file, and the seconds that reading them took: no part of scoring."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.file, self.took = pq.ParquetFile(path), 0.0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        batches = self.file.iter_batches(BATCH)
        while True:
            begun = time.process_time()
            batch = next(batches, None)
            self.took += time.process_time() - begun
            if batch is None:
                return
            yield batch


def _ours(path: Path, scorer: Any, prediction: Prediction, project: Project, day: date, people: int) -> float:
    """From the first batch to the last row: probability, rank, band and reasons in words."""
    import pyarrow as pa

    reader, begun = _Reader(path), time.process_time()
    rows = pa.RecordBatchReader.from_batches(reader.file.schema_arrow, iter(reader))
    scored = kind_of(prediction).score(rows, Champion("1", scorer), prediction, project, day)
    took = time.process_time() - begun - reader.took
    assert scored.num_rows == people
    return took


def _alone(scorer: Any, rows: pa.Table) -> None:
    """The logistic and the trees, each asked for its probabilities; of the trees as scikit-learn gives them."""
    values = scorer.model.inputs(rows)
    scorer.model.linear.probability(values)
    scorer.model.trees.predict_proba(values)


def _bare(path: Path, says: Callable[[pa.Table], Any]) -> float:
    """Only what an estimator takes to say something of every row."""
    import pyarrow as pa

    reader, begun = _Reader(path), time.process_time()
    for batch in reader:
        says(pa.Table.from_batches([batch]))
    return time.process_time() - begun - reader.took


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))
