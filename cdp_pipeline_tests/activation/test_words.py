"""Reasons as whoever asks about one person reads them; the short forms stay what the ledger holds."""

from __future__ import annotations

import pytest

from cdp_pipeline.activation.words import in_words


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("gate: consent: marketing: denied", "said no to 'marketing'"),
        ("gate: consent: marketing: unknown", "never said yes to 'marketing', and silence is not a yes"),
        (
            "gate: consent: marketing: not given",
            "never said yes to 'marketing', and where they live, silence is a no",
        ),
        ("gate: permission: sms: denied", "said no to being contacted by sms"),
        ("gate: permission: email: unknown", "never allowed being contacted by email, and silence is not a yes"),
        ("gate: suppressed: erasure", "erased at their own request"),
        ("gate: suppressed: bounce", "a message to this address came back"),
        ("gate: control group: year", "left out on purpose, to compare with: control group 'year'"),
        ("gate: frequency cap: 3 in 7 days", "has had 3 in 7 days, which is the most anybody gets"),
        (
            "gate: frequency cap: 3 in 7 days, something else goes first",
            "at most 3 in 7 days, and something more important goes first",
        ),
        ("gate: quiet hours", "quiet hours where they are"),
        ("gate: budget: 250 GBP in 1 days", "the budget is spent: 250 GBP in 1 days"),
        ("guard: unless", "the trigger's own `unless:` holds for them"),
        ("guard: unless, unhappy", "kept by guard unhappy, and the trigger's own `unless:` holds for them"),
        ("guard: open_ticket, unhappy", "kept by guard open_ticket, unhappy"),
        ("cool-down", "it acted for them not long ago, and its cool_down is not over"),
        ("gate: nobody has this id any more", "nobody has this id any more"),
        ("dry run; it would wait: gate: quiet hours", "it would wait: quiet hours where they are"),
        ("HTTP 503", "HTTP 503"),
        ("no 'email'", "no 'email'"),
    ],
)
def test_a_reason_is_told_in_words_that_need_no_key(reason: str, words: str) -> None:
    assert in_words(reason) == words
