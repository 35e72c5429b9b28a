"""Full copies become history: as of the moment of any copy, exactly that copy."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cdp_pipeline.lake import Lake, open_lake
from cdp_pipeline.sources.errors import FileUnreadableError
from cdp_pipeline.sources.quarantine import replay
from cdp_pipeline.sources.tables import source_table
from cdp_pipeline.spec.project import LakeLocation
from cdp_pipeline.spec.source import Source
from cdp_pipeline_tests.sources.projects import NOW, ledger, loaded, project, quarantine, rows, source

Copy = dict[str, str]


def contacts(path: Path | str) -> Source:
    columns = {"id": {"type": "string"}, "tier": {"type": "string", "checks": [{"accepted": ["a", "b", "c"]}]}}
    return source("contacts", files=str(path), mode="snapshot", grain=["id"], occurred_at=None, columns=columns)


def write(path: Path, copy: Copy) -> None:
    path.write_text("id,tier\n" + "".join(f"{id},{tier}\n" for id, tier in copy.items()))


def last_moment(day: int) -> datetime:
    return datetime(2024, 5, day) + timedelta(days=1, microseconds=-1)


def as_of(lake: Lake, one: Source, moment: datetime) -> Copy:
    versions = lake.read(source_table(one))
    valid = versions.filter(
        (versions._valid_from <= moment) & (versions._valid_to.isnull() | (versions._valid_to > moment))
    )
    found = valid.select("id", "tier").to_pyarrow().to_pylist()
    assert len({row["id"] for row in found}) == len(found), "one version at a time"
    return {row["id"]: row["tier"] for row in found}


copies = st.lists(
    st.dictionaries(st.sampled_from("123456"), st.sampled_from("abc"), min_size=1, max_size=6), min_size=1, max_size=5
)


@settings(
    max_examples=4,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(
    copies=copies,
    at_once=st.booleans(),
    corrected=st.none() | st.dictionaries(st.sampled_from("123456"), st.sampled_from("abc"), min_size=1),
)
def test_as_of_any_copy_the_history_is_that_copy(
    tmp_path_factory: pytest.TempPathFactory, copies: list[Copy], at_once: bool, corrected: Copy | None
) -> None:
    folder = tmp_path_factory.mktemp("copies")
    one = contacts(folder / "{day}.csv")
    with open_lake(LakeLocation(path=str(folder / "lake"))) as lake:
        for day, copy in enumerate(copies, start=1):
            write(folder / f"2024-05-0{day}.csv", copy)
            if not at_once:
                loaded(lake, one, now=NOW + timedelta(minutes=day))
        loaded(lake, one, now=NOW + timedelta(hours=1))
        if corrected is not None:
            copies[-1] = corrected
            write(folder / f"2024-05-0{len(copies)}.csv", corrected)
            loaded(lake, one, now=NOW + timedelta(hours=2))
        for day, copy in enumerate(copies, start=1):
            assert as_of(lake, one, last_moment(day)) == copy
            assert as_of(lake, one, last_moment(day + 1) - timedelta(microseconds=1)) == copy
        before = lake.latest()
        assert loaded(lake, one, now=NOW + timedelta(hours=3)).loads == []
        assert lake.latest() == before


def test_versions_are_only_written_where_something_changed(lake: Lake, tmp_path: Path) -> None:
    one = contacts(tmp_path / "{day}.csv")
    write(tmp_path / "2024-05-01.csv", {"1": "a", "2": "a"})
    loaded(lake, one)
    write(tmp_path / "2024-05-02.csv", {"1": "a", "2": "b", "3": "c"})
    report = loaded(lake, one, now=NOW + timedelta(hours=1))
    assert (report.inserted, report.updated) == (2, 1)
    first, second = last_moment(1), last_moment(2)
    assert rows(lake, one, "id", "tier", "_valid_from", "_valid_to", "_day") == [
        ("1", "a", first, None, date(2024, 5, 1)),
        ("2", "a", first, second, date(2024, 5, 1)),
        ("2", "b", second, None, date(2024, 5, 2)),
        ("3", "c", second, None, date(2024, 5, 2)),
    ]


def test_an_older_copy_that_comes_late_leaves_history_alone(lake: Lake, tmp_path: Path) -> None:
    one = contacts(tmp_path / "{day}.csv")
    write(tmp_path / "2024-05-03.csv", {"1": "c"})
    loaded(lake, one)
    write(tmp_path / "2024-05-02.csv", {"1": "b", "2": "b"})
    loaded(lake, one, now=NOW + timedelta(hours=1))
    assert rows(lake, one, "id", "tier", "_valid_to") == [("1", "c", None)]
    assert [row["status"] for row in ledger(lake)] == ["loaded", "superseded"]
    assert loaded(lake, one, now=NOW + timedelta(hours=2)).loads == []


def test_a_row_that_is_set_aside_is_not_taken_for_removed(lake: Lake, tmp_path: Path) -> None:
    one = contacts(tmp_path / "{day}.csv")
    write(tmp_path / "2024-05-01.csv", {"1": "a", "2": "a", "3": "a"})
    loaded(lake, one)
    write(tmp_path / "2024-05-02.csv", {"1": "a", "2": "broken"})
    loaded(lake, one, now=NOW + timedelta(hours=1))
    assert as_of(lake, one, last_moment(2)) == {"1": "a", "2": "a"}
    (tmp_path / "2024-05-03.csv").write_text("id,tier\n1,b\n,a\n")
    report = loaded(lake, one, now=NOW + timedelta(hours=2))
    assert as_of(lake, one, last_moment(3)) == {"1": "b", "2": "a"}
    assert "no row was taken for removed" in report.loads[0].message


def test_a_replayed_row_takes_its_place_in_the_newest_copy_only(lake: Lake, tmp_path: Path) -> None:
    one = contacts(tmp_path / "{day}.csv")
    write(tmp_path / "2024-05-01.csv", {"1": "a", "2": "a"})
    loaded(lake, one)
    for day in (2, 3):
        write(tmp_path / f"2024-05-0{day}.csv", {"1": f"d{day}", "2": "a"})
        loaded(lake, one, now=NOW + timedelta(hours=day))
    report = replay(lake, one, project(one), NOW + timedelta(hours=5), patch={"tier": "c"})
    assert (report.waiting, report.accepted, report.superseded) == (2, 1, 1)
    assert rows(lake, one, "id", "tier", "_valid_from", "_valid_to") == [
        ("1", "a", last_moment(1), last_moment(3)),
        ("1", "c", last_moment(3), None),
        ("2", "a", last_moment(1), None),
    ]
    assert all(row["replayed_at"] is not None for row in quarantine(lake))


def test_a_copy_without_rows_is_not_believed(lake: Lake, tmp_path: Path) -> None:
    one = contacts(tmp_path / "{day}.csv")
    write(tmp_path / "2024-05-01.csv", {"1": "a"})
    loaded(lake, one)
    write(tmp_path / "2024-05-02.csv", {})
    with pytest.raises(FileUnreadableError, match="that everything is gone is not believed"):
        loaded(lake, one, now=NOW + timedelta(hours=1))
    assert rows(lake, one, "id", "_valid_to") == [("1", None)]


def test_the_parts_of_one_copy_are_one_whole(lake: Lake, tmp_path: Path) -> None:
    one = contacts(tmp_path / "{day}-*.csv")
    write(tmp_path / "2024-05-01-a.csv", {"1": "a"})
    write(tmp_path / "2024-05-01-b.csv", {"2": "a"})
    loaded(lake, one)
    write(tmp_path / "2024-05-01-b.csv", {"2": "b"})
    report = loaded(lake, one, now=NOW + timedelta(hours=1))
    assert as_of(lake, one, last_moment(1)) == {"1": "a", "2": "b"}
    assert report.total("read") == 2
    (tmp_path / "2024-05-02-a.csv").write_bytes(b"")
    write(tmp_path / "2024-05-02-b.csv", {"2": "c"})
    with pytest.raises(FileUnreadableError, match=r"its copy is not whole without .*2024-05-02-a.csv"):
        loaded(lake, one, now=NOW + timedelta(hours=2))
    assert as_of(lake, one, last_moment(2)) == {"1": "a", "2": "b"}


def test_a_file_without_a_day_is_a_copy_of_now(lake: Lake, tmp_path: Path) -> None:
    one = contacts(tmp_path / "contacts.csv")
    write(tmp_path / "contacts.csv", {"1": "a"})
    loaded(lake, one)
    write(tmp_path / "contacts.csv", {"1": "b"})
    loaded(lake, one, now=NOW + timedelta(days=1))
    assert rows(lake, one, "tier", "_valid_from", "_valid_to") == [
        ("a", datetime(2024, 6, 1, 12), datetime(2024, 6, 2, 12)),
        ("b", datetime(2024, 6, 2, 12), None),
    ]


def test_a_copy_of_a_day_that_is_not_over_stands_for_now(lake: Lake, tmp_path: Path) -> None:
    one = contacts(tmp_path / "{day}.csv")
    write(tmp_path / "2024-06-01.csv", {"1": "a"})
    loaded(lake, one, now=datetime(2024, 6, 1, 9, tzinfo=UTC))
    assert rows(lake, one, "_valid_from", "_day") == [(datetime(2024, 6, 1, 9), date(2024, 6, 1))]
