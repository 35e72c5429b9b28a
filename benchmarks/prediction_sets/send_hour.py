"""Send hour: at which hour the events of the next 60 days fall. Complete Journey

Log-loss per event (less is better) and how many fall into the best hours said. Time stamps of the set are shifted.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np

from cdp_pipeline.predictions.hours import hit
from cdp_pipeline.predictions.timing import train
from prediction_sets import windows
from prediction_sets.item_rivals import halves
from prediction_sets.row import Row
from prediction_sets.shops import complete_journey_baskets

RESAMPLES = 500


def rows(data: Path, days: tuple[date, ...] = (windows.JOURNEY_HOURS_FROM,)) -> Iterator[Row]:
    shop = complete_journey_baskets(data)
    prediction = shop.project.predictions["shopping_hour"]
    for day in days:
        training = shop.training_set(prediction, day)
        trained, (_, test) = train(training, prediction), halves(training)
        assert trained.scorer is not None, trained.missing
        own, happened = (test[name].to_numpy().reshape(-1, 24) for name in ("_events", "label"))
        fading = test[trained.scorer.memory].to_numpy().reshape(-1, 24)
        ours = trained.scorer.probability(fading)
        window = f"{day} ({len(own):,} households)"
        for name, said in _rivals(own, trained.scorer.usual).items():
            loss, theirs = (-(happened * np.log(one)).sum(axis=1) for one in (ours, said))
            events = happened.sum(axis=1)
            random, both = np.random.default_rng(0), []
            for _ in range(RESAMPLES):
                some = random.integers(0, len(own), len(own))
                both.append((loss[some] - theirs[some]).sum() / events[some].sum())
            low, high = np.quantile(both, (0.025, 0.975))
            mine, rival = loss.sum() / events.sum(), theirs.sum() / events.sum()
            best = name.startswith("prior of 10")
            demanded, met = ("≤ the best rival", bool(mine <= rival)) if best else (None, None)
            yield Row("shopping hour", window, "log-loss", mine, name, rival, low, high, demanded, met)
            for top in (1, 3):
                measure = f"share in the best {top}"
                yield Row("shopping hour", window, measure, hit(ours, happened, top), name, hit(said, happened, top))


def _rivals(own: np.ndarray, usual: np.ndarray) -> dict[str, np.ndarray]:
    def drawn(counts: np.ndarray, pull: float) -> np.ndarray:
        return (counts + pull * usual) / (counts.sum(axis=1, keepdims=True) + pull)

    near = own / 2 + np.roll(own, 1, axis=1) / 4 + np.roll(own, -1, axis=1) / 4
    return {
        "everybody's hours": np.tile(usual, (len(own), 1)),
        "own hours": drawn(own, 0.01),
        "prior of 20": drawn(own, 20),
        "prior of 10, neighbours by half": drawn(near, 10),
    }
