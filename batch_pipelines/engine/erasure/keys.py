"""The primary keys of a person's rows: what tells of them where the columns that name the person do not.

Row digests in bags, what is critical, and what was found to differ know rows by these.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow.parquet as pq
from psycopg import sql

from batch_pipelines.engine.erasure.searching import equal
from batch_pipelines.engine.erasure.subject import is_same

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.erasure.subject import Subject
    from batch_pipelines.engine.postgres.database import Connection

_KEYS: Final = sql.SQL("""
SELECT ARRAY[{values}] FROM {table} AS x WHERE {mine}
UNION SELECT ARRAY[{images}] FROM batch_audit.row_before_image AS x
WHERE x.target_table = {name} AND {own_image}
UNION SELECT ARRAY[{images}] FROM batch_audit.superseded_row AS x
WHERE x.target_table = {name} AND {own_image}
""")


@dataclass(frozen=True)
class PersonKeys:
    """Primary keys.

    Attributes:
        columns: Of the table's primary key; none where it has none.
        keys: Values as PostgreSQL writes them.
    """

    columns: tuple[Column, ...]
    keys: frozenset[tuple[str, ...]]

    @classmethod
    def of(cls, connection: Connection, subject: Subject) -> PersonKeys:
        """Read the keys of a person's rows, those that have been overwritten or superseded among them.

        Args:
            connection: A connection inside a transaction that `subject` is bound to.
            subject: The person.
        """
        table = subject.table
        columns = tuple(table.column(name) for name in table.primary_key)
        if not columns:
            return cls((), frozenset())
        query = _KEYS.format(
            values=sql.SQL(", ").join(
                sql.SQL("x.{}::text").format(sql.Identifier(c.name)) for c in columns
            ),
            images=sql.SQL(", ").join(
                sql.SQL("x.image ->> {}").format(sql.Literal(c.name)) for c in columns
            ),
            table=table.identifier, name=sql.Literal(table.full_name),
            mine=subject.row("x"), own_image=subject.image("x"),
        )  # fmt: skip
        found = connection.execute(query).fetchall()
        return cls(columns, frozenset(tuple(key) for (key,) in found))

    def with_more(self, keys: Iterable[tuple[str, ...]]) -> PersonKeys:
        """Add keys."""
        return PersonKeys(self.columns, self.keys | {*keys})

    def has(self, key: Mapping[str, object]) -> bool:
        """Say whether a key by column is one of these."""
        return bool(self.columns) and any(
            all(
                is_same(column, key.get(column.name), value)
                for column, value in zip(self.columns, each, strict=True)
            )
            for each in self.keys
        )

    def in_digests(self, path: Path) -> dict[str, list[int]]:
        """Find these keys in a Parquet file of row digests.

        Args:
            path: The file: file name, record, columns of the key, digest.

        Returns:
            Numbers of records by file; nothing where the file knows rows by other columns.
        """
        found = defaultdict[str, list[int]](list)
        names = [column.name for column in self.columns]
        with pq.ParquetFile(path) as file:
            if not names or file.schema_arrow.names[2:-1] != names:
                return {}
            for rows in file.iter_batches():
                mask = np.zeros(rows.num_rows, bool)
                for key in self.keys:
                    own = np.ones(rows.num_rows, bool)
                    for place, (column, value) in enumerate(zip(self.columns, key, strict=True)):
                        own &= equal(rows.column(2 + place), column, value)
                    mask |= own
                for place in np.flatnonzero(mask).tolist():
                    name, number = rows.column(0)[place].as_py(), rows.column(1)[place].as_py()
                    found[name].append(number)
        return dict(found)
