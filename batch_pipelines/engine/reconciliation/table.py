"""One table of batches that another system has loaded, checked against its source.

Checks from outside, as of a batch of our own; the digest of all rows, from the parsed source and from
the table; and, where either finds a difference or does not cover a column, the rows one by one.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from psycopg import sql

from batch_pipelines.engine.digests.sql import digest_statement, table_digest
from batch_pipelines.engine.ledger.proofs import Check, TableValidation
from batch_pipelines.engine.ledger.rejects import LeftOut, Rejects
from batch_pipelines.engine.reconciliation.differing import differing_rows
from batch_pipelines.engine.table_checks import check_table
from batch_pipelines.engine.writing.conversion import convert
from batch_pipelines.engine.writing.copying import file_and_record
from batch_pipelines.engine.writing.proof import Proof
from batch_pipelines.engine.writing.staging import BREACHES, stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from batch_pipelines.engine.digests import RowDigest
    from batch_pipelines.engine.ledger.proofs import RowReport, Verdict
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.rejects import Reject
    from batch_pipelines.engine.writing.source import TableSource
    from batch_pipelines.engine.writing.staging import Staged

SNAPSHOT = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
)
"""Begins a transaction that sees one moment, and may wait while the source is read again."""
_NOT_CONVERTED = sql.SQL("SELECT DISTINCT place FROM {} ORDER BY 1").format(BREACHES)


class _Refused(Rejects):
    """Takes note of which records cannot be read, and of nothing in them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.records = defaultdict[str, set[int]](set)

    def add(self, table: str, rejects: Iterable[Reject], *, skipped: bool = False) -> None:
        """Take rejects in."""
        del table, skipped
        for reject in rejects:
            self.records[reject.file_name].add(reject.record)


def reconcile_table(
    connection: Connection, source: TableSource, where: sql.Composable, key: Sequence[str]
) -> TableValidation:
    """Check rows of a table against their source.

    Args:
        connection: A connection in autocommit mode, without temporary tables of an earlier source.
        source: The source.
        where: The condition that tells the rows.
        key: Columns of the key; none where rows have none.

    Returns:
        The checks, and the rows that differ.

    Raises:
        DeliveryError: A file cannot be read to its end.
        ValidationError: The second reader cannot read the source.
    """
    refused = _Refused(source.folder.parent / "refused")
    proof = Proof(source, source.folder.parent / "row_digests.parquet", refused)
    (staged,) = stage(connection, [proof], iter)
    _take_out_unconverted(connection, staged, refused.records)
    unread = sum(map(len, refused.records.values()))
    with connection.transaction():
        for statement in SNAPSHOT:
            connection.execute(statement)
        left_out = _left_out(source, refused.records)
        checks = [*check_table(connection, source, where, left_out, key, was_unique=False)]
        if source.exact:
            checks.append(_digest_check(connection, source, where, proof.digest))
        rows = None
        if source.as_text or any(check.status == "FAILED" for check in checks):
            began = time.perf_counter()
            rows = differing_rows(connection, source, staged.name, where, key)
            checks.append(rows_check(rows, time.perf_counter() - began))
    checks += _not_covered(source, unread)
    records, stored = int(checks[0].expected), int(checks[0].actual)
    return TableValidation(source.table.full_name, records + unread, stored, tuple(checks), rows)


def _take_out_unconverted(
    connection: Connection, staged: Staged, refused: defaultdict[str, set[int]]
) -> None:
    """Convert what arrived as text; note records with a text that is no value of its column's type."""
    if not convert(connection, staged):
        return
    gone = defaultdict[str, list[int]](list)
    for (place,) in connection.execute(_NOT_CONVERTED).fetchall():
        number, record = file_and_record(place)
        gone[staged.source.files[number].file_name].append(record)
    staged.proof.take_out({name: np.array(records) for name, records in gone.items()})
    for name, records in gone.items():
        refused[name].update(records)


def _left_out(source: TableSource, refused: Mapping[str, set[int]]) -> dict[str, LeftOut]:
    """Say where the records stand that could not be read, for the second reader to pass over."""
    found = {}
    for file in source.files:
        records = sorted(refused.get(file.file_name, ()))
        places = [
            (-1 if offset is None else offset, len(raw))
            for _, offset, raw in (source.raw(file, records) if records else ())
        ]
        offsets, sizes = np.array(places, np.int64).reshape(-1, 2).T
        found[file.file_name] = LeftOut(np.array(records, np.int64), offsets, sizes)
    return found


def _digest_check(
    connection: Connection, source: TableSource, where: sql.Composable, expected: RowDigest
) -> Check:
    began = time.perf_counter()
    names = [column.name for column in source.exact]
    table = source.table.identifier
    actual = table_digest(connection, table, names, where)
    return Check(
        "rows.digest",
        digest_statement(connection, table, names, where).as_string(connection).strip(),
        str(expected),
        str(actual),
        "SUCCESS" if expected == actual else "FAILED",
        round(time.perf_counter() - began, 6),
    )


def rows_check(rows: RowReport, seconds: float) -> Check:
    """Make a check of rows that were compared one by one.

    Args:
        rows: How they differ.
        seconds: How long it took.
    """
    found = {"missing": rows.src_extras, "extra": rows.tgt_extras, "changed": rows.mismatches}
    actual = ", ".join(f"{number} {kind}" for kind, number in found.items())
    status: Verdict = "FAILED" if any(found.values()) else "SUCCESS"
    # Held against temporary tables, so that there is no SQL to run by hand.
    return Check(
        "rows.one_by_one", "", "0 missing, 0 extra, 0 changed", actual, status, round(seconds, 6)
    )


def _not_covered(source: TableSource, unread: int) -> Iterator[Check]:
    if unread:
        yield Check("rows.unreadable", "", "0", str(unread), "UNVERIFIED", 0.0)
    unproven = [column.name for column in source.filled] + sorted(source.server_changed)
    if unproven:
        names = ", ".join(unproven)
        yield Check("rows.not_covered", "", "no column", names, "UNVERIFIED", 0.0)
