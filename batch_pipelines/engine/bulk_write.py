"""Bulk-write: publish what fits of a batch, and set aside what does not; see `writing`."""

from __future__ import annotations

import functools
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batch_pipelines.engine.bad_files import require_enough
from batch_pipelines.engine.catalog import is_stamped, read_tables
from batch_pipelines.engine.errors import ContractError, DeliveryError
from batch_pipelines.engine.feed_files import place_of
from batch_pipelines.engine.feed_parts.table import Table
from batch_pipelines.engine.ledger import batches, files, proofs, rejects, signatures
from batch_pipelines.engine.restaging import restage
from batch_pipelines.engine.work import batch_for, batch_to_replay, recorded
from batch_pipelines.engine.writing import terms as agreed
from batch_pipelines.engine.writing.loading import load
from batch_pipelines.engine.writing.publishing import Publication
from batch_pipelines.engine.writing.ruling import read_rules
from batch_pipelines.engine.writing.source import sources_of, with_rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.catalog import Column, TableInfo
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.proofs import Signature, TableBalance
    from batch_pipelines.engine.ledger.signatures import SignatureEvent
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.signatures import Terms
    from batch_pipelines.engine.work import Work
    from batch_pipelines.engine.writing.source import TableSource


@dataclass(frozen=True)
class BulkWriteResult:
    """What bulk-write did.

    Attributes:
        batch: The batch, published.
        worked: False where it was published already.
        tables: The balance of each table.
        columns: The columns of each table, by its name.
        rejects: How many records each reason holds back.
        superseded: Id of the batch whose rows it replaced, or None.
        seconds: Time it took.
        signatures: How its rows were grouped and written.
        events: What its delivery was, for each table, against the version of the signature in force.
    """

    batch: Batch
    worked: bool
    tables: tuple[TableBalance, ...]
    columns: dict[str, tuple[Column, ...]]
    rejects: tuple[rejects.RejectCount, ...]
    superseded: str | None
    seconds: float
    signatures: tuple[Signature, ...] = ()
    events: tuple[SignatureEvent, ...] = ()


def bulk_write(connection: Connection, work: Work, *, replay: bool = False) -> BulkWriteResult:
    """Publish a checksummed batch, or what was set aside of a published one.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work.
        replay: Whether to load the records of the partition's batch in force that were set aside, now
            that the cause is mended. They get the same stamp.

    Returns:
        What was written; the batch is `PUBLISHED`.

    Raises:
        DeliveryError: A file cannot be read on.
        ContractError: The delivery's columns are others than the feed's contract or its tables allow.
        FeedError: The feed's tables or the files' columns do not fit.
        ThresholdError: More records than the feed tolerates cannot be loaded, or all; they are kept.
        PublishError: The books do not balance, a digest differs, or rows elsewhere would change.
        LeaseLostError: Another run took the partition over.
        StageOrderError: There is no batch to publish.
    """
    began = time.perf_counter()
    superseded = None
    if replay:
        batch, to_do = batch_to_replay(connection, work)
    else:
        batch, to_do = batch_for(connection, work, "bulk_write")
    if to_do:
        with recorded(connection, work, batch.batch_id, "bulk_write"):
            if replay:
                _replay(connection, work, batch)
            else:
                superseded = _publish(connection, work, batch)
    # A duplicate has no rows of its own; what is known of it is known of its original.
    origin = batch.duplicate_of or batch.batch_id
    return BulkWriteResult(
        batches.by_id(connection, batch.batch_id),
        to_do,
        tuple(proofs.tables(connection, origin)),
        {table.full_name: table.columns for table in read_tables(connection, work.feed)},
        tuple(rejects.summary(connection, origin)),
        superseded,
        time.perf_counter() - began,
        tuple(proofs.signatures(connection, origin)),
        tuple(signatures.events(connection, origin)),
    )


def _publish(connection: Connection, work: Work, batch: Batch) -> str | None:
    # Once more: since checksum another run may have published the partition.
    require_enough(connection, work, files.of_batch(connection, batch.batch_id))
    superseded = batches.in_force(connection, work.feed.feed, work.key)
    old = None if superseded is None else superseded.batch_id
    digests = work.staged_digests(batch.batch_id)
    shutil.rmtree(digests, ignore_errors=True)
    digests.mkdir(parents=True)
    try:
        terms = agreed.before_load(connection, work.feed)
        sources = _sources(connection, work, batch, terms)
    except ContractError as error:
        with connection.transaction():
            work.lease.hold(connection)
            signatures.record_refused(connection, batch, error.comparison)
        raise
    retired = _retired(connection, work, old)
    load(connection, Publication(work, batch, sources, old, retired, digests, "load"))
    return old


def _replay(connection: Connection, work: Work, batch: Batch) -> None:
    restage(connection, work, batch)
    sources = []
    tables = {table.full_name: table for table in read_tables(connection, work.feed)}
    terms = agreed.before_replay(connection, work.feed, batch, tables)
    for source in _sources(connection, work, batch, terms):
        only = {}
        for file in source.files:
            waiting = rejects.left_out(
                connection, batch.batch_id, file.file_name, source.table.full_name, skipped=False
            )
            source.require_places(file, waiting)
            only[file.file_name] = waiting.records
        if any(len(numbers) for numbers in only.values()):
            sources.append(replace(source, only=only))
    digests = work.staged_digests(batch.batch_id)
    load(connection, Publication(work, batch, tuple(sources), None, (), digests, "replay"))


def _retired(connection: Connection, work: Work, old: str | None) -> tuple[TableInfo, ...]:
    """Read the tables that hold rows of the superseded batch and are no longer the feed's.

    One that has been dropped since has none left. Parents stand before their children.
    """
    if old is None:
        return ()
    kept = {table.table for table in work.feed.tables}
    gone = [
        Table(table=balance.target_table, files=balance.target_table)
        for balance in proofs.tables(connection, old)
        if balance.target_table not in kept
        and balance.inserted + balance.updated + balance.unchanged
        and is_stamped(connection, balance.target_table)
    ]
    return read_tables(connection, work.feed.model_copy(update={"tables": tuple(gone)}))


def _sources(
    connection: Connection, work: Work, batch: Batch, terms: Mapping[str, Terms]
) -> tuple[TableSource, ...]:
    folder = work.staged_source(batch.batch_id)
    staged = files.of_batch(connection, batch.batch_id)
    for file in staged:
        if not (folder / file.file_name).exists():
            message = f"{file.file_name}: its staged copy is gone. Run the whole partition again."
            raise DeliveryError(message)
    tables = read_tables(connection, work.feed)
    place = functools.partial(place_of, work.settings.feeds, work.feed.feed)
    rules = read_rules(connection, work.feed, tables, place)
    return with_rules(sources_of(tables, staged, folder, work.feed, terms), rules)
