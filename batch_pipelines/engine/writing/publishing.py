"""The publish transaction: all rows of a batch in all its tables become visible, or none.

Its order is the guarantee: locks, rows of all tables (parents first), deferred constraints, the
balance against the independent count, the digests that PostgreSQL recomputes from what it stored, the
ledger's word, the fence, COMMIT. Anything that does not hold aborts all of it.
"""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, parents_first
from batch_pipelines.engine.digests import RowDigest
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.errors import PublishError, ThresholdError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import batches, proofs, signatures, staged_tables
from batch_pipelines.engine.ledger.proofs import TableBalance
from batch_pipelines.engine.postgres.database import lock_tables
from batch_pipelines.engine.reading.prefetch import prefetched
from batch_pipelines.engine.writing.blaming import (
    as_digested,
    differing_from_source,
    differing_from_staged,
)
from batch_pipelines.engine.writing.copying import copy_stamped, statements_for
from batch_pipelines.engine.writing.critical import note_told, raise_critical
from batch_pipelines.engine.writing.inserting import Policy, signature
from batch_pipelines.engine.writing.keeping import keep_superseded, record_whole
from batch_pipelines.engine.writing.proof import Proof
from batch_pipelines.engine.writing.row_audit import audit_rows
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
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from batch_pipelines.engine.catalog import Column, TableInfo
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.rejects import Rejects
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.reading.chunks import Chunk
    from batch_pipelines.engine.work import Work
    from batch_pipelines.engine.writing.source import TableSource
    from batch_pipelines.engine.writing.staging import Staged

_LOCK_IDENTITY = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_COUNT = sql.SQL("SELECT count(*) FROM {table} WHERE {stamped}")
# A partitioned table has its rows in its partitions; of another, PostgreSQL lists none.
_SIZE = """
SELECT coalesce(sum(pg_relation_size(relid)), pg_relation_size(%(table)s))
FROM pg_partition_tree(%(table)s)
"""
_BY_INDEX = ("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan")
# From this share of a table on, reading all of it (in parallel) beats looking rows up (alone): rows that
# are read cost three times as much as others that are passed over, on flights.
_MOST = 0.25


