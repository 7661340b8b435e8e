"""Checks of a table's rows against their source: asked of PostgreSQL and of a second reader.

Record counts, schema, key uniqueness and exact aggregates of every column, each check with its SQL,
expected and actual value. Which rows are meant, and what a failed check leads to, the caller says.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.ledger.proofs import Check
from batch_pipelines.engine.reading.second_reader import SecondReader
from batch_pipelines.engine.reading.target_aggregates import target_aggregates, target_statement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from batch_pipelines.engine.ledger.rejects import LeftOut
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.source import TableSource

_COUNT = sql.SQL("SELECT count(*) FROM {table} WHERE {where}")
_COLUMNS = """SELECT attname FROM pg_attribute
WHERE attrelid = {table}::regclass AND attnum > 0 AND NOT attisdropped"""
_TWICE = sql.SQL(
    "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM {table} WHERE {where}"
    " GROUP BY {key} HAVING count(*) > 1) AS twice"
)


def check_table(
    connection: Connection,
    source: TableSource,
    where: sql.Composable,
    left_out: Mapping[str, LeftOut],
    key: Sequence[str],
    *,
    was_unique: bool,
) -> tuple[Check, ...]:
    """Check rows of a table against their source.

    Args:
        connection: A connection.
        source: The source.
        where: The condition that tells the rows.
        left_out: Records of each file, by its name, that are not to be counted.
        key: Columns of the key that no two rows should share; looked at where all of it is delivered.
        was_unique: Whether PostgreSQL let no two of these records in with one key, so that the source
            need not be read once more to look for them.

    Returns:
        The checks; the first is `record_count`, whose values are numbers of rows.

    Raises:
        ValidationError: The source could not be read a second time.
    """
    if not set(key) <= {column.name for column in source.told}:
        key = ()
    # The source is read while PostgreSQL works; the pool ends before the reader is closed.
    with SecondReader(source, left_out, key) as reader, ThreadPoolExecutor(max_workers=1) as pool:
        twice = pool.submit(reader.duplicates) if key and not was_unique else None
        return (*_checks(connection, source, where, key, reader, pool, twice),)


def _checks(
    connection: Connection,
    source: TableSource,
    where: sql.Composable,
    key: Sequence[str],
    reader: SecondReader,
    pool: ThreadPoolExecutor,
    source_twice: Future[int] | None,
) -> Iterator[Check]:
    source_totals = pool.submit(reader.aggregates)

    own = {"table": source.table.identifier, "where": where}
    twice = None
    if key:
        # First, while the source is read: it takes one processor, and the other question takes all.
        names = sql.SQL(", ").join(map(sql.Identifier, key))
        twice = _Question.ask(connection, _TWICE.format(**own, key=names))
    totals_began = time.perf_counter()
    counted, target_totals = target_aggregates(connection, source, where)
    totals_took = time.perf_counter() - totals_began
    wanted_totals = source_totals.result()

    # One scan answers for the count and all columns; the statement kept with each is for that one alone.
    count = _Question(_COUNT.format(**own), totals_took)
    yield count.answer(connection, "record_count", reader.records(), counted)
    yield from _schema_checks(connection, source, reader)
    if twice is not None:
        question, found = twice
        expected = 0 if source_twice is None else source_twice.result()
        yield question.answer(connection, "key_uniqueness", expected, found)
    for column in source.told:
        alone = _Question(target_statement(source, [column], where), totals_took)
        wanted, actual = str(wanted_totals[column.name]), str(target_totals[column.name])
        yield alone.answer(connection, f"aggregates.{column.name}", wanted, actual)


def _schema_checks(
    connection: Connection, source: TableSource, reader: SecondReader
) -> Iterator[Check]:
    began = time.perf_counter()
    table = source.table.identifier.as_string(connection)
    query = sql.SQL(_COLUMNS).format(table=sql.Literal(table))
    present = {str(row[0]) for row in connection.execute(query).fetchall()}
    question = _Question(query, time.perf_counter() - began)
    for file in source.files:
        wanted = sorted(reader.columns(file))
        found = sorted(name for name in wanted if name in present)
        yield question.answer(connection, f"schema.{file.file_name}", wanted, found)


@dataclass(frozen=True)
class _Question:
    """A statement that the target was asked, and how long it took in seconds."""

    query: sql.Composed
    seconds: float

    @classmethod
    def ask(cls, connection: Connection, query: sql.Composed) -> tuple[_Question, int]:
        """Ask for a number."""
        began = time.perf_counter()
        row = connection.execute(query).fetchone()
        return cls(query, time.perf_counter() - began), int(row[0]) if row else 0

    def answer(self, connection: Connection, name: str, expected: object, actual: object) -> Check:
        """Compare what the source says with what the target says."""
        return Check(
            name=name,
            sql=self.query.as_string(connection),
            expected=_text(expected),
            actual=_text(actual),
            status="SUCCESS" if expected == actual else "FAILED",
            seconds=round(self.seconds, 6),
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
