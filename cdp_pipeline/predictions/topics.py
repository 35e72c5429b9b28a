"""`type: topics`: per person, how much of their taste is each of a few topics found in what people take together.

The estimator is themes.py; here it meets the path of all predictions. Its training set is that of an affinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.lake.table import Table
from cdp_pipeline.predictions import affinity
from cdp_pipeline.predictions.charts import picture
from cdp_pipeline.predictions.item_metrics import least_data, within
from cdp_pipeline.predictions.item_scores import item_card, ranked
from cdp_pipeline.predictions.items import KNOWN
from cdp_pipeline.predictions.kind import Champion, Gate, Known, Trained
from cdp_pipeline.predictions.metrics import ranking, realised
from cdp_pipeline.predictions.tables import scores_table_of
from cdp_pipeline.predictions.windows import Cutoffs, halves
from cdp_pipeline.spec.prediction import Topics
from cdp_pipeline.spec.project import Project

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.predictions.themes import Themes

__all__ = [
    "RECIPE", "charts", "inputs", "judge", "outcomes", "realised", "score", "scores_table", "train", "training_set",
    "training_table",
]  # fmt: skip

RECIPE = "themes/1"
SHOWN = 5


def training_table(prediction: Topics, project: Project, traits: ibis.Schema) -> Table:
    return affinity.training_table(prediction, project, traits)


def training_set(known: Known, prediction: Topics, project: Project, windows: Cutoffs) -> ibis.Table:
    return affinity.training_set(known, prediction, project, windows)


def inputs(known: Known, prediction: Topics, project: Project, day: date) -> ibis.Table:
    return affinity.inputs(known, prediction, project, day)


def taken(rows: pa.Table, items: tuple[str, ...]) -> tuple[np.ndarray, list[str]]:
    """(people × items of slowly fading days, person ids), from rows of one day."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    people = rows["person_id"].combine_chunks().dictionary_encode()
    place = pc.fill_null(pc.index_in(rows["item"], pa.array(items, pa.string())), -1).to_numpy()
    known = place >= 0
    found = np.zeros((len(people.dictionary), len(items)))
    found[people.indices.to_numpy()[known], place[known]] = rows["_slow"].to_numpy()[known]
    return found, people.dictionary.to_pylist()


def train(training: pa.Table, prediction: Topics, seed: int = 0, champion: Themes | None = None) -> Trained:
    import numpy as np
    import pyarrow.compute as pc
    from threadpoolctl import threadpool_limits

    from cdp_pipeline.predictions.themes import Themes

    past, test = halves(training, prediction)
    card = item_card(past, test, seed, RECIPE, list(KNOWN))
    missing = least_data(past, test, prediction, items=prediction.topics + 1)
    if missing:
        return Trained(None, {}, missing, card)
    newest = past.filter(pc.equal(past["day"], pc.max(past["day"])))
    items = tuple(sorted(pc.unique(newest["item"]).to_pylist()))
    with threadpool_limits(1):
        before, people = taken(newest, items)
        scorer = Themes.fit(before, items, prediction.topics, seed, champion)
        metrics = _measured(scorer, before, people, test)
    order = np.argsort(-scorer.weight, axis=1, kind="stable")[:, :SHOWN]
    foremost = {name: [items[place] for place in row] for name, row in zip(scorer.names, order, strict=True)}
    return Trained(scorer, metrics, None, card | {"topics": foremost, "shares": _shares(scorer, before)})


def _shares(scorer: Themes, before: np.ndarray) -> dict[str, float]:
    """How much of everybody's taste each topic is."""
    mean = scorer.shares(before[before.sum(axis=1) > 0]).mean(axis=0)
    return {name: round(float(share), 6) for name, share in zip(scorer.names, mean, strict=True)}


