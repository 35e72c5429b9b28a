"""What comes with the house: all that a project's sources can tell, nothing else, and the project has the last word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline.shipped.catalogue import PLACEHOLDER, lacking, offers
from cdp_pipeline.shipped.facts import OF_EVERY_EVENT
from cdp_pipeline.shipped.words import words
from cdp_pipeline.spec.audience import Audience, Rule
from cdp_pipeline.spec.load import DEMO, ProjectError, load_project
from cdp_pipeline.spec.project import Project
from cdp_pipeline.spec.types import traits_read
from cdp_pipeline.traits.listing import listed, missing

ORDERS = """
kind: source
name: orders
description: Orders.
files: orders.csv
grain: [order_id]
occurred_at: at
columns:
  order_id: {type: string}
  at: {type: timestamp}
  email: {type: string, identifier: email}
  total: {type: money}
  voucher: {type: string}
  channel: {type: string, checks: [{accepted: [web, store]}]}
events:
  - {event: order_completed, amount: total}
---
{kind: identifier, name: email, description: E-mail address.}
"""
TRAIT = "kind: trait\nname: ours\ndescription: Ours.\nevaluation: count\nevent: order_completed\n"
MESSAGES = """
kind: source
name: letters
description: Letters.
files: letters.csv
grain: [id]
occurred_at: at
channel: email
columns:
  id: {type: string}
  at: {type: timestamp}
  email: {type: string, identifier: email}
  event: {type: string}
events:
  - {column: event, names: [message_sent, message_opened, message_clicked]}
