"""Where tables live and what computes them: snapshots, changes, atomic publishing, engines. Knows no customers."""

from cdp_pipeline.lake.lake import Lake, LakeView, open_lake
from cdp_pipeline.lake.publish import Counts, Mirror, Note, Published, Upsert
from cdp_pipeline.lake.table import Column, Table

__all__ = ["Column", "Counts", "Lake", "LakeView", "Mirror", "Note", "Published", "Table", "Upsert", "open_lake"]
