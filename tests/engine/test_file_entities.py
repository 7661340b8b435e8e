"""Files as entities: a feed without tables proves, validates and archives files as they are."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import crc32c
import pydantic
import pytest
import zstandard

from batch_pipelines.engine.errors import DeliveryError, ValidationError
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger import archives, files, proofs
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.rehearsal import rehearse
from tests.engine.verification.support_verify import verify_table
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

# No text, a text that would be CSV, a file of no bytes, and a name without suffix.
CONTENT = {
    "file-001": bytes(range(256)),
    "file-002.csv": b"id\nx,y,z\n",
    "file-003.pdf": b"%PDF-1.7\n\xff\x00",
    "file-004.txt": b"",
}
FEED = {"feed": "letters", "source": {"path": "landing/{batch}/*"}, "tables": "none"}


def manifest(content: dict[str, bytes]) -> str:
    return json.dumps([
        {"file_name": name, "size": len(own), "crc32c": f"{crc32c.crc32c(own):08x}",
         "sha256": hashlib.sha256(own).hexdigest()}
        for name, own in content.items()
    ])  # fmt: skip


def letters(site: MakeSite, **more: object) -> Site:
    made = site("SELECT")
    made.feed = Feed.model_validate({**FEED, "entity_type": "document", **more})
    return made


@pytest.mark.versions
def test_files_are_entities_with_the_type_that_the_feed_gives(site: MakeSite) -> None:
    """Given documents and their manifest, each is checked, validated and archived, and none read."""
    mail = letters(site)
    batch = mail.load({**CONTENT, "manifest.json": manifest(CONTENT)})
    assert batch.status == "SUCCESS"
    assert (batch.source_records, batch.written_records) == (0, 0)
    rows = mail.sql(
        "SELECT entity_id, computed_crc32, array_agg(coalesce(expected_source, '-')"
        " ORDER BY created_at) FROM batch_audit.crc32_audit WHERE entity_type = 'document'"
        " AND batch_id = %s AND status <> 'invalid' GROUP BY 1, 2 ORDER BY 1",
        batch.batch_id,
    )
    assert rows == [
        (name, crc32c.crc32c(own), ["-", "ingest", "manifest", "manifest"])
        for name, own in CONTENT.items()
    ]
    assert (
        mail.count("SELECT count(*) FROM batch_audit.crc32_audit WHERE entity_type = 'file'") == 0
    )
    (found,) = proofs.validations(mail.connection, batch.batch_id)
    assert (found.target_table, found.src_records, found.tgt_records, found.status) == (
        "none", 4, 4, "SUCCESS"
    )  # fmt: skip
    assert [check.name for check in found.checks] == [
        "files", "manifest.manifest.json", "checksums", "promises"
    ]  # fmt: skip
    archived = archives.bag(mail.connection, batch.batch_id)
    assert archived is not None
    for name, own in CONTENT.items():
        packed = (Path(archived.place) / "data" / "source" / f"{name}.zst").read_bytes()
        assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == own


def test_a_bad_document_is_set_aside_or_fails_the_batch(site18: MakeSite) -> None:
    spoiled = {**CONTENT, "file-003.pdf": b"%PDF-1.7\n\xff\x01", "manifest.json": manifest(CONTENT)}
    strict = letters(site18)
    strict.deliver(spoiled)
    with pytest.raises(DeliveryError, match=r"file-003\.pdf: CRC32C is"):
        strict.run()
    assert strict.newest().status == "FAILED"
    strict.feed = strict.feed.model_copy(update={"on_bad_file": "set_aside"})
    batch = strict.run()
    assert batch.status == "PARTIAL_SUCCESS"
    invalid = strict.sql(
        "SELECT DISTINCT entity_type, entity_id FROM batch_audit.crc32_audit"
        " WHERE batch_id = %s AND status = 'invalid'",
        batch.batch_id,
    )
    assert invalid == [("document", "file-003.pdf")]
    (found,) = proofs.validations(strict.connection, batch.batch_id)
    assert (found.src_records, found.tgt_records, found.status) == (3, 3, "SUCCESS")
    corrected = strict.load({**CONTENT, "manifest.json": manifest(CONTENT)})
    assert corrected.status == "SUCCESS"
    assert [b.status for b in strict.history()] == ["FAILED", "SUPERSEDED", "SUCCESS"]


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_the_files_are_those_of_the_manifest(site18: MakeSite, change: str) -> None:
    mail = letters(site18)
    delivered = {**CONTENT, "manifest.json": manifest(CONTENT)}
    if change == "missing":
        del delivered["file-001"]
    else:
        delivered["file-005"] = b"5"
    mail.deliver(delivered)
    with pytest.raises(
        DeliveryError, match=r"is listed but was not|was delivered but is not listed"
    ):
        mail.run()


def test_without_a_promise_validation_says_that_nothing_was_verified(site18: MakeSite) -> None:
    mail = letters(site18)
    batch = mail.load(CONTENT)
    assert batch.status == "SUCCESS"
    (found,) = proofs.validations(mail.connection, batch.batch_id)
    assert {check.name: check.status for check in found.checks} == {
        "files": "SUCCESS", "checksums": "SUCCESS", "promises": "UNVERIFIED"
    }  # fmt: skip
    assert found.status == "UNVERIFIED"


def test_a_document_that_changes_in_staging_is_found(site18: MakeSite) -> None:
    mail = letters(site18)
    mail.deliver({**CONTENT, "manifest.json": manifest(CONTENT)})
    run_id = mail.run(stages=STAGES[:3]).batch_id
    copy = mail.settings.staging / run_id / "source" / "file-001"
    copy.chmod(0o644)
    copy.write_bytes(b"other")
    with pytest.raises(
        ValidationError, match="files differ from their source in checksums, promises"
    ):
        mail.run(run_id=run_id, stages=STAGES[3:])
    assert mail.newest().status == "VALIDATION_FAILED"


def test_the_same_again_is_a_duplicate_and_another_name_is_not(site18: MakeSite) -> None:
    mail = letters(site18)
    first = mail.load(CONTENT)
    assert mail.run().duplicate_of == first.batch_id
    renamed = {"other" if name == "file-001" else name: own for name, own in CONTENT.items()}
    last = mail.load(renamed)
    assert last.status == "SUCCESS"
    names = [file.file_name for file in files.of_batch(mail.connection, last.batch_id)]
    assert names == ["file-002.csv", "file-003.pdf", "file-004.txt", "other"]


def test_the_files_of_a_bag_are_verified_against_the_ledger(site18: MakeSite) -> None:
    mail = letters(site18)
    batch = mail.load({**CONTENT, "manifest.json": manifest(CONTENT)})
    found = verify_table(mail, batch)
    assert (found.target_table, found.status, found.exception) == ("none", "SUCCESS", None)
    assert (found.expected_rows, found.actual_rows) == (4, 4)
    archived = archives.bag(mail.connection, batch.batch_id)
    assert archived is not None
    bag = Path(archived.place)
    flip(bag / "data" / "source" / "file-003.pdf.zst")
    (bag / "data" / "source" / "file-001.zst").unlink()
    found = verify_table(mail, batch)
    assert (found.status, found.expected_rows, found.actual_rows) == ("FAILED", 4, 3)
    assert [(each.kind, each.file_name) for each in found.details] == [
        ("missing", "file-001"), ("changed", "file-003.pdf"),
    ]  # fmt: skip
    assert found.exception is None
    logged = mail.sql("SELECT target_table, status, changed, missing FROM"
                      " batch_audit.verification_log ORDER BY id")  # fmt: skip
    assert logged == [("none", "SUCCESS", 0, 0), ("none", "FAILED", 1, 1)]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("data/source/manifest.json.zst", "1 other files are not as they were written"),
        ("data/added", "1 other files are not as they were written: data/added"),
        ("manifest-sha256.txt", "its manifests are not those that the ledger vouches for"),
        ("tagmanifest-sha256.txt", "its manifests are not those that the ledger vouches for"),
    ],
)
def test_the_rest_of_the_bag_is_verified_as_well(site18: MakeSite, damage: str, said: str) -> None:
    mail = letters(site18)
    batch = mail.load({**CONTENT, "manifest.json": manifest(CONTENT)})
    archived = archives.bag(mail.connection, batch.batch_id)
    assert archived is not None
    path = Path(archived.place) / damage
    if path.exists():
        flip(path)
    else:
        path.touch()
    found = verify_table(mail, batch)
    assert (found.status, found.actual_rows, found.details) == ("FAILED", 4, [])
    assert said in (found.exception or "")


def test_until_there_is_a_bag_the_staged_files_are_verified(site18: MakeSite) -> None:
    mail = letters(site18)
    mail.deliver(CONTENT)
    batch = mail.run(stages=STAGES[:4])
    assert verify_table(mail, batch).status == "SUCCESS"
    staged = mail.settings.staging / batch.batch_id
    flip(staged / "source" / "file-001")
    assert verify_table(mail, batch).status == "FAILED"
    shutil.rmtree(staged)
    found = verify_table(mail, batch)
    assert (found.status, found.actual_rows) == ("UNVERIFIED", None)
    assert "staging has nothing of it" in (found.exception or "")


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file, which stays as long as it was."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def test_a_rehearsal_changes_nothing(site18: MakeSite) -> None:
    mail = letters(site18)
    mail.deliver(CONTENT)
    with mail.work() as (connection, work):
        found = rehearse(connection, work)
    assert (found.problem, found.balances, found.set_aside) == (None, (), ())
    assert mail.history() == []


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"tables": []}, "should have at least 1 item"),
        ({"entity_type": "chunk"}, "'chunk' is taken"),
        ({"format": {"delimiter": ";"}}, "nothing that `format` could be about"),
        ({"thresholds": {"rejected_rows": 1}}, r"nothing that `thresholds\.rejected_rows` could"),
        ({"ddl": "tables.sql"}, "nothing that `ddl` could be about"),
    ],
)
def test_what_is_about_tables_needs_tables(more: dict[str, object], problem: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=problem):
        Feed.model_validate({**FEED, **more})


def test_an_entity_type_is_for_feeds_without_tables() -> None:
    with pytest.raises(pydantic.ValidationError, match="for feeds with `tables: none`"):
        feed_of({"public.t": "*"}, entity_type="document")