"""


def project(folder: Path, *documents: str, shipped: str = "{}") -> Project:
    settings = (
        "kind: project\nname: shop\ndescription: A shop.\nfirst_day: 2026-01-01\nlake: {path: lake}\ncurrency: SEK\n"
        f"shipped: {shipped}"
    )
    (folder / "shop.yaml").write_text("\n---\n".join([settings, *documents]))
    return load_project(folder, {})


def problems(folder: Path, *documents: str, shipped: str = "{}") -> list[str]:
    with pytest.raises(ProjectError) as found:
        project(folder, *documents, shipped=shipped)
    return str(found.value).splitlines()


@pytest.fixture(scope="module")
def demo() -> Project:
    return load_project(DEMO, {})


def test_the_demo_company_has_more_than_120_shipped_traits_and_15_audiences(demo: Project) -> None:
    shipped = [kind for (kind, _), place in demo.places.items() if place.startswith("shipped/")]
    assert shipped.count("trait") >= 120
    assert shipped.count("audience") >= 15


def test_what_is_shipped_is_told_in_whole_sentences_with_nothing_left_to_fill_in(demo: Project) -> None:
    for (kind, name), place in demo.places.items():
        if place.startswith("shipped/"):
            document = (demo.traits if kind == "trait" else demo.audiences)[name]
            assert re.fullmatch(r"[A-Z].{15,}[.?]", document.description), name
            assert not PLACEHOLDER.search(document.model_dump_json()), name
            assert document.owner == demo.settings.owner


def test_every_name_of_the_catalogue_is_given_once_and_every_word_in_it_is_known() -> None:
    names = [(offer.line.kind, offer.name) for offer in offers()]
    assert len(set(names)) == len(names)
    known = {*words().fields, *OF_EVERY_EVENT, "currency"}
    for offer in offers("trait"):
        assert set(PLACEHOLDER.findall(repr(offer.data))) <= known, offer.name
        roles = offer.data.get("event", [])
        roles = [roles] if isinstance(roles, str) else roles
        assert {*roles, *offer.data.get("weights", {})} <= set(words().roles), offer.name


def test_a_project_with_orders_alone_has_what_orders_can_tell(tmp_path: Path) -> None:
    shop = project(tmp_path, ORDERS)
    assert {event for trait in shop.traits.values() for event in trait.event} == {"order_completed"}
    assert {"orders_90d", "revenue_365d", "average_order_value", "days_between_orders", "spending_trend", "rfm",
            "lifecycle_stage", "value_tier"} <= set(shop.traits)  # fmt: skip
    assert {"bought_recently", "first_time_buyers", "lapsed", "high_value", "unreachable"} <= set(shop.audiences)
    unknown = {"product_views_7d", "emails_sent_90d", "coupon_share", "last_category", "store_share", "nps_last"}
    assert not unknown & set(shop.traits)
    assert not {"abandoned_cart", "low_nps", "likely_to_buy", "discount_sensitive"} & set(shop.audiences)
    assert shop.traits["revenue_365d"].unit == "SEK"


def test_orders_without_an_amount_tell_no_money(tmp_path: Path) -> None:
    shop = project(tmp_path, ORDERS.replace(", amount: total", ""))
    assert {"orders_90d", "days_since_last_order"} <= set(shop.traits)
    assert not any(trait.unit == "SEK" or "revenue" in name for name, trait in shop.traits.items())
    assert "high_value" not in shop.audiences


def test_a_channel_that_the_sources_never_have_gets_no_traits(tmp_path: Path) -> None:
    shop = project(tmp_path, ORDERS.replace("amount: total", "amount: total, channel: channel"), MESSAGES)
    assert {"web_share", "store_share", "emails_sent_90d", "email_open_share"} <= set(shop.traits)
    assert not {"app_share", "texts_sent_90d", "pushes_sent_90d", "whatsapps_sent_90d"} & set(shop.traits)
    assert "engaged_by_email" in shop.audiences and "engaged_by_push" not in shop.audiences


def test_of_two_names_for_one_thing_only_the_first_counts(tmp_path: Path) -> None:
    twice = (
        ORDERS
        + "---"
        + ORDERS.split("---")[0]
        .replace("name: orders", "name: web")
        .replace("event: order_completed", "event: purchase")
    )
    assert project(tmp_path, twice).traits["orders_90d"].event == ["order_completed"]
    both = project(tmp_path, twice, shipped="{roles: {purchase: [order_completed, purchase]}}")
    assert both.traits["orders_90d"].event == ["order_completed", "purchase"]


def test_a_project_says_which_events_play_a_role_and_how_a_field_is_called(tmp_path: Path) -> None:
    bought = ORDERS.replace("order_completed, amount: total", "stuff_bought, amount: total, properties: [voucher]")
    assert project(tmp_path, bought).traits == {}
    shop = project(tmp_path, bought, shipped="{roles: {purchase: [stuff_bought]}}")
    assert shop.traits["orders_90d"].event == ["stuff_bought"]
    assert shop.traits["coupon_orders_365d"].when == "voucher is not null"
    named = "{roles: {purchase: [stuff_bought]}, fields: {coupon: \"nullif(voucher, 'none')\"}}"
    assert project(tmp_path, bought, shipped=named).traits["coupon_orders_365d"].when == (
        "(nullif(voucher, 'none')) is not null"
    )
    assert project(tmp_path, ORDERS, shipped="{roles: {purchase: []}}").traits == {}


def test_a_project_overrides_a_shipped_trait_by_its_name(tmp_path: Path) -> None:
    own = TRAIT.replace("ours", "orders_90d") + "window: last 9 days"
    shop = project(tmp_path, ORDERS, own)
    assert str(shop.traits["orders_90d"].window) == "last 9 days"
    assert next(iter(shop.traits)) == "orders_90d", "a project's own come first"
    assert shop.places["trait", "orders_90d"].startswith("shop.yaml:")
    audience = "{kind: audience, name: lapsed, description: Ours., rules: [{trait: orders_90d, op: '=', value: 0}]}"
    assert project(tmp_path, ORDERS, audience).audiences["lapsed"].description == "Ours."


def test_what_is_dropped_is_gone_with_all_that_is_made_of_it(tmp_path: Path) -> None:
    shop = project(tmp_path, ORDERS, shipped="{drop: [orders_365d, lapsed]}")
    assert not {"orders_365d", "rfm_frequency", "rfm", "lifecycle_stage"} & set(shop.traits)
    assert not {"lapsed", "winback", "loyal_customers"} & set(shop.audiences)
    assert "rfm_recency" in shop.traits and "high_value" in shop.audiences


def test_shipped_traits_and_audiences_can_be_switched_off(tmp_path: Path) -> None:
    shop = project(tmp_path, ORDERS, shipped="{traits: false, audiences: false}")
    assert shop.traits == {} and shop.audiences == {}
    assert project(tmp_path, ORDERS, shipped="{audiences: false}").traits


def test_what_is_made_of_several_things_is_made_of_those_there_are(tmp_path: Path) -> None:
    def phases(folder: Path, *documents: str) -> list[str]:
        return [state.name for state in project(folder, *documents).traits["lifecycle_stage"].states]

    assert phases(tmp_path, ORDERS) == ["new", "loyal", "active", "slipping", "lapsed", "dormant"]
    assert phases(tmp_path, ORDERS, MESSAGES) == ["new", "loyal", "active", "slipping", "lapsed", "prospect", "dormant"]
    whole = load_project(DEMO, {}).audiences["winback"]
    assert "none" in repr(whole) and "low_nps" in repr(whole)
    assert not any(rule.none for rule in project(tmp_path, ORDERS).audiences["winback"].rules)


def test_who_may_be_written_to_agreed_where_that_is_asked(tmp_path: Path) -> None:
    consent = (
        "{kind: attribute, name: email_consent, description: Agreed., "
        "sources: [{source: orders, column: voucher = 'y'}]}"
    )
    asked = project(tmp_path, ORDERS, consent).audiences["unreachable"].rules[1].none
    assert asked == [Rule.model_validate({"all": [
        {"identifier": "email"}, {"attribute": "email_consent", "op": "=", "value": True}]})]  # fmt: skip
    unasked = project(tmp_path, ORDERS).audiences["unreachable"].rules[1].none
    assert unasked == [Rule.model_validate({"all": [{"identifier": "email"}]})]


def test_a_forecast_is_the_highest_band_of_a_prediction_of_purchases(tmp_path: Path) -> None:
    churn = """
