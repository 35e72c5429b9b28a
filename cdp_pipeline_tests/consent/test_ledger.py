"""The consent ledger keeps hashes, not people, and finds them again only with its salt."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from cdp_pipeline.activation.ledger import Ledger, open_ledger
from cdp_pipeline.consent.ledger import (
    ConsentError,
    Said,
    Suppression,
    anything_suppressed,
    consent_events,
    open_consents,
    suppressions,
)
from cdp_pipeline_tests.activation.projects import NOW

ANN, HOUR = ("email", "ann@example.com"), timedelta(hours=1)


def said(number: int, decision: str, at: object = NOW) -> Said:
    return Said(f"e{number}", ANN, "purpose:marketing", decision, at, "web", "v1")  # type: ignore[arg-type]


def test_what_was_said_is_kept_without_the_address_it_was_said_for(tmp_path: Path) -> None:
    with open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
        consents = open_consents(ledger)
        consents.record([said(1, "granted")], NOW)
        consents.suppress([Suppression("s1", ANN, "erasure", NOW, "request")])
        with ledger.reading() as connection:
            rows = [*connection.execute(sa.select(consent_events)), *connection.execute(sa.select(suppressions))]
        assert len(rows) == 2
        assert "ann" not in repr(rows)
    on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"ann@example" not in on_disk


def test_the_same_word_counts_once_and_a_no_of_the_same_moment_wins(ledger: Ledger) -> None:
    consents = open_consents(ledger)
    assert consents.record([said(1, "denied"), said(2, "granted"), said(1, "denied")], NOW) == 2
    assert consents.record([said(1, "denied")], NOW) == 0
    assert consents.heard([ANN], ["purpose:marketing"], NOW)[ANN].decisions == {"purpose:marketing": "denied"}
    consents.record([said(3, "granted", NOW + HOUR)], NOW)
    assert consents.heard([ANN], ["purpose:marketing"], NOW + HOUR)[ANN].decisions == {"purpose:marketing": "granted"}
    assert consents.heard([("phone", ANN[1])], ["purpose:marketing"], NOW + HOUR) == {}


def test_a_salt_of_the_environment_is_not_kept_and_another_one_is_noticed(ledger: Ledger) -> None:
    open_consents(ledger, "pepper").record([said(1, "denied")], NOW)
    assert ANN in open_consents(ledger, "pepper").heard([ANN], ["purpose:marketing"], NOW)
    with pytest.raises(ConsentError, match="another salt"):
        open_consents(ledger, "paprika")
    with pytest.raises(ConsentError, match="CDP_CONSENT_SALT"):
        open_consents(ledger)


def test_a_suppression_is_lifted_but_never_an_erasure(ledger: Ledger) -> None:
    assert not anything_suppressed(ledger)
    consents = open_consents(ledger)
    assert not anything_suppressed(ledger)
    consents.suppress([Suppression("s1", ANN, "manual", NOW, "desk"), Suppression("s2", ANN, "erasure", NOW, "desk")])
    assert anything_suppressed(ledger)
    assert consents.lift([ANN], "manual", NOW + HOUR) == 1
    assert [reason for reason, _ in consents.heard([ANN], [], NOW)[ANN].suppressed] == ["manual", "erasure"]
    assert [reason for reason, _ in consents.heard([ANN], [], NOW + HOUR)[ANN].suppressed] == ["erasure"]
    with pytest.raises(ConsentError, match="for good"):
        consents.lift([ANN], "erasure", NOW)
