"""Judging: which staged rows fit their tables, asked of PostgreSQL for all rows at once.

The catalog says what to ask. A record is judged on levels, on one only if it passed those before, and on
each level every reason is noted.

0. The record: its fields, quotes.
1. Its values. First those of the closed list of types (`wire_types`), text that is not UTF-8, and what
   may not be null; then those that PostgreSQL converts from text (`conversion`). In a table that is
   upserted, rows then take over what they do not bring (`completing`), and what is null now and may not
   be is another of these.
2. CHECK constraints, and rules of the feed about one row: broken, or raising an error. (A constraint of
   a column that is not delivered is level 5; columns that rules look at are staged with their defaults.)
3. Foreign keys, and rules like them, to a fixpoint: a row whose parent is out is out. Parents may be
   rows of the table, as far as they are not being replaced, and of the batch, also later ones of the
   same table; rows in a circle hold each other.
4. What must be unique, by the table or by a rule: first against the table, then within the batch, in
   source order: the first row wins its keys, and one that loses any of them claims none. A row that
   refers to its own table may lose its parent to such a contest; then it is out by its foreign key, and
   the contest is held again without it.
5. What no query can tell: triggers and exclusion constraints, in source order; see `bisecting`. Whoever
   refers to a row that is out here is out too; contests are not held again for it.

Levels 0 and 1 up to the closed list are done when a file is read. Tables are judged on levels 3 and 4
parents first.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, UniqueIndex
from batch_pipelines.engine.rejects import NOT_NULL
from batch_pipelines.engine.writing.completing import complete
from batch_pipelines.engine.writing.conversion import convert, note, note_wrong
from batch_pipelines.engine.writing.copying import PLACE
from batch_pipelines.engine.writing.server_changed import mentions
from batch_pipelines.engine.writing.staging import take_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batch_pipelines.engine.catalog import ForeignKey
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.staging import Staged

__all__ = ["UNIQUE", "judge", "note"]

_CHECK, _FOREIGN_KEY, UNIQUE = "23514", "23503", "23505"
_PLACE, _STAMP = sql.Identifier(PLACE), sql.Identifier(STAMP)

_ORPHAN = sql.SQL("{staged} s WHERE {present} AND {absent}")
_NO_PARENT = sql.SQL("NOT EXISTS (SELECT FROM {parent} p WHERE {same} AND {counts})")
_HAS_NOT_LOST = sql.SQL("NOT EXISTS (SELECT FROM {contest} l WHERE l.{place} = {row}.{place})")
_KEYS = sql.SQL("(SELECT {place}, {parts} FROM {staged} WHERE {covered}) k")
_TAKEN = sql.SQL(
    "{keys} WHERE {complete} AND EXISTS (SELECT FROM {table} WHERE {same} AND {counts})"
)
_NOT_SAME = sql.SQL("NOT EXISTS (SELECT FROM {staged} u WHERE u.{place} = k.{place} AND {same})")
# Those with a key that another one has too. A key is told by the place of the first row that has it, so
# that no key is too long, of a strange type or in need of a rule for nulls. By windows, which take one
# sort each and no join.
_CONTEST = sql.SQL("""
CREATE TEMPORARY TABLE {contest} AS
SELECT * FROM (
    SELECT {place}, {keys} FROM (SELECT {place}, {parts} FROM {staged}) k WINDOW {windows}) c
