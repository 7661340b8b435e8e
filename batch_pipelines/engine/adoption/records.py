"""What the ledger keeps of tables that were tracked and histories that were adopted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from batch_pipelines.engine.postgres.database import Connection

FIRST_REVISION = "0007"
"""Revision of the ledger that these tables came with."""

_IS_THERE = "SELECT to_regclass('batch_audit.tracked_table') IS NOT NULL"
_TRACKED = """
SELECT table_name, had_column, had_index, started_at, completed_at FROM batch_audit.tracked_table
WHERE table_name = %(name)s OR %(name)s::text IS NULL ORDER BY table_name
"""
_TRACK = """
INSERT INTO batch_audit.tracked_table (table_name, had_column, had_index, requested_by)
VALUES (%s, %s, %s, %s) ON CONFLICT (table_name) DO UPDATE SET completed_at = NULL
"""
_TRACKING_DONE = """
UPDATE batch_audit.tracked_table SET completed_at = clock_timestamp() WHERE table_name = %s
"""
_ADOPTED = """
SELECT table_name, options, had_column, had_unique, had_not_null, started_at, completed_at
FROM batch_audit.adopted_history
WHERE table_name = %(name)s OR %(name)s::text IS NULL ORDER BY table_name
"""
_ADOPT = """
INSERT INTO batch_audit.adopted_history
    (table_name, options, had_column, had_unique, had_not_null, requested_by)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (table_name) DO UPDATE SET options = excluded.options, completed_at = NULL
"""
_ADOPTION_DONE = """
UPDATE batch_audit.adopted_history SET completed_at = clock_timestamp() WHERE table_name = %s
"""
_FORGET_TRACKED = """
WITH forgotten AS (DELETE FROM batch_audit.tracked_table WHERE table_name = %(name)s)
DELETE FROM batch_audit.batch_table b USING batch_audit.import_history h
WHERE b.target_table = %(name)s AND h.batch_id = b.batch_id AND h.adopted_from IS NOT NULL
"""
_FORGET_ADOPTED = "DELETE FROM batch_audit.adopted_history WHERE table_name = %s"


@dataclass(frozen=True)
class TrackedRecord:
    """A table that was tracked, and what it had of a stamp before."""

    table_name: str
    had_column: bool
    had_index: bool
    started_at: dt.datetime
    completed_at: dt.datetime | None


@dataclass(frozen=True)
class Options:
    """How an import history is to be read.

    Attributes:
        columns: Its column for each meaning: job_id, status, started_at ...
        states: State of the ledger for each of its words, in lower case, beyond those known.
        feed: Feed of the batches that are taken over; empty where nothing was said of it.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    feed: str = ""

    def over(self, before: Options) -> Options:
        """Say what holds where more is said than before."""
        return Options(
            {**before.columns, **self.columns},
            {**before.states, **self.states},
            self.feed or before.feed,
        )


@dataclass(frozen=True)
class AdoptedRecord:
    """A history that was adopted, and what it had of a batch id before."""

    table_name: str
    options: Options
    had_column: bool
    had_unique: bool
    had_not_null: bool
    started_at: dt.datetime
    completed_at: dt.datetime | None


def are_kept(connection: Connection) -> bool:
    """Say whether the ledger is new enough to have these tables."""
    return connection.execute(_IS_THERE).fetchone() == (True,)


def tracked(connection: Connection, name: str | None = None) -> list[TrackedRecord]:
    """Read the tables that were tracked, or the one of a name."""
    with connection.cursor(row_factory=class_row(TrackedRecord)) as cursor:
        return cursor.execute(_TRACKED, {"name": name}).fetchall()


def start_tracking(
    connection: Connection, name: str, *, had_column: bool, had_index: bool, by: str
) -> None:
    """Write down, before anything is changed, what a table had; the first word of it stands."""
    connection.execute(_TRACK, (name, had_column, had_index, by))


def end_tracking(connection: Connection, name: str) -> None:
    """Write down that a table is tracked."""
    connection.execute(_TRACKING_DONE, (name,))


def forget_tracking(connection: Connection, name: str) -> None:
    """Remove the word of a table that is no longer tracked, and of adopted batches' rows in it."""
    connection.execute(_FORGET_TRACKED, {"name": name})


def adopted(connection: Connection, name: str | None = None) -> list[AdoptedRecord]:
    """Read the histories that were adopted, or the one of a name."""
    return [
        AdoptedRecord(table, Options(**options), *rest)
        for table, options, *rest in connection.execute(_ADOPTED, {"name": name}).fetchall()
    ]


def start_adoption(
    connection: Connection,
    name: str,
    options: Options,
    *,
    had_column: bool,
    had_unique: bool,
    had_not_null: bool,
    by: str,
) -> None:
    """Write down how a history is read and, the first time, what it had before anything is changed."""
    said = {"columns": dict(options.columns), "states": dict(options.states), "feed": options.feed}
    connection.execute(_ADOPT, (name, Jsonb(said), had_column, had_unique, had_not_null, by))


def end_adoption(connection: Connection, name: str) -> None:
    """Write down that a history is adopted."""
    connection.execute(_ADOPTION_DONE, (name,))


def forget_adoption(connection: Connection, name: str) -> None:
    """Remove the word of a history that is no longer adopted."""
    connection.execute(_FORGET_ADOPTED, (name,))