@dataclass(frozen=True)
class Publication:
    """What one batch is to publish.

    Attributes:
        work: The run's work.
        batch: The batch.
        sources: What it brings for each table, parents first.
        superseded: Id of the batch that it replaces, or None.
        retired: Tables with rows of that batch that are no longer the feed's.
        digests: Folder for the row digests.
        purpose: `load` a batch; `replay` records that were set aside when it was published, whose
            rows come to those that it has already; or a `rehearsal`, which ends before the ledger is
            told, and is rolled back.
        step: `whole`, or for a feed that publishes after validation: `stage` rows, for them to wait;
            `publish` those that have waited.
        bisected: Statements it took to find single rows by halving, by table.
    """

    work: Work
    batch: Batch
    sources: tuple[TableSource, ...]
    superseded: str | None
    retired: tuple[TableInfo, ...]
    digests: Path
    purpose: Literal["load", "replay", "rehearsal"]
    step: Literal["whole", "stage", "publish"] = "whole"
    bisected: dict[str, int] = field(default_factory=dict)

    def staged_only(self) -> Publication:
        """Give the first step: rows are judged and staged, and then wait."""
        digests = self.work.waiting_digests(self.batch.batch_id)
        return replace(self, step="stage", digests=digests)

    def upsert_key(self, source: TableSource) -> tuple[str, ...]:
        """Give the columns by which a table's rows are upserted; none where they are inserted."""
        table = self.work.feed.table_named(source.table.full_name)
        return table.upsert_key(source.table.primary_key)

    def policy(self, source: TableSource) -> Policy:
        """Say which rows of a source are inserted singly."""
        return Policy.of(self.work.feed, source.table.full_name, self.work.settings)

    def proves_all(self, source: TableSource) -> bool:
        """Say whether stored rows are held against staged ones in all columns.

        Where the source does not tell all their values, or PostgreSQL has converted some from text.
        """
        return bool(source.filled or {*source.as_text} & {*_meant(source)})

    @property
    def is_real(self) -> bool:
        """Whether it is to be committed."""
        return self.purpose != "rehearsal"

    @property
    def records(self) -> int:
        """Records by the independent count."""
        return sum(source.records for source in self.sources)

    def proof(self, source: TableSource, rejects: Rejects) -> Proof:
        """Begin the proof of one source."""
        return Proof(source, self.row_digests(source), rejects)

    def row_digests(self, source: TableSource) -> Path:
        """Say where the row digests of one source are kept."""
        # Which run a replay is of, is known when it is published.
        named = self.purpose == "replay" and self.step != "stage"
        suffix = f".replay-{self.work.run_id}.parquet" if named else ".parquet"
        return self.digests / f"{source.table.full_name}{suffix}"

    def told(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Pass chunks on and tell how far it has come."""
        done = 0
        for chunk in chunks:
            yield chunk
            done += chunk.rows
            self.work.progress("bulk_write", done, self.batch.source_records or done)

    def replaced(self, connection: Connection) -> dict[str, frozenset[str]]:
        """List for each table the columns that the superseded batch brought."""
        if self.superseded is None:
            return {}
        return {
            each.target_table: frozenset(
                {*each.columns, *each.normalised, *each.filled, *each.server_changed}
            )
            for each in proofs.tables(connection, self.superseded)
        }


@dataclass(frozen=True)
class _Before:
    """What a table holds of the batch before it is published: its digests, and what breaks rules."""

    stored: RowDigest = field(default_factory=RowDigest.zero)
    whole: RowDigest = field(default_factory=RowDigest.zero)
    broken: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Written:
    proof: Proof
    put: Put
    staged: Staged | None = None


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

    def write(source: TableSource) -> _Written:
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
        return _Written(proof, Put(sent, removed=removed, signatures=(written,)))

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
    with settled(connection, publication.work.database, commit=publication.is_real):
        began = _lock(connection, publication)
        keep_superseded(connection, publication)
        note_told(connection, publication)
        replaced = publication.replaced(connection)
        before = _before(connection, publication)
        written = [
            _Written(each.proof, put(connection, publication, each, replaced), each)
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
    lock_tables(connection, oids, exclusive=alone)
    if publication.work.feed.identity == "feed":
        _refuse_twin(connection, publication.batch)
    sizes = {s.table.oid: _size(connection, s.table) for s in publication.sources}
    return _Begin(batches.wal_position(connection), sizes)


def _size(connection: Connection, table: TableInfo) -> int:
    row = connection.execute(_SIZE, {"table": table.oid}).fetchone()
    return int(row[0]) if row else 0


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


def _before(connection: Connection, publication: Publication) -> dict[str, _Before]:
    """Look at the rows that the batch has already; none but where records are replayed."""
    if publication.purpose != "replay":
        return {}
    batch_id = publication.batch.batch_id
    return {
        source.table.full_name: _Before(
            _stored(connection, source, batch_id),
            _whole(connection, source, source.table.identifier, _stamped(batch_id))
            if publication.proves_all(source)
            else RowDigest.zero(),
            broken_rules(connection, source.table, source.rules, batch_id),
        )
        for source in publication.sources
    }


def _finish(
    connection: Connection,
    publication: Publication,
    rejects: Rejects,
    written: Sequence[_Written],
    before: Mapping[str, _Before],
    began: _Begin,
) -> tuple[TableBalance, ...]:
    """Do what comes after the rows, in the order that guarantees it."""
    batch = publication.batch
    refuse_too_many(publication, rejects)
    removed = _remove_missing(connection, publication)
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for source in publication.sources:
        earlier = before.get(source.table.full_name, _Before()).broken
        broken = broken_rules(connection, source.table, source.rules, batch.batch_id)
        refuse_broken(broken, earlier, source.table)
    failpoint("bulk_write.before_check", connection)
    balances = []
    for each in written:
        table = each.proof.source.table
        whole = _is_most(began.sizes[table.oid], _size(connection, table))
        with _reading_whole(connection, wanted=whole):
            _prove(connection, each, batch.batch_id, rejects, before)
            if each.staged is not None and publication.proves_all(each.proof.source):
                _prove_all(connection, each.staged, batch.batch_id, before)
        balances.append(balance_of(publication, each.proof, each.put, rejects, removed))
    balances += [_farewell(t, removed.get(t.full_name, 0)) for t in publication.retired]
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
    written: Sequence[_Written],
    balances: Sequence[TableBalance],
    began: _Begin,
) -> None:
    """Write down what the ledger keeps of the rows that become visible."""
    batch, old = publication.batch, publication.superseded
    record_whole(connection, publication)
    if publication.work.feed.audit == "row":
        for each in written:
            audit_rows(connection, batch.batch_id, each.proof)
    chunks = [chunk for each in written for chunk in each.proof.chunks]
    written_alike = [
        replace(own, fallback=publication.bisected.get(own.target_table, 0) > 0)
        for each in written
        for own in each.put.signatures
    ]
    total = sum(b.inserted + b.updated + b.unchanged for b in balances)
    if publication.purpose == "replay":
        proofs.record_replay(connection, batch.batch_id, balances, chunks, written_alike)
        rejects.record_replay(connection, batch, publication.work.run_id)
        batches.mark_replayed(connection, batch.batch_id, total)
        if publication.step == "whole":
            batches.forget_validation(connection, batch.batch_id)
    else:
        proofs.record_publish(connection, batch.batch_id, balances, chunks, written_alike)
        rejects.record(connection, batch)
        compared = [s.comparison for s in publication.sources if s.comparison is not None]
        signatures.record(connection, batch, compared)
        if old is not None:
            batches.mark_superseded(connection, old, batch.batch_id)
        skipped = rejects.skipped.total()
        batches.mark_published(connection, batch.batch_id, total, rejects.total, skipped)
        sizes = {f.file_name: f.size for source in publication.sources for f in source.files}
        size = sum(sizes.values())
        batches.record_volume(connection, batch.batch_id, source_bytes=size, since=began.wal)
    raise_critical(connection, publication, [each.proof for each in written])


def _name_targets_in_checks(connection: Connection, batch: Batch) -> None:
    """Keep the statements of the checks that rows have passed as they can be run from now on."""
    for each in staged_tables.of_batch(connection, batch.batch_id):
        asked = sql.Identifier(*each.asked)
        target = sql.Identifier(*each.target_table.split("."))
        proofs.rename_in_checks(connection, batch.batch_id, each.target_table, asked, target)


def _is_most(before: int, now: int) -> bool:
    """Say whether a table that grew from so many bytes to so many is mostly the batch's."""
    return now - before > _MOST * now


@contextmanager
def _reading_whole(connection: Connection, *, wanted: bool) -> Iterator[None]:
    """Have tables read as a whole and not by an index, which keeps PostgreSQL from using workers.

    Nobody has counted the new rows yet, so its planner takes them for few.
    """
    if wanted:
        for name in _BY_INDEX:
            connection.execute(f"SET LOCAL {name} = off")
    yield
    if wanted:
        for name in _BY_INDEX:
            connection.execute(f"SET LOCAL {name} TO DEFAULT")


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


def balance_of(
    publication: Publication,
    proof: Proof,
    put: Put,
    rejects: Rejects,
    removed: Mapping[str, int] = MappingProxyType({}),
) -> TableBalance:
    """Balance a table.

    Args:
        publication: What is published, or staged.
        proof: The proof of its source.
        put: What happened to its rows.
        rejects: The records that were set aside.
        removed: Rows of the superseded batch that were taken away at last, by table.
    """
    name = proof.source.table.full_name
    return TableBalance(
        target_table=name,
        source_records=proof.source.records,
        inserted=put.sent - put.updated - put.unchanged,
        updated=put.updated,
        unchanged=put.unchanged,
        rejected=rejects.count[name],
        skipped=rejects.skipped[name],
        superseded_within=0,
        removed=put.removed + removed.get(name, 0),
        columns=[column.name for column in proof.source.exact],
        normalised=[
            column.name
            for column in proof.source.as_text
            if column.name not in proof.source.server_changed
        ],
        digest_sum=proof.digest.total,
        digest_moment=proof.digest.moment,
        isolation_statements=publication.bisected.get(name, 0),
        filled=[*(column.name for column in proof.source.filled), *sorted(proof.source.late)],
        column_types=[c.wire.digested_as for c in proof.source.exact if c.wire is not None],
        server_changed=sorted(proof.source.server_changed),
    )


def _farewell(table: TableInfo, removed: int) -> TableBalance:
    """Balance a table from which the batch only takes the superseded one's rows."""
    return TableBalance(
        target_table=table.full_name, source_records=0, inserted=0, updated=0, unchanged=0,
        rejected=0, skipped=0, superseded_within=0, removed=removed, columns=[], normalised=[],
        digest_sum=0, digest_moment=0, isolation_statements=0,
    )  # fmt: skip


def _prove(
    connection: Connection,
    written: _Written,
    batch_id: str,
    rejects: Rejects,
    before: Mapping[str, _Before],
) -> None:
    """Compare what PostgreSQL holds with what was parsed, and that with the independent count."""
    proof, source = written.proof, written.proof.source
    name = source.table.full_name
    require_balance(proof, rejects)
    stored = _stored(connection, source, batch_id)
    expected = before.get(name, _Before()).stored + proof.digest
    if not source.exact:
        # All columns arrived as text, which was proven then; what is stored may be written otherwise.
        stored = replace(expected, rows=stored.rows)
    if stored.rows != expected.rows:
        message = (
            f"{name}: {stored.rows} rows are stored of {expected.rows}; nothing was written. Run again; "
            "if it happens again, a trigger may take rows away or add some."
        )
        raise PublishError(message)
    if stored != expected:
        what = "the digests of the stored rows differ from those of the source"
        columns: list[str] = []
        if not before:
            stamped = _stamped(batch_id)
            columns = (
                differing_from_source(connection, source, stamped)
                if written.staged is None
                else differing_from_staged(
                    connection, source, written.staged.name, source.exact, stamped
                )
            )
        raise PublishError(_otherwise(name, what, columns))


def require_balance(proof: Proof, rejects: Rejects) -> None:
    """Hold what was parsed of a source against the independent count of its records.

    Args:
        proof: The proof of the source.
        rejects: The records that were set aside.

    Raises:
        PublishError: The books do not balance.
    """
    source, name = proof.source, proof.source.table.full_name
    aside = rejects.count[name] + rejects.skipped[name]
    if proof.digest.rows + aside != source.records:
        message = (
            f"{name}: the books do not balance: {source.records} records by the independent count, "
            f"{proof.digest.rows} parsed and {aside} set aside. A quote may be misplaced; nothing "
            "was written."
        )
        raise PublishError(message)


def _otherwise(name: str, what: str, columns: Sequence[str]) -> str:
    """Say that rows are stored otherwise than they were sent, in which columns, and what to do."""
    listed = ", ".join(columns)
    where = f" in {listed}" if columns else ""
    return (
        f"{name}: {what}{where}; nothing was written. Where a trigger changes them and is to, name the "
        f"columns in the feed, `server_changed: [{listed or 'COLUMN'}]` of {name}: they are then not "
        "proven. Otherwise run again; if it happens again, the machine's memory may be faulty."
    )


def _prove_all(
    connection: Connection, staged: Staged, batch_id: str, before: Mapping[str, _Before]
) -> None:
    """Compare all columns of stored rows with those of the staged ones.

    What was staged has been compared with the source, before it got the values that the table has, or
    was converted from text.
    """
    source, name = staged.source, staged.source.table.full_name
    wanted = before.get(name, _Before()).whole
    wanted += _whole(connection, source, staged.name, sql.SQL("true"))
    if _whole(connection, source, source.table.identifier, _stamped(batch_id)) != wanted:
        what, columns = "the stored rows differ from those that were staged", []
        if not before:
            stamped = _stamped(batch_id)
            columns = differing_from_staged(
                connection, source, staged.name, _meant(source), stamped
            )
        raise PublishError(_otherwise(name, what, columns))


def _meant(source: TableSource) -> list[Column]:
    """Give the columns that are to be stored as they are staged."""
    return [column for column in source.columns if column.name not in source.server_changed]


def _whole(
    connection: Connection, source: TableSource, table: sql.Identifier, where: sql.Composable
) -> RowDigest:
    """Digest what is to be stored as it is staged, types outside the closed list as text."""
    columns = [as_digested(column) for column in _meant(source)]
    return table_digest(connection, table, columns, where)


def _stamped(batch_id: str) -> sql.Composed:
    return sql.SQL("{} = {}").format(sql.Identifier(STAMP), sql.Literal(batch_id))


def _stored(connection: Connection, source: TableSource, batch_id: str) -> RowDigest:
    """Digest a batch's rows as PostgreSQL has them; where no column is exact, only count them."""
    stamped = _stamped(batch_id)
    table, columns = source.table.identifier, [column.name for column in source.exact]
    if columns:
        return table_digest(connection, table, columns, stamped)
    row = connection.execute(_COUNT.format(table=table, stamped=stamped)).fetchone()
    return RowDigest(int(row[0]) if row else 0, 0, 0)
