"""`type: timing`: per person and hour of the day, the share of their next target events that fall into it.

The estimator is hours.py; here it meets the path of all predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import ibis

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.predictions.charts import picture
from cdp_pipeline.predictions.item_scores import item_card, ranked, whole_people
from cdp_pipeline.predictions.kind import Champion, Gate, Known, Trained
from cdp_pipeline.predictions.metrics import realised
from cdp_pipeline.predictions.tables import scores_table_of, training_table_of
from cdp_pipeline.predictions.targets import at_each, events_of
from cdp_pipeline.predictions.training import population_of
from cdp_pipeline.predictions.windows import Cutoffs, halves
from cdp_pipeline.spec.prediction import Timing
from cdp_pipeline.spec.project import Project

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from cdp_pipeline.predictions.hours import Hours

__all__ = [
    "RECIPE", "charts", "inputs", "judge", "outcomes", "realised", "score", "scores_table", "train", "training_set",
    "training_table",
]  # fmt: skip

RECIPE = "hours/1"
MEMORIES = {"_events": None, "_fading_120": 120, "_fading_60": 60}
"""The counts there are of a person's past events per hour: all alike, or each worth less the older (e-fold in days)."""
HOUR = "The hour of the day, 00 to 23, in the project's time zone."
HOURS = tuple(f"{hour:02}" for hour in range(24))
RESAMPLES = 200


def training_table(prediction: Timing, project: Project, traits: ibis.Schema) -> Table:
    event = " or ".join(prediction.target.event)
    label = Column("int64", f"How often {event} fell into it in the {prediction.horizon.days} days after.")
    learned = {
        "_events": Column("float64", f"How often {event} fell into it so far."),
        "_fading_120": Column("float64", "The same, each worth less the older it is (e-fold in 120 days)."),
        "_fading_60": Column("float64", "The same, each worth less the older it is (e-fold in 60 days)."),
    }
    return training_table_of(prediction, label, learned, HOUR)


