"""Model versions: a folder per version beside the lake, a row per version in `predictions.models`, one champion each.

Which version scores is the row with status 'champion'; a file is only loaded when its hash is the row's.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.predictions.kind import Champion, definition_of
from cdp_pipeline.predictions.kinds import INHERITING, kind_of
from cdp_pipeline.predictions.model import matrix
from cdp_pipeline.spec.prediction import Prediction

if TYPE_CHECKING:
    import pyarrow as pa

MODELS = Table(
    name="predictions.models",
    description="Every version of every model: what it learned from, how it did, and which one scores (the champion).",
    columns={
        "name": Column("string", "The prediction."),
        "version": Column("string", "Made from the training data and the declaration: the same for the same inputs."),
        "status": Column("string", "champion, retired, rejected (failed a gate), insufficient (too little data)."),
        "metrics": Column("string", "JSON: metrics on the newest fully labelled window."),
        "trained_at": Column("timestamp(6)", "When it was trained (UTC)."),
        "promoted_at": Column("timestamp(6)", "When it was last made the champion (UTC); null where it never was."),
        "card": Column("string", "JSON: cut-offs, features, gates, seed, library versions, lake snapshot."),
        "sha256": Column("string", "Hash of the model file; null where there is no model."),
    },
    key=("name", "version"),
)


class ModelTamperedError(RuntimeError):
    """A model file is missing or is not the one that was registered."""


@dataclass(frozen=True)
class Renewal:
    """A training run's outcome: the version's row of `predictions.models`, and the champion it was judged against.

    Whether a version that passed becomes champion is decided when it is registered (champions.admitted).
    """

    row: dict[str, Any]
    rival: str | None

    @property
    def version(self) -> str:
        return self.row["version"]

    @property
    def status(self) -> str:
        return self.row["status"]

    @property
    def metrics(self) -> dict[str, float]:
        return json.loads(self.row["metrics"])

    @property
    def card(self) -> dict[str, Any]:
        return json.loads(self.row["card"])


def definition(prediction: Prediction) -> str:
    """Fingerprint of what is foreseen, for whom; a model of another definition never scores."""
    return hashlib.sha256(definition_of(prediction).encode()).hexdigest()[:16]


def version_of(training: pa.Table, prediction: Prediction, seed: int = 0) -> str:
    """The newest cut-off and a fingerprint of training data, declaration and recipe."""
    import pyarrow as pa

    keys = [name for name in ("day", "person_id", "item") if name in training.column_names]
    ordered = training.select(sorted(training.column_names)).sort_by([(name, "ascending") for name in keys])
    digest = hashlib.sha256(prediction.model_dump_json(exclude={"description", "owner", "bands"}).encode())
    digest.update(
        json.dumps([kind_of(prediction).RECIPE, seed, installed("scikit-learn"), ordered.column_names]).encode()
    )
    for name in ordered.column_names:
        if pa.types.is_floating(ordered.schema.field(name).type) or pa.types.is_integer(
            ordered.schema.field(name).type
        ):
            digest.update(matrix(ordered, (name,)).tobytes())
        else:
            digest.update("\0".join(map(str, ordered[name].to_pylist())).encode())
    newest = str(max(ordered["day"].to_pylist())) if ordered.num_rows else "empty"
    return f"{newest}-{digest.hexdigest()[:12]}"


def renew(
    training: pa.Table,
    prediction: Prediction,
    models: pa.Table,
    folder: Path,
    now: datetime,
    snapshot: int | None = None,
    seed: int = 0,
) -> Renewal:
    """Train, judge and keep the model, a champion to be where every gate passes. A version known before stays as it is.

    `models` holds the rows of MODELS so far, `folder` is the lake's `models` folder. The model file is written before
    its row is published, so that a crash between leaves at most a folder nobody points to.
    """
    import joblib

    version = version_of(training, prediction, seed)
    rows = [row for row in models.to_pylist() if row["name"] == prediction.name]
    rival = next((row["version"] for row in rows if row["status"] == "champion"), None)
    for row in rows:
        if row["version"] == version:
            return Renewal(row, rival)
    reigning = champion(prediction, models, folder, training.column_names)
    kind = kind_of(prediction)
    before = reigning.scorer if prediction.type in INHERITING else _comparable(reigning, rows, training)
    trained = kind.train(training, prediction, seed, before)
    gates = kind.judge(trained, prediction)
    promoted = all(gate.passed for gate in gates)
    card = trained.card | {
        "name": prediction.name,
        "version": version,
        "definition": definition(prediction),
        "horizon_days": prediction.labelled.days,
        "prior": trained.prior,
        "missing": trained.missing,
        "gates": [asdict(gate) for gate in gates],
        "snapshot": snapshot,
        "versions": {name: installed(name) for name in ("scikit-learn", "numpy", "scipy", "pyarrow")},
    }
    sha256 = None
    with _new_folder(folder / prediction.name / version) as place:
        if trained.scorer is not None:
            joblib.dump(trained.scorer, place / "model.joblib")
            sha256 = _hash(place / "model.joblib")
        text = json.dumps(card | {"metrics": trained.metrics, "sha256": sha256}, indent=2, sort_keys=True)
        (place / "card.json").write_text(text + "\n")
    status = "insufficient" if trained.missing else "champion" if promoted else "rejected"
    row = {
        "name": prediction.name,
        "version": version,
        "status": status,
        "metrics": json.dumps(trained.metrics, sort_keys=True),
        "trained_at": now.astimezone(UTC).replace(tzinfo=None),
        "promoted_at": now.astimezone(UTC).replace(tzinfo=None) if status == "champion" else None,
        "card": json.dumps(card, sort_keys=True),
        "sha256": sha256,
    }
    return Renewal(row, rival)


def champion(prediction: Prediction, models: pa.Table, folder: Path, available: list[str]) -> Champion:
    """The champion of a prediction, if it foresees what is declared now from features that still exist.

    Without one there is what the newest training knew all the same (its prior), and why.
    """
    same = definition(prediction)
    rows = [
        (row, card)
        for row in models.to_pylist()
        if row["name"] == prediction.name and (card := json.loads(row["card"]))["definition"] == same
    ]
    for row, card in rows:
        if row["status"] == "champion" and set(card["features"]) <= set(available):
            return Champion(row["version"], load(folder, row["name"], row["version"], row["sha256"]))
    if not rows:
        return Champion(None, None, "nothing was trained yet")
    row, card = max(rows, key=lambda item: (item[0]["trained_at"], item[0]["version"]))
    failed = [gate["words"] for gate in card["gates"] if not gate["passed"]]
    why = "; ".join(failed) or "the champion needs features that are no longer there"
    return Champion(row["version"], None, why, card["prior"])


def load(folder: Path, name: str, version: str, sha256: str) -> Any:
    """The scorer of a version, if its file is the one registered (it is a pickle: never load another)."""
    import io

    import joblib

    path = folder / name / version / "model.joblib"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelTamperedError(f"{name} {version}: its file model.joblib is gone; train again or roll back") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelTamperedError(
            f"{name} {version}: model.joblib has hash {found[:12]}…, registered was {str(sha256)[:12]}…; "
            "restore the file, train again or roll back"
        )
    return joblib.load(io.BytesIO(content))


def _comparable(reigning: Champion, rows: list[dict], training: pa.Table) -> Any | None:
    """The champion's scorer, if its own training had ended before this test window begins."""
    card = next((json.loads(row["card"]) for row in rows if row["version"] == reigning.version), None)
    if reigning.scorer is None or card is None or training.num_rows == 0:
        return None
    newest = max(datetime.fromisoformat(day).date() for day in card["train_cutoffs"])
    ends = newest + timedelta(days=card["horizon_days"])
    return reigning.scorer if ends <= max(training["day"].to_pylist()) else None


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _same(draft: Path, place: Path) -> bool:
    """Whether the model already in place is the one just made."""
    made, there = draft / "model.joblib", place / "model.joblib"
    return made.exists() and there.exists() and _hash(made) == _hash(there)


class _new_folder:
    """A folder filled under another name and put in place whole, or not at all.

    Two runs that train one version at once write the same bytes, so whoever comes first is as good as the other.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def __enter__(self) -> Path:
        self.place.parent.mkdir(parents=True, exist_ok=True)
        self.draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.place.parent))
        return self.draft

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self.draft)
            return
        if _same(self.draft, self.place):
            shutil.rmtree(self.draft)
            return
        shutil.rmtree(self.place, ignore_errors=True)
        self.draft.replace(self.place)
