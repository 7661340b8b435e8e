"""Naming the rows that differ: by key, file and record, and by the columns that differ.

Which columns of a row differ only its source can tell: the records of rows that are named are read
again, by the reader that loads, into a temporary table, and compared there column by column.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql

from batch_pipelines.engine.archiving.bag import SOURCE
from batch_pipelines.engine.catalog import STAMP, read_table
from batch_pipelines.engine.digests.as_sent import ColumnGoneError
from batch_pipelines.engine.digests.recorded import DIFFERING, compare_rows, differing_rows
from batch_pipelines.engine.errors import ArchiveError, BatchError
from batch_pipelines.engine.ledger import batches, files
from batch_pipelines.engine.ledger.verifications import Difference
from batch_pipelines.engine.restaging import unpack
from batch_pipelines.engine.verification.evidence import evidence_of, row_digests
from batch_pipelines.engine.wire_types import wire_type_digested_as
from batch_pipelines.engine.work import explain
from batch_pipelines.engine.writing.copying import PLACE, copy_placed, place
from batch_pipelines.engine.writing.source import table_source
from batch_pipelines.engine.writing.staging import create_staged
from batch_pipelines.engine.writing.terms import before_validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.digests.recorded import Comparison, DifferingRow
    from batch_pipelines.engine.digests.sides import BatchRows
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings
    from batch_pipelines.engine.verification.evidence import Evidence
    from batch_pipelines.engine.writing.source import TableSource

MOST_NAMED = 1_000
"""Rows of a table that are named; counts have no limit."""
_CHANGED = "changed"
_DIFFERENT = sql.SQL("""
CASE WHEN (CASE WHEN d.image IS NULL THEN {row} ELSE {image} END) IS DISTINCT FROM
    pg_catalog.record_send(ROW(s.{column})) THEN {name} END
""")
_SENT = sql.SQL("CASE WHEN {valid} THEN pg_catalog.record_send(ROW({value})) END")
_COLUMNS = sql.SQL("""
SELECT d.file_name, d.record, array_remove(ARRAY[{different}]::text[], NULL)
FROM {differing} d
JOIN unnest({names}::text[], {records}::bigint[], {places}::bigint[]) AS p (file_name, record, place)
    ON p.file_name = d.file_name AND p.record = d.record
