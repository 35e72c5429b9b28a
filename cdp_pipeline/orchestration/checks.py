"""The checks of every asset, generated from what the project declares: a spec for Dagster and its evaluation.

Blocking with ERROR only where going on would do harm: identity collapse. What stands in front of activation is an
ERROR that holds the one audience, not the run.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from statistics import median
from typing import Any

import dagster as dg
import ibis

from cdp_pipeline.activation.sync import Conservation
from cdp_pipeline.audiences.expectations import Outcome, Verdicts, expectations
from cdp_pipeline.identity import guard
from cdp_pipeline.lake import LakeView
from cdp_pipeline.orchestration.resources import RESOURCES
from cdp_pipeline.predictions.drift import MOVED
from cdp_pipeline.predictions.leaks import can_leak
from cdp_pipeline.sources.tables import LOADS, source_table
from cdp_pipeline.sources.usual import oddities, weekly
from cdp_pipeline.spec.audience import Audience
from cdp_pipeline.spec.prediction import Binary, Prediction
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.source import Source

MANY_VALUES_SHARE = 0.00011  # Amperity's benchmark for people with more than three given names
QUARANTINE_BUDGET = 0.05
VOLUME_HISTORY_DAYS = 28


def spec(key: list[str], name: str, description: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
    """A check that comes with its asset."""
    return dg.AssetCheckSpec(name, asset=key, description=description, blocking=blocking)


def result(
    name: str, passed: bool, key: list[str] | None = None, *, severe: bool = False, why: str = "", **metadata: Any
) -> dg.AssetCheckResult:
    """The outcome of a check; metadata holds counts and limits, never values of rows. `why` is what an alert says."""
    return dg.AssetCheckResult(
        passed=bool(passed),
        description=why or None,
        check_name=name,
        asset_key=key,
        severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
        metadata={name.replace("_", " "): value for name, value in metadata.items()},
    )


def source_specs(source: Source) -> list[dg.AssetCheckSpec]:
    """The checks each source gets from its declaration."""
    key = ["sources", source.name]
    specs = [
        spec(key, "grain_unique", f"One row per {', '.join(source.grain)}."),
        spec(
            key, "rows_accounted_for", "Every row read was accepted, known already, set aside or refused; none is lost."
        ),
        spec(key, "few_set_aside", f"At most {QUARANTINE_BUDGET:.0%} of the rows read broke the contract."),
    ]
    if any(column.required for column in source.columns.values()):
        specs.append(spec(key, "required_columns", "Required columns always have a value."))
    if any(check.accepted for column in source.columns.values() for check in column.checks):
        specs.append(spec(key, "accepted_values", "Columns with a list of accepted values hold no others."))
    if source.mode == "events":
        specs.append(
            spec(key, "usual_volume", f"The newest day is no outlier among the {VOLUME_HISTORY_DAYS} before it.")
        )
        specs.append(
            spec(
                key, "as_usual",
                "The last week is like those before it: no long pause, as many rows, few of them twice, amounts of the "
                "usual size, and every country or the like that always comes.",
            )
        )  # fmt: skip
    return specs


def source_results(lake: LakeView, source: Source, last_day: date) -> Iterator[dg.AssetCheckResult]:
    """Evaluate source_specs in a few passes over the table and one over its loads, as of the end of the last day."""
    table = lake.read(source_table(source))
    required = [name for name, column in source.columns.items() if column.required]
    accepted = {
        name: [str(value) for value in check.accepted]
        for name, column in source.columns.items()
        for check in column.checks
        if check.accepted
    }
    version = table._record_id if source.mode == "events" else table._record_id + table._valid_from.cast("string")
    counts = table.aggregate(
        rows=table.count(),
        keys=version.nunique(),
        **{f"null_{name}": table[name].isnull().sum() for name in required},
        **{f"odd_{name}": (~table[name].cast("string").isin(values)).sum() for name, values in accepted.items()},
    ).to_pyarrow().to_pylist()[0]  # fmt: skip
    yield result("grain_unique", counts["rows"] == counts["keys"], rows=counts["rows"], keys=counts["keys"])
    yield from _load_results(lake, source)
    if required:
        missing = {name: int(counts[f"null_{name}"] or 0) for name in required}
        yield result("required_columns", not any(missing.values()), rows_without=dg.MetadataValue.json(missing))
    if accepted:
        odd = {name: int(counts[f"odd_{name}"] or 0) for name in accepted}
        yield result("accepted_values", not any(odd.values()), rows_with_others=dg.MetadataValue.json(odd))
    if source.mode == "events":
        yield _usual_volume(table)
        named = oddities(weekly(table, source, last_day).to_pyarrow().to_pylist(), last_day)
        yield result("as_usual", not named, found="; ".join(named) or "nothing", as_of=str(last_day))


def _load_results(lake: LakeView, source: Source) -> Iterator[dg.AssetCheckResult]:
    loads = lake.read(LOADS)
    mine = loads.filter(loads.source == source.name)
    names = ("read", "accepted", "duplicates", "quarantined", "rejected")
    totals = mine.aggregate(**{name: mine[name].sum().fill_null(0) for name in names}).to_pyarrow().to_pylist()[0]
    counted: dict[str, Any] = {name: int(totals[name]) for name in names}
    read, *parts = counted.values()
    yield result("rows_accounted_for", read == sum(parts), severe=True, **counted)
    share = totals["quarantined"] / read if read else 0.0
    yield result("few_set_aside", share <= QUARANTINE_BUDGET, share=float(share), limit=QUARANTINE_BUDGET)


def _usual_volume(table: ibis.Table) -> dg.AssetCheckResult:
    days = table.group_by("_day").agg(rows=table.count()).order_by(ibis.desc("_day")).limit(VOLUME_HISTORY_DAYS + 1)
    rows = [day["rows"] for day in days.to_pyarrow().to_pylist()]
    if len(rows) < 8:
        return result("usual_volume", True, days_of_history=len(rows))
    newest, usual = rows[0], float(median(rows[1:]))
    # Small counts vary by chance: five standard deviations of a Poisson count are always allowed.
    slack = max(usual, 5 * usual**0.5)
    return result("usual_volume", abs(newest - usual) <= slack, rows=newest, usual_rows=usual, allowed_difference=slack)


def freshness_check(source: Source) -> dg.AssetChecksDefinition:
    """Whether the source was loaded recently enough; evaluated with every refresh, also when nothing arrived."""
    assert source.freshness is not None
    limit, warn = source.freshness.fail, source.freshness.warn

    @dg.asset_check(
        asset=["sources", source.name],
        name="fresh",
        description=f"The newest load is at most {limit} old.",
        required_resource_keys=RESOURCES,
    )
    def fresh(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        now: datetime = context.resources.clock()
        loads = context.resources.lake.read(LOADS)
        newest = (
            loads.filter((loads.source == source.name) & (loads.status == "loaded"))
            .loaded_at.max()
            .to_pyarrow()
            .as_py()
        )
        if newest is None:
            return result("fresh", False, severe=True, newest_load="never")
        age = now - newest.replace(tzinfo=UTC)
        return result(
            "fresh",
            age <= (warn or limit),
            severe=age > limit,
            newest_load=str(newest),
            age_hours=age.total_seconds() / 3600,
        )

    return fresh


PEOPLE_KEY = ["identity", "people"]


def guard_specs(project: Project) -> list[dg.AssetCheckSpec]:
    """What is decided before identity is published (identity/guard.py): when one fails, nothing is."""
    return [
        spec(
            PEOPLE_KEY, "no_collapse",
            f"No person has more than {guard.LARGEST_PERSON} identifiers, the ten largest have at most "
            f"{guard.LARGEST_SHARE:.0%} of all, and people did not become {guard.FEWER_PEOPLE:.0%} fewer: otherwise "
            "strangers were taken for one, and nothing is published.", blocking=True,
        ),
        spec(
            PEOPLE_KEY, "ids_stable",
            f"At most {project.settings.identity.churn_budget:.1%} of identifiers moved to another person in this run, "
            "anonymous visitors who were recognised aside: otherwise nothing is published.", blocking=True,
        ),
    ]  # fmt: skip


def guard_results(verdict: guard.Verdict, *, withheld: bool) -> Iterator[dg.AssetCheckResult]:
    """Evaluate guard_specs. What was accepted by hand is shown as failed all the same, but stops nothing."""
    shown = {
        "no_collapse": ("people", "largest_person", "ten_largest_share", "largest_people", "precision"),
        "ids_stable": ("identifiers_known", "identifiers_moved", "identifiers_recognised", "churn"),
    }
    for name, figures in shown.items():
        found = {figure: verdict.figures[figure] for figure in figures if figure in verdict.figures}
        broken = [breach.words for breach in verdict.breaches if breach.check == name]
        if broken:
            found = {"found": "; ".join(broken), "accepted for today": not withheld, **found}
        yield result(name, not broken, PEOPLE_KEY, severe=withheld, **found)


MATCHES_KEY = ["identity", "matches"]


def match_specs(project: Project) -> list[dg.AssetCheckSpec]:
    """One check per match: whether what it learned can be believed."""
    words = "What it learned looks like persons, and no two things it compares count the same agreement twice."
    return [spec(MATCHES_KEY, f"{name}_believed", words) for name in project.matches]


def match_results(cards: Mapping[str, Mapping[str, Any]]) -> Iterator[dg.AssetCheckResult]:
    """Evaluate match_specs on the cards of the models; where there was too little to learn from, nobody matches."""
    for name, card in cards.items():
        if not card:
            yield result(f"{name}_believed", True, MATCHES_KEY, model="too few people to learn from")
            continue
        found = [*card["doubts"], *(f"these go together: {words}" for words in card["correlated"])]
        shown = {"model": card["version"], "people": card["people"], "pairs_compared": card["pairs_compared"]}
        shown |= {f"grade_{grade}_pairs": of_it["pairs"] for grade, of_it in card["grades"].items()}
        yield result(f"{name}_believed", not found, MATCHES_KEY, found="; ".join(found) or "nothing", **shown)


QUALITY_KEY = ["measurement", "identity_quality"]
SIZE_OF_ONE_IN_THOUSAND = 50
LARGEST_COMPONENT = 1_000
REFUSED_SHARE = 0.05
LONE_SHIFT = 0.05
BLOCKED_GROWTH = 1.5
HANGING_SHARE = 0.01
TRUTH_BOUNDS = {"precision": 0.995, "recall": 0.97}


def quality_specs(project: Project) -> list[dg.AssetCheckSpec]:
    """What is worth a look at who is who, once it is published; none of these stops anything."""
    checks = {
        "few_very_large_people": "At most one person in a thousand has more than "
        f"{SIZE_OF_ONE_IN_THOUSAND} identifiers.",
        "no_hidden_crowd": f"Without limits, links would tie at most {LARGEST_COMPONENT:,} identifiers together. A "
        "larger crowd is held apart by limits alone: block the value, or lower the limit, that makes it.",
        "limits_seldom_refuse": f"Limits refuse at most {REFUSED_SHARE:.0%} of links: more says that a limit is too "
        "low, or that a value serves many people.",
        "as_many_alone_as_usual": "Of each type of identifier, the share that is all we know of somebody has moved by "
        f"at most {LONE_SHIFT:.0%} points: else a source has stopped, or begun, to say who is who.",
        "as_many_set_aside_as_usual": "Not many more values than last time are blocked or shared by several people.",
        "few_hang_by_one_link": f"At most {HANGING_SHARE:.0%} of people would fall into two halves without one link "
        "that was seen only once.",
    }
    if project.settings.truth is not None:
        checks |= {
            "right_people_together": "Of the pairs of identifiers found together, at least "
            f"{TRUTH_BOUNDS['precision']:.1%} belong to one person in truth.",
            "people_found_whole": f"Of the pairs that belong together in truth and can be known to, at least "
            f"{TRUTH_BOUNDS['recall']:.0%} were found.",
        }
    return [spec(QUALITY_KEY, name, description) for name, description in checks.items()]


def quality_results(
    figures: Mapping[str, Any], before: Mapping[str, float], project: Project
) -> Iterator[dg.AssetCheckResult]:
    """Evaluate quality_specs on today's figures (quality.quality) and those of the last day there were any."""
    people, links = figures["people"], figures["links"]

    def few(name: str, found: int, share: float, of: int, **more: Any) -> dg.AssetCheckResult:
        return result(name, found <= share * of + 5 * (share * of) ** 0.5, found=found, of=of, limit=share, **more)

    tail = figures["one_in_thousand_has"]
    yield result(
        "few_very_large_people", tail <= SIZE_OF_ONE_IN_THOUSAND, one_in_thousand_has=tail,
        ten_largest=str(figures["largest_people"]),
    )  # fmt: skip
    crowd = figures.get("largest_component", 0)
    yield result("no_hidden_crowd", crowd <= LARGEST_COMPONENT, identifiers_in_the_largest_crowd=crowd)
    yield few(
        "limits_seldom_refuse", figures["links_refused"], REFUSED_SHARE, links,
        by_limit=dg.MetadataValue.json(figures["limits"]),
    )  # fmt: skip
    moved = {
        type_: {"share": share, "before": before[f"alone.{type_}"]}
        for type_, share in figures["alone"].items()
        if f"alone.{type_}" in before
        # A share among few is mostly chance: two and a half standard deviations at most.
        and abs(share - before[f"alone.{type_}"]) > LONE_SHIFT + 1.25 / figures["owned"][type_] ** 0.5
    }
    yield result(
        "as_many_alone_as_usual", not moved, moved=dg.MetadataValue.json(moved),
        share_alone=dg.MetadataValue.json({name: round(share, 4) for name, share in figures["alone"].items()}),
    )  # fmt: skip
    aside = {
        f"{status} {type_}": {"now": n, "before": int(before.get(f"{status}.{type_}", 0))}
        for status in ("blocked", "shared")
        for type_, n in figures[status].items()
    }
    # Nothing is unusual the first time.
    usual = not before or all(
        n["now"] <= BLOCKED_GROWTH * n["before"] + 5 * max(n["before"], 1) ** 0.5 for n in aside.values()
    )
    yield result("as_many_set_aside_as_usual", usual, by_type=dg.MetadataValue.json(aside))
    yield few("few_hang_by_one_link", figures["hang_by_one_link"], HANGING_SHARE, people)
    if project.settings.truth is not None:
        judged = figures.get("judged_identifiers", 0)
        recall = figures.get("recall_reachable", figures.get("recall", 1.0))
        shares = {"precision": figures.get("precision", 1.0), "recall": recall}
        for name, figure in (("right_people_together", "precision"), ("people_found_whole", "recall")):
            share, bound = float(shares[figure]), TRUTH_BOUNDS[figure]
            yield result(name, share >= bound, share=share, at_least=bound, identifiers_judged=judged)


