"""The demo company: a retailer generated day by day, with the truth about its people written beside the data.

`generate` is the way in. Nothing here is read by the pipeline itself, which only ever sees the files.
"""

from cdp_pipeline.sources.demo.generate import DemoSummary, FolderHoldsOtherFiles, generate

__all__ = ["DemoSummary", "FolderHoldsOtherFiles", "generate"]