WHERE num_nonnulls({names}) > 0
""")
_KEY = sql.SQL("""
CASE WHEN k.{covered} AND {complete} AND count(*) OVER {name} > 1 THEN min({place}) OVER {name}
END AS {name}
""")
_WON = sql.SQL("CREATE TEMPORARY TABLE {won} (LIKE {contest})")
_HOLD = sql.SQL("INSERT INTO {won} SELECT * FROM {contest} ORDER BY {place} ON CONFLICT DO NOTHING")
_ONLY_LOSERS = sql.SQL("DELETE FROM {contest} c USING {won} w WHERE w.{place} = c.{place}")
_LOST = sql.SQL("""
{contest} c WHERE EXISTS (SELECT FROM {won} w WHERE w.{name} = c.{name} AND w.{place} < c.{place})
""")
_DROP = sql.SQL("DROP TABLE IF EXISTS {contest}, {won}")
# Never true, and computed all the same.
_COMPUTED = sql.SQL("CASE WHEN {covered} THEN num_nulls({parts}) < 0 END")


@dataclass(frozen=True)
class _Round:
    """What judging needs beside the staged rows: which rows of the targets do not count."""

    connection: Connection
    staged: dict[int, Staged]
    superseded: str | None
    upserts: Mapping[int, Sequence[str]]


def judge(
    connection: Connection,
    staged: Sequence[Staged],
    superseded: str | None,
    upserts: Mapping[int, Sequence[str]] = MappingProxyType({}),
    replaced: Mapping[str, frozenset[str]] = MappingProxyType({}),
) -> int:
    """Note what is wrong with staged rows, and take those rows out.

    Args:
        connection: A connection in autocommit mode, with the staged tables.
        staged: The staged sources, parents first.
        superseded: Id of the batch that will be replaced: its rows count for nothing.
        upserts: By OID of a table, the columns of the key by which its rows are updated: a row of the
            table with the same key is no obstacle.
        replaced: By table, the columns that the superseded batch brought.

    Returns:
        How many rows were taken out.
    """
    tables = {each.source.table.oid: each for each in staged}
    round_ = _Round(connection, tables, superseded, upserts)
    out = 0
    for each in staged:
        out += convert(connection, each)
        if key := upserts.get(each.source.table.oid):
            columns = replaced.get(each.source.table.full_name, frozenset())
            complete(connection, each, key, superseded, columns)
            out += _judge_missing(round_, each)
        out += _judge_checks(round_, each)
    for group in _groups(staged):
        out += _judge_keys(round_, group)
    return out


def _judge_missing(round_: _Round, staged: Staged) -> int:
    """Judge rows that brought no value where one is needed, and have found none in the table."""
    found = 0
    for column in (*staged.source.filled, *staged.extra):
        if column.not_null and column.name in staged.names:
            missing = sql.SQL("{} s WHERE s.{} IS NULL").format(
                staged.name, sql.Identifier(column.name)
            )
            message = "has no value, and the table needs one there"
            found += note(round_.connection, staged, missing, NOT_NULL, message, column=column.name)
    return take_out(round_.connection, staged) if found else 0


def _judge_checks(round_: _Round, staged: Staged) -> int:
    found = 0
    for name, expression in (*staged.source.table.checks, *staged.source.rules.checks):
        if mentions(expression, staged.source.server_changed):
            continue  # a trigger has a word before it
        # The expression is PostgreSQL's own rendering, over columns of the same names.
        broken = sql.SQL("NOT ({})").format(sql.SQL(expression))
        message = f"breaks {_called(staged, name)}"
        try:
            found += note_wrong(round_.connection, staged, broken, _CHECK, message, constraint=name)
        except psycopg.ProgrammingError:
            continue  # it looks at a column that is not delivered
    return take_out(round_.connection, staged) if found else 0


def _called(staged: Staged, name: str) -> str:
    """Call a constraint by its name, or a rule of the feed what it is."""
    return f"the rule {name} of the feed" if name in staged.source.rules.names else name


def _parents(staged: Staged) -> tuple[ForeignKey, ...]:
    return (*staged.source.table.parents, *staged.source.rules.references)


def _groups(staged: Sequence[Staged]) -> list[list[Staged]]:
    """Put together the tables that refer to each other in a circle; as a rule each is alone."""
    oids = [each.source.table.oid for each in staged]
    for place, each in enumerate(staged):
        later = set(oids[place + 1 :])
        if any(key.parent_oid in later for key in _parents(each)):
            return [[*staged]]
    return [[each] for each in staged]


def _judge_keys(round_: _Round, group: Sequence[Staged]) -> int:
    """Judge foreign keys and what must be unique; where one can undo the other, until both hold."""
    oids = {each.source.table.oid for each in group}
    circular = any(k.parent_oid in oids for each in group for k in _parents(each))
    out = _judge_parents(round_, group, circular=circular)
    for each in group:
        out += _judge_taken(round_, each)
    while True:
        if circular:
            out += _judge_parents(round_, group, circular=True)
        contested = frozenset(each.number for each in group if _contest(round_, each))
        orphans = 0
        if circular and contested:
            orphans = sum(_note_orphans(round_, each, contested) for each in group)
        if not orphans:
            return out + sum(_settle(round_, each) for each in group if each.number in contested)
        out += sum(take_out(round_.connection, each) for each in group)


def _judge_parents(round_: _Round, group: Sequence[Staged], *, circular: bool) -> int:
    within, out = {each.source.table.oid for each in group}, 0
    # Parents elsewhere do not change; later rounds are for those in the group.
    among: set[int] | None = None
    while True:
        found = sum(_note_orphans(round_, each, among=among) for each in group)
        if not found:
            return out
        out += sum(take_out(round_.connection, each) for each in group)
        if not circular:
            return out
        among = within


def _note_orphans(
    round_: _Round,
    staged: Staged,
    contested: frozenset[int] = frozenset(),
    *,
    among: set[int] | None = None,
) -> int:
    """Note rows without a parent; of contested tables, among those and for those that have won.

    With `among`, only parents in these tables are looked for.
    """
    found = 0
    for key in _parents(staged):
        if among is not None and key.parent_oid not in among:
            continue
        if not set(key.child_columns) <= staged.names:
            continue  # its default may refer to anything; PostgreSQL will say
        parent = round_.staged.get(key.parent_oid)
        if parent is not None and parent.source.server_changed & {*key.parent_columns}:
            continue  # as well
        present = [sql.SQL("s.{} IS NOT NULL").format(sql.Identifier(n)) for n in key.child_columns]
        if staged.number in contested:
            present.append(_has_not_lost(staged, "s"))
        broken = _ORPHAN.format(
            staged=staged.name,
            present=sql.SQL(" AND ").join(present),
            absent=sql.SQL(" AND ").join(_absent(round_, key, contested)),
        )
        message = f"{', '.join(key.child_columns)} refers to no row of {'.'.join(key.parent)}"
        if key in staged.source.rules.references:
            message += f" ({_called(staged, key.name)})"
        column = key.child_columns[0] if len(key.child_columns) == 1 else None
        found += note(
            round_.connection, staged, broken, _FOREIGN_KEY, message,
            column=column, constraint=key.name,
        )  # fmt: skip
    return found


def _absent(round_: _Round, key: ForeignKey, contested: frozenset[int]) -> Iterable[sql.Composed]:
    """Say that neither the parent table has the row, nor the delivery brings it."""
    same = sql.SQL(" AND ").join(
        sql.SQL("p.{} = s.{}").format(sql.Identifier(p), sql.Identifier(c))
        for p, c in zip(key.parent_columns, key.child_columns, strict=True)
    )
    own = round_.staged.get(key.parent_oid)
    # Only tables of the feed have rows of the superseded batch.
    counts = sql.SQL("true") if own is None else _counts(round_, sql.SQL("p."))
    yield _NO_PARENT.format(parent=sql.Identifier(*key.parent), same=same, counts=counts)
    if own is not None and set(key.parent_columns) <= own.names:
        kept = _has_not_lost(own, "p") if own.number in contested else sql.SQL("true")
        yield _NO_PARENT.format(parent=own.name, same=same, counts=kept)


def _counts(round_: _Round, prefix: sql.SQL) -> sql.Composable:
    if round_.superseded is None:
        return sql.SQL("true")
    return sql.SQL("{}{} IS DISTINCT FROM {}").format(
        prefix, _STAMP, sql.Literal(round_.superseded)
    )


def _askable(staged: Staged) -> list[UniqueIndex]:
    """Give the unique indexes that the staged columns decide, and what rules hold unique."""
    absent = [c.name for c in staged.source.table.columns if c.name not in staged.names]
    indexes = [
        index
        for index in staged.source.table.unique_indexes
        if not any(name in " ".join([*index.parts, index.predicate or ""]) for name in absent)
    ]
    return indexes + [
        UniqueIndex(
            key.name, tuple(sql.Identifier(name).as_string() for name in key.columns), None,
            key.nulls_equal,
        )
        for key in staged.source.rules.unique
        if not staged.source.server_changed & {*key.columns}
    ]  # fmt: skip


def _judge_taken(round_: _Round, staged: Staged) -> int:
    """Judge what the table has already, and what an index cannot compute its key of."""
    table = staged.source.table
    keys = (*table.unique_keys, *staged.source.rules.unique)
    found, plain = 0, {key.name: {*key.columns} for key in keys}
    upserted = round_.upserts.get(table.oid, ())
    for index in _askable(staged):
        if index.name in plain:
            continue
        computed = _COMPUTED.format(
            covered=_covered(index), parts=sql.SQL(", ").join(map(sql.SQL, index.parts))
        )
        message = f"{index.name} cannot be computed"
        found += note_wrong(round_.connection, staged, computed, "", message, constraint=index.name)
    out = take_out(round_.connection, staged) if found else 0
    found = 0
    for index in _askable(staged):
        if upserted and plain.get(index.name) == {*upserted}:
            continue
        others = [_covered(index), _counts(round_, sql.SQL(""))]
        others += [_is_another(staged, upserted)] if upserted else []
        broken = _TAKEN.format(
            keys=_KEYS.format(
                place=_PLACE, parts=_parts(index), staged=staged.name, covered=_covered(index)
            ),
            complete=_complete(index),
            table=table.identifier,
            same=_same_key(index),
            counts=sql.SQL(" AND ").join(others),
        )
        message = f"the table has a row with the same key already ({_called(staged, index.name)})"
        found += note(round_.connection, staged, broken, UNIQUE, message, constraint=index.name)
    return out + (take_out(round_.connection, staged) if found else 0)


def _is_another(staged: Staged, key: Sequence[str]) -> sql.Composed:
    """Say of a row of the table that it is not the one that the staged row will update."""
    table = staged.source.table.identifier
    return _NOT_SAME.format(
        staged=staged.name,
        place=_PLACE,
        same=sql.SQL(" AND ").join(
            sql.SQL("u.{0} = {1}.{0}").format(sql.Identifier(name), table) for name in key
        ),
    )


def _contest(round_: _Round, staged: Staged) -> bool:
    """Decide who keeps the keys that several rows have: in source order, who has lost none yet.

    Returns:
        Whether there is any such key; then two tables tell those that won, and those that lost.
    """
    indexes = _askable(staged)
    tables = _contest_tables(staged)
    round_.connection.execute(_DROP.format(**tables))
    if not indexes:
        return False
    names = [_key_name(number) for number in range(len(indexes))]
    parts = [
        # A part may raise where the index does not cover a row.
        sql.SQL("CASE WHEN {} THEN {} END AS {}").format(_covered(index), sql.SQL(part), name)
        if index.predicate
        else sql.SQL("{} AS {}").format(sql.SQL(part), name)
        for number, index in enumerate(indexes)
        for part, name in zip(index.parts, _names(index, number), strict=True)
    ]
    parts += [
        sql.SQL("{} IS TRUE AS {}").format(_covered(index), _covered_name(number))
        for number, index in enumerate(indexes)
    ]
    create = _CONTEST.format(
        contest=tables["contest"],
        place=_PLACE,
        staged=staged.name,
        parts=sql.SQL(", ").join(parts),
        names=sql.SQL(", ").join(names),
        keys=sql.SQL(", ").join(
            _KEY.format(
                place=_PLACE,
                name=name,
                covered=_covered_name(number),
                complete=_complete(index, number),
            )
            for number, (index, name) in enumerate(zip(indexes, names, strict=True))
        ),
        windows=sql.SQL(", ").join(
            sql.SQL("{} AS (PARTITION BY {})").format(
                name, sql.SQL(", ").join([_covered_name(number), *_names(index, number)])
            )
            for number, (index, name) in enumerate(zip(indexes, names, strict=True))
        ),
    )
    if not round_.connection.execute(create).rowcount:
        return False
    round_.connection.execute(_WON.format(**tables))
    for name in names:
        unique = sql.SQL("CREATE UNIQUE INDEX ON {} ({})").format(tables["won"], name)
        round_.connection.execute(unique)
    round_.connection.execute(_HOLD.format(**tables, place=_PLACE))
    round_.connection.execute(_ONLY_LOSERS.format(**tables, place=_PLACE))
    for table in tables.values():
        round_.connection.execute(sql.SQL("ANALYZE {}").format(table))
    return True


def _contest_tables(staged: Staged) -> dict[str, sql.Composable]:
    return {
        role: sql.Identifier("pg_temp", f"batch_pipelines_{role}_{staged.number}")
        for role in ("contest", "won")
    }


def _has_not_lost(staged: Staged, row: str) -> sql.Composed:
    contest = _contest_tables(staged)["contest"]
    return _HAS_NOT_LOST.format(contest=contest, place=_PLACE, row=sql.SQL(row))


def _settle(round_: _Round, staged: Staged) -> int:
    """Note those that lost, with every key they lost, and take them out."""
    tables = _contest_tables(staged)
    for number, index in enumerate(_askable(staged)):
        lost = _LOST.format(**tables, place=_PLACE, name=_key_name(number))
        message = f"an earlier record of the batch has the same key ({_called(staged, index.name)})"
        note(round_.connection, staged, lost, UNIQUE, message, constraint=index.name)
    round_.connection.execute(_DROP.format(**tables))
    return take_out(round_.connection, staged)


def _covered(index: UniqueIndex) -> sql.Composed:
    # The predicate is PostgreSQL's own rendering, over columns of the same names.
    return sql.SQL("({})").format(sql.SQL(index.predicate or "true"))


def _key_name(number: int) -> sql.Identifier:
    return sql.Identifier(f"batch_pipelines_key_{number}")


def _covered_name(number: int) -> sql.Identifier:
    return sql.Identifier(f"batch_pipelines_covered_{number}")


def _names(index: UniqueIndex, number: int = 0) -> list[sql.Identifier]:
    return [
        sql.Identifier(f"batch_pipelines_part_{number}_{part}") for part in range(len(index.parts))
    ]


def _parts(index: UniqueIndex) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(sql.SQL(part), name)
        for part, name in zip(index.parts, _names(index), strict=True)
    )


def _complete(index: UniqueIndex, number: int = 0) -> sql.Composable:
    """Say when a key, of a row the index covers, can be like another one."""
    if index.nulls_equal:
        return sql.SQL("true")
    return sql.SQL(" AND ").join(
        sql.SQL("k.{} IS NOT NULL").format(name) for name in _names(index, number)
    )


def _same_key(index: UniqueIndex) -> sql.Composed:
    # Two nulls are equal within an array, and arrays can be hashed, as IS NOT DISTINCT FROM cannot. (An
    # array of arrays does not tell an empty one from a null.)
    same = sql.SQL(
        "ARRAY[{0}] = ARRAY[k.{1}] AND {0} IS NOT DISTINCT FROM k.{1}"
        if index.nulls_equal
        else "{0} = k.{1}"
    )
    return sql.SQL(" AND ").join(
        same.format(sql.SQL(part), name)
        for part, name in zip(index.parts, _names(index), strict=True)
    )
