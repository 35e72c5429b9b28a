"""The Dagster code location: the declared project, built. Everything else is in orchestration/."""

from cdp_pipeline.orchestration.build import build_defs
from cdp_pipeline.spec.load import load_project, project_folder

defs = build_defs(load_project(project_folder()))
