"""A delivery is complete when its files have settled, its manifest is kept, or its marker is there."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.landing.completeness import awaited, needs_listed, read_listed
from batch_pipelines.engine.landing.deliveries import scan
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support_s3 import Store

SETTLE = 10.0


class Landing:
    """Landing of one feed with a delivery `k`, in a folder or a bucket."""

    def __init__(self, prefix: str, root: Path, put: Callable[[str, str], None]) -> None:
        self._prefix, self._root, self._put = prefix, root, put

    def put(self, **files: str) -> None:
        """Put files, with `__` for the dot of their names."""
        for name, text in files.items():
            self._put(f"in/k/{name.replace('__', '.')}", text)

    def awaited(self, complete: object, *, after: float = 0.0) -> str | None:
        """Say what the delivery waits for, so many seconds after it was last changed."""
        path = f"{self._prefix}in/{{batch}}/*.csv"
        source = {"path": path, "settle_seconds": SETTLE, "complete": complete}
        feed = feed_of({"public.t": "*"}, source=source)
        delivery = scan(feed, self._root)["k"]
        listed = read_listed(delivery) if needs_listed(delivery, feed.source) else None
        now = delivery.newest_change + after
        return awaited(delivery, feed.source, now=now, listed=listed)


@pytest.fixture(params=["folder", "bucket"])
def landing(request: pytest.FixtureRequest, tmp_path: Path) -> Landing:
    if request.param == "folder":

        def put(path: str, text: str) -> None:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)

        return Landing("", tmp_path, put)
    store: Store = request.getfixturevalue("store")
    return Landing(f"s3://{store.bucket}/", tmp_path, store.put)


def test_settled_is_unchanged_for_so_long(landing: Landing) -> None:
    landing.put(a__csv="1")
    assert landing.awaited("settled", after=9.9) == "it has not been unchanged for 10 seconds"
    assert landing.awaited("settled", after=10) is None
    why = landing.awaited("settled", after=-3600)
    assert why == "it was changed 3,600 seconds from now: set the clocks right"


def test_an_old_time_of_its_content_makes_no_file_settled(tmp_path: Path) -> None:
    """Given tar or rsync, which set times as they were elsewhere, the rest may be on its way."""
    path = tmp_path / "in/k/a.csv"
    path.parent.mkdir(parents=True)
    path.write_text("1")
    os.utime(path, (1000, 1000))
    feed = feed_of({"public.t": "*"}, source={"path": "in/{batch}/*.csv", "settle_seconds": 60})
    delivery = scan(feed, tmp_path)["k"]
    assert awaited(delivery, feed.source, now=time.time()) is not None
    assert awaited(delivery, feed.source, now=time.time() + 60) is None


def test_a_manifest_is_waited_for_with_all_that_it_lists(landing: Landing) -> None:
    landing.put(a__csv="1")
    missing = "its manifest is not there (manifest.csv or manifest.json)"
    assert landing.awaited("manifest", after=3600) == missing
    landing.put(manifest__csv="file_name,size\na.csv,1\nb.csv,2\n")
    assert landing.awaited("manifest", after=3600) == "'b.csv' of its manifest is not there"
    landing.put(b__csv="2")
    half = "'b.csv' does not have the size that its manifest says"
    assert landing.awaited("manifest", after=3600) == half
    landing.put(b__csv="22")
    assert landing.awaited("manifest") is None


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        ("file_name\na.csv\n", "its manifest does not tell all sizes, and it has not been"),
        ("file_name,size\nb.csv,1\n", "it has files that its manifest does not list, and it has"),
        ("file_na", "its manifest cannot be read yet: "),
    ],
)
def test_what_a_manifest_leaves_open_must_have_settled(
    landing: Landing, manifest: str, why: str
) -> None:
    """What is still wrong then fails the batch, which says so."""
    landing.put(a__csv="1", b__csv="2")
    landing.put(manifest__csv=manifest)
    assert str(landing.awaited("manifest", after=9)).startswith(why)
    assert landing.awaited("manifest", after=10) is None


def test_a_bag_is_complete_when_it_is_whole(tmp_path: Path) -> None:
    feed = feed_of(
        {"public.t": "*"}, source={"path": "in/{batch}/data/*.csv", "complete": "manifest"}
    )
    bag = tmp_path / "in/k"
    (bag / "data").mkdir(parents=True)
    (bag / "data/a.csv").write_text("1")
    (bag / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n")

    def now() -> str | None:
        delivery = scan(feed, tmp_path)["k"]
        return awaited(
            delivery, feed.source, now=delivery.newest_change, listed=read_listed(delivery)
        )

    lines = [f"{'0' * 64}  data/{name}.csv\n" for name in "ab"]
    (bag / "manifest-sha256.txt").write_text("".join(lines))
    assert "data/b.csv is listed but was not delivered" in str(now())
    (bag / "data/b.csv").write_text("2")
    assert now() is None


def test_a_marker_is_waited_for(landing: Landing) -> None:
    landing.put(a__csv="1")
    complete = {"marker": "_SUCCESS"}
    assert landing.awaited(complete, after=3600) == "its marker _SUCCESS is not there"
    landing.put(_SUCCESS="")
    assert landing.awaited(complete) is None


def test_the_marker_of_an_earlier_delivery_does_not_tell_of_its_correction(tmp_path: Path) -> None:
    """Given a marker that is older than the data, the data must have settled."""
    path = tmp_path / "in/k"
    path.mkdir(parents=True)
    (path / "_SUCCESS").touch()
    time.sleep(0.02)
    (path / "a.csv").write_text("corrected")
    source = {"path": "in/{batch}/*.csv", "complete": {"marker": "_SUCCESS"}}
    feed = feed_of({"public.t": "*"}, source=source)
    delivery = scan(feed, tmp_path)["k"]
    why = awaited(delivery, feed.source, now=delivery.newest_change)
    assert str(why).startswith("a.csv is newer than its marker _SUCCESS, and it has not been")
    assert awaited(delivery, feed.source, now=delivery.newest_change + 10) is None