PROVENANCE_KEY = ["profile", "provenance"]


def attribute_specs(project: Project) -> list[dg.AssetCheckSpec]:
    """One check per attribute with `at_most`: people whom sources give many different values are often strangers."""
    return [
        spec(
            PROVENANCE_KEY, f"{one.name}_at_most_{one.at_most}",
            f"At most {MANY_VALUES_SHARE:.3%} of people have more than {one.at_most} different values of {one.name}: "
            "more would say that strangers have been merged.",
        )
        for one in project.attributes.values() if one.at_most is not None
    ]  # fmt: skip


def attribute_results(over: Mapping[str, tuple[int, int]], project: Project) -> Iterator[dg.AssetCheckResult]:
    """Evaluate attribute_specs on customers.over_bounds: how many people have a value, how many of them too many."""
    for name, (people, too_many) in over.items():
        bound = project.attributes[name].at_most
        found: dict[str, Any] = {"people": people, "people_with_more": too_many}
        if too_many:
            found["to_see_them"] = (
                'cdp sql "select person_id, values_seen from profile.provenance '
                f"where attribute = '{name}' and values_seen > {bound}\""
            )
        yield result(f"{name}_at_most_{bound}", too_many <= MANY_VALUES_SHARE * people, PROVENANCE_KEY, **found)


