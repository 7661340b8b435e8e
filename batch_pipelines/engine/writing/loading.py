"""Loading: publish what fits, and set aside what does not.

A clean batch is sent straight into its tables, in the publish transaction. Where PostgreSQL refuses a
row, that transaction is aborted; the rows go to staging tables, what does not fit is found there by
queries and taken out, and what is left is published. Nothing is committed in between.

Where a feed publishes after validation, it is two steps: what is left waits in logged tables, and comes
back from there to be judged once more, against the tables of then, and published; see `waiting`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
from psycopg import sql

from batch_pipelines.engine.errors import (
    BrokenRulesError,
    ConflictError,
    PublishError,
    ThresholdError,
)
from batch_pipelines.engine.ledger import batches, rejects
from batch_pipelines.engine.ledger.rejects import Rejects
from batch_pipelines.engine.work import explain
from batch_pipelines.engine.writing.bisecting import is_about_rows
from batch_pipelines.engine.writing.isolating import Isolation
from batch_pipelines.engine.writing.publishing import (
    publish_directly,
    publish_staged,
    refuse_too_many,
)
from batch_pipelines.engine.writing.superseding import needs_diff
from batch_pipelines.engine.writing.waiting import have_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.rejects import Reason
    from batch_pipelines.engine.writing.publication import Publication

# How often staged rows are judged anew because other writers came in between.
_TRIES = 5
# Serialization failures and deadlocks: nobody's fault, and gone the next time.
_TRANSIENT = frozenset({"40001", "40P01"})
# A table is analyzed when it got at least so many rows, and more than this share of what it had.
_MANY_ROWS, _GROWTH = 10_000, 0.1
_KNOWN_ROWS = "SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = %s"


@dataclass(frozen=True)
class Loaded:
    """What was loaded.

    Attributes:
        balances: The balance of each table.
        reasons: How many records were set aside, by their first reason.
    """

    balances: tuple[TableBalance, ...]
    reasons: Mapping[Reason, int]


def load(connection: Connection, publication: Publication) -> Loaded:
    """Bring the rows of a batch into their tables.

    Args:
        connection: The ledger's connection, in autocommit mode.
        publication: What to load.

    Returns:
        What was written, or would have been in a rehearsal.

    Raises:
        DeliveryError: A file cannot be read on.
        ThresholdError: More records than the feed tolerates cannot be loaded, or all; they are kept.
        PublishError: The books do not balance, a digest differs, or rows elsewhere would change.
        LeaseLostError: Another run took the partition over.
        psycopg.Error: PostgreSQL refused something that is about no row.
    """
    work = publication.work
    try:
        # A connection of its own: when it is lost at COMMIT, the ledger's is still there to ask.
        with work.database.connect("publish") as publishing:
            work.lease.record_worker(publishing)
            done = None
            if not _starts_in_staging(connection, publication):
                done = _go_straight(connection, publishing, publication)
            done = done or _isolate(connection, publishing, publication)
            if publication.is_real and publication.step != "stage":
                _analyze(publishing, publication, done.balances)
            return done
    finally:
        # What Arrow keeps for later would add to what the second reader takes.
        pa.default_memory_pool().release_unused()


def _starts_in_staging(connection: Connection, publication: Publication) -> bool:
    """Say whether rows are staged at once: they need it, or the last delivery did."""
    return (
        publication.purpose == "replay"
        or publication.step != "whole"
        or any(
            source.as_text
            or publication.upsert_key(source)
            or publication.policy(source).needs_staging(source)
            or (publication.superseded is not None and needs_diff(source.table))
            for source in publication.sources
        )
        or rejects.were_refused(connection, publication.work.feed.feed)
    )


def _go_straight(
    connection: Connection, publishing: Connection, publication: Publication
) -> Loaded | None:
    """Try to publish without staging; None where a row was refused."""
    with Rejects(publication.work.staged_rejects(publication.batch.batch_id)) as found:
        try:
            balances = publish_directly(publishing, publication, found)
        except psycopg.Error as error:
            if publishing.broken or not _is_worth_staging(error):
                raise
            return None
        except BrokenRulesError:
            return None
        except ThresholdError:
            _keep(connection, publication, found)
            raise
        return Loaded(balances, found.reasons)


def _isolate(connection: Connection, publishing: Connection, publication: Publication) -> Loaded:
    """Publish what fits, once what does not is known; or have it wait."""
    earlier = publication.work.staged_rejects(publication.batch.batch_id)
    is_last = publication.step == "publish"
    with Rejects(earlier.with_suffix(".publishing") if is_last else earlier) as found:
        if is_last:
            found.take_over(earlier)
        isolation = Isolation(publishing, publication, found)
        try:
            isolation.stage()
            if publication.step == "stage":
                isolation.judge()
                refuse_too_many(publication, found)
                balances = have_wait(publishing, publication, found, isolation.staged)
            else:
                balances = _publish_judged(publishing, publication, isolation, found)
        except ThresholdError:
            _keep(connection, publication, found)
            raise
        return Loaded(balances, found.reasons)


def _publish_judged(
    publishing: Connection, publication: Publication, isolation: Isolation, found: Rejects
) -> tuple[TableBalance, ...]:
    """Publish what is staged and fits; judge it anew where others came in between."""
    refused: psycopg.Error | BrokenRulesError | None = None
    for _ in range(_TRIES):
        out = isolation.judge()
        if isinstance(refused, BrokenRulesError) and not out:
            raise refused
        if isinstance(refused, psycopg.Error) and not out and not _is_transient(refused):
            out = isolation.bisect()
            if not out:
                raise PublishError(explain(refused)) from None
        refuse_too_many(publication, found)
        try:
            return publish_staged(publishing, publication, found, isolation.staged)
        except psycopg.Error as error:
            if publishing.broken or not _is_worth_staging(error):
                raise
            refused = error
        except BrokenRulesError as error:
            refused = error
    message = (
        f"{publication.batch.name}: other writers changed the tables {_TRIES} times while it was "
        "being published; nothing was written. Run again when they are done."
    )
    raise ConflictError(message)


def _is_worth_staging(error: psycopg.Error) -> bool:
    return is_about_rows(error) or _is_transient(error)


def _is_transient(error: psycopg.Error) -> bool:
    return error.sqlstate in _TRANSIENT


def _analyze(
    connection: Connection, publication: Publication, balances: Iterable[TableBalance]
) -> None:
    """Tell the planner of tables that have grown a lot; autovacuum would come to it later."""
    tables = {source.table.full_name: source.table for source in publication.sources}
    for balance in balances:
        table = tables.get(balance.target_table)
        if table is None or balance.inserted < _MANY_ROWS:
            continue
        # The batch is published: nothing that goes wrong here may be taken for its failure.
        with contextlib.suppress(psycopg.Error):
            row = connection.execute(_KNOWN_ROWS, (table.oid,)).fetchone()
            if row is not None and balance.inserted > _GROWTH * row[0]:
                connection.execute(sql.SQL("ANALYZE {}").format(table.identifier))


def _keep(connection: Connection, publication: Publication, found: Rejects) -> None:
    """Keep the rejects of a batch of which nothing is published; of one that is, they are kept."""
    if publication.purpose in {"rehearsal", "replay"}:
        return
    with connection.transaction():
        publication.work.lease.hold(connection)
        found.record(connection, publication.batch)
        batches.record_rejected(connection, publication.batch.batch_id, found.total)
