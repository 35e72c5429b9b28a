"""What the Dagster UI shows of an audience: tables and one small picture, as Markdown. Counts only, never a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cdp_pipeline.audiences.breakdown import Difference, clearest
from cdp_pipeline.audiences.waterfall import Waterfall
from cdp_pipeline.predictions.charts import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_OTHERS, MOST_DIFFERENCES, BAR = 5, 12, 12


def card(
    waterfall: Waterfall,
    overlap: Sequence[Mapping[str, Any]],
    differences: Iterable[Difference],
    history: Sequence[Mapping[str, Any]],
    *,
    drawn: bool = True,
) -> dict[str, str]:
    """Every table and picture of an audience by title. `overlap` is Overlaps.rows, `history` rows of SIZES by day."""
    found = {"waterfall": waterfall_table(waterfall)}
    if any(row["in_both"] for row in overlap):
        found["overlap"] = overlap_table(overlap)
    if apart := clearest(differences, MOST_DIFFERENCES):
        found["what sets it apart"] = differences_table(apart)
    if drawn and len(history) > 1:
        found["size by day"] = size_chart(history)
    return found


def waterfall_table(waterfall: Waterfall) -> str:
    """People left after each condition, as a bar too, and how many fail only it."""
    widest = max(waterfall.everybody, 1)
    rows = [
        (
            f"**{_plain(row['condition'])}**" if row["condition"] == "everybody" else _plain(row["condition"]),
            f"{row['people left']:,}",
            "█" * round(BAR * row["people left"] / widest) or "▏",
            f"{row['removed']:,}",
            f"{row['fail only this']:,}",
        )
        for row in waterfall.rows()
    ]
    return _table(["condition", "people left", "", "removed", "fail only this"], rows, left={0, 2})


def overlap_table(overlap: Sequence[Mapping[str, Any]]) -> str:
    """The audiences most alike."""
    rows = [
        (row["audience"], f"{row['in_both']:,}", f"{row['share_of_this']:.0%}", f"{row['share_of_that']:.0%}",
         f"{row['jaccard']:.3f}")
        for row in overlap[:MOST_OTHERS] if row["in_both"]
    ]  # fmt: skip
    return _table(["audience", "in both", "of this one", "of the other", "Jaccard"], rows, left={0})


def differences_table(differences: Iterable[Difference]) -> str:
    """Index 100 is as common as among everybody."""
    rows = [
        (one.what, _plain(one.says), f"{one.share:.0%}", f"{one.share_of_everybody:.0%}", str(one.index))
        for one in differences
    ]
    return _table(["what", "segment", "of the audience", "of everybody", "index"], rows, left={0, 1})


def size_chart(history: Sequence[Mapping[str, Any]]) -> str:
    """How many people it had each day, and how many each channel reached."""

    def draw(axes: Axes) -> None:
        days = [row["day"] for row in history]
        for column in ("people", "reachable_email", "reachable_phone"):
            axes.plot(days, [row[column] for row in history], label=column.replace("_", " by ").replace("able", "ed"))
        axes.set_ylim(bottom=0)
        axes.tick_params(axis="x", labelrotation=30)
        axes.legend(loc="lower left")

    return picture("People by day", draw)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: set[int]) -> str:
    lines = [" | ".join(head), " | ".join("---" if i in left else "--:" for i in range(len(head)))]
    return "\n".join(f"| {line} |" for line in [*lines, *(" | ".join(row) for row in rows)])


def _plain(text: str) -> str:
    """Words that Markdown leaves alone."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