def gates_spec(key: list[str]) -> dg.AssetCheckSpec:
    """What every model must prove. What it blocks is the promotion, not the run: the champion goes on scoring."""
    words = "The new model proved itself on days it had not seen; otherwise the champion goes on scoring."
    return spec(key, "gates", words, blocking=True)


def gates_result(
    key: list[str], found: Mapping[str, Any], versions: Sequence[Mapping[str, Any]]
) -> dg.AssetCheckResult:
    """Evaluate gates_spec on a version's card: each gate in words, and who scores where one was not met."""
    gates = found["card"]["gates"]
    failed = [gate["words"] for gate in gates if not gate["passed"]]
    champion = next((row["version"] for row in versions if row["status"] == "champion"), None)
    scoring = f"{champion} goes on scoring" if champion else "Everybody gets the known rate until a model passes"
    return result(
        "gates", not failed, key, why=f"{found['version']}: {'; '.join(failed)}. {scoring}" if failed else "",
        champion=champion or "none", **{gate["name"]: gate["words"] for gate in gates},
    )  # fmt: skip


def training_specs(prediction: Prediction) -> list[dg.AssetCheckSpec]:
    """What is looked for in a training set before anything is learned from it."""
    key = ["predictions", f"{prediction.name}_training"]
    words = "No feature knows what came after its day, none is an id or the target itself, and no window overlaps."
    return [spec(key, "no_leak", words, blocking=True)] if can_leak(prediction) else []


