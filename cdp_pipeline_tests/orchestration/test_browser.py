"""What a person sees in Dagster's UI, in a real headless Chromium: lineage, an asset's page, a failed check."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdp_pipeline.spec.load import load_project, project_folder
from cdp_pipeline_tests.orchestration.commands import Cdp
from cdp_pipeline_tests.orchestration.dagster_dev import dev
from cdp_pipeline_tests.waiting import PATIENCE

sync_api = pytest.importorskip("playwright.sync_api", reason="no browser driver: pip install playwright")

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[2] / "docs"
GROUPS = ("sources", "identity", "profile", "traits", "predictions", "audiences", "activation", "measurement")
# No GPU and no sandbox in a container; nothing fetched in the background.
CHROMIUM = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Cdp:
    """A small demo company, run as far as its traits and one model, which so young a company cannot train yet.

    SCREENSHOTS_DATA and SCREENSHOTS_LAKE name a richer installation to take the pictures of.
    """
    if "SCREENSHOTS_LAKE" in os.environ:
        return Cdp(project_folder(), Path(os.environ["SCREENSHOTS_DATA"]), Path(os.environ["SCREENSHOTS_LAKE"]))
    folder = tmp_path_factory.mktemp("browser")
    small = Cdp(project_folder(), folder / "data", folder / "lake")
    small.run("demo-data", str(small.data), "--customers", "150", "--days", "60", "--seed", "7")
    small.run("run", '+key:"audiences/high_value" or +key:"predictions/purchase_60d_model"')
    return small


@pytest.fixture(scope="module")
def page(demo: Cdp, tmp_path_factory: pytest.TempPathFactory) -> Iterator["sync_api.Page"]:
    """A window of the browser on the running UI."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no browser: neither chromium nor chromium-browser is on the PATH")
    with dev(demo.environment, tmp_path_factory.mktemp("dev")) as running, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM))
        window = browser.new_page(base_url=running.url, viewport={"width": 1600, "height": 1000})
        window.set_default_timeout(PATIENCE * 1000)
        sync_api.expect.set_options(timeout=PATIENCE * 1000)
        yield window
        browser.close()


def picture(page: "sync_api.Page", name: str) -> None:
    """Renew the picture of the README, if asked to."""
    if os.environ.get("SCREENSHOTS"):
        DOCS.mkdir(exist_ok=True)
        page.wait_for_load_state("networkidle")
        page.mouse.move(800, 990)  # Where no button shows that it is pointed at.
        page.screenshot(path=DOCS / f"{name}.png", animations="disabled")


def test_the_lineage_page_shows_every_group_from_sources_to_measurement(page) -> None:
    page.goto("/asset-groups")
    graph = page.locator("foreignObject")
    for group in GROUPS:
        sync_api.expect(graph.get_by_text(group, exact=True).first).to_be_visible()
    # The whole window for the graph, which a double click beside it fits to the window.
    page.get_by_text("Hide navigation").click()
    page.get_by_placeholder("Jump to…").locator("xpath=following::button[1]").click()
    page.get_by_placeholder("Jump to…").wait_for(state="hidden")
    page.mouse.dblclick(120, 970)
    graph.get_by_text("activation", exact=True).hover(trial=True)  # Waits until it stands still.
    picture(page, "lineage")
    page.evaluate("localStorage.clear()")  # The navigation is back on the next page.
    page.goto('/asset-groups?asset-selection=1%2Bkey:"predictions/purchase_60d"&expanded=global@global:predictions')
    sync_api.expect(graph.get_by_text("purchase_60d_model", exact=True).first).to_be_visible()


def test_the_page_of_the_traits_shows_what_they_are_their_columns_and_their_plots(page) -> None:
    table = load_project(project_folder()).traits
    page.goto("/assets/traits/daily?view=overview")
    for text in ("Every indicator of every person at the end of each day.", "Row count"):
        sync_api.expect(page.get_by_text(text, exact=True)).to_be_visible()
    described = {trait.name: trait.description for trait in table.values()}
    for name in ("orders_lifetime", "days_since_last_order"):
        row = page.get_by_role("row").filter(has_text=name)
        sync_api.expect(row).to_contain_text(described[name])
    page.get_by_text("Plots", exact=True).click()
    sync_api.expect(page.get_by_text("dagster/row_count", exact=True)).to_be_visible()
    sync_api.expect(page.locator("canvas").first).to_be_visible()


def test_the_page_of_an_audience_fits_one_window_with_description_columns_and_plots(page) -> None:
    page.goto("/assets/audiences/high_value?view=overview")
    page.get_by_text("Plots", exact=True).click()
    sync_api.expect(page.locator("canvas").first).to_be_visible()
    picture(page, "asset")


def test_a_failed_check_is_shown_with_its_reason(page) -> None:
    page.goto("/assets/predictions/purchase_60d_model?view=checks")
    promise = "The new model proved itself on days it had not seen; otherwise the champion goes on scoring."
    for text in ("gates", "Failed", promise):
        sync_api.expect(page.get_by_text(text, exact=True).first).to_be_visible()
    sync_api.expect(page.get_by_text("people in the training windows").first).to_be_visible()
    picture(page, "failed_check")
