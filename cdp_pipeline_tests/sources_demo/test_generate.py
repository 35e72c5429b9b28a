"""The demo company is what it says it is: the same every time, dirty as declared, and true to its own truth."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import date, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cdp_pipeline.sources.demo import FolderHoldsOtherFiles, generate
from cdp_pipeline.sources.demo.clock import Day
from cdp_pipeline.sources.demo.feeds import FEEDS
from cdp_pipeline_tests.sources_demo.exports import (
    LONDON,
    NOBODYS,
    Company,
    Groups,
    counted_dirt,
    header,
    identifiers,
    instant,
    normalised,
)  # fmt: skip


def _bytes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_arguments_give_the_same_bytes_and_another_seed_gives_others(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        generate(tmp_path / name, 300, 4, seed)
    one, two, three = (_bytes(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one["web_events/2026-10-31.jsonl.gz"] != three["web_events/2026-10-31.jsonl.gz"]


def test_generating_again_leaves_nothing_of_the_earlier_run(tmp_path: Path) -> None:
    generate(tmp_path / "a", 200, 5, 1)
    generate(tmp_path / "a", 100, 2, 2)
    generate(tmp_path / "b", 100, 2, 2)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_an_interrupted_run_can_be_started_again(tmp_path: Path) -> None:
    def pull_the_plug(day: int, days: int, rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "a", 100, 3, 2, progress=pull_the_plug)
    generate(tmp_path / "a", 100, 2, 2)
    generate(tmp_path / "b", 100, 2, 2)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FolderHoldsOtherFiles, match="holds files that are not generated demo data"):
        generate(tmp_path, 100, 2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("customers", "days"), [(1, 1), (3, 2), (17, 3)])
def test_the_smallest_company_works_too(tmp_path: Path, customers: int, days: int) -> None:
    heard: list[tuple[int, int]] = []
    summary = generate(tmp_path, customers, days, 1, progress=lambda done, all_, rows: heard.append((done, all_)))
    assert heard == [(day + 1, days) for day in range(days)]
    assert summary.first_day == summary.last_day - timedelta(days=days - 1)


def test_a_day_of_the_company_follows_its_clocks_through_summer_time() -> None:
    first = date(2026, 1, 1)
    hours = {day: Day.of(first, (day - first).days).seconds // 3600 for day in (date(2026, 3, 29), date(2026, 10, 25))}
    assert list(hours.values()) == [23, 25]


def test_every_export_has_the_declared_columns_and_nothing_nested(company: Company) -> None:
    for feed in FEEDS.values():
        for path in sorted(company.folder.glob(feed.path.format(day="*"))):
            if path.suffix == ".parquet":
                assert pq.read_schema(path).names == list(feed.columns)
            elif feed.csv:
                extra = [feed.extra] if feed.extra and header(path)[-1] == feed.extra else []
                assert header(path) == [*feed.columns, *extra]
    for row in company.rows:
        assert set(row.cells) <= {*FEEDS[row.source].columns, FEEDS[row.source].extra}
        assert not any(isinstance(value, dict | list) for value in row.cells.values())


def test_an_unknown_column_turns_up_one_day_and_stays(company: Company) -> None:
    files = sorted((company.folder / "shop_orders").iterdir())
    has = ["gift_note" in header(path) for path in files]
    assert has == sorted(has) and has.count(True) == math.ceil(len(files) * 2 / 5)


def test_the_summary_counts_every_row_in_the_files(company: Company) -> None:
    found = Counter(row.source for row in company.rows) + Counter(products=company.summary.rows["products"])
    assert {name: rows for name, rows in company.summary.rows.items() if rows} == found


def test_the_dirt_one_finds_in_the_files_is_the_dirt_the_truth_lists(company: Company) -> None:
    listed = {
        (r["kind"], r["source"], r["file"]): int(r["count"])
        for r in company.truth("dirt")
        if r["kind"] not in ("typo", "nickname", "double_contact")
    }
    assert dict(counted_dirt(company.rows)) == listed
    assert {kind for kind, _, _ in listed} == {
        "broken_row", "impossible_time", "missing_key", "wrong_encoding", "duplicate", "late", "impossible_birth_date",
        "placeholder_email", "placeholder_phone", "email_variant", "role_email", "call_centre_phone", "hard_coded_id",
        "zero_cookie",
    }  # fmt: skip


def test_dirt_comes_at_its_declared_rate(company: Company) -> None:
    rates = {(r["kind"], r["source"]): float(r["rate"]) for r in company.truth("dirt")}
    totals: Counter[tuple[str, str]] = Counter()
    for r in company.truth("dirt"):
        totals[r["kind"], r["source"]] += int(r["count"])
    for (kind, source), count in totals.items():
        rows = company.summary.rows[source]
        if kind in ("broken_row", "impossible_time", "missing_key", "late", "duplicate") and source != "crm_contacts":
            expected = rows * rates[kind, source]
            assert abs(count - expected) < 5 * math.sqrt(expected) + 1, (kind, source, count, expected)


def test_doubles_typos_and_nicknames_of_the_crm_are_listed(company: Company) -> None:
    listed: Counter[str] = Counter()
    for r in company.truth("dirt"):
        listed[r["kind"]] += int(r["count"])
    assert min(listed[kind] for kind in ("double_contact", "typo", "nickname")) > 20


def _agrees_with_its_truth(company: Company) -> None:
    found = {pair for row in company.rows if row.fault is None for pair in identifiers(row)}
    truth = company.truth("identifiers")
    nobodys = {(r["type"], r["value"]) for r in truth if not r["person"]}  # listed even if nobody came
    assert len(nobodys) == max(3, company.summary.customers // 200) + len(NOBODYS)
    assert found | nobodys == {(r["type"], r["value"]) for r in truth}
    assert len(truth) == len(found | nobodys)


def test_every_identifier_that_survives_in_the_files_is_in_the_truth_and_no_other(company: Company) -> None:
    _agrees_with_its_truth(company)


def test_rows_with_two_identifiers_never_mix_people_but_for_what_is_shared(company: Company) -> None:
    shared = {(r["type"], r["value"]) for r in company.truth("identifiers") if r["shared"] == "true"}
    for row in company.rows:
        if row.fault is None:
            people = {company.person_of[pair] for pair in identifiers(row) if pair not in shared}
            assert len(people) <= 1, row


def test_reachable_is_what_a_chain_of_rows_ties_together(company: Company) -> None:
    """An independent union-find over the surviving rows, without shared values and second accounts."""
    truth = {(r["type"], r["value"]): r for r in company.truth("identifiers")}
    aside = {pair for pair, r in truth.items() if r["shared"] == "true" or r["why"].startswith("second account")}
    groups = Groups()
    for row in company.rows:
        found = [pair for pair in identifiers(row) if pair not in aside] if row.fault is None else []
        for pair in found:
            groups.join(pair, found[0])
    anchors = defaultdict(set)
    for pair, r in truth.items():
        if r["reachable"] == "true":
            anchors[r["person"]].add(groups.find(pair))
    assert all(len(group) == 1 for group in anchors.values())
    for pair, r in truth.items():
        if r["reachable"] == "false" and pair not in aside:
            assert groups.find(pair) not in anchors[r["person"]]
            assert r["why"] == "never on a row with another identifier of this person"
    share = sum(r["reachable"] == "true" for r in truth.values()) / len(truth)
    assert 0.75 < share < 0.99


def test_tablets_in_the_stores_serve_many_people(company: Company) -> None:
    tablets = {r["value"] for r in company.truth("identifiers") if r["why"].startswith("tablet")}
    users = defaultdict(set)
    for row in company.of("web_events"):
        if row.cells["anonymous_id"] in tablets and row.cells.get("customer_id"):
            users[row.cells["anonymous_id"]].add(row.cells["customer_id"])
    assert len(tablets) == 2_000 // 200 and set(users) == tablets
    assert min(len(people) for people in users.values()) > 5


def test_visitors_are_anonymous_first_and_known_later(company: Company) -> None:
    first_known: dict[object, bool] = {}
    ever_known = set()
    for row in company.of("web_events"):
        cookie, known = row.cells["anonymous_id"], "customer_id" in row.cells
        first_known.setdefault(cookie, known)
        if known:
            ever_known.add(cookie)
    later = [cookie for cookie in ever_known if not first_known[cookie]]
    never = len(first_known) - len(ever_known)
    assert len(later) > 200 and never > 500


def test_guests_order_without_an_account(company: Company) -> None:
    orders = company.of("shop_orders")
    guests = [row for row in orders if not row.cells["customer_id"]]
    assert 0.05 < len(guests) / len(orders) < 0.5
    assert all(
        normalised("email", row.cells["email"]) for row in guests if ("email", row.cells["email"]) not in NOBODYS
    )


def test_people_buy_more_before_christmas_and_less_in_january(company: Company) -> None:
    months: Counter[int] = Counter()
    for row in company.of("shop_orders") + company.of("pos_receipts"):
        time = instant(row.source, row.cells.get("ordered_at") or row.cells.get("sold_at"))
        assert time is not None
        months[time.month] += 1
    assert months[12] > 1.25 * months[11] > 1.25 * months[1]


def _purchases(company: Company) -> dict[int, list[date]]:
    bought: dict[int, list[date]] = defaultdict(list)
    for row in company.of("shop_orders") + company.of("pos_receipts"):
        time = instant(row.source, row.cells.get("ordered_at") or row.cells.get("sold_at"))
        assert time is not None
        for pair in identifiers(row)[:1]:
            bought[company.person_of[pair]].append(time.astimezone(LONDON).date())
    return bought


def test_nobody_buys_between_the_day_they_churn_and_the_day_they_are_won_back(company: Company) -> None:
    bought = _purchases(company)
    churned = won_back = 0
    for r in company.truth("persons"):
        churn = date.fromisoformat(r["churn_day"]) if r["churn_day"] else date.max
        back = date.fromisoformat(r["won_back_day"]) if r["won_back_day"] else date.max
        days = bought.get(int(r["person"]), [])
        assert not [day for day in days if churn <= day < back], r
        churned += company.summary.first_day < churn <= company.summary.last_day
        won_back += any(day >= back for day in days)
    assert churned > 100 and won_back >= 1


def test_the_next_weeks_can_be_learned_from_the_past(tmp_path: Path) -> None:
    """Recency and frequency alone go a long way; what people look at and open adds to it."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    company = Company(generate(tmp_path, 1_500, 150, 1))
    cut = company.summary.last_day - timedelta(days=50)
    features, bought_later = [], []
    for days in _purchases(company).values():
        past = {day for day in days if day <= cut}
        if past:
            features.append([len(past), (cut - max(past)).days])
            bought_later.append(any(day > cut for day in days))
    scores = cross_val_predict(LogisticRegression(), np.log1p(features), bought_later, cv=5, method="predict_proba")
    assert roc_auc_score(bought_later, scores[:, 1]) > 0.65


