"""Meta: who is invalid is found among many, and no identifier leaves the house unhashed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cdp_pipeline.destinations.http import Answer as Heard
from cdp_pipeline.destinations.meta_audience import judged
from cdp_pipeline_tests.destinations.fakes.meta_audience import FakeMeta, meta
from cdp_pipeline_tests.destinations.fakes.people import member, sent, states


def test_three_invalid_entries_among_five_hundred_are_found_and_the_others_are_there() -> None:
    fake = FakeMeta()
    bad = {"refuse-17", "refuse-18", "refuse-400"}
    people = [member(f"ann-{i}") for i in range(500)] + [member(label) for label in sorted(bad)]
    with sent(fake, meta) as send:
        outcomes = send(*people)
    assert {op_id for op_id, outcome in outcomes.items() if outcome.state == "failed"} == {f"vips-add-{b}" for b in bad}
    assert len(fake.members) == 500 and len(fake.requests) < 40


def test_a_call_of_which_all_is_invalid_is_made_once() -> None:
    fake = FakeMeta()
    with sent(fake, meta) as send:
        assert states(send(*(member(f"refuse-{i}") for i in range(50)))) == ["failed"] * 50
    assert len(fake.requests) == 1


def test_an_audience_that_is_not_ours_fails_all_in_one_call() -> None:
    """Nobody in the call is to blame: halves of it would be refused alike."""
    fake = FakeMeta()
    with sent(fake, meta, audience_id="999") as send:
        outcomes = send(*(member(f"ann-{i}") for i in range(500)))
    assert {(each.state, each.reason) for each in outcomes.values()} == {("failed", "HTTP 400, Meta 100/33")}
    assert len(fake.requests) == 1


def test_limited_data_use_is_said_of_everybody_who_is_added() -> None:
    fake = FakeMeta()
    with sent(fake, meta, limited_data_use=True) as send:
        assert states(send(member("ann-1"), member("ann-2"))) == ["delivered"] * 2
        assert states(send(member("ann-1", "remove"))) == ["delivered"]
    added, removed = (each.json["payload"] for each in fake.requests)
    assert (
        added["schema"] == ["EMAIL", "DATA_PROCESSING_OPTIONS"] and [row[1] for row in added["data"]] == [["LDU"]] * 2
    )
    assert removed["schema"] == ["EMAIL"]


def test_nothing_that_names_a_person_is_in_any_request() -> None:
    fake = FakeMeta()
    with sent(fake, meta) as send:
        send(member("ann-1", email="ann-1@example.com", first_name="Zoë", phone="+41 44 668 18 00", gender="f"))
        send(member("ann-1", "remove"))
    said = b" ".join(each.body for each in fake.requests).decode() + " ".join(each.path for each in fake.requests)
    assert not any(word in said for word in ("@", "ann", "Zo", "668"))
    assert [each.method for each in fake.requests] == ["POST", "DELETE"]


def test_who_lacks_a_column_that_others_have_leaves_it_blank() -> None:
    fake = FakeMeta()
    with sent(fake, meta) as send:
        send(member("ann-1", email="ann-1@example.com", first_name="Ann"), member("ann-2"))
    assert fake.requests[0].json["payload"]["schema"] == ["EMAIL", "FN"]
    assert fake.rows["ann-2"][1] == "" and len(fake.rows["ann-1"][1]) == 64


def test_who_has_no_identifier_is_refused_here() -> None:
    fake = FakeMeta()
    with sent(fake, meta) as send:
        outcomes = send(member("x", email=None), member("ann-1"))
    assert states(outcomes) == ["failed", "delivered"] and len(fake.requests) == 1


@pytest.mark.parametrize(
    ("error", "state", "code", "after"),
    [
        ({"code": 190, "error_subcode": 463}, "retry", 401, timedelta(minutes=15)),
        ({"code": 200}, "retry", 401, timedelta(minutes=15)),
        ({"code": 17}, "retry", 429, timedelta(minutes=5)),
        ({"code": 2}, "retry", 503, None),
        ({"code": 99, "is_transient": True}, "retry", 503, None),
        ({"code": 100, "error_subcode": 1713230}, "failed", 400, None),
    ],
)
def test_what_http_400_means_is_in_the_errors_code(
    error: dict[str, object], state: str, code: int, after: timedelta | None
) -> None:
    import json

    body = json.dumps({"error": {"message": "about ann@example.com", **error}}).encode()
    meant = judged(Heard("failed", "HTTP 400", code=400, body=body))
    assert (meant.state, meant.code, meant.after) == (state, code, after)
    assert "ann" not in meant.reason
