"""Ingest: a delivery is copied as it is, known by its content, and loaded once."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

import crc32c
import pyarrow as pa
import pytest

from batch_pipelines.engine.errors import DeliveryError, LeaseLostError, ThresholdError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ingest import IngestResult, ingest
from batch_pipelines.engine.landing.deliveries import find_delivery
from batch_pipelines.engine.ledger import batches, files, stages
from batch_pipelines.engine.ledger.arrivals import Tried, tried
from batch_pipelines.engine.ledger.stages import STAGES
from tests.support_engine import KEY, Site, new_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engine.conftest import MakeSite

TABLE = "CREATE TABLE t (id int PRIMARY KEY, name text, import_batch_id uuid)"
TWO = TABLE + "; CREATE TABLE u (id int, import_batch_id uuid)"
TWO_TABLES = {"public.t": "t*", "public.u": "u*"}
ONE, OTHER = "id,name\n1,a\n", "id,name\n2,b\n"


def run_ingest(site: Site, key: str = KEY, *, force: bool = False) -> IngestResult:
    with site.work(key) as (connection, work):
        return ingest(connection, work, force=force)


def staged(site: Site, batch_id: str) -> Path:
    return site.settings.staging / batch_id / "source"


# The copy


@pytest.mark.versions
def test_every_file_is_copied_and_described(site: MakeSite) -> None:
    """Given a delivery, when it is ingested, then its bytes lie in staging and the ledger knows them."""
    orders = site(TWO, TWO_TABLES)
    orders.deliver(
        {"t.CSV": ONE, "u.parquet": pa.table({"id": [1]}), "u.parquet.crc32c": "00000000"}
    )
    content = {path.name: path.read_bytes() for path in orders.landing().iterdir()}
    with orders.work() as (connection, work):
        result = ingest(connection, work)
    batch = result.batch
    assert (batch.batch_id, batch.status, batch.attempt) == (work.run_id, "IN_PROGRESS", 1)
    assert (batch.feed, batch.partition_key, batch.requested_by) == ("orders", KEY, "a test")
    assert (result.duplicate_of, result.dead_runs) == (None, ())

    found = {file.file_name: file for file in files.of_batch(orders.connection, batch.batch_id)}
    assert list(found.values()) == list(result.files)
    described = {
        name: (
            file.target_table,
            file.format,
            file.expected_crc32c,
            file.expected_source,
            file.records,
        )
        for name, file in found.items()
    }
    assert described == {
        "t.CSV": ("public.t", "csv", None, None, None),
        "u.parquet": ("public.u", "parquet", 0, "sidecar", None),
    }
    for name, file in found.items():
        assert file.size == len(content[name])
        assert file.crc32c == crc32c.crc32c(content[name])
        assert file.sha256 == hashlib.sha256(content[name]).hexdigest()

    copies = {path.name: path for path in staged(orders, batch.batch_id).iterdir()}
    assert {name: path.read_bytes() for name, path in copies.items()} == content
    assert {stat.S_IMODE(path.stat().st_mode) for path in copies.values()} == {0o444}


def test_the_batch_is_known_by_what_landed(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": ONE})
    landed = find_delivery(orders.feed, KEY, orders.settings.root)
    assert landed is not None
    assert run_ingest(orders).batch.fingerprint == landed.fingerprint
    known = tried(orders.connection, "orders", [KEY])
    assert known == {KEY: Tried(KEY, landed.fingerprint, 1, "IN_PROGRESS")}


def test_what_happens_in_landing_afterwards_does_not_matter(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": ONE})
    with orders.work() as (connection, work):
        ingest(connection, work)
        orders.deliver({"a.csv": OTHER})
    batch = orders.run(stages=["checksum", "bulk_write", "validate"])
    assert batch.status == "SUCCESS"
    assert orders.rows() == [('{"id": 1, "name": "a"}',)]


def test_checksums_of_a_small_file_are_recorded_once(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": ONE})
    batch = run_ingest(orders).batch
    (found,) = files.checksums(orders.connection, batch.batch_id)
    assert (found.entity_type, found.entity_id, found.status) == ("file", "a.csv", "recorded")
    assert (found.computed_crc32, found.expected_crc32) == (crc32c.crc32c(ONE.encode()), None)
    assert found.bytes_processed == len(ONE)
    assert found.throughput_mbps is not None
    ((took, hardware, instructions, retries),) = orders.sql(
        "SELECT processing_time_ms, hardware_utilized, simd_instructions, retry_count"
        " FROM batch_audit.crc32_audit"
    )
    assert took > 0
    assert hardware == bool(crc32c.hardware_based)
    assert instructions == (-(-len(ONE) // 8) if hardware else None)
    assert retries == 0


def test_of_a_large_file_every_chunk_has_its_own(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 5)
    orders = site18(TABLE)
    orders.deliver({"a.csv": ONE})
    batch = run_ingest(orders).batch
    found = {
        checksum.entity_id: (
            checksum.entity_type,
            checksum.computed_crc32,
            checksum.bytes_processed,
        )
        for checksum in files.checksums(orders.connection, batch.batch_id)
    }
    content = ONE.encode()
    assert len(content) == 12
    assert found == {
        "a.csv": ("file", crc32c.crc32c(content), 12),
        "a.csv@0-4": ("chunk", crc32c.crc32c(content[:5]), 5),
        "a.csv@5-9": ("chunk", crc32c.crc32c(content[5:10]), 5),
        "a.csv@10-11": ("chunk", crc32c.crc32c(content[10:]), 2),
    }


# Deliveries that are refused


def test_no_delivery(site18: MakeSite) -> None:
    """Given nothing in landing, when it is ingested, then the batch fails and says where to deliver."""
    orders = site18(TABLE)
    with pytest.raises(DeliveryError, match=r"orders/first: there is no file .*/landing/first/"):
        run_ingest(orders)
    (batch,) = orders.history()
    assert batch.status == "FAILED"
    assert batch.error_details is not None
    assert batch.error_details.endswith("Deliver it and run again.")
    stage = stages.of_batch(orders.connection, batch.batch_id)["ingest"]
    assert (stage.status, stage.error_details) == ("FAILED", batch.error_details)


@pytest.mark.parametrize(
    ("delivered", "problem"),
    [
        pytest.param(
            {"t.csv": ONE, "u.txt": "1"}, r"u\.txt: format '\.txt' is not known", id="format"
        ),
        pytest.param({"t.csv": ONE, "u.csv.xz": "1"}, r"format '\.xz' is not known", id="packed"),
        pytest.param({"t.csv": ONE, "u": "1"}, "format '' is not known", id="no suffix"),
        pytest.param(
            {"t.csv": ONE, "u.csv": "id\n", "v.csv": "id\n"},
            r"v\.csv: its name matches no table of feed orders",
            id="a file of no table",
        ),
        pytest.param(
            {"t.csv": ONE},
            r"has no file u\* for public\.u\. Deliver it too",
            id="a table without file",
        ),
        pytest.param(
            {"t.csv": ONE, "u.csv": "id\n", "manifest.csv": "file_name,size\nt.csv,11\nu.csv,3\n"},
            r"t\.csv: 12 bytes, but its manifest says 11",
            id="another size",
        ),
        pytest.param(
            {"t.csv": ONE, "u.csv": "id\n", "manifest.csv": "file_name\nt.csv\n"},
            r"u\.csv was delivered but is not listed",
            id="not in the manifest",
        ),
    ],
)
def test_a_delivery_that_does_not_fit_is_refused_and_leaves_nothing_in_staging(
    site18: MakeSite, delivered: dict[str, str], problem: str
) -> None:
    orders = site18(TWO, TWO_TABLES)
    orders.deliver(delivered)
    with pytest.raises(DeliveryError, match=problem):
        run_ingest(orders)
    (batch,) = orders.history()
    assert batch.status == "FAILED"
    # It has been tried: the landing sensor leaves it alone until it is another.
    assert batch.fingerprint is not None
    assert not (orders.settings.staging / batch.batch_id).exists()
    assert files.of_batch(orders.connection, batch.batch_id) == []


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("3,c\n")


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def cut(path: Path) -> None:
    os.truncate(path, 5)


@pytest.mark.parametrize("change", [append, touch, cut])
def test_a_file_that_changes_while_it_is_read_is_not_complete(
    site18: MakeSite, change: Callable[[Path], None]
) -> None:
    """Given a sender still writing, the delivery is refused; when the sender is done, it is loaded."""
    orders = site18(TABLE)
    orders.deliver({"a.csv": ONE})
    file = orders.landing() / "a.csv"

    def while_reading(chunk: bytes) -> bytes:
        change(file)
        return chunk

    with (
        armed("ingest.copied", while_reading),
        pytest.raises(DeliveryError, match=r"a\.csv: it changed while it was read; run again"),
    ):
        run_ingest(orders)
    (batch,) = orders.history()
    assert batch.status == "FAILED"
    assert not (orders.settings.staging / batch.batch_id).exists()
    assert orders.load({"a.csv": ONE}).status == "SUCCESS"


def test_a_disk_that_fails_is_told_from_a_bad_delivery(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": ONE})

    def full(_: bytes) -> bytes:
        raise OSError(28, "No space left on device")

    with armed("ingest.copied", full), pytest.raises(OSError, match="No space left"):
        run_ingest(orders)
    (batch,) = orders.history()
    assert batch.status == "FAILED"
    assert batch.error_details == "The file system refused: No space left on device."
    assert orders.run().status == "SUCCESS"


# Which content is the same


def test_the_same_bytes_under_a_new_name_are_a_duplicate(site: MakeSite) -> None:
    orders = site(TABLE)
    first = orders.load({"a.csv": ONE})
    orders.deliver({"b.csv": ONE})
    result = run_ingest(orders)
    assert result.duplicate_of == first.batch_id
    assert result.batch.batch_id != first.batch_id
    assert (result.batch.status, result.batch.duplicate_of) == ("DUPLICATE", first.batch_id)
    assert result.batch.written_records == 0
    assert result.batch.completed_at is not None
    assert not (orders.settings.staging / result.batch.batch_id).exists()
    assert orders.stamps() == {first.batch_id: 1}


def test_new_bytes_under_the_same_name_are_a_correction(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.load({"a.csv": ONE})
    orders.deliver({"a.csv": OTHER})
    assert run_ingest(orders).duplicate_of is None


def test_the_same_bytes_for_another_table_are_another_delivery(site18: MakeSite) -> None:
    orders = site18(
        "CREATE TABLE t (id int, import_batch_id uuid); CREATE TABLE u (id int, import_batch_id uuid)",
        TWO_TABLES,
    )
    orders.load({"t.csv": "id\n1\n", "u.csv": "id\n2\n"})
    orders.deliver({"t.csv": "id\n2\n", "u.csv": "id\n1\n"})
    assert run_ingest(orders).duplicate_of is None


def test_the_same_delivery_in_another_order_of_files_is_a_duplicate(site18: MakeSite) -> None:
    orders = site18(TABLE)
    first = orders.load({"a.csv": ONE, "b.csv": OTHER})
    orders.deliver({"a.csv": OTHER, "b.csv": ONE})
    assert run_ingest(orders).duplicate_of == first.batch_id


def test_a_raised_feed_version_loads_the_same_files_again(site18: MakeSite) -> None:
    orders = site18(TABLE)
    first = orders.load({"a.csv": ONE})
    orders.feed = orders.feed.model_copy(update={"version": 2})
    second = orders.run()
    assert (second.status, second.feed_version) == ("SUCCESS", 2)
    assert orders.stamps() == {second.batch_id: 1}
    assert batches.by_id(orders.connection, first.batch_id).status == "SUPERSEDED"


def test_partitions_have_their_own_content(site18: MakeSite) -> None:
    orders = site18("CREATE TABLE t (id int, name text, import_batch_id uuid)")
    first, second = orders.load({"a.csv": ONE}, "a"), orders.load({"a.csv": ONE}, "b")
    assert (first.status, second.status) == ("SUCCESS", "SUCCESS")
    assert orders.stamps() == {first.batch_id: 1, second.batch_id: 1}


def test_a_feed_may_say_that_content_is_unique_in_all_of_it(site18: MakeSite) -> None:
    orders = site18(TABLE, identity="feed")
    first = orders.load({"a.csv": ONE}, "a")
    second = orders.load({"z.csv": ONE}, "b")
    assert (second.status, second.duplicate_of) == ("DUPLICATE", first.batch_id)
    assert orders.stamps() == {first.batch_id: 1}


@pytest.mark.parametrize(
    "status", ["PUBLISHED", "SUCCESS", "PARTIAL_SUCCESS", "VALIDATION_FAILED", "ARCHIVED"]
)
def test_content_is_a_duplicate_while_its_batch_stands(site18: MakeSite, status: str) -> None:
    orders = site18(TABLE)
    first = orders.load({"a.csv": ONE})
    orders.sql("UPDATE batch_audit.import_history SET status = %s", status)
    assert run_ingest(orders).duplicate_of == first.batch_id


@pytest.mark.parametrize("status", ["FAILED", "ROLLED_BACK", "SUPERSEDED", "DUPLICATE"])
def test_and_no_longer(site18: MakeSite, status: str) -> None:
    orders = site18(TABLE)
    orders.load({"a.csv": ONE})
    orders.sql("UPDATE batch_audit.import_history SET status = %s", status)
    result = run_ingest(orders)
    assert (result.duplicate_of, result.batch.status) == (None, "IN_PROGRESS")


def test_what_was_superseded_can_come_back(site18: MakeSite) -> None:
    """Given a correction that was wrong, when the first delivery is delivered again, it is loaded."""
    orders = site18(TABLE)
    orders.load({"a.csv": ONE})
    orders.load({"a.csv": OTHER})
    third = orders.load({"a.csv": ONE})
    assert third.status == "SUCCESS"
    assert [batch.status for batch in orders.history()] == ["SUPERSEDED", "SUPERSEDED", "SUCCESS"]
    assert orders.rows() == [('{"id": 1, "name": "a"}',)]


def test_force_loads_again_what_is_in_force(site: MakeSite) -> None:
    orders = site(TABLE)
    first = orders.load({"a.csv": ONE})
    second = orders.run(force=True)
    assert (second.status, second.attempt) == ("SUCCESS", 2)
    old = batches.by_id(orders.connection, first.batch_id)
    assert (old.status, old.superseded_by) == ("SUPERSEDED", second.batch_id)
    assert orders.stamps() == {second.batch_id: 1}


@pytest.mark.parametrize("done", [3, 4])
def test_a_run_that_finds_its_delivery_loaded_but_not_finished_finishes_it(
    site18: MakeSite, done: int
) -> None:
    """Given a batch whose run ended after publish, when the partition runs again, it goes on."""
    orders = site18(TABLE)
    orders.deliver({"a.csv": ONE})
    first = orders.run(stages=STAGES[:done])
    run_id = new_id()
    finished = orders.run(run_id=run_id)
    assert (finished.batch_id, finished.status) == (first.batch_id, "SUCCESS")
    assert batches.runs(orders.connection, first.batch_id) == [first.batch_id, run_id]
    assert batches.by_id(orders.connection, run_id).status == "DUPLICATE"
    assert set(stages.of_batch(orders.connection, first.batch_id)) == set(STAGES)


def test_what_an_earlier_try_left_in_staging_is_cleared(site18: MakeSite) -> None:
    """Given failed batches with staged copies, when a new run begins, they give their room back."""
    orders = site18(TABLE)
    orders.deliver({"a.csv": "id,name\nx,a\n"})
    with pytest.raises(ThresholdError):
        orders.run()
    (failed,) = orders.history()
    assert (staged(orders, failed.batch_id) / "a.csv").exists()
    batch = orders.load({"a.csv": ONE})
    assert batch.status == "SUCCESS"
    assert not list(orders.settings.staging.iterdir())


def test_a_run_that_was_taken_over_leaves_its_successors_batch_alone(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": ONE})
    with orders.work() as (connection, hung):
        orders.sql("UPDATE batch_audit.batch_lease SET expires_at = now() - interval '1 second'")
        taker = orders.run(stages=STAGES[:1])
        with pytest.raises(LeaseLostError):
            ingest(connection, hung)
    assert orders.history() == [taker]
    assert (staged(orders, taker.batch_id) / "a.csv").exists()


def test_ingest_run_twice_by_one_run_is_done_once(site18: MakeSite) -> None:
    """Given a run whose ingest is tried again, the batch is the same and its files stand once."""
    orders = site18(TABLE)
    orders.deliver({"a.csv": ONE})
    with orders.work() as (connection, work):
        first = ingest(connection, work)
        again = ingest(connection, work)
    assert again.batch.batch_id == first.batch.batch_id
    assert [file.file_name for file in files.of_batch(orders.connection, work.run_id)] == ["a.csv"]
    assert len(orders.history()) == 1
