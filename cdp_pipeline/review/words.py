"""A difference in words: as Markdown for a review comment, and as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdp_pipeline.review.difference import AudienceChange, Difference
    from cdp_pipeline.review.values import ValueChange

MOST = 40


def markdown(found: Difference, title: str = "What this change does to people") -> str:
    """The whole difference, shortest things first; long lists are cut and say so."""
    return "\n".join([f"## {title}", "", *_paragraphs(found)]).rstrip() + "\n"


def _paragraphs(found: Difference) -> Iterator[str]:
    rows: list[Sequence[str]]
    yield f"As of {found.day}, {found.people:,} people. {_headline(found)}"
    yield ""
    if found.documents:
        rows = [(one.kind, f"`{one.name}`", str(one)) for one in found.documents]
        yield from _table("Documents", ("kind", "name", "change"), rows)
    if found.identity is not None:
        yield from _section("People", [f"- {line}" for line in found.identity.lines(5)])
    for title, values in (("Traits", found.traits), ("Attributes", found.attributes)):
        rows = [_value_row(one) for one in values]
        columns = ("name", "people with another value", "had none", "have none now", "mean", "for example")
        yield from _table(title, columns, rows)
    rows = [
        (f"`{one.name}`", f"{was} → {becomes}", f"{people:,}")
        for one in found.bands
        for was, becomes, people in one.moves
    ]
    yield from _table("Bands", ("trait", "move", "people"), rows)
    rows = [_audience_row(one) for one in found.audiences]
    yield from _table("Audiences", ("name", "before", "after", "enter", "leave", "for example"), rows)
    rows = [
        (f"`{name}`", ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items())))
        for name, kinds in found.sends.items()
    ]
    yield from _table("Syncs would send", ("sync", "operations"), rows)
    rows = [(f"`{name}`", f"{people:,}") for name, people in found.fires.items()]
    yield from _table("Triggers would fire, before cool-downs and guards", ("trigger", "people"), rows)
    yield from _section("Not compared", [f"- {one}" for one in found.unseen])


def _headline(found: Difference) -> str:
    if not found.documents:
        return "The projects say the same."
    moved = sum(one.enter + one.leave for one in found.audiences)
    counts = [
        (len(found.traits), "trait", "changes", "change"), (len(found.attributes), "attribute", "changes", "change"),
        (len(found.audiences), "audience", "moves", "move"),
    ]  # fmt: skip
    said = [f"{n} {what}{'' if n == 1 else 's'} {one if n == 1 else many}" for n, what, one, many in counts if n]
    if found.identity is not None:
        said.append(f"{len(found.identity.merged)} people merge, {len(found.identity.split)} split")
    if not said:
        return "No person sees a difference."
    return f"{'; '.join(said)}." + (f" {moved:,} moves into and out of audiences." if moved else "")


def _value_row(one: ValueChange) -> tuple[str, ...]:
    name = f"`{one.name}`" + (f" ({one.change})" if one.change != "changed" else "")
    share = f"{one.changed:,} of {one.people:,} ({one.changed / one.people:.1%})" if one.people else f"{one.changed:,}"
    mean = f"{_figure(one.before)} → {_figure(one.after)}" if (one.before, one.after) != (None, None) else ""
    some = [
        f"`{person}`" + (f": {_shown(values[0])} → {_shown(values[1])}" if values else "")
        for person, *values in one.sample
    ]
    return name, share, f"{one.gained:,}", f"{one.lost:,}", mean, "<br>".join(some)


def _audience_row(one: AudienceChange) -> tuple[str, ...]:
    some = [f"+ `{person}`" for person in one.entering] + [f"− `{person}`" for person in one.leaving]
    return f"`{one.name}`", f"{one.before:,}", f"{one.after:,}", f"{one.enter:,}", f"{one.leave:,}", "<br>".join(some)


def _figure(value: float | Decimal | None) -> str:
    if value is None:
        return "none"
    return f"{float(value):,.4g}" if abs(float(value)) < 1000 else f"{value:,.0f}"


def _shown(value: Any) -> str:
    return "none" if value is None else _figure(value) if isinstance(value, float | Decimal) else str(value)


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from (f"### {title}", "", *lines, "")


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table without the columns in which nothing is said."""
    rows = list(rows)
    kept = [i for i in range(len(columns)) if any(row[i] not in ("", "0") for row in rows)]
    lines = [
        "| " + " | ".join(columns[i] for i in kept) + " |",
        "|" + "---|" * len(kept),
        *("| " + " | ".join(row[i].replace("|", "\\|") for i in kept) + " |" for row in rows[:MOST]),
        *([f"\n… and {len(rows) - MOST:,} more"] if len(rows) > MOST else []),
    ]
    yield from _section(title, lines if rows else [])


def as_json(found: Difference) -> dict[str, Any]:
    """Everything, uncut."""
    return {
        "day": found.day,
        "people": found.people,
        "documents": [asdict(one) for one in found.documents],
        "identity": None if found.identity is None else found.identity.as_json(),
        "attributes": [asdict(one) for one in found.attributes],
        "traits": [asdict(one) for one in found.traits],
        "bands": [asdict(one) for one in found.bands],
        "audiences": [asdict(one) for one in found.audiences],
        "sends": {name: dict(kinds) for name, kinds in found.sends.items()},
        "fires": found.fires,
        "unseen": found.unseen,
    }
