"""A validated batch is put away in a bag that any BagIt tool accepts, and read back before it counts."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import bagit
import crc32c
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from batch_pipelines.engine.archive import archive
from batch_pipelines.engine.archiving.verify import ArchiveVerifier
from batch_pipelines.engine.errors import (
    ArchiveError,
    DeliveryError,
    LeaseLostError,
    StageOrderError,
)
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.feed_files import load_feed
from batch_pipelines.engine.ledger import archives, batches, files, proofs, rejects, stages
from batch_pipelines.engine.ledger.stages import STAGES
from tests.support_engine import feed_of, new_id

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Content, Site

DDL = """
CREATE TABLE t (a integer, "B b" text, c numeric(10,2), j jsonb, import_batch_id uuid,
    PRIMARY KEY ("B b", a))
"""
CSV = 'c,"B b",a,j\n' + "".join(f'{n}.25,ü{n % 7},{n},"{{""n"": {n}}}"\n' for n in range(50))
TABLE = pa.table({"a": [100, 101], "B b": ["x", "y"], "c": [None, 1], "j": ["1", None]})
LAST_CRC = f"{crc32c.crc32c(CSV.encode()):08x}"
DELIVERY: dict[str, Content] = {
    "rows 1.csv": CSV,
    "rows 2.parquet": TABLE,
    "rows 1.csv.crc32c": LAST_CRC + "\n",
    "manifest.csv": f"file_name,crc32c\nrows 1.csv,{LAST_CRC}\nrows 2.parquet,\n",
}
# The digest covers what is stored as it was sent, which leaves the jsonb out.
STORED = 'SELECT a, "B b", crc32c(record_send(ROW(a, "B b", c))) FROM t ORDER BY a'


def validated(site: Site) -> Batch:
    site.deliver(DELIVERY)
    return site.run(stages=STAGES[:4])


def folder_of(site: Site) -> Path:
    return site.settings.home / "archive" / "orders" / "first"


def bag_of(site: Site, batch: Batch) -> Path:
    return folder_of(site) / batch.batch_id


def assert_archived(site: Site, batch: Batch, status: str = "SUCCESS") -> Path:
    """Check what must be true of an archived batch, whatever happened before."""
    record = archives.bag(site.connection, batch.batch_id)
    assert record is not None
    bag = Path(record.place)
    assert bag == bag_of(site, batch)
    assert [path.name for path in folder_of(site).iterdir()] == [batch.batch_id]
    bagit.Bag(str(bag)).validate()
    payload = [path for path in (bag / "data").rglob("*") if path.is_file()]
    assert record.payload_files == len(payload)
    assert record.payload_bytes == sum(path.stat().st_size for path in payload)
    tags = (bag / "tagmanifest-sha256.txt").read_bytes()
    assert record.tagmanifest_sha256 == hashlib.sha256(tags).hexdigest()
    assert not (site.settings.staging / batch.batch_id).exists()
    now = site.newest()
    assert (now.batch_id, now.status) == (batch.batch_id, status)
    assert stages.of_batch(site.connection, batch.batch_id)["archive"].status == "SUCCESS"
    for file in files.of_batch(site.connection, batch.batch_id):
        packed = (bag / "data" / "source" / f"{file.file_name}.zst").read_bytes()
        content = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
        assert hashlib.sha256(content).hexdigest() == file.sha256
    return bag


def test_a_bag_is_valid_for_other_tools(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = validated(site)
    site.run(stages=["archive"])
    bag = assert_archived(site, batch)
    tool = [sys.executable, "-m", "bagit", "--validate", str(bag)]
    assert subprocess.run(tool, check=False, capture_output=True).returncode == 0
    info = bagit.Bag(str(bag)).info
    assert info["External-Identifier"] == batch.batch_id
    assert info["External-Description"] == "Import batch orders/first, attempt 1"
    listed = (bag / "manifest-sha256.txt").read_text().splitlines()
    assert len(listed) == 4 + 1 + 16 + 1
    # It is no rubber stamp.
    (bag / "data" / "ledger" / "import_file.json").write_text("[]")
    assert subprocess.run(tool, check=False, capture_output=True).returncode == 1


def test_the_delivery_unpacks_to_what_was_delivered(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = validated(site)
    landed = {path.name: path.read_bytes() for path in site.landing().iterdir()}
    site.run(stages=["archive"])
    source = assert_archived(site, batch) / "data" / "source"
    unpack = zstandard.ZstdDecompressor()
    assert {
        path.name: unpack.decompress(path.read_bytes()) for path in source.iterdir()
    } == {f"{name}.zst": content for name, content in landed.items()}  # fmt: skip
    assert set(landed) == set(DELIVERY)


def test_row_digests_are_those_of_the_stored_rows(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = validated(site)
    site.run(stages=["archive"])
    digests = assert_archived(site, batch) / "data" / "row_digests"
    assert [path.name for path in digests.iterdir()] == ["public.t.parquet"]
    rows = pq.read_table(digests / "public.t.parquet").to_pylist()
    (balance,) = proofs.tables(site.connection, batch.batch_id)
    # The order of the table's columns is what a ROW is written in.
    assert balance.columns == ["a", "B b", "c"]
    by_key = sorted((row["a"], row["B b"], row["crc32c"]) for row in rows)
    assert by_key == site.sql(STORED)
    assert [(row["file_name"], row["record"]) for row in rows] == [
        *(("rows 1.csv", n) for n in range(1, 51)),
        ("rows 2.parquet", 1),
        ("rows 2.parquet", 2),
    ]
    assert [row["a"] for row in rows] == [*range(50), 100, 101]


def test_the_extract_says_what_the_ledger_says(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = validated(site)
    site.run(stages=["archive"])
    folder = assert_archived(site, batch) / "data" / "ledger"
    said = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.iterdir()}
    assert set(said) == {
        "import_history", "batch_run", "batch_stage", "import_file", "crc32_audit", "batch_table",
        "batch_column",
        "batch_signature", "row_digest", "whole_digest", "validation_log", "validation_summary",
        "import_reject_summary", "signature_event", "audit_event", "audit_anchor",
    }  # fmt: skip
    told = [event["action"].removeprefix("batch.") for event in said.pop("audit_event")]
    assert (told[0], told[-1]) == ("ingest.started", "archive.started")
    anchor = said.pop("audit_anchor")
    assert (anchor["seq"], len(anchor["hash"])) == (len(told), 64)
    assert [(each["stage"], each["status"]) for each in said.pop("batch_stage")] == [
        *((stage, "SUCCESS") for stage in STAGES[:4]),
        ("archive", "IN_PROGRESS"),
    ]
    assert said.pop("import_reject_summary") == []
    for name, rows in said.items():
        whole = f"SELECT to_jsonb(t) FROM batch_audit.{name} t WHERE batch_id = %s"
        stored = [row for (row,) in site.sql(whole, batch.batch_id)]
        assert sorted(rows, key=str) == sorted(stored, key=str), name
    assert len(said["import_file"]) == 2
    (history,) = said["import_history"]
    assert history["written_records"] == 52
    assert [each["verdict"] for each in said["signature_event"]] == ["compatible"]


def test_the_feed_is_kept_as_it_was_when_the_batch_was_loaded(site18: MakeSite) -> None:
    site = site18(DDL)
    site.feed = feed_of({"public.t": "*"}, description="as it was")
    batch = validated(site)
    loaded_by = site.feed
    site.feed = feed_of({"public.t": "*"}, description="changed since")
    site.run(stages=["archive"])
    (kept,) = (assert_archived(site, batch) / "data" / "feed").iterdir()
    assert kept.name == "orders.yaml"
    assert load_feed(kept) == loaded_by


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


PARTS = [
    "data/source/rows 1.csv.zst",
    "data/source/manifest.csv.zst",
    "data/row_digests/public.t.parquet",
    "data/ledger/import_history.json",
    "manifest-sha256.txt",
    "bag-info.txt",
]


@pytest.mark.parametrize("part", PARTS)
def test_a_bag_that_does_not_read_back_does_not_count(site18: MakeSite, part: str) -> None:
    site = site18(DDL)
    batch = validated(site)
    staging = site.settings.staging / batch.batch_id
    before = {path: path.read_bytes() for path in staging.rglob("*") if path.is_file()}
    flipped = armed("archive.written", lambda folder: flip(folder / part))
    with flipped, pytest.raises(ArchiveError, match="did not read back") as error:
        site.run(stages=["archive"])
    assert {path: path.read_bytes() for path in staging.rglob("*") if path.is_file()} == before
    assert not bag_of(site, batch).exists()
    assert archives.bag(site.connection, batch.batch_id) is None
    assert site.newest().status == "SUCCESS"
    record = stages.of_batch(site.connection, batch.batch_id)["archive"]
    assert (record.status, record.error_details) == ("FAILED", str(error.value))
    # The leftover is not in the way.
    site.run(stages=["archive"])
    assert_archived(site, batch)


def test_a_bag_of_other_content_does_not_count_even_if_valid(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = validated(site)
    staged = site.settings.staging / batch.batch_id / "source" / "rows 1.csv"
    content = staged.read_bytes()
    staged.chmod(0o644)
    staged.write_bytes(content.replace(b"1.25", b"1.26", 1))
    with pytest.raises(ArchiveError, match="does not unpack to what was loaded"):
        site.run(stages=["archive"])
    assert not bag_of(site, batch).exists()
    staged.write_bytes(content)
    site.run(stages=["archive"])
    assert_archived(site, batch)


def test_a_leftover_is_ignored_and_replaced(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = validated(site)
    leftover = folder_of(site) / f".{batch.batch_id}.7.unfinished"
    (leftover / "data" / "source").mkdir(parents=True)
    (leftover / "data" / "source" / "rows 1.csv.zst").write_bytes(b"half")
    (leftover / "data" / "stranger").write_text("not of this batch")
    site.run(stages=["archive"])
    assert not (assert_archived(site, batch) / "data" / "stranger").exists()


def test_half_bags_of_earlier_batches_are_removed_by_the_next_and_named_until_then(
    site18: MakeSite,
) -> None:
    """Given a bag that cannot be written it takes no room; what killed runs have left is found."""
    site = site18(DDL)
    batch = validated(site)
    folder = folder_of(site)
    (site.settings.staging / batch.batch_id / "source" / "rows 1.csv").unlink()
    with pytest.raises(ArchiveError):
        site.run(stages=["archive"])
    assert [*folder.iterdir()] == []
    half, going = folder / f".{batch.batch_id}.7.unfinished", folder / f".{new_id()}.deleted"
    for left in (half, going):
        (left / "data").mkdir(parents=True)
        (left / "data" / "half").write_bytes(b"half")

    def named() -> set[str]:
        verifier = ArchiveVerifier(site.settings, {}, lambda: dt.datetime.now(dt.UTC))
        return {each.place for each in verifier.reconcile(site.connection)}

    assert named() == {str(half), str(going)}
    site.run(force=True)
    assert not half.exists()
    # That one is retention's.
    assert named() == {str(going)}
    raised = "SELECT subject FROM batch_audit.alert WHERE kind = 'archive' AND resolved_at IS NULL"
    assert site.sql(raised) == [(f"{going} is UNKNOWN",)]


def test_a_hung_run_and_the_one_that_took_over_do_not_meet_in_one_folder(
    site18: MakeSite,
) -> None:
    """Given a run that hangs with its bag half-done, the one that takes over finishes its own."""
    site = site18(DDL)
    batch = validated(site)
    seen: list[Path] = []

    def taken_over(folder: Path) -> None:
        seen.append(folder)
        if len(seen) == 1:
            site.sql("UPDATE batch_audit.batch_lease SET expires_at = now() - interval '1 second'")
            site.run(stages=["archive"])

    with armed("archive.written", taken_over), pytest.raises(LeaseLostError):
        site.run(stages=["archive"])
    assert len(set(seen)) == 2
    assert_archived(site, batch)


def test_a_run_that_was_taken_over_does_not_name_its_bag(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = validated(site)
    raised = "UPDATE batch_audit.batch_lease SET token = token + 1"
    with armed("archive.written", lambda _: site.sql(raised)), pytest.raises(LeaseLostError):
        site.run(stages=["archive"])
    assert not bag_of(site, batch).exists()
    site.run(stages=["archive"])
    assert_archived(site, batch)


# The quarantine

BAD = CSV + '1.00,x,7,"{"\n1.00,y,eight,\n'


def with_rejects(site: Site) -> Batch:
    site.feed = feed_of({"public.t": "*"}, thresholds={})
    site.deliver({"rows 1.csv": BAD, "rows 2.parquet": TABLE.slice(0, 1)})
    batch = site.run(stages=STAGES[:4])
    assert (batch.status, batch.rejected_records) == ("PARTIAL_SUCCESS", 2)
    return batch


def test_the_quarantine_is_in_the_bag(site18: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more rejects than are held in memory at a time, all are kept as the ledger has them."""
    monkeypatch.setattr(rejects, "_PART_ROWS", 1)
    site = site18(DDL)
    batch = with_rejects(site)
    site.run(stages=["archive"])
    bag = assert_archived(site, batch, "PARTIAL_SUCCESS")
    kept = pq.read_table(bag / "data" / "quarantine" / "rejects.parquet").to_pylist()
    columns = ", ".join(
        f"{name}::text" if name in {"batch_id", "breaches", "replayed_by"} else name
        for name in kept[0]
    )
    stored = site.sql(f"SELECT {columns} FROM batch_audit.import_reject ORDER BY record_number")
    assert [tuple(row.values()) for row in kept] == stored
    assert [row["raw"] for row in kept] == [line.encode() + b"\n" for line in BAD.splitlines()[-2:]]
    # All columns but the one that is derived from another.
    assert len(kept[0]) == site.count(
        "SELECT count(*) FROM pg_attribute WHERE attname <> 'raw_bytes'"
        " AND attrelid = 'batch_audit.opened_reject'::regclass AND attnum > 0"
    )
    told = json.loads((bag / "data" / "ledger" / "import_reject_summary.json").read_text())
    assert sorted((each["column_name"], each["records"]) for each in told) == [("a", 1), ("j", 1)]


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM batch_audit.import_reject WHERE record_number = 51",
        "DELETE FROM batch_audit.import_reject",
        "UPDATE batch_audit.import_reject SET raw = raw || 'x' WHERE record_number = 52",
    ],
)
def test_a_bag_whose_quarantine_is_not_the_ledgers_does_not_count(
    site18: MakeSite, change: str
) -> None:
    site = site18(DDL)
    batch = with_rejects(site)
    with (
        armed("archive.written", lambda _: site.sql(change)),
        pytest.raises(ArchiveError, match="does not hold the rejects of the ledger"),
    ):
        site.run(stages=["archive"])
    assert archives.bag(site.connection, batch.batch_id) is None


