"""A bag in place of another one, without a person's records.

It is written where nobody takes it for a whole one, validated, synced; one transaction names it, records
it, takes the other one's word back and makes the ledger fit. Then the other one is deleted. A process
that dies leaves either the old bag in force or both there, and the next run goes on.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batch_pipelines.engine.archiving import tags
from batch_pipelines.engine.archiving.archives import drafting
from batch_pipelines.engine.archiving.bag import opened
from batch_pipelines.engine.archiving.choosing import place_of
from batch_pipelines.engine.archiving.contents import put_extract
from batch_pipelines.engine.archiving.fixity import check_fixity, validate_by_tool
from batch_pipelines.engine.archiving.folder import ArchiveFolder
from batch_pipelines.engine.audit import anchors
from batch_pipelines.engine.erasure.fitting import fit_delivered, fit_rows
from batch_pipelines.engine.erasure.refilling import Refill
from batch_pipelines.engine.errors import ArchiveError, ErasureError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import (
    archives,
    batches,
    erasures,
    events,
    files,
    proofs,
    rollbacks,
)
from batch_pipelines.engine.postgres.lease import acquire
from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.retention.sql import ROOT
from batch_pipelines.engine.writing.settling import settled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batch_pipelines.engine.archiving.archives import Archive
    from batch_pipelines.engine.archiving.bag import Bag
    from batch_pipelines.engine.archiving.fixity import Fixity
    from batch_pipelines.engine.erasure.refilling import Refilled
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.archives import ArchiveRecord
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.erasures import Erasure, Kind, Place
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.postgres.lease import Lease
    from batch_pipelines.engine.settings import Settings

KINDS: Final[tuple[Kind, ...]] = ("rows_bag", "bag", "records_bag")
"""The kinds of places that are rewritten here."""
_ERASED: Final = re.compile(r"\.erased-\d+$")


@dataclass(frozen=True)
class BagErasure:
    """A bag out of which a person is to go.

    Attributes:
        database: The target database.
        settings: Hold the keys, and say where bags are made.
        feeds: The feeds by name.
        erasure: What was written down of it.
        run_id: The run that does it.
        event: Makes the audit trail's entry of a step: action, status, batch, details.
        place: The bag, as the erasure has found it.
        is_last: Whether none of the same kind and batch comes after it: what the ledger says is made to
            fit this one.
    """

    database: Database
    settings: Settings
    feeds: Mapping[str, Feed]
    erasure: Erasure
    run_id: str
    event: Callable[[str, str, str | None, dict[str, object]], events.Event]
    place: Place
    is_last: bool

    def run(self) -> None:
        """Rewrite the bag, and delete the one before.

        Raises:
            ErasureError: A hold is over the batch, or the feed's file is gone; the bag is as it was.
            ArchiveError: A bag cannot be read, written or deleted.
            BusyError: A run is at work on the partition.
        """
        assert self.place.batch_id is not None  # noqa: S101  # a bag is one of a batch
        assert self.place.place is not None  # noqa: S101
        with self.database.connect("erase look") as connection:
            batch = batches.by_id(connection, self.place.batch_id)
        seconds = self.settings.lease_seconds
        with (
            acquire(
                self.database, batch.feed, batch.partition_key, self.run_id, seconds=seconds
            ) as lease,
            self.database.connect("erase bag") as connection,
        ):
            lease.record_worker(connection)
            if self.place.state == "FOUND":
                self._rewrite(connection, batch, lease)
            archive, name = place_of(self.settings, self.place.place)
            archive.remove(failpoint("erase.removing", name))
            with connection.transaction():
                erasures.mark_erased(connection, self.place)
                told: dict[str, object] = {"kind": self.place.kind, "bag": self.place.place}
                events.append(
                    connection, self.event("batch.bag.erased", "SUCCESS", batch.batch_id, told)
                )

    def _rewrite(self, connection: Connection, batch: Batch, lease: Lease) -> None:
        feed = self.feeds.get(batch.feed)
        if feed is None:
            message = (
                f"{self.place.place}: the file of feed {batch.feed} is gone, so the bag cannot be "
                "rewritten. Put it back, and run again."
            )
            raise ErasureError(message)
        known = archives.of_batch(connection, batch.batch_id)
        record = next(each for each in known if each.place == self.place.place)
        archive, old = place_of(self.settings, record.place)
        name = _free_name(archive, old, {each.place for each in known})
        with drafting(archive, name, lease.token) as draft:
            data = draft.folder / tags.DATA
            data.mkdir()
            with (
                opened(self.settings, archive, old, record.tagmanifest_sha256) as bag,
                tempfile.TemporaryDirectory(prefix="erase-", dir=self.settings.home) as scratch,
            ):
                refill = Refill(bag, self.place.positions, self.place.dropped, data, Path(scratch))
                done = self._fill(connection, feed, batch, refill)
                info = self._info(connection, batch, bag, data)
            seal = tags.write_tags(draft.folder, info)
            failpoint("erase.written", draft.folder)
            found = _proven(draft.folder, seal)
            draft.secure()
            failpoint("erase.secured", draft.folder)
            with settled(connection, self.database, purpose="erase_bag"):
                holds.lock_holds(connection)
                for hold in holds.over(connection, batch.batch_id):
                    message = f"{record.place} stays as it is: {hold} is over its batch."
                    raise ErasureError(message)
                lease.hold(connection)
                place = failpoint("erase.sealed", archive.place(draft.seal()))
                self._record(connection, record, place, seal, found)
                self._fit(connection, batch, done)
                self._tell(connection, record, place, seal)

    def _tell(self, connection: Connection, record: ArchiveRecord, place: str, seal: str) -> None:
        ((root,),) = connection.execute(ROOT, (record.batch_id,)).fetchall()
        told: dict[str, object] = {
            "kind": self.place.kind, "bag": record.place, "records": self.place.found,
            "sha256_before": record.tagmanifest_sha256, "new_bag": place, "sha256": seal,
            "dropped": [*self.place.dropped], "root": root,
        }  # fmt: skip
        events.append(
            connection, self.event("batch.bag.rewritten", "SUCCESS", record.batch_id, told)
        )

    def _fill(self, connection: Connection, feed: Feed, batch: Batch, refill: Refill) -> Refilled:
        if self.place.kind == "records_bag":
            return refill.lines()
        if self.place.kind == "rows_bag":
            recorded = {t.target_table: t for t in proofs.tables(connection, batch.batch_id)}
            digests = {n: rollbacks.whole(connection, batch.batch_id, n) for n in recorded}
            whole = {n: each.columns for n, each in digests.items() if each is not None}
            return refill.rows(recorded, whole)
        return refill.delivered(feed, files.of_batch(connection, batch.batch_id))

    def _info(self, connection: Connection, batch: Batch, bag: Bag, data: Path) -> dict[str, str]:
        """Say of the new bag what the old one said, and that something was erased."""
        info = {k: v for k, v in bag.info.items() if k != "Payload-Oxum"}
        if self.place.kind == "bag":
            anchor = anchors.head(connection)
            put_extract(connection, batch, anchor, data)
            info |= {
                "Audit-Ledger": anchor.ledger_id, "Audit-Anchor": f"{anchor.seq} {anchor.hash}",
            }  # fmt: skip
        return info | {
            "Bagging-Date": dt.datetime.now(dt.UTC).date().isoformat(),
            "Erasure": self.erasure.erasure_id,
        }

    def _record(
        self, connection: Connection, old: ArchiveRecord, place: str, seal: str, found: Fixity
    ) -> None:
        now = dt.datetime.now(dt.UTC)
        archives.record(
            connection,
            replace(
                old, place=place, payload_files=found.files, payload_bytes=found.size,
                tagmanifest_sha256=seal, state="VALID", verified_at=now, checked_at=now, problems=[],
            ),
        )  # fmt: skip
        why = f"as it was before erasure {self.erasure.erasure_id}"
        archives.note(connection, old.place, "DELETED", [why], now)
        erasures.mark_rewritten(connection, self.place, self.place.found, place, seal)

    def _fit(self, connection: Connection, batch: Batch, done: Refilled) -> None:
        """Have the ledger say of the batch what is true of its bags from now on."""
        if not self.is_last:
            return
        if self.place.kind == "bag":
            fit_delivered(connection, batch.batch_id, done)
        elif self.place.kind == "rows_bag" and batch.status == "ARCHIVED":
            fit_rows(connection, batch.batch_id, done, self.place)


def _proven(folder: Path, seal: str) -> Fixity:
    """Read all of a bag that was written just now."""
    validate_by_tool(folder)
    found = check_fixity(ArchiveFolder(folder.parent), folder.name, seal)
    if found.problems:
        message = f"{folder}: did not read back ({'; '.join(found.problems[:5])})."
        raise ArchiveError(message)
    return found


def _free_name(archive: Archive, old: str, known: set[str]) -> str:
    base = _ERASED.sub("", old)
    for number in itertools.count(1):
        name = f"{base}.erased-{number}"
        left = [*archive.named(name)]
        if any(archive.place(bag) in known for bag in left) or archive.place(name) in known:
            continue
        for bag in left:
            # A killed run has left it, and the ledger was never told.
            archive.remove(bag)
        return name
    raise AssertionError  # there is always a next number
