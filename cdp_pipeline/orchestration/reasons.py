"""Why a person's scores are what they are: fetches the scores, the champion and what it knew of the person.

How much each thing adds is computed in predictions/attribution.py.
"""

from datetime import date
from typing import Any

import ibis

from cdp_pipeline.identity.people import PEOPLE
from cdp_pipeline.lake import LakeView
from cdp_pipeline.orchestration.resources import models_folder
from cdp_pipeline.predictions.attribution import points
from cdp_pipeline.predictions.kind import Known
from cdp_pipeline.predictions.kinds import kind_of
from cdp_pipeline.predictions.model import Scorer
from cdp_pipeline.predictions.registry import MODELS, champion
from cdp_pipeline.predictions.training import features, words
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.prediction import Features, Prediction
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.daily import daily_table


def reasons(lake: LakeView, project: Project, person_id: str, name: str | None = None) -> list[dict[str, Any]]:
    """The newest scores of a person, of one prediction or all: each with its rank and what it rests on.

    `adds` lists every feature, the weightiest first, with the person's value and the points of probability it adds,
    where the version that scored is a model of features and still the champion; elsewhere `reasons` say the most.
    """
    chosen = [project.predictions[name]] if name is not None else list(project.predictions.values())
    return [row for prediction in chosen for row in _of_prediction(lake, project, prediction, person_id)]


def _of_prediction(lake: LakeView, project: Project, prediction: Prediction, person_id: str) -> list[dict[str, Any]]:
    table = kind_of(prediction).scores_table(prediction)
    if not lake.exists(table.name):
        return []
    scores = lake.read(table)
    newest = scores.day.max().to_pyarrow().as_py()
    of_day = scores.filter(scores.day == ibis.literal(newest, type="date"))
    mine = of_day.filter(of_day.person_id == person_id).order_by("rank").to_pyarrow().to_pylist()
    usual = of_day.aggregate(of=of_day.count(), average=of_day.score.mean()).to_pyarrow().to_pylist()[0]
    found = [{"prediction": prediction.name, **row, **usual, "adds": []} for row in mine]
    if len(found) == 1 and isinstance(prediction, Features) and found[0]["basis"] == "model":
        found[0]["adds"] = _adds(lake, project, prediction, person_id, found[0])
    return [{name: value for name, value in row.items() if name != "person_id"} for row in found]


def _adds(
    lake: LakeView, project: Project, prediction: Features, person_id: str, row: dict[str, Any]
) -> list[dict[str, Any]]:
    training = kind_of(prediction).training_table(prediction, project, daily_table(project).schema)
    best = champion(prediction, lake.read(MODELS).to_pyarrow(), models_folder(project), list(training.columns))
    if best.version != row["model_version"] or not isinstance(best.scorer, Scorer):
        return []
    known, model = _known(lake, project, person_id, row["day"], prediction), best.scorer.model
    if known.num_rows != 1:
        return []
    values = model.inputs(known)
    given, _ = points(model, values)
    said = words(prediction, project)
    rows = [
        {"what": said.get(name, name), "value": None if value != value else round(value, 2), "points": round(part, 4)}
        for name, value, part in zip(model.linear.features, values[0].tolist(), given[0].tolist(), strict=True)
    ]
    return sorted(rows, key=lambda each: -abs(each["points"]))


def _known(lake: LakeView, project: Project, person_id: str, day: date, prediction: Features) -> Any:
    """What was known of the person at the end of the day: from their own events alone."""
    events, people = lake.read(timeline_table(project)), lake.read(PEOPLE)
    known = Known(as_of, events.filter(events.person_id == person_id), people.filter(people.person_id == person_id))
    return features(known, prediction, project, [day]).drop("day").to_pyarrow()
