"""Identifier values that name nobody: placeholders, test entries and mailboxes of a role, with the reason of each.

The shipped list and a project's own values and patterns are applied alike; nothing here drops a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from cdp_pipeline.spec.identifier import Blocked

ROLE = "mailbox of a role"
# Patterns match the whole value, any case, in RE2. Real customer numbers may be short or repetitive (1, 777), so digits
# only count as placeholders when they are long or written as a phone number. Example domains are left alone.
SHIPPED: dict[str, str] = {
    r"\s*": "empty",
    r"null|nil|none|nan|n/?a|undefined|unknown|not[ _-]?(set|provided|available|given)|\(not set\)|missing|void": (
        "means no value"
    ),
    r"-1|[-?.x*#]+": "means no value",
    r"anon|anonymous|guest|visitor|default": "names nobody",
    r"test|tests|tester|testing|dummy|foo|bar|asdf+|qwerty": "test entry",
    r"\+?[0-]+": "all zeros",
    r"\+\d{1,3}(0{6,}|1{6,}|2{6,}|3{6,}|4{6,}|5{6,}|6{6,}|7{6,}|8{6,}|9{6,})": "one digit repeated",
    r"(1{9,}|2{9,}|3{9,}|4{9,}|5{9,}|6{9,}|7{9,}|8{9,}|9{9,})|[f-]{16,}": "one digit repeated",
    r"\+\d{0,3}(0?1234567(8|89|890)?|9876543(2|21|210)?)": "placeholder phone",
    r"(no[._-]?reply|do[._-]?not[._-]?reply|mailer-daemon|postmaster|bounces?)([+._-].*)?@.*": "mailbox nobody reads",
    r"(none|null|nobody|nomail|no[._-]?e?mail|unknown|anonymous|guest|undefined|xxx+|asdf+)@.*": ("means no value"),
    r"(test|tests|tester|testing|dummy|foo|bar)@.*": "test entry",
    r"(info|office|contact|hello|admin|administrator|webmaster|hostmaster|root|abuse|sales|support|service|help|"
    r"helpdesk|billing|accounts?|reception|enquir(y|ies)|marketing|jobs|hr)@.*": ROLE,
    r".*@(localhost|invalid|nomail|noemail|none)(\..*)?": "means no value",
}


class BlockedPatternError(ValueError):
    """A pattern in a project's `blocked.patterns` is not a regular expression."""

    def __init__(self, identifier: str, pattern: str, reason: str) -> None:
        super().__init__(
            f"identifier {identifier}: blocked.patterns: '{pattern}' is not a regular expression (RE2): {reason}"
        )
        self.identifier, self.pattern = identifier, pattern


def blocked_why(identifier: str, values: pa.Array, blocked: Blocked) -> pa.Array:
    """For every value of one identifier type: why it is blocked, or null when it is not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    why = pa.nulls(len(values), pa.string())
    # First the project's own words, so that its reason is the one people read; the first rule that matches wins.
    if blocked.values:
        exact = pa.array([value.lower() for value in blocked.values], pa.string())
        why = pc.if_else(pc.is_in(pc.utf8_lower(values), value_set=exact), "listed by the project", why)
    for pattern, reason in _rules(blocked).items():
        why = pc.coalesce(why, pc.if_else(_match(identifier, pattern, values), reason, None))
    return why


def pattern_of(blocked: Blocked) -> str:
    """One expression (RE2, to be matched in any case) for all patterns that block; empty where there are none."""
    rules = _rules(blocked)
    return f"^(?:{'|'.join(f'(?:{pattern})' for pattern in rules)})$" if rules else ""


def _rules(blocked: Blocked) -> dict[str, str]:
    own = {pattern: f"matches the project's pattern {pattern}" for pattern in blocked.patterns}
    return {**own, **(SHIPPED if blocked.shipped else {})}


def _match(identifier: str, pattern: str, values: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return pc.match_substring_regex(values, f"^(?:{pattern})$", ignore_case=True)
    except pa.ArrowInvalid as reason:
        raise BlockedPatternError(identifier, pattern, str(reason)) from reason
