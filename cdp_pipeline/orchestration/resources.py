"""What a run is given: the open lake and the clock. Both can be overridden, which is how tests hold time still."""

from collections.abc import Iterator

import dagster as dg

from cdp_pipeline.lake import Lake
from cdp_pipeline.orchestration.installation import lake_of
from cdp_pipeline.spec.project import Project
from cdp_pipeline.traits.once import Once

RESOURCES = {"lake", "clock"}
"""What every asset asks Dagster for."""


@dg.resource(required_resource_keys={"lake"}, description="Traits that several assets of a run ask for.")
def traits_once(context: dg.InitResourceContext) -> Once:
    """What assets of one run ask of the same people, computed once and kept on the run's lake."""
    return Once(context.resources.lake.engine.kept)


def lake_resource(project: Project) -> dg.ResourceDefinition:
    """The lake, opened once per run and pinned to the version it had then, so that all assets of a run see one."""

    @dg.resource(description="The lake: every table of the project, at one version per run.")
    def lake(_context: dg.InitResourceContext) -> Iterator[Lake]:
        with lake_of(project) as opened:
            yield opened

    return lake
