"""Lines of the ledger, put away in a bag of their own, and the digests by which they are known again.

A line is what PostgreSQL writes of it as JSON: every column, no number through a float. A table's
lines are known by their number and the SHA-256 over all of them, in an order in which they are unique.
Not here: deleting them (`deleting`), which digests what it has deleted in the same way.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, LiteralString

from psycopg import sql
from psycopg.rows import scalar_row

from batch_pipelines.engine.archiving import tags
from batch_pipelines.engine.archiving.archives import drafting
from batch_pipelines.engine.archiving.bag import opened
from batch_pipelines.engine.archiving.choosing import archive_of, place_of
from batch_pipelines.engine.archiving.packing import Packing
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import archives, values
from batch_pipelines.engine.ledger.archives import ArchiveRecord
from batch_pipelines.engine.retention.sql import OPENED, RECORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from batch_pipelines.engine.archiving.archives import Archive
    from batch_pipelines.engine.archiving.bag import Bag
    from batch_pipelines.engine.feed_parts.retention import DataClass
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.postgres.lease import Lease
    from batch_pipelines.engine.settings import Settings

ACCOUNT: Final = "records.json"
_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_LINES: Final = sql.SQL("""
SELECT to_jsonb(t)::text FROM batch_audit.{table} AS t WHERE batch_id = {batch} ORDER BY {order}
""")
# Lines that come at a time.
_AT_ONCE: Final = 2_000


@dataclass(frozen=True)
class Lines:
    """By what the lines of a table are known.

    Attributes:
        number: How many.
        sha256: Over all of them, each with a newline, hex.
    """

    number: int
    sha256: str


Account = dict[str, Lines]
"""The lines of each table of a class, by the table's name; those without a line are left out."""


class Digest:
    """Adds lines up."""

    def __init__(self) -> None:
        self._number, self._sha256 = 0, hashlib.sha256()

    def add(self, line: str) -> bytes:
        """Take the next line; give it as it stands in a file."""
        written = f"{line}\n".encode()
        self._number += 1
        self._sha256.update(written)
        return written

    def lines(self) -> Lines:
        """Give what came so far."""
        return Lines(self._number, self._sha256.hexdigest())


def tables_of(data_class: DataClass, status: str) -> Mapping[LiteralString, LiteralString]:
    """List the tables of a class, each with the order of its lines.

    Args:
        data_class: The class.
        status: State of the batch: of one that can come back its stages stay, so that it is known to be
            done.
    """
    stay = {"batch_stage"} if status in {"SUCCESS", "PARTIAL_SUCCESS", "ARCHIVED"} else set()
    return {name: order for name, order in RECORDS[data_class].items() if name not in stay}


def opened_lines(
    connection: Connection, batch_id: str, data_class: DataClass, principal: str
) -> AbstractContextManager[None]:
    """Have a session see whole lines of a class for the length of a block, where they hold values.

    Args:
        connection: A connection in autocommit mode, outside any transaction.
        batch_id: The batch.
        data_class: The class.
        principal: Who runs retention: that its lines are read is in the audit trail.

    Returns:
        The block, within which the other functions here are called.
    """
    if OPENED.keys().isdisjoint(RECORDS[data_class]):
        return nullcontext()
    return values.opened(connection, batch_id, "archive", principal)


def account_of(connection: Connection, batch: Batch, data_class: DataClass) -> Account:
    """Digest the lines of a class that the ledger has now.

    Args:
        connection: A connection in autocommit mode.
        batch: The batch.
        data_class: The class.

    Returns:
        What they are known by.
    """
    found: Account = {}
    with connection.transaction():
        connection.execute(_SNAPSHOT)
        for name, lines in _read(connection, batch, data_class):
            digest = Digest()
            for line in lines:
                digest.add(line)
            found[name] = digest.lines()
    return {name: lines for name, lines in found.items() if lines.number}


def put_away(
    connection: Connection,
    settings: Settings,
    feed: Feed,
    batch: Batch,
    lease: Lease,
    data_class: DataClass,
) -> ArchiveRecord:
    """Put the lines of a class away, as of one moment, in a bag; one that has exactly them will do.

    Args:
        connection: A connection in autocommit mode.
        settings: Hold the keys, and say where bags stand and are made.
        feed: The batch's feed: it says where, and whether encrypted.
        batch: The batch.
        lease: On its partition.
        data_class: The class.

    Returns:
        The bag, recorded.

    Raises:
        ArchiveError: It cannot be written, or read.
        LeaseLostError: Another run has taken the partition over.
    """
    live = account_of(connection, batch, data_class)
    known = {r.place: r for r in archives.of_batch(connection, batch.batch_id)}
    for record in known.values():
        if record.kind == "records" and _has(settings, record, live):
            return record
    archive = archive_of(settings, feed)
    for number in itertools.count(1):
        # A bag is never changed: other lines go into another one.
        name = f"{batch.name}/{batch.batch_id}.{data_class}" + (f"-{number}" if number > 1 else "")
        left = [bag for bag in archive.named(name) if archive.place(bag) not in known]
        for bag in left:
            # A killed run has left it, and the ledger was never told. The lines are there still.
            archive.remove(bag)
        if left or not any(archive.named(name)):
            break
    return _write(connection, settings, feed, batch, lease, data_class, archive, name)


