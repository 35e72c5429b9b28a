"""Opening a lake: extensions, catalogs that do not answer, locks that do not come free, lakes that moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from cdp_pipeline.lake import Column, Mirror, Table, extensions, open_lake
from cdp_pipeline.lake.catalog import FolderCatalog, PostgresCatalog, locked
from cdp_pipeline.lake.errors import (
    CatalogUnreachableError,
    EngineError,
    ExtensionError,
    LakeBusyError,
    LakeMissingError,
)
from cdp_pipeline.spec.project import LakeLocation

TAGS = Table("shop.tags", "Tags.", {"tag": Column("string")}, key=("tag",))
ONE = pa.table({"tag": ["x"]})


def test_a_read_only_open_makes_no_lake(tmp_path: Path) -> None:
    with (
        pytest.raises(LakeMissingError, match="there is no lake here yet"),
        open_lake(LakeLocation(path=str(tmp_path / "lake")), read_only=True),
    ):
        pass
    assert not (tmp_path / "lake").exists()


def test_a_relative_folder_is_relative_to_the_base(tmp_path: Path) -> None:
    with open_lake(LakeLocation(path="data/my 'lake'"), base=tmp_path) as lake:
        lake.publish(Mirror(TAGS, ONE))
    assert (tmp_path / "data" / "my 'lake'" / "catalog.sqlite").exists()


def test_a_lake_that_was_moved_is_whole(tmp_path: Path) -> None:
    with open_lake(LakeLocation(path=str(tmp_path / "here"))) as lake:
        lake.publish(Mirror(TAGS, pa.table({"tag": [str(i) for i in range(5000)]})))
    shutil.move(tmp_path / "here", tmp_path / "there")
    with open_lake(LakeLocation(path=str(tmp_path / "there"))) as lake:
        assert lake.read(TAGS).count().to_pyarrow().as_py() == 5000
        assert lake.publish(Mirror(TAGS, ONE)).counts[TAGS.name].deleted == 5000


def test_two_lakes_are_open_at_once_in_one_process(tmp_path: Path) -> None:
    with (
        open_lake(LakeLocation(path=str(tmp_path / "a"))) as one,
        open_lake(LakeLocation(path=str(tmp_path / "b"))) as two,
    ):
        one.publish(Mirror(TAGS, ONE))
        assert one.exists(TAGS.name)
        assert not two.exists(TAGS.name)


def test_an_open_lake_leaves_nothing_of_itself_to_the_next(tmp_path: Path) -> None:
    with open_lake(LakeLocation(path=str(tmp_path / "a"))) as lake:
        lake.connection.execute("USE lake; BEGIN; CREATE TEMP TABLE mine AS SELECT 1 AS x")
    with open_lake(LakeLocation(path=str(tmp_path / "b"))) as lake:
        assert lake.connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'mine'").fetchone() == (
            0,
        )
        assert lake.publish(Mirror(TAGS, ONE)).snapshot == 1
    assert not list(tmp_path.glob("*/tmp/*"))


def test_a_catalog_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"not a database at all" * 100)
    with (
        pytest.raises(CatalogUnreachableError, match=r"catalog.sqlite: the catalog cannot be opened"),
        open_lake(LakeLocation(path=str(tmp_path))),
    ):
        pass


def test_a_postgres_that_is_down_is_named_without_its_password(tmp_path: Path) -> None:
    location = LakeLocation(catalog="postgresql+psycopg://me:secret@127.0.0.1:9/team", data=str(tmp_path))
    for read_only in (False, True):
        with (
            pytest.raises(CatalogUnreachableError, match=r"Postgres 127.0.0.1:9, database 'team'") as error,
            open_lake(location, read_only=read_only),
        ):
            pass
        assert "secret" not in str(error.value)


def test_a_password_is_not_shown_to_whoever_can_query_the_lake(postgres_url: str, tmp_path: Path) -> None:
    url = postgres_url.replace("postgres@", "postgres:secret@")
    with open_lake(LakeLocation(catalog=url, data=str(tmp_path))) as lake:
        for view in ("duckdb_databases()", "duckdb_secrets()", "duckdb_settings()"):
            assert "secret@" not in str(lake.connection.execute(f"FROM {view}").fetchall())
            assert "=secret" not in str(lake.connection.execute(f"FROM {view}").fetchall())


def test_a_lock_that_does_not_come_free_is_reported_and_nothing_is_written(tmp_path: Path) -> None:
    with open_lake(LakeLocation(path=str(tmp_path / "lake"))) as lake:
        lake.catalog = FolderCatalog(tmp_path / "lake", patience=0.1)
        with (
            locked(tmp_path / "lake" / "write.lock", patience=1),
            pytest.raises(LakeBusyError, match=r"another process kept writing for 0 s"),
        ):
            lake.publish(Mirror(TAGS, ONE))
        assert lake.publish(Mirror(TAGS, ONE)).snapshot == 1


def test_postgres_locks_tables_one_by_one(postgres_url: str, tmp_path: Path) -> None:
    catalog = PostgresCatalog(postgres_url, str(tmp_path), tmp_path, patience=0.1)
    with catalog.writing(["a.b"]):
        with catalog.writing(["a.c"]):
            pass
        for refused in (lambda: catalog.writing(["a.c", "a.b"]), catalog.alone):
            with pytest.raises(LakeBusyError):
                refused()
    with catalog.alone(), pytest.raises(LakeBusyError):
        catalog.writing(["a.c"])


def test_an_extension_that_is_nowhere_tells_what_was_tried() -> None:
    with pytest.raises(ExtensionError, match=r"pip install duckdb-extension-no-such==") as error:
        extensions.load(duckdb.connect(), "no_such")
    assert "LOAD no_such" in str(error.value)
    assert "INSTALL no_such" in str(error.value)


def test_an_engine_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with (
        open_lake(LakeLocation(path=str(tmp_path / "lake")), engine="sc://127.0.0.1:9") as lake,
        pytest.raises(EngineError, match=r"engine sc://127.0.0.1:9: Spark Connect does not answer"),
    ):
        lake.read(TAGS)
