"""Pictures of a model for the Dagster UI, as Markdown with the image inside. Drawn from its card: never from people."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IMPORTANT = 12
HEADLINE = ("auc", "gini", "qini", "ndcg", "log_loss", "ece", "total_ratio", "lift_10")
"""The metrics there is room for where many versions are shown, of those a version has."""


def binary_charts(card: dict[str, Any], words: dict[str, str]) -> dict[str, str]:
    """Pictures of probabilities by title; none where there is no model. `words` says features as people do."""
    if "reliability" not in card:
        return {}
    return {
        "calibration": calibration_chart(card),
        "gains": gains_chart(card),
        "lift": lift_chart(card),
        "importance": importance_chart(card, words),
    }


def calibration_chart(card: dict[str, Any]) -> str:
    """What was promised against what happened, per tenth of the scores; on the line is honest."""

    def draw(axes: Axes) -> None:
        said, was, people = zip(*card["reliability"], strict=True)
        axes.plot([0, 1], [0, 1], color="lightgrey", label="honest")
        axes.scatter(
            said, was, s=[max(12, 400 * count / sum(people)) for count in people], label="model (size: people)"
        )
        axes.set(xlabel="promised probability", ylabel="share for whom it happened", xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left")

    return picture("Calibration on the test window", draw)


def gains_chart(card: dict[str, Any]) -> str:
    """How many of those for whom it happens are found by taking the best scores first."""

    def draw(axes: Axes) -> None:
        shares = [step / 20 for step in range(21)]
        axes.plot(shares, [0, *card["gains"]], marker=".", label="model")
        axes.plot([0, 1], [0, 1], color="lightgrey", label="at random")
        axes.set(
            xlabel="share of people taken, best first", ylabel="share of positives found", xlim=(0, 1), ylim=(0, 1)
        )
        axes.legend(loc="lower right")

    return picture("Gains on the test window", draw)


def lift_chart(card: dict[str, Any]) -> str:
    """How many times the average rate is reached by taking so many people, best scores first."""

    def draw(axes: Axes) -> None:
        shares = [step / 20 for step in range(1, 21)]
        axes.plot(shares, [gain / share for gain, share in zip(card["gains"], shares, strict=True)], marker=".")
        axes.axhline(1, color="lightgrey")
        axes.set(xlabel="share of people taken, best first", ylabel="times the average rate", xlim=(0, 1))
        axes.set_ylim(bottom=0)

    return picture("Lift on the test window", draw)


def learning_charts(versions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How good each version was on days it had not seen, and which ones became champion: a picture of its first metric.

    `versions` are rows of predictions.models; those without metrics, because data were too few, are left out.
    """
    rows = [(row["status"], json.loads(row["metrics"]), json.loads(row["card"])) for row in versions]
    metric = next((name for name in HEADLINE for _, metrics, _ in rows if name in metrics), None)
    return {} if metric is None else {"learning over time": learning_chart(rows, metric)}


def learning_chart(rows: Sequence[tuple[str, dict[str, float], dict[str, Any]]], metric: str) -> str:
    """One metric of versions (status, metrics, card) by the day they were tested on."""

    def draw(axes: Axes) -> None:
        for said, marker, color, statuses in (
            ("became champion", "o", "tab:blue", ("champion", "retired")),
            ("failed a gate", "x", "tab:red", ("rejected",)),
        ):
            shown = [
                (date.fromisoformat(card["test_cutoff"]), metrics[metric])
                for status, metrics, card in rows
                if status in statuses and metric in metrics
            ]
            if shown:
                axes.scatter(*zip(*shown, strict=True), marker=marker, color=color, label=said)
        axes.set(xlabel="tested on", ylabel=metric.replace("_", " "))
        axes.tick_params(axis="x", rotation=30)
        axes.legend(loc="lower right")

    return picture("What each version proved", draw)


def realised_chart(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """How good scores have proved to be, by the day of the scores: rows of predictions.realised of one prediction."""

    def draw(axes: Axes) -> None:
        for metric in metrics:
            mine = sorted((row["day"], row["value"]) for row in rows if row["metric"] == metric)
            axes.plot(*zip(*mine, strict=True), marker=".", label=metric.replace("_", " "))
        axes.set(xlabel="day of the scores")
        axes.set_ylim(bottom=0)
        axes.tick_params(axis="x", rotation=30)
        axes.legend(loc="best")

    return picture("What the scores proved to be worth", draw)


def drift_chart(drift: Mapping[str, float], limit: float, words: Mapping[str, str]) -> str:
    """How far each watched figure has moved from what the model learned from (PSI), and how far it may."""

    def draw(axes: Axes) -> None:
        top = sorted(drift.items(), key=lambda item: -item[1])[:MOST_IMPORTANT][::-1]
        axes.barh([words.get(name, name)[:60] for name, _ in top], [index for _, index in top])
        axes.axvline(limit, color="tab:red", label="moved too far")
        axes.set(xlabel="population stability index against training")
        axes.legend(loc="lower right")

    return picture("What has moved since training", draw)


def importance_chart(card: dict[str, Any], words: dict[str, str], measure: str = "AUC") -> str:
    """What the model leans on: the AUC (or another measure) lost when a feature is shuffled among people."""

    def draw(axes: Axes) -> None:
        top = list(card["importance"].items())[:MOST_IMPORTANT][::-1]
        axes.barh([words.get(name, name)[:60] for name, _ in top], [lost for _, lost in top])
        axes.set(xlabel=f"{measure} lost without it")

    return picture("What the model leans on", draw)


def picture(title: str, draw: Callable[[Axes], None]) -> str:
    """A figure as Markdown with the image inside."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=80, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    draw(axes)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return f"![{title}](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"
