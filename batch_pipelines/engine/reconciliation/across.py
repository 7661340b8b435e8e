"""A table compared with rows of another database, without carrying them from one to the other.

Each side digests its own rows. Where count or digest differ, the range of keys is divided, and each part
asked about again, down to so few rows that they are fetched: as keys and hashes of values. So statements
and fetched rows grow with the number of differences, and with the logarithm of the table's size.

Values are compared as PostgreSQL writes them as text, so that an integer here may be a bigint there.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from batch_pipelines.engine.digests.sql import digest_statement, table_digest
from batch_pipelines.engine.ledger.proofs import RowReport
from batch_pipelines.engine.ledger.verifications import Difference
from batch_pipelines.engine.reconciliation.differing import MOST_NAMED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batch_pipelines.engine.digests import RowDigest
    from batch_pipelines.engine.postgres.database import Connection

_NUMERIC: Final = 1700
# text, varchar, char(n) and name: how they are ordered is each database's own affair, but for bytes.
_TEXTS: Final = frozenset({19, 25, 1042, 1043})
_PARTS: Final = 16
_FEW_ROWS: Final = 64
"""Rows of a range that are fetched rather than divided again."""
_MANY_ROWS: Final = 4096
"""The same, of a range of which every part differs."""

Key = tuple[str, ...]
Hashes = tuple[bytes | None, ...]

_DESCRIBE = sql.SQL("SELECT {columns} FROM {rows} WHERE false")
_WITHOUT_KEY = sql.SQL("SELECT count(*) FROM {rows} WHERE {missing}")
_BOUNDS = sql.SQL("""
SELECT {texts} FROM (
    SELECT {keys}, row_number() OVER (ORDER BY {order}) AS n FROM {rows} WHERE {where}) AS numbered
WHERE n % {step} = 0 ORDER BY n
""")
_FETCH = sql.SQL("SELECT {keys}, {hashes} FROM {rows} WHERE {where}")
_HASH = sql.SQL("sha256(convert_to({}, 'UTF8'))")


@dataclass(frozen=True)
class Span:
    """Keys behind one and up to another; None where it has no such end."""

    after: Key | None = None
    to: Key | None = None


@dataclass
class Side:
    """Rows of one of the two databases.

    Attributes:
        connection: A connection in a transaction that sees one moment; its settings write values alike
            on both sides.
        rows: What follows FROM: a table, or a query in brackets with a name.
        where: The condition that tells the rows.
        columns: Its name of each column, in the same order on both sides.
        key: Its names of the columns that tell rows apart.
        statements: How many statements were sent.
        fetched: How many rows were fetched, boundaries of ranges among them.
    """

    connection: Connection
    rows: sql.Composable
    where: sql.Composable
    columns: Sequence[str]
    key: Sequence[str]
    statements: int = 0
    fetched: int = 0
    _kinds: dict[str, int] = field(default_factory=dict)

    def describe(self) -> None:
        """Find out which types the columns have."""
        names = list(dict.fromkeys([*self.columns, *self.key]))
        query = _DESCRIBE.format(columns=_listed(names), rows=self.rows)
        self.statements += 1
        described = self.connection.execute(query).description or ()
        self._kinds = {n: each.type_code for n, each in zip(names, described, strict=True)}

    def without_key(self) -> int:
        """Count the rows without a value in a column of the key."""
        missing = sql.SQL(" OR ").join(
            sql.SQL("{} IS NULL").format(sql.Identifier(name)) for name in self.key
        )
        missing = sql.SQL("({}) AND ({})").format(self.where, missing)
        ((found,),) = self._ask(_WITHOUT_KEY.format(rows=self.rows, missing=missing))
        return int(found)

    def digest(self, span: Span) -> RowDigest:
        """Digest the rows of a range."""
        self.statements += 1
        return table_digest(
            self.connection, self.rows, self._texts(self.columns), self._within(span)
        )

    def digest_sql(self) -> str:
        """Write the statement that digests all rows, for anyone to run."""
        query = digest_statement(self.connection, self.rows, self._texts(self.columns), self.where)
        return query.as_string(self.connection).strip()

    def count_sql(self) -> str:
        """Write the statement that counts all rows, for anyone to run."""
        query = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self.rows, self.where)
        return query.as_string(self.connection)

    def bounds(self, span: Span, rows: int) -> list[Key]:
        """Give keys that divide a range into parts of about as many rows each.

        Args:
            span: The range.
            rows: How many rows it has.
        """
        query = _BOUNDS.format(
            texts=sql.SQL(", ").join(self._texts(self.key)),
            keys=_listed(self.key),
            order=sql.SQL(", ").join(self._ordered()),
            rows=self.rows,
            where=self._within(span),
            step=sql.Literal(-(-rows // _PARTS)),
        )
        found = [tuple(map(str, row)) for row in self._ask(query)]
        return list(dict.fromkeys(key for key in found if key != span.to))

    def fetch(self, span: Span) -> dict[Key, Counter[Hashes]]:
        """Fetch the rows of a range: for each key, the hashes of its rows' values."""
        query = _FETCH.format(
            keys=sql.SQL(", ").join(self._texts(self.key)),
            hashes=sql.SQL(", ").join(map(_HASH.format, self._texts(self.columns))),
            rows=self.rows,
            where=self._within(span),
        )
        found = defaultdict[Key, Counter[Hashes]](Counter)
        for row in self._ask(query):
            found[row[: len(self.key)]][row[len(self.key) :]] += 1
        return dict(found)

    def _ask(self, query: sql.Composed) -> list[tuple[Any, ...]]:
        self.statements += 1
        found = self.connection.execute(query).fetchall()
        self.fetched += len(found)
        return found

    def _texts(self, names: Sequence[str]) -> list[sql.Composed]:
        return [
            sql.SQL("trim_scale({})::text" if self._kinds[name] == _NUMERIC else "{}::text").format(
                sql.Identifier(name)
            )
            for name in names
        ]

    def _ordered(self) -> list[sql.Composed]:
        return [
            sql.SQL('{} COLLATE "C"' if self._kinds[name] in _TEXTS else "{}").format(
                sql.Identifier(name)
            )
            for name in self.key
        ]

    def _within(self, span: Span) -> sql.Composed:
        key = sql.SQL(", ").join(self._ordered())
        parts = [sql.SQL("({})").format(self.where)]
        for sign, end in (("ROW({}) > ROW({})", span.after), ("ROW({}) <= ROW({})", span.to)):
            if end is not None:
                values = sql.SQL(", ").join(map(sql.Literal, end))
                parts.append(sql.SQL(sign).format(key, values))
        return sql.SQL(" AND ").join(parts)


