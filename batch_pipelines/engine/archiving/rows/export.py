"""Putting the rows of a published batch away: out of one snapshot, read back, compared, then recorded.

The digests come from both sides by themselves: PostgreSQL's over the rows that it holds, and ours over
the Parquet files, which were closed, synced and opened again. Nothing is deleted here.
"""

from __future__ import annotations

import datetime as dt
import itertools
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.archiving import tags
from batch_pipelines.engine.archiving.archives import drafting
from batch_pipelines.engine.archiving.choosing import archive_of
from batch_pipelines.engine.archiving.fixity import check_fixity
from batch_pipelines.engine.archiving.folder import ArchiveFolder
from batch_pipelines.engine.archiving.packing import Packing
from batch_pipelines.engine.archiving.rows.account import ACCOUNT, Account, TableRows, file_of
from batch_pipelines.engine.archiving.rows.copy_out import copy_out
from batch_pipelines.engine.archiving.rows.live import digest_live, live_rows, stamped_rows
from batch_pipelines.engine.archiving.rows.parquet import write_rows
from batch_pipelines.engine.archiving.rows.reading import RowsBag, open_rows, open_rows_at, rows_bag
from batch_pipelines.engine.archiving.rows.shape import pin, read_shape
from batch_pipelines.engine.archiving.rows.since import Sent
from batch_pipelines.engine.catalog import is_stamped, parents_first, read_table
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import archives, proofs
from batch_pipelines.engine.ledger.archives import ArchiveRecord
from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.reading.prefetch import prefetched
from batch_pipelines.engine.verification.rows import SNAPSHOT

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.archiving.archives import Archive
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.postgres.lease import Lease
    from batch_pipelines.engine.settings import Settings


@dataclass(frozen=True)
class ExportedRows:
    """What was put away.

    Attributes:
        bag: Where it stands, and what it holds.
        worked: False where a bag with exactly these rows was there, and was read again.
    """

    bag: RowsBag
    worked: bool


def export_rows(
    connection: Connection, settings: Settings, feed: Feed, batch: Batch, lease: Lease
) -> ExportedRows:
    """Put the rows of a batch away that its tables have now, in a bag beside the batch's own.

    Rows that carry its stamp are put away as they are, whatever somebody has made of them since they
    were loaded; how they differ from that day is told.

    Args:
        connection: A connection in autocommit mode.
        settings: Hold the keys, and say where bags stand and are made.
        feed: The batch's feed: it says where, and whether encrypted.
        batch: The batch, in force.
        lease: On the batch's partition.

    Returns:
        The bag, read back and recorded.

    Raises:
        ArchiveError: The batch is not in force or fills no table, the archive cannot be written or read,
            or what was read back is not what the tables have; nothing is recorded then.
        LeaseLostError: Another run has taken the partition over.
    """
    if batch.status not in IN_FORCE:
        message = f"Batch {batch.batch_id} ({batch.name}) is {batch.status}: no table has its rows."
        raise ArchiveError(message)
    there = _standing(connection, settings, batch.batch_id)
    if there is not None:
        return ExportedRows(there, worked=False)
    archive = archive_of(settings, feed)
    known = {record.place for record in archives.of_batch(connection, batch.batch_id)}
    for number in itertools.count(1):
        # A bag is never changed: rows of today that are others go into another one.
        name = f"{batch.name}/{batch.batch_id}.rows" + (f"-{number}" if number > 1 else "")
        left = next(iter(archive.named(name)), None)
        if left is None and archive.place(name) not in known:
            break
        if left is None or archive.place(left) in known:
            continue
        # An earlier try left it there, and the ledger was not told.
        record = _taken_over(connection, settings, archive, left, batch)
        if record is not None:
            return _recorded(connection, settings, batch, lease, record)
    return _write(connection, settings, feed, batch, lease, archive, name)


def _write(
    connection: Connection,
    settings: Settings,
    feed: Feed,
    batch: Batch,
    lease: Lease,
    archive: Archive,
    name: str,
) -> ExportedRows:
    with drafting(archive, name, lease.token) as draft:
        packing = replace(Packing.of_feed(settings, feed), strategy="compress")
        data = draft.folder / tags.DATA
        data.mkdir()
        account = _put_away(connection, batch, packing, data)
        (data / ACCOUNT).write_text(account.as_json(), encoding="utf-8")
        what = f"Rows of import batch {batch.name}, attempt {batch.attempt}"
        info = tags.about(batch.batch_id, what, dt.datetime.now(dt.UTC).date())
        seal = tags.write_tags(draft.folder, info | packing.tags)
        failpoint("rows.written", draft.folder)
        draft.secure()
        failpoint("rows.secured", draft.folder)
        # The account has PostgreSQL's digests: what is read back is held against them.
        here = ArchiveFolder(draft.folder.parent)
        with open_rows_at(settings, here, draft.folder.name, seal) as rows:
            rows.prove()
        record = _record(here, draft.folder.name, seal, batch.batch_id, packing)
        with connection.transaction():
            lease.hold(connection)
            place = failpoint("rows.sealed", archive.place(draft.seal()))
            archives.record(connection, replace(record, place=place))
        return ExportedRows(RowsBag(replace(record, place=place), account), worked=True)