def training_results(prediction: Prediction, found: Sequence[str]) -> Iterator[dg.AssetCheckResult]:
    """Evaluate training_specs on the leaks that were found: with any, nothing is learned and the champion goes on."""
    for one in training_specs(prediction):
        yield result(one.name, not found, list(one.asset_key.path), severe=True, found="; ".join(found) or "nothing")


def score_specs(prediction: Prediction) -> list[dg.AssetCheckSpec]:
    """What is asked of the people that were scored."""
    words = "The people scored are like those the model was proven on, in what hardly moves by itself."
    key = ["predictions", prediction.name]
    return [spec(key, "no_drift", words)] if isinstance(prediction, Binary) else []


def score_results(prediction: Prediction, drift: Mapping[str, float]) -> Iterator[dg.AssetCheckResult]:
    """Evaluate score_specs on the drift of the newest day (drift.drift)."""
    for one in score_specs(prediction):
        moved = [f"{name} {index:.2f}" for name, index in drift.items() if index > MOVED]
        figures: dict[str, Any] = {"limit": MOVED, "watched": len(drift), "most": max(drift.values(), default=0.0)}
        yield result(one.name, not moved, list(one.asset_key.path), moved=", ".join(moved) or "none", **figures)


def audience_specs(audience: Audience) -> list[dg.AssetCheckSpec]:
    """An audience's own tests and those all have. None blocks the run: what fails holds this audience alone."""
    return [spec(["audiences", audience.name], one.name, one.says) for one in expectations(audience)]


