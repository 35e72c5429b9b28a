"""What the registry keeps of a ranking: its chain, the weights it learned, and how often each way proved right.

Whatever goes with what is counted anew from the history of each day, so that a list of a past day knows that day only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cdp_pipeline.predictions.recommend.chain import VOICES
from cdp_pipeline.predictions.recommend.history import History
from cdp_pipeline.predictions.recommend.learned import Weights, learned
from cdp_pipeline.predictions.recommend.voices import Voice


@dataclass(frozen=True)
class Recommender:
    """ways: the chain. weights: of `learned`, if in the chain. rates: share of hits of each way when measured."""

    ways: tuple[str, ...]
    weights: Weights | None = None
    rates: dict[str, float] = field(default_factory=dict)

    def voices(self, history: History) -> dict[str, Voice]:
        """The chain, made from what is known on a day; `learned` only where weights were learned."""
        return {
            way: learned(history, self.weights)
            if way == "learned" and self.weights is not None
            else history.made(VOICES[way])
            for way in self.ways
            if way != "learned" or self.weights is not None
        }
