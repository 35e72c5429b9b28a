"""Which values name nobody: the shipped list on real and on fake values, and a project's own."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cdp_pipeline.identity.blocked import SHIPPED, BlockedPatternError, blocked_why
from cdp_pipeline.spec.identifier import Blocked

NOBODY = [
    "", "  ", "NULL", "null", "None", "n/a", "NaN", "undefined", "Unknown", "not set", "(not set)", "-1", "---", "?",
    "anonymous", "guest", "test", "TEST", "0", "00000", "00000000-0000-0000-0000-000000000000", "111111111",
    "ffffffff-ffff-ffff-ffff-ffffffffffff", "+440000000000", "+15555555555", "+4412345678", "+1234567890",
    "noreply@shop.example", "no-reply+17@shop.example", "do-not-reply@x.com", "mailer-daemon@x.com", "none@none.com",
    "test@example.com", "info@acme.com", "sales@acme.com", "ann@localhost", "xxx@xxx.com", "noemail@shop.com",
]  # fmt: skip
SOMEBODY = [
    "1", "7", "12346", "777", "1000000", "12345", "1111", "CUST-0001", "ann@example.com", "ann.test@example.org",
    "bob@mail.example", "informa@x.com", "testino@x.com", "nina@x.com", "+447700900123", "+442079460000",
    "+15550100", "+14155550123", "a3f0c2d1-77aa-4b1e-9d0e-0000000000aa", "k1", "salesman@x.com", "annull@x.com",
]  # fmt: skip


@pytest.mark.parametrize("value", NOBODY)
def test_placeholders_test_entries_and_role_mailboxes_are_blocked_with_a_reason(value: str) -> None:
    assert blocked_why("email", pa.array([value]), Blocked()).to_pylist()[0] in SHIPPED.values()


def test_real_values_are_left_alone_also_short_numbers_and_example_domains() -> None:
    assert dict(
        zip(SOMEBODY, blocked_why("email", pa.array(SOMEBODY), Blocked()).to_pylist(), strict=True)
    ) == dict.fromkeys(SOMEBODY)


def test_a_project_adds_its_own_and_may_do_without_the_shipped_list() -> None:
    own = Blocked(values=["Kiosk@example.com"], patterns=[r"till[0-9]+@.*"])
    values = pa.array(["KIOSK@example.com", "till7@example.com", "xtill7@example.com", "test@example.com", None])
    assert blocked_why("email", values, own).to_pylist() == [
        "listed by the project", "matches the project's pattern till[0-9]+@.*", None, "test entry", None,
    ]  # fmt: skip
    assert blocked_why("email", values, own.model_copy(update={"shipped": False})).to_pylist()[3] is None
    assert blocked_why("email", values, Blocked(shipped=False)).null_count == 5


def test_a_pattern_this_engine_cannot_read_is_named() -> None:
    unchecked = Blocked.model_construct(values=[], patterns=["fine", "(till"], shipped=True)
    with pytest.raises(BlockedPatternError, match=r"identifier email: blocked\.patterns: '\(till' is not a regular"):
        blocked_why("email", pa.array(["a"]), unchecked)
