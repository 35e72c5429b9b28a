"""Sequences by hand: what each word of their grammar lets through and what it stops, told in short histories."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from cdp_pipeline.audiences.rules import columns_of, gathered, holds
from cdp_pipeline_tests.audiences.company import company_project, rule, scope
from cdp_pipeline_tests.traits.shop import DAYS, event

VISIT, ORDER = {"event": "visit"}, {"event": "order"}
ON_THE_WEB = VISIT | {"when": "channel = 'web'"}
BOTH = {"sequence": [VISIT, ORDER]}
THREE = {"sequence": [VISIT, ORDER, VISIT]}
# A history is what happened hour by hour: v(isit), o(rder), - nothing; + is the same instant; capitals are of web.
CASES: list[tuple[str, dict[str, Any], str, int]] = [
    ("one after the other", BOTH, "vo", 2),
    ("only this way round", BOTH, "ov", 1),
    ("nothing", BOTH, "-", 0),
    ("others may lie between", BOTH, "vvoo", 2),
    ("at one instant the earlier step comes first", BOTH, "o+v", 2),
    ("one event is not two steps", {"sequence": [ORDER, ORDER]}, "o", 1),
    ("two events are", {"sequence": [ORDER, ORDER]}, "o+o", 2),
    ("in time", BOTH | {"within": "2 hours"}, "v-o", 2),
    ("too late", BOTH | {"within": "2 hours"}, "v--o", 1),
    ("the newer beginning is in time", BOTH | {"within": "1 hour"}, "v-vo", 2),
    ("the whole is too long, though each gap is short", THREE | {"within": "2 hours"}, "v-o-v", 2),
    ("each gap is short", {"sequence": [VISIT, ORDER | {"within": "2 hours"}, VISIT]}, "v-o---v", 3),
    ("a gap is too long", {"sequence": [VISIT, ORDER | {"within": "2 hours"}, VISIT]}, "v---ov", 1),
    ("a gap is counted from the step before", {"sequence": [VISIT, ORDER, VISIT | {"within": "1 hour"}]}, "v--ov", 3),
    ("directly", THREE | {"strict": True}, "vov", 3),
    ("not directly", THREE | {"strict": True}, "vvoov", 2),
    ("directly at last", BOTH | {"strict": True}, "voovvo", 2),
    ("nothing of it between", {"sequence": [ORDER, ORDER], "without": VISIT}, "vooo", 2),
    ("something of it between", {"sequence": [ORDER, ORDER], "without": VISIT}, "ovo", 1),
    ("between others of the same", {"sequence": [ORDER, ORDER, ORDER], "without": VISIT}, "oovovoo", 2),
    ("before and after does no harm", {"sequence": [ORDER, ORDER, ORDER], "without": VISIT}, "vooovv", 3),
    ("a step that is also forbidden", {"sequence": [VISIT, ORDER], "without": VISIT}, "vvo", 2),
    ("forbidden only on the web", {"sequence": [ORDER, ORDER], "without": ON_THE_WEB}, "ovo", 2),
    ("forbidden on the web", {"sequence": [ORDER, ORDER], "without": ON_THE_WEB}, "oVo", 1),
    ("a step with a condition", {"sequence": [ON_THE_WEB, ORDER]}, "voVo", 2),
    ("a step whose condition comes too late", {"sequence": [ON_THE_WEB, ORDER]}, "voV", 1),
    ("of one channel", BOTH | {"same": "channel"}, "vO", 1),
    ("of one channel, others aside", BOTH | {"same": "channel"}, "VoO", 2),
    ("directly, others aside", BOTH | {"same": "channel", "strict": True}, "VoO", 2),
    ("all of it in the window", BOTH | {"window": "last 1 day"}, "-" * 23 + "vo", 0),
    ("a newer one is in the window", BOTH | {"window": "last 1 day"}, "vo" + "-" * 22 + "vo", 2),
    ("up to the end of the window", BOTH | {"window": "between 2 and 1 days ago"}, "vo", 2),
    ("the day itself is not in the window", BOTH | {"window": "between 2 and 1 days ago"}, "v" + "-" * 23 + "o", 1),
    ("either of two events", {"sequence": [{"event": ["visit", "order"]}, ORDER]}, "oo", 2),
]  # fmt: skip


def history(person: str, letters: str) -> list[dict[str, Any]]:
    """The events of a history; it begins the day before the one that is asked about."""
    at, rows, together = datetime.combine(DAYS[4], datetime.min.time()), [], False
    for letter in letters:
        if letter == "+":
            together = True
            continue
        first = not rows and letter != "-"
        at, together = at + timedelta(hours=0 if together or first else 1), False
        if letter != "-":
            name, channel = {"v": "visit", "o": "order"}[letter.lower()], "web" if letter.isupper() else "store"
            number = f"{person}{len(rows):02}"
            rows.append(
                event(event_id=number, person_id=person, event=name, channel=channel, occurred_at=at, _day=at.date())
            )
    return rows


def test_a_sequence_comes_as_far_as_its_words_let_it() -> None:
    people = [f"p_{number:02}" for number in range(len(CASES))]
    timeline = [
        row for person, (_, _, letters, _) in zip(people, CASES, strict=True) for row in history(person, letters)
    ]
    traits = [{"person_id": person, "day": DAYS[5]} for person in people]
    rules = [rule(**fields) for _, fields, _, _ in CASES]
    whole, asked = company_project(), scope({"traits": traits, "timeline": timeline})
    for days in ([DAYS[5]], [DAYS[3], DAYS[5], DAYS[6]]):
        table = gathered(whole, rules, asked, days)
        found = table.select(
            "person_id",
            **{f"steps_{number}": table[columns_of(one)[0]] for number, one in enumerate(rules)},
            **{f"holds_{number}": holds(one, table) for number, one in enumerate(rules)},
        )
        rows = {row["person_id"]: row for row in found.to_pyarrow().to_pylist()}
        said = {
            CASES[number][0]: (rows[person][f"steps_{number}"], rows[person][f"holds_{number}"])
            for number, person in enumerate(people)
        }
        assert said == {name: (steps, steps == len(fields["sequence"])) for name, fields, _, steps in CASES}
