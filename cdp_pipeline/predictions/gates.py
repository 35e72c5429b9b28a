"""What a model must prove on the newest labelled window before it scores anybody: gates, each with words."""

from __future__ import annotations

from cdp_pipeline.predictions.kind import Gate, Trained
from cdp_pipeline.spec.prediction import Binary


def judge(trained: Trained, prediction: Binary) -> list[Gate]:
    """Every gate of a trained model. It is promoted only when all pass; otherwise the champion goes on scoring."""
    if trained.missing:
        return [Gate("minimum_data", False, trained.missing)]
    m, gates = trained.metrics, prediction.gates
    verdicts = [
        Gate("minimum_data", True, f"learned from {trained.card['train_people']} people"),
        Gate("auc", m["auc"] >= gates.min_auc, f"AUC {m['auc']:.3f}, at least {gates.min_auc:g} is needed"),
        Gate(
            "better_than_baseline",
            m["auc"] > m["baseline_auc"],
            f"AUC {m['auc']:.3f}, recency, frequency and amount alone reach {m['baseline_auc']:.3f}",
        ),
        Gate(
            "calibration",
            m["ece"] <= gates.max_calibration_error,
            f"probabilities are off by {m['ece']:.3f} on average, at most {gates.max_calibration_error:g} is allowed",
        ),
        Gate(
            "lift",
            m["lift_10"] >= gates.min_lift,
            f"the best 10 % reach {m['lift_10']:.2f} times the average rate, at least {gates.min_lift:g} is needed",
        ),
    ]
    for rival, said in {"rhythm": "the own rhythm alone (BG/NBD)", "champion": "the champion"}.items():
        if f"{rival}_auc" in m:
            not_worse = m[f"gain_over_{rival}_high"] >= 0
            words = f"AUC {m['auc']:.3f}, {said} reaches {m[f'{rival}_auc']:.3f}"
            verdicts.append(Gate(f"not_worse_than_{rival}", not_worse, words))
    if prediction.slices:
        verdicts.append(_slices(trained, prediction))
    return verdicts


def _slices(trained: Trained, prediction: Binary) -> Gate:
    most = prediction.gates.max_slice_error
    found = [
        (one["ece"] - one["ece_by_chance"], f"{name} = {value}", one)
        for name, values in trained.card["slices"].items()
        for value, one in values.items()
    ]
    wrong = [
        f"for {who} probabilities are off by {one['ece']:.3f}, {one['ece_by_chance']:.3f} of it by chance; at most "
        f"{most:g} is allowed"
        for error, who, one in found
        if error > most
    ]
    return Gate("slices", not wrong, "; ".join(wrong) or f"as good for each of {len(found)} groups of people")
