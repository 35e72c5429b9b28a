"""Audiences as Dagster assets: one step per cadence, each audience a node with its own tests, freshness and card.

An audience whose tests fail is held: the step goes on, what was found is not published, its syncs wait and so does
every audience that builds on it. What the tests mean is audiences/expectations.py's business.
"""

import os
import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import dagster as dg
import ibis
from croniter import croniter

from cdp_pipeline.audiences.breakdown import breakdowns, people_of
from cdp_pipeline.audiences.cards import card
from cdp_pipeline.audiences.decide import Decided, decide
from cdp_pipeline.audiences.expectations import ACCEPT, accepted_changes
from cdp_pipeline.audiences.explain import whole_words
from cdp_pipeline.audiences.look import scope_of
from cdp_pipeline.audiences.members import CHANGES, HELD, MEMBERS, SIZES, changes, picked
from cdp_pipeline.audiences.overlap import overlaps
from cdp_pipeline.audiences.rules import audiences_in_order, every_rule, leaves, named_audiences
from cdp_pipeline.audiences.waterfall import waterfalls
from cdp_pipeline.identity.groups import MEMBERS as GROUP_MEMBERS
from cdp_pipeline.identity.people import IDENTIFIERS
from cdp_pipeline.lake import Lake, Mirror
from cdp_pipeline.orchestration import checks
from cdp_pipeline.orchestration.describe import column_schema, note, shown
from cdp_pipeline.orchestration.partitions import SINGLE_RUN, daily, requested_days
from cdp_pipeline.orchestration.resources import RESOURCES
from cdp_pipeline.spec.audience import Audience, Rule
from cdp_pipeline.spec.load import SHIPPED
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.bands import BANDS
from cdp_pipeline.traits.daily import daily_table

SAMPLE = 20_000
"""People the cards look at to say what sets an audience apart; `cdp audience breakdown` looks at everybody."""
AT_LEAST = 10
"""A segment that fewer people are in is not shown."""
DRAWN = 50
"""Audiences of one step that get a picture: it costs a tenth of a second each."""
SHOWN_DAYS = 90


def asked_of(project: Project, rules: Sequence[Rule]) -> list[list[str]]:
    """The tables that conditions look into, also by way of other audiences they name."""
    customers, events = "profile.customers", "profile.timeline"
    keys = {
        "band": BANDS.name,
        "attribute": customers,
        "event": events,
        "sequence": events,
        "related": IDENTIFIERS.name,
        "identifier": IDENTIFIERS.name,
        "account": GROUP_MEMBERS.name,
    }
    found = {"traits.daily"}
    for rule in leaves(every_rule(project, rules)):
        if rule.subject in keys:
            found.add(keys[rule.subject])
        found.update(f"sources.{hop.source}" for hop in rule.related or [])
        if rule.prediction is not None:
            found.add(f"predictions.{rule.prediction}")
        if rule.subject == "related" and rule.related and rule.related[0].on:
            found.add(customers)
    return [name.split(".") for name in sorted(found)]


def group_of(project: Project, audience: Audience) -> str:
    """The box of the lineage an audience is in: `audiences`, and after it the folders its YAML lies in.

    `audiences/retention/winback.yaml` is in `audiences_retention`. Audiences that come with the house have no folder.
    """
    file = project.places.get(("audience", audience.name), "")
    folders = () if file.startswith(SHIPPED) else PurePosixPath(file).parent.parts
    named = [re.sub("[^A-Za-z0-9]+", "_", folder) for folder in folders if folder != "audiences"]
    return "_".join(["audiences", *named])


def tags_of(project: Project, audience: Audience) -> dict[str, str]:
    """What audiences are looked for by in the UI: cadence, what they ask of people, and whether anything acts on them.

    `asks/prediction` says that a condition of its own is about a prediction; `acts/sync` and `acts/trigger` that
    people are delivered or messaged because of it; `shipped` that it comes with the house.
    """
    asks = {f"asks/{rule.subject}": "" for rule in leaves(audience.rules)}
    synced = {sync.audience for sync in project.syncs.values()}
    watched = {name for trigger in project.triggers.values() for name in (trigger.on.entered, trigger.on.left)}
    acts = {f"acts/{by}": "" for by, names in (("sync", synced), ("trigger", watched)) if audience.name in names}
    shipped = project.places.get(("audience", audience.name), "").startswith(SHIPPED)
    return {"cadence": audience.cadence, **asks, **acts, **({"shipped": ""} if shipped else {})}


def description_of(audience: Audience) -> str:
    """What it is, and its conditions in words."""
    return "\n".join([audience.description, "", "In it is whoever:", *(f"- {whole_words(r)}" for r in audience.rules)])


def freshness_of(project: Project, audience: Audience) -> timedelta:
    """How old an audience may become: as it says, or twice the longest time between ticks of its cadence."""
    if audience.freshness is not None:
        return audience.freshness
    ticks = croniter(project.settings.cadences[audience.cadence], datetime(2026, 1, 1), ret_type=float)
    times = [ticks.get_next() for _ in range(9)]
    return timedelta(seconds=2 * max(later - sooner for sooner, later in pairwise(times)))


