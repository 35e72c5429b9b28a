"""Why a person's scores are what they are: fetches the scores, the champion and what it knew of the person.

How much each thing adds is computed in predictions/attribution.py.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import ibis

from cdp_pipeline.identity.living import living
from cdp_pipeline.identity.people import PEOPLE
from cdp_pipeline.lake import LakeView
from cdp_pipeline.orchestration.installation import models_folder
from cdp_pipeline.orchestration.predictions import population
from cdp_pipeline.predictions.answers import Answers
from cdp_pipeline.predictions.attribution import pair_points, points
from cdp_pipeline.predictions.habits import Habits
from cdp_pipeline.predictions.kind import Known
from cdp_pipeline.predictions.kinds import kind_of
from cdp_pipeline.predictions.model import Scorer
from cdp_pipeline.predictions.registry import MODELS, champion
from cdp_pipeline.predictions.response import said as response_words
from cdp_pipeline.predictions.training import features, words
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.prediction import Features, Prediction, Response
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of
from cdp_pipeline.traits.daily import daily_table


def reasons(lake: LakeView, project: Project, person_id: str, name: str | None = None) -> list[dict[str, Any]]:
    """The newest scores of a person, of one prediction or all: each with its rank and what it rests on.

    `adds` lists every feature, the weightiest first, with the person's value and the points of probability it adds,
    where the version that scored is a model of probabilities (binary, affinity, response) and still the champion;
    elsewhere `reasons` say the most.
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
    scorer = _scorer(lake, project, prediction, found)
    if isinstance(scorer, Scorer) and isinstance(prediction, Features):
        found[0]["adds"] = _adds(lake, project, prediction, person_id, scorer, newest)
    elif isinstance(scorer, Answers | Habits):
        of_items = _adds_of_items(lake, project, prediction, person_id, scorer, newest)
        for row in found:
            row["adds"] = of_items.get(row["item"], [])
    return [{name: value for name, value in row.items() if name != "person_id"} for row in found]


def _scorer(lake: LakeView, project: Project, prediction: Prediction, found: list[dict[str, Any]]) -> Any:
    """The champion's, if it is what gave these scores."""
    if not any(row["basis"] == "model" for row in found):
        return None
    training = kind_of(prediction).training_table(prediction, project, daily_table(project).schema)
    best = champion(prediction, lake.read(MODELS).to_pyarrow(), models_folder(project), list(training.columns))
    return best.scorer if {row["model_version"] for row in found} == {best.version} else None


def _adds(
    lake: LakeView, project: Project, prediction: Features, person_id: str, scorer: Scorer, day: date
) -> list[dict[str, Any]]:
    known, model = _known(lake, project, person_id, day, prediction), scorer.model
    if known.num_rows != 1:
        return []
    values = model.inputs(known)
    given, _ = points(model, values)
    return _listed(model.linear.features, values[0], given[0], words(prediction, project))


def _adds_of_items(
    lake: LakeView, project: Project, prediction: Prediction, person_id: str, scorer: Answers | Habits, day: date
) -> dict[str, list[dict[str, Any]]]:
    """Per item; asked of everybody, because what is usual for an item is a matter of all."""
    events, people = lake.read(timeline_table(project)), living(lake.read(PEOPLE), project)
    known, said = Known(as_of, events, people, population(project, prediction)), dict[str, str]()
    if isinstance(prediction, Response):
        prediction, said = prediction.model_copy(update={"reach": {}}), response_words(prediction, project)
    asked = kind_of(prediction).inputs(known, prediction, project, day)
    rows = asked.filter(asked.person_id == person_id).order_by("item").to_pyarrow()
    if not rows.num_rows:
        return {}
    names, values, given = pair_points(scorer, rows)
    return {
        item: _listed(names, values[place], given[place], said) for place, item in enumerate(rows["item"].to_pylist())
    }


def _listed(names: Sequence[str], values: Any, given: Any, said: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = [
        {"what": said.get(name, name), "value": None if value != value else round(value, 2), "points": round(part, 4)}
        for name, value, part in zip(names, values.tolist(), given.tolist(), strict=True)
    ]
    return sorted(rows, key=lambda each: -abs(each["points"]))


def _known(lake: LakeView, project: Project, person_id: str, day: date, prediction: Features) -> Any:
    """What was known of the person at the end of the day: from their own events alone."""
    events, people = lake.read(timeline_table(project)), lake.read(PEOPLE)
    known = Known(as_of, events.filter(events.person_id == person_id), people.filter(people.person_id == person_id))
    return features(known, prediction, project, [day]).drop("day").to_pyarrow()
