"""Bulk-write: make a batch's rows visible, all of them or none, in one publish transaction.

Its order is the guarantee: locks, rows of all tables (parents first), deferred constraints, the
balance against the independent count, the digests that PostgreSQL recomputes from what it stored, the
ledger's word, the fence, COMMIT. Anything that does not hold aborts all of it.
"""

from __future__ import annotations

import shutil
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, read_tables
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.errors import DeliveryError, LossyValueError, PublishError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import batches, files, proofs
from batch_pipelines.engine.ledger.proofs import TableBalance
from batch_pipelines.engine.postgres.database import lock_tables
from batch_pipelines.engine.reading.prefetch import prefetched
from batch_pipelines.engine.work import batch_for, explain, recorded
from batch_pipelines.engine.writing.copying import Proof, table_source
from batch_pipelines.engine.writing.diagnosis import first_breach, first_unconvertible
from batch_pipelines.engine.writing.superseding import needs_diff, put, remove_missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.proofs import ChunkDigest
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.reading.readers import Chunk
    from batch_pipelines.engine.work import Work
    from batch_pipelines.engine.writing.copying import TableSource

_LOCK_IDENTITY = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_COUNT = sql.SQL("SELECT count(*) FROM {table} WHERE {stamped}")
# Errors of data (class 22) and of integrity constraints (class 23): a record is to blame.
_DATA_ERRORS = ("22", "23")
# How long, in seconds, to ask what became of a COMMIT whose answer was lost; a server that crashed
# needs a while to recover.
_SETTLE_SECONDS = 60.0
_SETTLE_PAUSE = 0.5


@dataclass(frozen=True)
class BulkWriteResult:
    """What bulk-write did.

    Attributes:
        batch: The batch, published.
        worked: False where it was published already.
        tables: The balance of each table.
        columns: The columns of each table, by its name.
        superseded: Id of the batch whose rows it replaced, or None.
        seconds: Time it took.
    """

    batch: Batch
    worked: bool
    tables: tuple[TableBalance, ...]
    columns: dict[str, tuple[Column, ...]]
    superseded: str | None
    seconds: float


def bulk_write(connection: Connection, work: Work) -> BulkWriteResult:
    """Publish a checksummed batch.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work.

    Returns:
        What was written; the batch is `PUBLISHED`.

    Raises:
        DeliveryError: A record cannot be read or a value does not fit its column.
        FeedError: The feed's tables or the files' columns do not fit.
        PublishError: A constraint refuses a record, the books do not balance, or a digest differs.
        LeaseLostError: Another run took the partition over.
        StageOrderError: There is no batch to publish.
    """
    batch, to_do = batch_for(connection, work, "bulk_write")
    began = time.perf_counter()
    superseded = None
    if to_do:
        with recorded(connection, work, batch.batch_id, "bulk_write"):
            superseded = _publish(connection, work, batch)
    return BulkWriteResult(
        batches.by_id(connection, batch.batch_id),
        to_do,
        tuple(proofs.tables(connection, batch.batch_id)),
        {table.full_name: table.columns for table in read_tables(connection, work.feed)},
        superseded,
        time.perf_counter() - began,
    )


def _publish(connection: Connection, work: Work, batch: Batch) -> str | None:
    sources = _sources(connection, work, batch)
    digests = work.staged_digests(batch.batch_id)
    shutil.rmtree(digests, ignore_errors=True)
    digests.mkdir(parents=True)
    superseded = batches.in_force(connection, work.feed.feed, work.key)
    old = None if superseded is None else superseded.batch_id
    # A connection of its own: when it is lost at COMMIT, the ledger's is still there to ask.
    with work.database.connect("publish") as publishing:
        work.lease.record_worker(publishing)
        _commit(publishing, work, batch, sources, old)
    return old


def _commit(
    connection: Connection,
    work: Work,
    batch: Batch,
    sources: Sequence[TableSource],
    old: str | None,
) -> None:
    try:
        with _settled(connection, work.database):
            oids = [source.table.oid for source in sources]
            lock_tables(connection, oids, exclusive=old is not None)
            if work.feed.identity == "feed":
                _refuse_twin(connection, batch)
            balances, chunks = _write(connection, work, batch, sources, old)
            proofs.record_publish(connection, batch.batch_id, balances, chunks)
            if old is not None:
                batches.mark_superseded(connection, old, batch.batch_id)
            written = sum(b.inserted + b.updated + b.unchanged for b in balances)
            batches.mark_published(connection, batch.batch_id, written)
            failpoint("bulk_write.before_fence", connection)
            work.lease.fence(connection)
    except LossyValueError as error:
        found = first_unconvertible(connection, sources)
        raise PublishError(found or str(error)) from None
    except psycopg.Error as error:
        if (error.sqlstate or "").startswith(_DATA_ERRORS) and not connection.broken:
            found = first_breach(connection, sources, error, old)
            raise PublishError(found or explain(error)) from None
        raise


def _refuse_twin(connection: Connection, batch: Batch) -> None:
    """Refuse content that another partition has published since ingest looked, one at a time."""
    connection.execute(_LOCK_IDENTITY, (f"{batch.feed}/{batch.identity}",))
    twin = batches.same_content(connection, batch.feed, batch.identity or "")
    if twin is not None and twin.partition_key != batch.partition_key:
        message = (
            f"{batch.name}: the same delivery is in force as batch {twin.batch_id} ({twin.name}), "
            "and the feed says `identity: feed`; nothing was written."
        )
        raise PublishError(message)


