"""Verifying the archive: whatever was changed in a bag is found, and what archive or ledger lack."""

from __future__ import annotations

import datetime as dt
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import bagit
import pytest

from batch_pipelines.engine.alerts import listed
from batch_pipelines.engine.archiving.choosing import place_of
from batch_pipelines.engine.archiving.fixity import check_fixity
from batch_pipelines.engine.archiving.verify import ArchiveVerifier, require_valid
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import archives, batches
from tests.support_engine import feed_of
from tests.support_s3 import failing_every, no_pauses, refusal

if TYPE_CHECKING:
    from batch_pipelines.engine.archiving.verify import Finding
    from batch_pipelines.engine.ledger.archives import ArchiveRecord
    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site
    from tests.support_s3 import Store

DDL = "CREATE TABLE t (id int PRIMARY KEY, note text, import_batch_id uuid)"
ROWS = "id,note\n" + "".join(f"{n},note {n}\n" for n in range(30))
NOW = dt.datetime(2030, 5, 1, tzinfo=dt.UTC)
FLIPS = 1_000


def verifier(site: Site, now: dt.datetime = NOW) -> ArchiveVerifier:
    return ArchiveVerifier(site.settings, {site.feed.feed: site.feed}, lambda: now)


def verified(site: Site, sample: int | None = None, now: dt.datetime = NOW) -> dict[str, Finding]:
    """Verify all bags or a sample; give what was found by partition."""
    found = [*verifier(site, now).of_many(site.connection, sample, None)]
    assert len({each.place for each in found}) == len(found)
    return {str(each.partition_key): each for each in found}


def bag_of(site: Site, batch: Batch) -> ArchiveRecord:
    record = archives.bag(site.connection, batch.batch_id)
    assert record is not None
    return record


def load(site: Site, *keys: str) -> list[Batch]:
    return [site.load({"a.csv": ROWS.replace("note ", f"{key} ")}, key) for key in keys]


def open_alerts(site: Site) -> list[str]:
    return [each.alert.subject for each in listed(site.connection, open_only=True)]


@pytest.fixture
def site(site18: MakeSite) -> Site:
    return site18(DDL.replace(" PRIMARY KEY", ""))


def test_what_is_as_it_was_sealed_is_valid(site: Site) -> None:
    batch, _ = load(site, "a", "b")
    before = bag_of(site, batch)
    found = verified(site)
    assert {key: each.status for key, each in found.items()} == {"a": "VALID", "b": "VALID"}
    assert (found["a"].files, found["a"].size) == (before.payload_files, before.payload_bytes)
    assert bag_of(site, batch) == replace(before, verified_at=NOW, checked_at=NOW)
    assert open_alerts(site) == []
    require_valid(found.values())


def test_a_thousand_flipped_bits_are_all_found(site: Site) -> None:
    """Given any bit of any file of a bag, when it flips, the bag is damaged and the file is named."""
    (batch,) = load(site, "a")
    record = bag_of(site, batch)
    archive, name = place_of(site.settings, record.place)
    seal = record.tagmanifest_sha256
    assert check_fixity(archive, name, seal).problems == ()
    files = sorted(path for path in Path(record.place).rglob("*") if path.is_file())
    content = {path: path.read_bytes() for path in files}
    dice = random.Random(20261122)  # noqa: S311  # places, not secrets
    found = 0
    for number in range(FLIPS):
        path = files[number % len(files)]
        place = dice.randrange(len(content[path]))
        flipped = bytearray(content[path])
        flipped[place] ^= 1 << dice.randrange(8)
        path.write_bytes(flipped)
        problems = check_fixity(archive, name, seal).problems
        own = path.relative_to(record.place).as_posix()
        found += f"{own} is changed" in problems
        path.write_bytes(content[path])
    assert found == FLIPS
    assert check_fixity(archive, name, seal).problems == ()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("cut off", "data/source/a.csv.zst is changed"),
        ("gone", "data/source/a.csv.zst is missing"),
        ("added", "data/source/b.csv was added"),
        ("tag added", "note.txt was added"),
        ("sealed anew", "tagmanifest-sha256.txt is changed"),
        ("no seal", "tagmanifest-sha256.txt is missing"),
        ("no manifest", "manifest-sha256.txt is missing"),
    ],
)
def test_damage_is_named_noted_and_alerted(site: Site, damage: str, problem: str) -> None:
    (batch,) = load(site, "a")
    before = bag_of(site, batch)
    bag = Path(before.place)
    kept = shutil.copytree(bag, bag.parents[3] / "backup")
    source = bag / "data" / "source" / "a.csv.zst"
    match damage:
        case "cut off":
            source.write_bytes(source.read_bytes()[:-1])
        case "gone":
            source.unlink()
        case "added":
            (bag / "data" / "source" / "b.csv").write_text("x")
        case "tag added":
            (bag / "note.txt").write_text("x")
        case "sealed anew":
            source.write_bytes(b"forged")
            bagit.Bag(str(bag)).save(manifests=True)
            bagit.Bag(str(bag)).validate()
        case "no seal":
            (bag / "tagmanifest-sha256.txt").unlink()
        case _:
            (bag / "manifest-sha256.txt").unlink()
    found = verified(site)["a"]
    assert found.status == "DAMAGED"
    assert problem in found.problems
    assert "Restore it from a backup" in found.remedy
    now = bag_of(site, batch)
    assert (now.state, now.verified_at) == ("DAMAGED", before.verified_at)
    assert now.problems == [*found.problems]
    assert open_alerts(site) == [f"{before.place} is DAMAGED"]
    with pytest.raises(ArchiveError, match=r"archive and the ledger differ in .*DAMAGED"):
        require_valid([found])
    # Told once for one occasion, and no longer open once it is mended.
    verified(site)
    assert len(listed(site.connection)) == 1
    shutil.rmtree(bag)
    shutil.copytree(kept, bag)
    assert verified(site)["a"].status == "VALID"
    assert open_alerts(site) == []
    source.unlink()
    verified(site)
    assert open_alerts(site) == [f"{before.place} is DAMAGED"]


