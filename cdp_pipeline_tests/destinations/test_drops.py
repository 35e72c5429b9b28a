"""What is particular to files: what stands in them, that nobody sees half of one, and which server is trusted."""

from __future__ import annotations

import csv
import json
import os
import stat
from datetime import date, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cdp_pipeline.activation.protocol import Delivery, DestinationError, Outcome
from cdp_pipeline.destinations import destination_for
from cdp_pipeline.destinations.drop import parcels
from cdp_pipeline.spec.destination import Destination
from cdp_pipeline_tests.activation.projects import NOW
from cdp_pipeline_tests.destinations.fakes.file import file, picked_up
from cdp_pipeline_tests.destinations.fakes.s3 import s3
from cdp_pipeline_tests.destinations.fakes.sftp import SftpServer, key, public, sftp
from cdp_pipeline_tests.destinations.kit import bench_of

MINUTE = timedelta(minutes=1)
DAY = date(2026, 3, 10)


def member(key: str, op_id: str = "", sync: str = "vips", **data: Any) -> Delivery:
    payload = {"type": f"sync.{sync}", "key": key, "member": True, "data": data or {"email": key}}
    return Delivery(op_id or f"op-{key}", "add", payload)


def gone(key: str) -> Delivery:
    return Delivery(f"gone-{key}", "remove", {"type": "sync.vips", "key": key, "member": False})


def act(op_id: str, **data: Any) -> Delivery:
    payload = {"type": "trigger.low_nps", "timestamp": "2026-03-09", "occasion": "2026-03-09", "data": data}
    return Delivery(op_id, "act", payload)


def send(spec: Destination, *batch: Delivery) -> list[Outcome]:
    with destination_for(spec) as connection:
        return connection.deliver(batch, now=NOW, within=MINUTE)


# What stands in them


def test_a_csv_says_who_came_and_who_left_and_carries_each_operations_id() -> None:
    batch = [member("ann", email="ann@example.com", tier="gold"), member("bob", email=None, tier="tin"), gone("cid")]
    [parcel] = parcels(batch, "csv", DAY)
    assert parcel.content.decode().replace("\r\n", "\n") == (
        "_op_id,_action,_key,email,tier\n"
        "op-ann,add,ann,ann@example.com,gold\n"
        "op-bob,add,bob,,tin\n"
        "gone-cid,remove,cid,,\n"
    )


def test_json_lines_are_the_payloads_with_their_ids() -> None:
    [parcel] = parcels([member("ann", number=3, name="Zoë"), gone("bob")], "jsonl", DAY)
    assert [json.loads(line) for line in parcel.content.decode().splitlines()] == [
        {"op_id": "op-ann", "action": "add", "type": "sync.vips", "key": "ann", "member": True,
         "data": {"number": 3, "name": "Zoë"}},
        {"op_id": "gone-bob", "action": "remove", "type": "sync.vips", "key": "bob", "member": False},
    ]  # fmt: skip


def test_each_sync_and_trigger_has_files_of_its_own_with_names_that_tell() -> None:
    made = parcels([member("ann"), act("a1", person="p1"), member("bob"), member("ann", "x", "tins")], "csv", DAY)
    assert [(parcel.name[:-17], parcel.op_ids) for parcel in made] == [
        ("sync_vips_20260310", ("op-ann", "op-bob")),
        ("trigger_low_nps_20260310", ("a1",)),
        ("sync_tins_20260310", ("x",)),
    ]


def test_the_same_operations_on_the_same_day_are_the_same_file_and_others_another() -> None:
    first, same, other = (parcels(batch, "csv", DAY)[0].name for batch in ([member("a")], [member("a")], [member("b")]))
    assert first == same != other


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20), max_size=5))
def test_any_text_is_read_back_from_a_csv_as_it_was(texts: list[str]) -> None:
    """But for the quote before what a spreadsheet would run."""
    [parcel] = parcels([member("k", text=text) for text in texts] or [member("k", text="")], "csv", DAY)
    read = [row["text"] for row in csv.DictReader(StringIO(parcel.content.decode(), newline=""))]
    assert [each.removeprefix("'") for each in read] == [each.removeprefix("'") for each in texts or [""]]


@pytest.mark.parametrize(
    ("value", "cell"),
    [("=HYPERLINK(1)", "'=HYPERLINK(1)"), ("@SUM(A1)", "'@SUM(A1)"), ("+cmd|x", "'+cmd|x"), ("-2+3", "'-2+3"),
     ("\t=1", "'\t=1"), ("+49 151 123-45", "+49 151 123-45"), ("-12.50", "-12.50"), (-3, "-3"), ("a=b", "a=b"),
     (True, "true"), (None, ""), (["a", "b"], '["a","b"]')],
)  # fmt: skip
def test_nothing_a_customer_wrote_is_run_by_a_spreadsheet(value: object, cell: str) -> None:
    [parcel] = parcels([member("k", value=value)], "csv", DAY)
    [row] = csv.DictReader(parcel.content.decode().splitlines())
    assert row["value"] == cell


