"""The proof, before a restore ends, that what came back is what had left, and what was loaded once.

By three digests, each of which was recorded by another hand: of all columns by the bag of rows, of the
columns that were sent by the ledger, at the publish, and of all columns by the ledger, where the batch
brought only some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.archiving.rows.live import digest_live, stamped_rows
from batch_pipelines.engine.catalog import read_table
from batch_pipelines.engine.digests.recorded import digest_today
from batch_pipelines.engine.digests.row_digest import RowDigest
from batch_pipelines.engine.errors import RestoreError
from batch_pipelines.engine.ledger import batches, proofs, rollbacks
from batch_pipelines.engine.verification.rows import batch_rows
from batch_pipelines.engine.writing.keeping import whole_digest

if TYPE_CHECKING:
    from batch_pipelines.engine.archiving.rows.account import TableRows
    from batch_pipelines.engine.postgres.database import Connection


def prove_restored(connection: Connection, batch_id: str, table: TableRows) -> None:
    """Hold the rows of a table that have come back against all that was recorded of them.

    Args:
        connection: A connection inside the restoring transaction, pinned, before its end.
        batch_id: The batch, in force again.
        table: What the bag says of the table.

    Raises:
        RestoreError: They differ.
    """
    found = digest_live(connection, table.full_name, table.columns, batch_id)
    _require(table, found, table.digest, "those that were put away")
    if not table.since.is_untouched:
        # The bag says so, and whoever restored was told.
        return
    batch = batches.by_id(connection, batch_id)
    (recorded,) = (
        each for each in proofs.tables(connection, batch_id) if each.target_table == table.full_name
    )
    rows, why = batch_rows(connection, batch, recorded)
    if why is None and rows.columns.names:
        own, _ = digest_today(connection, rows)
        sent = RowDigest(recorded.stored, recorded.digest_sum, recorded.digest_moment)
        _require(table, own, sent, "those that were loaded")
    whole = rollbacks.whole(connection, batch_id, table.full_name)
    if whole is not None:
        info = read_table(connection, None, table.full_name)
        written = sql.SQL("{} AS x").format(info.identifier)
        where = stamped_rows(batch_id)
        own = whole_digest(connection, info, whole.columns, written, where)
        _require(table, own, whole.digest, "those that were loaded, over all columns")


def _require(table: TableRows, found: RowDigest, expected: RowDigest, what: str) -> None:
    if found != expected:
        message = (
            f"{table.full_name}: the rows that came back ({found}) are not {what} ({expected}): a "
            "trigger, a default or a generated column of today makes others of them. Nothing was "
            "changed; make the table as it was, and run again."
        )
        raise RestoreError(message)
