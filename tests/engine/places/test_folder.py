"""Folders as places: what is no file is passed over, and what is gone is not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.landing.deliveries import find_delivery, find_keys
from batch_pipelines.engine.places.folder import Folder
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "landing" / "k"
    (folder / "folder.csv").mkdir(parents=True)
    (folder / "nowhere.csv").symlink_to(tmp_path / "nothing")
    (tmp_path / "elsewhere").write_text("a")
    (folder / "link.csv").symlink_to(tmp_path / "elsewhere")
    (folder / "z.csv").write_text("z")
    (tmp_path / "landing" / "no-folder").write_text("a")
    found = Folder(tmp_path).files("landing/*", ["*.csv"])
    assert sorted(file.path for file in found) == ["landing/k/link.csv", "landing/k/z.csv"]
    assert list(Folder(tmp_path).files("nothing", ["*"])) == []


@pytest.mark.parametrize("root", ["a*b", "[ab]", "{batch}", "ü x"])
def test_the_name_of_the_root_is_no_pattern(tmp_path: Path, root: str) -> None:
    for folder in (root, "axb", "a"):
        (tmp_path / folder / "landing" / "k").mkdir(parents=True)
        (tmp_path / folder / "landing" / "k" / "a.csv").write_text(folder)
    feed = feed_of({"public.t": "*"}, source={"path": "landing/{batch}/*.csv"})
    assert find_keys(feed, tmp_path / root) == ["k"]
    delivery = find_delivery(feed, "k", tmp_path / root)
    assert delivery is not None
    (file,) = delivery.data
    with file.open() as reading:
        assert reading.read(100) == root.encode()


def test_a_path_may_begin_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "a.csv").write_text("a")
    feed = feed_of({"public.t": "*"}, source={"path": f"{tmp_path}/{{batch}}/*.csv"})
    assert find_keys(feed, tmp_path / "elsewhere") == ["k"]
    delivery = find_delivery(feed, "k", tmp_path / "elsewhere")
    assert delivery is not None
    assert str(delivery.data[0]) == str(tmp_path / "k" / "a.csv")


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_is_gone_is_said_to_have_changed(tmp_path: Path, when: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a")
    (file,) = Folder(tmp_path).files("", ["*"])
    if when == "before":
        path.unlink()
    with pytest.raises(DeliveryError, match=r"a\.csv: it changed while it was read"), file.open():
        path.unlink()
