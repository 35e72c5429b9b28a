"""What a check said the last time it was evaluated; what follows from it is others' business."""

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status


def last_evaluation(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    """The newest evaluation that has come to an end: a run under way has planned its own, which says nothing yet."""
    ended = {Status.SUCCEEDED, Status.FAILED}
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=ended)
    return records[0].evaluation if records else None
