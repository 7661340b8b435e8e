"""A delivery that comes as a bag is held against its payload manifests, and refused if not whole."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import bagit
import pytest

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.ledger import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

TABLE = "CREATE TABLE t (id int PRIMARY KEY, import_batch_id uuid)"
CONTENT = {"a.csv": "id\n1\n2\n", "b.csv": "id\n3\n"}


@pytest.fixture
def orders(site18: MakeSite) -> Site:
    return site18(TABLE, source={"path": "landing/{batch}/data/*.csv"})


def deliver(site: Site, checksums: Sequence[str] = ("sha256", "sha512")) -> Path:
    """Deliver a bag as its sender's tool makes it; gives its folder."""
    bag = site.landing()
    bag.mkdir(parents=True)
    for name, content in CONTENT.items():
        (bag / name).write_text(content)
    bagit.make_bag(str(bag), checksums=[*checksums])
    return bag


def test_the_files_of_a_bag_are_held_against_its_manifests(orders: Site) -> None:
    bag = deliver(orders)
    before = sorted((p, p.stat().st_mtime_ns) for p in bag.rglob("*"))
    batch = orders.run()
    assert batch.status == "SUCCESS"
    assert orders.count("SELECT count(*) FROM public.t") == 3
    compared = [
        (c.entity_id, c.digest_algorithm, c.computed_digest, c.expected_source, c.status)
        for c in files.checksums(orders.connection, batch.batch_id)
        if c.digest_algorithm
    ]
    assert sorted(compared) == [
        (name, algorithm, hashlib.new(algorithm, text.encode()).hexdigest(), "manifest", "valid")
        for name, text in CONTENT.items()
        for algorithm in ("sha256", "sha512")
    ]
    # Nothing is written where it was delivered.
    assert sorted((p, p.stat().st_mtime_ns) for p in bag.rglob("*")) == before


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_a_changed_file_is_found_by_whatever_its_bag_has(orders: Site, algorithm: str) -> None:
    bag = deliver(orders, [algorithm])
    (bag / "data" / "b.csv").write_text("id\n4\n")
    with pytest.raises(DeliveryError, match=rf"b\.csv: {algorithm} is .*, but its manifest says"):
        orders.run()
    assert orders.stamps() == {}


def test_a_changed_file_is_set_aside_where_the_feed_says_so(site18: MakeSite) -> None:
    path = "landing/{batch}/data/*.csv"
    orders = site18(TABLE, source={"path": path}, on_bad_file="set_aside")
    bag = deliver(orders)
    (bag / "data" / "b.csv").write_text("id\n4\n")
    batch = orders.run()
    assert batch.status == "PARTIAL_SUCCESS"
    assert orders.stamps() == {batch.batch_id: 2}


def _remove(bag: Path) -> None:
    (bag / "data" / "b.csv").unlink()


def _add(bag: Path) -> None:
    (bag / "data" / "c.csv").write_text("id\n5\n")


def _add_other(bag: Path) -> None:
    (bag / "data" / "notes.txt").write_text("hello")


def _tamper(bag: Path) -> None:
    with (bag / "bag-info.txt").open("a") as info:
        info.write("Note: more\n")


def _version(bag: Path) -> None:
    (bag / "bagit.txt").write_text("BagIt-Version: 9.0\nTag-File-Character-Encoding: UTF-8\n")


def _contradict(bag: Path) -> None:
    (bag / "data" / "a.csv.sha256").write_text("0" * 64)
    with (bag / "manifest-sha256.txt").open("a") as manifest:
        manifest.write(f"{hashlib.sha256(b'0' * 64).hexdigest()}  data/a.csv.sha256\n")
    for tags in bag.glob("tagmanifest-*.txt"):
        tags.unlink()


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_remove, r"data/b\.csv is listed but was not delivered"),
        (_add, r"data/c\.csv was delivered but is not listed"),
        (_add_other, r"data/notes\.txt was delivered but is not listed"),
        (_tamper, r"bag-info\.txt beside it is not what the bag's tag manifest says"),
        (_version, r"bagit\.txt: the bag cannot be read \(BagError\)"),
        (_contradict, r"a\.csv\.sha256: contradicts the bag's manifest: sha256 of a\.csv"),
    ],
)
def test_a_bag_that_is_not_whole_is_refused(orders: Site, spoil: object, problem: str) -> None:
    assert callable(spoil)
    spoil(deliver(orders))
    with pytest.raises(DeliveryError, match=problem):
        orders.run()
    assert orders.newest().status == "FAILED"
    assert orders.stamps() == {}


def test_payload_that_the_feed_does_not_read_is_refused(site18: MakeSite) -> None:
    orders = site18(TABLE, source={"path": "landing/{batch}/data/a*.csv"})
    deliver(orders)
    with pytest.raises(DeliveryError, match=r"data/b\.csv is listed, but the feed's path"):
        orders.run()


def test_a_folder_named_data_need_not_be_a_bag(orders: Site) -> None:
    folder = orders.landing() / "data"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text(CONTENT["a.csv"])
    (folder / "notes.txt").write_text("hello")
    assert orders.run().status == "SUCCESS"
