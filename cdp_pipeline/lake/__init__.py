"""Where tables live and what computes them: snapshots, changes, atomic publishing, engines. Knows no customers."""

from cdp_pipeline.lake.lake import Lake, open_lake
from cdp_pipeline.lake.publish import Counts, Mirror, Note, Published, Upsert
from cdp_pipeline.lake.table import Column, Table
from cdp_pipeline.lake.view import LakeView

__all__ = ["Column", "Counts", "Lake", "LakeView", "Mirror", "Note", "Published", "Table", "Upsert", "open_lake"]
