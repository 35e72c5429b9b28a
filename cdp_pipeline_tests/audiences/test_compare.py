"""Who would enter and leave, and because of which condition, against plain Python: two definitions, or two days."""

from __future__ import annotations

from hypothesis import given, settings

from cdp_pipeline.audiences.compare import GONE, NOT_THERE, Side, compare
from cdp_pipeline.audiences.waterfall import sentence
from cdp_pipeline.spec.audience import Audience
from cdp_pipeline_tests.audiences.company import ASKED, audience, companies, company_project, rule, scope
from cdp_pipeline_tests.audiences.oracle import Row, holds
from cdp_pipeline_tests.audiences.test_rules import ANN, GENERATED, audiences
from cdp_pipeline_tests.audiences.test_waterfall import one_by_one
from cdp_pipeline_tests.traits.shop import DAYS


@settings(GENERATED, max_examples=2)
@given(companies(), audiences(), audiences())
def test_moves_and_their_reasons_are_those_of_plain_python(
    company: Row, first: list[Audience], second: list[Audience]
) -> None:
    asked = scope(company)
    sides = [(company_project(*declared), day) for declared, day in zip((first, second), ASKED, strict=True)]
    for name in ("a2", "a7"):
        there, inside, failing = [], [], []
        for whole, day in sides:
            people = {row["person_id"] for row in company["traits"] if row["day"] == day}
            rules = one_by_one(list(whole.audiences[name].rules))
            fails = {p: [r for r in rules if not holds(r, p, day, company, whole)] for p in people}
            there.append(people)
            failing.append(fails)
            inside.append({p for p, some in fails.items() if not some})
        found = compare(*(Side(whole, name, asked, day) for whole, day in sides))
        assert (found.before, found.after, found.stay) == (
            len(inside[0]), len(inside[1]), len(inside[0] & inside[1]),
        )  # fmt: skip
        for moved, at, absent in ((found.entered, 0, NOT_THERE), (found.left, 1, GONE)):
            gone = inside[1 - at] - inside[at]
            assert moved.people == len(gone) and set(moved.sample) == set(sorted(gone)[:5])
            because: dict[str, int] = {}
            for person in gone:
                for one in failing[at].get(person, []):
                    because[sentence(one)] = because.get(sentence(one), 0) + 1
            if absences := len(gone - there[at]):
                because[absent] = absences
            # Two conditions that read alike (a duplicate in a generated tree) are two lines.
            told: dict[str, int] = {}
            for says, n in moved.because:
                told[says] = told.get(says, 0) + n
            assert told == because


def test_a_difference_reads_as_a_few_lines() -> None:
    people = [ANN | {"person_id": f"p{n}", "orders": n} for n in range(4)]
    before, after = (company_project(audience("buyers", rule(trait="orders", op=op, value=2))) for op in ("<=", ">="))
    asked = scope({"traits": people})
    found = compare(Side(before, "buyers", asked, DAYS[4]), Side(after, "buyers", asked, DAYS[4]), sample=1)
    assert found.lines() == [
        "buyers: 3 people before, 2 after, 1 stay",
        "1 enter",
        "  1: orders <= 2 (did not hold before)",
        "  for example p3",
        "2 leave",
        "  2: orders >= 2 (does not hold)",
        "  for example p0",
    ]
    assert found.as_json()["left"] == {
        "people": 2, "because": [{"condition": "orders >= 2", "people": 2}], "sample": ["p0"],
    }  # fmt: skip