@dataclass(frozen=True)
class Compared:
    """What a comparison of two sides found.

    Attributes:
        source: The digest of all rows of the other database.
        target: The digest of all rows of the table.
        rows: How rows differ, some of them by name; None where none does.
    """

    source: RowDigest
    target: RowDigest
    rows: RowReport | None


def compare(source: Side, target: Side, names: Sequence[str], key: Sequence[str]) -> Compared:
    """Compare the rows of two databases.

    Args:
        source: The other database.
        target: The table.
        names: How to call the columns, in the order of both sides.
        key: How to call the columns of the key.

    Returns:
        The digests; where they differ, exact counts and the rows by name.
    """
    whole = source.digest(Span()), target.digest(Span())
    if whole[0] == whole[1]:
        return Compared(*whole, None)
    missing = extra = changed = 0
    details = list[Difference]()
    for span in _differing(source, target, Span(), whole):
        sent, stored = source.fetch(span), target.fetch(span)
        for at in sorted(sent.keys() | stored.keys()):
            gone = sent.get(at, Counter()) - stored.get(at, Counter())
            new = stored.get(at, Counter()) - sent.get(at, Counter())
            name = dict(zip(key, at, strict=True))
            pairs = [*zip(_each(gone), _each(new), strict=False)]
            changed += len(pairs)
            missing += gone.total() - len(pairs)
            extra += new.total() - len(pairs)
            kinds: list[tuple[str, list[str] | None]]
            kinds = [("changed", _columns(names, *pair)) for pair in pairs]
            kinds += [("missing", None)] * (gone.total() - len(pairs))
            kind = "duplicated" if at in sent else "added"
            kinds += [(kind, None)] * (new.total() - len(pairs))
            details += [Difference(each, name, None, None, None, c) for each, c in kinds]
            del details[MOST_NAMED:]
    rows = RowReport(missing, extra, changed, whole[0].rows - missing - changed, details)
    return Compared(*whole, rows)


def _differing(
    source: Side, target: Side, span: Span, digests: tuple[RowDigest, RowDigest]
) -> Iterator[Span]:
    """Divide a range that differs down to those of few rows that do."""
    rows = [each.rows for each in digests]
    bounds = list[Key]()
    if max(rows) > _FEW_ROWS:
        larger = source if rows[0] > rows[1] else target
        bounds = larger.bounds(span, max(rows))
    if not bounds:
        yield span
        return
    parts = [Span(*ends) for ends in itertools.pairwise([span.after, *bounds, span.to])]
    found = [(part, (source.digest(part), target.digest(part))) for part in parts]
    differing = [(part, digests) for part, digests in found if digests[0] != digests[1]]
    if len(differing) == len(parts) and max(rows) <= _MANY_ROWS:
        # Rows differ all over the range, so that dividing on would only cost.
        yield span
        return
    for part, both in differing:
        yield from _differing(source, target, part, both)


def _each(rows: Counter[Hashes]) -> list[Hashes]:
    return sorted(rows.elements(), key=lambda row: [value or b"" for value in row])


def _columns(names: Sequence[str], one: Hashes, other: Hashes) -> list[str]:
    return [name for name, sent, stored in zip(names, one, other, strict=True) if sent != stored]


def _listed(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
