"""`cdp consent` and `cdp suppress`: what somebody permits, their word written down, and an end to all contact."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cdp_pipeline.cli import app
from cdp_pipeline.consent.ledger import ConsentError
from cdp_pipeline.identity.people import IDENTIFIERS, PEOPLE
from cdp_pipeline.lake import Mirror, Note, open_lake
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline_tests.activation.test_fire import rows

PROJECT = """
kind: project
name: shop
description: A shop.
first_day: 2026-01-01
lake: {path: LAKE}
---
{kind: identifier, name: email, description: Address.}
---
{kind: identifier, name: phone, description: Number.}
---
kind: consent
name: consent
description: Who permits what.
purposes:
  marketing: {description: Offers.}
  service: {description: Letters about orders., default: yes}
channels: {email: {purposes: [marketing]}}
"""
Command = Callable[..., Any]


@pytest.fixture
def cdp(tmp_path: Path) -> Command:
    (tmp_path / "project.yaml").write_text(PROJECT.replace("LAKE", str(tmp_path / "lake")))
    at = datetime(2026, 1, 2)
    with open_lake(LakeLocation(path=str(tmp_path / "lake"))) as lake:
        people = [
            {"person_id": "p1", "kind": "known", "identifiers": 2, "created_at": at},
            {"person_id": "p0", "kind": "known", "identifiers": 0, "created_at": at, "merged_into": "p1"},
        ]
        known = {"person_id": "p1", "status": "ok", "first_seen": at, "last_seen": at}
        addresses = [
            known | {"type": "email", "value": "ann@example.com", "id": 1},
            known | {"type": "phone", "value": "+441", "id": 2},
        ]
        note = Note(run_id="test", asset="test", partition=None)
        lake.publish(
            Mirror(PEOPLE, rows(PEOPLE, *people)), Mirror(IDENTIFIERS, rows(IDENTIFIERS, *addresses)), note=note
        )

    def run(*words: str) -> Any:
        done = CliRunner().invoke(app, [*words, "--project", str(tmp_path)], catch_exceptions=True)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.stdout

    return run


def may(cdp: Command, person: str) -> dict[str, bool]:
    shown = json.loads(cdp("consent", "show", person, "--json"))
    return {row["about"]: row["may"] for row in shown["may"]}


def test_a_word_given_to_us_holds_for_the_whole_person_whatever_they_are_called_by(cdp: Command) -> None:
    assert may(cdp, "p1") == {"purpose:marketing": False, "purpose:service": True, "channel:email": False}
    assert "2 identifiers" in cdp("consent", "grant", "email:ann@example.com", "marketing", "--proof", "letter 7")
    cdp("consent", "grant", "p0", "email", "--by", "desk")
    everything = {"purpose:marketing": True, "purpose:service": True, "channel:email": True}
    assert [may(cdp, who) for who in ("p0", "p1", "phone:+441")] == [everything] * 3
    cdp("consent", "revoke", "phone:+441", "marketing")
    assert may(cdp, "email:ann@example.com") == everything | {"purpose:marketing": False}
    shown = json.loads(cdp("consent", "show", "p1", "--json"))
    assert shown["person_id"] == "p1"
    assert [(row["about"], row["decision"], row["proof"]) for row in shown["history"]][:2] == [
        ("purpose:marketing", "granted", "letter 7")
    ] * 2
    assert "by:desk" in {row["source"] for row in shown["history"]}


def test_who_is_suppressed_is_so_under_every_identifier_until_it_is_lifted(cdp: Command) -> None:
    cdp("suppress", "email:ann@example.com", "--channel", "email")
    shown = json.loads(cdp("consent", "show", "p1", "--json"))
    assert [(row["channel"], row["reason"]) for row in shown["suppressed"]] == [("email", "manual")] * 2
    cdp("consent", "grant", "p1", "email")
    assert may(cdp, "p1")["channel:email"] is False
    assert "nothing to lift (manual) for 2 identifiers of p1" in cdp("suppress", "p1", "--channel", "sms", "--lift")
    assert "no longer suppressed (manual) for 2 identifiers of p1" in cdp("suppress", "p1", "--lift")
    assert json.loads(cdp("consent", "show", "p1", "--json"))["suppressed"] == []
    assert may(cdp, "p1")["channel:email"] is True
    assert "all contact suppressed (erasure) for 2 identifiers of p1" in cdp("suppress", "p1", "--reason", "erasure")
    assert not any(may(cdp, "p1").values())
    with pytest.raises(ConsentError, match="for good"):
        cdp("suppress", "p1", "--reason", "erasure", "--lift")


def test_an_address_nobody_was_seen_with_yet_can_be_suppressed_before_it_comes(cdp: Command) -> None:
    assert "for 1 identifier that nobody has yet" in cdp("suppress", "email:carl@example.com")
    shown = json.loads(cdp("consent", "show", "email:carl@example.com", "--json"))
    assert (shown["person_id"], len(shown["suppressed"])) == (None, 1)


def test_a_purpose_nobody_declared_is_named_with_its_neighbour(cdp: Command) -> None:
    with pytest.raises(Exception, match="did you mean 'marketing'"):
        cdp("consent", "grant", "p1", "marketting")