def local_hour(moment: ibis.Value, zone: ZoneInfo, first: date, last: date) -> ibis.Value:
    """The hour of the day, as text of two digits, that a time (UTC) has on the clocks of a zone.

    The clocks' changes between two days are written into the query: engines need not know of zones.
    """

    def offset(at: datetime) -> int:
        return int((zone.utcoffset(at.astimezone(zone)) or timedelta()).total_seconds() // 60)

    start, end = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (first, last + timedelta(days=2)))
    changes, at = [(start.replace(tzinfo=None), offset(start))], start
    while at < end:
        at += timedelta(hours=1)
        if offset(at) != changes[-1][1]:
            changes.append((at.replace(tzinfo=None), offset(at)))
    minutes = ibis.literal(changes[-1][1])
    if changes[1:]:
        cases = [
            (moment < ibis.literal(until, "timestamp(6)"), ibis.literal(ahead))
            for (_, ahead), (until, _) in pairwise(changes)
        ]
        minutes = ibis.cases(*cases, else_=minutes)
    of_day = (moment.hour().cast("int64") * 60 + moment.minute() + minutes + 2 * 1440) % 1440
    return (of_day // 60).cast("int64").cast("string").lpad(2, "0")


def hourly(timeline: ibis.Table, prediction: Timing, project: Project, days: Sequence[date]) -> ibis.Table:
    """(person_id, item, _day, events): how often the target fell into each hour of each day."""
    found = events_of(timeline, prediction.target)
    item = local_hour(found.occurred_at, project.zone, project.settings.first_day, max(days) + prediction.horizon)
    return (
        found.select("person_id", "_day", item=item)
        .group_by("person_id", "_day", "item")
        .agg(events=lambda t: t.count())
    )


def _known(
    known: Known, prediction: Timing, project: Project, happened: ibis.Table, days: Sequence[date]
) -> ibis.Table:
    """(person_id, day, item, MEMORIES): the population with all 24 hours, from rows up to the day only."""
    past = at_each(happened, days).filter(lambda t: t._day <= t.day)
    past = past.mutate(ago=past.day.delta(past._day, unit="day").cast("float64"))
    counts = past.group_by("person_id", "day", "item").agg(
        **{
            name: past.events.sum() if fade is None else (past.events * (-past.ago / fade).exp()).sum()
            for name, fade in MEMORIES.items()
        }
    )
    hours = ibis.array(list(HOURS)).unnest().name("item").as_table()
    grid = population_of(known, prediction, project, days).cross_join(hours)
    rows = grid.left_join(counts, ["person_id", "day", "item"])
    return rows.select(
        "person_id", "day", "item",
        **{name: counts[name].fill_null(0).cast("float64").round(6) for name in MEMORIES},
    )  # fmt: skip


def _ahead(happened: ibis.Table, days: Sequence[date], horizon: int) -> ibis.Table:
    """(person_id, day, item, ahead): how often it happened in (day, day + horizon]."""
    rows = happened.filter((happened._day > min(days)) & (happened._day.delta(max(days), unit="day") <= horizon))
    rows = at_each(rows, days).filter(lambda t: t._day.delta(t.day, unit="day").between(1, horizon))
    return rows.group_by("person_id", "day", "item").agg(ahead=rows.events.sum())


def training_set(known: Known, prediction: Timing, project: Project, windows: Cutoffs) -> ibis.Table:
    """Only people who had the event before and again within the horizon teach anything about its hour."""
    windows.check_embargo()
    happened = hourly(known.timeline, prediction, project, windows.days)
    rows = _known(known, prediction, project, happened, windows.days)
    ahead, keys = _ahead(happened, windows.days, prediction.horizon.days), ["person_id", "day"]
    before = rows.filter(rows._events > 0).select(*keys).distinct()
    rows = rows.semi_join(ahead, keys).semi_join(before, keys)
    joined = rows.left_join(ahead, [*keys, "item"])
    split = ibis.ifelse(joined.day == windows.test, "test", "train")
    return joined.select(
        *keys, "item", split.name("split"), label=joined.ahead.fill_null(0).cast("int64"),
        **{name: joined[name] for name in MEMORIES},
    )  # fmt: skip


def inputs(known: Known, prediction: Timing, project: Project, day: date) -> ibis.Table:
    happened = hourly(known.timeline, prediction, project, [day])
    return _known(known, prediction, project, happened, [day]).drop("day")


def _clock(rows: pa.Table, name: str) -> np.ndarray:
    """People (and days) × 24: the column `name`, of rows that are sorted person by person, hour by hour."""
    return rows[name].to_numpy().astype(float).reshape(-1, 24)


def train(training: pa.Table, prediction: Timing, seed: int = 0, champion: Hours | None = None) -> Trained:
    import pyarrow.compute as pc
    from threadpoolctl import threadpool_limits

    from cdp_pipeline.predictions.hours import Hours

    past, test = halves(training, prediction)
    card = item_card(past, test, seed, RECIPE, list(MEMORIES))
    have, least = pc.count_distinct(past["person_id"]).as_py(), prediction.minimum
    usual = [float(pc.sum(past.filter(pc.equal(past["item"], hour))["_events"]).as_py() or 0) for hour in HOURS]
    prior = {"usual": [(count + 0.5) / (sum(usual) + 12) for count in usual]}
    missing = None
    if have < least.people:
        missing = f"needs {least.people} people in the training windows who did it again, has {have}"
    elif not test.num_rows:
        missing = "needs 1 person in the test window who did it again, has 0"
    if missing:
        return Trained(None, {}, missing, card, prior)
    with threadpool_limits(1):
        newest = pc.equal(past["day"], pc.max(past["day"])).to_numpy().reshape(-1, 24)[:, 0]
        counts = {name: _clock(past, name) for name in MEMORIES}
        scorer = Hours.fit(counts, _clock(past, "label"), newest)
        metrics = _measured(scorer, test, champion, seed)
    chosen = {"memory": scorer.memory, "pull": scorer.pull, "width": scorer.width}
    shown = {"usual": [round(float(share), 6) for share in scorer.usual]}
    return Trained(scorer, metrics, None, card | chosen | shown, prior)


def _measured(scorer: Hours, test: pa.Table, champion: Hours | None, seed: int) -> dict[str, float]:
    """Log-loss per event and hits, beside everybody's usual hours; bounds by drawing people."""
    import numpy as np

    from cdp_pipeline.predictions.hours import hit, surprise

    happened = _clock(test, "label")
    chance = {
        "own": scorer.probability(_clock(test, scorer.memory)),
        "usual": np.tile(scorer.usual, (len(happened), 1)),
    }
    if champion is not None:
        chance["champion"] = champion.probability(_clock(test, champion.memory))
    measured = {"people": float(len(happened)), "events": float(happened.sum())}
    for name, said in chance.items():
        prefix = "" if name == "own" else f"{name}_"
        measured |= {
            f"{prefix}log_loss": surprise(said, happened),
            f"{prefix}hit_1": hit(said, happened, 1),
            f"{prefix}hit_3": hit(said, happened, 3),
        }
    loss = {name: -(happened * np.log(said)).sum(axis=1) for name, said in chance.items()}
    random, events = np.random.default_rng(seed), happened.sum(axis=1)
    drawn = [random.integers(0, len(events), len(events)) for _ in range(RESAMPLES)]
    for rival in (name for name in chance if name != "own"):
        gain = loss[rival] - loss["own"]
        measured[f"gain_over_{rival}"] = float(gain.sum() / events.sum())
        bounds = np.quantile([gain[some].sum() / events[some].sum() for some in drawn], (0.025, 0.975))
        measured |= {f"gain_over_{rival}_low": float(bounds[0]), f"gain_over_{rival}_high": float(bounds[1])}
    return measured


def judge(trained: Trained, prediction: Timing) -> list[Gate]:
    if trained.missing:
        return [Gate("minimum_data", False, trained.missing)]
    m = trained.metrics
    words = f"log-loss {m['log_loss']:.3f} per event, everybody's usual hours reach {m['usual_log_loss']:.3f}"
    verdicts = [
        Gate("minimum_data", True, f"learned from {trained.card['train_people']} people"),
        Gate("better_than_usual", m["gain_over_usual_low"] > 0, words),
    ]
    if "champion_log_loss" in m:
        words = f"log-loss {m['log_loss']:.3f} per event, the champion reaches {m['champion_log_loss']:.3f}"
        verdicts.append(Gate("not_worse_than_champion", m["gain_over_champion_high"] >= 0, words))
    return verdicts


def scores_table(prediction: Timing) -> Table:
    event = " or ".join(prediction.target.event)
    return scores_table_of(
        prediction,
        item=HOUR,
        score=f"Share of their {event} that falls into the hour; those of a person sum to 1.",
    )


def score(
    inputs: pa.Table | pa.RecordBatchReader, champion: Champion, prediction: Timing, project: Project, day: date
) -> pa.Table:
    parts = [_scored(rows, champion) for rows in whole_people(inputs)]
    return ranked(parts, scores_table(prediction), champion, prediction, day)


def _scored(rows: pa.Table, champion: Champion) -> pa.Table:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = _clock(rows, "_events")
    if champion.scorer is None:
        usual = np.array(champion.prior.get("usual", [1 / 24] * 24))
        chance, seen = np.tile(usual, (len(counts), 1)), np.zeros(rows.num_rows)
    else:
        chance = champion.scorer.probability(_clock(rows, champion.scorer.memory))
        seen = np.repeat(counts.sum(axis=1), 24)
    near = counts + np.roll(counts, 1, axis=1) + np.roll(counts, -1, axis=1)
    own = pc.binary_join_element_wise(
        pa.array(near.ravel().astype("int64")).cast(pa.string()),
        " of their ",
        pa.array(seen.astype("int64")).cast(pa.string()),
        " so far within an hour of it",
        "",
    )
    why = "when everybody does" if champion.why_prior is None else f"when everybody does: {champion.why_prior}"
    return pa.table(
        {
            "person_id": rows["person_id"],
            "item": rows["item"],
            "score": chance.ravel(),
            "basis": pa.array(np.where(seen > 0, "model", "prior")),
            "reasons": pc.if_else(pa.array(seen > 0), own, why),
        }
    )


def outcomes(timeline: ibis.Table, prediction: Timing, days: Sequence[date]) -> ibis.Table | None:
    """None: an hour is not right or wrong by itself, and the project's clock is not at hand."""
    return None


def charts(card: dict[str, Any], prediction: Timing, project: Project) -> dict[str, str]:
    if "usual" not in card:
        return {}

    def draw(axes: Any) -> None:
        axes.bar(range(24), card["usual"])
        axes.set(xlabel="hour of the day", ylabel="share of events")

    return {"usual hours": picture("When everybody does it", draw)}