def test_a_replay_noted_since_does_not_make_a_bag_wrong(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = with_rejects(site)
    replayed = "UPDATE batch_audit.import_reject SET replayed_at = now() WHERE record_number = 52"
    with armed("archive.written", lambda _: site.sql(replayed)):
        site.run(stages=["archive"])
    assert_archived(site, batch, "PARTIAL_SUCCESS")


# What staging keeps


def staged(site: Site) -> set[str]:
    return {path.name for path in site.settings.staging.iterdir()}


def test_staging_that_a_killed_run_left_is_cleared_by_the_next(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a run killed after its bag was recorded, the next import gives the room back."""
    site = site18(DDL)
    batch = validated(site)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        site.run(stages=["archive"])
    assert staged(site) == {batch.batch_id}
    assert site.run().status == "DUPLICATE"
    assert staged(site) == set()


@pytest.mark.parametrize("status", ["PUBLISHED", "VALIDATION_FAILED"])
def test_staging_of_a_superseded_batch_is_cleared(site18: MakeSite, status: str) -> None:
    site = site18(DDL)
    site.deliver(DELIVERY)
    first = site.run(stages=STAGES[:3])
    if status == "VALIDATION_FAILED":
        batches.mark_invalid(site.connection, first.batch_id, "a test")
    assert staged(site) == {first.batch_id}
    site.load({"rows 1.csv": CSV})
    assert staged(site) == set()


def test_staging_of_a_batch_in_force_is_kept_until_it_is_archived(site18: MakeSite) -> None:
    """Given a correction that failed and the first delivery again, what is left can be done."""
    site = site18(DDL)
    first = validated(site)
    with pytest.raises(DeliveryError):
        site.load({"rows 1.csv": "a\n1\n", "rows 1.csv.crc32c": "00000000"})
    failed = site.newest()
    assert staged(site) == {first.batch_id, failed.batch_id}
    site.deliver(DELIVERY)
    assert site.run().batch_id == first.batch_id
    assert_archived(site, first)
    assert staged(site) == set()


def test_staging_of_the_newest_attempt_is_kept_for_a_retry(site18: MakeSite) -> None:
    site = site18(DDL)
    first = validated(site)
    site.deliver({"rows 1.csv": CSV})

    def broken(_: object) -> NoReturn:
        raise OSError(5, "Input/output error")

    with armed("bulk_write.before_fence", broken), pytest.raises(OSError, match="Input/output"):
        site.run()
    failed = site.newest()
    site.run(run_id=first.batch_id, stages=["archive"])
    assert staged(site) == {failed.batch_id}
    resumed = site.run(stages=STAGES[2:])
    assert (resumed.batch_id, resumed.status) == (failed.batch_id, "SUCCESS")
    assert staged(site) == set()


def fail(*_: object) -> NoReturn:
    raise OSError(5, "Input/output error")


def rename_only(site: Site, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archive up to the bag's last name and be gone before the ledger is told."""
    with monkeypatch.context() as patch:
        patch.setattr(archives, "record", fail)
        with pytest.raises(OSError, match="Input/output"):
            site.run(stages=["archive"])
    assert bag_of(site, batch).exists()
    assert archives.bag(site.connection, batch.batch_id) is None


def test_a_bag_the_ledger_was_not_told_of_is_read_back_and_recorded(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site18(DDL)
    batch = validated(site)
    rename_only(site, batch, monkeypatch)
    made = bag_of(site, batch).stat()
    site.run(stages=["archive"])
    bag = assert_archived(site, batch)
    assert (bag.stat().st_ino, bag.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_a_bag_the_ledger_was_not_told_of_is_not_recorded_if_it_was_damaged(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site18(DDL)
    batch = validated(site)
    rename_only(site, batch, monkeypatch)
    flip(bag_of(site, batch) / PARTS[0])
    with pytest.raises(ArchiveError, match="Remove the bag and run again"):
        site.run(stages=["archive"])
    assert archives.bag(site.connection, batch.batch_id) is None
    assert (site.settings.staging / batch.batch_id / "source").exists()
    # The remedy that is told is one.
    shutil.rmtree(bag_of(site, batch))
    site.run(stages=["archive"])
    assert_archived(site, batch)


def test_what_is_not_validated_is_not_archived(site18: MakeSite) -> None:
    site = site18(DDL)
    site.deliver(DELIVERY)
    for some in (STAGES[:1], [STAGES[1]], [STAGES[2]]):
        batch = site.run(stages=some)
        with pytest.raises(StageOrderError, match=f"archive cannot work on batch {batch.batch_id}"):
            site.run(stages=["archive"])
    assert not (site.settings.home / "archive").exists()
    assert site.newest().status == "PUBLISHED"


def test_a_batch_whose_staging_is_gone_is_not_archived(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = validated(site)
    shutil.rmtree(site.settings.staging / batch.batch_id)
    with pytest.raises(ArchiveError, match=r"staged files are gone.*--force"):
        site.run(stages=["archive"])
    assert not bag_of(site, batch).exists()
    done = site.run(force=True)
    assert (done.status, done.batch_id != batch.batch_id) == ("SUCCESS", True)
    assert bag_of(site, done).exists()


def test_asked_again_it_reports(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = validated(site)
    site.run(stages=["archive"])
    bag = assert_archived(site, batch)
    before = {path: path.stat().st_mtime_ns for path in bag.rglob("*")}
    with site.work() as (connection, work):
        result = archive(connection, work)
    assert not result.worked
    assert result.archive == archives.bag(site.connection, batch.batch_id)
    assert {path: path.stat().st_mtime_ns for path in bag.rglob("*")} == before


def test_a_duplicate_has_no_bag(site18: MakeSite) -> None:
    site = site18(DDL)
    first = site.load(DELIVERY)
    run_id = new_id()
    assert site.run(run_id=run_id).status == "DUPLICATE"
    with site.work(run_id=run_id) as (connection, work):
        result = archive(connection, work)
    assert (result.worked, result.archive) == (False, None)
    assert_archived(site, first)


def test_each_attempt_has_a_bag_of_its_own(site18: MakeSite) -> None:
    site = site18(DDL)
    first = site.load(DELIVERY)
    second = site.load({"rows 1.csv": CSV})
    assert {path.name for path in folder_of(site).iterdir()} == {first.batch_id, second.batch_id}
    for batch in (first, second):
        bagit.Bag(str(bag_of(site, batch))).validate()
