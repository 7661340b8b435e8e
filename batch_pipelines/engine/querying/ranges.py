"""Reading a query in ranges of its key: every row once, in bounded memory, counted a second time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.querying.values import to_array

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import sqlalchemy as sa

    from batch_pipelines.engine.querying.statements import Key, Statements

# A range ends early when its values come to this; Python's objects take several times as much.
_RANGE_BYTES: Final = 16_000_000
# Rows are fetched so many at a time: few until their width is known, then some 1 MB, but never so
# many that wide ones behind narrow ones would fill the memory.
_FIRST_ROWS, _MOST_ROWS, _FETCHED_BYTES = 16, 500, 1_000_000
_FIXED_BYTES: Final = 8
_SIZED = (str, bytes)


@dataclass(frozen=True)
class Range:
    """Rows whose keys follow each other.

    Attributes:
        first: Place of the first among all rows, from 1, in the order of the key.
        rows: The rows.
        counted: How many the database counts between the two keys.
    """

    first: int
    rows: pa.Table
    counted: int

    @property
    def last(self) -> int:
        """Place of the last row."""
        return int(self.first + self.rows.num_rows - 1)


def read_ranges(statements: Statements, rows: int) -> Iterator[Range]:
    """Read all rows in ranges.

    Args:
        statements: The statements of the query.
        rows: How many rows a range has at most.

    Yields:
        The ranges in the order of the key; one without rows where there are none at all.

    Raises:
        DeliveryError: Rows share a key, come out of order, or cannot be kept exactly.
    """
    after: Key | None = None
    first = 1
    while True:
        found = _read(statements, after, rows)
        counted = 0 if found.last is None else statements.count(after, found.last)
        if counted != found.num_rows:
            message = (
                f"The database of {statements.snapshot.name} counts {counted} rows from row {first} on, "
                f"of which {found.num_rows} were read: {_why(statements, counted > found.num_rows)}"
            )
            raise DeliveryError(message)
        if found.num_rows or after is None:
            yield Range(first, found.table(statements), counted)
        if found.is_last:
            return
        first, after = first + found.num_rows, found.last


class _Rows:
    """Rows gathered column by column."""

    def __init__(self, columns: int) -> None:
        self.columns: list[list[Any]] = [[] for _ in range(columns)]
        self.size, self.num_rows, self.width = 0, 0, 0
        self.last: Key | None = None
        self.is_last = False

    def add(self, rows: Sequence[sa.Row[*tuple[Any, ...]]]) -> None:
        size = 0
        for column, values in zip(self.columns, zip(*rows, strict=True), strict=True):
            column.extend(values)
            sized = sum(len(value) for value in values if isinstance(value, _SIZED))
            size += sized + _FIXED_BYTES * len(values)
        self.size += size
        self.width = size // len(rows)
        self.num_rows += len(rows)

    def fetch(self) -> int:
        """Say how many rows to fetch next."""
        if not self.num_rows:
            return _FIRST_ROWS
        return max(1, min(_MOST_ROWS, _FETCHED_BYTES // self.width))

    def table(self, statements: Statements) -> pa.Table:
        arrays = [
            to_array(
                values,
                name,
                real=name in statements.reals,
                untyped=name in statements.untyped,
            )
            for name, values in zip(statements.names, self.columns, strict=True)
        ]
        return pa.table(arrays, names=[*statements.names])


def _read(statements: Statements, after: Key | None, rows: int) -> _Rows:
    places = [statements.names.index(name) for name in statements.key]
    gathered, before = _Rows(len(statements.names)), after
    with statements.range_of(after, rows) as found:
        while gathered.num_rows < rows and gathered.size < _RANGE_BYTES:
            with statements.snapshot.told("the query"):
                fetched = found.fetchmany(min(gathered.fetch(), rows - gathered.num_rows))
            if not fetched:
                gathered.is_last = True
                break
            for row in fetched:
                key = tuple(row[place] for place in places)
                if key == before:
                    why = _why(statements, same=True)
                    message = f"In the database of {statements.snapshot.name}, {why}"
                    raise DeliveryError(message)
                before = key
            gathered.add(fetched)
        gathered.last = before if gathered.num_rows else None
    return gathered


def _why(statements: Statements, same: bool) -> str:
    key = ", ".join(statements.key)
    if same:
        return f"several rows have the same {key}. Name columns as `key` that tell every row apart."
    return f"it does not order by {key} as it compares them. Name other columns as `key`."
