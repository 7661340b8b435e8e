"""Checksum: what is about to be loaded is what was delivered, or nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import crc32c
import pyarrow as pa
import pytest

from batch_pipelines.engine.checksum import ChecksumResult, checksum
from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ingest import ingest
from batch_pipelines.engine.ledger import files, stages
from batch_pipelines.engine.ledger.stages import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

TABLE = "CREATE TABLE t (id int, name text, import_batch_id uuid)"
CONTENT = "id,name\n1,a\n2,b\n"
CRC = crc32c.crc32c(CONTENT.encode())


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


def run_checksum(site: Site) -> ChecksumResult:
    """Ingest and check, as one run."""
    with site.work() as (connection, work):
        ingest(connection, work)
        return checksum(connection, work)


def audit(site: Site) -> list[tuple[object, ...]]:
    return [
        (
            c.entity_type,
            c.entity_id,
            c.computed_crc32,
            c.expected_crc32,
            c.expected_source,
            c.status,
        )
        for c in files.checksums(site.connection, site.newest().batch_id)
    ]


def refused(site: Site) -> str:
    """Run all stages; the delivery is refused, and nothing of it is anywhere. Returns why."""
    with pytest.raises(DeliveryError) as error:
        site.run()
    batch = site.newest()
    assert (batch.status, batch.error_details) == ("FAILED", str(error.value))
    records = stages.of_batch(site.connection, batch.batch_id)
    assert {name: stage.status for name, stage in records.items()} == {
        "ingest": "SUCCESS",
        "checksum": "FAILED",
    }
    assert batch.batch_id not in site.stamps()
    return str(error.value)


# What holds


@pytest.mark.versions
def test_a_delivery_without_promises_is_compared_with_what_ingest_saw(site: MakeSite) -> None:
    orders = site(TABLE)
    orders.deliver({"a.csv": CONTENT})
    result = run_checksum(orders)
    assert result.worked
    assert result.bytes_processed == len(CONTENT)
    assert audit(orders) == [
        ("file", "a.csv", CRC, None, None, "recorded"),
        ("file", "a.csv", CRC, CRC, "ingest", "valid"),
    ]


def test_and_with_what_the_sender_promised(site: MakeSite) -> None:
    orders = site(TABLE)
    orders.deliver(
        {
            "a.csv": CONTENT,
            "b.csv": CONTENT,
            "c.csv": CONTENT,
            "a.csv.crc32c": f"{CRC:08X}  a.csv\n",
            "manifest.csv": f"file_name,size,crc32c\na.csv,,\nb.csv,16,{CRC:08x}\nc.csv,16,\n",
        }
    )
    run_checksum(orders)
    checked = [row for row in audit(orders) if row[-1] != "recorded"]
    assert checked == [
        ("file", "a.csv", CRC, CRC, "ingest", "valid"),
        ("file", "a.csv", CRC, CRC, "sidecar", "valid"),
        ("file", "b.csv", CRC, CRC, "ingest", "valid"),
        ("file", "b.csv", CRC, CRC, "manifest", "valid"),
        ("file", "c.csv", CRC, CRC, "ingest", "valid"),
    ]


def test_of_a_large_file_every_chunk_is_compared(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 6)
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})
    run_checksum(orders)
    checked = [row for row in audit(orders) if row[-1] != "recorded"]
    content = CONTENT.encode()
    chunks = [(0, 5), (6, 11), (12, 15)]
    assert checked == [
        *(
            ("chunk", f"a.csv@{first}-{last}", crc, crc, "ingest", "valid")
            for first, last in chunks
            for crc in [crc32c.crc32c(content[first : last + 1])]
        ),
        ("file", "a.csv", CRC, CRC, "ingest", "valid"),
    ]


def test_the_same_pass_counts_the_records(site18: MakeSite) -> None:
    orders = site18(
        TABLE + "; CREATE TABLE u (id int, import_batch_id uuid)",
        {"public.t": "*.csv", "public.u": "*.parquet"},
    )
    orders.deliver(
        {
            "a.csv": 'id,name\n1,"a\nb"\n\n2,b\n',
            "b.csv": "id,name\n",
            "u.parquet": pa.table({"id": list(range(7))}),
        }
    )
    result = run_checksum(orders)
    assert {file.file_name: file.records for file in result.files} == {
        "a.csv": 2, "b.csv": 0, "u.parquet": 7,
    }  # fmt: skip
    assert orders.newest().source_records == 9


@pytest.mark.parametrize("size", [4, 7, 13])
def test_records_are_counted_across_chunks(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Wherever a chunk ends: in a quoted line end, between two quotes or in a byte order mark."""
    monkeypatch.setattr(files, "CHUNK_BYTES", size)
    orders = site18(TABLE)
    lines = "".join(f'{number},"a\n""\n"\r\n' for number in range(20))
    orders.deliver({"a.csv": "\ufeffid,name\r\n" + lines})
    (file,) = run_checksum(orders).files
    assert file.records == 20


def test_a_quote_that_is_not_closed_costs_its_line(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": 'id,name\n1,"a\n2,b\n3,c'})
    (file,) = run_checksum(orders).files
    assert file.records == 3


def test_asked_again_it_reports_and_changes_nothing(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})
    orders.run(stages=["ingest", "checksum", "bulk_write"])
    before = audit(orders)
    with orders.work() as (connection, work):
        result = checksum(connection, work)
    assert not result.worked
    assert [file.records for file in result.files] == [2]
    assert audit(orders) == before


# What does not