def test_after_a_file_that_has_to_wait_no_other_is_tried(tmp_path: Path) -> None:
    with bench_of("s3", tmp_path) as bench:
        outcomes = send(bench.spec, member("ann"), member("wait-1", sync="tins"), member("bob", sync="cans"))
        assert bench.arrived() == ["op-ann"]
    assert [each.state for each in outcomes] == ["delivered", "retry", "untried"]
    assert [each.after for each in outcomes[1:]] == [timedelta(seconds=20)] * 2


# A folder


def test_a_file_appears_whole_and_not_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    made = os.fsync

    def look(descriptor: int) -> None:
        seen.append([path.name for path in tmp_path.iterdir() if not path.name.startswith(".")])
        made(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    assert [each.state for each in send(file(tmp_path), member("ann"))] == ["delivered"]
    [there] = tmp_path.iterdir()
    assert seen == [[], [there.name]]
    assert not stat.S_IMODE(there.stat().st_mode) & stat.S_IRWXO


def test_a_folder_that_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    outcomes = send(file(tmp_path / "mount"), member("ann"), member("bob"))
    assert [each.state for each in outcomes] == ["retry", "untried"]
    assert not (tmp_path / "mount").exists()


# An SFTP server


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "served" / "in"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("posix", [True, False])
def test_a_file_that_is_sent_again_takes_its_own_place(place: Path, posix: bool) -> None:
    with SftpServer(place.parent, posix=posix) as server:
        for _ in range(2):
            assert [each.state for each in send(sftp(server.port), member("ann"))] == ["delivered"]
    assert [path.name[:9] for path in place.iterdir()] == ["sync_vips"]
    assert picked_up(place) == ["op-ann"]


def test_a_server_with_another_host_key_is_told_nothing(place: Path) -> None:
    with SftpServer(place.parent) as server:
        outcomes = send(sftp(server.port, host_key=public("somebody else")), member("ann"), member("bob"))
        assert server.logins == 0
    assert [each.state for each in outcomes] == ["retry", "untried"]
    assert "host key" in outcomes[0].reason and outcomes[0].after == timedelta(minutes=15)
    assert list(place.iterdir()) == []


def test_one_logs_in_with_a_key_as_well(place: Path) -> None:
    pem = key("client").export_private_key().decode()
    with SftpServer(place.parent) as server:
        assert send(sftp(server.port, password=None, private_key=pem), member("ann"))[0].state == "delivered"
        other = key("other").export_private_key().decode()
        assert send(sftp(server.port, password=None, private_key=other), member("bob"))[0].state == "retry"
    assert picked_up(place) == ["op-ann"]


def test_a_session_the_server_ended_is_opened_again(place: Path) -> None:
    with SftpServer(place.parent) as server, destination_for(sftp(server.port)) as connection:
        for name in ("ann", "bob"):
            [outcome] = connection.deliver([member(name)], now=NOW, within=MINUTE)
            assert outcome.state == "delivered"
            server.hang_up()
        assert server.logins == 2
    assert sorted(picked_up(place)) == ["op-ann", "op-bob"]


def test_a_folder_the_server_has_not_is_named_as_the_trouble(place: Path) -> None:
    with SftpServer(place.parent) as server:
        outcomes = send(sftp(server.port, folder="elsewhere"), member("ann"), member("bob"))
    assert [each.state for each in outcomes] == ["retry", "untried"]
    assert "folder" in outcomes[0].reason


def test_a_login_needs_something_to_log_in_with_and_keys_are_keys() -> None:
    with pytest.raises(ValidationError, match="private_key"):
        sftp(22, password=None)
    with pytest.raises(DestinationError, match="host_key"):
        destination_for(sftp(22, host_key="ssh-ed25519 nonsense"))
    with pytest.raises(DestinationError, match="private_key"):
        destination_for(sftp(22, private_key="nonsense"))


# S3


def test_objects_come_to_a_bucket_with_their_prefix_and_type() -> None:
    """In moto's S3, which stands in for Amazon's under its own addresses."""
    import boto3
    from moto import mock_aws

    with mock_aws():
        client = boto3.client("s3", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
        client.create_bucket(Bucket="drop", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        for name in ("ann", "ann", "bob"):
            [outcome] = send(s3(None, format="csv"), member(name))
            assert outcome.state == "delivered"
        listed = [each["Key"] for each in client.list_objects_v2(Bucket="drop")["Contents"]]
        assert len(listed) == 2 and all(each.startswith("in/sync_vips_20260310_") for each in listed)
        texts = {client.get_object(Bucket="drop", Key=name)["Body"].read().decode() for name in listed}
        assert texts == {f"_op_id,_action,_key,email\r\nop-{name},add,{name},{name}\r\n" for name in ("ann", "bob")}
        assert client.head_object(Bucket="drop", Key=listed[0])["ContentType"] == "text/csv; charset=utf-8"
        outcomes = send(s3(None, bucket="nowhere"), member("ann"), member("bob"))
    assert [each.state for each in outcomes] == ["retry", "untried"]
    assert outcomes[0].reason == "HTTP 404, S3 NoSuchBucket"


def test_credentials_that_are_nowhere_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    [outcome] = send(s3("http://127.0.0.1:9", key_id=None, secret=None), member("ann"))
    assert (outcome.state, outcome.reason) == ("retry", "no credentials are found")
