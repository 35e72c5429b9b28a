"""Which version of a model scores: one champion a prediction, whoever promotes, rolls back or trains at the same time.

Decisions are pure functions over the rows of `predictions.models`; `decide` publishes one, and decides anew where
somebody else has written those rows in between. Training and files belong to registry.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from cdp_pipeline.lake import Lake, Note, Upsert
from cdp_pipeline.lake.errors import LakeMovedError
from cdp_pipeline.predictions.charts import HEADLINE
from cdp_pipeline.predictions.registry import MODELS, Renewal, definition, load
from cdp_pipeline.spec.base import unknown
from cdp_pipeline.spec.prediction import Prediction

Row: TypeAlias = dict[str, Any]
Decision: TypeAlias = Callable[[Sequence[Row]], list[Row]]
"""From the rows of MODELS to those that change."""

ATTEMPTS = 50


class PromotionError(ValueError):
    """A version that cannot be made the champion; the message says why and what to do."""


def decide(lake: Lake, decision: Decision, note: Note | None = None) -> list[Row]:
    """Publish what `decision` makes of the newest rows of MODELS; the rows that changed, in one transaction or none.

    Whoever comes second decides again on what the first has left, so that no decision is undone unseen.
    """
    import pyarrow as pa

    for attempt in range(ATTEMPTS):
        newest = lake.latest()
        changed = decision(lake.as_of(newest).read(MODELS).to_pyarrow().to_pylist())
        rows = pa.Table.from_pylist(changed, schema=MODELS.schema.to_pyarrow())
        try:
            lake.publish(Upsert(MODELS, rows, since=newest), note=note)
            return changed
        except LakeMovedError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def register(lake: Lake, renewed: Renewal, note: Note | None = None) -> Row:
    """Register a trained version, as a champion where it may be one; its row as it is now (see `admitted`)."""
    changed = decide(lake, lambda rows: admitted(rows, renewed.row, renewed.rival), note)
    return next((row for row in changed if row["version"] == renewed.version), renewed.row)


def admitted(rows: Sequence[Row], newcomer: Row, rival: str | None) -> list[Row]:
    """The rows that change when a newly trained version is registered; none where it was registered before.

    As a champion it takes the place of `rival`, the champion it was judged against. Where another has become champion
    since, that one stays, and the newcomer is rejected: it was never compared with it.
    """
    mine = _of(rows, newcomer["name"])
    if any(row["version"] == newcomer["version"] for row in mine):
        return []
    reigning = [row for row in mine if row["status"] == "champion"]
    if newcomer["status"] != "champion" or not reigning:
        return [newcomer]
    if [row["version"] for row in reigning] != [rival]:
        words = f"{reigning[0]['version']} became champion during the training; the next training is judged against it"
        card = json.loads(newcomer["card"])
        card["gates"].append({"name": "compared_with_the_champion", "passed": False, "words": words})
        return [newcomer | {"status": "rejected", "promoted_at": None, "card": json.dumps(card, sort_keys=True)}]
    return [*(row | {"status": "retired"} for row in reigning), newcomer]


def promoted(rows: Sequence[Row], prediction: Prediction, version: str, now: datetime) -> list[Row]:
    """The rows that change when a version is made the champion; none where it is.

    Only a version that passed every gate, and foresees what is declared now: whoever thinks that its gates ask too
    much changes the declaration and trains again. Raises PromotionError.
    """
    mine = _of(rows, prediction.name)
    chosen = next((row for row in mine if row["version"] == version), None)
    if chosen is None:
        there = ", ".join(row["version"] for row in mine) or "none: nothing was trained yet"
        raise PromotionError(f"{unknown(f'version of {prediction.name}', version, ())}, there are {there}")
    if chosen["status"] == "champion":
        return []
    said = f"{prediction.name} {version}"
    failed = [gate["words"] for gate in json.loads(chosen["card"])["gates"] if not gate["passed"]]
    if chosen["status"] == "insufficient":
        raise PromotionError(f"{said} is no model, its data were too few: {'; '.join(failed)}")
    if chosen["status"] == "rejected":
        raise PromotionError(
            f"{said} did not prove itself: {'; '.join(failed)}. If its gates ask too much, "
            "change them in the declaration and train again"
        )
    if json.loads(chosen["card"])["definition"] != definition(prediction):
        raise PromotionError(f"{said} foresees another question than '{prediction.name}' asks now: train again")
    return [*_deposed(mine), chosen | {"status": "champion", "promoted_at": _naive(now)}]


def rolled_back(rows: Sequence[Row], prediction: Prediction) -> list[Row]:
    """The rows that change when the champion that was promoted before the present one takes its place again.

    It keeps the time of its promotion: rolling back twice goes back two champions. Raises PromotionError.
    """
    mine = _of(rows, prediction.name)
    reigning = next((row for row in mine if row["status"] == "champion"), None)
    if reigning is None:
        raise PromotionError(f"{prediction.name} has no champion to go back from")
    same = definition(prediction)
    earlier = [
        row
        for row in mine
        if row["status"] == "retired"
        and _since(row) < _since(reigning)
        and json.loads(row["card"])["definition"] == same
    ]
    if not earlier:
        raise PromotionError(f"{prediction.name} {reigning['version']} had no champion before it that asks the same")
    return [*_deposed(mine), max(earlier, key=_since) | {"status": "champion"}]


def promote(lake: Lake, folder: Path, prediction: Prediction, version: str, now: datetime) -> list[Row]:
    """Make a version the champion, if its file is the one registered; the rows that changed (see `promoted`)."""
    note = Note(asset=f"cdp model promote {prediction.name} {version}")
    return decide(lake, lambda rows: _intact(promoted(rows, prediction, version, now), folder), note)


def roll_back(lake: Lake, folder: Path, prediction: Prediction) -> list[Row]:
    """Bring back the champion before, if its file is the one registered; the rows that changed (see `rolled_back`)."""
    note = Note(asset=f"cdp model rollback {prediction.name}")
    return decide(lake, lambda rows: _intact(rolled_back(rows, prediction), folder), note)


def listed(rows: Sequence[Row], name: str | None = None) -> list[Row]:
    """Every version, newest first within a prediction: name, version, status, proof, tested_on, trained_at."""
    chosen = [row for row in rows if name in (None, row["name"])]
    chosen.sort(key=lambda row: (row["trained_at"], row["version"]), reverse=True)
    return [
        {
            "name": row["name"],
            "version": row["version"],
            "status": row["status"],
            "proof": _proof(json.loads(row["metrics"])) or _first_failure(row),
            "tested_on": json.loads(row["card"]).get("test_cutoff"),
            "trained_at": row["trained_at"],
        }
        for row in sorted(chosen, key=lambda row: row["name"])
    ]


def card_of(rows: Sequence[Row], name: str, version: str | None = None) -> Row:
    """All that is known of a version (default: the champion, else the newest): its row, metrics and card unpacked."""
    mine = sorted(_of(rows, name), key=lambda row: (row["status"] == "champion", row["trained_at"]))
    if not mine:
        raise PromotionError(f"{name}: nothing was trained yet; cdp run '+key:\"predictions/{name}_model\"' does")
    found = [row for row in mine if version in (None, row["version"])]
    if not found:
        raise PromotionError(unknown(f"version of {name}", version, [row["version"] for row in mine]))
    row = found[-1]
    return row | {"metrics": json.loads(row["metrics"]), "card": json.loads(row["card"])}


def flat_card(found: Row) -> Iterator[tuple[str, str, Any]]:
    """A version's card as lines: section, name, value. Curves and shares by bin are for the charts."""
    for column in ("trained_at", "promoted_at", "sha256"):
        yield "version", column.replace("_", " "), found[column]
    for name, value in found["card"].items():
        if isinstance(value, str | int | float):
            yield "card", name.replace("_", " "), value
    yield "card", "train cutoffs", ", ".join(found["card"].get("train_cutoffs", []))
    for gate in found["card"]["gates"]:
        yield "gate", gate["name"].replace("_", " "), f"{'passed' if gate['passed'] else 'FAILED'}: {gate['words']}"
    for name, value in found["metrics"].items():
        yield "metric", name.replace("_", " "), value
    for name, value in found["card"].get("importance", {}).items():
        yield "leans on", name, value


def _intact(changed: list[Row], folder: Path) -> list[Row]:
    """The rows, once the file of the one that is to score has been found to be the one registered."""
    for row in changed:
        if row["status"] == "champion":
            load(folder, row["name"], row["version"], row["sha256"])
    return changed


def _of(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if row["name"] == name]


def _deposed(mine: Sequence[Row]) -> list[Row]:
    return [row | {"status": "retired"} for row in mine if row["status"] == "champion"]


def _since(row: Row) -> datetime:
    """When a version was promoted; versions of before that was noted were promoted when they were trained."""
    return row["promoted_at"] or row["trained_at"]


def _naive(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(tzinfo=None)


def _proof(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {metrics[name]:.3f}" for name in HEADLINE if name in metrics)


def _first_failure(row: Row) -> str:
    return next((gate["words"] for gate in json.loads(row["card"])["gates"] if not gate["passed"]), "")
