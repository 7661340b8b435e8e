"""Ruling: what a feed's rules mean to PostgreSQL, and whether stored rows fulfil them.

PostgreSQL alone says what a rule means. All but those of several rows (`unique`, `references`) become
one boolean expression over the columns of a row, which PostgreSQL reads as it reads a CHECK constraint
and gives back in its own rendering. Rows that break a rule are found where they break a constraint, in
`judging`; here the rows of a batch are looked at once more when they are in their table.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, ForeignKey, UniqueKey
from batch_pipelines.engine.errors import BrokenRulesError, FeedError
from batch_pipelines.engine.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.rules import Condition, References

_BOOLEAN = 16  # the OID of type boolean
_TEXTS = frozenset({"text", "character varying", "character", "bpchar", "name"})
_READ_ONLY = "SET LOCAL transaction_read_only = on"
# A line end before the bracket, or a comment at the end would take it along.
_ASK = sql.SQL("SELECT ({expression}\n) FROM {table} WHERE false")
_LIKE = sql.SQL("CREATE TEMPORARY TABLE batch_pipelines_rule (LIKE {table}) ON COMMIT DROP")
_ADD = sql.SQL("""
ALTER TABLE pg_temp.batch_pipelines_rule ADD CONSTRAINT batch_pipelines_rule CHECK ({expression}
)
""")
_READ = """
SELECT pg_get_expr(con.conbin, con.conrelid),
       array(SELECT a.attname FROM unnest(con.conkey) AS k (attnum)
             JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum),
       array(SELECT DISTINCT p.proname FROM pg_proc p WHERE p.provolatile = 'v' AND p.oid IN (
             SELECT found[1]::oid
             FROM regexp_matches(con.conbin::text, ':(?:op)?funcid (\\d+)', 'g') AS found))
FROM pg_constraint con WHERE con.conrelid = 'pg_temp.batch_pipelines_rule'::regclass
"""
_TRY_PATTERN = sql.SQL("SELECT '' ~ {}")
_TRY_KEY = sql.SQL("SELECT FROM {table} WHERE false GROUP BY {columns}")
_TRY_PARENT = sql.SQL("SELECT FROM {table} t JOIN {parent} p ON {same} WHERE false")
_OID = sql.SQL("SELECT {}::regclass::oid::bigint")

_BREAK = sql.SQL("(SELECT count(*) FROM {table} t WHERE {stamped} AND NOT ({expression}))")
_TWICE = sql.SQL("""
(SELECT count(*) FROM {table} t WHERE {stamped} AND EXISTS (
    SELECT FROM {table} o WHERE {same} AND (o.tableoid, o.ctid) <> (t.tableoid, t.ctid)))
""")
_DANGLE = sql.SQL("""
(SELECT count(*) FROM {table} t WHERE {stamped} AND num_nulls({columns}) = 0
 AND NOT EXISTS (SELECT FROM {parent} p WHERE {same}))
""")
_IS_INDEXED = """
SELECT EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = %(oid)s AND i.indpred IS NULL AND i.indisvalid
    AND %(names)s::text[] <@ array(
        SELECT a.attname::text FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE k.place <= cardinality(%(names)s::text[])))
