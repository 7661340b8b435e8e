"""What adopted batches have in tracked tables: how many rows carry their ids, and the digest of those.

It is what a rollback needs: which tables, and how to see later that somebody has changed a row. A row
counts as inserted by the batch whose id it carries; what it was before, no system has kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.adoption import records
from batch_pipelines.engine.adoption.indexes import is_indexed
from batch_pipelines.engine.adoption.relations import find_column, find_relation
from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.errors import AdoptionError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import proofs
from batch_pipelines.engine.wire_types import wire_type

if TYPE_CHECKING:
    from batch_pipelines.engine.adoption.relations import Relation
    from batch_pipelines.engine.postgres.database import Connection

_UNKNOWN = sql.SQL("""
SELECT h.batch_id::text FROM batch_audit.import_history h
WHERE h.adopted_from IS NOT NULL AND h.status IN ('SUCCESS', 'PARTIAL_SUCCESS')
  AND NOT EXISTS (SELECT FROM batch_audit.batch_table b
                  WHERE b.batch_id = h.batch_id AND b.target_table = {name})
  AND EXISTS (SELECT FROM {table} t WHERE t.{stamp} = h.batch_id)
ORDER BY 1
""")
_COLUMNS = """
SELECT attname, atttypid::bigint, atttypmod FROM pg_attribute
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attname <> %s ORDER BY attnum
"""


def unknown_rows(connection: Connection) -> dict[Relation, list[str]]:
    """Find the tracked tables that hold rows of adopted batches of which the ledger does not know.

    Args:
        connection: A connection in autocommit mode.

    Returns:
        The ids of those batches by table.
    """
    found = {}
    for record in records.tracked(connection):
        try:
            relation = find_relation(connection, record.table_name)
        except AdoptionError:
            continue  # it is gone, which `db status` tells
        stamp = find_column(connection, relation, STAMP)
        # Without an index every batch would read the whole table; with it, `db track` is not done yet.
        if stamp is None or stamp.kind != "uuid" or not is_indexed(connection, relation, STAMP):
            continue
        query = _UNKNOWN.format(
            name=sql.Literal(relation.full_name),
            table=relation.identifier,
            stamp=sql.Identifier(STAMP),
        )
        ids = [batch_id for (batch_id,) in connection.execute(query).fetchall()]
        if ids:
            found[relation] = ids
    return found


def write_down_rows(connection: Connection) -> int:
    """Write into the ledger what adopted batches have in tracked tables, each by itself.

    Args:
        connection: A connection in autocommit mode.

    Returns:
        How many batches and tables it were.
    """
    written = 0
    for relation, batch_ids in unknown_rows(connection).items():
        for batch_id in batch_ids:
            _write_down(connection, relation, batch_id)
            written += 1
            failpoint("adoption.rows", None)
    return written


def _write_down(connection: Connection, relation: Relation, batch_id: str) -> None:
    names, sent = [], []
    for name, type_oid, typmod in connection.execute(_COLUMNS, (relation.oid, STAMP)).fetchall():
        names.append(name)
        # Types outside the closed list are digested as text: their own format may change.
        known = wire_type(type_oid, typmod) is not None
        sent.append(name if known else sql.SQL("{}::text").format(sql.Identifier(name)))
    stamped = sql.SQL("{} = {}::uuid").format(sql.Identifier(STAMP), sql.Literal(batch_id))
    found = table_digest(connection, relation.identifier, sent, stamped)
    if not found.rows:
        return
    balance = proofs.TableBalance(
        target_table=relation.full_name,
        source_records=found.rows,
        inserted=found.rows,
        updated=0,
        unchanged=0,
        rejected=0,
        skipped=0,
        superseded_within=0,
        removed=0,
        columns=names,
        normalised=[],
        digest_sum=found.total,
        digest_moment=found.moment,
        isolation_statements=0,
    )
    proofs.record_table(connection, batch_id, balance)
