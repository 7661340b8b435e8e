"""Whose records: a table, and the values of some of its columns that tell a person's rows from others.

The values live in this process and, for the length of a transaction, in a temporary table: statements
never have them in their text, so no log of PostgreSQL's has them either. Not here: where records are.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, read_table
from batch_pipelines.engine.errors import ErasureError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batch_pipelines.engine.catalog import Column, TableInfo
    from batch_pipelines.engine.postgres.database import Connection

_CREATE: Final = sql.SQL(
    "CREATE TEMPORARY TABLE IF NOT EXISTS batch_pipelines_person ({}) ON COMMIT DROP"
)
_FILL: Final = sql.SQL("INSERT INTO pg_temp.batch_pipelines_person VALUES ({})")
_CANONICAL: Final = sql.SQL("SELECT (%s::text::{})::text")
_SAME: Final = sql.SQL("EXISTS (SELECT FROM pg_temp.batch_pipelines_person AS k WHERE {})")
_NUMBERS: Final = frozenset(
    {"smallint", "integer", "bigint", "numeric", "real", "double precision", "oid", "money"}
)
_HEXADECIMAL: Final = frozenset({"uuid", "bytea"})
_TEXTS: Final = frozenset({"text", "character varying", "character", "name"})
# scrypt's cost for one guess: a sixth of a second, with 64 MB.
_COST: Final = {"n": 1 << 16, "r": 8, "p": 1, "maxmem": 128 << 20}


@dataclass(frozen=True)
class Subject:
    """A person, as a table knows them.

    Attributes:
        table: The table.
        columns: Those that say whose row it is.
        values: Their values, as PostgreSQL writes them; never printed.
    """

    table: TableInfo
    columns: tuple[Column, ...]
    values: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, connection: Connection, full_name: str, key: Mapping[str, str]) -> Subject:
        """Take a person's key.

        Args:
            connection: A connection.
            full_name: The table, as in `public.patients`.
            key: Values by column, as text.

        Returns:
            The person.

        Raises:
            FeedError: There is no such table.
            ErasureError: It has no such column, or a value is none of the column's type.
        """
        table = read_table(connection, None, full_name)
        known = {column.name: column for column in table.columns}
        if not key:
            message = f"Nothing says whose rows of {full_name} are meant: give --key COLUMN=VALUE."
            raise ErasureError(message)
        columns, values = [], []
        for name, value in key.items():
            if name not in known or name == STAMP:
                message = f"{full_name} has no column {name}. Its columns are {', '.join(known)}."
                raise ErasureError(message)
            columns.append(known[name])
            values.append(_canonical(connection, known[name], value))
        return cls(table, tuple(columns), tuple(values))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)

    def hashed(self, salt: bytes) -> bytes:
        """Hash the key, so that the same one is known again, and no other is told from it.

        Args:
            salt: At least 16 random bytes.

        Returns:
            32 bytes.
        """
        pairs = sorted(zip(self.names, self.values, strict=True))
        text = json.dumps([self.table.full_name, pairs])
        return hashlib.scrypt(text.encode(), salt=salt, dklen=32, **_COST)

    def bind(self, connection: Connection) -> None:
        """Have a transaction know the values, for `row` and `image`.

        Args:
            connection: A connection inside a transaction.
        """
        places = range(len(self.columns))
        types = [sql.SQL(column.type_name) for column in self.columns]
        columns = [
            sql.SQL("c{} {}").format(sql.SQL(str(place)), kind)
            for place, kind in zip(places, types, strict=True)
        ]
        values = [sql.SQL("%s::text::{}").format(kind) for kind in types]
        connection.execute(_CREATE.format(sql.SQL(", ").join(columns)))
        connection.execute(_FILL.format(sql.SQL(", ").join(values)), self.values)

    def row(self, alias: str) -> sql.Composed:
        """Write the condition that a row of the table is the person's."""
        return self._same(
            sql.SQL("{}.{}").format(sql.SQL(alias), sql.Identifier(name)) for name in self.names
        )

    def image(self, alias: str) -> sql.Composed:
        """Write the condition that an image of such a row is."""
        return self._same(
            sql.SQL("({}.image ->> {})::{}").format(
                sql.SQL(alias), sql.Literal(column.name), sql.SQL(column.type_name)
            )
            for column in self.columns
        )

    def _same(self, values: Iterable[sql.Composable]) -> sql.Composed:
        pairs = [
            sql.SQL("{} = k.c{}").format(value, sql.SQL(str(place)))
            for place, value in enumerate(values)
        ]
        return _SAME.format(sql.SQL(" AND ").join(pairs))


def is_same(column: Column, found: object, value: str) -> bool:
    """Say whether what a file has for a column is a person's value.

    Args:
        column: The column.
        found: A value as it was read, or its text.
        value: The person's, as PostgreSQL writes it.
    """
    if found is None:
        return False
    text = _text(column, found).strip()
    if text == value.strip():
        return True
    if column.base_type in _TEXTS:
        return False
    if column.base_type in _NUMBERS:
        return _is_same_number(text, value)
    if column.base_type in _HEXADECIMAL:
        return _bare(text) == _bare(value)
    return text.casefold() == value.casefold() or _is_same_time(found, value)


def _text(column: Column, found: object) -> str:
    if isinstance(found, bytes):
        hexadecimal = column.base_type in _HEXADECIMAL
        return found.hex() if hexadecimal else found.decode(errors="replace")
    return str(found)


def _is_same_number(text: str, value: str) -> bool:
    try:
        return Decimal(text.replace(",", ".")) == Decimal(value)
    except InvalidOperation:
        return False


def _bare(text: str) -> str:
    return text.removeprefix("\\x").strip("{}").replace("-", "").casefold()


def _is_same_time(found: object, value: str) -> bool:
    if not isinstance(found, dt.date | dt.time):
        return False
    try:
        return type(found).fromisoformat(value) == found
    except ValueError:
        return False


def _canonical(connection: Connection, column: Column, value: str) -> str:
    query = _CANONICAL.format(sql.SQL(column.type_name))
    try:
        with connection.transaction():
            ((text,),) = connection.execute(query, (value,)).fetchall()
    except psycopg.DataError:
        # Not chained: PostgreSQL's message has the value.
        message = f"The value given for {column.name} is no {column.type_name}."
        raise ErasureError(message) from None
    return str(text)
