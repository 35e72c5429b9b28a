"""A day in the life of an installation: one `cdp dev`, real servers on loopback, everything driven from outside."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cdp_pipeline.lake import open_lake
from cdp_pipeline.lake.errors import LakeMissingError
from cdp_pipeline.lake.query import QueryError, query_lake
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.destinations.servers import SECRET, Mailbox, Receiver
from cdp_pipeline_tests.orchestration.dagster_dev import Dev, dev
from cdp_pipeline_tests.waiting import long_before_midnight

pytestmark = pytest.mark.slow
SHOP = Path(__file__).parent / "shop"
DAYS = 30


@dataclass
class Life:
    """The running installation and the world around it."""

    dev: Dev
    hook: Receiver
    mailbox: Mailbox
    folder: Path
    environment: dict[str, str]
    today: date

    def orders(self, day: date, *rows: str) -> None:
        """Put a day's file in place at once, as a careful exporter does."""
        path = self.folder / "data" / "orders" / f"{day}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        draft.write_text("order_id,ordered_at,email,total\n" + "".join(f"{row}\n" for row in rows))
        draft.rename(path)

    def sql(self, query: str) -> list[dict[str, Any]]:
        """What `cdp sql` answers, without a process of its own; nothing where the tables are still to come."""
        try:
            with open_lake(LakeLocation(path=str(self.folder / "lake")), read_only=True) as lake:
                names, rows = query_lake(lake, query)
        except (LakeMissingError, QueryError):
            return []
        return [dict(zip(names, row, strict=True)) for row in rows]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [effect for effect in self.hook.effects.values() if effect["type"] == kind]

    def alerts(self, text: str) -> list[str]:
        return [title for effect in self.events("alert") if text in (title := effect["data"]["title"])]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("life")
    long_before_midnight(10)
    today = datetime.now(UTC).date()
    with Receiver() as hook, Mailbox() as mailbox:
        environment = {
            "CDP_PROJECT": str(SHOP),
            "CDP_DATA": str(folder / "data"),
            "CDP_LAKE": str(folder / "lake"),
            "DAGSTER_HOME": str(folder / "dagster"),
            "SHOP_FIRST_DAY": str(today - timedelta(days=60)),
            "SHOP_HOOK": hook.url,
            "SHOP_SECRET": SECRET,
            "SHOP_SMTP_PORT": str(mailbox.port),
        }
        with dev(environment, folder) as running:
            yield Life(running, hook, mailbox, folder, environment, today)


def test_1_files_that_arrive_are_loaded_without_anybody_asking(life: Life) -> None:
    for back in range(DAYS, 0, -1):
        day = life.today - timedelta(days=back)
        life.orders(day, f"a{back},{day}T10:00:00Z,ann@example.com,1.00", f"n{back},{day}T11:00:00Z,,2.50")
    # Bob's last order is ten days before today: he goes quiet today and not a day sooner.
    day = life.today - timedelta(days=10)
    life.orders(
        day,
        f"a10,{day}T10:00:00Z,ann@example.com,1.00",
        f"n10,{day}T11:00:00Z,,2.50",
        f"b1,{day}T12:00:00Z,Bob@Example.com,9",
    )
    count = "select count(*) n, count(distinct _day) as days from sources.orders"
    life.dev.eventually(lambda: life.sql(count) == [{"n": 2 * DAYS + 1, "days": DAYS}])
    assert life.events("alert") == []


def test_2_a_backfill_of_thirty_days_is_one_run_and_sends_nothing(life: Life) -> None:
    life.dev.eventually(life.dev.idle)
    # As somebody does who clicks "Materialize all" on identity and profile, and backfills what has days.
    first = [["identity", name] for name in ("edges", "identifiers", "people", "changes", "runs")]
    first += [["profile", name] for name in ("customers", "provenance", "timeline", "watermarks")]
    _materialize(life, first)
    days = [str(life.today - timedelta(days=back)) for back in range(DAYS, 0, -1)]
    before = {run["id"] for run in life.dev.runs()}
    backfill = life.dev.backfill(
        [["traits", "daily"], ["traits", "bands"], ["traits", "runs"], ["audiences", "big_spenders"]], days
    )
    life.dev.eventually(lambda: life.dev.backfill_status(backfill) == "COMPLETED_SUCCESS")
    new = [run for run in life.dev.runs() if run["id"] not in before and run["jobName"] != "arrivals"]
    assert len(new) == 1
    # Ann was there from the first day; Bob from his first order on.
    assert life.sql("select count(distinct day) as days, count(*) n from traits.daily") == [
        {"days": DAYS, "n": DAYS + 10}
    ]
    assert life.sql("select sum(people) n, count(*) as days from audiences.sizes") == [{"n": 0, "days": DAYS}]
    assert life.events("trigger.gone_quiet") == []
    assert life.mailbox.messages == []