def _sources(connection: Connection, work: Work, batch: Batch) -> list[TableSource]:
    folder = work.staged_source(batch.batch_id)
    staged = files.of_batch(connection, batch.batch_id)
    for file in staged:
        if not (folder / file.file_name).exists():
            message = f"{file.file_name}: its staged copy is gone. Run the whole partition again."
            raise DeliveryError(message)
    sources = []
    for table in read_tables(connection, work.feed):
        own = [file for file in staged if file.target_table == table.full_name]
        if own:
            sources.append(table_source(table, own, folder))
    return sources


def _write(
    connection: Connection,
    work: Work,
    batch: Batch,
    sources: Sequence[TableSource],
    old: str | None,
) -> tuple[list[TableBalance], list[ChunkDigest]]:
    before = {} if old is None else {t.target_table: t for t in proofs.tables(connection, old)}
    done = []
    for source in sources:
        earlier = before.get(source.table.full_name)
        brought = {column.name for column in source.columns}
        dropped = () if earlier is None else {*earlier.columns, *earlier.normalised} - brought
        path = work.staged_digests(batch.batch_id) / f"{source.table.full_name}.parquet"
        with (
            Proof(source, path) as proof,
            closing(prefetched(proof.watch(source.chunks()))) as ahead,
        ):
            chunks = _told(ahead, work, batch)
            result = put(connection, proof, chunks, batch.batch_id, old, sorted(dropped))
        done.append((source, proof, result))
    removed = {}
    for source, _, _ in reversed(done):
        if old is not None and needs_diff(source.table):
            name = source.table.full_name
            removed[name] = remove_missing(connection, source.table, old)
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    failpoint("bulk_write.before_check", connection)
    balances = []
    for source, proof, result in done:
        _prove(connection, source, proof, batch.batch_id)
        balances.append(
            TableBalance(
                target_table=source.table.full_name,
                source_records=source.records,
                inserted=result.sent - result.updated - result.unchanged,
                updated=result.updated,
                unchanged=result.unchanged,
                rejected=0,
                skipped=0,
                superseded_within=0,
                removed=result.removed + removed.get(source.table.full_name, 0),
                columns=[column.name for column in source.exact],
                normalised=[column.name for column in source.as_text],
                digest_sum=proof.digest.total,
                digest_moment=proof.digest.moment,
            )
        )
    return balances, [chunk for _, proof, _ in done for chunk in proof.chunks]


def _told(chunks: Iterable[Chunk], work: Work, batch: Batch) -> Iterator[Chunk]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += chunk.rows
        work.progress("bulk_write", done, batch.source_records or done)


def _prove(connection: Connection, source: TableSource, proof: Proof, batch_id: str) -> None:
    """Compare what PostgreSQL holds with what was parsed, and that with the independent count."""
    name = source.table.full_name
    if proof.digest.rows != source.records:
        message = (
            f"{name}: the books do not balance: {source.records} records by the independent count, "
            f"{proof.digest.rows} parsed. A quote may be misplaced; nothing was written."
        )
        raise PublishError(message)
    stamped = sql.SQL("{} = {}").format(sql.Identifier(STAMP), sql.Literal(batch_id))
    columns = [column.name for column in source.exact]
    if columns:
        stored = table_digest(connection, source.table.identifier, columns, stamped)
    else:
        # All columns arrived as text, which was proven then; what is stored may be written otherwise.
        count = _COUNT.format(table=source.table.identifier, stamped=stamped)
        row = connection.execute(count).fetchone()
        stored = replace(proof.digest, rows=row[0] if row else 0)
    if stored != proof.digest:
        what = (
            f"{stored.rows} rows are stored of {proof.digest.rows}"
            if stored.rows != proof.digest.rows
            else "the digests of the stored rows differ from those of the source"
        )
        message = (
            f"{name}: {what}; nothing was written. Run again; if it happens again, a trigger may "
            "change the rows, or the machine's memory may be faulty."
        )
        raise PublishError(message)


@contextmanager
def _settled(connection: Connection, database: Database) -> Iterator[None]:
    """A transaction whose COMMIT counts even when its answer is lost on the way.

    `pg_xact_status` of PostgreSQL tells afterwards what became of a transaction, by its id.
    """
    connection.execute("BEGIN")
    try:
        row = connection.execute("SELECT pg_current_xact_id()::text, pg_backend_pid()").fetchone()
        yield
        failpoint("bulk_write.before_commit", connection)
    except BaseException:
        if not connection.closed:
            connection.rollback()
        raise
    try:
        connection.execute("COMMIT")
        failpoint("bulk_write.after_commit", connection)
    except psycopg.OperationalError:
        connection.close()
        if row is None or not _committed(database, str(row[0])):
            raise


def _committed(database: Database, xid: str) -> bool:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        try:
            with database.connect("settle") as connection:
                row = connection.execute("SELECT pg_xact_status(%s::xid8)", (xid,)).fetchone()
        except Exception:
            if time.monotonic() > deadline:
                raise
        else:
            if row is None or row[0] != "in progress" or time.monotonic() > deadline:
                return row is not None and row[0] == "committed"
        time.sleep(_SETTLE_PAUSE)
