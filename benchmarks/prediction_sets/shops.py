"""The real shops predictions are measured on: their project, timeline, people and population.

Timelines are made straight from the files, as sources and identity would make them of one identifier without limits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import ibis
import pyarrow as pa

from cdp_pipeline.audiences.rules import Scope, matching
from cdp_pipeline.predictions.kind import Known
from cdp_pipeline.predictions.kinds import kind_of
from cdp_pipeline.predictions.windows import cutoffs
from cdp_pipeline.profile.timeline import timeline_table
from cdp_pipeline.spec.load import load_project
from cdp_pipeline.spec.prediction import Prediction
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.as_of import as_of

HERE = Path(__file__).parent
ONLINE_RETAIL = HERE.parents[1] / "cdp_pipeline_tests" / "real" / "online_retail"
COMPLETE_JOURNEY = HERE / "complete_journey"


@dataclass(frozen=True)
class Shop:
    """A shop's project and its events, up to the last day they are read."""

    project: Project
    timeline: ibis.Table

    def known(self, prediction: Prediction) -> Known:
        def population(traits: ibis.Table, days: Sequence[date]) -> ibis.Table:
            found = matching(self.project, prediction.population, Scope(traits=traits), days)
            return traits.semi_join(found, ["person_id", "day"])

        people = self.timeline.filter(self.timeline.person_id.notnull()).select("person_id").distinct()
        return Known(as_of, self.timeline, people, population)

    def training_set(self, prediction: Prediction, cut: date) -> pa.Table:
        """What a training learns from and is tested on whose newest labelled cut-off is `cut`."""
        windows = cutoffs(prediction, cut + prediction.horizon, self.project.settings.first_day)
        rows = kind_of(prediction).training_set(self.known(prediction), prediction, self.project, windows)
        return rows.to_pyarrow()


def online_retail(data: Path) -> Shop:
    """Online Retail II: every invoice line that sold something, and every line of a credit note."""
    sold = "NOT starts_with(invoice, 'C') AND quantity > 0 AND price > 0"
    return _shop(
        ONLINE_RETAIL,
        data,
        f"""SELECT row_number() OVER () || ':line' AS event_id, customer_id::VARCHAR AS person_id,
                   invoice_date AS occurred_at, 'order_lines' AS source,
                   CASE WHEN {sold} THEN 'product_sold' ELSE 'product_returned' END AS event, 'web' AS channel,
                   (quantity * price)::DECIMAL(18, 4) AS amount, 'GBP' AS currency, upper(stock_code) AS product_id,
                   NULL::VARCHAR AS category,
                   {{'record_id': '', 'country': country, 'invoice': invoice, 'quantity': quantity::BIGINT}}
                       AS properties,
                   invoice_date::DATE AS _day, invoice_date AS _loaded_at
            FROM '{data}/online_retail_ii.parquet' WHERE ({sold}) OR starts_with(invoice, 'C')""",
    )


def complete_journey(data: Path) -> Shop:
    """Complete Journey: every line of every basket, its article's category beside it."""
    return _shop(COMPLETE_JOURNEY, data, _basket_lines(data))


def complete_journey_campaigns(data: Path) -> Shop:
    """Beside the lines of the baskets, who was sent coupons of which campaign, and which they redeemed."""
    folder = f"{data}/completejourney"
    sent = _journey_event("campaigns", "coupons_sent", "start_date", "campaign_type")
    back = _journey_event("redemptions", "coupon_redeemed", "redemption_date", "NULL::VARCHAR")
    return _shop(
        COMPLETE_JOURNEY,
        data,
        f"""{_basket_lines(data)}
            UNION ALL BY NAME {sent}
            FROM '{folder}/campaigns.parquet' JOIN '{folder}/campaign_descriptions.parquet' USING (campaign_id)
            UNION ALL BY NAME {back} FROM '{folder}/coupon_redemptions.parquet'""",
    )


def complete_journey_baskets(data: Path) -> Shop:
    """Complete Journey once more, every basket one event."""
    return _shop(
        COMPLETE_JOURNEY,
        data,
        f"""SELECT basket_id || ':basket' AS event_id, household_id::VARCHAR AS person_id,
                   min(transaction_timestamp) AS occurred_at, 'baskets' AS source, 'basket_paid' AS event,
                   'store' AS channel, NULL::DECIMAL(18, 4) AS amount, NULL::VARCHAR AS currency,
                   NULL::VARCHAR AS product_id, NULL::VARCHAR AS category,
                   {_PROPERTIES.format(campaign="NULL", campaign_type="NULL")} AS properties,
                   min(transaction_timestamp)::DATE AS _day, min(transaction_timestamp) AS _loaded_at
            FROM '{data}/completejourney/transactions.parquet' GROUP BY household_id, basket_id""",
    )


_PROPERTIES = """{{'record_id': '', 'basket_id': NULL::VARCHAR, 'campaign': {campaign}::VARCHAR,
    'campaign_type': {campaign_type}::VARCHAR, 'coupon_discount': NULL::DOUBLE, 'product_type': NULL::VARCHAR,
    'retail_discount': NULL::DOUBLE, 'store_id': NULL::VARCHAR}}"""


def _journey_event(source: str, event: str, at: str, campaign_type: str) -> str:
    """What is selected of a table of campaigns."""
    return f"""SELECT row_number() OVER () || ':{event}' AS event_id, household_id::VARCHAR AS person_id,
               {at}::TIMESTAMP AS occurred_at, '{source}' AS source, '{event}' AS event, 'post' AS channel,
               {_PROPERTIES.format(campaign="campaign_id", campaign_type=campaign_type)} AS properties,
               {at}::DATE AS _day, {at}::TIMESTAMP AS _loaded_at"""


def _basket_lines(data: Path) -> str:
    return f"""SELECT row_number() OVER () || ':line' AS event_id, household_id::VARCHAR AS person_id,
                   transaction_timestamp AS occurred_at, 'basket_lines' AS source, 'product_bought' AS event,
                   'store' AS channel, sales_value::DECIMAL(18, 4) AS amount, 'USD' AS currency,
                   bought.product_id::VARCHAR AS product_id, product_category AS category,
                   {{'record_id': '', 'basket_id': basket_id::VARCHAR, 'campaign': NULL::VARCHAR,
                     'campaign_type': NULL::VARCHAR, 'coupon_discount': coupon_disc + coupon_match_disc,
                     'product_type': product_type, 'retail_discount': retail_disc, 'store_id': store_id::VARCHAR}}
                       AS properties,
                   transaction_timestamp::DATE AS _day, transaction_timestamp AS _loaded_at
            FROM '{data}/completejourney/transactions.parquet' AS bought
            JOIN '{data}/completejourney/products.parquet' AS product USING (product_id)"""


def _shop(folder: Path, data: Path, lines: str) -> Shop:
    os.environ["CDP_DATA"] = str(data)
    project = load_project(folder)
    connection = ibis.duckdb.connect()
    connection.raw_sql(f"CREATE TABLE lines AS {lines}")
    return Shop(project, connection.table("lines").cast(dict(timeline_table(project).schema)))