"""
# The planner knows nothing yet of the rows that were just written, takes them for one, and would go
# through a whole table for each of them where no index helps.
_NO_LOOPS, _LOOPS = "SET LOCAL enable_nestloop = off", "RESET enable_nestloop"


@dataclass(frozen=True)
class Question:
    """A condition of a feed, as PostgreSQL has read it.

    Attributes:
        name: Its name.
        expression: SQL over the bare names of columns.
        columns: The columns it looks at.
    """

    name: str
    expression: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Rules:
    """The rules of a feed for one table, as PostgreSQL has read them.

    Attributes:
        checks: Name and SQL expression of each that is about one row.
        unique: Those that demand unique values.
        references: Those that demand a row elsewhere.
        columns: The table's columns that they look at, and that those of other tables refer to.
        critical: What makes a stored row critical; no rule that it has to fulfil.
    """

    checks: tuple[tuple[str, str], ...] = ()
    unique: tuple[UniqueKey, ...] = ()
    references: tuple[ForeignKey, ...] = ()
    columns: frozenset[str] = frozenset()
    critical: tuple[Question, ...] = ()

    @property
    def names(self) -> list[str]:
        """Their names."""
        checks = [name for name, _ in self.checks]
        return checks + [key.name for key in self.unique] + [key.name for key in self.references]


NO_RULES = Rules()


class _WrongRuleError(Exception):
    """A rule does not fit its table; the argument says why."""


def read_rules(
    connection: Connection,
    feed: Feed,
    tables: Iterable[TableInfo],
    place_of: Callable[[Sequence[int | str]], str | None],
) -> dict[str, Rules]:
    """Have PostgreSQL read the rules of a feed.

    Args:
        connection: A connection in autocommit mode.
        feed: The feed.
        tables: Its tables.
        place_of: Says where something of the feed stands in its file, if it has one.

    Returns:
        The rules of each table.

    Raises:
        FeedError: Some do not fit their tables; each is listed, with its place.
    """
    found: dict[str, Rules] = {}
    problems: list[str] = []
    for info in tables:
        index, table = next((n, t) for n, t in enumerate(feed.tables) if t.table == info.full_name)
        found[info.full_name] = Rules()
        asked: list[tuple[str, int, Condition]] = []
        asked += [("rules", n, rule) for n, rule in enumerate(table.rules)]
        asked += [("critical_when", n, each) for n, each in enumerate(table.critical_when)]
        for key, number, each in asked:
            try:
                own = _read(connection, info, each)
            except _WrongRuleError as why:
                place = place_of(("tables", index, key, number, each.kind))
                where = f"Feed {feed.feed}" if place is None else place
                what = "rule" if key == "rules" else "condition"
                problems.append(f"{where}: {what} {each.name} of {info.full_name} {why}")
            else:
                found[info.full_name] = _joined(found[info.full_name], own)
    if problems:
        raise FeedError("\n".join(problems))
    return _with_targets(found)


def _joined(one: Rules, other: Rules) -> Rules:
    return Rules(
        one.checks + other.checks,
        one.unique + other.unique,
        one.references + other.references,
        one.columns | other.columns,
        one.critical + other.critical,
    )


def _with_targets(rules: Mapping[str, Rules]) -> dict[str, Rules]:
    """Add to the columns of each table those that rules of others refer to."""
    found = dict(rules)
    for each in rules.values():
        for key in each.references:
            if (own := found.get(".".join(key.parent))) is not None:
                columns = own.columns | {*key.parent_columns}
                found[".".join(key.parent)] = replace(own, columns=columns)
    return found


def _read(connection: Connection, table: TableInfo, rule: Condition) -> Rules:
    if not isinstance(rule, Rule):
        return Rules(critical=(_question(connection, table, rule),))
    taken = [*(name for name, _ in table.checks), *(index.name for index in table.unique_indexes)]
    taken += [key.name for key in table.parents]
    if rule.name in taken:
        message = "has the name of a constraint of the table. Choose another."
        raise _WrongRuleError(message)
    if rule.unique is not None:
        return _unique(connection, table, rule, rule.unique)
    if rule.references is not None:
        return _references(connection, table, rule, rule.references)
    check = _question(connection, table, rule)
    return Rules(checks=((check.name, check.expression),), columns=frozenset(check.columns))


# Conditions of one row


def _question(connection: Connection, table: TableInfo, rule: Condition) -> Question:
    expression = _expression(table, rule)
    if rule.matches is not None:
        try:
            connection.execute(_TRY_PATTERN.format(sql.Literal(rule.matches.pattern)))
        except psycopg.Error as error:
            message = f"has a pattern that PostgreSQL cannot read ({_state(error)}). Correct it."
            raise _WrongRuleError(message) from None
    with connection.transaction(force_rollback=True):
        _require_one_truth(connection, table, rule, expression)
        connection.execute(_LIKE.format(table=table.identifier))
        try:
            connection.execute(_ADD.format(expression=expression))
        except psycopg.Error as error:
            raise _refused(rule, error) from None
        row = connection.execute(_READ).fetchone()
    rendered, columns, volatile = row or ("", [], [])
    if volatile:
        message = (
            f"calls {volatile[0]}(), whose answer changes from call to call. Whether a row is "
            "good must depend on the row."
        )
        raise _WrongRuleError(message)
    _require_columns(table, columns)
    return Question(rule.name, rendered, tuple(columns))


def _expression(table: TableInfo, rule: Condition) -> sql.Composable:
    if rule.range is not None:
        column, ends = rule.range.column, [(">=", rule.range.min), ("<=", rule.range.max)]
        return sql.SQL(" AND ").join(
            sql.SQL("{} {} {}").format(
                sql.Identifier(column), sql.SQL(sign), _literal(table, column, value)
            )
            for sign, value in ends
            if value is not None
        )
    if rule.among is not None:
        column = rule.among.column
        values = [_literal(table, column, value) for value in rule.among.values]
        return sql.SQL("{} IN ({})").format(sql.Identifier(column), sql.SQL(", ").join(values))
    if rule.matches is not None:
        _require_columns(table, [rule.matches.column])
        return sql.SQL("{}::text ~ {}").format(
            sql.Identifier(rule.matches.column), sql.Literal(rule.matches.pattern)
        )
    # The feed author's own SQL; `_require_one_truth` sees to it that it is an expression and no more.
    return sql.SQL(rule.expression or "")


def _literal(table: TableInfo, column: str, value: object) -> sql.Composed:
    """Write a value of the feed as one of the column's type."""
    _require_columns(table, [column])
    kind = table.column(column).base_type
    if kind in _TEXTS and not isinstance(value, str):
        message = (
            f"has a value for {column}, which is {kind}, that YAML takes for something else "
            f"({type(value).__name__}). Put it in quotes."
        )
        raise _WrongRuleError(message)
    # A type's name comes from PostgreSQL's own format_type, which quotes it.
    return sql.SQL("{}::{}").format(sql.Literal(str(value)), sql.SQL(kind))


