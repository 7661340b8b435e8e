"""Deliveries in a bucket go through the stages like those in a folder, proven by what it keeps."""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import TYPE_CHECKING

import crc32c
import pytest

from batch_pipelines.engine.errors import BatchError, DeliveryError
from batch_pipelines.engine.ledger import files
from batch_pipelines.engine.places import s3_object
from batch_pipelines.engine.rehearsal import rehearse
from tests.support_engine import KEY, Site
from tests.support_s3 import KEY_ID, SECRET, Answer, Request, Store, encoded, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.conftest import MakeSite

TABLE = "CREATE TABLE t (id int PRIMARY KEY, name text, import_batch_id uuid)"
CONTENT = "id,name\n1,a\n2,b\n"
CRC = crc32c.crc32c(CONTENT.encode())
LEAST_PART = 5 * 1024 * 1024


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_object, "PAUSE_SECONDS", 0)


@pytest.fixture
def orders(site18: MakeSite, store: Store) -> Site:
    return site18(TABLE, source={"path": f"s3://{store.bucket}/in/{{batch}}/*"})


def put_with_crc(store: Store, name: str, content: bytes) -> None:
    more = {"ChecksumAlgorithm": "CRC32C", "ChecksumCRC32C": encoded(content)}
    store.put(f"in/{KEY}/{name}", content, **more)


def put_in_parts(store: Store, name: str) -> list[bytes]:
    """Put a CSV file of two whole parts and a rest; give the parts."""
    rows = "".join(f"{number},{'x' * 100_000}\n" for number in range(110))
    content = f"id,name\n{rows}".encode()
    parts = [content[at : at + LEAST_PART] for at in range(0, len(content), LEAST_PART)]
    store.put_parts(f"in/{KEY}/{name}", parts)
    return parts


def audit(site: Site) -> list[tuple[str, str, int, int | None, str | None, str]]:
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
        if c.entity_type != "chunk"
    ]


def refused(site: Site) -> str:
    """Run, and give the error; nothing is in the table, and the ledger says why and no secret."""
    with pytest.raises(BatchError) as error:
        site.run()
    batch = site.newest()
    assert (batch.status, batch.error_details) == ("FAILED", str(error.value))
    assert site.count("SELECT count(*) FROM t") == 0
    for secret in (SECRET, KEY_ID, "127.0.0.1"):
        assert secret not in str(error.value)
    return str(error.value)


def flip_last(request: Request, answer: Answer) -> Answer:
    """Change the last letter of what an object says on its way here."""
    if not request.is_read or answer.status != 200:
        return answer
    body = answer.body.rstrip(b"\n")
    return Answer(answer.status, answer.headers, body[:-1] + b"!" + answer.body[len(body) :])


