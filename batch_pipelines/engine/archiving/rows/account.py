"""The account of a bag of rows: which tables it holds, each column's type, the digests of their rows.

It is a file of the bag, in JSON, and never has a value of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pydantic

from batch_pipelines.engine.archiving.rows.shape import HeldColumn
from batch_pipelines.engine.digests import RowDigest
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.wire_types import wire_type_named

if TYPE_CHECKING:
    from batch_pipelines.engine.wire_types import WireType

ACCOUNT: Final = "tables.json"
ROWS: Final = "rows"
"""Where things stand in the bag, from its folder of data: the account, and a file for each table."""


@dataclass(frozen=True)
class SinceLoading:
    """How the rows of a batch in a table differ, as they are put away, from the day they were loaded.

    Attributes:
        loaded: Rows that the batch had in the table when it was published.
        replaced: Rows of these that later batches in force have updated, and stamped as their own: they
            are not put away.
        is_same: Whether all others are as they were loaded, by count and digest of what was sent; None
            where that cannot be said.
        why: Why not; empty where it can.
    """

    loaded: int
    replaced: int
    is_same: bool | None
    why: str = ""

    @property
    def is_untouched(self) -> bool:
        """Whether the batch's rows are all there, and as they were loaded."""
        return self.is_same is True and not self.replaced


@dataclass(frozen=True)
class TableRows:
    """The rows of a batch in one table, as they were put away.

    Attributes:
        full_name: The table, as in `public.flights`.
        columns: All its columns, in its order.
        digest: Count, sum and second moment over all of them.
        since: How they differ from the day they were loaded.
    """

    full_name: str
    columns: tuple[HeldColumn, ...]
    digest: RowDigest
    since: SinceLoading

    @property
    def file(self) -> str:
        """Its file, from the bag's folder of data."""
        return file_of(self.full_name)


def file_of(full_name: str) -> str:
    """Say in which file of a bag, from its folder of data, the rows of a table are."""
    return f"{ROWS}/{full_name}.parquet"


class _Column(pydantic.BaseModel):
    name: str
    type: str
    generated: bool
    held_as: str


class _Table(pydantic.BaseModel):
    table: str
    columns: list[_Column]
    rows: int
    digest_sum: int
    digest_moment: int
    loaded: int
    replaced: int
    as_loaded: bool | None
    why: str


class _Account(pydantic.BaseModel):
    batch_id: str
    feed: str
    partition_key: str
    status: str
    server_version: int
    tables: list[_Table]


@dataclass(frozen=True)
class Account:
    """What a bag of rows says of itself.

    Attributes:
        batch_id: The batch.
        feed, partition_key: Its partition.
        status: State of the batch when its rows were put away.
        server_version: Of PostgreSQL, as in 180000.
        tables: Its tables, parents before children.
    """

    batch_id: str
    feed: str
    partition_key: str
    status: str
    server_version: int
    tables: tuple[TableRows, ...]

    def as_json(self) -> str:
        """Write it."""
        plain = _Account(
            batch_id=self.batch_id, feed=self.feed, partition_key=self.partition_key,
            status=self.status, server_version=self.server_version,
            tables=[_plain(table) for table in self.tables],
        )  # fmt: skip
        return plain.model_dump_json(indent=1) + "\n"

    @classmethod
    def of_json(cls, text: bytes) -> Account:
        """Read it.

        Args:
            text: What `as_json` has written.

        Returns:
            The same.

        Raises:
            ArchiveError: It is something else.
        """
        try:
            read = _Account.model_validate_json(text)
            tables = tuple(_table(table) for table in read.tables)
        except ValueError:
            message = (
                f"{ACCOUNT}: it is no account of rows that this program has written, or was written by "
                "a newer one. Install that, and run again."
            )
            raise ArchiveError(message) from None
        return cls(
            read.batch_id, read.feed, read.partition_key, read.status, read.server_version, tables
        )


def _plain(table: TableRows) -> _Table:
    return _Table(
        table=table.full_name,
        columns=[
            _Column(name=c.name, type=c.type_name, generated=c.generated, held_as=c.held_as.name)
            for c in table.columns
        ],
        rows=table.digest.rows,
        digest_sum=table.digest.total,
        digest_moment=table.digest.moment,
        loaded=table.since.loaded,
        replaced=table.since.replaced,
        as_loaded=table.since.is_same,
        why=table.since.why,
    )


def _table(read: _Table) -> TableRows:
    return TableRows(
        read.table,
        tuple(HeldColumn(c.name, c.type, c.generated, _held_as(c.held_as)) for c in read.columns),
        RowDigest(read.rows, read.digest_sum, read.digest_moment),
        SinceLoading(read.loaded, read.replaced, read.as_loaded, read.why),
    )


def _held_as(name: str) -> WireType:
    found = wire_type_named(name)
    if found is None:
        raise ValueError(name)
    return found
