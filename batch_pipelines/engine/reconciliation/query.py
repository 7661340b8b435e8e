"""A table held against a table or query of another database.

Where that is PostgreSQL, each side digests its own rows (`across`). Of any other, rows are read over
into files, which are compared like those of a loader (`table`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pyarrow.parquet as pq
from psycopg import sql

from batch_pipelines.engine.catalog import match_columns
from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.ledger.files import ImportFile
from batch_pipelines.engine.ledger.proofs import Check, TableValidation
from batch_pipelines.engine.queries import BATCH
from batch_pipelines.engine.reconciliation.across import Side, compare
from batch_pipelines.engine.reconciliation.table import (
    SNAPSHOT,
    reconcile_table,
    rows_check,
)
from batch_pipelines.engine.writing.source import table_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.queries import Query
    from batch_pipelines.engine.querying.connecting import Snapshot

_LONG = "SET LOCAL idle_in_transaction_session_timeout = 0"
# As text is written must not depend on settings of a role or database.
_SESSION = """
SELECT set_config('IntervalStyle', 'postgres', true), set_config('extra_float_digits', '3', true),
       set_config('bytea_output', 'hex', true)
"""


def reconcile_query(
    connection: Connection,
    feed: Feed,
    table: TableInfo,
    where: sql.Composable,
    batch: str,
    folder: Path,
) -> TableValidation:
    """Check rows of a table against a query of another database.

    Args:
        connection: A connection in autocommit mode, to the target database.
        feed: The feed, with the query.
        table: The table.
        where: The condition that tells the rows of the table.
        batch: What stands for `{batch}` in the query.
        folder: For rows that have to be read over; it is empty.

    Returns:
        The checks, and the rows that differ.

    Raises:
        DeliveryError: The other database refuses the query, or has rows without a value in the key.
        FeedError: The query's columns do not fit the table.
        SettingsError: The URL of the other database is not set, or cannot be used.
    """
    # SQLAlchemy takes a quarter of a second to import, which only a query needs.
    from batch_pipelines.engine.querying.connecting import open_snapshot  # noqa: PLC0415

    query, form = feed.source.query, feed.form_of(table.full_name)
    assert query is not None  # noqa: S101  # the caller asks for feeds with one alone
    with open_snapshot(query) as snapshot:
        other = snapshot.connection.connection.driver_connection
        if isinstance(other, psycopg.Connection):
            return _across(connection, other, form, query, table, where, batch)
        files = _read_over(snapshot, query, table, batch, folder)
    source = table_source(table, files, folder, form)
    key = [form.target_name(name) or name for name in query.key]
    return reconcile_table(connection, source, where, key)


def _across(
    connection: Connection,
    other: Connection,
    form: Format,
    query: Query,
    table: TableInfo,
    where: sql.Composable,
    batch: str,
) -> TableValidation:
    with connection.transaction():
        for statement in (*SNAPSHOT, _SESSION):
            connection.execute(statement)
        other.execute(_LONG)
        rows = _rows(query, batch)
        described = other.execute(sql.SQL("SELECT * FROM {} WHERE false").format(rows)).description
        names = {each.name: form.target_name(each.name) for each in described or ()}
        kept = {name: target for name, target in names.items() if target is not None}
        match_columns(table, [*kept.values()], f"The query in the database of {query.url_variable}")
        source = Side(other, rows, sql.SQL("true"), [*kept], query.key)
        key = [kept.get(name, name) for name in query.key]
        target = Side(connection, table.identifier, where, [*kept.values()], key)
        for side, place in ((source, query.url_variable), (target, table.full_name)):
            side.describe()
            _require_key(side, place)
        return _validation(table, source, target)


def _validation(table: TableInfo, source: Side, target: Side) -> TableValidation:
    began = time.perf_counter()
    found = compare(source, target, target.columns, target.key)
    took = round(time.perf_counter() - began, 6)
    sent, stored = found.source, found.target
    checks = [
        Check(
            "record_count",
            target.count_sql(),
            str(sent.rows),
            str(stored.rows),
            "SUCCESS" if sent.rows == stored.rows else "FAILED",
            took,
        ),
        Check(
            "rows.digest",
            target.digest_sql(),
            str(sent),
            str(stored),
            "SUCCESS" if sent == stored else "FAILED",
            took,
        ),
    ]
    if found.rows is not None:
        checks.append(rows_check(found.rows, took))
    return TableValidation(table.full_name, sent.rows, stored.rows, tuple(checks), found.rows)


def _read_over(
    snapshot: Snapshot, query: Query, table: TableInfo, batch: str, folder: Path
) -> list[ImportFile]:
    """Read the rows of a database that cannot digest them itself into files, a range of keys each."""
    from batch_pipelines.engine.querying.ranges import read_ranges  # noqa: PLC0415
    from batch_pipelines.engine.querying.statements import statements_of  # noqa: PLC0415

    statements = statements_of(snapshot, query, batch)
    _, without = statements.totals()
    if without:
        raise _without_key(without, query.url_variable, query.key)
    files = []
    for part in read_ranges(statements, query.rows):
        path = folder / f"rows-{part.first:012}-{part.last:012}.parquet"
        pq.write_table(part.rows, path)
        size = path.stat().st_size
        # Nobody else sees these files, so that no checksum has to prove them.
        files.append(
            ImportFile(path.name, table.full_name, size, "parquet", None, 0, "", None, None)
        )
    return files


def _rows(query: Query, batch: str) -> sql.Composed:
    """Write what follows FROM; the batch is a literal that the driver quotes."""
    if query.select is None:
        names = sql.Identifier(*(query.table or "").split("."))
        return sql.SQL("{} AS q").format(names)
    first, *others = map(sql.SQL, query.select.split(BATCH))
    select = sql.Composed([first])
    for other in others:
        select += sql.Composed([sql.SQL(" "), sql.Literal(batch), sql.SQL(" "), other])
    # The line end closes a comment.
    return sql.SQL("({}\n) AS q").format(select)


def _require_key(side: Side, place: str) -> None:
    without = side.without_key()
    if without:
        raise _without_key(without, place, side.key)


def _without_key(rows: int, place: str, key: Sequence[str]) -> DeliveryError:
    return DeliveryError(
        f"{place}: {rows} rows have no value in the key ({', '.join(key)}), so ranges would pass over "
        "them. Leave them out in a SELECT, or name other columns as `key`."
    )
