"""Verifying the archive: fixity of bags against the ledger, and which of the two lacks what.

A bag that is not as it was sealed, or is gone, or that the ledger does not know, is told with what to do
about it, is noted in the ledger, and raises an alert. Nothing is mended here, and nothing removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from batch_pipelines.engine.alerts import Alert, raise_alert, resolve
from batch_pipelines.engine.archiving.archives import TRAIL
from batch_pipelines.engine.archiving.choosing import address_of, archive_of, open_archive, place_of
from batch_pipelines.engine.archiving.fixity import check_fixity
from batch_pipelines.engine.archiving.leftovers import is_being_deleted, leftovers
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import archives, batches
from batch_pipelines.engine.work import explain

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from batch_pipelines.engine.archiving.archives import Archive
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.archives import ArchiveRecord
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

Status = Literal["VALID", "DAMAGED", "MISSING", "UNKNOWN", "UNVERIFIED"]
# FEED, KEY and the bag's own name: the last parts of a place, behind the archive's address.
_PARTS = 3
_NAMED = 20
_RESTORE = "Restore it from a backup, as it was, and verify again; nothing is deleted meanwhile."


@dataclass(frozen=True)
class Finding:
    """What was found of a bag, or of an archive that cannot be listed.

    Attributes:
        place: Full path or URL.
        feed: The feed; None where that is not known.
        partition_key: The partition; None where that is not known.
        batch_id: The batch; None where that is not known.
        status: `VALID`, or `DAMAGED`; `MISSING` where only the ledger has it; `UNKNOWN` where the ledger
            does not; `UNVERIFIED` where it could not be found out.
        files: Files of its payload that were read.
        size: Their bytes.
        problems: What is not as it should be.
        remedy: What to do about it; empty where nothing is to be done.
    """

    place: str
    feed: str | None
    partition_key: str | None
    batch_id: str | None
    status: Status
    files: int = 0
    size: int = 0
    problems: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class ArchiveVerifier:
    """Verifies bags.

    Attributes:
        settings: Say where bags stand.
        feeds: The feeds by name: some have archives of their own.
        clock: Tells the time.
    """

    settings: Settings
    feeds: Mapping[str, Feed]
    clock: Callable[[], dt.datetime]

    def of_batch(self, connection: Connection, batch: Batch) -> Iterator[Finding]:
        """Verify all that was put away of a batch.

        Args:
            connection: A connection in autocommit mode.
            batch: The batch; of a duplicate, that is the batch which it is one of.

        Yields:
            What was found of each bag.

        Raises:
            ArchiveError: It has none.
        """
        if batch.duplicate_of is not None:
            batch = batches.by_id(connection, batch.duplicate_of)
        records = archives.of_batch(connection, batch.batch_id)
        for record in records:
            yield self.verify(connection, record)
        known = {record.place for record in records}
        archive = self._archive(batch.feed)
        name = f"{batch.name}/{batch.batch_id}"
        unknown = [bag for bag in archive.named(name) if archive.place(bag) not in known]
        for bag in unknown:
            yield self._unknown(connection, archive, bag)
        if not records and not unknown:
            message = f"Batch {batch.batch_id} ({batch.name}) has no bag: it is not archived."
            raise ArchiveError(message)

    def of_many(
        self, connection: Connection, sample: int | None, feed: str | None
    ) -> Iterator[Finding]:
        """Hold archives and ledger against each other, and read bags.

        Args:
            connection: A connection in autocommit mode.
            sample: So many, those longest not looked at first; None for all.
            feed: Only of this feed, if given.

        Yields:
            What was found, each bag once.
        """
        told = set()
        for finding in self.reconcile(connection, feed):
            told.add(finding.place)
            yield finding
        if sample is None:
            records = archives.every(connection, feed)
        else:
            records = archives.sample(connection, sample, feed)
        for record in records:
            if record.place not in told:
                yield self.verify(connection, record)

    def verify(self, connection: Connection, record: ArchiveRecord) -> Finding:
        """Read all of a bag, and note what was found.

        Args:
            connection: A connection in autocommit mode.
            record: What the ledger says of it.

        Returns:
            What was found.
        """
        status: Literal["VALID", "DAMAGED", "MISSING", "UNVERIFIED"]
        files = size = 0
        problems: tuple[str, ...]
        try:
            archive, name = place_of(self.settings, record.place)
            found = check_fixity(archive, name, record.tagmanifest_sha256)
        except (ArchiveError, OSError) as error:
            status, problems = "UNVERIFIED", (explain(error),)
        else:
            files, size, problems = found.files, found.size, found.problems
            gone = found.seal is None and not files
            status = "MISSING" if gone else "DAMAGED" if problems else "VALID"
            problems = ("nothing of it is there",) if gone else problems
        return self._noted(connection, record, status, problems, files, size)

    def reconcile(self, connection: Connection, feed: str | None = None) -> Iterator[Finding]:
        """Hold the lists of bags against the ledger, both ways; no bag is read.

        Args:
            connection: A connection in autocommit mode.
            feed: Only of this feed, if given.

        Yields:
            Bags that the ledger has and no archive, bags that an archive has and not the ledger, what
            is left of bags that were not written or deleted to their end, and archives that cannot be
            listed.
        """
        addresses = {_address(record.place) for record in archives.every(connection, feed)}
        chosen = [each for name, each in self.feeds.items() if feed in {None, name}]
        addresses |= {address_of(self.settings, each) for each in chosen}
        addresses |= {self.settings.archive_address} if feed is None else set()
        for address in sorted(addresses):
            try:
                archive = open_archive(self.settings, address)
                # The archive first: what is archived meanwhile is then in the ledger, too.
                bags = {archive.place(bag): bag for bag in archive.bags()}
            except (ArchiveError, OSError) as error:
                remedy = "Make it reachable, and verify again."
                why = (explain(error),)
                yield _told(
                    connection,
                    Finding(address, None, None, None, "UNVERIFIED", problems=why, remedy=remedy),
                    self.clock().date().isoformat(),
                )
                continue
            known = {record.place: record for record in archives.every(connection, None)}
            for place, record in known.items():
                own = feed in {None, _of_place(place)[0]} and _address(place) == address
                if own and place not in bags and not archive.files(_name(place)):
                    why = ("nothing of it is there",)
                    yield self._noted(connection, record, "MISSING", why, 0, 0)
            for place, bag in bags.items():
                # Months of the audit trail are `verify --audit --removed`'s.
                mine = not bag.startswith(f"{TRAIL}/")
                if mine and place not in known and feed in {None, _of_place(place)[0]}:
                    yield self._unknown(connection, archive, bag)
            for left in leftovers(connection, archive):
                if not left.startswith(f"{TRAIL}/") and feed in {None, _of_place(left)[0]}:
                    yield self._left(connection, archive, left)

    def _archive(self, feed: str) -> Archive:
        known = self.feeds.get(feed)
        if known is not None:
            return archive_of(self.settings, known)
        return open_archive(self.settings, self.settings.archive_address)

    def _noted(
        self,
        connection: Connection,
        record: ArchiveRecord,
        status: Literal["VALID", "DAMAGED", "MISSING", "UNVERIFIED"],
        problems: tuple[str, ...],
        files: int,
        size: int,
    ) -> Finding:
        remedy = "" if status == "VALID" else _RESTORE
        remedy = "Make it reachable, and verify again." if status == "UNVERIFIED" else remedy
        feed, key, _ = _of_place(record.place)
        finding = Finding(
            record.place, feed, key, record.batch_id, status, files, size, problems, remedy
        )
        # The occasion: once it was found valid again, damage is another one.
        occasion = record.verified_at.isoformat()
        with connection.transaction():
            archives.note(connection, record.place, status, problems, self.clock())
            if status == "VALID":
                for other in ("DAMAGED", "MISSING", "UNVERIFIED"):
                    resolve(connection, _key(other, record.place, occasion))
                resolve(connection, _key("UNKNOWN", record.place, ""))
            return _told(connection, finding, occasion)

    def _unknown(self, connection: Connection, archive: Archive, bag: str) -> Finding:
        """Tell of a bag that the ledger does not know, by what it says of itself."""
        place = archive.place(bag)
        feed, key, name = _of_place(place)
        batch_id = name.split(".")[0]
        batch = batches.known(connection, batch_id)
        if batch is None:
            remedy = (
                "Its batch is not in the ledger: the database was restored to a time before it, or is "
                f"another one. Import {feed}/{key} again; the delivery is in the bag, in data/source."
            )
        elif ".rows" in name:
            remedy = (
                "It holds rows of a batch, put away by a run that ended before it told. Where the "
                "rows are still in their tables, they are put away again when their time comes."
            )
        elif archives.bag(connection, batch_id) is None:
            remedy = (
                f"Its batch is {batch.status} and not archived in the ledger. Run the asset "
                f"{feed}/archive for {key}, or `batch-pipelines import {feed} --batch {key}`: "
                "the bag is read back and recorded."
            )
        else:
            remedy = (
                "Another bag of the batch is in the ledger. Compare the two, and put this one away "
                "elsewhere."
            )
        found = Finding(
            place, feed, key, batch_id, "UNKNOWN",
            problems=("the ledger does not know it",), remedy=remedy,
        )  # fmt: skip
        return _told(connection, found, "")

    def _left(self, connection: Connection, archive: Archive, name: str) -> Finding:
        """Tell of what is left of a bag that was not written, or deleted, to its end."""
        feed, key, _ = _of_place(name)
        if is_being_deleted(name):
            problem = "what is left of a bag that a run had begun to delete"
            remedy = "The next run of retention deletes it, unless a hold keeps the batch since."
        else:
            problem = "what is left of a bag: its run ended before it was whole"
            remedy = (
                f"What it holds is elsewhere. The next batch of {feed}/{key} that is archived removes "
                "it; or remove it yourself."
            )
        found = Finding(
            archive.place(name), feed, key, None, "UNKNOWN", problems=(problem,), remedy=remedy
        )
        return _told(connection, found, "")


def require_valid(found: Iterable[Finding]) -> None:
    """Raise where something is not as it should be, so that it is never quiet.

    Args:
        found: What was found.

    Raises:
        ArchiveError: Bags are damaged, missing or unknown; they are named.
    """
    wrong = [each for each in found if each.status not in {"VALID", "UNVERIFIED"}]
    if wrong:
        named = ", ".join(f"{each.place} ({each.status})" for each in wrong[:_NAMED])
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        message = (
            f"The archive and the ledger differ in {named}{more}. `batch-pipelines archive verify "
            "--all` tells what is wrong, and what to do."
        )
        raise ArchiveError(message)


def _told(connection: Connection, finding: Finding, occasion: str) -> Finding:
    """Raise an alert of what is not valid."""
    if finding.status != "VALID":
        grave = finding.status in {"DAMAGED", "MISSING"}
        known = finding.batch_id is not None and finding.status != "UNKNOWN"
        raise_alert(
            connection,
            Alert(
                kind="archive",
                severity="critical" if grave else "warning",
                subject=f"{finding.place} is {finding.status}",
                deduplication_key=_key(finding.status, finding.place, occasion),
                feed=finding.feed,
                batch_id=finding.batch_id if known else None,
                details={
                    "place": finding.place,
                    "problems": "; ".join(finding.problems[:_NAMED]),
                    "remedy": finding.remedy,
                    "next": "batch-pipelines archive verify --all",
                },
            ),
        )
    return finding


def _key(status: str, place: str, occasion: str) -> str:
    return f"archive/{status}/{place}/{occasion}"


def _of_place(place: str) -> tuple[str, str, str]:
    feed, key, name = place.split("/")[-_PARTS:]
    return feed, key, name


def _address(place: str) -> str:
    return place.rsplit("/", _PARTS)[0]


def _name(place: str) -> str:
    return "/".join(_of_place(place))
