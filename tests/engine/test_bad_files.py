"""A file that is not what its sender says is set aside, or fails the batch; it is never parsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import crc32c
import pydantic
import pytest

from batch_pipelines.engine.checksum import checksum
from batch_pipelines.engine.errors import DeliveryError, ThresholdError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ingest import ingest
from batch_pipelines.engine.ledger import archives, files
from batch_pipelines.engine.rehearsal import rehearse
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

TABLE = "CREATE TABLE t (id int PRIMARY KEY, name text, import_batch_id uuid)"
TWO = TABLE + "; CREATE TABLE u (id int PRIMARY KEY, import_batch_id uuid)"
A, B = "id,name\n1,a\n2,b\n", "id,name\n3,c\n"
# What would be a reject, were it parsed; and as long as B.
DAMAGED = "id,name\nx,c\n"


def crc(content: str) -> str:
    return f"{crc32c.crc32c(content.encode()):08x}"


def manifest(**promised: str) -> str:
    """Make a manifest.csv of the contents that files (by what stands before .csv) shall have."""
    lines = [f"{name}.csv,{len(content)},{crc(content)}" for name, content in promised.items()]
    return "\n".join(["file_name,size,crc32c", *lines, ""])


def setting_aside(site: MakeSite, **more: object) -> Site:
    return site(TABLE, None, on_bad_file="set_aside", **more)


def ids(site: Site) -> list[int]:
    return [row[0] for row in site.sql("SELECT id FROM public.t ORDER BY 1")]


@pytest.mark.versions
def test_a_bad_file_is_set_aside_and_the_others_are_loaded(site: MakeSite) -> None:
    """Given a delivery with a damaged file, the batch is partial; the file is kept, and told of."""
    orders = setting_aside(site)
    batch = orders.load({"a.csv": A, "b.csv": DAMAGED, "manifest.csv": manifest(a=A, b=B)})
    assert batch.status == "PARTIAL_SUCCESS"
    assert (batch.source_records, batch.written_records, batch.rejected_records) == (2, 2, 0)
    assert ids(orders) == [1, 2]
    whole, bad = files.of_batch(orders.connection, batch.batch_id)
    assert (whole.set_aside, whole.problem, whole.records) == (False, None, 2)
    wrong = f"b.csv: CRC32C is {crc(DAMAGED)}, but its manifest says {crc(B)}"
    assert (bad.set_aside, bad.problem, bad.records) == (True, wrong, None)
    (invalid,) = (
        c for c in files.checksums(orders.connection, batch.batch_id) if c.status == "invalid"
    )
    assert (invalid.entity_type, invalid.entity_id, invalid.error_details) == (
        "file", "b.csv", wrong
    )  # fmt: skip
    archived = archives.bag(orders.connection, batch.batch_id)
    assert archived is not None
    data = Path(archived.place) / "data"
    assert (data / "quarantine" / "files" / "b.csv.zst").exists()
    assert not (data / "source" / "b.csv.zst").exists()
    (_, told) = json.loads((data / "ledger" / "import_file.json").read_text())
    assert told["problem"] == wrong


def test_by_default_a_bad_file_fails_the_batch(site18: MakeSite) -> None:
    orders = site18(TABLE)
    orders.deliver({"a.csv": A, "b.csv": DAMAGED, "manifest.csv": manifest(a=A, b=B)})
    with pytest.raises(DeliveryError, match=r"b\.csv: CRC32C is .* Nothing was written"):
        orders.run()
    assert ids(orders) == []
    _, bad = files.of_batch(orders.connection, orders.newest().batch_id)
    assert bad.problem is not None
    assert not bad.set_aside


@pytest.mark.parametrize("corrected", ["file", "manifest"])
def test_the_corrected_delivery_supersedes(site18: MakeSite, corrected: str) -> None:
    """Whichever of the two was wrong: what is delivered again is not taken for a duplicate."""
    orders = setting_aside(site18)
    right = B if corrected == "file" else "id,name\n4,d\n"
    delivered = DAMAGED if corrected == "file" else right
    first = orders.load({"a.csv": A, "b.csv": delivered, "manifest.csv": manifest(a=A, b=B)})
    again = orders.load({"a.csv": A, "b.csv": delivered, "manifest.csv": manifest(a=A, b=B)})
    assert (again.status, again.duplicate_of) == ("DUPLICATE", first.batch_id)
    last = orders.load({"a.csv": A, "b.csv": right, "manifest.csv": manifest(a=A, b=right)})
    assert last.status == "SUCCESS"
    assert ids(orders) == [1, 2, int(right.split("\n")[1][0])]
    assert [b.status for b in orders.history()] == ["SUPERSEDED", "DUPLICATE", "SUCCESS"]


def test_a_bad_file_never_costs_the_rows_of_the_batch_before(site: MakeSite) -> None:
    """Given a batch in force, a correction with a bad file is refused: it would take rows away."""
    orders = setting_aside(site)
    before = orders.load({"a.csv": A, "b.csv": B})
    orders.deliver({"a.csv": A, "b.csv": DAMAGED, "manifest.csv": manifest(a=A, b=B)})
    with pytest.raises(DeliveryError, match=f"would replace batch {before.batch_id}"):
        orders.run()
    assert ids(orders) == [1, 2, 3]
    assert orders.stamps() == {before.batch_id: 3}
    assert [b.status for b in orders.history()] == ["SUCCESS", "FAILED"]


def test_nor_may_a_table_be_left_without_any_file(site18: MakeSite) -> None:
    both = site18(TWO, {"public.t": "[ab].csv", "public.u": "u.csv"}, on_bad_file="set_aside")
    bad_u = {"a.csv": A, "u.csv": "id\n7\n", "manifest.csv": manifest(a=A, u="id\n8\n")}
    both.deliver(bad_u)
    with pytest.raises(DeliveryError, match=r"No other file is for public\.u"):
        both.run()
    assert both.stamps("public.t") == {}
    bad_b = {"a.csv": A, "b.csv": DAMAGED, "u.csv": "id\n7\n"}
    both.deliver({**bad_b, "manifest.csv": manifest(a=A, b=B, u="id\n7\n")})
    batch = both.run()
    assert batch.status == "PARTIAL_SUCCESS"
    assert both.stamps("public.u") == {batch.batch_id: 1}


def test_a_delivery_of_bad_files_alone_is_refused(site18: MakeSite) -> None:
    orders = setting_aside(site18)
    orders.deliver({"b.csv": DAMAGED, "manifest.csv": manifest(b=B)})
    with pytest.raises(DeliveryError, match="There is no other file"):
        orders.run()
    assert orders.newest().status == "FAILED"


def test_a_threshold_of_files_fails_the_batch(site18: MakeSite) -> None:
    bad = {"a.csv": A, "b.csv": DAMAGED, "manifest.csv": manifest(a=A, b=B)}
    orders = setting_aside(site18, thresholds={"rejected_rows": 0, "rejected_files": "40%"})
    orders.deliver(bad)
    with pytest.raises(ThresholdError, match=r"1 of 2 files are bad, above 40%: b\.csv"):
        orders.run()
    assert ids(orders) == []
    assert orders.newest().status == "FAILED"


def test_limits_of_files_are_for_feeds_that_set_files_aside() -> None:
    with pytest.raises(pydantic.ValidationError, match="goes with `on_bad_file: set_aside`"):
        feed_of({"public.t": "*"}, thresholds={"rejected_files": 1})


@pytest.mark.parametrize(
    ("promise", "problem"),
    [
        pytest.param({"manifest.csv": "file_name,size\na.csv,\nb.csv,13\n"},
                     "b.csv: 12 bytes, but its manifest says 13", id="size"),
        pytest.param({"b.csv.sha256": "0" * 64},
                     "b.csv: sha256 is ", id="sha256"),
        pytest.param({"b.csv.crc32c": "0" * 8},
                     "but its sidecar says 00000000", id="crc32c"),
    ],
)  # fmt: skip
def test_whatever_is_promised_counts(
    site18: MakeSite, promise: dict[str, str], problem: str
) -> None:
    orders = setting_aside(site18)
    batch = orders.load({"a.csv": A, "b.csv": DAMAGED, **promise})
    assert batch.status == "PARTIAL_SUCCESS"
    (row,) = (
        c for c in files.checksums(orders.connection, batch.batch_id) if c.status == "invalid"
    )
    assert problem in (row.error_details or "")
    assert ids(orders) == [1, 2]


def test_a_bad_archive_is_not_even_opened(site18: MakeSite) -> None:
    orders = setting_aside(site18)
    batch = orders.load({"a.csv": A, "b.zip": b"no archive", "b.zip.crc32c": "0" * 8})
    assert batch.status == "PARTIAL_SUCCESS"
    _, bad = files.of_batch(orders.connection, batch.batch_id)
    assert (bad.file_name, bad.format, bad.set_aside) == ("b.zip", "unread", True)


def test_a_staged_copy_that_is_damaged_here_fails_the_batch_all_the_same(site18: MakeSite) -> None:
    """What was delivered may be right: run again, and nothing need be set aside."""
    orders = setting_aside(site18)
    orders.deliver({"a.csv": A, "b.csv": B, "manifest.csv": manifest(a=A, b=B)})
    with (
        armed("ingest.copied", lambda chunk: chunk.replace(b"3", b"4")),
        pytest.raises(DeliveryError, match="staged copy"),
    ):
        orders.run()
    batch = orders.run()
    assert batch.status == "SUCCESS"
    assert ids(orders) == [1, 2, 3]


def test_a_stage_that_is_tried_again_leaves_rows_of_its_own(site: MakeSite) -> None:
    """Given a checksum that failed, when it is retried, both tries are in the audit trail."""
    orders = site(TABLE)
    orders.deliver({"a.csv": A, "manifest.csv": manifest(a=A)})
    with orders.work() as (connection, work):
        ingest(connection, work)
        with (
            armed("checksum.read", lambda chunk: chunk.replace(b"1", b"9")),
            pytest.raises(DeliveryError),
        ):
            checksum(connection, work)
        checksum(connection, work)
    audit = files.checksums(orders.connection, orders.newest().batch_id)
    assert [(c.expected_source, c.status, c.retry_count) for c in audit] == [
        (None, "recorded", 0),
        ("ingest", "invalid", 0),
        ("manifest", "invalid", 0),
        ("ingest", "valid", 1),
        ("manifest", "valid", 1),
    ]


def test_a_rehearsal_tells_what_would_be_set_aside(site18: MakeSite) -> None:
    orders = setting_aside(site18)
    orders.deliver({"a.csv": A, "b.csv": DAMAGED, "manifest.csv": manifest(a=A, b=B)})
    with orders.work() as (connection, work):
        found = rehearse(connection, work)
    assert found.problem is None
    assert [each.inserted for each in found.balances] == [2]
    assert found.set_aside == (f"b.csv: CRC32C is {crc(DAMAGED)}, but its manifest says {crc(B)}",)
    assert ids(orders) == []
