"""What lies in landing is found by its feed's path."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.landing.deliveries import find_delivery, find_keys, look, scan
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed

FEED = feed_of({"public.t": "*"}, source={"path": "landing/{batch}/*.csv"})
SINGLE = feed_of({"public.t": "*"}, source={"path": "landing/t_{batch}.csv"})


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / "landing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_a_delivery_is_the_files_of_its_folder(tmp_path: Path) -> None:
    put(tmp_path, "k/b.csv", "k/a.csv", "k/notes.txt", "k/deeper/c.csv", "other/d.csv")
    delivery = find_delivery(FEED, "k", tmp_path)
    assert delivery is not None
    assert [path.name for path in delivery.data] == ["a.csv", "b.csv"]
    assert delivery.control == ()


def test_a_delivery_may_be_one_file(tmp_path: Path) -> None:
    put(tmp_path, "t_k.csv", "t_l.csv", "u_k.csv")
    delivery = find_delivery(SINGLE, "k", tmp_path)
    assert delivery is not None
    assert [path.name for path in delivery.data] == ["t_k.csv"]
    assert find_keys(SINGLE, tmp_path) == ["k", "l"]


def test_sidecars_and_manifest_are_the_senders_word_and_not_data(tmp_path: Path) -> None:
    put(tmp_path, "k/a.csv", "k/a.csv.crc32c", "k/manifest.csv", "k/gone.csv.crc32c")
    delivery = find_delivery(FEED, "k", tmp_path)
    assert delivery is not None
    assert [path.name for path in delivery.data] == ["a.csv"]
    assert [path.name for path in delivery.control] == ["a.csv.crc32c", "manifest.csv"]


def test_there_is_no_delivery_without_data(tmp_path: Path) -> None:
    put(tmp_path, "k/manifest.csv", "k/a.csv.crc32c", "k/notes.txt")
    assert find_delivery(FEED, "k", tmp_path) is None
    assert find_delivery(FEED, "none", tmp_path) is None
    assert find_keys(FEED, tmp_path) == []
    assert find_keys(FEED, tmp_path / "none") == []


def test_a_key_cannot_lead_out_of_landing(tmp_path: Path) -> None:
    put(tmp_path, "a.csv")
    with pytest.raises(DeliveryError, match="not a partition key"):
        find_delivery(FEED, "../landing", tmp_path)


def test_folders_whose_names_are_no_keys_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "2013-01/a.csv", ".hidden/a.csv", "a b/a.csv", "a..b/a.csv", "empty/notes.txt")
    assert find_keys(FEED, tmp_path) == ["2013-01"]
    assert list(scan(FEED, tmp_path)) == ["2013-01"]


@pytest.mark.parametrize("change", ["content", "time", "name", "sidecar", "manifest"])
def test_the_fingerprint_changes_with_any_file(tmp_path: Path, change: str) -> None:
    put(tmp_path, "k/a.csv")
    file = tmp_path / "landing" / "k" / "a.csv"
    before = scan(FEED, tmp_path)["k"].fingerprint
    assert scan(FEED, tmp_path)["k"].fingerprint == before
    match change:
        case "content":
            stat = file.stat()
            file.write_text("longer than it was")
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        case "time":
            os.utime(file, ns=(0, 1))
        case "name":
            file.rename(file.with_name("b.csv"))
        case "sidecar":
            put(tmp_path, "k/a.csv.crc32c")
        case "manifest":
            put(tmp_path, "k/manifest.csv")
    assert scan(FEED, tmp_path)["k"].fingerprint != before


def test_names_that_cannot_be_keys_are_told_and_drafts_are_not(tmp_path: Path) -> None:
    put(
        tmp_path,
        "good/a.csv",
        "a b/a.csv",
        "ü/a.csv",
        "_draft/a.csv",
        ".hidden/a.csv",
        "a note.txt",
    )
    (tmp_path / "landing" / os.fsdecode(b"\xff\n")).mkdir()
    landed = look(FEED, tmp_path)
    assert list(landed.deliveries) == ["good"]
    assert landed.no_keys == ("a b", "ü", "\udcff\n")
    put(tmp_path, "t_k.csv", "t_no key.csv", "t_no key.csv.crc32c", "t_.csv")
    assert look(SINGLE, tmp_path).no_keys == ("no key",)


def test_only_what_is_wanted_is_looked_at(tmp_path: Path) -> None:
    put(tmp_path, "a/a.csv", "b/a.csv", "t_a.csv", "t_b.csv", "t_b.csv.crc32c")
    for feed in (FEED, SINGLE):
        assert list(look(feed, tmp_path, lambda key: key == "b").deliveries) == ["b"]


def test_landing_that_is_not_there_is_told(tmp_path: Path) -> None:
    landed = look(FEED, tmp_path)
    assert landed.deliveries == {}
    (problem,) = landed.problems
    assert "landing'. Make it, or correct `source.path`." in problem
    put(tmp_path, "k/a.csv")
    assert look(FEED, tmp_path).problems == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_folder_that_may_not_be_read_is_told_and_the_others_are_read() -> None:
    with TemporaryDirectory() as name:
        root = Path(name)
        put(root, "good/a.csv", "shut/a.csv", "listed/a.csv")
        root.chmod(0o755)
        (root / "landing/shut").chmod(0o700)
        (root / "landing/listed").chmod(0o744)
        os.seteuid(65534)
        try:
            landed = look(FEED, root)
        finally:
            os.seteuid(0)
    assert list(landed.deliveries) == ["good"]
    listed, shut = sorted(landed.problems)
    assert "listed/a.csv' may not be looked at. Correct the permissions" in listed
    assert "shut' may not be looked into. Correct its permissions." in shut


def test_a_marker_is_no_data_and_not_in_the_fingerprint(tmp_path: Path) -> None:
    put(tmp_path, "k/a.csv", "t_k.csv", "t_l.csv")
    before = scan(FEED, tmp_path)["k"]
    in_folder = marked("landing/{batch}/*.csv", "done*.csv")
    assert scan(in_folder, tmp_path)["k"].marker is None
    put(tmp_path, "k/done-1.csv", "t_k.done")
    delivery = scan(in_folder, tmp_path)["k"]
    assert delivery.marker is not None
    assert delivery.marker.name == "done-1.csv"
    assert (delivery.data, delivery.fingerprint) == (before.data, before.fingerprint)
    beside = scan(marked("landing/t_{batch}.csv", "t_{batch}.done"), tmp_path)
    assert [key for key, one in beside.items() if one.marker is not None] == ["k"]


def marked(path: str, marker: str) -> Feed:
    return feed_of({"public.t": "*"}, source={"path": path, "complete": {"marker": marker}})
