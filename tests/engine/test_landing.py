"""What lies in landing is found by its feed's path, and told apart from what has been tried."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.landing import find_delivery, find_keys, new_deliveries, scan
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from pathlib import Path

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


def test_a_delivery_is_new_until_it_was_tried_or_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "a/a.csv", "b/a.csv", "c/a.csv", "d/a.csv")
    landed = scan(FEED, tmp_path)
    now = max(delivery.newest_mtime for delivery in landed.values()) + 100
    prints = {key: delivery.fingerprint for key, delivery in landed.items()}
    tried = {"a": prints["a"], "b": "of an earlier delivery", "d": None}
    asked = {"c": prints["c"]}
    found = new_deliveries(landed, tried, asked, now=now, settle_seconds=10)
    assert found == {"b": prints["b"], "d": prints["d"]}


def test_a_delivery_is_left_to_its_sender_until_it_has_settled(tmp_path: Path) -> None:
    put(tmp_path, "k/a.csv", "k/b.csv")
    os.utime(tmp_path / "landing/k/a.csv", (1000, 1000))
    os.utime(tmp_path / "landing/k/b.csv", (1050, 1050))
    landed = scan(FEED, tmp_path)
    assert new_deliveries(landed, {}, {}, now=1059, settle_seconds=10) == {}
    assert list(new_deliveries(landed, {}, {}, now=1060, settle_seconds=10)) == ["k"]