@pytest.mark.parametrize("place", [0, 9, len(CONTENT) - 1])
@pytest.mark.parametrize("source", ["sidecar", "manifest"])
def test_one_byte_changed_in_landing_is_found_by_what_the_sender_promised(
    site18: MakeSite, source: str, place: int
) -> None:
    """Given a delivery damaged on its way, then no row is written, and file and checksums are named."""
    orders = site18(TABLE)
    damaged = flipped(CONTENT.encode(), place)
    promise = {
        "sidecar": {"a.csv.crc32c": f"{CRC:08x}"},
        "manifest": {"manifest.csv": f"file_name,crc32c\na.csv,{CRC:08x}\n"},
    }[source]
    orders.deliver({"a.csv": damaged, **promise})
    now = crc32c.crc32c(damaged)
    assert refused(orders) == (
        f"a.csv: CRC32C is {now:08x}, but its {source} says {CRC:08x}. Nothing was written. "
        "Deliver what is right, and run again."
    )
    assert audit(orders)[-2:] == [
        ("file", "a.csv", now, now, "ingest", "valid"),
        ("file", "a.csv", now, CRC, source, "invalid"),
    ]
    ((details,),) = orders.sql(
        "SELECT error_details FROM batch_audit.crc32_audit WHERE status = 'invalid'"
    )
    assert f"{now:08x}" in details
    assert f"{CRC:08x}" in details
    assert orders.count("SELECT count(*) FROM t") == 0

    orders.deliver({"a.csv": CONTENT, **promise})
    assert orders.run().status == "SUCCESS"


def test_all_damaged_files_are_named(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver(
        {
            "a.csv": CONTENT, "a.csv.crc32c": "00000000",
            "b.csv": CONTENT, "b.csv.crc32c": f"{CRC:08x}",
            "c.csv": CONTENT, "c.csv.crc32c": "11111111",
        }
    )  # fmt: skip
    message = refused(orders)
    assert "a.csv: CRC32C is" in message
    assert "c.csv: CRC32C is" in message
    assert "b.csv" not in message


def change_staged(site: Site, batch_id: str, place: int) -> None:
    """Change one byte of the staged copy, as a bad disk would."""
    copy = site.settings.staging / batch_id / "source" / "a.csv"
    content = copy.read_bytes()
    copy.chmod(0o600)
    copy.write_bytes(flipped(content, place))


def test_one_byte_changed_in_the_staged_copy(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a staged copy that has changed on disk, then file and place are named, nothing written."""
    monkeypatch.setattr(files, "CHUNK_BYTES", 6)
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})
    batch = orders.run(stages=["ingest"])
    change_staged(orders, batch.batch_id, 8)
    now = crc32c.crc32c(flipped(CONTENT.encode(), 8))
    with pytest.raises(DeliveryError) as error:
        orders.run(stages=STAGES[1:])
    assert str(error.value).startswith(
        f"a.csv: CRC32C of the staged copy is {now:08x}, ingest saw {CRC:08x}. Nothing was written."
    )
    assert {row[1]: row[-1] for row in audit(orders) if row[-1] != "recorded"} == {
        "a.csv@0-5": "valid",
        "a.csv@6-11": "invalid",
        "a.csv@12-15": "valid",
        "a.csv": "invalid",
    }
    assert orders.newest().status == "FAILED"
    assert orders.stamps() == {}


def test_a_bit_flipped_while_copying_is_found(site18: MakeSite) -> None:
    """Given a copy that differs from what was read, when it is read again, it is found."""
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})
    with armed("ingest.copied", lambda chunk: flipped(chunk, 8)):
        assert f"ingest saw {CRC:08x}" in refused(orders)
    assert orders.run().status == "SUCCESS"


def test_a_bit_flipped_while_reading_back_is_found(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})
    with armed("checksum.read", lambda chunk: flipped(chunk, 8) if chunk else chunk):
        assert f"ingest saw {CRC:08x}" in refused(orders)


@pytest.mark.parametrize("damage", ["cut", "longer", "gone"])
def test_a_staged_copy_that_was_cut_or_is_gone(site18: MakeSite, damage: str) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})
    batch = orders.run(stages=["ingest"])
    copy: Path = orders.settings.staging / batch.batch_id / "source" / "a.csv"
    copy.chmod(0o600)
    match damage:
        case "cut":
            copy.write_text(CONTENT[:-4])
        case "longer":
            copy.write_text(CONTENT + "3,c\n")
        case "gone":
            copy.unlink()
    problem = "the staged copy is gone" if damage == "gone" else "CRC32C of the staged copy is"
    with pytest.raises(DeliveryError, match=problem):
        orders.run(stages=STAGES[1:])
    assert orders.newest().status == "FAILED"
    assert orders.stamps() == {}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", b"", "the file is empty; expected a header line"),
        ("a.parquet", b"PAR1", "not a whole Parquet file"),
    ],
)
def test_a_file_whose_records_cannot_be_counted(
    site18: MakeSite, name: str, content: bytes, problem: str
) -> None:
    orders = site18(TABLE)
    orders.deliver({name: content})
    assert problem in refused(orders)


def test_a_failed_batch_can_be_checked_again(site18: MakeSite) -> None:
    """Given a checksum that failed for a passing reason, when it is tried again, the batch goes on."""
    orders = site18(TABLE)
    orders.deliver({"a.csv": CONTENT})

    def once() -> Iterator[bytes]:
        yield flipped(CONTENT.encode(), 8)

    wrong = once()
    with (
        armed("checksum.read", lambda chunk: next(wrong, chunk)),
        pytest.raises(DeliveryError, match="CRC32C of the staged copy"),
    ):
        orders.run()
    failed = orders.newest()
    batch = orders.run(stages=STAGES[1:])
    assert (batch.batch_id, batch.status) == (failed.batch_id, "SUCCESS")
