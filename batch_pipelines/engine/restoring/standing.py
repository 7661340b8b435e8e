"""What the catalog says of the tables that rows are to come back into: are they as they were?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import sql

from batch_pipelines.engine.archiving.rows.shape import columns_of
from batch_pipelines.engine.catalog import STAMP, is_stamped, read_table
from batch_pipelines.engine.restoring.plan import Obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.archiving.rows.account import TableRows
    from batch_pipelines.engine.postgres.database import Connection

_TRIGGERS: Final = """
SELECT tgname FROM pg_trigger
WHERE tgrelid = to_regclass(%s) AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 4 <> 0
ORDER BY tgname
"""


def obstacles_of(connection: Connection, table: TableRows) -> Iterator[Obstacle]:
    """Hold a table of today against what it was when its rows were put away.

    Args:
        connection: A connection.
        table: What the bag says of it.

    Yields:
        What keeps its rows from coming back as they were.
    """
    name = table.full_name
    if not is_stamped(connection, name):
        text = f"the table, or its column {STAMP}, is gone; create it as it was"
        yield Obstacle("table", name, text)
        return
    now = {column: (kind, made) for column, kind, made in columns_of(connection, name)}
    for column in table.columns:
        found = now.get(column.name)
        if found is None:
            text = f"column {column.name} ({column.type_name}) is gone; add it again"
            yield Obstacle("column", name, text)
        elif found != (column.type_name, column.generated):
            was, is_now = _told(column.type_name, made=column.generated), _told(*found)
            text = f"column {column.name} is {is_now} and was {was}; change it back"
            yield Obstacle("column", name, text)
    held = {column.name for column in table.columns}
    for new in read_table(connection, None, name).columns:
        if new.name not in held and new.not_null and not new.has_default:
            text = f"column {new.name} was added and needs a value; give it a default"
            yield Obstacle("column", name, text)


def notes_of(connection: Connection, table: TableRows) -> Iterator[str]:
    """Say what a restore does to a table beside bringing rows back.

    Args:
        connection: A connection.
        table: What the bag says of it.

    Yields:
        Sentences.
    """
    held = {column.name for column in table.columns}
    added = [name for name, *_ in columns_of(connection, table.full_name) if name not in held]
    if added:
        yield f"column {', '.join(added)} was added since, and gets its default"
    quoted = sql.Identifier(*table.full_name.split(".")).as_string(connection)
    for (trigger,) in connection.execute(_TRIGGERS, (quoted,)).fetchall():
        yield (
            f"trigger {trigger} fires as for any insert; where it changes a row, nothing is restored"
        )
    if table.since.is_same is False:
        yield "its rows had been changed since they were loaded, and come back as they were last"


def _told(kind: str, made: bool) -> str:  # as the catalog has it
    return f"{kind}, generated" if made else kind
