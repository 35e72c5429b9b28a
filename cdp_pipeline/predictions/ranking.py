"""`type: ranking`: per person a list of items, by a chain of ways of recommending; what each way is, is in recommend/.

What is learned are the weights of the ways; who had what goes into a list as it is known on the day of the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.predictions.charts import picture
from cdp_pipeline.predictions.items import hits, item_days
from cdp_pipeline.predictions.kind import Champion, Gate, Known, Trained
from cdp_pipeline.predictions.scores import bands
from cdp_pipeline.predictions.tables import scores_table_of
from cdp_pipeline.predictions.targets import at_each
from cdp_pipeline.predictions.training import population_of
from cdp_pipeline.predictions.windows import Cutoffs, lacking
from cdp_pipeline.profile.timeline import event_scope
from cdp_pipeline.spec import expressions
from cdp_pipeline.spec.prediction import ItemTarget, Ranking
from cdp_pipeline.spec.project import Project

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from matplotlib.axes import Axes

    from cdp_pipeline.predictions.recommend.chain import Lists, Wanted
    from cdp_pipeline.predictions.recommend.history import History
    from cdp_pipeline.predictions.recommend.offline import Judged
    from cdp_pipeline.predictions.recommend.recommender import Recommender

RECIPE = "chain/2"
IMPERSONAL = ("popular", "bestselling", "trending", "new")
PEOPLE_AT_ONCE = 20_000
SOME = 2_000
"""People whose lists tell how often a way is right that no list needed."""
WANTS = {"buy_again": "again", "discover": "new", "anything": "any"}
SAID = {
    "learned": "all ways weighed together",
    "again": "had on most days",
    "replenishment": "due again",
    "looked_at": "looked at lately",
    "ease": "goes with what they had (EASE)",
    "gf_cf": "goes with what they had (GF-CF)",
    "bought_together": "bought together",
    "viewed_together": "viewed together",
    "session": "goes with this visit",
    "category_next": "the category that comes next",
    "trending": "rising",
    "bestselling": "sells well now",
    "new": "new",
    "popular": "popular",
}


def training_table(prediction: Ranking, project: Project, traits: ibis.Schema) -> Table:
    return Table(
        name=f"predictions.{prediction.name}_training",
        description=f"Who had which item on which day: what the lists of '{prediction.name}' are learned from (train) "
        "and were tested on (test).",
        columns={
            "person_id": Column("string", "The person."),
            "day": Column("date", "The day."),
            "item": Column("string", f"The {prediction.target.item}."),
            "split": Column("string", "train, or test for the days that were to be foreseen."),
            "label": Column("int64", "1 if they had the item on the day, 0 if they only looked at it."),
            "looked": Column("int64", "1 if they looked at it."),
            "category": Column("string", "The category of the item."),
        },
        key=("person_id", "day", "item"),
        derived=True,
    )


def training_set(known: Known, prediction: Ranking, project: Project, windows: Cutoffs) -> ibis.Table:
    windows.check_embargo()
    rows = _rows(known.timeline, prediction, windows.test + windows.horizon)
    split = ibis.ifelse(rows.day <= windows.test, "train", "test")
    return rows.select("person_id", "day", "item", split.name("split"), "label", "looked", "category")


def inputs(known: Known, prediction: Ranking, project: Project, day: date) -> ibis.Table:
    """Everybody's rows up to the day, `on` which they fall; who is `asked` about, and which items are `allowed`."""
    rows = _rows(known.timeline, prediction, day).rename(on="day")
    for one in prediction.filters:
        found = known.sources[one.source]
        source = project.sources[one.source]
        found = found.filter(
            found["_valid_to"].isnull() if source.mode == "snapshot" else found["_day"] <= ibis.date(day)
        )
        if one.when is not None:
            found = found.filter(
                expressions.compile(one.when, {name: found[name] for name in source.columns}).fill_null(False)
            )
        listed = found.select(item=found[one.on].cast("string")).distinct().mutate(_listed=True)
        before = rows.allowed if "allowed" in rows.columns else ibis.literal(True)
        joined = rows.left_join(listed, "item")
        rows = joined.select(*(rows[name] for name in rows.columns if name != "allowed"), before.name("_before"),
                             joined._listed.notnull().name("_now"))  # fmt: skip
        rows = rows.mutate(allowed=rows._before & rows._now).drop("_before", "_now")
    if not prediction.filters:
        rows = rows.mutate(allowed=ibis.literal(True))
    seen = known.timeline.filter(known.timeline["_day"] <= ibis.date(day)).select("person_id").distinct()
    who = population_of(known, prediction, project, [day]).select("person_id").distinct().mutate(_asked=True)
    who = who.semi_join(seen, "person_id")
    joined = rows.left_join(who, "person_id")
    columns = ["person_id", "item", "on", "label", "looked", "category", "allowed"]
    rows = joined.select(*columns, asked=joined._asked.notnull())
    silent = who.anti_join(rows, "person_id")
    empty = {name: ibis.null(rows[name].type()) for name in columns[1:]}
    return rows.union(silent.select("person_id", **empty, asked=ibis.literal(True)))


