"""Loads DuckDB extensions without a network where it can. Which ones a lake needs is catalog.py's to say."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import duckdb

from cdp_pipeline.lake.errors import ExtensionError


def load(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Load by name, else from the installed wheel of DuckDB's own version, else install.

    The wheel comes before installing because many processes installing at once race for one file.
    """
    wheel = _wheel(name)
    attempts = [f"LOAD {name}", *([f"LOAD '{wheel}'"] if wheel else []), f"INSTALL {name}; LOAD {name}"]
    tried = []
    # Loading by name would otherwise ask the network first: half a second for each, and more where there is none.
    connection.execute("SET autoinstall_known_extensions = false")
    for attempt in attempts:
        try:
            connection.execute(attempt)
            return
        except (duckdb.IOException, duckdb.HTTPException, duckdb.InvalidInputException) as error:
            tried.append(f"{attempt}: {str(error).splitlines()[0]}")
    raise ExtensionError(
        f"DuckDB {duckdb.__version__} extension '{name}' could not be loaded. Install it with "
        f"pip install duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}. Tried:\n  " + "\n  ".join(tried)
    )


def _wheel(name: str) -> Path | None:
    module = find_spec(f"duckdb_extension_{name}")
    if module is None or module.origin is None:
        return None
    file = Path(module.origin).parent / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    return file if file.exists() else None