def test_the_randomised_coupon_moves_those_it_should_and_no_others(company: Company) -> None:
    effect = {int(r["person"]): float(r["discount_effect"]) for r in company.truth("persons")}
    bought = _purchases(company)
    rate: dict[tuple[bool, str], list[bool]] = defaultdict(list)
    for row in company.of("messages"):
        if row.cells["event"] in ("message_sent", "message_held_out") and row.cells["arm"]:
            person = company.person_of[identifiers(row)[0]]
            start = row.cells["happened_at"].date()  # type: ignore[attr-defined]
            hit = any(start <= day < start + timedelta(days=10) for day in bought.get(person, []))
            rate[effect[person] > 0, str(row.cells["arm"])].append(hit)
    share = {key: sum(hits) / len(hits) for key, hits in rate.items()}
    arms = Counter({arm: len(rate[True, arm]) + len(rate[False, arm]) for arm in ("treated", "control")})
    assert abs(arms["treated"] - arms["control"]) < 5 * math.sqrt(sum(arms.values()))
    assert share[True, "treated"] > 1.6 * share[True, "control"]
    assert share[False, "treated"] < 1.5 * share[False, "control"]


def test_people_open_messages_at_the_hour_and_in_the_channel_they_prefer(company: Company) -> None:
    truth = {int(r["person"]): r for r in company.truth("persons")}
    near: list[bool] = []
    opened: Counter[tuple[str, bool]] = Counter()
    sent: Counter[tuple[str, bool]] = Counter()
    for row in company.of("messages"):
        person = truth[company.person_of[identifiers(row)[0]]]
        prefers = (str(row.cells["medium"]), person["preferred_channel"] == row.cells["medium"])
        if row.cells["event"] == "message_sent":
            sent[prefers] += 1
        elif row.cells["event"] == "message_opened":
            opened[prefers] += 1
            hour = row.cells["happened_at"].astimezone(LONDON).hour  # type: ignore[attr-defined]
            near.append(abs(hour - int(person["preferred_hour"])) <= 2)
    assert sum(near) / len(near) > 0.6
    for medium in ("email", "push"):
        assert opened[medium, True] / sent[medium, True] > 1.8 * opened[medium, False] / sent[medium, False]


