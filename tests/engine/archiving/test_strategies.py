"""What a bag keeps is what its feed asks for: copies, compressed, digests alone, encrypted."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pyrage
import pytest
from pydantic import SecretStr

from batch_pipelines.engine.archiving.bag import DIGESTS, REJECTS, open_bag
from batch_pipelines.engine.archiving.keys import new_key
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import ArchiveError, SettingsError
from batch_pipelines.engine.ledger import archives
from tests.engine.verification.support_verify import verify_table
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.archives import ArchiveRecord
    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (id int PRIMARY KEY, note text, import_batch_id uuid)"
PRIVATE = "of nobody's concern"
ROWS = "id,note\n" + "".join(f"{n},{PRIVATE} {n}\n" for n in range(200))
BAD = f"x,{PRIVATE}\n"


def ordered(make: MakeSite, **archive: object) -> Site:
    site = make(DDL)
    site.feed = feed_of({"public.t": "*"}, thresholds={}, archive=archive)
    return site


def with_key(site: Site, key: str | None) -> None:
    secret = None if key is None else SecretStr(key)
    site.settings = site.settings.model_copy(update={"archive_key": secret})


def load(site: Site) -> tuple[Batch, ArchiveRecord]:
    batch = site.load({"a.csv": ROWS + BAD})
    record = archives.bag(site.connection, batch.batch_id)
    assert record is not None
    tool = [sys.executable, "-m", "bagit", "--validate", record.place]
    assert subprocess.run(tool, check=False, capture_output=True).returncode == 0
    return batch, record


def payload(record: ArchiveRecord) -> dict[str, bytes]:
    data = Path(record.place) / "data"
    return {
        path.relative_to(data).as_posix(): path.read_bytes()
        for path in data.rglob("*")
        if path.is_file()
    }


def test_a_copy_is_the_delivery_as_it_was(site18: MakeSite) -> None:
    batch, record = load(ordered(site18, strategy="copy"))
    assert (record.strategy, record.key_id, batch.rejected_records) == ("copy", None, 1)
    assert payload(record)["source/a.csv"] == (ROWS + BAD).encode()
    (reject,) = pq.read_table(Path(record.place) / "data" / REJECTS).to_pylist()
    assert reject["raw"] == BAD.encode()


def test_what_is_encrypted_shows_no_value_and_opens_with_the_key(site18: MakeSite) -> None:
    """Given a feed that asks for it, only the key opens what holds values, by any tool of age's."""
    site = ordered(site18, encrypt=True)
    key = new_key()
    with_key(site, key)
    batch, record = load(site)
    secret = pyrage.x25519.Identity.from_str(key)
    assert record.key_id == str(secret.to_public())
    files = payload(record)
    assert sorted(name for name in files if name.endswith(".age")) == [
        "quarantine/rejects.parquet.age", "row_digests/public.t.parquet.age", "source/a.csv.zst.age",
    ]  # fmt: skip
    assert not any(PRIVATE.encode() in content for content in files.values())
    bag = Path(record.place)
    everything = b"".join(path.read_bytes() for path in bag.rglob("*") if path.is_file())
    assert key.encode() not in everything
    assert str(record.key_id).encode() in everything
    with open_bag(site.connection, site.settings, batch.batch_id) as opened:
        assert opened.copy("source/a.csv", bag.with_name("a.csv"))
        assert pq.read_table(opened.path(REJECTS)).num_rows == 1
        (digests,) = opened.under(DIGESTS)
        assert pq.read_table(opened.path(digests)).num_rows == 200
    assert bag.with_name("a.csv").read_text() == ROWS + BAD
    # What proves rows again can do so, and cannot without.
    site.sql("UPDATE t SET note = 'other' WHERE id = 7")
    (row,) = verify_table(site, batch).details
    assert (row.key, row.columns) == ({"id": "7"}, ["note"])
    with_key(site, new_key())
    found = verify_table(site, batch)
    assert (found.status, found.details) == ("FAILED", [])
    assert f"it is encrypted for {record.key_id}" in str(found.exception)


