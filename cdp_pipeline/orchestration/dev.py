"""`cdp dev`: Dagster's UI and daemon on the project, with a home that lasts; Ctrl-C ends both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from cdp_pipeline.orchestration.installation import prepare_dagster_home
from cdp_pipeline.spec.project import Project

WORKSPACE = (
    "load_from:\n  - python_module:\n      module_name: cdp_pipeline.definitions\n      location_name: cdp_pipeline\n"
)


def dev_command(project: Project, port: int) -> list[str]:
    """The command that serves the project; writes the workspace file it names."""
    workspace = prepare_dagster_home(project) / "workspace.yaml"
    workspace.write_text(WORKSPACE)
    return [
        sys.executable, "-m", "dagster", "dev", "--workspace", str(workspace),
        "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning",
    ]  # fmt: skip


def dev(project: Project, folder: Path, port: int) -> int:
    """Serve until interrupted; the exit code of Dagster."""
    command = dev_command(project, port)
    # Where a shell started us in the background, SIGINT is ignored, and Dagster would inherit that and never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A group of its own, so that Ctrl-C reaches Dagster once, through us: it ends its children itself, in seconds; a
    # code server that heard it too would be started anew before the rest is down.
    process = subprocess.Popen(command, env={**os.environ, "CDP_PROJECT": str(folder)}, start_new_session=True)

    def end(*_: object) -> None:
        process.send_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, end)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            end()