def audience_assets(project: Project, cadence: str) -> dg.AssetsDefinition:
    """The audiences of a cadence, found in one pass; each is a node of its own with its own checks."""
    audiences = {name: audience for name, audience in project.audiences.items() if audience.cadence == cadence}

    def spec(audience: Audience) -> dg.AssetSpec:
        tested = [Rule(audience=name) for name in audience.tests.named_audiences]
        owner = audience.owner or project.settings.owner
        return dg.AssetSpec(
            ["audiences", audience.name],
            # What tests compare it with is no edge: two audiences may be each other's test.
            deps=[
                *asked_of(project, [*audience.rules, *tested]),
                *(["audiences", name] for name in sorted(named_audiences(audience.rules))),
            ],
            group_name=group_of(project, audience),
            description=description_of(audience),
            owners=[owner] if owner else [],
            kinds={"ibis"},
            tags=tags_of(project, audience),
            freshness_policy=dg.FreshnessPolicy.time_window(fail_window=freshness_of(project, audience)),
            metadata={"dagster/column_schema": column_schema(MEMBERS), "dagster/table_name": MEMBERS.name},
        )

    @dg.multi_asset(
        name=f"audiences_{cadence}",
        specs=[spec(audience) for audience in audiences.values()],
        check_specs=[check for audience in audiences.values() for check in checks.audience_specs(audience)],
        can_subset=True,
        partitions_def=daily(project),
        backfill_policy=SINGLE_RUN,
        required_resource_keys=RESOURCES,
    )
    def decide_members(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake: Lake = context.resources.lake
        names = sorted(key.path[-1] for key in context.selected_asset_keys)
        days = requested_days(context) or []
        found = decide(lake, project, names, days, accepted_changes(os.environ.get(ACCEPT), project))
        lake.publish(Mirror(MEMBERS, found.members, within={"audience": names, "day": days}), note=note(context))
        # What came after a restated day moved against it, so its moves are told anew.
        here = lake.local
        told, current = here.read(SIZES), here.read(MEMBERS)
        later = told.filter(told.audience.isin(names) & (told.day > ibis.date(days[0]))).select("day").distinct()
        following = sorted({*days, *later.day.to_pyarrow().to_pylist()})
        others = told.filter(~(told.audience.isin(names) & told.day.isin(days)))
        told = others.union(lake.held(ibis.memtable(found.sizes)))
        moves = changes(current, told, here.read(daily_table(project, ())), names, following)
        lake.publish(
            Mirror(SIZES, found.sizes, within={"audience": names, "day": days}),
            Mirror(HELD, found.held, within={"audience": names, "day": days}),
            Mirror(CHANGES, moves, within={"audience": names, "day": following}),
            note=note(context),
        )
        shown = cards(lake, project, found, days[-1])
        # Dagster wants to hear of an audience before it hears of those that build on it.
        order = audiences_in_order(project, [Rule(audience=name) for name in names])
        for name in [name for batch in order for name in batch if name in names]:
            yield dg.MaterializeResult(
                asset_key=["audiences", name],
                metadata=_figures(found, name, days) | shown.get(name, {}),
                check_results=list(checks.audience_results(audiences[name], found.verdicts, days)),
            )

    return decide_members


def _figures(found: Decided, name: str, days: Sequence[date]) -> dict[str, Any]:
    """Size, reach, and whether it is held."""
    row = found.people.get((name, days[-1]), {})
    figures: dict[str, Any] = {
        "dagster/row_count": row.get("people", 0),
        "reachable by e-mail": row.get("reachable_email", 0),
        "reachable by phone": row.get("reachable_phone", 0),
    }
    if why := found.verdicts.held.get((name, days[-1])):
        figures["held"] = why
    if held := sum((name, day) in found.verdicts.held for day in days):
        figures["days held"] = held
    return figures


def cards(lake: Lake, project: Project, found: Decided, day: date) -> dict[str, dict[str, dg.MetadataValue]]:
    """What the UI shows of each audience that could be asked: waterfall, overlap, what sets it apart, sizes by day."""
    here, names = lake.local, found.asked
    if not names:
        return {}
    current, told = here.read(MEMBERS), here.read(SIZES)
    current = lake.held(current.filter(current.day == ibis.date(day)))
    everybody = people_of(project, scope_of(here, project), day)
    people = lake.held(everybody.order_by("person_id").limit(SAMPLE))
    alike = overlaps(current)
    apart = breakdowns(project, names, people, picked(found.gathered, names), least=AT_LEAST)
    recent = told.filter(told.audience.isin(names) & (told.day > ibis.date(day - timedelta(days=SHOWN_DAYS))))
    history: dict[str, list[dict[str, Any]]] = {}
    for row in recent.order_by("day").to_pyarrow().to_pylist():
        history.setdefault(row["audience"], []).append(row)
    return {
        one.audience: {
            title: dg.MetadataValue.md(text)
            for title, text in card(
                one,
                alike.rows(one.audience, list(project.audiences)),
                apart[one.audience],
                history.get(one.audience, []),
                drawn=len(names) <= DRAWN,
            ).items()
        }
        for one in waterfalls(project, names, found.gathered, day)
    }


def audience_tables(project: Project) -> Iterator[dg.AssetsDefinition]:
    """Members, moves, sizes and what is held are written by the audiences themselves; here they are counted."""
    if project.audiences:
        every = [["audiences", name] for name in project.audiences]
        yield shown(MEMBERS, every, project.settings.owner, "audience")
        # One edge each where there could be as many as audiences: the four are published together.
        for table, by in ((CHANGES, "change"), (SIZES, "audience"), (HELD, "audience")):
            yield shown(table, [MEMBERS.name.split(".")], project.settings.owner, by)
