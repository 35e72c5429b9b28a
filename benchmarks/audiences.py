# ruff: noqa: T201
"""100 audiences of a million people in one pass against the dearest of them alone, and how long a size takes to ask.

    python benchmarks/audiences.py --rows 10000000 [--rounds 3]

Twenty traits and two years of events (see traits.py) are in a lake. 100 audiences ask traits, what people did, and each
other. CPU seconds in fresh processes; `size` is asked again and again in one process, as a console does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import ibis
from traits import DAY, measured, provide
from traits_increment import NOW, opened, project

from cdp_pipeline.audiences.look import scope_of
from cdp_pipeline.audiences.members import members
from cdp_pipeline.audiences.scope import Scope
from cdp_pipeline.identity.people import PEOPLE
from cdp_pipeline.lake import Lake, Mirror
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.audience import Audience
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.runs import steps

USED = ("orders", "orders_365d", "orders_90d", "orders_30d", "views_90d", "views_30d", "opens_90d", "app_orders_365d",
        "revenue", "revenue_365d", "revenue_90d", "order_value_365d", "biggest_order_365d", "last_category",
        "last_channel", "days_since_order", "days_since_view", "categories_365d", "top_category_365d",
        "orders_per_view_90d")  # fmt: skip
SEQUENCE = 50
"""The audience that also asks who bought within a week of looking, without opening an e-mail in between."""


def rules(number: int) -> list[dict[str, Any]]:
    """Five conditions: three on traits, one on events, one of another sort."""
    orders, days = 1 + number % 5, 30 + 10 * (number % 9)
    return [
        {"trait": "orders_365d", "op": ">=", "value": orders},
        {"trait": "days_since_view", "op": "<=", "value": days},
        {"any": [
            {"trait": "revenue_365d", "op": ">", "value": 25 * (number % 8)},
            {"trait": "last_channel", "op": "in", "value": ["app", "web"]},
        ]},
        {"event": "product_viewed", "when": f"category = 'c{number % 10}'", "window": f"last {days} days",
         "did": number % 3 > 0},
    ]  # fmt: skip


def audiences() -> dict[str, Audience]:
    found = {}
    for number in range(100):
        asked = rules(number)
        asked.append(
            {"audience": f"audience_{number - 10}"} if number % 10 == 9 and number > 10
            else {"trait": "top_category_365d", "op": "not_null"}
        )  # fmt: skip
        if number == SEQUENCE:
            asked.append({
                "sequence": [{"event": "product_viewed"}, {"event": "order_completed"}], "within": "7 days",
                "without": {"event": "email_opened"}, "window": "last 365 days",
            })  # fmt: skip
        found[f"audience_{number}"] = Audience.model_validate(
            {"kind": "audience", "name": f"audience_{number}", "description": "An audience.", "rules": asked}
        )
    for number in range(9):
        asked = [*rules(number)[:3], {"trait": "last_category", "op": "!=", "value": f"c{number}"},
                 {"trait": "top_category_365d", "op": "not_null"}]  # fmt: skip
        found[f"traits_{number}"] = Audience.model_validate(
            {"kind": "audience", "name": f"traits_{number}", "description": "An audience.", "rules": asked}
        )
    return found


def with_audiences() -> Project:
    whole = project()
    return Project(**{**vars(whole), "traits": {n: whole.traits[n] for n in USED}, "audiences": audiences()})


def prepare(folder: Path) -> None:
    shop = with_audiences()
    with opened(folder) as lake:
        people = lake.ibis.read_parquet(folder / "people.parquet")
        people = people.mutate(
            kind=ibis.literal("known"), identifiers=ibis.literal(1), created_at=ibis.timestamp("2023-01-01"),
            merged_into=ibis.null("string"), absorbed_by=ibis.null("string"),
        )  # fmt: skip
        events = lake.ibis.read_parquet(folder / "events.parquet")
        lake.publish(Mirror(timeline_table(shop), events), Mirror(PEOPLE, people))
        for step in steps(lake, shop, [DAY], NOW):
            lake.publish(*step.writes)


@contextmanager
def asked(folder: Path) -> Iterator[tuple[Lake, Project, Scope]]:
    shop = with_audiences()
    with opened(folder) as lake:
        yield lake, shop, scope_of(lake, shop)


def some(folder: Path, names: list[str]) -> None:
    with asked(folder) as (lake, shop, scope):
        lake.held(members(shop, names, scope, [DAY]))


def sizes(folder: Path, times: int, told: Path) -> None:
    """Sizes of audiences with an event among their conditions, and then of some without."""
    with asked(folder) as (_, shop, scope):
        seconds = []
        for number in range(times):
            started, cpu = time.perf_counter(), time.process_time()
            name = f"{'audience' if number < times // 2 else 'traits'}_{number % 9}"
            members(shop, [name], scope, [DAY]).count().to_pyarrow().as_py()
            seconds.append((time.perf_counter() - started, time.process_time() - cpu))
        told.write_text("\n".join(f"{wall} {cpu}" for wall, cpu in seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=Path, help="a folder with the events and people of traits.py --folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        provide(folder, given.rows, given.events)
        measured(prepare, folder)
        sides = {
            "all 100": [f"audience_{number}" for number in range(100)],
            "a sequence": [f"audience_{SEQUENCE}"],
            "eight others": ["audience_89"],
            "none of these": ["audience_7"],
        }
        best: dict[str, tuple[float, ...]] = {}
        for _ in range(given.rounds):
            for side, names in sides.items():
                found = measured(some, folder, names)
                best[side] = tuple(map(min, best.get(side, found), found))
        measured(sizes, folder, 60, folder / "sizes.txt")
        lines = (folder / "sizes.txt").read_text().splitlines()
    print(f"{given.rows:,} events, {given.rows // 10:,} people")
    for side, (cpu, wall, memory) in best.items():
        print(
            f"{side:14}{cpu:8.2f} CPU-s {wall:8.2f} s {memory:6.2f} GB   all 100 / it: {best['all 100'][0] / cpu:.2f}"
        )
    for what, asked in {
        "one about events": lines[: len(lines) // 2],
        "all about traits": lines[len(lines) // 2 :],
    }.items():
        walls, cpus = zip(*(map(float, line.split()) for line in asked), strict=True)
        for clock, figures in {"wall": walls, "CPU": cpus}.items():
            cuts = quantiles(figures, n=20)
            print(f"size of five conditions, {what}, {clock}: median {cuts[9]:.3f} s, p95 {cuts[18]:.3f} s")


if __name__ == "__main__":
    main()
