"""Waiting: judged rows in logged tables, seen by nobody in their own, until validation has passed.

Write-audit-publish. `have_wait` ends the first step: in one fenced transaction what fits is copied from
the session's temporary tables to tables of the schema `batch_staging`, with their digests, the
rejects and the ledger's word. These tables are never changed afterwards. `bring_back` begins the second
step: it copies them into temporary tables again, holds them against the digests, and from there on
everything is as if the rows had just been staged; they are judged once more, against the tables of now.
A process that is killed in either step leaves what was before it.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.errors import DeliveryError, PublishError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import batches, proofs, signatures, staged_tables
from batch_pipelines.engine.ledger.staged_tables import SCHEMA, StagedTable
from batch_pipelines.engine.writing.balancing import balance_of, require_balance
from batch_pipelines.engine.writing.copying import GROUP, PLACE
from batch_pipelines.engine.writing.inserting import signature
from batch_pipelines.engine.writing.proof import Proof
from batch_pipelines.engine.writing.settling import settled
from batch_pipelines.engine.writing.staging import Staged, complete_staged, make_room, staged_name
from batch_pipelines.engine.writing.superseding import Put

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.digests import RowDigest
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.ledger.rejects import Rejects
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.publication import Publication
    from batch_pipelines.engine.writing.source import TableSource

_ALL = sql.SQL("true")
# The stamp is there for the checks' statements, which are the same before and after the publish.
_KEEP = sql.SQL(
    "CREATE TABLE {waiting} AS SELECT {columns}, {batch}::uuid AS {stamp} FROM {staged}"
)
_TAKE = sql.SQL("CREATE TEMPORARY TABLE {name} AS SELECT {columns} FROM {waiting}")


def have_wait(
    connection: Connection, publication: Publication, rejects: Rejects, staged: Sequence[Staged]
) -> tuple[TableBalance, ...]:
    """Keep staged and judged rows in logged tables, in place of what an earlier try has left there.

    Args:
        connection: The connection with the staged tables, in autocommit mode.
        publication: What they are of.
        rejects: The records that were set aside.
        staged: The staged rows.

    Returns:
        The balance of each table, as far as it is known: all rows that wait count as inserted.

    Raises:
        PublishError: The books do not balance, or what waits is not what was sent.
        LeaseLostError: Another run has taken the partition over.
    """
    batch = publication.batch
    with settled(connection, publication.work.database, purpose="staging"):
        staged_tables.drop(connection, [batch.batch_id])
        kept = [_keep(connection, publication, rejects, each) for each in staged]
        rows = [each.digest.rows for each in kept]
        balances = tuple(
            balance_of(publication, each.proof, Put(number), rejects)
            for each, number in zip(staged, rows, strict=True)
        )
        if publication.purpose == "replay":
            batches.mark_replay_waiting(connection, batch.batch_id)
        else:
            chunks = [chunk for each in staged for chunk in each.proof.chunks]
            alike = [
                signature(each.source, 0, number, bulk=True, statements=1, seconds=0.0)
                for each, number in zip(staged, rows, strict=True)
            ]
            proofs.record_publish(connection, batch.batch_id, balances, chunks, alike)
            rejects.record(connection, batch)
            compared = [s.comparison for s in publication.sources if s.comparison is not None]
            signatures.record_waiting(connection, batch, compared)
            skipped = rejects.skipped.total()
            batches.mark_waiting(connection, batch.batch_id, rejects.total, skipped)
        # Whoever goes on may find this process killed right after the commit.
        rejects.close()
        failpoint("staging.before_fence", connection)
        publication.work.lease.fence(connection)
    return balances


def bring_back(
    connection: Connection,
    publication: Publication,
    rejects: Rejects,
    extras: Mapping[str, Sequence[Column]],
) -> tuple[Staged, ...]:
    """Bring rows that wait into temporary tables of this session, for them to be published.

    Args:
        connection: A connection in autocommit mode.
        publication: What to publish.
        rejects: Takes in the records that do not fit any more.
        extras: By table, columns to judge or restore by that no record brings.

    Returns:
        The staged sources, in the publication's order.

    Raises:
        PublishError: They are not what was staged, or feed or tables are not what they were then.
        DeliveryError: Their row digests are gone.
    """
    make_room(connection)
    batch_id = publication.batch.batch_id
    waiting = {each.target_table: each for each in staged_tables.of_batch(connection, batch_id)}
    found = []
    for number, source in enumerate(publication.sources):
        name = source.table.full_name
        own = waiting.get(name)
        if own is None or own.layout != _layout(publication, source):
            message = (
                f"{publication.batch.name}: the feed or {name} has been changed since its rows were "
                "staged; nothing was published. Run bulk_write again, or the whole partition."
            )
            raise PublishError(message)
        take = _TAKE.format(
            name=sql.Identifier(staged_name(number)),
            columns=_listed(source),
            waiting=own.identifier,
        )
        connection.execute(take)
        staged = Staged(
            number, source, sql.Identifier("pg_temp", staged_name(number)),
            _proof(publication, source, rejects, own),
        )  # fmt: skip
        if _digest(connection, source, staged.name) != own.digest:
            message = (
                f"{name}: the rows that waited are not those that were staged, somebody has changed "
                "them; nothing was published. Run bulk_write again, or the whole partition."
            )
            raise PublishError(message)
        found.append(complete_staged(connection, staged, extras.get(name, ())))
    return tuple(found)


def _keep(
    connection: Connection, publication: Publication, rejects: Rejects, staged: Staged
) -> StagedTable:
    source, proof, batch_id = staged.source, staged.proof, publication.batch.batch_id
    require_balance(proof, rejects)
    name = f"{batch_id.replace('-', '')}_{staged.number}"
    waiting = sql.Identifier(SCHEMA, name)
    keep = _KEEP.format(
        waiting=waiting, columns=_listed(source), staged=staged.name, batch=sql.Literal(batch_id),
        stamp=sql.Identifier(STAMP),
    )  # fmt: skip
    connection.execute(keep)
    connection.execute(sql.SQL("ANALYZE {}").format(waiting))
    failpoint("staging.before_check", connection)
    digest = _digest(connection, source, waiting)
    exact = [column.name for column in source.exact]
    sent = table_digest(connection, waiting, exact, _ALL) if exact else proof.digest
    if sent != proof.digest or digest != _digest(connection, source, staged.name):
        message = (
            f"{source.table.full_name}: the rows that wait differ from those that were sent; nothing "
            "was written. Run again; if it happens again, the machine's memory may be faulty."
        )
        raise PublishError(message)
    kept = StagedTable(
        source.table.full_name, name, "replay" if publication.purpose == "replay" else "load",
        _layout(publication, source), digest, proof.digest, tuple(proof.chunks),
    )  # fmt: skip
    staged_tables.record(connection, batch_id, kept)
    return kept


def _proof(
    publication: Publication, source: TableSource, rejects: Rejects, own: StagedTable
) -> Proof:
    """Take the proof up again, with a copy of its row digests: it may lose some rows yet."""
    work, path = publication.work, publication.row_digests(source)
    kept = work.waiting_digests(publication.batch.batch_id) / f"{own.target_table}.parquet"
    try:
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(kept, path)
    except OSError:
        message = f"{kept}: cannot be read. Run the whole partition again."
        raise DeliveryError(message) from None
    return Proof(source, path, rejects, own.sent, chunks=[*own.chunks])


def _layout(publication: Publication, source: TableSource) -> dict[str, Any]:
    """Say what rows are judged as, so that it can be seen whether that is the same later."""
    return {
        "columns": [[column.name, column.type_name] for column in source.columns],
        "exact": [column.name for column in source.exact],
        "absent": [sorted(names) for names in source.signatures],
        "key": [*publication.upsert_key(source)],
        "files": [file.file_name for file in source.files],
    }


def _listed(source: TableSource) -> sql.Composed:
    """List what is kept of a staged row."""
    own = [PLACE, *([GROUP] if source.is_grouped else [])]
    names = [*(column.name for column in source.columns), *own]
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _digest(connection: Connection, source: TableSource, table: sql.Identifier) -> RowDigest:
    """Digest all that is kept of staged rows, each type outside the closed list as text."""
    columns: list[str | sql.Composed] = [
        column.name
        if column.wire is not None
        else sql.SQL("{}::text").format(sql.Identifier(column.name))
        for column in source.columns
    ]
    columns += [PLACE, *([GROUP] if source.is_grouped else [])]
    return table_digest(connection, table, columns, _ALL)