def _put_away(connection: Connection, batch: Batch, packing: Packing, data: Path) -> Account:
    """Write the rows of all tables, as of one moment, and say what PostgreSQL says of them."""
    with connection.transaction():
        connection.execute(SNAPSHOT)
        pin(connection)
        balances = {
            balance.target_table: balance for balance in proofs.tables(connection, batch.batch_id)
        }
        names = [name for name in balances if is_stamped(connection, name)]
        if not names:
            message = f"Batch {batch.batch_id} ({batch.name}) has no rows in any table."
            raise ArchiveError(message)
        infos = parents_first(read_table(connection, None, name) for name in names)
        tables = tuple(
            _put_table(connection, batch, balances[info.full_name], packing, data) for info in infos
        )
        version = connection.info.server_version
    return Account(batch.batch_id, batch.feed, batch.partition_key, batch.status, version, tables)


def _put_table(
    connection: Connection, batch: Batch, recorded: TableBalance, packing: Packing, data: Path
) -> TableRows:
    name = recorded.target_table
    where = stamped_rows(batch.batch_id)
    columns = read_shape(connection, name, where)
    digest = digest_live(connection, name, columns, batch.batch_id)
    sent = Sent.of(connection, batch, recorded, columns)
    file = file_of(name)
    target = data / packing.stored(file)
    target.parent.mkdir(exist_ok=True)
    # Beside the bag's folder of data, and gone before the bag is whole.
    written = target if packing.is_plain(file) else data.parent / "rows.parquet"
    table = sql.Identifier(*name.split("."))
    try:
        with (
            closing(copy_out(connection, table, columns, where)) as read,
            closing(prefetched(read)) as rows,
        ):
            write_rows(written, name, columns, sent.watching(rows))
    except ValueError as error:
        message = f"{name}: its rows cannot be put away: {error}."
        raise ArchiveError(message) from None
    if written != target:
        packing.pack(file, written, target)
        written.unlink()
    return TableRows(name, columns, digest, sent.since(connection))


def _standing(connection: Connection, settings: Settings, batch_id: str) -> RowsBag | None:
    """Read the newest bag of a batch's rows; None unless it has exactly those of today.

    One that is damaged or out of reach is none: the rows are there, and go into another one.
    """
    try:
        there = rows_bag(connection, settings, batch_id)
        if there is None or not _is_live(connection, there.account):
            return None
        with open_rows(connection, settings, batch_id) as rows:
            rows.prove()
    except ArchiveError:
        return None
    return there


def _is_live(connection: Connection, account: Account) -> bool:
    with connection.transaction():
        connection.execute(SNAPSHOT)
        found = live_rows(connection, account.batch_id, account.tables)
        named = {b.target_table for b in proofs.tables(connection, account.batch_id)}
        return all(each.is_same for each in found) and named == {t.full_name for t in found}


def _taken_over(
    connection: Connection, settings: Settings, archive: Archive, name: str, batch: Batch
) -> ArchiveRecord | None:
    """Read a bag that the ledger does not know; None where it holds other rows than the tables have."""
    found = check_fixity(archive, name)
    if found.seal is None or found.problems:
        return None
    with open_rows_at(settings, archive, name, found.seal) as rows:
        if rows.account.batch_id != batch.batch_id or not _is_live(connection, rows.account):
            return None
        rows.prove()
        return _record(archive, name, found.seal, batch.batch_id, rows.packing)


def _recorded(
    connection: Connection, settings: Settings, batch: Batch, lease: Lease, record: ArchiveRecord
) -> ExportedRows:
    with connection.transaction():
        lease.hold(connection)
        archives.record(connection, record)
    bag = rows_bag(connection, settings, batch.batch_id)
    assert bag is not None  # noqa: S101  # it has just been recorded
    return ExportedRows(bag, worked=True)


def _record(
    archive: Archive, name: str, seal: str, batch_id: str, packing: Packing
) -> ArchiveRecord:
    payload = [size for file, size in archive.files(name).items() if file.startswith(tags.DATA)]
    now = dt.datetime.now(dt.UTC)
    return ArchiveRecord(
        batch_id=batch_id,
        kind="rows",
        place=archive.place(name),
        payload_files=len(payload),
        payload_bytes=sum(payload),
        tagmanifest_sha256=seal,
        strategy=packing.strategy,
        key_id=packing.key_id,
        state="VALID",
        verified_at=now,
        checked_at=now,
        problems=[],
    )