def _materialize(life: Life, keys: list[list[str]]) -> None:
    """Launch a run of assets without partitions and wait for its success."""
    mutation = """mutation($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) {
        __typename ... on LaunchRunSuccess { run { id } } ... on PythonError { message } } }"""
    selector = {
        "repositoryName": "__repository__", "repositoryLocationName": "cdp_pipeline", "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": key} for key in keys],
    }  # fmt: skip
    params = {"selector": selector, "mode": "default", "runConfigData": {}}
    answer = life.dev.ask(mutation, p=params)["launchPipelineExecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    run = answer["run"]["id"]
    status = life.dev.eventually(
        lambda: next(
            (r["status"] for r in life.dev.runs() if r["id"] == run and r["status"] in ("SUCCESS", "FAILURE")), None
        )
    )
    assert status == "SUCCESS"


def test_3_a_schedule_tick_brings_today_and_what_crossed_or_entered_is_delivered_once(life: Life) -> None:
    life.orders(life.today, f"c1,{life.today}T00:00:01Z,cleo@example.com,150.00")
    life.dev.eventually(lambda: life.sql("select count(*) n from sources.orders where order_id = 'c1'") == [{"n": 1}])
    _tick(life)
    [mail] = life.dev.eventually(lambda: list(life.mailbox.messages))
    assert mail["To"] == "cleo@example.com"
    assert "150" in mail.get_content()
    assert len(life.dev.eventually(lambda: life.events("trigger.welcome"))) == 1
    [quiet] = life.dev.eventually(lambda: life.events("trigger.gone_quiet"))
    assert quiet["data"]["days"] == 10
    assert all(request.is_signed_with(_key()) for request in life.hook.requests)
    # The next tick computes the same day again, and nobody hears anything twice.
    _tick(life)
    assert {run["status"] for run in life.dev.finished("refresh_minutely")} == {"SUCCESS"}
    assert len(life.mailbox.messages) == 1
    assert len(life.events("trigger.welcome")) == len(life.events("trigger.gone_quiet")) == 1


def _tick(life: Life) -> None:
    """One more run of the schedule, and no queue of them behind it on a machine that is slower than its minutes."""
    before = len(life.dev.finished("refresh_minutely"))
    life.dev.switch("minutely", on=True)
    life.dev.eventually(lambda: len(life.dev.finished("refresh_minutely")) > before)
    life.dev.switch("minutely", on=False)
    life.dev.eventually(life.dev.idle)


def _key() -> bytes:
    import base64

    return base64.b64decode(SECRET.removeprefix("whsec_"))


def test_4_a_failed_check_that_blocks_nothing_is_told_though_its_run_went_through(life: Life) -> None:
    day = life.today - timedelta(days=1)
    life.orders(day, *(f"bad{n},{day}T10:00:00Z,x@example.com,a lot" for n in range(20)))
    told = life.dev.eventually(lambda: life.alerts("few_set_aside"))
    assert told == ["WARN: check 'few_set_aside' of sources/orders failed"]
    life.dev.eventually(life.dev.idle)
    assert life.dev.finished("arrivals")[0]["status"] == "SUCCESS"


def test_5_an_audience_that_fails_its_tests_is_held_and_told_while_its_run_goes_through(life: Life) -> None:
    life.dev.eventually(life.dev.idle)
    day = str(life.today - timedelta(days=1))
    before = {run["id"] for run in life.dev.runs()}
    life.dev.backfill([["audiences", "crowd"]], [day])
    ended = ("SUCCESS", "FAILURE")
    new = life.dev.eventually(lambda: [r for r in life.dev.runs() if r["id"] not in before and r["status"] in ended])
    assert [run["status"] for run in new] == ["SUCCESS"]
    assert life.sql("select count(*) n from audiences.sizes where audience = 'crowd'") == [{"n": 0}]
    [held] = life.sql("select audience, because from audiences.held")
    assert held["audience"] == "crowd" and held["because"].endswith("people, fewer than 1,000,000")
    told = life.dev.eventually(lambda: life.alerts("size_as_expected"))
    assert told == ["ERROR: check 'size_as_expected' of audiences/crowd failed"]


def test_6_a_failed_run_is_told_without_a_word_of_the_data(life: Life) -> None:
    path = life.folder / "data" / "orders" / f"{life.today}.csv"
    path.write_text("order_id,email\nz1,secret@example.com\n")
    life.dev.eventually(lambda: life.alerts("Run of arrivals failed"))
    assert not any(b"secret@example.com" in request.body for request in life.hook.requests)
