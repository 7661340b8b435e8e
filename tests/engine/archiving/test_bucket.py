"""A bucket as an archive: a bag stands there whole or not at all, whatever the store does meanwhile."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest

from batch_pipelines.engine.archiving.bag import open_bag
from batch_pipelines.engine.archiving.bucket import ArchiveBucket
from batch_pipelines.engine.archiving.choosing import open_archive
from batch_pipelines.engine.archiving.verify import ArchiveVerifier
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import ArchiveError, LeaseLostError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import archives, stages
from batch_pipelines.engine.ledger.stages import STAGES
from tests.engine.verification.support_verify import verify_table
from tests.support_engine import feed_of
from tests.support_s3 import Answer, Request, failing_every, no_pauses, refusal

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site
    from tests.support_s3 import Store

DDL = "CREATE TABLE t (id int PRIMARY KEY, note text, import_batch_id uuid)"
ROWS = "id,note\n" + "".join(f"{n},note {n}\n" for n in range(100))


class Died(BaseException):
    """The process is gone: nothing is tidied up that an exception would have tidied."""


def die(*_: object) -> NoReturn:
    raise Died


@pytest.fixture
def site(site18: MakeSite, store: Store) -> Site:
    """A site whose bags go into a bucket."""
    site = site18(DDL)
    site.feed = feed_of({"public.t": "*"}, thresholds={})
    address = f"s3://{store.bucket}/all/bags"
    site.settings = site.settings.model_copy(update={"archive": address})
    return site


def validated(site: Site) -> Batch:
    site.deliver({"a.csv": ROWS, "b.csv": "id,note\nx,bad\n"})
    return site.run(stages=STAGES[:4])


def keys(store: Store) -> list[str]:
    listed = store.client.list_objects_v2(Bucket=store.bucket)
    return [entry["Key"] for entry in listed.get("Contents", ())]


def assert_archived(site: Site, store: Store, batch: Batch, folder: Path) -> str:
    """Check that the bucket holds one bag and nothing else, which any tool validates once it is here."""
    record = archives.bag(site.connection, batch.batch_id)
    assert record is not None
    start = record.place.removeprefix(f"s3://{store.bucket}/") + "/"
    assert start.startswith(f"all/bags/orders/first/{batch.batch_id}.")
    found = keys(store)
    assert all(key.startswith(start) for key in found)
    for key in found:
        target = folder / "copy" / key.removeprefix(start)
        target.parent.mkdir(parents=True, exist_ok=True)
        store.client.download_file(store.bucket, key, str(target))
    tool = [sys.executable, "-m", "bagit", "--validate", str(folder / "copy")]
    assert subprocess.run(tool, check=False, capture_output=True).returncode == 0
    assert stages.of_batch(site.connection, batch.batch_id)["archive"].status == "SUCCESS"
    assert not site.settings.staging.exists() or [*site.settings.staging.iterdir()] == []
    assert [*(site.settings.home / "archiving").iterdir()] == []
    with open_bag(site.connection, site.settings, batch.batch_id) as bag:
        bag.copy("source/a.csv", folder / "a.csv")
    assert (folder / "a.csv").read_text() == ROWS
    return record.place


def test_a_bag_goes_into_a_bucket_its_seal_last(site: Site, store: Store, tmp_path: Path) -> None:
    batch = validated(site)
    store.requests.clear()
    site.run(stages=["archive"])
    place = assert_archived(site, store, batch, tmp_path)
    puts = [request.path for request in store.requests if request.method == "PUT"]
    assert puts[-1].startswith(f"/{store.bucket}/")
    assert puts[-1].split("?")[0].endswith("/tagmanifest-sha256.txt")
    archive = open_archive(site.settings, str(site.settings.archive))
    assert [archive.place(bag) for bag in archive.bags()] == [place]


def test_rows_are_proven_and_records_replayed_from_a_bucket(site: Site, store: Store) -> None:
    batch = validated(site)
    site.run(stages=["archive"])
    site.sql("UPDATE t SET note = 'other' WHERE id = 7")
    (row,) = verify_table(site, batch).details
    assert (row.key, row.columns) == ({"id": "7"}, ["note"])
    site.sql("UPDATE t SET note = 'note 7' WHERE id = 7; ALTER TABLE t ALTER id TYPE text")
    with site.work() as (connection, work):
        bulk_write(connection, work, replay=True)
    site.run(stages=["validate", "archive"])
    first, second = archives.of_batch(site.connection, batch.batch_id)
    assert f"/{batch.batch_id}.replay-1." in second.place
    assert f"/{batch.batch_id}." in first.place


def test_a_store_that_fails_every_third_request_gets_its_bag(
    site: Site, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_pauses(monkeypatch)
    batch = validated(site)
    store.meddle = failing_every(3)
    site.run(stages=["archive"])
    store.meddle = lambda _, answer: answer
    assert_archived(site, store, batch, tmp_path)


@pytest.mark.parametrize("place", ["archive.uploading", "archive.secured"])
def test_what_a_dead_run_left_is_no_bag_and_is_swept(
    site: Site, store: Store, tmp_path: Path, place: str
) -> None:
    batch = validated(site)
    with armed(place, die), pytest.raises(Died):
        site.run(stages=["archive"])
    archive = open_archive(site.settings, str(site.settings.archive))
    assert [*archive.bags()] == []
    assert archives.bag(site.connection, batch.batch_id) is None
    site.run(stages=["archive"])
    assert_archived(site, store, batch, tmp_path)


def test_a_whole_bag_the_ledger_was_not_told_of_is_recorded(
    site: Site, store: Store, tmp_path: Path
) -> None:
    batch = validated(site)
    with armed("archive.sealed", die), pytest.raises(Died):
        site.run(stages=["archive"])
    before = keys(store)
    assert archives.bag(site.connection, batch.batch_id) is None
    site.run(stages=["archive"])
    assert_archived(site, store, batch, tmp_path)
    assert keys(store) == before


def test_what_is_left_of_an_earlier_batch_is_named_and_goes_with_the_next(
    site: Site, store: Store, tmp_path: Path
) -> None:
    batch = validated(site)
    half = "all/bags/orders/first/earlier.3"
    store.client.put_object(Bucket=store.bucket, Key=f"{half}/data/half", Body=b"half")
    verifier = ArchiveVerifier(site.settings, {}, lambda: dt.datetime.now(dt.UTC))
    (found,) = verifier.reconcile(site.connection)
    assert (found.place, found.status) == (f"s3://{store.bucket}/{half}", "UNKNOWN")
    site.run(stages=["archive"])
    assert_archived(site, store, batch, tmp_path)
    assert [*verifier.reconcile(site.connection)] == []


def test_parts_of_an_upload_that_was_killed_are_given_back(
    site: Site, store: Store, tmp_path: Path
) -> None:
    batch = validated(site)
    key = f"all/bags/orders/first/{batch.batch_id}.1/data/source/a.csv.zst"
    there = {"Bucket": store.bucket, "Key": key}
    store.client.create_multipart_upload(**there)  # type: ignore[arg-type]  # just these two
    site.run(stages=["archive"])
    assert_archived(site, store, batch, tmp_path)
    assert "Uploads" not in store.client.list_multipart_uploads(Bucket=store.bucket)


def test_a_run_that_was_taken_over_seals_nothing(site: Site, store: Store, tmp_path: Path) -> None:
    """Given a run that hangs before its seal, the one that takes over leaves the only bag."""
    batch = validated(site)
    seen: list[object] = []

    def taken_over(folder: object) -> object:
        seen.append(folder)
        if len(seen) == 1:
            site.sql("UPDATE batch_audit.batch_lease SET expires_at = now() - interval '1 second'")
            site.run(stages=["archive"])
        return folder

    with armed("archive.secured", taken_over), pytest.raises(LeaseLostError):
        site.run(stages=["archive"])
    assert len(set(seen)) == 2
    assert_archived(site, store, batch, tmp_path)


def test_a_store_that_keeps_something_else_is_found_out(site: Site, store: Store) -> None:
    batch = validated(site)

    def lies(request: Request, answer: Answer) -> Answer:
        if request.is_read and request.path.split("?")[0].endswith("bag-info.txt"):
            # A store that keeps a checksum is found out by that already.
            headers = [(k, v) for k, v in answer.headers if "checksum" not in k.lower()]
            return Answer(answer.status, headers, b"X" + answer.body[1:])
        return answer

    store.meddle = lies
    with pytest.raises(ArchiveError, match=r"bag-info.txt: is not read as it was written"):
        site.run(stages=["archive"])
    assert archives.bag(site.connection, batch.batch_id) is None
    assert (site.settings.staging / batch.batch_id / "source").is_dir()
    assert site.newest().status == "PARTIAL_SUCCESS"


def test_a_store_that_refuses_is_told_of_and_nothing_is_lost(
    site: Site, store: Store, tmp_path: Path
) -> None:
    batch = validated(site)

    def denies(request: Request, answer: Answer) -> Answer:
        return refusal(403, "AccessDenied") if request.method == "PUT" else answer

    store.meddle = denies
    with pytest.raises(ArchiveError, match=r"the store denies access") as error:
        site.run(stages=["archive"])
    assert f"s3://{store.bucket}/all/bags/orders/first/" in str(error.value)
    assert (site.settings.staging / batch.batch_id / "source").is_dir()
    store.meddle = lambda _, answer: answer
    site.run(stages=["archive"])
    assert_archived(site, store, batch, tmp_path)


def test_an_archive_may_be_a_whole_bucket(site: Site, store: Store) -> None:
    archive = open_archive(site.settings, f"s3://{store.bucket}")
    assert isinstance(archive, ArchiveBucket)
    assert archive.place("f/k/b") == f"s3://{store.bucket}/f/k/b"
    store.put("f/k/b.1/tagmanifest-sha256.txt", "")
    store.put("f/k/c.1/data/source/a.csv", "")
    store.put("f/k/b.1/data/x/tagmanifest-sha256.txt", "")
    assert [*archive.bags()] == ["f/k/b.1"]
    assert [*archive.named("f/k/b")] == ["f/k/b.1"]
    assert [*archive.named("f/k/c")] == []
