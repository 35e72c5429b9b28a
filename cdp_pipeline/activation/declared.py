"""What a project declares about contacts, as a few lines of Markdown for whoever looks at the tables they lead to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from cdp_pipeline.spec.base import duration_text
from cdp_pipeline.spec.contact_policy import ContactPolicy
from cdp_pipeline.spec.project import Project


def syncs_in_words(project: Project) -> str:
    """Each sync: what it is for, of which audience, and where it goes."""
    return _listed(
        "Synchronised are",
        (
            (sync.name, sync.description, f"audience {sync.audience}, to {_where(project, sync.destination)}")
            for sync in project.syncs.values()
        ),
    )


def triggers_in_words(project: Project) -> str:
    """Each trigger: what happens and what follows, and where it goes."""
    return _listed(
        "Triggers",
        (
            (one.name, one.description, "to " + ", ".join(_where(project, act.destination) for act in one.do))
            for one in project.triggers.values()
        ),
    )


def guards_in_words(project: Project) -> str:
    """Each guard: whom it leaves alone, and from what."""
    return _listed(
        "Guards",
        (
            (one.name, one.description, f"for what is done for {', '.join(one.purposes)}")
            for one in project.guards.values()
        ),
    )


def policy_in_words(project: Project) -> str:
    """How often, when, and who is left out."""
    policy = project.contact_policy
    return "" if policy is None else "\n".join([policy.description, "", *(f"- {line}" for line in _rules(policy))])


def _rules(policy: ContactPolicy) -> Iterator[str]:
    for cap in policy.caps:
        yield f"at most {cap.most} in {_time(cap.within)}{_about(cap.channel, cap.purposes)}"
    for hours in policy.quiet_hours:
        yield f"nothing from {hours.from_:%H:%M} to {hours.to:%H:%M}{_about(hours.channel, hours.purposes)}"
    for group in policy.controls:
        named = [*group.purposes, *group.triggers, *group.syncs]
        yield f"{group.share:.0%} are left out to compare with: {group.name}{_about(None, named)}"
    for budget in policy.budgets:
        most = f"{budget.most} {budget.currency or ''}".strip()
        yield f"at most {most} in {_time(budget.within)}{_about(budget.channel, budget.purposes)}"


def _time(span: timedelta) -> str:
    text = duration_text(span)
    return text.removesuffix("s") if text.startswith("1 ") else text


def _about(channel: str | None, purposes: list[str]) -> str:
    return (f" by {channel}" if channel else "") + (f", of {', '.join(purposes)}" if purposes else "")


def _where(project: Project, destination: str) -> str:
    return f"{destination} (dry run)" if project.destinations[destination].dry_run else destination


def _listed(title: str, rows: Iterator[tuple[str, str, str]]) -> str:
    lines = [f"- **{name}**: {description.rstrip('.')} ({more})." for name, description, more in rows]
    return "\n".join([f"{title}:", "", *lines]) if lines else ""
