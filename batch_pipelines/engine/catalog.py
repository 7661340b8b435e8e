"""PostgreSQL's catalog, read for everybody: columns, types, keys, constraints, foreign-key order."""

from __future__ import annotations

import difflib
import graphlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from psycopg import sql

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.signatures import rename_hint, signable
from batch_pipelines.engine.wire_types import wire_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.wire_types import WireType

STAMP = "import_batch_id"
_VARCHAR = 1043
_TIMES = frozenset({1083, 1114, 1184})  # time, timestamp, timestamptz

# MaxHeapAttributeNumber of PostgreSQL.
_MOST_COLUMNS = 1600
_TABLE = """
SELECT c.oid::bigint, format('%%I.%%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')
"""
_STAMPED = """
SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p') AND a.attname = %s
"""
_COLUMNS = """
SELECT a.attname, a.atttypid::bigint, a.atttypmod, format_type(a.atttypid, a.atttypmod),
       a.attnotnull OR t.typnotnull, a.atthasdef OR a.attidentity <> '' OR t.typdefaultbin IS NOT NULL,
       a.attgenerated <> '',
       a.attidentity = 'a',
       CASE WHEN a.attidentity <> '' THEN format('nextval(%%L::regclass)', pg_get_serial_sequence(
            a.attrelid::regclass::text, a.attname))
       ELSE coalesce((SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d
                      WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum),
                     pg_get_expr(t.typdefaultbin, 0)) END,
       (WITH RECURSIVE base AS (
            SELECT t.oid, t.typtype, t.typbasetype
            UNION ALL
            SELECT u.oid, u.typtype, u.typbasetype
            FROM base JOIN pg_type u ON u.oid = base.typbasetype WHERE base.typtype = 'd')
        SELECT format_type(oid, -1) FROM base WHERE typtype <> 'd')
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
_UNIQUE = """
SELECT i.indisprimary, coalesce(con.conname, c.relname),
       array_agg(a.attname ORDER BY k.place), bool_and(a.attnotnull), i.indnullsnotdistinct
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.contype IN ('p', 'u')
CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = %s AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
  AND k.place <= i.indnkeyatts
