"""How each column of a table is held in Parquet, so that a plain reader reads it and nothing is lost.

A type of the closed list is held as its Arrow type, where all values of the rows have a place there: no
infinite date, no year before the first, no NaN of a numeric, no hour 24. Everything else is held as the
text that PostgreSQL writes, after PostgreSQL has read each such text and found the same value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from psycopg import sql

from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.wire_types import NUMERIC, WireType, wire_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.postgres.database import Connection

TEXT: Final = WireType(25, "text", pa.string())
_UUID: Final = 2950
# Beside what every connection pins: whatever else says how a value is written as text.
_PIN: Final = """
SELECT set_config('extra_float_digits', '1', true), set_config('IntervalStyle', 'postgres', true),
       set_config('bytea_output', 'hex', true), set_config('lc_monetary', 'C', true),
       set_config('xmloption', 'content', true)
"""
_COLUMNS: Final = """
SELECT attname, atttypid::bigint, atttypmod, format_type(atttypid, atttypmod), attgenerated <> ''
FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_FITS: Final = sql.SQL("SELECT {fits} FROM {table} AS x WHERE {where}")
_LAST: Final = "9999-12-31 23:59:59.999999"
# By OID: date, time, timestamp, timestamptz, numeric.
_FIT: Final = {
    1082: sql.SQL("x.{} BETWEEN '0001-01-01' AND '9999-12-31'"),
    1083: sql.SQL("x.{} < '24:00:00'"),
    1114: sql.SQL(f"x.{{}} BETWEEN '0001-01-01' AND '{_LAST}'"),
    1184: sql.SQL(f"x.{{}} BETWEEN '0001-01-01 00:00:00Z' AND '{_LAST}Z'"),
    NUMERIC: sql.SQL("x.{} <> 'NaN'"),
}
_SAME_AGAIN: Final = sql.SQL("record_send(ROW(x.{0})) = record_send(ROW((x.{0}::text)::{1}))")


@dataclass(frozen=True)
class HeldColumn:
    """A column of a table, and how it is held.

    Attributes:
        name: Its name.
        type_name: Its type in PostgreSQL, with modifier.
        generated: Whether PostgreSQL computes it from the row's other columns.
        held_as: The wire type of its values in Parquet: its own, or text.
    """

    name: str
    type_name: str
    generated: bool
    held_as: WireType

    @property
    def is_converted(self) -> bool:
        """Whether its values are held as the text that PostgreSQL writes, being no text."""
        return self.held_as == TEXT and self.type_name != TEXT.name

    @property
    def arrow(self) -> pa.DataType:
        """The type of its values in Parquet."""
        return pa.uuid() if self.held_as.oid == _UUID else self.held_as.arrow

    def value(self, alias: str) -> sql.Composable:
        """Write its value, as it is digested, of a row of the table."""
        value = sql.SQL("{}.{}").format(sql.SQL(alias), sql.Identifier(self.name))
        return sql.SQL("{}::text").format(value) if self.is_converted else value


def pin(connection: Connection) -> None:
    """Have all text that PostgreSQL writes and reads until the transaction ends mean the same anywhere.

    Args:
        connection: A connection inside a transaction.
    """
    connection.execute(_PIN)


def read_shape(
    connection: Connection, full_name: str, where: sql.Composable
) -> tuple[HeldColumn, ...]:
    """Say how the columns of a table are held, so that some rows keep every value.

    Args:
        connection: A connection inside the transaction in which the rows are read, pinned.
        full_name: The table.
        where: The condition on a row `x` that they meet.

    Returns:
        All its columns, in the table's order.

    Raises:
        ArchiveError: The values of a column do not come back from their text.
    """
    table = sql.Identifier(*full_name.split("."))
    found = connection.execute(_COLUMNS, (table.as_string(connection),)).fetchall()
    columns = [
        (HeldColumn(name, kind, generated, wire_type(oid, typmod) or TEXT), oid)
        for name, oid, typmod, kind, generated in found
    ]
    asked = {
        column.name: condition
        for column, oid in columns
        if (condition := _fit(column, oid)) is not None
    }
    fits = _ask(connection, table, where, asked)
    held = []
    for column, _ in columns:
        if fits.get(column.name, True):
            held.append(column)
        elif column.held_as == TEXT:
            message = (
                f"{full_name}: column {column.name} cannot be archived: its type {column.type_name} "
                "does not read all of its values as it writes them. Nothing was recorded."
            )
            raise ArchiveError(message)
        else:
            as_text = HeldColumn(column.name, column.type_name, column.generated, TEXT)
            held.append(as_text)
    return tuple(held)


def _fit(column: HeldColumn, oid: int) -> sql.Composed | None:
    """Write the condition on which a value can be held as planned; None where any can."""
    name = sql.Identifier(column.name)
    if column.is_converted:
        return _SAME_AGAIN.format(name, sql.SQL(column.type_name))
    return _FIT[oid].format(name) if oid in _FIT else None


def _ask(
    connection: Connection,
    table: sql.Composable,
    where: sql.Composable,
    asked: dict[str, sql.Composed],
) -> dict[str, bool]:
    if not asked:
        return {}
    conditions: Sequence[sql.Composed] = [
        sql.SQL("coalesce(bool_and({}), true)").format(each) for each in asked.values()
    ]
    query = _FITS.format(fits=sql.SQL(", ").join(conditions), table=table, where=where)
    (row,) = connection.execute(query).fetchall()
    return dict(zip(asked, row, strict=True))


def columns_of(connection: Connection, full_name: str) -> list[tuple[str, str, bool]]:
    """Read the columns of a table: name, type with modifier, and whether it is generated.

    Args:
        connection: A connection.
        full_name: The table.

    Returns:
        Its columns, in its order; none where there is no such table.
    """
    name = sql.Identifier(*full_name.split(".")).as_string(connection)
    found = connection.execute(_COLUMNS, (name,)).fetchall()
    return [(name, kind, generated) for name, _, _, kind, generated in found]