def test_a_delivery_in_a_bucket_is_loaded(orders: Site, store: Store) -> None:
    """Given files of every kind in a bucket, they are staged, proven and loaded as from a folder."""
    put_with_crc(store, "a.csv", CONTENT.encode())
    store.put(f"in/{KEY}/b c+ü.csv.gz", gzip.compress(b"id,name\n3,c\n"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("d.csv", "id,name\n4,d\n")
    store.put(f"in/{KEY}/d.zip", packed.getvalue())
    last = "id,name\n5,e\n"
    store.put(f"in/{KEY}/e.csv", last)
    store.put(f"in/{KEY}/e.csv.crc32c", f"{crc32c.crc32c(last.encode()):08x}")
    store.put(
        f"in/{KEY}/manifest.csv",
        f"file_name,size\na.csv,{len(CONTENT)}\nb c+ü.csv.gz,\nd.zip,\ne.csv,\n",
    )
    batch = orders.run()
    assert batch.status == "SUCCESS"
    assert len(orders.rows()) == 5
    assert orders.stamps() == {batch.batch_id: 5}
    found = {file.file_name: file for file in files.of_batch(orders.connection, batch.batch_id)}
    assert {name: file.expected_source for name, file in found.items()} == {
        "a.csv": "object_metadata",
        "b c+ü.csv.gz": None,
        "d.zip": None,
        "e.csv": "sidecar",
    }
    assert ("file", "a.csv", CRC, CRC, "object_metadata", "valid") in audit(orders)
    assert orders.run().status == "DUPLICATE"


def test_a_delivery_of_parts_is_proven_by_the_checksum_of_its_parts(
    orders: Site, store: Store
) -> None:
    """Given a multipart object, its composite checksum is compared as such, the file's recorded."""
    parts = put_in_parts(store, "a.csv")
    whole = crc32c.crc32c(b"".join(parts))
    composite = crc32c.crc32c(b"".join(crc32c.crc32c(p).to_bytes(4, "big") for p in parts))
    assert orders.run().status == "SUCCESS"
    assert audit(orders) == [
        ("file", "a.csv", whole, None, None, "recorded"),
        ("composite", "a.csv", composite, composite, "object_metadata", "valid"),
        ("file", "a.csv", whole, whole, "ingest", "valid"),
    ]


def test_where_the_parts_are_not_told_nothing_is_claimed(orders: Site, store: Store) -> None:
    put_in_parts(store, "a.csv")
    store.meddle = lambda request, answer: (
        answer if request.is_read or request.is_listing else refusal(403, "AccessDenied")
    )
    assert orders.run().status == "SUCCESS"
    assert [(row[0], row[-1]) for row in audit(orders)] == [("file", "recorded"), ("file", "valid")]


def test_a_byte_that_changes_on_the_way_is_found(orders: Site, store: Store) -> None:
    put_with_crc(store, "a.csv", CONTENT.encode())
    store.meddle = flip_last
    now = crc32c.crc32c(CONTENT[:-2].encode() + b"!\n")
    assert refused(orders) == (
        f"a.csv: CRC32C is {now:08x}, but its object_metadata says {CRC:08x}. Nothing was written. "
        "Deliver what is right, and run again."
    )
    assert audit(orders)[-1] == ("file", "a.csv", now, CRC, "object_metadata", "invalid")
    store.meddle = lambda _, answer: answer
    assert orders.run().status == "SUCCESS"


def test_a_byte_of_a_part_that_changes_on_the_way_is_found(orders: Site, store: Store) -> None:
    put_in_parts(store, "a.csv")
    store.meddle = flip_last
    message = refused(orders)
    (row,) = [row for row in audit(orders) if row[0] == "composite"]
    assert row[-2:] == ("object_metadata", "invalid")
    assert message == (
        f"a.csv: composite CRC32C of its 3 parts is {row[2]:08x}, but its object_metadata says "
        f"{row[3]:08x}. Nothing was written. Deliver what is right, and run again."
    )
    # Nor does a stage that is tried again alone forget it.
    with pytest.raises(DeliveryError, match="composite CRC32C of its 3 parts"):
        orders.run(stages=["checksum"])
    with (
        orders.work() as (connection, work),
        pytest.raises(DeliveryError, match="composite CRC32C"),
    ):
        rehearse(connection, work)
    store.meddle = lambda _, answer: answer
    assert orders.run().status == "SUCCESS"


def test_a_sidecar_may_not_contradict_the_store(orders: Site, store: Store) -> None:
    put_with_crc(store, "a.csv", CONTENT.encode())
    store.put(f"in/{KEY}/a.csv.crc32c", "00000000")
    assert refused(orders) == (
        f"s3://{store.bucket}/in/{KEY}/a.csv: its sidecar says CRC32C 00000000, its object_metadata "
        f"{CRC:08x}. Deliver the file or its sidecar again."
    )
    store.put(f"in/{KEY}/a.csv.crc32c", f"{CRC:08x}")
    assert orders.run().status == "SUCCESS"


def test_a_store_that_fails_now_and_then_is_asked_again(orders: Site, store: Store) -> None:
    for number in range(3):
        store.put(f"in/{KEY}/{number}.csv", f"id,name\n{number},a\n")
    count = [0]

    def third(_: Request, answer: Answer) -> Answer:
        count[0] += 1
        return refusal(503, "SlowDown") if count[0] % 3 == 0 else answer

    store.meddle = third
    assert orders.run().status == "SUCCESS"
    assert len(orders.rows()) == 3
    assert count[0] > 3


def test_a_transfer_that_cannot_be_ended_fails_the_batch_and_the_next_run_loads_it(
    orders: Site, store: Store
) -> None:
    store.put(f"in/{KEY}/a.csv", CONTENT)
    store.meddle = lambda request, answer: (
        Answer(answer.status, answer.headers, answer.body[:1]) if request.is_read else answer
    )
    assert "a.csv: its transfer broke 6 times, last at byte" in refused(orders)
    assert not list(orders.settings.staging.iterdir())
    store.meddle = lambda _, answer: answer
    assert orders.run().status == "SUCCESS"


@pytest.mark.parametrize("name", ["a.csv", "manifest.csv"])
def test_an_object_that_is_replaced_between_listing_and_reading(
    orders: Site, store: Store, name: str
) -> None:
    """Given a sender still delivering, nothing is loaded until the sender is done."""
    manifest = "file_name\na.csv\n"
    store.put(f"in/{KEY}/a.csv", CONTENT)
    store.put(f"in/{KEY}/manifest.csv", manifest)

    def replaced(request: Request, answer: Answer) -> Answer:
        if request.is_listing:
            store.put(f"in/{KEY}/{name}", "something else\n")
        return answer

    store.meddle = replaced
    assert f"in/{KEY}/{name}: it changed while it was read; run again" in refused(orders)
    store.meddle = lambda _, answer: answer
    store.put(f"in/{KEY}/a.csv", CONTENT)
    store.put(f"in/{KEY}/manifest.csv", manifest)
    assert orders.run().status == "SUCCESS"


def test_a_delivery_that_is_too_large_is_not_even_read(site18: MakeSite, store: Store) -> None:
    path = f"s3://{store.bucket}/in/{{batch}}/*"
    small = site18(TABLE, source={"path": path}, limits={"bytes": 3})
    store.put(f"in/{KEY}/a.csv", CONTENT)
    assert "above the feed's limit of 3" in refused(small)
    assert not store.asked(lambda request: request.is_read)


def none_there(_: Request, __: Answer) -> Answer:
    return refusal(404, "NoSuchBucket")


def denied(_: Request, __: Answer) -> Answer:
    return refusal(403, "AccessDenied")


@pytest.mark.parametrize(
    ("meddle", "problem"),
    [(none_there, "there is no such bucket"), (denied, "the store denies access")],
)
def test_a_store_that_refuses_fails_the_batch(
    orders: Site, store: Store, meddle: Callable[[Request, Answer], Answer], problem: str
) -> None:
    store.put(f"in/{KEY}/a.csv", CONTENT)
    store.meddle = meddle
    assert refused(orders).startswith(f"s3://{store.bucket}: {problem}")


def test_where_nothing_lies_the_url_is_named(orders: Site, store: Store) -> None:
    assert refused(orders) == (
        f"orders/{KEY}: there is no file s3://{store.bucket}/in/{KEY}/*. Deliver it and run again."
    )