def prove(settings: Settings, record: ArchiveRecord) -> Account:
    """Read all of a bag of lines.

    Args:
        settings: Hold the keys.
        record: The bag.

    Returns:
        What its lines are known by: they are those that it says it has.

    Raises:
        ArchiveError: It is gone, damaged, or cannot be reached or opened.
    """
    archive, name = place_of(settings, record.place)
    return _prove(settings, archive, name, record.tagmanifest_sha256)


def tables_in(bag: Bag) -> list[str]:
    """List the tables of which an open bag has lines.

    Args:
        bag: A bag of lines.
    """
    pieces: list[bytes] = []
    bag.read(ACCOUNT, pieces.append)
    return [*json.loads(b"".join(pieces))["tables"]]


def lines_of(bag: Bag, table: str) -> Iterator[bytes]:
    """Read the lines of a table out of an open bag.

    Args:
        bag: A bag of lines.
        table: One of `tables_in`.

    Yields:
        Each line, without its end.

    Raises:
        ArchiveError: They are not what the bag was sealed with.
    """
    with bag.path(file_of(table)).open("rb") as file:
        for line in file:
            yield line.rstrip(b"\n")


def _has(settings: Settings, record: ArchiveRecord, live: Account) -> bool:
    try:
        return prove(settings, record) == live
    except ArchiveError:
        return False


def _write(
    connection: Connection,
    settings: Settings,
    feed: Feed,
    batch: Batch,
    lease: Lease,
    data_class: DataClass,
    archive: Archive,
    name: str,
) -> ArchiveRecord:
    with drafting(archive, name, lease.token) as draft:
        packing = replace(Packing.of_feed(settings, feed), strategy="compress")
        data = draft.folder / tags.DATA
        data.mkdir()
        account = _fill(connection, batch, data_class, packing, data)
        text = {"batch_id": batch.batch_id, "data_class": data_class, "tables": _plain(account)}
        (data / ACCOUNT).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
        what = f"Ledger lines of import batch {batch.name}: {data_class}"
        info = tags.about(batch.batch_id, what, dt.datetime.now(dt.UTC).date())
        seal = tags.write_tags(draft.folder, info | packing.tags)
        failpoint("records.written", draft.folder)
        draft.secure()
        now = dt.datetime.now(dt.UTC)
        with connection.transaction():
            lease.hold(connection)
            bag = draft.seal()
            payload = [n for file, n in archive.files(bag).items() if file.startswith(tags.DATA)]
            record = ArchiveRecord(
                batch_id=batch.batch_id, kind="records", place=archive.place(bag),
                payload_files=len(payload), payload_bytes=sum(payload), tagmanifest_sha256=seal,
                strategy=packing.strategy, key_id=packing.key_id, state="VALID", verified_at=now,
                checked_at=now, problems=[],
            )  # fmt: skip
            failpoint("records.sealed", record.place)
            archives.record(connection, record)
        return record


def _fill(
    connection: Connection, batch: Batch, data_class: DataClass, packing: Packing, data: Path
) -> Account:
    """Write the lines of all tables, as of one moment."""
    account: Account = {}
    # Beside the bag's folder of data, and gone before the bag is whole.
    unpacked = data.parent / "lines"
    (data / "records").mkdir()
    with connection.transaction():
        connection.execute(_SNAPSHOT)
        for name, lines in _read(connection, batch, data_class):
            digest = Digest()
            with unpacked.open("wb") as file:
                for line in lines:
                    file.write(digest.add(line))
            if digest.lines().number:
                account[name] = digest.lines()
                own = file_of(name)
                packing.pack(own, unpacked, data / packing.stored(own))
    unpacked.unlink(missing_ok=True)
    return account


def _read(
    connection: Connection, batch: Batch, data_class: DataClass
) -> Iterator[tuple[str, Iterable[str]]]:
    """Read the lines of each table, a bounded number of them at a time."""
    for name, order in tables_of(data_class, batch.status).items():
        query = _LINES.format(
            table=sql.Identifier(OPENED.get(name, name)),
            batch=sql.Literal(batch.batch_id),
            order=sql.SQL(order),
        )
        with connection.cursor(name="batch_pipelines_lines", row_factory=scalar_row) as cursor:
            cursor.itersize = _AT_ONCE
            cursor.execute(query)
            yield name, cursor


def _prove(settings: Settings, archive: Archive, name: str, seal: str) -> Account:
    with opened(settings, archive, name, seal) as bag:
        pieces: list[bytes] = []
        bag.read(ACCOUNT, pieces.append)
        said = json.loads(b"".join(pieces))["tables"]
        found: Account = {}
        for table in said:
            digest, ends = hashlib.sha256(), 0

            def take(piece: bytes, digest: hashlib._Hash = digest) -> None:
                nonlocal ends
                digest.update(piece)
                ends += piece.count(b"\n")

            bag.read(file_of(table), take)
            found[table] = Lines(ends, digest.hexdigest())
        if _plain(found) != said:
            message = f"{bag.place}: it holds other lines than it says. Restore it from a backup."
            raise ArchiveError(message)
    return found


def file_of(table: str) -> str:
    """Say in which file of a bag, from its folder of data, the lines of a table are."""
    return f"records/{table}.jsonl"


def _plain(account: Account) -> dict[str, dict[str, object]]:
    return {name: {"lines": own.number, "sha256": own.sha256} for name, own in account.items()}
