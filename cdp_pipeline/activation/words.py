"""A reason of the ledger as a marketer would say it. The ledger keeps the short form, which is what one groups by."""

from __future__ import annotations

import re

from cdp_pipeline.activation.turns import REFUSED

_NEVER = {"unknown": "silence is not a yes", "not given": "where they live, silence is a no"}
_EXCLUDED = {
    "erasure": "erased at their own request",
    "manual": "on the list of people we do not contact",
    "complaint": "they marked a message of ours as unwanted",
    "bounce": "a message to this address came back",
}
_WORDS = (
    (r"consent: (\w+): denied", "said no to '{0}'"),
    (r"consent: (\w+): (unknown|not given)", "never said yes to '{0}', and {1}"),
    (r"permission: (\w+): denied", "said no to being contacted by {0}"),
    (r"permission: (\w+): (unknown|not given)", "never allowed being contacted by {0}, and {1}"),
    (r"suppressed: (\w+)", "{0}"),
    (r"control group: (\w+)", "left out on purpose, to compare with: control group '{0}'"),
    (r"frequency cap: (\d+) in (.+), something else goes first",
     "at most {0} in {1}, and something more important goes first"),
    (r"frequency cap: (\d+) in (.+)", "has had {0} in {1}, which is the most anybody gets"),
    (r"quiet hours", "quiet hours where they are"),
    (r"budget: (.+)", "the budget is spent: {0}"),
    (r"guard: unless", "the trigger's own `unless:` holds for them"),
    (r"guard: unless, (.+)", "kept by guard {0}, and the trigger's own `unless:` holds for them"),
    (r"guard: (.+)", "kept by guard {0}"),
    (r"cool-down", "it acted for them not long ago, and its cool_down is not over"),
)  # fmt: skip


def in_words(reason: str) -> str:
    """What a reason means, for whoever asks about one person; those that are plain already stay as they are."""
    shown, comma, waits = reason.partition("dry run; it would wait: ")
    if comma and not shown:
        return f"it would wait: {in_words(waits)}"
    plain = reason.removeprefix(REFUSED)
    for pattern, words in _WORDS:
        found = re.fullmatch(pattern, plain)
        if found is not None:
            return words.format(*(_EXCLUDED.get(part, _NEVER.get(part, part)) for part in found.groups()))
    return plain
