"""`db adopt`: an import history of another system, taken over while it is in use.

Each row gets a `batch_id`: its job id if that is a UUID, else the name-based UUID of it. A trigger gives
one to the rows that the other system goes on to write. Then it is made unique and not null, and the jobs
that have ended become batches of the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from batch_pipelines.engine.adoption import filling, records
from batch_pipelines.engine.adoption.histories import (
    BATCH_ID,
    History,
    pending,
    read_history,
    require_known_words,
    take_over,
)
from batch_pipelines.engine.adoption.indexes import ensure_unique_index, unique_index
from batch_pipelines.engine.adoption.relations import alone, find_column, has_trigger
from batch_pipelines.engine.adoption.rows import write_down_rows
from batch_pipelines.engine.adoption.short_locks import Pace, in_short_lock, patiently, refused
from batch_pipelines.engine.adoption.steps import (
    NOTHING,
    ONLINE,
    ROWS,
    SHORT,
    SHORT_SHARE,
    Step,
    take,
)
from batch_pipelines.engine.errors import AdoptionError
from batch_pipelines.engine.failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_pipelines.engine.adoption.records import Options
    from batch_pipelines.engine.adoption.relations import Existing, Relation
    from batch_pipelines.engine.postgres.database import Connection, Database

_NOTHING_SAID = records.Options()
_ADD = sql.SQL("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} uuid")
_CONSTRAIN = sql.SQL("ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {index}")
_ADD_CHECK = sql.SQL(
    "ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID"
)
_VALIDATE = sql.SQL("ALTER TABLE {table} VALIDATE CONSTRAINT {check}")
_SET_NOT_NULL = sql.SQL("ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL")
_DROP_CHECK = sql.SQL("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check}")
_CHECK = "batch_pipelines_batch_id_not_null"
_HAS_CHECK = "SELECT FROM pg_constraint WHERE conrelid = %s AND conname = %s"
_PRIMARY_KEY = """
SELECT a.attname FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY k (n, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n
WHERE i.indrelid = %s AND i.indisprimary ORDER BY k.place
"""
# With every id the rows that have it; of an id that stands thousands of times, not all.
_TWICE = sql.SQL("""
SELECT min({job_id}::text), count(*), (array_agg({key} ORDER BY {key}))[1:10]
FROM {table} WHERE {batch_id} IN (
    SELECT {batch_id} FROM {table} WHERE {batch_id} IS NOT NULL GROUP BY 1 HAVING count(*) > 1
    ORDER BY 1 LIMIT 20)
GROUP BY {batch_id} ORDER BY 1
""")
_WITHOUT = sql.SQL("SELECT {key} FROM {table} WHERE {batch_id} IS NULL LIMIT 10")
# Of a batch id of a text type, one that is no UUID and the UUID of it may both be there.
_TEXT_OF = sql.SQL("batch_audit.batch_id_of({}::text)")


@dataclass(frozen=True)
class Adopted:
    """A history after `db adopt`, or before it.

    Attributes:
        table: Its name.
        feed: Feed of its batches in the ledger.
        columns: Its column for each meaning.
        steps: What was done or would be, each with what it locks.
        batches: How many of its jobs became batches this time.
        unfinished: How many of its jobs have not ended; another `db adopt` takes them over.
    """

    table: str
    feed: str
    columns: dict[str, str]
    steps: tuple[tuple[str, str], ...]
    batches: int
    unfinished: int


def adopt(
    database: Database,
    name: str,
    options: Options = _NOTHING_SAID,
    *,
    by: str,
    dry_run: bool = False,
    pace: Pace | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Adopted:
    """Take over an import history, while others read and write it.

    Args:
        database: The target database.
        name: The table's name with schema.
        options: How it is to be read, beside what was said the last time.
        by: Who asks for it.
        dry_run: Whether to say what would be done, and do nothing.
        pace: How often to try for a lock, and how long.
        tell: Told each step.

    Returns:
        What was done.

    Raises:
        AdoptionError: It is no import history; an id stands twice or is missing; PostgreSQL refuses.
        BusyError: A lock could not be had.
    """
    pace = pace or Pace()
    with alone(database, name, pace) as (connection, relation):
        before = records.adopted(connection, name)
        said = options.over(before[0].options) if before else options
        history = read_history(connection, relation, said)
        require_known_words(connection, history)
        steps = steps_to_adopt(connection, history, pace=pace, tell=tell)
        batches = unfinished = 0
        if not dry_run:
            _write_down(connection, relation, said, by)
            take(steps, name, tell)
            require_known_words(connection, history)
            with connection.transaction(), refused(relation, "write its jobs into the ledger"):
                batches = take_over(connection, history)
                records.end_adoption(connection, name)
                failpoint("adoption.taken_over", None)
            write_down_rows(connection)
            unfinished = pending(connection, history)[1]
        return Adopted(
            name,
            history.options.feed,
            dict(history.options.columns),
            (
                *((step.what, step.locks) for step in steps),
                ("write the jobs that have ended into the ledger", NOTHING),
            ),
            batches,
            unfinished,
        )


def steps_to_adopt(
    connection: Connection,
    history: History,
    *,
    pace: Pace,
    tell: Callable[[str], None],
) -> tuple[Step, ...]:
    """Find out what is left to do to a history's table.

    Args:
        connection: A connection in autocommit mode.
        history: The history.
        pace: How often to try.
        tell: Told how far a longer step is.

    Returns:
        The steps.

    Raises:
        AdoptionError: It has partitions, or a `batch_id` that cannot be used.
    """
    relation = history.relation
    table, column = relation.identifier, sql.Identifier(BATCH_ID)
    columns = {"source": history.job_id, "target": BATCH_ID}
    found = find_column(connection, relation, BATCH_ID)
    _check(relation, found)

    def add() -> None:
        statement = _ADD.format(table=table, column=column)
        in_short_lock(connection, relation, [statement], what="add the column", pace=pace)

    def follow() -> None:
        filling.keep_filled(connection, relation, **columns, always=False, pace=pace)

    steps = []
    if found is None:
        steps.append(Step(f"add the column {BATCH_ID} uuid", SHORT, add))
    if not has_trigger(connection, relation, filling.trigger_name(BATCH_ID)):
        what = f"have a trigger fill it from {history.job_id} from now on"
        steps.append(Step(what, SHORT_SHARE, follow))
    if found is None or not found.not_null:
        what = f"fill it in the rows that are there, from {history.job_id}"
        steps.append(
            Step(
                what,
                ROWS,
                lambda: filling.fill(connection, relation, **columns, pace=pace, tell=tell),
            )
        )
    what = "look for ids that stand twice or are missing"
    steps.append(Step(what, NOTHING, lambda: _require_ids(connection, history), only_looks=True))
    unique = None if found is None else unique_index(connection, relation, BATCH_ID)
    if unique is None:
        steps.append(
            Step(
                "build a unique index on it concurrently",
                ONLINE,
                lambda: _build_unique(connection, history, pace),
            )
        )
    if unique is None or not unique.constraint:
        what = "make a unique constraint of the index"
        steps.append(Step(what, SHORT, lambda: _constrain(connection, relation, pace)))
    if found is None or not found.not_null:
        what = "make it NOT NULL: a check that is not valid yet, validated, and then needed no more"
        steps.append(Step(what, f"{SHORT}; to validate, {ONLINE}",
                          lambda: _set_not_null(connection, relation, pace)))  # fmt: skip
    elif connection.execute(_HAS_CHECK, (relation.oid, _CHECK)).fetchone() is not None:
        what = "drop the check that made it NOT NULL"
        steps.append(Step(what, SHORT, lambda: _drop_check(connection, relation, pace)))
    return tuple(steps)


def _write_down(connection: Connection, relation: Relation, options: Options, by: str) -> None:
    found = find_column(connection, relation, BATCH_ID)
    unique = None if found is None else unique_index(connection, relation, BATCH_ID)
    records.start_adoption(
        connection,
        relation.full_name,
        options,
        had_column=found is not None,
        had_unique=unique is not None,
        had_not_null=found is not None and found.not_null,
        by=by,
    )
    failpoint("adoption.recorded", None)


def _check(relation: Relation, found: Existing | None) -> None:
    if relation.partitioned:
        message = (
            f"{relation.full_name} has partitions, in which no column can be unique that they are not "
            "made by. Copy it into a table without, and adopt that."
        )
        raise AdoptionError(message)
    if found is None or (found.kind != "other" and not found.filled):
        return
    what = "has a default" if found.filled else f"is of type {found.type_name}"
    message = (
        f"{relation.full_name}.{BATCH_ID} {what}; expected uuid or a text type, and no default. Rename "
        "the column or drop its default, and try again."
    )
    raise AdoptionError(message)


def _require_ids(connection: Connection, history: History) -> None:
    """Stop where a job id stands in two rows, or in none; rows are named by their key."""
    relation = history.relation
    names = [name for (name,) in connection.execute(_PRIMARY_KEY, (relation.oid,)).fetchall()]
    key = sql.SQL("concat_ws(', ', {})").format(
        sql.SQL(", ").join(
            sql.SQL("{} || {}::text").format(sql.Literal(f"{name}="), sql.Identifier(name))
            for name in names or ["ctid"]
        )
    )
    batch_id: sql.Composable = sql.Identifier(BATCH_ID)
    if history.is_text:
        batch_id = _TEXT_OF.format(batch_id)
    parts = {"table": relation.identifier, "batch_id": batch_id, "key": key}
    twice = connection.execute(
        _TWICE.format(job_id=sql.Identifier(history.job_id), **parts)
    ).fetchall()
    without = [row for (row,) in connection.execute(_WITHOUT.format(**parts)).fetchall()]
    problems = [
        f"{history.job_id} {job_id} stands in {count} rows ({'; '.join(rows)}"
        f"{' ...' if count > len(rows) else ''})"
        for job_id, count, rows in twice
    ]
    if without:
        problems.append(f"{history.job_id} is missing in rows ({'; '.join(without)})")
    if problems:
        message = (
            f"{relation.full_name}: {'; '.join(problems)}. Each job needs an id of its own: mend "
            f"or delete these rows (with a new {history.job_id}, set {BATCH_ID} to NULL), and type the "
            "same command again."
        )
        raise AdoptionError(message)


def _build_unique(connection: Connection, history: History, pace: Pace) -> None:
    try:
        ensure_unique_index(connection, history.relation, BATCH_ID, pace)
    except AdoptionError:
        # An id that was written twice since they were looked at is the likeliest reason: it is named.
        _require_ids(connection, history)
        raise


def _constrain(connection: Connection, relation: Relation, pace: Pace) -> None:
    index = unique_index(connection, relation, BATCH_ID)
    if index is None or index.constraint:
        return
    statement = _CONSTRAIN.format(
        table=relation.identifier,
        name=sql.Identifier(index.name),
        index=sql.Identifier(index.name),
    )
    in_short_lock(connection, relation, [statement], what="add the constraint", pace=pace)


def _set_not_null(connection: Connection, relation: Relation, pace: Pace) -> None:
    parts = {
        "table": relation.identifier,
        "check": sql.Identifier(_CHECK),
        "column": sql.Identifier(BATCH_ID),
    }
    what = "make the column NOT NULL"
    # Made anew where an earlier try left one: whether that one was validated is then no question.
    add = [_DROP_CHECK.format(**parts), _ADD_CHECK.format(**parts)]
    in_short_lock(connection, relation, add, what=what, pace=pace)
    failpoint("adoption.check_added", None)
    try:
        with patiently(connection), refused(relation, "find every batch_id filled"):
            connection.execute(_VALIDATE.format(**parts))
    except psycopg.errors.QueryCanceled:
        message = f"{relation.full_name}: the check was interrupted. Type the same command again."
        raise AdoptionError(message) from None
    failpoint("adoption.check_validated", None)
    # PostgreSQL takes the validated check for proof and does not read the table again.
    in_short_lock(connection, relation, [_SET_NOT_NULL.format(**parts)], what=what, pace=pace)
    failpoint("adoption.not_null", None)
    _drop_check(connection, relation, pace)


def _drop_check(connection: Connection, relation: Relation, pace: Pace) -> None:
    statement = _DROP_CHECK.format(table=relation.identifier, check=sql.Identifier(_CHECK))
    in_short_lock(connection, relation, [statement], what="drop the check", pace=pace)
