"""`python -m cdp_pipeline.cli` is `cdp`."""

from cdp_pipeline.cli import main

main()