def _rows(timeline: ibis.Table, prediction: Ranking, last: date) -> ibis.Table:
    """(person_id, day, item, label, looked, category): one row per person, item and day up to the last one."""
    parts = [_of(timeline, prediction.target, prediction, 1, 0)]
    if prediction.views is not None:
        parts.append(_of(timeline, prediction.views, prediction, 0, 1))
    rows = ibis.union(*parts) if len(parts) > 1 else parts[0]
    ago = ibis.date(last).delta(rows.day, unit="day")
    rows = rows.filter((ago >= 0) & (ago < prediction.history.days))
    # Of an item with several categories, the last in the alphabet: the same on every engine.
    of_item = rows.group_by("item").agg(category=rows.category.max())
    days = rows.group_by("person_id", "day", "item").agg(label=rows.label.max(), looked=rows.looked.max())
    joined = days.left_join(of_item, "item")
    return joined.select("person_id", "day", "item", "label", "looked", "category")


def _of(timeline: ibis.Table, target: ItemTarget, prediction: Ranking, label: int, looked: int) -> ibis.Table:
    scope = event_scope(timeline)
    wanted = [timeline.person_id.notnull(), timeline.event.isin(list(target.event))]
    if target.when is not None:
        wanted.append(expressions.compile(target.when, scope))
    found = timeline.select(
        "person_id", day=timeline["_day"], item=scope[target.item].cast("string"),
        label=ibis.literal(label, "int64"), looked=ibis.literal(looked, "int64"),
        category=scope[prediction.category].cast("string"), _counts=ibis.and_(*wanted),
    )  # fmt: skip
    return found.filter(found._counts & found.item.notnull() & (found.item != "")).drop("_counts")


@dataclass(frozen=True)
class Numbered:
    """A table of rows with people and items as numbers, in the order of their names."""

    history: History
    people: pa.Array
    items: pa.Array

    @staticmethod
    def of(rows: pa.Table, on: str, day: int) -> Numbered:
        """What is known at the end of the day, counted from 1970; people without any row are in it too."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from cdp_pipeline.predictions.recommend.history import History, Rows

        people = _names(rows["person_id"])
        rows = rows.filter(pc.is_valid(rows["item"]))
        # In one order: sums of floats would differ in their last bit.
        rows = rows.sort_by([("person_id", "ascending"), ("item", "ascending"), (on, "ascending")])
        items = _names(rows["item"])
        person, item = (
            pc.index_in(rows[name], value_set=names).to_numpy().astype(np.int32)
            for name, names in (("person_id", people), ("item", items))
        )
        when = rows[on].cast(pa.date32()).cast(pa.int32()).to_numpy()
        every = Rows(person, item, when)
        category = np.full(len(items), -1)
        said = pc.index_in(rows["category"], value_set=_names(rows["category"])).fill_null(-1)
        category[item] = said.to_numpy()
        had, looked = (every.where(rows[name].to_numpy() > 0) for name in ("label", "looked"))
        whole = History(day, len(people), len(items), had, looked, category)
        return Numbered(whole.at(day), people, items)


def _names(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow.compute as pc

    names = pc.unique(column.drop_null())
    return names.take(pc.array_sort_indices(names))


def train(training: pa.Table, prediction: Ranking, seed: int = 0, champion: Recommender | None = None) -> Trained:
    """Learn the weights of the ways from windows before the test days, and judge the lists on these days."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import sklearn.linear_model  # noqa: F401 - brings the thread pool that is limited below
    from threadpoolctl import threadpool_limits

    from cdp_pipeline.predictions.recommend.chain import Wanted

    past = training.filter(pc.equal(training["split"], "train"))
    card: dict[str, Any] = {"features": [], "seed": seed, "recipe": RECIPE, "train_rows": past.num_rows}
    missing = _missing(training, past, prediction)
    if missing:
        return Trained(None, {}, missing, card | {"train_cutoffs": [], "test_cutoff": None}, {"rates": {}})
    test = pc.max(past["day"].cast(pa.date32()).cast(pa.int32())).as_py()
    numbered = Numbered.of(training, "day", test + prediction.horizon.days)
    whole, then = numbered.history, numbered.history.at(test)
    days = _learned_from(whole, test, prediction)
    card |= {
        "train_cutoffs": [str(_date(day)) for day in days],
        "test_cutoff": str(_date(test)),
        "train_people": len(then.seen),
        "train_positives": len(then.had),
    }
    wanted = Wanted(_everything(then), WANTS[prediction.wants], prediction.rest.days if prediction.rest else 0)
    # One thread: the same weights to the last byte on every machine.
    with threadpool_limits(1):
        scorer = _learned(whole, days, prediction)
        metrics, evidence, rates = _prove(scorer, whole, then, wanted, prediction, seed, champion)
    if scorer.weights is not None:
        evidence["importance"] = _heard(scorer)
    return Trained(replace(scorer, rates=rates), metrics, None, card | evidence, {"rates": rates})