def test_the_crm_repeats_itself_unless_something_changed(company: Company) -> None:
    """A copy differs from the last where a consent, a tier or the list itself changed, so that history stays small."""
    copies: dict[str, dict[object, object]] = defaultdict(dict)
    for row in company.of("crm_contacts"):
        copies[row.file][row.cells["contact_id"]] = row.raw
    _, *others = sorted(copies)
    assert len(others) == 2
    for earlier, later in zip(sorted(copies), others, strict=False):
        common = copies[earlier].keys() & copies[later].keys()
        changed = sum(copies[earlier][contact] != copies[later][contact] for contact in common)
        assert 0 < changed < 0.2 * len(common)


_MEMORY = """
import resource, sys
from pathlib import Path
from cdp_pipeline.sources.demo import generate
seen = {}
def hear(day, days, rows):
    if day in (35, 70):
        seen[day] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
generate(Path(sys.argv[1]), 800, 70, 1, progress=hear)
print(seen[35], seen[70])
"""


def test_memory_does_not_grow_with_the_days(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(tmp_path / "d")], capture_output=True, text=True, check=True
    )
    early, late = map(int, done.stdout.split())
    assert late < 1.1 * early


def test_blocks_of_people_do_not_change_what_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large companies live in blocks; a small one cut into blocks is just as consistent with its truth."""
    from cdp_pipeline.sources.demo import people

    monkeypatch.setattr(people, "BLOCK", 100)
    company = Company(generate(tmp_path, 400, 6, 9))
    _agrees_with_its_truth(company)
    assert company.summary.total == len(company.rows) + company.summary.rows["products"]