def _require_one_truth(
    connection: Connection, table: TableInfo, rule: Condition, expression: sql.Composable
) -> None:
    """Refuse what is not one expression whose value is true, false or null.

    The binary cursor makes psycopg use the extended protocol, which takes one statement alone.
    """
    query = _ASK.format(expression=expression, table=table.identifier)
    try:
        with connection.transaction(), connection.cursor(binary=True) as cursor:
            connection.execute(_READ_ONLY)
            cursor.execute(query)
            kinds = [column.type_code for column in cursor.description or ()]
    except psycopg.Error as error:
        before = len(_ASK.as_string().partition("{")[0]) if rule.expression else None
        raise _refused(rule, error, before) from None
    if kinds != [_BOOLEAN]:
        message = "has an expression that is not true or false. Make a comparison of it."
        raise _WrongRuleError(message)


def _refused(rule: Condition, error: psycopg.Error, before: int | None = None) -> _WrongRuleError:
    near = ""
    if before is not None and rule.expression and error.diag.statement_position:
        at = int(error.diag.statement_position) - 1 - before
        near = f" near `{rule.expression[max(at, 0) : at + 30].strip()}`" if at >= 0 else ""
    message = f"is refused by PostgreSQL{near} ({_state(error)}). " + (
        "It looks at the columns of a row, by their bare names: no sub-selects, no aggregates."
        if rule.expression
        else "Its values must be of the column's type."
    )
    return _WrongRuleError(message)


