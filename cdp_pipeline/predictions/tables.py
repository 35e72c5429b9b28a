"""The shape that training sets and scores of every type of prediction share; what a type adds to it is its own."""

from __future__ import annotations

from collections.abc import Mapping

from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.spec.prediction import Prediction


def training_table_of(
    prediction: Prediction, label: Column, learned: Mapping[str, Column], item: str | None = None
) -> Table:
    """`predictions.<name>_training`: one row per person (and item) and cut-off; `item` says in words what that is."""
    return Table(
        name=f"predictions.{prediction.name}_training",
        description=f"What the model of '{prediction.name}' learned from (train) and was tested on (test).",
        columns={
            "person_id": Column("string", "The person."),
            "day": Column("date", "The cut-off: nothing after this day is known."),
            **({"item": Column("string", item)} if item else {}),
            "split": Column("string", "train, or test for the newest fully labelled cut-off."),
            "label": label,
            **learned,
        },
        key=("person_id", "day", "item") if item else ("person_id", "day"),
        derived=True,
    )


def scores_table_of(
    prediction: Prediction,
    score: str,
    item: str | None = None,
    between: Mapping[str, Column] | None = None,
    basis: str = "model: personal; prior: a known rate, where nothing personal can be said.",
) -> Table:
    """`predictions.<name>`: one score per person (and item) and day, said in words; `between` comes after the score."""
    whose = "the person's highest score" if item else "the highest score"
    return Table(
        name=f"predictions.{prediction.name}",
        description=prediction.description,
        columns={
            "person_id": Column("string", "The person."),
            "day": Column("date", "As of the end of this day."),
            **({"item": Column("string", item)} if item else {}),
            "score": Column("float64", score),
            **(between or {}),
            "rank": Column("int64", f"1 is {whose} of the day."),
            "band": Column("string", "The named range the score falls into."),
            "basis": Column("string", basis),
            "reasons": Column("string", "What raises or lowers the score most, in words."),
            "model_version": Column("string", "The version in predictions.models that said so."),
        },
        key=("person_id", "day", "item") if item else ("person_id", "day"),
        month_of="day",
    )
