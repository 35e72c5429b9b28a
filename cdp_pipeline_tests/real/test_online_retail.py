"""A real shop's two years, from the raw file with YAML alone: what comes out adds up to the penny."""

import json
import os
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from cdp_pipeline_tests.orchestration.commands import Cdp

pytestmark = pytest.mark.slow
DATA = Path(os.environ.get("CDP_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
RAW = DATA / "online_retail_ii.parquet"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cdp]:
    if not RAW.exists():
        pytest.skip(f"the real data are not here: {RAW.name} in ../shared/data or CDP_SHARED_DATA")
    cdp = Cdp(Path(__file__).parent / "online_retail", DATA, tmp_path_factory.mktemp("online_retail") / "lake")
    cdp.run("run")
    yield cdp


def test_orders_returns_and_revenue_of_every_month_equal_the_raw_file_to_the_penny(shop: Cdp) -> None:
    # Written from the file's own description: C… is a cancellation, a negative quantity a return, prices are pounds.
    raw = duckdb.sql(
        f"""SELECT strftime(invoice_date, '%Y-%m') AS month,
                count(DISTINCT invoice) FILTER (invoice NOT LIKE 'C%' AND quantity > 0 AND price > 0) AS orders,
                count(DISTINCT invoice) FILTER (invoice LIKE 'C%') AS returns,
                sum(quantity * round(price, 4)::DECIMAL(18, 4)) AS revenue
            FROM '{RAW}' GROUP BY month ORDER BY month"""
    ).fetchall()
    ours = shop.sql(
        """SELECT strftime(_day, '%Y-%m') AS month,
                count(DISTINCT properties.invoice) FILTER (event = 'product_sold') AS orders,
                count(DISTINCT properties.invoice) FILTER (event = 'product_returned') AS returns,
                sum(amount)::VARCHAR AS revenue
            FROM profile.timeline GROUP BY month ORDER BY month"""
    )
    assert [(row["month"], row["orders"], row["returns"], Decimal(row["revenue"])) for row in ours] == raw
    assert len(raw) > 20


def test_every_line_is_there_also_those_of_nobody_known(shop: Cdp) -> None:
    raw = duckdb.sql(f"SELECT count(*), count(*) - count(customer_id) FROM '{RAW}'").fetchone()
    [told] = shop.sql("SELECT count(*) AS n, count(*) - count(person_id) AS nobodys FROM profile.timeline")
    assert (told["n"], told["nobodys"]) == raw
    [load] = shop.sql("SELECT read, accepted, duplicates, quarantined, rejected FROM sources.loads")
    assert load == {"read": raw[0], "accepted": raw[0], "duplicates": 0, "quarantined": 0, "rejected": 0}


def test_everybody_with_a_number_is_one_person_with_the_country_of_the_newest_invoice(shop: Cdp) -> None:
    raw = duckdb.sql(f"SELECT count(DISTINCT customer_id) FROM '{RAW}'").fetchone()
    [told] = shop.sql("SELECT count(*) AS n, count(country) AS countries FROM profile.customers")
    assert (told["n"], told["countries"]) == (raw[0], raw[0])


def test_traits_of_the_newest_day_equal_handwritten_sql(shop: Cdp) -> None:
    raw = duckdb.sql(
        f"""WITH sold AS (
              SELECT *, quantity * round(price, 4)::DECIMAL(18, 4) AS amount,
                (SELECT max(invoice_date)::DATE FROM '{RAW}') AS today
              FROM '{RAW}' WHERE customer_id IS NOT NULL AND invoice NOT LIKE 'C%' AND quantity > 0 AND price > 0)
            SELECT customer_id::VARCHAR AS customer,
              count(DISTINCT invoice) FILTER (invoice_date::DATE > today - 90) AS orders_90d,
              coalesce(sum(amount) FILTER (invoice_date::DATE > today - 365), 0) AS revenue_365d,
              date_diff('day', max(invoice_date)::DATE, any_value(today)) AS days_since_order
            FROM sold GROUP BY customer ORDER BY customer"""
    ).fetchall()
    ours = shop.sql(
        """SELECT i.value AS customer, orders_90d, revenue_365d::VARCHAR AS revenue_365d, days_since_order
           FROM traits.daily t JOIN identity.identifiers i USING (person_id)
           WHERE orders_lifetime > 0 ORDER BY customer"""
    )
    assert [(r["customer"], r["orders_90d"], Decimal(r["revenue_365d"]), r["days_since_order"]) for r in ours] == raw


def test_the_purchase_model_is_trained_with_its_metrics_and_beats_recency_frequency_and_amount(shop: Cdp) -> None:
    [model] = shop.sql("SELECT status, metrics, card FROM predictions.models WHERE name = 'purchase_60d'")
    metrics = json.loads(model["metrics"])
    assert model["status"] == "champion"
    assert metrics["auc"] > metrics["baseline_auc"] > 0.7
    # The model never saw the window it was tested on.
    card = json.loads(model["card"])
    assert max(card["train_cutoffs"]) < min(day for day in [card["test_cutoff"]])
    [scores] = shop.sql(
        "SELECT count(*) AS n, min(score) >= 0 AND max(score) <= 1 AS sound FROM predictions.purchase_60d"
    )
    assert scores["n"] > 4_000
    assert scores["sound"]


def test_running_it_again_changes_nothing(shop: Cdp) -> None:
    tables = ["sources.order_lines", "identity.people", "profile.timeline", "traits.daily", "audiences.members"]
    query = " UNION ALL ".join(
        f"SELECT '{table}' AS name, count(*) AS n, bit_xor(hash(t)) AS fingerprint FROM {table} t" for table in tables
    )
    before = shop.sql(query)
    shop.run("run")
    assert shop.sql(query) == before


SOLD = f"""SELECT customer_id::VARCHAR AS customer, invoice, quantity * round(price, 4)::DECIMAL(18, 4) AS amount,
        invoice_date::DATE AS day
    FROM '{RAW}' WHERE customer_id IS NOT NULL AND invoice NOT LIKE 'C%' AND quantity > 0 AND price > 0"""
CUSTOMERS = f"""SELECT customer, count(DISTINCT invoice) FILTER (day > today - 365) AS orders,
        sum(amount) FILTER (day > today - 365) AS revenue, sum(amount) AS ever, today - max(day) AS quiet
    FROM ({SOLD}), (SELECT max(invoice_date)::DATE AS today FROM '{RAW}') GROUP BY customer, today"""


@pytest.mark.parametrize("day", ["2010-12-31", "2011-03-27", "2011-08-11"])
def test_recency_frequency_and_money_of_each_person_equal_handwritten_sql(shop: Cdp, day: str) -> None:
    """As of the end of a year, of the day the clocks went forward, and of the newest day."""
    known = shop.sql(f"SELECT count(*) AS n FROM traits.daily WHERE day = DATE '{day}'")
    if known == [{"n": 0}]:
        shop.run("run", 'key:"traits/daily"', "--day", day)
    raw = duckdb.sql(
        f"""SELECT customer, DATE '{day}' - max(day) AS recency,
              count(DISTINCT invoice) FILTER (day > DATE '{day}' - 365) AS frequency,
              coalesce(sum(amount) FILTER (day > DATE '{day}' - 365), 0) AS money,
              count(DISTINCT invoice) AS frequency_ever, sum(amount) AS money_ever
            FROM ({SOLD}) WHERE day <= DATE '{day}' GROUP BY customer ORDER BY customer"""
    ).fetchall()
    ours = shop.sql(
        f"""SELECT i.value AS customer, days_since_order AS recency, orders_365d AS frequency,
              revenue_365d::VARCHAR AS money, orders_lifetime AS frequency_ever, revenue_lifetime::VARCHAR AS money_ever
            FROM traits.daily t JOIN identity.identifiers i USING (person_id)
            WHERE t.day = DATE '{day}' AND orders_lifetime > 0 ORDER BY customer"""
    )
    told = [
        (
            r["customer"],
            r["recency"],
            r["frequency"],
            Decimal(r["money"]),
            r["frequency_ever"],
            Decimal(r["money_ever"]),
        )
        for r in ours
    ]
    assert told == raw
    assert len(raw) > 4_000


def test_waterfalls_add_up_and_equal_handwritten_sql(shop: Cdp) -> None:
    everybody = duckdb.sql(f"SELECT count(DISTINCT customer_id) FROM '{RAW}'").fetchone()
    conditions = {
        "champions": ["orders >= 6", "revenue >= 1000", "quiet <= 60"],
        "lapsed": ["ever >= 500", "quiet > 180"],
        "bought_within_30_days": ["quiet < 30"],
    }
    sizes = {row["audience"]: row["people"] for row in shop.json("audience", "list")}
    for name, asked in conditions.items():
        found = shop.json("audience", "waterfall", name)
        assert (found["everybody"],) == everybody
        for number, step in enumerate(found["steps"]):
            others = [f"coalesce({one}, false)" for one in (*asked[:number], *asked[number + 1 :])]
            left, only = duckdb.sql(
                f"""SELECT count(*) FILTER ({" AND ".join(asked[: number + 1])}),
                    count(*) FILTER (NOT coalesce({asked[number]}, false) AND {" AND ".join(others) or "true"})
                FROM ({CUSTOMERS})"""
            ).fetchone()
            # Customers who never bought anything, and only sent back, have no row in this query.
            only += 0 if others else everybody[0] - duckdb.sql(f"SELECT count(*) FROM ({CUSTOMERS})").fetchone()[0]
            assert (step["left"], step["fail_only_this"]) == (left, only), (name, step)
        assert found["everybody"] - sum(step["removed"] for step in found["steps"]) == found["members"]
        assert found["members"] == sizes[name]
    found = shop.json("audience", "waterfall", "likely_to_buy")
    assert found["everybody"] - sum(step["removed"] for step in found["steps"]) == found["members"]
    assert found["members"] == sizes["likely_to_buy"]


def test_members_of_sixty_days_in_a_row_reconcile_with_the_moves_between_them(shop: Cdp) -> None:
    names = ("bought_within_30_days", "lapsed", "champions")
    wanted = " or ".join(f'key:"audiences/{name}"' for name in names)
    [newest] = shop.sql("SELECT max(day) AS day FROM traits.daily")
    last = date.fromisoformat(newest["day"])
    first = last - timedelta(days=59)
    asked = f'key:"traits/daily" or key:"traits/bands" or {wanted}'
    shop.run("run", asked, "--from", str(first), "--to", str(last))
    days = [row["day"] for row in shop.sql("SELECT DISTINCT day FROM audiences.sizes ORDER BY day")]
    assert len(days) == 60
    members: dict[tuple[str, str], set[str]] = {(name, day): set() for name in names for day in days}
    for row in shop.sql("SELECT audience, person_id, day FROM audiences.members"):
        if row["audience"] in names:
            members[row["audience"], row["day"]].add(row["person_id"])
    moves: dict[tuple[str, str, str], set[str]] = {}
    for row in shop.sql("SELECT audience, person_id, day, change FROM audiences.changes"):
        moves.setdefault((row["audience"], row["day"], row["change"]), set()).add(row["person_id"])
    sizes = {(row["audience"], row["day"]): row["people"] for row in shop.sql("FROM audiences.sizes")}
    for name in names:
        there: set[str] = set()
        for day in days:
            entered, left = (moves.get((name, day, change), set()) for change in ("entered", "left"))
            assert not entered & there and left <= there, (name, day)
            there = (there | entered) - left
            assert there == members[name, day], (name, day)
            assert len(there) == sizes[name, day]
    told = {(row["customer"], row["day"]) for row in shop.sql(
        """SELECT i.value AS customer, m.day FROM audiences.members m JOIN identity.identifiers i USING (person_id)
           WHERE m.audience = 'bought_within_30_days'""")}  # fmt: skip
    raw = duckdb.sql(
        f"""SELECT DISTINCT customer, strftime(d.day, '%Y-%m-%d') FROM ({SOLD}) s
            JOIN (SELECT unnest(range(DATE '{first}', DATE '{last}' + 1, INTERVAL 1 DAY))::DATE AS day) d
            ON s.day <= d.day AND s.day > d.day - 30"""
    ).fetchall()
    assert told == set(raw)
