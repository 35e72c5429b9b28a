"""What the assets of activation say of the demo company's syncs, triggers, guards and contacts."""

from __future__ import annotations

from cdp_pipeline.activation.declared import guards_in_words, policy_in_words, syncs_in_words, triggers_in_words
from cdp_pipeline.spec.load import load_project, project_folder

DEMO = load_project(project_folder())


def test_every_sync_trigger_and_guard_is_listed_with_what_it_is_for_and_whether_it_is_a_dry_run() -> None:
    for said, declared in (
        (syncs_in_words(DEMO), DEMO.syncs),
        (triggers_in_words(DEMO), DEMO.triggers),
        (guards_in_words(DEMO), DEMO.guards),
    ):
        lines = said.splitlines()[2:]
        assert len(lines) == len(declared) > 0
        for line, (name, one) in zip(lines, declared.items(), strict=True):
            assert line.startswith(f"- **{name}**: {one.description.rstrip('.')} (")
    assert "(audience worth_a_call, to crm_tasks (dry run))." in syncs_in_words(DEMO)
    assert "(to mailbox (dry run), ops_webhook (dry run))." in triggers_in_words(DEMO)
    assert "(for what is done for marketing, contract)." in guards_in_words(DEMO)


def test_the_rules_of_contact_are_told_with_their_figures() -> None:
    assert policy_in_words(DEMO).splitlines()[2:] == [
        "- at most 3 in 7 days by email, of marketing",
        "- at most 6 in 30 days, of marketing",
        "- nothing from 21:00 to 08:00 by sms",
        "- nothing from 20:00 to 09:00 by phone, of marketing",
        "- 2% are left out to compare with: everything_2026, of marketing",
        "- at most 250 GBP in 1 day by sms",
    ]