JOIN {source} s ON s.{place} = p.place
LEFT JOIN {table} t ON t.tableoid = d.tbl AND t.ctid = d.ctid_then
LEFT JOIN batch_audit.row_before_image i ON i.id = d.image
WHERE d.kind = 'changed'
""")


@dataclass(frozen=True)
class Named:
    """The rows of a batch that differ in one table.

    Attributes:
        comparison: How many; None where rows could not be compared one by one.
        details: Some of them by name, at most `MOST_NAMED`.
        exception: Why they could not be compared, or their columns not be told; None where all could.
    """

    comparison: Comparison | None
    details: list[Difference]
    exception: str | None


def name_differences(
    connection: Connection,
    settings: Settings,
    feed: Feed | None,
    rows: BatchRows,
    *,
    recorded: bool = True,
) -> Named:
    """Compare a batch's rows with what was recorded of each, and name those that differ.

    Args:
        connection: A connection inside a transaction that sees one moment.
        settings: Say where bags and staging are.
        feed: The batch's feed; None where there is none any more.
        rows: The rows.
        recorded: Whether rows should be there at all.

    Returns:
        What was found.
    """
    with ExitStack() as stack:
        try:
            evidence, paths = None, tuple[Path, ...]()
            if recorded:
                found_at = evidence_of(connection, settings, rows.batch_id)
                evidence = stack.enter_context(found_at)
                paths = row_digests(connection, evidence, rows.batch_id, rows.full_name)
            with connection.transaction():
                comparison = compare_rows(connection, rows, paths)
        except ColumnGoneError as error:
            why = f"column {error} of the key is no longer in the table, so rows cannot be named"
            return Named(None, [], why)
        except (psycopg.DataError, pa.ArrowInvalid):
            why = "a column's type was changed, and holds values that the earlier one does not have"
            return Named(None, [], why)
        except (BatchError, psycopg.Error) as error:
            if connection.broken:
                raise
            return Named(None, [], f"rows cannot be named: {explain(error)}")
        found = differing_rows(connection, comparison, MOST_NAMED)
        columns: Mapping[tuple[str, int], list[str]] = {}
        why_not = None
        changed = [row for row in found if row.kind == _CHANGED]
        if changed and rows.columns.names and evidence is not None:
            try:
                with connection.transaction():
                    columns = _columns(connection, settings, feed, evidence, rows, changed)
            except (BatchError, psycopg.Error, OSError) as error:
                why_not = f"which columns differ cannot be told: {explain(error)}"
        return Named(comparison, [_difference(row, comparison, columns) for row in found], why_not)


def _difference(
    row: DifferingRow, comparison: Comparison, columns: Mapping[tuple[str, int], list[str]]
) -> Difference:
    own = None
    if row.file_name is not None and row.record is not None and row.kind == _CHANGED:
        own = columns.get((row.file_name, row.record))
    if row.restamped:
        own = [*(own or ()), STAMP]
    key = None if row.key is None else dict(zip(comparison.key, row.key, strict=True))
    return Difference(row.kind, key, row.file_name, row.record, row.place, own)


def _columns(
    connection: Connection,
    settings: Settings,
    feed: Feed | None,
    evidence: Evidence,
    rows: BatchRows,
    changed: Sequence[DifferingRow],
) -> dict[tuple[str, int], list[str]]:
    """Tell the columns in which rows differ, by file and record."""
    if feed is None:
        raise ArchiveError("the batch's feed, which says how its files are read, is gone.")
    wanted = defaultdict[str, list[int]](list)
    for row in changed:
        if row.file_name is not None and row.record is not None:
            wanted[row.file_name].append(row.record)
    with _source(connection, settings, feed, evidence, rows, wanted) as source:
        staged = create_staged(connection, "batch_pipelines_source", source)
        copy_placed(connection, staged, source, source.chunks())
    numbers = {file.file_name: number for number, file in enumerate(source.files)}
    named = [(name, record) for name, records in wanted.items() for record in records]
    query = _COLUMNS.format(
        different=sql.SQL(", ").join(_different(rows, name) for name in rows.columns.names),
        differing=DIFFERING,
        names=sql.Literal([name for name, _ in named]),
        records=sql.Literal([record for _, record in named]),
        places=sql.Literal([place(numbers[name], record) for name, record in named]),
        source=staged,
        place=sql.Identifier(PLACE),
        table=rows.table,
    )
    found = connection.execute(query).fetchall()
    connection.execute(sql.SQL("DROP TABLE {}").format(staged))
    return {(str(name), int(record)): columns for name, record, columns in found}


def _different(rows: BatchRows, name: str) -> sql.Composed:
    own = rows.columns.only(name)
    (value,), valid = own.row("t")
    row = _SENT.format(valid=valid, value=value)
    (value,), valid = own.image("i")
    image = _SENT.format(valid=valid, value=value)
    return _DIFFERENT.format(
        row=row, image=image, column=sql.Identifier(name), name=sql.Literal(name)
    )


@contextmanager
def _source(
    connection: Connection,
    settings: Settings,
    feed: Feed,
    evidence: Evidence,
    rows: BatchRows,
    wanted: Mapping[str, Sequence[int]],
) -> Iterator[TableSource]:
    """Open records of the source, to be read in the types in which they were sent."""
    table = read_table(connection, feed, rows.full_name)
    sent = dict(zip(rows.columns.names, rows.columns.types, strict=True))
    table = replace(table, columns=tuple(_as_sent(c, sent.get(c.name)) for c in table.columns))
    own = [
        part
        for file in files.of_batch(connection, rows.batch_id)
        if file.file_name in wanted and (part := file.of_table(rows.full_name)) is not None
    ]
    with _unpacked(settings, evidence, own) as folder:
        batch = batches.by_id(connection, rows.batch_id)
        terms = before_validation(connection, batch, {rows.full_name: table})[rows.full_name]
        route = feed.route(rows.full_name)
        source = table_source(table, own, folder, feed.format, route, terms)
        only = {name: np.sort(np.array(records)) for name, records in wanted.items()}
        yield replace(source, only=only)


@contextmanager
def _unpacked(settings: Settings, evidence: Evidence, own: Sequence[ImportFile]) -> Iterator[Path]:
    """Give the folder of source files; those of a bag are unpacked for as long as they are needed."""
    if evidence.bag is None:
        yield evidence.staged / SOURCE
        return
    with tempfile.TemporaryDirectory(prefix="verify-", dir=settings.home) as temporary:
        for file in own:
            unpack(evidence.bag, file, Path(temporary))
        yield Path(temporary)


def _as_sent(column: Column, sent: str | None) -> Column:
    wire = None if sent is None else wire_type_digested_as(sent)
    return column if wire is None else replace(column, type_name=wire.name, wire=wire)