def _state(error: psycopg.Error) -> str:
    """Name an error by its code and the name that PostgreSQL's manual has for it."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{error.sqlstate}, {words}"


def _require_columns(table: TableInfo, names: Iterable[str]) -> None:
    known = {column.name: column for column in table.columns}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
            message = f"looks at {name}, which is no column of the table to be delivered; {hint}"
            raise _WrongRuleError(message)
        if known[name].computed:
            message = (
                f"looks at {name}, which PostgreSQL computes. Say it of the columns it comes from."
            )
            raise _WrongRuleError(message)


# Rules of several rows


def _unique(
    connection: Connection, table: TableInfo, rule: Rule, columns: tuple[str, ...]
) -> Rules:
    _require_columns(table, columns)
    try:
        connection.execute(_TRY_KEY.format(table=table.identifier, columns=_listed(columns)))
    except psycopg.Error as error:
        raise _refused(rule, error) from None
    key = UniqueKey(rule.name, columns, primary=False, nulls_equal=False)
    return Rules(unique=(key,), columns=frozenset(columns))


def _references(connection: Connection, table: TableInfo, rule: Rule, said: References) -> Rules:
    _require_columns(table, said.columns)
    schema, name = said.table.split(".")
    parent = sql.Identifier(schema, name)
    key = ForeignKey(
        rule.name, table.oid, 0, (table.schema, table.name), (schema, name), "a", "a",
        said.columns, said.table_columns or said.columns,
    )  # fmt: skip
    query = _TRY_PARENT.format(table=table.identifier, parent=parent, same=_same(key))
    try:
        connection.execute(query)
        row = connection.execute(_OID.format(sql.Literal(parent.as_string(connection)))).fetchone()
    except psycopg.Error as error:
        message = (
            f"cannot look for {', '.join(key.parent_columns)} in {said.table} ({_state(error)}). "
            "Name a table that may be read, and columns of the same types."
        )
        raise _WrongRuleError(message) from None
    found = replace(key, parent_oid=int(row[0]) if row else 0)
    return Rules(references=(found,), columns=frozenset(said.columns))


def _listed(columns: Iterable[str], row: str = "") -> sql.Composed:
    prefix = (row,) if row else ()
    return sql.SQL(", ").join(sql.Identifier(*prefix, name) for name in columns)


def _same(key: ForeignKey) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("p.{} = t.{}").format(sql.Identifier(p), sql.Identifier(c))
        for p, c in zip(key.parent_columns, key.child_columns, strict=True)
    )


# Stored rows


def broken_rules(
    connection: Connection, table: TableInfo, rules: Rules, batch_id: str
) -> dict[str, int]:
    """Count the stored rows of a batch that break rules; called inside the publish transaction.

    Args:
        connection: The publishing connection.
        table: The table.
        rules: Its rules.
        batch_id: The batch.

    Returns:
        How many rows break which rules, by the rules' names; those of one row together.

    Raises:
        psycopg.Error: An expression cannot be computed of some row.
    """
    asked = dict(_questions(table, rules, batch_id))
    if not asked:
        return {}
    lookups = [(table.oid, key.columns) for key in rules.unique]
    lookups += [(key.parent_oid, key.parent_columns) for key in rules.references]
    if not all(_is_indexed(connection, *each) for each in lookups):
        connection.execute(_NO_LOOPS)
    query = sql.SQL("SELECT {}").format(sql.SQL(", ").join(asked.values()))
    row = connection.execute(query).fetchone() or ()
    connection.execute(_LOOPS)
    return {name: int(count) for name, count in zip(asked, row, strict=True) if count}


def refuse_broken(found: Mapping[str, int], before: Mapping[str, int], table: TableInfo) -> None:
    """Refuse to go on where rows of a batch break rules.

    Args:
        found: What `broken_rules` counted.
        before: What it had counted before anything was written.
        table: The table.

    Raises:
        BrokenRulesError: There are more than before.
    """
    more = {name: count for name, count in found.items() if count > before.get(name, 0)}
    if more:
        broken = "; ".join(f"{count} the rule {name}" for name, count in more.items())
        message = (
            f"{table.full_name}: rows break rules of the feed as they are stored: {broken}; nothing "
            "was written. If it happens again, a trigger of the table may change them."
        )
        raise BrokenRulesError(message)


def _questions(table: TableInfo, rules: Rules, batch_id: str) -> Iterator[tuple[str, sql.Composed]]:
    own = {
        "table": table.identifier,
        "stamped": sql.SQL("t.{} = {}").format(sql.Identifier(STAMP), sql.Literal(batch_id)),
    }
    if rules.checks:
        # The expressions are PostgreSQL's own renderings. True unless one of them is false: null passes.
        every = sql.SQL(" AND ").join(
            sql.SQL("(({}) IS NOT FALSE)").format(sql.SQL(expression))
            for _, expression in rules.checks
        )
        yield " or ".join(name for name, _ in rules.checks), _BREAK.format(**own, expression=every)
    for unique in rules.unique:
        same = sql.SQL(" AND ").join(
            sql.SQL("o.{0} = t.{0}").format(sql.Identifier(name)) for name in unique.columns
        )
        yield unique.name, _TWICE.format(**own, same=same)
    for key in rules.references:
        yield (
            key.name,
            _DANGLE.format(
                **own,
                columns=_listed(key.child_columns, "t"),
                parent=sql.Identifier(*key.parent),
                same=_same(key),
            ),
        )


def _is_indexed(connection: Connection, oid: int, columns: Sequence[str]) -> bool:
    row = connection.execute(_IS_INDEXED, {"oid": oid, "names": [*columns]}).fetchone()
    return bool(row and row[0])