def _date(day: int) -> date:
    return date.fromordinal(day + date(1970, 1, 1).toordinal())


def _everything(history: History) -> np.ndarray:
    """Items that anybody had or looked at by the day."""
    import numpy as np

    return ~np.isnan(history.since)


def _learned_from(whole: History, test: int, prediction: Ranking) -> list[int]:
    """The days whose windows end by the test day and that have a horizon of past, oldest first."""
    horizon, every = prediction.horizon.days, max(prediction.every.days, 1)
    days = [test - horizon - step * every for step in range(prediction.cutoffs)]
    first = int(min(whole.had.day.min(), test))
    return sorted(day for day in days if day - horizon >= first)


def _learned(whole: History, days: list[int], prediction: Ranking) -> Recommender:
    from cdp_pipeline.predictions.recommend.learned import learn
    from cdp_pipeline.predictions.recommend.recommender import Recommender

    ways = tuple(prediction.ways)
    if "learned" not in ways or not days:
        return Recommender(ways)
    return Recommender(ways, learn(whole, days, prediction.horizon.days, WANTS[prediction.wants]))


def _missing(training: pa.Table, past: pa.Table, prediction: Ranking) -> str | None:
    """The first number that is too small to learn from, in words."""
    import pyarrow.compute as pc

    had = past.filter(pc.equal(past["label"], 1))
    after = training.filter(pc.and_(pc.equal(training["split"], "test"), pc.equal(training["label"], 1)))
    least = prediction.minimum
    have = {
        "people who had an item": (pc.count_distinct(had["person_id"]).as_py(), least.people),
        "items": (pc.count_distinct(had["item"]).as_py(), 2),
        "items had in the test days": (after.num_rows, least.positives),
    }
    return lacking(have)


