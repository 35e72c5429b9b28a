"""What is wrong with the tables a sync is made from: audiences older than they may be, and checks that failed.

A plan made from them is held; which plans those are is activation/sync.py's.
"""

from collections.abc import Iterable
from datetime import datetime

import dagster as dg

from cdp_pipeline.orchestration.audiences import freshness_of
from cdp_pipeline.orchestration.evaluations import last_evaluation
from cdp_pipeline.orchestration.stale import last_made
from cdp_pipeline.spec.base import duration_text
from cdp_pipeline.spec.project import Project

GROUPS = ("identity", "profile", "traits")
"""Of these, a failed check concerns every audience; of the audiences, only its own."""


def wrong_upstream(
    project: Project, now: datetime, instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey]
) -> dict[str, list[str]]:
    """By sync, why a plan made now should be looked at: a stale audience, a failed check that is an error."""
    audiences = {("audiences", sync.audience) for sync in project.syncs.values()}
    concern = [key for key in checks if key.asset_key.path[0] in GROUPS or tuple(key.asset_key.path) in audiences]
    made, failed = last_made(project, instance), [key for key in sorted(concern, key=str) if _failed(instance, key)]
    found: dict[str, list[str]] = {}
    for sync in project.syncs.values():
        limit = freshness_of(project, project.audiences[sync.audience])
        stale = sync.audience in made and now - made[sync.audience].at > limit
        own = ["audiences", sync.audience]
        reasons = [f"audience '{sync.audience}' is older than {duration_text(limit)}"] if stale else []
        reasons += [
            f"check '{key.name}' of {key.asset_key.to_user_string()} failed"
            for key in failed
            if key.asset_key.path[0] in GROUPS or list(key.asset_key.path) == own
        ]
        if reasons:
            found[sync.name] = reasons
    return found


def _failed(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> bool:
    evaluation = last_evaluation(instance, key)
    return evaluation is not None and not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR
