"""The publish transaction: all rows of a batch in all its tables become visible, or none.

Its order is the guarantee: locks, rows of all tables (parents first), deferred constraints, the
balance against the independent count, the digests that PostgreSQL recomputes from what it stored, the
ledger's word, the fence, COMMIT. Anything that does not hold aborts all of it.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.catalog import parents_first
from batch_pipelines.engine.errors import PublishError, ThresholdError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import (
    batches,
    checksum_sums,
    proofs,
    rollbacks,
    signatures,
    staged_tables,
)
from batch_pipelines.engine.ledger.batch_events import tell
from batch_pipelines.engine.ledger.events import check_constraints
from batch_pipelines.engine.postgres.database import lock_tables
from batch_pipelines.engine.reading.prefetch import prefetched
from batch_pipelines.engine.writing.balancing import balance_of, farewell
from batch_pipelines.engine.writing.copying import copy_stamped, statements_for
from batch_pipelines.engine.writing.critical import note_told, raise_critical
from batch_pipelines.engine.writing.inserting import signature
from batch_pipelines.engine.writing.keeping import keep_superseded, record_whole
from batch_pipelines.engine.writing.proving import (
    Before,
    Written,
    is_most,
    prove,
    prove_all,
    reading_whole,
    size_of,
    stored_before,
)
from batch_pipelines.engine.writing.row_audit import audit_rows
from batch_pipelines.engine.writing.row_events import record_row_events, require_principals
from batch_pipelines.engine.writing.ruling import broken_rules, refuse_broken
from batch_pipelines.engine.writing.settling import settled
from batch_pipelines.engine.writing.superseding import (
    Put,
    delete_batch,
    needs_diff,
    put_staged,
    remove_missing,
)
from batch_pipelines.engine.writing.upserting import put_upserted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.ledger.rejects import Rejects
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.publication import Publication
    from batch_pipelines.engine.writing.source import TableSource
    from batch_pipelines.engine.writing.staging import Staged

_LOCK_IDENTITY = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


@dataclass(frozen=True)
class _Begin:
    """How things stand before the first row.

    Attributes:
        wal: Position of the write-ahead log.
        sizes: Bytes of each table, by its OID.
    """

    wal: str
    sizes: Mapping[int, int]


def publish_directly(
    connection: Connection, publication: Publication, rejects: Rejects
) -> tuple[TableBalance, ...]:
    """Publish by COPY straight into the tables: the way of a batch in which every typed row fits.

    Args:
        connection: A connection in autocommit mode.
        publication: What to publish; no table needs a diff, and no column arrives as text.
        rejects: Takes in the records that cannot be read.

    Returns:
        The balance of each table.

    Raises:
        PublishError: A proof failed.
        BrokenRulesError: Rows break rules of the feed.
        ThresholdError: Too many records were set aside.
        LeaseLostError: Another run has taken the partition over.
        psycopg.Error: PostgreSQL refused something.
    """
    batch_id, old = publication.batch.batch_id, publication.superseded

    def write(source: TableSource) -> Written:
        table = source.table
        removed = 0 if old is None else delete_batch(connection, table, old)
        with (
            publication.proof(source, rejects) as proof,
            closing(prefetched(proof.watch(source.chunks()))) as ahead,
        ):
            told = publication.told(ahead)
            began = time.perf_counter()
            sent = copy_stamped(connection, table.identifier, source, told, batch_id)
            written = signature(
                source, 0, sent, bulk=True, statements=statements_for(source),
                seconds=time.perf_counter() - began,
            )  # fmt: skip
        return Written(proof, Put(sent, removed=removed, signatures=(written,)))

    _intend(connection, publication)
    with settled(connection, publication.work.database, commit=publication.is_real):
        began = _lock(connection, publication)
        keep_superseded(connection, publication)
        note_told(connection, publication)
        written = [write(source) for source in publication.sources]
        return _finish(connection, publication, rejects, written, {}, began)


def publish_staged(
    connection: Connection, publication: Publication, rejects: Rejects, staged: Sequence[Staged]
) -> tuple[TableBalance, ...]:
    """Publish what is staged and judged.

    Args:
        connection: The connection with the staged tables, in autocommit mode.
        publication: What to publish.
        rejects: The records that were set aside.
        staged: The staged rows.

    Returns:
        The balance of each table.

    Raises:
        PublishError: A proof failed, or rows elsewhere would change.
        BrokenRulesError: Rows break rules of the feed.
        ThresholdError: Too many records were set aside.
        LeaseLostError: Another run has taken the partition over.
        psycopg.Error: PostgreSQL refused something.
    """
    _intend(connection, publication)
    with settled(connection, publication.work.database, commit=publication.is_real):
        began = _lock(connection, publication)
        keep_superseded(connection, publication)
        note_told(connection, publication)
        replaced = publication.replaced(connection)
        before = stored_before(connection, publication)
        written = [
            Written(each.proof, put(connection, publication, each, replaced), each)
            for each in staged
        ]
        return _finish(connection, publication, rejects, written, before, began)


def put(
    connection: Connection,
    publication: Publication,
    staged: Staged,
    replaced: Mapping[str, frozenset[str]],
) -> Put:
    """Bring one table's staged rows into it, as its feed has it.

    Args:
        connection: The publishing connection, inside a transaction.
        publication: What to publish.
        staged: The staged rows, judged.
        replaced: By table, the columns that the superseded batch brought.

    Returns:
        What happened.

    Raises:
        PublishError: Rows elsewhere would change.
    """
    batch_id, old = publication.batch.batch_id, publication.superseded
    key = publication.upsert_key(staged.source)
    began = time.perf_counter()
    before = replaced.get(staged.source.table.full_name, frozenset())
    if key:
        done = put_upserted(connection, staged, key, batch_id, old, before)
    else:
        gone = before - {column.name for column in staged.source.columns}
        policy = publication.policy(staged.source)
        done = put_staged(connection, staged, batch_id, old, sorted(gone), policy)
    if done.signatures or not done.sent:
        return done
    took = time.perf_counter() - began
    # Some rows are updated and some inserted, whatever they bring.
    whole = signature(staged.source, 0, done.sent, bulk=True, statements=2, seconds=took)
    return replace(done, signatures=(whole,))


def refuse_too_many(publication: Publication, rejects: Rejects) -> None:
    """Hold what was set aside against what the feed tolerates.

    Args:
        publication: What is to be published.
        rejects: The records set aside so far.

    Raises:
        ThresholdError: It is too much.
    """
    records, limit = publication.records, None
    if rejects.total and publication.purpose != "replay":
        limit = publication.work.feed.thresholds.broken(rejects.total, records)
    if limit is None and 0 < rejects.total == records:
        limit = "all of them"
    if limit is not None:
        why = f"above {limit}" if limit[0].isdigit() else limit
        message = (
            f"{publication.batch.name}: {rejects.total} of {records} records cannot be loaded, {why}; "
            f"nothing was written. The first: {rejects.first}."
        )
        if publication.is_real:
            message += f" `batch-pipelines rejects {publication.batch.batch_id}` lists them."
        raise ThresholdError(message, rejects.reasons)


def _intend(connection: Connection, publication: Publication) -> None:
    """Say what is about to be done, in a transaction of its own: it stays where the deed does not."""
    if publication.is_real:
        step = "replay" if publication.purpose == "replay" else "publish"
        tell(connection, publication.batch.batch_id, f"{step}.started", "IN_PROGRESS")


def _lock(connection: Connection, publication: Publication) -> _Begin:
    """Take the locks; look how things stand before the first row."""
    oids = [source.table.oid for source in publication.sources]
    oids += [table.oid for table in publication.retired]
    # What a rule holds unique, no index does: of two writers one has to wait for the other.
    alone = (
        publication.work.feed.one_writer
        or publication.superseded is not None
        or any(
            publication.upsert_key(source) or source.rules.unique for source in publication.sources
        )
    )
    require_principals(publication)
    lock_tables(connection, oids, exclusive=alone)
    if publication.work.feed.identity == "feed":
        _refuse_twin(connection, publication.batch)
    sizes = {s.table.oid: size_of(connection, s.table) for s in publication.sources}
    return _Begin(batches.wal_position(connection), sizes)


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


def _finish(
    connection: Connection,
    publication: Publication,
    rejects: Rejects,
    written: Sequence[Written],
    before: Mapping[str, Before],
    began: _Begin,
) -> tuple[TableBalance, ...]:
    """Do what comes after the rows, in the order that guarantees it."""
    batch = publication.batch
    refuse_too_many(publication, rejects)
    removed = _remove_missing(connection, publication)
    check_constraints(connection)
    for source in publication.sources:
        earlier = before.get(source.table.full_name, Before()).broken
        broken = broken_rules(connection, source.table, source.rules, batch.batch_id)
        refuse_broken(broken, earlier, source.table)
    failpoint("bulk_write.before_check", connection)
    balances = []
    for each in written:
        table = each.proof.source.table
        whole = is_most(began.sizes[table.oid], size_of(connection, table))
        with reading_whole(connection, wanted=whole):
            prove(connection, each, batch.batch_id, rejects, before)
            if each.staged is not None and publication.proves_all(each.proof.source):
                prove_all(connection, each.staged, batch.batch_id, before)
        balances.append(balance_of(publication, each.proof, each.put, rejects, removed))
    balances += [farewell(t, removed.get(t.full_name, 0)) for t in publication.retired]
    if not publication.is_real:
        return tuple(balances)
    _record(connection, publication, rejects, written, balances, began)
    if publication.step == "publish":
        _name_targets_in_checks(connection, batch)
        batches.mark_valid(connection, batch.batch_id)
    # Also what had waited when the feed did not say yet that it is published at once.
    staged_tables.drop(connection, [batch.batch_id])
    failpoint("bulk_write.before_fence", connection)
    publication.work.lease.fence(connection)
    return tuple(balances)


def _record(
    connection: Connection,
    publication: Publication,
    rejects: Rejects,
    written: Sequence[Written],
    balances: Sequence[TableBalance],
    began: _Begin,
) -> None:
    """Write down what the ledger keeps of the rows that become visible."""
    batch, old = publication.batch, publication.superseded
    record_whole(connection, publication)
    if publication.work.feed.audit == "row":
        for each in written:
            audit_rows(connection, batch.batch_id, each.proof)
        checksum_sums.refresh(connection, batch.batch_id)
    record_row_events(connection, publication, balances)
    chunks = [chunk for each in written for chunk in each.proof.chunks]
    written_alike = [
        replace(own, fallback=publication.bisected.get(own.target_table, 0) > 0)
        for each in written
        for own in each.put.signatures
    ]
    total = sum(b.inserted + b.updated + b.unchanged for b in balances)
    raise_critical(connection, publication, [each.proof for each in written])
    if publication.purpose == "replay":
        proofs.record_replay(connection, batch.batch_id, balances, chunks, written_alike)
        rejects.record_replay(connection, batch, publication.work.run_id)
        validated = publication.step == "publish"
        batches.mark_replayed(connection, batch.batch_id, total, validated=validated)
    else:
        proofs.record_publish(connection, batch.batch_id, balances, chunks, written_alike)
        rejects.record(connection, batch)
        compared = [s.comparison for s in publication.sources if s.comparison is not None]
        signatures.record(connection, batch, compared)
        if old is not None:
            batches.mark_superseded(connection, old, batch.batch_id)
        elif batches.supersede_archived(connection, batch):
            # Nothing had to be kept: the archive has its rows.
            rollbacks.record_kept(connection, batch.batch_id, kept=True)
        skipped = rejects.skipped.total()
        batches.mark_published(connection, batch.batch_id, total, rejects.total, skipped)
        sizes = {f.file_name: f.size for source in publication.sources for f in source.files}
        size = sum(sizes.values())
        batches.record_volume(connection, batch.batch_id, source_bytes=size, since=began.wal)


def _name_targets_in_checks(connection: Connection, batch: Batch) -> None:
    """Keep the statements of the checks that rows have passed as they can be run from now on."""
    for each in staged_tables.of_batch(connection, batch.batch_id):
        asked = sql.Identifier(*each.asked)
        target = sql.Identifier(*each.target_table.split("."))
        proofs.rename_in_checks(connection, batch.batch_id, each.target_table, asked, target)


def _remove_missing(connection: Connection, publication: Publication) -> dict[str, int]:
    """Take away what the superseded batch had and this one does not, children first."""
    old = publication.superseded
    if old is None:
        return {}
    leaving = [
        source.table
        for source in publication.sources
        if needs_diff(source.table) and not publication.upsert_key(source)
    ]
    return {
        table.full_name: remove_missing(connection, table, old)
        for table in reversed(parents_first([*publication.retired, *leaving]))
    }