def audience_results(audience: Audience, found: Verdicts, days: Sequence[date]) -> Iterator[dg.AssetCheckResult]:
    """What the tests found on the last of the days; those that hold the audience are errors."""
    outcomes = {one.test: one for one in found.outcomes[audience.name, days[-1]]}
    for test in expectations(audience):
        outcome = outcomes.get(test.name) or Outcome(test.name, True, {"not tested": "it could not be computed"})
        figures = dict(outcome.found) if outcome.passed else {"because": outcome.because, **outcome.found}
        severe = test.holds and not outcome.accepted
        yield result(test.name, outcome.passed, ["audiences", audience.name], severe=severe, **figures)


def plans_spec(key: list[str]) -> dg.AssetCheckSpec:
    """Whether a sync's plan waits for somebody."""
    return spec(
        key, "no_plan_is_held",
        "No sync waits for somebody to look at its plan and release it. Until then nothing of it is sent; what is over "
        "there stays as it is.",
    )  # fmt: skip


def plans_result(key: list[str], lines: Sequence[Mapping[str, Any]]) -> dg.AssetCheckResult:
    """Evaluate plans_spec on the lines of a plan (refresh.Planned.lines): what is held, why, and what lets it go.

    Numbers and commands, nobody's name or address; a table and short texts, since the UI hides all else behind a link.
    """
    held = [line for line in lines if line["state"] == "held"]
    why = "; ".join(
        f"{line['sync']} is held: {line['because']}. It would {_moves(line)}. Then: cdp sync approve {line['plan_id']}"
        for line in held
    )
    if not held:
        return result("no_plan_is_held", True, key, held=0)
    shown = [
        dg.TableRecord({
            "sync": line["sync"], "held because": line["because"], "it would": _moves(line),
            "unchanged": line["unchanged"], "not sent": line["suppressed_because"] or "nobody",
        })
        for line in held
    ]  # fmt: skip
    return result(
        "no_plan_is_held", False, key, why=why, held=len(held), plans=dg.MetadataValue.table(shown),
        to_see_whom="cdp sql \"FROM activation.plan WHERE plan_state = 'held'\"",
        to_see_what_is_sent="; ".join(f"cdp sync show {line['sync']}" for line in held),
        if_it_is_right="Approve it as said above, or launch the job approve_plan with its id: exactly this is sent, "
        "whatever the audience has become since.",
        if_it_is_wrong="Mend what is wrong upstream. The next run plans anew, and this plan is never sent.",
    )  # fmt: skip


