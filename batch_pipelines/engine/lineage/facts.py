"""What an event says of a batch, read from the ledger: files that went in, tables that came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from batch_pipelines.engine.ledger import batches, files, proofs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.ledger.proofs import TableBalance, TableValidation
    from batch_pipelines.engine.postgres.database import Connection

_COLUMNS = """
SELECT t.target_table, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
FROM batch_audit.batch_table AS t
JOIN pg_attribute AS a ON a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = to_regclass(
    (SELECT string_agg(quote_ident(part), '.')
     FROM unnest(string_to_array(t.target_table, '.')) AS part))
WHERE t.batch_id = %s ORDER BY t.target_table, a.attnum
"""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table, as PostgreSQL's catalog has it today."""

    target_table: str
    name: str
    type: str


@dataclass(frozen=True)
class LineageFacts:
    """What is known of a batch.

    Attributes:
        batch: The batch.
        feed: Its feed, None where there is no file of it any more.
        files: Its files.
        tables: What it did in each table.
        validations: What the last validation of each table found.
        columns: Columns of its tables.
        host: Host and port of the server, as OpenLineage names PostgreSQL.
        database: Name of the database.
        server_version: Of PostgreSQL.
    """

    batch: Batch
    feed: Feed | None
    files: list[ImportFile]
    tables: list[TableBalance]
    validations: list[TableValidation]
    columns: list[TableColumn]
    host: str
    database: str
    server_version: int


def read_facts(connection: Connection, feeds: Mapping[str, Feed], batch_id: str) -> LineageFacts:
    """Read what is known of a batch.

    Args:
        connection: To the target database.
        feeds: The feeds, by name.
        batch_id: The batch.

    Returns:
        What the ledger has.
    """
    batch = batches.by_id(connection, batch_id)
    with connection.cursor(row_factory=class_row(TableColumn)) as cursor:
        columns = cursor.execute(_COLUMNS, (batch_id,)).fetchall()
    info = connection.info
    # Over a socket there is no host; what is there is a folder.
    host = "localhost" if info.host.startswith("/") else info.host
    return LineageFacts(
        batch=batch,
        feed=feeds.get(batch.feed),
        files=files.of_batch(connection, batch_id),
        tables=proofs.tables(connection, batch_id),
        validations=proofs.validations(connection, batch_id),
        columns=columns,
        host=f"{host}:{info.port}",
        database=info.dbname,
        server_version=info.server_version,
    )