kind: prediction
name: stays_away
description: Buys nothing.
target: {event: [order_completed], happens: false}
horizon: 30 days
bands: [{name: calm, above: 0}, {name: going, above: 0.7}]
"""
    shop = project(tmp_path, ORDERS, churn)
    assert shop.audiences["at_risk"].rules[0].value == "going"
    assert "likely_to_buy" not in shop.audiences
    assert project(tmp_path, ORDERS, churn.split("bands")[0]).audiences["at_risk"].rules[0].value == 0.5


def test_high_value_is_foreseen_only_where_a_prediction_says_what_people_will_spend(tmp_path: Path) -> None:
    buys = """
kind: prediction
name: buys
description: Buys something.
target: {event: [order_completed]}
horizon: 30 days
"""
    spends = buys.replace("name: buys", "name: worth\ntype: value")
    shop = project(tmp_path, ORDERS, buys)
    assert "likely_to_buy" in shop.audiences and "high_predicted_value" not in shop.audiences
    said = {offer.name: why for offer, why in lacking(shop)}
    assert said["high_predicted_value"] == "needs a prediction of type value: what people will spend"
    shop = project(tmp_path, ORDERS, buys, spends)
    assert shop.audiences["high_predicted_value"].rules == [Rule(prediction="worth", op=">=", value=100)]
    assert shop.audiences["likely_to_buy"].rules[0].prediction == "buys"


def test_a_project_without_a_daily_cadence_still_loads(tmp_path: Path) -> None:
    shop = project(tmp_path, ORDERS, shipped='{}\ncadences: {weekly: "0 5 * * 1"}')
    assert {audience.cadence for audience in shop.audiences.values()} == {"weekly"}


@pytest.mark.parametrize(
    ("shipped", "told"),
    [
        ("{roles: {purchas: [order_completed]}}", "roles.purchas: unknown role 'purchas', did you mean 'purchase'?"),
        ("{roles: {purchase: [order_complete]}}", "roles.purchase[0]: unknown event 'order_complete', did you mean"),
        ("{fields: {cupon: channel}}", "fields.cupon: unknown field 'cupon', did you mean 'coupon'?"),
        ("{fields: {coupon: vouchr}}", "fields.coupon: unknown column 'vouchr'"),
        ("{drop: [orders_91d]}", "drop[0]: unknown shipped trait or audience 'orders_91d', did you mean 'orders_9"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_clear_line(tmp_path: Path, shipped: str, told: str) -> None:
    [line] = problems(tmp_path, ORDERS, shipped=shipped)
    assert line.startswith("shop.yaml:7: ") and told in line


def test_an_own_trait_that_a_shipped_one_cannot_use_is_named_with_the_way_out(tmp_path: Path) -> None:
    own = TRAIT.replace("ours", "orders_365d").replace("count", "last") + "value: channel"
    lines = problems(tmp_path, ORDERS, own)
    assert any("shipped trait 'rfm_frequency'" in line and "shipped: {drop: [rfm_frequency]}" in line for line in lines)


def test_a_source_that_cannot_be_read_makes_no_problems_of_what_would_be_shipped(tmp_path: Path) -> None:
    uses = "{kind: audience, name: mine, description: Ours., rules: [{trait: orders_90d, op: '>', value: 0}]}"
    assert len(problems(tmp_path, ORDERS.replace("grain", "grains"), uses)) == 2  # 'grains' unknown, 'grain' missing


def test_the_list_of_traits_says_where_each_comes_from_and_what_others_lack(tmp_path: Path) -> None:
    shop = project(tmp_path, ORDERS, TRAIT, shipped="{drop: [smallest_order]}")
    rows = {row["name"]: row for row in listed(shop)}
    assert rows["ours"]["declared"] == "shop.yaml:30"
    assert re.fullmatch(r"shipped/traits/buying\.yaml:\d+", rows["revenue_365d"]["declared"])
    assert rows["revenue_365d"] | {"declared": ""} == {
        "name": "revenue_365d", "description": "Money they spent in the last year, before returns.", "type": "money",
        "unit": "SEK", "of": "order_completed", "window": "last 365 days", "declared": "",
    }  # fmt: skip
    lacks: dict[str, Any] = {row["name"]: row["lacks"] for row in missing(shop)}
    assert not set(lacks) & set(rows)
    assert lacks["smallest_order"] == "dropped by the project"
    assert lacks["coupon_orders_365d"].startswith("needs order_completed with its coupon such as coupon or")
    assert lacks["product_views_7d"] == "needs an event such as product_viewed or view_item or product_view (role view)"
    assert lacks["coupon_share"] == "needs trait coupon_orders_365d"
    assert len(lacks) + len(rows) - 1 == len(list(offers("trait")))


def test_nothing_shipped_goes_round_in_a_circle_or_reads_what_is_not_there(demo: Project) -> None:
    for name, trait in demo.traits.items():
        assert traits_read(trait) <= set(demo.traits) - {name}
    assert all(isinstance(audience, Audience) for audience in demo.audiences.values())