def _moves(line: Mapping[str, Any]) -> str:
    moves = [f"{kind} {line[kind]:,}" for kind in ("add", "update", "remove") if line[kind]]
    return ", ".join(moves) or "send nothing"


def accounts_spec(key: list[str]) -> dg.AssetCheckSpec:
    """Whether every member of every synced audience is accounted for."""
    return spec(
        key, "people_accounted_for",
        "Everybody in a synchronised audience was delivered, suppressed or failed, is still due, or waits in a plan "
        "that is held; nobody is lost.",
    )  # fmt: skip


def accounts_result(key: list[str], accounts: Mapping[str, Conservation]) -> dg.AssetCheckResult:
    """Evaluate accounts_spec: by sync, what became of its audience, and how many are in no state at all."""
    lost = {name: found for name, found in accounts.items() if not found.holds}
    why = "; ".join(
        f"of the {found.audience:,} people of {name} {found.missing:,} are in no state at all: lost, or not "
        "planned since they came (cdp run group:activation)"
        for name, found in lost.items()
    )
    states = sorted({state for found in accounts.values() for state in found.states})
    rows = [
        dg.TableRecord({"sync": name, "audience": found.audience, "missing": found.missing, **counts})
        for name, found in accounts.items()
        for counts in [{state: found.states[state] for state in states}]
    ]
    shown = dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text("No syncs.")
    return result("people_accounted_for", not lost, key, severe=True, why=why, audiences=shown)