GROUP BY i.indisprimary, coalesce(con.conname, c.relname), i.indnullsnotdistinct
ORDER BY i.indisprimary DESC, 2
"""
_INDEXES = """
SELECT coalesce(con.conname, c.relname), i.indnullsnotdistinct, pg_get_expr(i.indpred, i.indrelid),
       (SELECT array_agg(pg_get_indexdef(i.indexrelid, k, true) ORDER BY k)
        FROM generate_series(1, i.indnkeyatts) AS k)
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.contype IN ('p', 'u')
WHERE i.indrelid = %s AND i.indisunique
ORDER BY i.indisprimary DESC, 1
"""
# From PostgreSQL 18 on a constraint may be declared and not enforced; before, the column is not there.
_CHECKS = """
SELECT conname, pg_get_expr(conbin, conrelid)
FROM pg_constraint con
WHERE conrelid = %s AND contype = 'c' AND coalesce((to_jsonb(con) ->> 'conenforced')::bool, true)
ORDER BY conname
"""
_FOREIGN_KEYS = """
SELECT con.conname, con.conrelid::bigint, con.confrelid::bigint, child.nspname, c.relname,
       parent.nspname, p.relname, con.confdeltype::text, con.confupdtype::text,
       (SELECT array_agg(a.attname ORDER BY k.place)
        FROM unnest(con.conkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum),
       (SELECT array_agg(a.attname ORDER BY k.place)
        FROM unnest(con.confkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.attnum)
FROM pg_constraint con
JOIN pg_class c ON c.oid = con.conrelid JOIN pg_namespace child ON child.oid = c.relnamespace
JOIN pg_class p ON p.oid = con.confrelid JOIN pg_namespace parent ON parent.oid = p.relnamespace
WHERE con.contype = 'f' AND con.conparentid = 0
  AND coalesce((to_jsonb(con) ->> 'conenforced')::bool, true)
  AND (con.conrelid = %(oid)s OR con.confrelid = %(oid)s)
ORDER BY con.conname
"""


@dataclass(frozen=True)
class Column:
    """A column of a target table.

    Attributes:
        name: Its name.
        type_name: Its type as SQL writes it, e.g. `numeric(10,2)`.
        base_type: The same without modifier and, for a domain, the type under it: `numeric`.
        wire: Its wire type where it is one of the closed list, else None: it then loads as text.
        not_null: Whether it refuses nulls.
        has_default: Whether an absent value gets a default or an identity.
        computed: Whether PostgreSQL alone writes it (generated, identity ALWAYS).
        generated: Whether it is an expression over the row's other columns.
        max_length: Characters a varchar(n) takes, else None.
        second_digits: Digits behind the second that a time(n) or timestamp(n) takes, else None.
        default_sql: The expression of its default, as PostgreSQL writes it, or None.
    """

    name: str
    type_name: str
    base_type: str
    wire: WireType | None
    not_null: bool
    has_default: bool
    computed: bool
    max_length: int | None = None
    second_digits: int | None = None
    default_sql: str | None = None
    generated: bool = False


@dataclass(frozen=True)
class UniqueKey:
    """A primary key or unique constraint or index over plain columns.

    Attributes:
        name: Of the constraint, or of the index where there is no constraint.
        columns: In the key's order.
        primary: Whether it is the primary key.
        nulls_equal: Whether two nulls count as equal (NULLS NOT DISTINCT).
    """

    name: str
    columns: tuple[str, ...]
    primary: bool
    nulls_equal: bool


@dataclass(frozen=True)
class UniqueIndex:
    """Whatever PostgreSQL holds unique: the keys above, and indexes over expressions or some rows.

    Attributes:
        name: Of the constraint, or of the index where there is no constraint.
        parts: SQL expressions over the table's columns that together are unique.
        predicate: SQL condition of the rows it covers, or None for all.
        nulls_equal: Whether two nulls count as equal.
    """

    name: str
    parts: tuple[str, ...]
    predicate: str | None
    nulls_equal: bool


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key from a child table to a parent table.

    Attributes:
        name: Of the constraint.
        child_oid, parent_oid: OIDs of the two tables.
        child, parent: Schema and name of the two tables.
        on_delete, on_update: `a` no action, `r` restrict, `c` cascade, `n` set null, `d` set
            default.
        child_columns, parent_columns: The columns that must agree, in the same order.
    """

    name: str
    child_oid: int
    parent_oid: int
    child: tuple[str, str]
    parent: tuple[str, str]
    on_delete: str
    on_update: str
    child_columns: tuple[str, ...]
    parent_columns: tuple[str, ...]


@dataclass(frozen=True)
class TableInfo:
    """What the catalog says of a target table.

    Attributes:
        oid: Its OID.
        schema, name: Its name.
        columns: All columns but the stamp, in the table's order.
        unique_keys: Those over plain columns, the primary key first.
        unique_indexes: All that must be unique, the primary key first.
        checks: Constraint name and SQL expression of each CHECK.
        parents: Foreign keys from this table.
        children: Foreign keys to this table, from itself included.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[Column, ...]
    unique_keys: tuple[UniqueKey, ...]
    unique_indexes: tuple[UniqueIndex, ...]
    checks: tuple[tuple[str, str], ...]
    parents: tuple[ForeignKey, ...]
    children: tuple[ForeignKey, ...]

    @property
    def full_name(self) -> str:
        """Schema and name, as a feed writes them."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted name for use in SQL."""
        return sql.Identifier(self.schema, self.name)

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Columns of the primary key; empty where there is none."""
        first = self.unique_keys[0] if self.unique_keys else None
        return first.columns if first is not None and first.primary else ()

    def column(self, name: str) -> Column:
        """Find a column.

        Args:
            name: Its name.

        Returns:
            The column.
        """
        return next(column for column in self.columns if column.name == name)


def read_table(connection: Connection, feed: Feed | None, full_name: str) -> TableInfo:
    """Read a target table's catalog.

    Args:
        connection: A connection to the target database.
        feed: The feed that names the table, for messages; None where it may be gone.
        full_name: The table's name as in `public.flights`.

    Returns:
        Its columns, keys and constraints.

    Raises:
        FeedError: There is no such table, or the feed writes to it and it has no stamp column.
    """
    schema, name = full_name.split(".")
    whose = "" if feed is None else f"Feed {feed.feed}: "
    row = connection.execute(_TABLE, (schema, name)).fetchone()
    if row is None:
        message = (
            f"{whose}there is no table {full_name}. Create it, correct `table:` in the "
            "feed, or give the feed a `ddl:` file and run `batch-pipelines db upgrade`."
        )
        raise FeedError(message)
    oid = int(row[0])
    columns = []
    stamped = False
    for (
        attname,
        type_oid,
        typmod,
        type_name,
        not_null,
        default,
        generated,
        always,
        default_sql,
        base_type,
    ) in _rows(connection, _COLUMNS, (oid,)):
        if attname == STAMP:
            stamped = type_name == "uuid"
            continue
        columns.append(
            Column(
                attname,
                type_name,
                base_type,
                wire_type(type_oid, typmod),
                not_null,
                default,
                generated or always,
                # A varchar's type modifier is its length and the 4 bytes of a header.
                typmod - 4 if type_oid == _VARCHAR and typmod > 0 else None,
                typmod if type_oid in _TIMES and typmod >= 0 else None,
                default_sql,
                generated,
            )
        )
    if not stamped and (feed is None or not feed.is_reconciled):
        quoted = row[1]
        message = (
            f"{whose}table {full_name} has no column {STAMP} of type uuid, so its rows "
            f"could not be traced to a batch. Type `batch-pipelines db track {full_name}`, or add it: "
            f"ALTER TABLE {quoted} ADD COLUMN {STAMP} uuid; "
            f"CREATE INDEX CONCURRENTLY ON {quoted} ({STAMP});"
        )
        raise FeedError(message)
    keys = tuple(
        UniqueKey(conname, tuple(names), primary, nulls_equal)
        for primary, conname, names, _, nulls_equal in _rows(connection, _UNIQUE, (oid,))
    )
    indexes = tuple(
        UniqueIndex(n, tuple(parts), predicate, nulls_equal)
        for n, nulls_equal, predicate, parts in _rows(connection, _INDEXES, (oid,))
    )
    checks = tuple((n, e) for n, e in _rows(connection, _CHECKS, (oid,)))
    foreign = _foreign_keys(connection, oid)
    return TableInfo(
        oid,
        schema,
        name,
        tuple(columns),
        keys,
        indexes,
        checks,
        tuple(key for key in foreign if key.child_oid == oid),
        tuple(key for key in foreign if key.parent_oid == oid),
    )


def read_tables(connection: Connection, feed: Feed) -> tuple[TableInfo, ...]:
    """Read all tables of a feed, parents before children.

    Args:
        connection: A connection to the target database.
        feed: The feed.

    Returns:
        Its tables, ordered by the foreign keys among them; a cycle keeps the feed's order, since
        one statement's rows are checked at its end and deferrable keys at the transaction's.

    Raises:
        FeedError: A table is missing or has no stamp column.
    """
    return parents_first([read_table(connection, feed, table.table) for table in feed.tables])


def parents_first(infos: Iterable[TableInfo]) -> tuple[TableInfo, ...]:
    """Order tables by the foreign keys among them.

    Args:
        infos: The tables.

    Returns:
        Parents before children; a cycle keeps the order given.
    """
    tables = {info.oid: info for info in infos}
    graph = {
        oid: {key.parent_oid for key in info.parents if key.parent_oid in tables} - {oid}
        for oid, info in tables.items()
    }
    try:
        return tuple(tables[oid] for oid in graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError:
        return tuple(tables.values())


def has_cycle(ordered: Iterable[TableInfo]) -> bool:
    """Say whether tables refer to each other in a circle.

    Args:
        ordered: The tables, as `parents_first` orders them.
    """
    tables = [*ordered]
    places = {table.oid: place for place, table in enumerate(tables)}
    return any(
        places.get(key.parent_oid, -1) > place
        for place, table in enumerate(tables)
        for key in table.parents
    )


def foreign_keys_to(connection: Connection, oid: int) -> tuple[ForeignKey, ...]:
    """Read the foreign keys that refer to a table, its own included.

    Args:
        connection: A connection to the target database.
        oid: OID of the table, which may have no stamp.
    """
    return tuple(key for key in _foreign_keys(connection, oid) if key.parent_oid == oid)


def stamped_by(batch_id: str) -> sql.Composed:
    """Write the condition that a row was written by a batch."""
    return sql.SQL("{} = {}").format(sql.Identifier(STAMP), sql.Literal(batch_id))


def is_stamped(connection: Connection, full_name: str) -> bool:
    """Say whether there is such a table, with a column for the stamp."""
    row = connection.execute(_STAMPED, (*full_name.split("."), STAMP)).fetchone()
    return row is not None


def primary_key(connection: Connection, full_name: str) -> tuple[str, ...]:
    """Read the columns of a table's primary key.

    Args:
        connection: A connection.
        full_name: The table's name with schema; it is there.

    Returns:
        Their names in the key's order; none where there is no key.
    """
    oid = _rows(connection, _TABLE, tuple(full_name.split(".")))[0][0]
    found = [names for primary, _, names, *_ in _rows(connection, _UNIQUE, (oid,)) if primary]
    return tuple(found[0]) if found else ()


def match_columns(
    table: TableInfo,
    names: Sequence[str],
    where: str,
    types: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Column, ...]:
    """Find the table's column for each column of a file.

    Args:
        table: The target table.
        names: Column names of the file, in its order.
        where: The file, for messages.
        types: The type that the file gives a column, where it is another than text.

    Returns:
        One column for each name, in the file's order.

    Raises:
        FeedError: A name stands twice, is unknown, is written by PostgreSQL alone, or a column that
            must have a value is absent.
    """
    if len(names) > _MOST_COLUMNS:
        # To name each of them, and what it is like, would take minutes.
        message = (
            f"{where}: brings {len(names)} columns; a table has {_MOST_COLUMNS} at most. Correct the "
            "file, or the feed's `format: delimiter`."
        )
        raise FeedError(message)
    known = {column.name: column for column in table.columns}
    problems = []
    for name in names:
        if names.count(name) > 1:
            problems.append(f"column {name!r} stands more than once")
        elif name == STAMP:
            problems.append(
                f"column {STAMP} is written by batch-pipelines and may not be delivered"
            )
        elif name not in known:
            near = difflib.get_close_matches(name, [k for k in known if k not in names], n=1)
            hint = f" (is it {near[0]!r}?)" if near else ""
            problems.append(f"column {name!r} is not in {table.full_name}{hint}")
        elif known[name].computed:
            problems.append(f"column {name!r} is computed by PostgreSQL and may not be delivered")
    problems.extend(
        f"column {column.name!r} is absent, but {table.full_name} needs a value there"
        for column in table.columns
        if column.not_null and not column.has_default and column.name not in names
    )
    if problems:
        found = "; ".join(dict.fromkeys(problems))
        message = f"{where}: {found}. Correct the file's columns, or the table."
        unknown = [name for name in dict.fromkeys(names) if name not in known and name != STAMP]
        absent = [c.name for c in table.columns if not c.computed and c.name not in names]
        hints = [*rename_hint(unknown, absent), *_take_on(table, unknown, types)]
        raise FeedError(" ".join([message, *hints]))
    return tuple(known[name] for name in names)


def _take_on(table: TableInfo, unknown: Sequence[str], types: Mapping[str, str]) -> list[str]:
    """Say how to make room for columns that the table does not have, or to do without."""
    if not unknown:
        return []
    columns = sql.SQL(", ").join(
        # The type is one of a few words of our own.
        sql.SQL("ADD COLUMN {} {}").format(
            sql.Identifier(signable(name)), sql.SQL(types.get(name, "text"))
        )
        for name in unknown
    )
    statement = sql.SQL("ALTER TABLE {} {}").format(table.identifier, columns).as_string()
    return [
        f"To take it on, run `{statement};`.",
        "To load without it, write `contract: {extra_column: ignore}`.",
    ]


def _foreign_keys(connection: Connection, oid: int) -> list[ForeignKey]:
    return [
        ForeignKey(n, c, p, (cs, cn), (ps, pn), deleted, updated, tuple(cc), tuple(pc))
        for n, c, p, cs, cn, ps, pn, deleted, updated, cc, pc in _rows(
            connection, _FOREIGN_KEYS, {"oid": oid}
        )
    ]


def _rows(
    connection: Connection, query: str, parameters: Sequence[object] | Mapping[str, object]
) -> list[tuple[Any, ...]]:
    return connection.execute(query, parameters).fetchall()