@pytest.mark.parametrize("key", [None, "AGE-SECRET-KEY-1NONSENSE"])
def test_without_a_key_nothing_is_loaded(site18: MakeSite, key: str | None) -> None:
    site = ordered(site18, encrypt=True)
    with_key(site, key)
    site.deliver({"a.csv": ROWS})
    with pytest.raises(SettingsError, match="BATCH_PIPELINES_ARCHIVE_KEY"):
        site.run()
    assert site.history() == []
    assert site.count("SELECT count(*) FROM t") == 0
    with_key(site, new_key())
    assert site.run().status == "SUCCESS"


def test_without_its_key_a_load_is_not_resumed(site18: MakeSite) -> None:
    site = ordered(site18, encrypt=True)
    with_key(site, new_key())
    site.deliver({"a.csv": ROWS})
    site.run(stages=["ingest", "checksum"])
    with_key(site, None)
    with pytest.raises(SettingsError, match="BATCH_PIPELINES_ARCHIVE_KEY is not set"):
        site.run(stages=["bulk_write"])
    assert site.count("SELECT count(*) FROM t") == 0


def test_digests_alone_prove_rows_but_bring_no_source_back(site18: MakeSite) -> None:
    site = ordered(site18, strategy="digests_only")
    batch, record = load(site)
    files = payload(record)
    assert not [name for name in files if name.startswith("source/")]
    assert REJECTS in files
    (said,) = json.loads(files["ledger/import_file.json"])
    assert said["size"] == len(ROWS + BAD)
    site.sql("DELETE FROM t WHERE id = 7")
    (row,) = verify_table(site, batch).details
    assert (row.kind, row.key) == ("missing", {"id": "7"})
    site.sql("ALTER TABLE t ALTER id TYPE text")
    with site.work() as (connection, work), pytest.raises(ArchiveError, match="has no source"):
        bulk_write(connection, work, replay=True)


def test_a_file_set_aside_is_kept_although_only_digests_are(site18: MakeSite) -> None:
    site = site18(DDL)
    site.feed = feed_of(
        {"public.t": "*"}, on_bad_file="set_aside", archive={"strategy": "digests_only"}
    )
    batch = site.load({"a.csv": ROWS, "b.csv": "id\n1\n", "b.csv.crc32c": "00000000"})
    with open_bag(site.connection, site.settings, batch.batch_id) as bag:
        found: list[bytes] = []
        bag.read("quarantine/files/b.csv", found.append)
    assert b"".join(found) == b"id\n1\n"


def test_a_feed_may_say_where_its_bags_go(site18: MakeSite) -> None:
    site = ordered(site18, to="elsewhere/bags")
    batch, record = load(site)
    place = site.settings.root / "elsewhere" / "bags" / "orders" / "first" / batch.batch_id
    assert record.place == str(place)
    assert not (site.settings.home / "archive").exists()


def test_a_replay_leaves_a_second_bag_beside_the_first(site18: MakeSite) -> None:
    """Given a replay, both bags are in the ledger, and the newest has the digests of all rows."""
    site = ordered(site18)
    batch, first = load(site)
    site.sql("ALTER TABLE t ALTER id TYPE text")
    with site.work() as (connection, work):
        bulk_write(connection, work, replay=True)
    site.run(stages=["validate", "archive"])
    both = archives.of_batch(site.connection, batch.batch_id)
    assert [record.place for record in both] == [first.place, f"{first.place}.replay-1"]
    assert both[0] == dataclasses.replace(first)
    assert archives.bag(site.connection, batch.batch_id) == both[1]
    with open_bag(site.connection, site.settings, batch.batch_id) as bag:
        digests = bag.under(DIGESTS)
        assert sum(pq.read_table(bag.path(name)).num_rows for name in digests) == 201
        assert len(bag.under("feed")) == 2
