"""How good scores of people × items are: ranking over all and within items, calibration, how sure we are of it.

Pairs of one person are not independent, so the bootstrap draws people with all their pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_pipeline.predictions.kind import Gate, Trained
from cdp_pipeline.predictions.metrics import Ranking, calibration_error, ranking
from cdp_pipeline.predictions.windows import lacking
from cdp_pipeline.spec.prediction import ItemGates, Prediction

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

RESAMPLES = 100


def codes(column: pa.ChunkedArray) -> np.ndarray:
    """A number for each value, in order of appearance."""
    return column.combine_chunks().dictionary_encode().indices.to_numpy()


def measure_items(test: pa.Table, score: np.ndarray, rivals: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    """Every metric of `score` on the rows (person_id, item, label) beside rivals; `*_low`, `*_high` are 95 % bounds."""
    import numpy as np

    label = test["label"].to_numpy().astype(float)
    people, items = codes(test["person_id"]), codes(test["item"])
    safe = np.clip(score, 1e-6, 1 - 1e-6)
    measured = {
        "pairs": float(len(label)),
        "people": float(people.max() + 1),
        "items": float(items.max() + 1),
        "positive_rate": float(label.mean()),
        "mean_score": float(score.mean()),
        "auc": ranking(label, score),
        "within_item_auc": within(label, score, items),
        "ece": calibration_error(label, score),
        "log_loss": float(-(label * np.log(safe) + (1 - label) * np.log(1 - safe)).mean()),
    }
    own = Ranking(label, score)
    others = {name: Ranking(label, rival) for name, rival in rivals.items()}
    random, gains = np.random.default_rng(seed), {name: list[float]() for name in ("auc", *rivals)}
    for _ in range(RESAMPLES):
        drawn = np.bincount(random.integers(0, people.max() + 1, people.max() + 1), minlength=people.max() + 1)
        weight = drawn[people].astype(float)
        area = own.area(weight)
        gains["auc"].append(area)
        for name, other in others.items():
            gains[name].append(area - other.area(weight))
    for name, values in gains.items():
        low, high = (float(value) for value in np.nanquantile(values, (0.025, 0.975)))
        if name != "auc":
            measured[f"{name}_auc"] = ranking(label, rivals[name])
            measured[f"gain_over_{name}"] = measured["auc"] - measured[f"{name}_auc"]
        measured |= {
            f"{'auc' if name == 'auc' else f'gain_over_{name}'}_{end}": value
            for end, value in (("low", low), ("high", high))
        }
    return measured


def within(label: np.ndarray, score: np.ndarray, items: np.ndarray) -> float:
    """Mean over items of the AUC among people: knowing what is popular does not help here."""
    import numpy as np

    order = np.argsort(items, kind="stable")
    edges = np.flatnonzero(np.r_[True, np.diff(items[order]) > 0])
    parts = [part for part in np.split(order, edges[1:]) if 0 < label[part].sum() < len(part)]
    return float(np.mean([ranking(label[part], score[part]) for part in parts])) if parts else float("nan")


def least_data(past: pa.Table, test: pa.Table, prediction: Prediction, items: int = 2) -> str | None:
    """The first number that is too small to learn from, in words."""
    import pyarrow.compute as pc

    def ones(rows: pa.Table) -> int:
        return pc.sum(rows["label"]).as_py() or 0

    least = prediction.minimum
    have = {
        "people in the training windows": (pc.count_distinct(past["person_id"]).as_py(), least.people),
        "items": (pc.count_distinct(past["item"]).as_py(), items),
        "pairs there for which it happened": (ones(past), least.positives),
        "pairs there for which it did not happen": (past.num_rows - ones(past), least.positives),
        "pairs in the test window for which it happened": (ones(test), 1),
        "pairs in the test window for which it did not happen": (test.num_rows - ones(test), 1),
    }
    return lacking(have)


def judge_items(trained: Trained, gates: ItemGates, rivals: dict[str, str]) -> list[Gate]:
    """Every gate of a model of people and items; it must rank better than each of `rivals` (name → words)."""
    if trained.missing:
        return [Gate("minimum_data", False, trained.missing)]
    m = trained.metrics
    verdicts = [
        Gate("minimum_data", True, f"learned from {trained.card['train_people']} people"),
        Gate("auc", m["auc"] >= gates.min_auc, f"AUC {m['auc']:.3f}, at least {gates.min_auc:g} is needed"),
        Gate(
            "calibration",
            m["ece"] <= gates.max_calibration_error,
            f"probabilities are off by {m['ece']:.3f} on average, at most {gates.max_calibration_error:g} is allowed",
        ),
    ]
    for name, said in rivals.items():
        words = f"AUC {m['auc']:.3f}, {said} alone reaches {m[f'{name}_auc']:.3f}"
        verdicts.append(Gate(f"better_than_{name}", m["auc"] > m[f"{name}_auc"], words))
    if "champion_auc" in m:
        words = f"AUC {m['auc']:.3f}, the champion reaches {m['champion_auc']:.3f}"
        verdicts.append(Gate("not_worse_than_champion", m["gain_over_champion_high"] >= 0, words))
    return verdicts
