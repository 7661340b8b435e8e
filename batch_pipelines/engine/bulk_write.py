"""Bulk-write: publish what fits of a batch, and set aside what does not; see `writing`.

Where the feed says `publish: after_validation`, what fits waits in staging tables.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_pipelines.engine.alerts.at_once import tell_at_once
from batch_pipelines.engine.archiving.kept_feed import keep_feed
from batch_pipelines.engine.archiving.keys import require_keys
from batch_pipelines.engine.bad_files import require_enough
from batch_pipelines.engine.catalog import read_tables
from batch_pipelines.engine.errors import ContractError
from batch_pipelines.engine.fidelity import fidelity_of_source, told_of
from batch_pipelines.engine.ledger import (
    batches,
    columns,
    critical,
    files,
    proofs,
    rejects,
    signatures,
    staged_tables,
)
from batch_pipelines.engine.work import batch_for, batch_to_replay, recorded
from batch_pipelines.engine.writing.assembling import publication_of
from batch_pipelines.engine.writing.loading import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.fidelity import ColumnFidelity
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.critical import CriticalCount
    from batch_pipelines.engine.ledger.proofs import Signature, TableBalance
    from batch_pipelines.engine.ledger.signatures import SignatureEvent
    from batch_pipelines.engine.ledger.staged_tables import StagedTable
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work
    from batch_pipelines.engine.writing.publication import Publication


@dataclass(frozen=True)
class BulkWriteResult:
    """What bulk-write did.

    Attributes:
        batch: The batch, published; or in progress, where its rows wait.
        worked: False where it was published already.
        tables: The balance of each table.
        columns: The columns of each table, by its name.
        rejects: How many records each reason holds back.
        superseded: Id of the batch whose rows it replaced, or None.
        seconds: Time it took.
        signatures: How its rows were grouped and written.
        events: What its delivery was, for each table, against the version of the signature in force.
        waiting: Where its rows wait, if they do until they are validated.
        fidelity: How true the columns of each table keep what was sent, by its name.
        critical: How many of its rows are such that people were told of them at once.
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
    waiting: tuple[StagedTable, ...] = ()
    fidelity: Mapping[str, tuple[ColumnFidelity, ...]] = field(default_factory=dict)
    critical: tuple[CriticalCount, ...] = ()


def bulk_write(connection: Connection, work: Work, *, replay: bool = False) -> BulkWriteResult:
    """Publish a checksummed batch, or what was set aside of a published one.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work.
        replay: Whether to load the records of the partition's batch in force that were set aside, now
            that the cause is mended. They get the same stamp.

    Returns:
        What was written; the batch is `PUBLISHED`, or its rows wait.

    Raises:
        DeliveryError: A file cannot be read on.
        ContractError: The delivery's columns are others than the feed's contract or its tables allow.
        FeedError: The feed's tables or the files' columns do not fit.
        ThresholdError: More records than the feed tolerates cannot be loaded, or all; they are kept.
        PublishError: The books do not balance, a digest differs, or rows elsewhere would change.
        LeaseLostError: Another run took the partition over.
        SettingsError: The feed asks for encryption, and there is no key.
        StageOrderError: There is no batch to publish.
    """
    began = time.perf_counter()
    superseded = None
    require_keys(work.settings, work.feed)
    if replay:
        batch, to_do = batch_to_replay(connection, work)
    else:
        batch, to_do = batch_for(connection, work, "bulk_write")
    if to_do:
        with recorded(connection, work, batch.batch_id, "bulk_write"):
            if replay:
                _write(connection, work, publication_of(connection, work, batch, "replay"))
            else:
                superseded = _load(connection, work, batch)
    # A duplicate has no rows of its own; what is known of it is known of its original.
    origin = batch.duplicate_of or batch.batch_id
    # Also where there was nothing to do: the run that published it may have died before it had told.
    tell_at_once(work, origin)
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
        tuple(staged_tables.of_batch(connection, origin)),
        columns.of_batch(connection, origin),
        tuple(critical.of_batch(connection, origin)),
    )


def _load(connection: Connection, work: Work, batch: Batch) -> str | None:
    # Once more: since checksum another run may have published the partition.
    require_enough(connection, work, files.of_batch(connection, batch.batch_id))
    digests = work.staged_digests(batch.batch_id)
    shutil.rmtree(digests, ignore_errors=True)
    digests.mkdir(parents=True)
    try:
        publication = publication_of(connection, work, batch, "load")
    except ContractError as error:
        with connection.transaction():
            work.lease.hold(connection)
            signatures.record_refused(connection, batch, error.comparison)
        raise
    _tell_of_columns(connection, work, batch, publication)
    _write(connection, work, publication)
    return publication.superseded


def _write(connection: Connection, work: Work, publication: Publication) -> None:
    """Publish, or have the rows wait until validation has passed, as the feed says."""
    keep_feed(work, publication.batch.batch_id, replay=publication.purpose == "replay")
    # A replay of nothing has nothing that could wait.
    if work.feed.publish == "direct" or not publication.sources:
        load(connection, publication)
        return
    first = publication.staged_only()
    shutil.rmtree(first.digests, ignore_errors=True)
    first.digests.mkdir(parents=True)
    load(connection, first)
    if publication.purpose == "load":
        # For rows that differ to be named; publishing takes its own from those that are kept apart.
        shutil.copytree(first.digests, publication.digests, dirs_exist_ok=True)


def _tell_of_columns(
    connection: Connection, work: Work, batch: Batch, publication: Publication
) -> None:
    """Say, before anything is published, how true each column will keep what is sent."""
    version = connection.info.server_version
    found = {s.table.full_name: fidelity_of_source(s, version) for s in publication.sources}
    with connection.transaction():
        work.lease.hold(connection)
        columns.record(connection, batch.batch_id, found)
    for name, own in found.items():
        for sentence in told_of(name, own):
            work.notice(sentence)