def _prove(
    scorer: Recommender,
    whole: History,
    then: History,
    wanted: Wanted,
    prediction: Ranking,
    seed: int,
    champion: Recommender | None,
) -> tuple[dict[str, float], dict[str, Any], dict[str, float]]:
    """Metrics of the lists on the test days beside simpler ones, what is drawn, and each way's share of hits."""
    import numpy as np

    from cdp_pipeline.predictions.recommend.chain import VOICES, fill
    from cdp_pipeline.predictions.recommend.history import cells
    from cdp_pipeline.predictions.recommend.offline import difference, judged

    after = wanted.relevant(then, whole.following(then.day, prediction.horizon.days))
    voices, top = scorer.voices(then), prediction.top

    def lists_of(chain: dict[str, Any], people: np.ndarray) -> tuple[Lists, Judged]:
        lists = fill(chain, then, people, wanted, top)
        return lists, judged(lists, after, then.reach, wanted.allowed, top)

    lists, ours = lists_of(voices, then.seen)
    rivals = {"popular": lists_of({"bestselling": then.made(VOICES["bestselling"])}, ours.people)[1]}
    if champion is not None:
        rivals["champion"] = lists_of(champion.voices(then), ours.people)[1]
    metrics = {
        "people": float(len(ours.people)),
        "items": float(wanted.allowed.sum()),
        "ndcg": float(ours.ndcg.mean()),
        "recall": float(ours.recall.mean()),
        "hit_rate": ours.hit_rate,
        "coverage": ours.coverage,
        "novelty": ours.novelty,
    }
    for name, rival in rivals.items():
        mean, low, high = difference(ours.ndcg, rival.ndcg, seed)
        metrics |= {
            f"{name}_ndcg": float(rival.ndcg.mean()),
            f"gain_over_{name}": mean, f"gain_over_{name}_low": low, f"gain_over_{name}_high": high,
        }  # fmt: skip
    hit, ways = cells(after, lists.person, lists.item) > 0, list(voices)
    counts, hits = (np.bincount(lists.level, weights=each, minlength=len(ways)) for each in (np.ones(len(hit)), hit))
    rates = {way: round(float(hits[n] / max(counts[n], 1)), 6) for n, way in enumerate(ways)}
    some = then.seen[:: len(then.seen) // SOME + 1]
    for n, way in enumerate(ways):
        if not counts[n]:  # The ways before it filled every list: measured alone.
            alone = fill({way: voices[way]}, then, some, wanted, top)
            rates[way] = round(
                float(np.mean(cells(after, alone.person, alone.item) > 0)) if len(alone.item) else 0.0, 6
            )
    evidence = {
        "shares": {way: round(float(counts[n] / max(counts.sum(), 1)), 6) for n, way in enumerate(ways)},
        "rates": rates,
        "alone": {
            way: round(float(lists_of({way: voice}, ours.people)[1].ndcg.mean()), 6) for way, voice in voices.items()
        },
    }
    metrics |= {f"share_{way}": share for way, share in evidence["shares"].items()}
    return metrics, evidence, rates


def _heard(scorer: Recommender) -> dict[str, float]:
    """What the learned way listens to: log-odds by one standard deviation of each feature, largest first."""
    assert scorer.weights is not None
    found = {name: float(w) for name, w in zip(scorer.weights.features, scorer.weights.weight, strict=True) if w}
    return dict(sorted(found.items(), key=lambda item: -abs(item[1])))


def judge(trained: Trained, prediction: Ranking) -> list[Gate]:
    if trained.missing:
        return [Gate("minimum_data", False, trained.missing)]
    m, gates = trained.metrics, prediction.gates
    low, high = m["gain_over_popular_low"], m["gain_over_popular_high"]
    verdicts = [
        Gate("minimum_data", True, f"learned from {trained.card['train_people']} people"),
        Gate(
            "better_than_popular", m["ndcg"] > m["popular_ndcg"],
            f"NDCG {m['ndcg']:.3f}, what sells well reaches {m['popular_ndcg']:.3f} "
            f"(95 % of the difference: {low:+.3f} to {high:+.3f})",
        ),
        Gate(
            "hit_rate", m["hit_rate"] >= gates.min_hit_rate,
            f"{m['hit_rate']:.3f} of the people found something on their list, at least {gates.min_hit_rate:g} "
            "is needed",
        ),
        Gate(
            "coverage", m["coverage"] >= gates.min_coverage,
            f"{m['coverage']:.3f} of the items appear on lists, at least {gates.min_coverage:g} is needed",
        ),
    ]  # fmt: skip
    if "champion_ndcg" in m:
        words = f"NDCG {m['ndcg']:.3f}, the champion reaches {m['champion_ndcg']:.3f}"
        verdicts.append(Gate("not_worse_than_champion", m["gain_over_champion_high"] >= 0, words))
    return verdicts


def scores_table(prediction: Ranking) -> Table:
    days = prediction.horizon.days
    table = scores_table_of(
        prediction,
        item=f"The {prediction.target.item}.",
        score=f"How likely they have it within {days} days: of the learned way for them, of others the share of hits "
        "of that way when it was measured.",
    )
    ranked = {"rank": Column("int64", "1 is the first of the person's list.")}
    way = {"way": Column("string", "The way of recommending that put it on the list.")}
    return replace(table, columns=table.columns | ranked | way)


def score(
    inputs: pa.Table | pa.RecordBatchReader, champion: Champion, prediction: Ranking, project: Project, day: date
) -> pa.Table:
    """Everybody's list as of a day. The whole history is held as numbers (12 bytes a row); lists are made in chunks."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from threadpoolctl import threadpool_limits

    from cdp_pipeline.predictions.recommend.chain import Wanted
    from cdp_pipeline.predictions.recommend.recommender import Recommender

    rows = inputs if isinstance(inputs, pa.Table) else inputs.read_all()
    schema = scores_table(prediction).schema.to_pyarrow()
    numbered = Numbered.of(rows, "on", day.toordinal() - date(1970, 1, 1).toordinal())
    asked = _names(rows.filter(rows["asked"])["person_id"])
    if not len(asked) or not len(numbered.items):
        return schema.empty_table()
    people = pc.index_in(asked, value_set=numbered.people).to_numpy()
    allowed = np.isin(
        np.arange(len(numbered.items)),
        pc.index_in(_names(rows.filter(rows["allowed"])["item"]), value_set=numbered.items).to_numpy(),
    )
    wanted = Wanted(allowed, WANTS[prediction.wants], prediction.rest.days if prediction.rest else 0)
    scorer = champion.scorer or Recommender(tuple(prediction.ways), None, champion.prior.get("rates", {}))
    with threadpool_limits(1):
        voices = scorer.voices(numbered.history)
        parts = [
            _listed(voices, scorer, numbered, people[start : start + PEOPLE_AT_ONCE], wanted, prediction.top)
            for start in range(0, len(people), PEOPLE_AT_ONCE)
        ]
    found = pa.concat_tables(parts)
    columns = {
        **{name: found[name] for name in found.column_names},
        "day": pa.array(np.full(found.num_rows, np.datetime64(day, "D"))),
        "band": bands(found["score"].to_numpy(), prediction),
        "model_version": pa.array([champion.version] * found.num_rows, pa.string()),
    }
    return pa.table(columns).select(schema.names).cast(schema)


def _listed(
    voices: dict[str, Any], scorer: Recommender, numbered: Numbered, people: np.ndarray, wanted: Wanted, top: int
) -> pa.Table:
    """(person_id, item, rank, way, score, basis, reasons) of some people."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from cdp_pipeline.predictions.recommend.chain import fill

    lists = fill(voices, numbered.history, people, wanted, top)
    ways, reasons = list(voices), np.full(len(lists.person), "", dtype=object)
    for level, voice in enumerate(voices.values()):
        of = lists.level == level
        reasons[of] = voice.because(lists.person[of], lists.item[of], numbered.items).to_numpy(zero_copy_only=False)
    rates = np.array([scorer.rates.get(way, 0.0) for way in ways])
    personal = np.array([way not in IMPERSONAL for way in ways])
    learned = np.array([way == "learned" for way in ways])[lists.level]
    chance = np.where(learned, lists.strength, rates[lists.level])
    return pa.table(
        {
            "person_id": numbered.people.take(pa.array(lists.person)),
            "item": numbered.items.take(pa.array(lists.item)),
            "rank": lists.place,
            "way": pa.array(ways, pa.string()).take(pa.array(lists.level)),
            "score": np.round(chance.astype(float), 6),
            "basis": pc.if_else(pa.array(personal[lists.level]), "model", "prior"),
            "reasons": pa.array(reasons, pa.string()),
        }
    )


def outcomes(timeline: ibis.Table, prediction: Ranking, days: Sequence[date]) -> ibis.Table:
    """1 for what people had, and for everybody seen by the day a row without an item: 0 for all the rest."""
    had = hits(item_days(timeline, prediction.target), days, prediction.horizon.days)
    seen = timeline.filter(timeline.person_id.notnull()).group_by("person_id").agg(first=lambda t: t["_day"].min())
    others = at_each(seen, days).filter(lambda t: t["first"] <= t.day)
    one, zero, nothing = ibis.literal(1, "int64"), ibis.literal(0, "int64"), ibis.null("string")
    return had.select("person_id", "day", "item", label=one).union(
        others.select("person_id", "day", item=nothing, label=zero)
    )


def realised(label: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Of the items on lists: how many there were, the share that was had, and how true the probabilities were."""
    from cdp_pipeline.predictions.metrics import calibration_error, ranking

    return {
        "listed": float(len(label)),
        "share_had": float(label.mean()),
        "auc": ranking(label, score),
        "ece": calibration_error(label, score),
    }


def charts(card: dict[str, Any], prediction: Ranking, project: Project) -> dict[str, str]:
    if "shares" not in card:
        return {}
    found = {
        "levels": _bars("Where the lists come from", "share of all places", card["shares"]),
        "ways alone": _bars("Each way alone on the test days", "NDCG", card["alone"]),
    }
    if "importance" in card:
        found["drivers"] = _bars("What the learned way listens to", "log-odds by one deviation", card["importance"])
    return found


def _bars(title: str, axis: str, values: dict[str, float]) -> str:
    def draw(axes: Axes) -> None:
        top = list(values.items())[:14][::-1]
        axes.barh([SAID.get(name, name) for name, _ in top], [value for _, value in top])
        axes.set(xlabel=axis)

    return picture(title, draw)
