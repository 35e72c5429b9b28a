"""Rhythm and amounts against their authors' figures: CDNOW

The 1/10 sample of the customers of an online record shop, 39 weeks to learn from and 39 to foresee. The parameters
are those of Fader, Hardie and Lee (2005) and of Fader and Hardie (2013).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np

from cdp_pipeline.predictions.rhythm import ParetoRhythm, Rhythm
from cdp_pipeline.predictions.spend import Spend
from prediction_sets.row import Row

HALF = date(1997, 9, 30)
PUBLISHED = {
    "BG/NBD": {"r": 0.243, "alpha": 4.414, "a": 0.793, "b": 2.426},
    "Pareto/NBD": {"r": 0.553, "alpha": 10.578, "s": 0.606, "beta": 11.669},
    "Gamma-Gamma": {"p": 6.25, "q": 3.74, "gamma": 15.44},
}
LIKELIHOOD = {"BG/NBD": -9582.4, "Pareto/NBD": -9595.0}
CORRELATION = {"BG/NBD": 0.626, "Pareto/NBD": 0.630}


def rows(data: Path) -> Iterator[Row]:
    spent = _amounts(data / "CDNOW_sample.txt")
    seen = [sorted(day for day in days if day <= HALF) for days in spent]
    later = np.array([sum(day > HALF for day in days) for days in spent])
    history = np.array([((HALF - days[-1]).days, len(days), (HALF - days[0]).days) for days in seen], dtype=float).T
    repeats = [[amounts[day] for day in days[1:]] for amounts, days in zip(spent, seen, strict=True)]
    times, mean = (np.array([measure(r) if r else 0.0 for r in repeats]) for measure in (len, np.mean))
    fitted = {"BG/NBD": Rhythm.fit(*history), "Pareto/NBD": ParetoRhythm.fit(*history)}
    for name, model in {**fitted, "Gamma-Gamma": Spend.fit(times, mean)}.items():
        for parameter, value in asdict(model).items():
            yield _row(name, parameter, value, PUBLISHED[name][parameter], 0.005)
    for name, model in fitted.items():
        yield _row(name, "log-likelihood", float(model.log_likelihood(*history).sum()), LIKELIHOOD[name], 0.05)
        foreseen = model.expected(*history, horizon_days=39 * 7)
        correlation = float(np.corrcoef(foreseen, later)[0, 1])
        yield _row(name, "correlation with the 39 weeks after", correlation, CORRELATION[name], 0.001)


def _row(what: str, measure: str, ours: float, theirs: float, within: float) -> Row:
    demanded = f"within {within:g}"
    return Row(
        what, "to 1997-09-30", measure, ours, "published", theirs, None, None, demanded, abs(ours - theirs) <= within
    )


def _amounts(path: Path) -> list[dict[date, float]]:
    """Per customer: what they spent on each day, the purchases of one day taken together."""
    found: dict[str, dict[date, float]] = {}
    for line in path.read_text().splitlines():
        _, person, digits, _, amount = line.split()
        day, spent = date(int(digits[:4]), int(digits[4:6]), int(digits[6:])), found.setdefault(person, {})
        spent[day] = spent.get(day, 0) + float(amount)
    return list(found.values())
