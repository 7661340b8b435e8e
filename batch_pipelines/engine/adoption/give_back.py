"""`db untrack`: a table or a history as it was before we came; all of them, for `db downgrade`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.adoption import filling, records
from batch_pipelines.engine.adoption.histories import BATCH_ID, read_history, rolled_back_here
from batch_pipelines.engine.adoption.indexes import drop_indexes, unique_index
from batch_pipelines.engine.adoption.relations import alone, find_column
from batch_pipelines.engine.adoption.short_locks import Pace, in_short_lock
from batch_pipelines.engine.adoption.track import NEW_STAMP, OLD_STAMP
from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.errors import AdoptionError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger.batch_events import tell_of_many

if TYPE_CHECKING:
    from batch_pipelines.engine.adoption.records import AdoptedRecord, TrackedRecord
    from batch_pipelines.engine.adoption.relations import Relation
    from batch_pipelines.engine.postgres.database import Connection, Database

_DROP_COLUMN = sql.SQL("ALTER TABLE {table} DROP COLUMN IF EXISTS {column}")
_RENAME = sql.SQL("ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
_DROP_NOT_NULL = sql.SQL("ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL")
_DROP_CONSTRAINT = sql.SQL("ALTER TABLE {table} DROP CONSTRAINT {name}")
_STAMPED = sql.SQL("SELECT count(*) FROM {table} WHERE {lost}")
_FORGET_BATCHES = """
DELETE FROM batch_audit.import_history WHERE adopted_from = %s RETURNING batch_id::text
"""


def give_back(
    database: Database,
    name: str,
    *,
    drop_stamps: bool = False,
    keep_column: bool = False,
    pace: Pace | None = None,
) -> None:
    """Take back what `db track` or `db adopt` did to a table.

    Args:
        database: The target database.
        name: The table's name with schema.
        drop_stamps: Whether stamps of rows may be lost with the column.
        keep_column: Whether to leave the table as it is, and only forget it.
        pace: How often to try for a lock, and how long.

    Raises:
        AdoptionError: It was neither tracked nor adopted; or stamps, or the word of a rollback, would be
            lost.
        BusyError: A lock could not be had.
    """
    pace = pace or Pace()
    with database.connect("untrack") as connection:
        tracked = records.tracked(connection, name)
        adopted = records.adopted(connection, name)
        if not tracked and not adopted:
            message = (
                f"{name} is neither tracked nor adopted. `batch-pipelines db status` lists what is."
            )
            raise AdoptionError(message)
        if keep_column:
            records.forget_tracking(connection, name)
            if adopted:
                _forget_adoption(connection, adopted[0])
            return
    with alone(database, name, pace) as (connection, relation):
        for record in tracked:
            _untrack(connection, relation, record, pace, drop_stamps=drop_stamps)
        for history in adopted:
            _unadopt(connection, relation, history, pace)


def give_all_back(database: Database, *, pace: Pace | None = None) -> None:
    """Take back everything, before the ledger that knows of it goes.

    Args:
        database: The target database.
        pace: How often to try for a lock, and how long.

    Raises:
        AdoptionError: Stamps would be lost; the table is named, and nothing of it is changed.
        BusyError: A lock could not be had.
    """
    with database.connect("untrack") as connection:
        if not records.are_kept(connection):
            return
        names = [record.table_name for record in records.tracked(connection)]
        names += [record.table_name for record in records.adopted(connection)]
    for name in dict.fromkeys(names):
        give_back(database, name, pace=pace)


def _untrack(
    connection: Connection,
    relation: Relation,
    record: TrackedRecord,
    pace: Pace,
    *,
    drop_stamps: bool,
) -> None:
    table, stamp = relation.identifier, sql.Identifier(STAMP)
    statements = [
        filling.drop_trigger(relation, NEW_STAMP),
        _DROP_COLUMN.format(table=table, column=sql.Identifier(NEW_STAMP)),
    ]
    found = find_column(connection, relation, STAMP)
    old = find_column(connection, relation, OLD_STAMP)
    converted = record.had_column and old is not None and found is not None and found.kind == "uuid"
    if found is not None and (converted or not record.had_column):
        lost = sql.SQL("{} IS NOT NULL").format(stamp)
        if converted:
            lost += sql.SQL(" AND {} IS NULL").format(sql.Identifier(OLD_STAMP))
        _require_no_stamps(connection, relation, lost, drop_stamps=drop_stamps)
        statements.append(_DROP_COLUMN.format(table=table, column=stamp))
    if converted:
        statements.append(_RENAME.format(table=table, old=sql.Identifier(OLD_STAMP), new=stamp))
    in_short_lock(connection, relation, statements, what="take the column back", pace=pace)
    failpoint("adoption.given_back", None)
    if record.had_column and not converted and not record.had_index:
        drop_indexes(connection, relation, STAMP, pace)
    records.forget_tracking(connection, relation.full_name)


def _require_no_stamps(
    connection: Connection, relation: Relation, lost: sql.Composable, *, drop_stamps: bool
) -> None:
    query = _STAMPED.format(table=relation.identifier, lost=lost)
    ((stamps,),) = connection.execute(query).fetchall()
    if stamps and not drop_stamps:
        name = relation.full_name
        message = (
            f"{name}: {stamps:,} rows carry the id of the batch that wrote them, which would be lost, "
            "and with it the way to take those batches back. To drop them all the same: "
            f"`batch-pipelines db untrack {name} --drop-stamps`; to leave the table as it is: "
            "`--keep-column`."
        )
        raise AdoptionError(message)


def _unadopt(connection: Connection, relation: Relation, record: AdoptedRecord, pace: Pace) -> None:
    _require_not_rolled_back(connection, relation, record)
    table, column = relation.identifier, sql.Identifier(BATCH_ID)
    statements = [filling.drop_trigger(relation, BATCH_ID)]
    unique = unique_index(connection, relation, BATCH_ID)
    if not record.had_column:
        statements.append(_DROP_COLUMN.format(table=table, column=column))
    else:
        if not record.had_not_null:
            statements.append(_DROP_NOT_NULL.format(table=table, column=column))
        if not record.had_unique and unique is not None and unique.constraint:
            drop = _DROP_CONSTRAINT.format(table=table, name=sql.Identifier(unique.name))
            statements.append(drop)
    in_short_lock(connection, relation, statements, what="take the column back", pace=pace)
    failpoint("adoption.given_back", None)
    _forget_adoption(connection, record)


def _forget_adoption(connection: Connection, record: AdoptedRecord) -> None:
    with connection.transaction():
        gone = connection.execute(_FORGET_BATCHES, (record.table_name,)).fetchall()
        tell_of_many(connection, [batch_id for (batch_id,) in gone], "given_back")
        records.forget_adoption(connection, record.table_name)


def _require_not_rolled_back(
    connection: Connection, relation: Relation, record: AdoptedRecord
) -> None:
    if find_column(connection, relation, BATCH_ID) is None:
        return
    history = read_history(connection, relation, record.options)
    count = rolled_back_here(connection, history)
    if count:
        message = (
            f"{record.table_name}: {count} of its batches were rolled back here, which it does not "
            f"know itself. Set its {history.options.columns['status']} to rolled_back for them, and "
            "try again."
        )
        raise AdoptionError(message)