def _measured(scorer: Themes, before: np.ndarray, people: list[str], test: pa.Table) -> dict[str, float]:
    """Whether people keep their topics over a horizon, and whether topics tell what they take in the next one."""
    import numpy as np
    from scipy.stats import rankdata

    after, later = taken(test, scorer.items)
    place = {person: number for number, person in enumerate(people)}
    both = [(place[person], number) for number, person in enumerate(later) if person in place]
    old, new = (np.array(side, dtype=int) for side in zip(*both, strict=True)) if both else (np.array([], int),) * 2
    stays = (before[old].sum(axis=1) > 0) & (after[new].sum(axis=1) > 0)
    then, now = scorer.shares(before[old[stays]]), scorer.shares(after[new[stays]])
    alike = [
        float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
        for one, other in zip(then.T, now.T, strict=True)
        if one.std() > 0 and other.std() > 0
    ]
    label, column = np.zeros(after.shape), {item: number for number, item in enumerate(scorer.items)}
    row = {person: number for number, person in enumerate(later)}
    known = [(row[r["person_id"]], column[r["item"]]) for r in test.select(["person_id", "item", "label"]).to_pylist()
             if r["label"] and r["item"] in column]  # fmt: skip
    if known:
        label[tuple(np.array(known).T)] = 1
    said = scorer.shares(after) @ scorer.weight
    items = np.tile(np.arange(len(scorer.items)), len(label))
    return {
        "people": float(len(now)),
        "agreement": float((then.argmax(axis=1) == now.argmax(axis=1)).mean()) if len(now) else 0.0,
        "loading_correlation": float(np.mean(alike)) if alike else 0.0,
        "auc": ranking(label.ravel(), said.ravel()),
        "within_item_auc": within(label.ravel(), said.ravel(), items),
    }


def judge(trained: Trained, prediction: Topics) -> list[Gate]:
    if trained.missing:
        return [Gate("minimum_data", False, trained.missing)]
    m = trained.metrics
    return [
        Gate("minimum_data", True, f"learned from {trained.card['train_people']} people"),
        Gate(
            "agreement",
            m["agreement"] >= prediction.min_agreement,
            f"{m['agreement']:.0%} of people have the same main topic as before, "
            f"at least {prediction.min_agreement:.0%} is needed",
        ),
        Gate(
            "tells_people_apart",
            m["within_item_auc"] > 0.5,
            f"within an item, topics tell who takes it with AUC {m['within_item_auc']:.3f}, more than 0.5 is needed",
        ),
    ]


def scores_table(prediction: Topics) -> Table:
    return scores_table_of(
        prediction,
        item="The topic, called by its foremost items.",
        score="How much of the person's taste it is; the topics of a person sum to 1.",
    )


def score(
    inputs: pa.Table | pa.RecordBatchReader, champion: Champion, prediction: Topics, project: Project, day: date
) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.predictions.item_scores import whole_people

    table, parts = scores_table(prediction), []
    if champion.scorer is None:
        return table.schema.to_pyarrow().empty_table()
    names = champion.scorer.names
    for rows in whole_people(inputs):
        found, people = taken(rows, champion.scorer.items)
        shares, known = champion.scorer.shares(found), np.repeat(found.sum(axis=1) > 0, len(names))
        why = [_reason(row, champion.scorer) for row in found]
        parts.append(
            pa.table(
                {
                    "person_id": pa.array(np.repeat(np.array(people, dtype=object), len(names)), pa.string()),
                    "item": pa.array(list(names) * len(people), pa.string()),
                    "score": shares.ravel(),
                    "basis": pa.array(np.where(known, "model", "prior")),
                    "reasons": pa.array([text for texts in why for text in texts], pa.string()),
                }
            )
        )
    return ranked(parts, table, champion, prediction, day)


def _reason(row: np.ndarray, scorer: Themes) -> list[str]:
    """Per topic, what of it they take most."""
    import numpy as np

    texts = []
    for weight in scorer.weight:
        given = row * weight
        top = [scorer.items[place] for place in np.argsort(-given, kind="stable")[:3] if given[place] > 0]
        texts.append(f"takes {', '.join(top)}" if top else "takes nothing of it")
    return texts


def outcomes(timeline: ibis.Table, prediction: Topics, days: Sequence[date]) -> ibis.Table | None:
    """None: a taste does not happen."""
    return None


def charts(card: dict[str, Any], prediction: Topics, project: Project) -> dict[str, str]:
    if "shares" not in card:
        return {}

    def draw(axes: Any) -> None:
        names = list(card["shares"])[::-1]
        axes.barh(
            [f"{name}: {', '.join(card['topics'][name])}"[:60] for name in names], [card["shares"][n] for n in names]
        )
        axes.set(xlabel="share of everybody's taste")

    return {"topics": picture("What people take together", draw)}