def test_a_bag_that_is_gone_is_named_without_reading_any(site: Site) -> None:
    batch, other = load(site, "a", "b")
    shutil.rmtree(bag_of(site, batch).place)
    found = [*verifier(site).reconcile(site.connection)]
    assert [(each.status, each.batch_id) for each in found] == [("MISSING", batch.batch_id)]
    assert bag_of(site, batch).state == "MISSING"
    assert bag_of(site, other).checked_at < NOW
    assert verified(site)["b"].status == "VALID"


def test_after_the_ledger_was_set_back_its_bags_are_unknown(site: Site) -> None:
    """Given a database restored to an earlier time, each bag it forgot is told, and how to go on."""
    kept, forgotten, unrecorded = load(site, "a", "b", "c")
    site.sql("DELETE FROM batch_audit.import_history WHERE batch_id = %s", forgotten.batch_id)
    site.sql("DELETE FROM batch_audit.archive_manifest WHERE batch_id = %s", unrecorded.batch_id)
    site.sql(
        "DELETE FROM batch_audit.batch_stage WHERE batch_id = %s AND stage = 'archive'",
        unrecorded.batch_id,
    )
    found = verified(site)
    assert {key: each.status for key, each in found.items()} == {
        "a": "VALID", "b": "UNKNOWN", "c": "UNKNOWN",
    }  # fmt: skip
    assert "Its batch is not in the ledger" in found["b"].remedy
    assert f"import {site.feed.feed} --batch c" in found["c"].remedy
    with pytest.raises(ArchiveError, match=r"UNKNOWN"):
        require_valid(found.values())
    assert len(open_alerts(site)) == 2
    # The remedies are ones.
    site.run("c")
    assert bag_of(site, unrecorded).place == found["c"].place
    site.sql("DELETE FROM t WHERE import_batch_id = %s", forgotten.batch_id)
    site.run("b")
    assert {key: each.status for key, each in verified(site).items()}["c"] == "VALID"
    assert batches.by_id(site.connection, kept.batch_id).status == "SUCCESS"


def test_one_batch_is_verified_with_all_its_bags(site: Site) -> None:
    (batch,) = load(site, "a")
    record = bag_of(site, batch)
    shutil.copytree(record.place, f"{record.place}.replay-1")
    site.sql(
        "INSERT INTO batch_audit.archive_manifest (batch_id, kind, place, payload_files, payload_bytes,"
        " tagmanifest_sha256, strategy, verified_at, checked_at) SELECT batch_id, kind,"
        " place || '.replay-1', payload_files, payload_bytes, tagmanifest_sha256, strategy, verified_at,"
        " checked_at FROM batch_audit.archive_manifest"
    )
    assert site.run("a").status == "DUPLICATE"
    duplicate = site.history()[-1]
    found = [*verifier(site).of_batch(site.connection, duplicate)]
    assert [each.status for each in found] == ["VALID", "VALID"]
    site.deliver({"a.csv": ROWS}, "new")
    ingested = site.run("new", stages=["ingest"])
    with pytest.raises(ArchiveError, match="has no bag: it is not archived"):
        [*verifier(site).of_batch(site.connection, ingested)]


def test_a_sample_takes_turns(site: Site) -> None:
    load(site, "a", "b", "c")
    turns = [[*verified(site, 1, NOW + dt.timedelta(days=n))] for n in range(4)]
    assert turns == [["a"], ["b"], ["c"], ["a"]]


def test_an_archive_that_cannot_be_listed_is_no_missing_bag(
    site18: MakeSite, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a store that is down, bags are unverified; one that fails now and then is verified."""
    no_pauses(monkeypatch)
    site = site18(DDL)
    address = f"s3://{store.bucket}/bags"
    site.feed = feed_of({"public.t": "*"}, archive={"to": address})
    (batch,) = load(site, "a")
    store.meddle = failing_every(3)
    assert verified(site)["a"].status == "VALID"
    store.meddle = lambda *_: refusal(403, "AccessDenied")
    found = [*verifier(site).of_many(site.connection, None, None)]
    assert [(each.place, each.status) for each in found] == [
        (address, "UNVERIFIED"), (bag_of(site, batch).place, "UNVERIFIED"),
    ]  # fmt: skip
    assert "the store denies access" in found[1].problems[0]
    require_valid(found)
    assert bag_of(site, batch).state == "UNVERIFIED"
    store.meddle = lambda _, answer: answer
    (key, *_rest) = [
        entry["Key"] for entry in store.client.list_objects_v2(Bucket=store.bucket)["Contents"]
    ]
    store.put(key, b"other")
    assert verified(site)["a"].status == "DAMAGED"
    store.client.delete_object(Bucket=store.bucket, Key=key)
    assert f"{key.split('/', 4)[-1]} is missing" in verified(site)["a"].problems
