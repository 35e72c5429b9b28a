"""Pictures of a model for the Dagster UI, as Markdown with the image inside. Drawn from its card: never from people."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IMPORTANT = 12


def binary_charts(card: dict[str, Any], words: dict[str, str]) -> dict[str, str]:
    """Pictures of probabilities by title; none where there is no model. `words` says features as people do."""
    if "reliability" not in card:
        return {}
    return {
        "calibration": calibration_chart(card),
        "gains": gains_chart(card),
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


def importance_chart(card: dict[str, Any], words: dict[str, str]) -> str:
    """What the model leans on: the AUC lost when a feature is shuffled among people."""

    def draw(axes: Axes) -> None:
        top = list(card["importance"].items())[:MOST_IMPORTANT][::-1]
        axes.barh([words.get(name, name)[:60] for name, _ in top], [lost for _, lost in top])
        axes.set(xlabel="AUC lost without it")

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
