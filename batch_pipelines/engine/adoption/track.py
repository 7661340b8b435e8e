"""`db track`: a nullable, indexed stamp for a table that is in use.

The column is added without a default, so that no row is written; rows typed in by hand, and all that are
there already, have none. A stamp of a text type, as other systems have it, is recognised, and converted
when asked to: a uuid beside it is kept filled by a trigger, filled for the old rows, and takes its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.adoption import filling, records
from batch_pipelines.engine.adoption.indexes import ensure_index, is_indexed
from batch_pipelines.engine.adoption.relations import alone, find_column, has_trigger
from batch_pipelines.engine.adoption.rows import write_down_rows
from batch_pipelines.engine.adoption.short_locks import Pace, in_short_lock
from batch_pipelines.engine.adoption.steps import ONLINE, ROWS, SHORT, SHORT_SHARE, Step, take
from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.errors import AdoptionError
from batch_pipelines.engine.failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_pipelines.engine.adoption.relations import Existing, Relation
    from batch_pipelines.engine.postgres.database import Connection, Database

OLD_STAMP = f"{STAMP}_text"
"""What a converted stamp is called afterwards."""
NEW_STAMP = f"{STAMP}_uuid"
"""What the new one is called until it takes the place of the old."""
_ADD = sql.SQL("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column} uuid")
_RENAME = sql.SQL("ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
_ADDING = "add the column"


@dataclass(frozen=True)
class Tracked:
    """A table after `db track`, or before it.

    Attributes:
        table: Its name.
        stamp_type: Type of its stamp; None where there is none yet.
        ready: Whether feeds can write it: its stamp is a uuid, and indexed.
        steps: What is left to do, or was done, each with what it locks.
    """

    table: str
    stamp_type: str | None
    ready: bool
    steps: tuple[tuple[str, str], ...]


def track(
    database: Database,
    name: str,
    *,
    by: str,
    convert: bool = False,
    dry_run: bool = False,
    pace: Pace | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Tracked:
    """Give a table a stamp, while others read and write it.

    Args:
        database: The target database.
        name: The table's name with schema.
        by: Who asks for it.
        convert: Whether a stamp of a text type is made a uuid.
        dry_run: Whether to say what would be done, and do nothing.
        pace: How often to try for a lock, and how long.
        tell: Told each step.

    Returns:
        The table as it is now, with the steps that were taken or would be.

    Raises:
        AdoptionError: The table cannot be tracked; or PostgreSQL refuses.
        BusyError: A lock could not be had.
    """
    pace = pace or Pace()
    with alone(database, name, pace) as (connection, relation):
        steps = steps_to_track(connection, relation, convert=convert, pace=pace, tell=tell)
        if not dry_run:
            records.start_tracking(
                connection,
                name,
                had_column=find_column(connection, relation, STAMP) is not None,
                had_index=is_indexed(connection, relation, STAMP),
                by=by,
            )
            failpoint("adoption.recorded", None)
            take(steps, name, tell)
            records.end_tracking(connection, name)
            write_down_rows(connection)
        stamp = find_column(connection, relation, STAMP)
        ready = (
            stamp is not None and stamp.kind == "uuid" and is_indexed(connection, relation, STAMP)
        )
        type_name = None if stamp is None else stamp.type_name
        return Tracked(name, type_name, ready, tuple((step.what, step.locks) for step in steps))


def steps_to_track(
    connection: Connection,
    relation: Relation,
    *,
    convert: bool,
    pace: Pace,
    tell: Callable[[str], None],
) -> tuple[Step, ...]:
    """Find out what is left to do until a table is tracked.

    Args:
        connection: A connection in autocommit mode.
        relation: The table.
        convert: Whether a stamp of a text type is made a uuid.
        pace: How often to try.
        tell: Told how far a longer step is.

    Returns:
        The steps.

    Raises:
        AdoptionError: There is a column of that name that cannot be used.
    """
    stamp = find_column(connection, relation, STAMP)
    _check(relation, stamp)
    if stamp is not None and stamp.kind == "text" and convert:
        return _steps_to_convert(connection, relation, stamp, pace, tell)

    def add() -> None:
        statement = _ADD.format(table=relation.identifier, column=sql.Identifier(STAMP))
        in_short_lock(connection, relation, [statement], what=_ADDING, pace=pace)

    steps = []
    if stamp is None:
        steps.append(Step(f"add the column {STAMP} uuid, null in every row", SHORT, add))
    if stamp is None or not is_indexed(connection, relation, STAMP):
        steps.append(_index_step(connection, relation, STAMP, pace))
    return tuple(steps)


def _check(relation: Relation, stamp: Existing | None) -> None:
    """Refuse a stamp that has another meaning than ours."""
    if stamp is None:
        return
    column = f"{relation.full_name}.{STAMP}"
    if stamp.kind == "other":
        message = (
            f"{column} is of type {stamp.type_name}; expected uuid, or a text type that holds ids. "
            "Rename that column if it means something else, and try again."
        )
        raise AdoptionError(message)
    table = relation.identifier.as_string()
    if stamp.not_null:
        message = (
            f"{column} is NOT NULL, so that rows typed in by hand would have to claim a batch. Type "
            f"ALTER TABLE {table} ALTER COLUMN {STAMP} DROP NOT NULL, and try again."
        )
        raise AdoptionError(message)
    if stamp.filled:
        message = (
            f"{column} has a default, so that rows typed in by hand would claim a batch. Type "
            f"ALTER TABLE {table} ALTER COLUMN {STAMP} DROP DEFAULT (or DROP EXPRESSION), and try again."
        )
        raise AdoptionError(message)


def _index_step(connection: Connection, relation: Relation, column: str, pace: Pace) -> Step:
    how = (
        "on each partition, concurrently, and attach it" if relation.partitioned else "concurrently"
    )
    return Step(
        f"build an index on {column} {how}",
        ONLINE,
        lambda: ensure_index(connection, relation, column, pace),
    )


def _steps_to_convert(
    connection: Connection,
    relation: Relation,
    stamp: Existing,
    pace: Pace,
    tell: Callable[[str], None],
) -> tuple[Step, ...]:
    table, new = relation.identifier, sql.Identifier(NEW_STAMP)
    columns = {"source": STAMP, "target": NEW_STAMP}
    beside = find_column(connection, relation, NEW_STAMP)

    def add() -> None:
        add_column = _ADD.format(table=table, column=new)
        in_short_lock(connection, relation, [add_column], what=_ADDING, pace=pace)

    def follow() -> None:
        filling.keep_filled(connection, relation, **columns, always=True, pace=pace)

    def swap() -> None:
        statements = [
            filling.drop_trigger(relation, NEW_STAMP),
            _RENAME.format(table=table, old=sql.Identifier(STAMP), new=sql.Identifier(OLD_STAMP)),
            _RENAME.format(table=table, old=new, new=sql.Identifier(STAMP)),
        ]
        in_short_lock(connection, relation, statements, what="swap the columns", pace=pace)

    steps = []
    if beside is None:
        steps.append(Step(f"add a column {NEW_STAMP} uuid", SHORT, add))
    if not has_trigger(connection, relation, filling.trigger_name(NEW_STAMP)):
        steps.append(Step("have a trigger fill it from now on", SHORT_SHARE, follow))
    return (
        *steps,
        Step(
            f"fill it in the rows that have a stamp of type {stamp.type_name}",
            ROWS,
            lambda: filling.fill(connection, relation, **columns, pace=pace, tell=tell),
        ),
        _index_step(connection, relation, NEW_STAMP, pace),
        Step(f"call it {STAMP}, and the old one {OLD_STAMP}", SHORT, swap),
    )
